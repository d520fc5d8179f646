"""A server with eight clients, for hours, over an index that another process fills and is killed at. A trial is a kill.

    python -m tests.torture.soak --hours 24

The world changes all the while: files get other words, go and come back. After each kill what was acknowledged is
looked up, and at the end the index must be what an uninterrupted run makes. The server lives through all of it: every
query is answered, a file that stays as it is stays to be found, and neither its memory nor its open files grow.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from tests.search.corpus import make
from tests.torture import oracle
from tests.torture.tally import Tally
from tests.torture.victims import ROOT, Report, Victims

NAME: Final = "soak: a server, 8 clients, kills"
NUM_FILES: Final = 160
NUM_CHANGED: Final = 40
"""Files that change between two kills, so that the next run has work."""
NUM_CLIENTS: Final = 8
PAUSE_S: Final = 0.5
"""Between two queries of a client."""
SHORT_S: Final = 2.0
"""Between two kills where minutes are all there is; a soak of hours takes ``LONG_S``."""
LONG_S: Final = 60.0
WARM_S: Final = 7200.0
"""A server's memory may grow so long, or for a third of a shorter soak: caches fill."""
MOST_MB_HOUR: Final = 1.0
JUDGED_S: Final = 4 * 3600.0
"""From here the slope of memory is judged; in shorter soaks it is noise, and said only."""
MOST_FILES: Final = 12
"""Open files more at the end than when it was warm: connections and versions of the index come and go."""
ANCHOR: Final = "The lighthouse keeper counts zebras at midnight."
"""What stands in the file that is never touched."""


