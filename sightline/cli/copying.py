"""``backup`` and ``restore``: a copy of an index, and an index of a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sightline.cli.show import number, put_json, say, short_path
from sightline.search.find import absolute

if TYPE_CHECKING:
    from sightline.store.backup import BackupReport


def backup(index: Path, out: Path, *, as_json: bool) -> None:
    """Copy an index into a new folder."""
    from sightline.store.backup import back_up

    _say("copied to", back_up(Path(absolute(index)), Path(absolute(out))), as_json)


def restore(out: Path, index: Path, *, as_json: bool) -> None:
    """Make an index of a copy, and open it once."""
    from sightline.library import Library
    from sightline.store import backup

    report = backup.restore(Path(absolute(out)), Path(absolute(index)))
    Library.open(index).close()
    _say("restored to", report, as_json)


def _say(done: str, report: BackupReport, as_json: bool) -> None:
    if as_json:
        put_json(report)
        return
    size = f"{report.bytes / 1e6:.1f} MB"
    say(f"{number(report.rows, 'unit')} in {number(report.files, 'file')}, {size}, {done} {short_path(report.path)}")
