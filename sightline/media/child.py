"""The decoder's process: takes a path, gives units, and has as few rights as an ordinary user can take away.

Started by ``DecodePool``; not meant to be run by hand. What it gives up, where the system lets it:

=================  ====================================================================================
memory             ``RLIMIT_AS`` of ``settings.decode_memory_bytes``
writing files      ``RLIMIT_FSIZE`` 0: any write to a file fails; no core dumps
network            an empty network namespace (Linux; root, or where user namespaces are allowed)
new rights         ``PR_SET_NO_NEW_PRIVS`` (Linux)
outliving parent   ``PR_SET_PDEATHSIG`` SIGKILL (Linux); elsewhere the end of its input pipe
the terminal       Ctrl-C is ignored; standard input, output and error are closed
=================  ====================================================================================
"""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
from typing import Any, Final

CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
"""From linux/sched.h and linux/prctl.h."""


def harden(parent: int) -> dict[str, bool]:
    """Give up rights, before any decoder is loaded; says what the system granted.

    Args:
        parent: process id of the parent, to notice when it died before the signal was set.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    held = {"files": False, "network": False, "rights": False, "parent": False}
    try:
        import resource
    except ImportError:  # not a Unix
        return held
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    held["files"] = True
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        held["parent"] = libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
        if os.getppid() != parent:
            os._exit(0)
        # root keeps its rights to read files by taking the first form; others need a user namespace of their own
        held["network"] = libc.unshare(CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
        held["rights"] = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    return held


def limit_memory(num_bytes: int) -> bool:
    """Bound the address space; False where the system has no such limit."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
    except (ImportError, ValueError, OSError):
        return False
    return True


def _take_pipes() -> tuple[io.FileIO, io.FileIO]:
    """The pipes of the parent on other numbers, so that nothing a decoder prints or reads touches them."""
    requests = io.FileIO(os.dup(0), "rb")
    answers = io.FileIO(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    return requests, answers


def main(parent: int) -> None:
    """Answer requests until the parent closes its pipe."""
    requests, answers = _take_pipes()
    held = harden(parent)
    from sightline.errors import MediaError
    from sightline.media import wire
    from sightline.settings import Settings

    try:
        first, _ = wire.receive(requests)
        settings = Settings(**first["settings"])
        held["memory"] = limit_memory(settings.decode_memory_bytes)
        wire.send(answers, {"is": "ready", "held": held})
        while True:
            request, _ = wire.receive(requests)
            try:
                _answer(request, settings, answers)
            except MediaError as error:
                wire.send(answers, *wire.pack(error))
            except MemoryError:
                wire.send(answers, *wire.pack(MediaError("memory")))
            wire.send(answers, {"is": "end"})
    except (wire.Broken, BrokenPipeError):
        return


def _answer(request: dict[str, Any], settings: Any, answers: io.FileIO) -> None:
    from sightline.media import units, wire

    path = os.fsencode(request["path"])
    if request["op"] == "units":
        for value in units.units(os.fsdecode(path), settings):
            wire.send(answers, *wire.pack(value))
    else:
        place = (request["kind"], request["page"], request["start_s"], request["end_s"])
        wire.send(answers, *wire.pack(units.unit(os.fsdecode(path), *place, settings)))
