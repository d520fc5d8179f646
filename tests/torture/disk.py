"""A disk that is full, and a folder that cannot be written. A trial is one size of the disk, or one folder.

A small file system is mounted where that is allowed; elsewhere the process is told that the disk is full when it has
written so many bytes.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.torture import oracle
from tests.torture.failpoints import fresh, prepare, settle
from tests.torture.tally import Tally
from tests.torture.victims import Report, Victims

FULL: Final = "full disk"
READ_ONLY: Final = "folder that cannot be written"
NUM_READ_ONLY: Final = 2
NOBODY: Final = 65534
ROOMY: Final = 64 * 2**20


def trials(number: int, seed: int) -> list[Tally]:
    """``number`` sizes of a disk, from too small for anything to nearly enough; and two folders."""
    chance = random.Random(seed)
    full = Tally(FULL)
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        room = Path(scratch, "room")
        corpus, whole = prepare(Path(scratch))
        can_mount = _mounted(Path(scratch, "probe"), ROOMY)
        if can_mount:
            _unmount(Path(scratch, "probe"))
        if not can_mount and not victims.can_fault:
            return [Tally(FULL, said="not tried: nothing can be mounted, and there is no C compiler")]
        needed = _needed(victims, room, corpus)
        for one in range(number):
            size = round(needed * (one + chance.random()) / number)
            full += _full(victims, room, corpus, whole, size, can_mount)
        full += Tally(FULL, said="file systems of " + f"0 to {needed >> 10} kB" if can_mount else "by budget of bytes")
        return [full, _read_only(victims, room, corpus)]


def _needed(victims: Victims, room: Path, corpus: Path) -> int:
    """Bytes that a whole life takes."""
    index, files = fresh(room, corpus)
    victims.start("life", room / "log", folder=str(index), files=str(files)).wait()
    return sum(-(-path.stat().st_size // 4096) * 4096 + 512 for path in index.rglob("*"))


def _mounted(place: Path, size: int) -> bool:
    """Whether a file system of this size is there now, mounted or grown."""
    place.mkdir(exist_ok=True)
    grow = ["-o", f"{'remount,' if os.path.ismount(place) else ''}size={max(size, 4096)},mode=755"]
    command = ["mount", "-t", "tmpfs", *grow, "none", str(place)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def _unmount(place: Path) -> None:
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=True)


def _full(victims: Victims, room: Path, corpus: Path, whole: oracle.Whole, size: int, can_mount: bool) -> Tally:
    _, files = fresh(room, corpus)
    place = room / "disk"
    index = place / "a.sightline"
    with contextlib.ExitStack() as after:
        if can_mount:
            assert _mounted(place, size)
            after.callback(_unmount, place)
        else:
            place.mkdir()
        victim = victims.start("life", room / "log", folder=str(index), files=str(files),
                               budget=-1 if can_mount else size)  # fmt: skip
        status, report = victim.wait(), Report().take(victim.log)
        tally = Tally(FULL, 1)
        if status not in (0, 1):
            tally += Tally(FULL, deaths=1, said=f"{size} bytes: exit {status} {report.crash}")
        elif status == 1 and "disk is full" not in report.error and "No space left" not in report.error:
            tally += Tally(FULL, wrong=1, said=f"{size} bytes: {report.error}")
        if can_mount and index.exists():  # what is there can be searched while the disk is full
            tally += _searched(victims, room, index, report, size)
        if can_mount:
            assert _mounted(place, ROOMY)
        tally += oracle.judge(FULL, index, report) if report.files else Tally(FULL)
        settle(files)
        tally += oracle.finish(FULL, index, files, whole)
    return replace(tally, trials=1)


def _searched(victims: Victims, room: Path, index: Path, report: Report, size: int) -> Tally:
    if not report.files:
        return Tally(FULL)
    victim = victims.start("look", room / "look", folder=str(index))
    status, looked = victim.wait(), Report().take(victim.log)
    found = any(word.startswith("found") and word != "found 0" for word in looked.words)
    return Tally(FULL, wrong=int(not found),
                 said="" if found else f"{size} bytes: no search, exit {status} {looked.error} {looked.crash}")  # fmt: skip


def _read_only(victims: Victims, room: Path, corpus: Path) -> Tally:
    """As another user, or in folders without the right to write; and on a disk that is mounted to be read."""
    tally = Tally(READ_ONLY)
    index, files = fresh(room, corpus)
    room.chmod(0o755)
    room.parent.chmod(0o755)
    oracle.add(index, files)
    with _without_rights(index):
        tally += _refused(victims, room, index, files, NOBODY if os.geteuid() == 0 else 0)
    place = room / "mounted"
    place.mkdir()
    bind = ["mount", "--bind", str(index), str(place)]
    if os.geteuid() == 0 and subprocess.run(bind, capture_output=True, check=False).returncode == 0:
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], capture_output=True, check=True)
            tally += _refused(victims, room, place, files, 0)
        finally:
            _unmount(place)
    judged = oracle.judge(READ_ONLY, index, Report())
    shutil.rmtree(room)
    return tally + Tally(READ_ONLY, unopenable=judged.unopenable)


@contextlib.contextmanager
def _without_rights(folder: Path) -> Iterator[None]:
    modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def _refused(victims: Victims, room: Path, index: Path, files: Path, user: int) -> Tally:
    victim = victims.start("refused", room / "log", folder=str(index), files=str(files), user=user)
    status, report = victim.wait(), Report().take(victim.log)
    why = next((word for word in report.words if word.startswith("exit 5")), "")
    good = "found 5" in report.words and "cannot be written" in why
    good = good and any(reason in why for reason in ("read-only", "Read-only", "denied"))
    return Tally(READ_ONLY, 1, deaths=int(status is None), wrong=int(not good),
                 said="" if good else f"{report.words} {report.error}")  # fmt: skip