@dataclass(slots=True)
class Seen:
    """What the clients saw, and what the server took.

    Attributes:
        queries: answered.
        bad: answers that were none, or not right.
        samples: (seconds, megabytes, open files) of the server.
    """

    queries: int = 0
    bad: list[str] = field(default_factory=list)
    samples: list[tuple[float, float, int]] = field(default_factory=list)

    def late(self) -> list[tuple[float, float, int]]:
        """The samples of the warm server."""
        whole_s = self.samples[-1][0]
        return [one for one in self.samples if one[0] >= min(WARM_S, whole_s / 3)]

    def mb_hour(self) -> float:
        """How memory grows, by a line through the samples of the warm server."""
        seconds, megabytes, _ = zip(*self.late(), strict=True)
        return float(np.polyfit(np.asarray(seconds) / 3600.0, megabytes, 1)[0]) if len(seconds) > 2 else 0.0

    def more_files(self) -> int:
        """Files open at the end beyond those when it was warm, each as the median of a tenth of the samples."""
        late = [files for _, _, files in self.late()]
        part = max(1, len(late) // 10)
        return int(np.median(late[-part:]) - np.median(late[:part]))


def trials(number: int, seed: int, period_s: float = SHORT_S) -> Tally:
    """``number`` kills, one every ``period_s`` or sooner."""
    chance, tally, report, began_s = random.Random(seed), Tally(NAME), Report(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        index, files, away = Path(scratch, "soaked.sightline"), Path(scratch, "files"), Path(scratch, "away")
        make(files, NUM_FILES)
        (files / "anchor.txt").write_text(ANCHOR, encoding="utf-8")
        oracle.add(index, files)
        with _server(index) as (address, server), _clients(address, server, seed) as seen:
            while tally.trials < number and not seen.bad:
                _change(files, away, report, chance)
                victim = victims.start("index", Path(scratch, "log"), folder=str(index), files=str(files),
                                       delay_s=period_s / 2 / NUM_CHANGED, commit_rows=4, pool=True,
                                       merge=chance.random() < 0.2)  # fmt: skip
                time.sleep(chance.uniform(0.2, 1.0) * period_s)
                victim.kill()
                status = victim.wait()
                report.take(victim.log)
                if status == -9:
                    tally += oracle.judge(NAME, index, report)
                elif status != 0:
                    tally += Tally(NAME, deaths=1, said=f"exit {status}: {report.error} {report.crash}")
            died = server.poll() is not None
        for path in sorted(away.rglob("*.txt")):  # of what has gone the index keeps what it had
            _move(path, away, files)
        whole = oracle.Whole.of(files, Path(scratch, "whole.sightline"), pool=True)
        tally += oracle.finish(NAME, index, files, whole, pool=True)
    return tally + _judged(seen, died, time.monotonic() - began_s)


def _judged(seen: Seen, died: bool, took_s: float) -> Tally:
    """What the server made of it."""
    slope, files = seen.mb_hour(), seen.more_files()
    grown = files > MOST_FILES or (took_s >= JUDGED_S and slope >= MOST_MB_HOUR)
    figures = f"{took_s / 3600:.1f} h, {seen.queries} queries; memory {slope:+.1f} MB an hour, open files {files:+d}"
    return Tally(NAME, deaths=int(died), wrong=len(seen.bad) + grown, said=(seen.bad or [figures])[0])


def _change(files: Path, away: Path, report: Report, chance: random.Random) -> None:
    """Files get other words; some go, and come back at another time. What was acknowledged of them counts no more."""
    for path in chance.sample(sorted(files.rglob("note-*.txt")), NUM_CHANGED):
        report.files.pop(os.fspath(path), None)
        if chance.random() < 0.1:
            _move(path, files, away)
        else:
            words = f"Words of {path.stem}, number {chance.randint(0, 10**6)}.\n" * chance.randint(1, 9)
            path.write_text(words, encoding="utf-8")
    for path in sorted(away.rglob("note-*.txt")):
        if chance.random() < 0.3:
            _move(path, away, files)


def _move(path: Path, here: Path, there: Path) -> None:
    place = there / path.relative_to(here)
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)


# --- the server and its clients --------------------------------------------------------------------------------------


@contextmanager
def _server(index: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A real one with toy models, in a process of its own."""
    command = [sys.executable, "-m", "tests.torture.soak", "--serve", os.fspath(index)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError("the server did not start")
            yield f"127.0.0.1:{port}", process
        finally:
            process.terminate()
            process.wait(60.0)


def _serve(index: str) -> None:
    """The process of the server: says its port, ends with SIGTERM."""
    import uvicorn

    from sightline.server.app import create_app
    from sightline.server.services import Services
    from sightline.settings import Settings
    from sightline.testing import ToyEmbedder, ToyReranker

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            print(self.servers[0].sockets[0].getsockname()[1], flush=True)

    services = Services.of(Settings(library=index), ToyEmbedder(dim=oracle.DIM), ToyReranker())
    Server(uvicorn.Config(create_app(services), host="127.0.0.1", port=0, log_level="error")).run()


@contextmanager
def _clients(address: str, server: subprocess.Popen[str], seed: int) -> Iterator[Seen]:
    """Eight threads that ask, and one that looks at the server's memory, until the block ends."""
    seen, stop, lock = Seen(), threading.Event(), threading.Lock()

    def ask(number: int) -> None:
        chance = random.Random(f"{seed}-{number}")
        link = http.client.HTTPConnection(address, timeout=60.0)
        while not stop.wait(chance.uniform(0, 2 * PAUSE_S)):
            is_anchor = chance.random() < 0.2
            text = ANCHOR if is_anchor else f"words of note number {chance.randint(0, 10**6)}"
            try:
                wrong = _wrong(link, text, is_anchor)
            except (OSError, http.client.HTTPException, ValueError) as error:
                wrong = f"no answer: {error!r}"
            with lock:
                seen.queries += 1
                if wrong:
                    seen.bad.append(wrong)
        link.close()

    def look() -> None:
        process, began_s = psutil.Process(server.pid), time.monotonic()
        while not stop.is_set() and server.poll() is None:
            took_s = time.monotonic() - began_s
            seen.samples.append((took_s, process.memory_info().rss / 2**20, process.num_fds()))
            stop.wait(max(0.5, took_s / 1000))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(NUM_CLIENTS)]
    threads.append(threading.Thread(target=look))
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _wrong(link: http.client.HTTPConnection, text: str, is_anchor: bool) -> str:
    """What is wrong with the answer to a query, or ""."""
    body = json.dumps({"text": text, "rerank": 0, "k": 5})
    link.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
    answer = link.getresponse()
    said = answer.read()
    if answer.status != 200:
        return f"{answer.status}: {said[:150]!r}"
    hits = json.loads(said)["hits"]
    if not hits:
        return "no hits"
    if is_anchor and Path(hits[0]["path"]).name != "anchor.txt":
        return f"the file that stays was not found: {Path(hits[0]['path']).name}"
    return ""


def main() -> int:
    """Soak for hours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--period", type=float, default=LONG_S, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        _serve(given.serve)
        return 0
    kills = max(1, round(given.hours * 3600 / (0.6 * given.period)))
    tally = trials(kills, given.seed, given.period)
    print(tally)
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
