"""Processes that are killed, failed and starved: forked, by the hundred, from one that has done all the imports.

``Victims`` starts ``python -m tests.torture.victims``, which imports the library and then forks a child for each
order it reads. It has run nothing before it forks, so a child is what a process is that just started; importing anew
would take ten times as long as what is tried. Each child writes what it did, line by line, to a file of its own:

    file PATH UNITS     the file is acknowledged: indexed, with so many units
    change PATH         the file is about to change: what was acknowledged counts no more
    remove PATH         the file is about to be taken out of the index
    removed PATH        that is acknowledged
    broken              what was ordered to fail has failed, before this line
    error TEXT          the run ended with an error of ours
    crash TEXT          the run ended with another error
    seen NUMBER         so many things were done to files
    end                 the run came to its end
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.torture import faults

ROOT: Final = Path(__file__).parents[2]
HUNG_S: Final = 240.0
"""Seconds after which a process that should have ended counts as hung; far more than any needs on a busy machine."""


@dataclass(slots=True)
class Report:
    """What a child wrote.

    Attributes:
        files: units of each acknowledged file.
        removed: files whose removal is acknowledged.
        late: acknowledgements after the ordered failure.
        error, crash: how the run ended, if not well.
        seen: things done to files.
        ended: whether it came to its end.
        words: every line.
    """

    files: dict[str, int] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    late: int = 0
    error: str = ""
    crash: str = ""
    seen: int = 0
    ended: bool = False
    broken: bool = False
    words: list[str] = field(default_factory=list)

    def take(self, log: Path) -> Report:
        """Go on with the lines of a file; a line that a kill cut off does not count."""
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        self.error = self.crash = ""
        self.broken = self.ended = False
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            self.words.append(line[:-1])
            word, _, rest = line[:-1].partition(" ")
            if word == "file":
                path, _, units = rest.rpartition(" ")
                self.files[path] = int(units)
                self.removed.discard(path)
                self.late += self.broken
            elif word in ("change", "remove"):
                self.files.pop(rest, None)
                self.removed.discard(rest)
            elif word == "removed":
                self.removed.add(rest)
                self.late += self.broken
            elif word == "broken":
                self.broken = True
            elif word == "error":
                self.error = rest
            elif word == "crash":
                self.crash = rest
            elif word == "seen":
                self.seen = int(rest)
            elif word == "end":
                self.ended = True
        return self


class Victim:
    """One child.

    Attributes:
        pid: its process id.
        log: what it writes.
    """

    def __init__(self, keeper: Victims, pid: int, log: Path) -> None:
        self._keeper = keeper
        self.pid = pid
        self.log = log

    def wait_for(self, word: str, number: int, timeout_s: float = HUNG_S) -> bool:
        """Until it wrote so many lines that start with a word, or ended; whether it did."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            text = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
            if sum(line.startswith(word) for line in text.splitlines()) >= number:
                return True
            if self._keeper.ask({"do": "ended", "pid": self.pid}) is not None:
                return False
            time.sleep(0.002)
        return False

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float = HUNG_S) -> int | None:
        """Its exit status, -9 for SIGKILL; None when it hung, and was killed for that."""
        status: int | None = self._keeper.ask({"do": "wait", "pid": self.pid, "timeout_s": timeout_s})
        return status


class Victims:
    """The keeper of children, as a context manager; those that are left are killed at its end."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        library = faults.library()
        if library is not None:
            environment["LD_PRELOAD"] = str(library)
        self.can_fault = library is not None
        command = [sys.executable, "-m", "tests.torture.victims"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(HUNG_S)
        self._process.stdout.close()

    def ask(self, order: dict[str, Any]) -> Any:
        """Give an order, get its answer."""
        with self._lock:
            assert self._process.stdin is not None and self._process.stdout is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the keeper of the child processes has died")
        return json.loads(answer)

    def start(self, verb: str, log: Path, **options: Any) -> Victim:
        """Fork a child that does something: see the functions of ``deeds``."""
        log.unlink(missing_ok=True)
        pid = self.ask({"do": "start", "verb": verb, "log": str(log), "options": options})
        return Victim(self, pid, log)


# --- in the keeper ---------------------------------------------------------------------------------------------------


def _run(deed: Callable[..., None], log: str, options: dict[str, Any]) -> int:
    """In the child."""
    from sightline.errors import SightlineError

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)

    def say(*words: object) -> None:
        if faults.library() is not None and not told and faults.fired():
            told.append(True)
            os.write(descriptor, b"broken\n")
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())

    told: list[bool] = []
    faulthandler.register(signal.SIGUSR1, file=descriptor)
    try:
        deed(say, **options)
        say("end")
    except SightlineError as error:
        say("error", type(error).__name__, error)
        return 1
    except BaseException as error:  # whatever it was, the parent is told
        say("crash", repr(error), traceback.format_exc().replace("\n", " | "))
        return 2
    return 0


def _status(wait_status: int) -> int:
    return os.waitstatus_to_exitcode(wait_status)


def _wait(pid: int, timeout_s: float) -> int | None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        have, status = os.waitpid(pid, os.WNOHANG)
        if have:
            return _status(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGUSR1)  # where it hangs goes into its report
    time.sleep(1.0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def main() -> None:
    """Read orders, fork."""
    warnings.simplefilter("ignore")
    from tests.torture import deeds

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: set[int] = set()
    ended: dict[int, int] = {}
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any = None
        if order["do"] == "start":
            answer = os.fork()
            if answer == 0:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                quiet = os.open(os.devnull, os.O_RDWR)
                for descriptor in (0, 1):
                    os.dup2(quiet, descriptor)
                status = _run(getattr(deeds, order["verb"]), order["log"], order["options"])
                os._exit(status)
            running.add(answer)
            ended.pop(answer, None)  # numbers of processes come round again: this one has not ended
        elif order["pid"] in ended:
            answer = ended[order["pid"]]
        elif order["do"] == "ended":
            have, status = os.waitpid(order["pid"], os.WNOHANG)
            if have:
                answer = ended[order["pid"]] = _status(status)
        else:
            answer = _wait(order["pid"], order["timeout_s"])
            ended[order["pid"]] = -9 if answer is None else answer
        if order["do"] != "start" and answer is not None:
            running.discard(order["pid"])
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
