"""``index`` and ``remove``: files into the index, and out of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from sightline.cli import models
from sightline.cli.show import INTERRUPTED, clean, console, duration, note, number, put_json, say, short_path
from sightline.errors import ConfigError
from sightline.search import events
from sightline.search.prune import PruneReport
from sightline.settings import Settings
from sightline.types import AddReport, Skipped

PLAIN_EVERY_S: Final = 30.0
"""Seconds between lines of progress where there is no terminal."""
MOST_LISTED: Final = 200
"""Failed files listed on the screen; ``--json`` and ``doctor`` have all."""


def index(
    paths: Sequence[Path],
    settings: Settings,
    *,
    model: str | None,
    reranker: str | None,
    revision: str | None,
    columns: Sequence[str],
    rebuild: bool,
    verify: bool,
    retry: bool,
    prune: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Add files, then prune if asked, then say what became of every file."""
    values = parse_columns(columns)
    started_s = time.monotonic()
    with models.open_to_index(settings, model=model, reranker=reranker, revision=revision, rebuild=rebuild) as library:
        with Shown() as shown:
            report = library.add(
                [str(path) for path in paths],
                columns=values or None,
                verify=verify,
                retry=retry,
                on_event=shown.event,
            )
        seconds = time.monotonic() - started_s
        pruned = None
        if prune and not report.interrupted:
            pruned = library.prune(dry_run=not yes, force=yes)
            if not yes and pruned.vanished and not as_json and sys.stdin.isatty():
                _say_pruned(pruned)
                if typer.confirm("take them out of the index?"):
                    pruned = library.prune(dry_run=False)
        if as_json:
            put_json(_as_dict(report, pruned, seconds, library))
        else:
            _say_report(report, pruned, seconds, library)
    if report.interrupted:
        raise typer.Exit(INTERRUPTED)


def remove(paths: Sequence[Path], settings: Settings, *, as_json: bool) -> None:
    """Take files and folders out of the index; the originals stay."""
    with models.open_to_look(settings) as library:
        count = library.remove([str(path) for path in paths])
    if as_json:
        put_json({"removed": count})
    else:
        say(f"{number(count, 'file')} taken out of the index; the originals stay")


def parse_columns(pairs: Sequence[str]) -> dict[str, Any]:
    """``name=value`` as columns: whole numbers, numbers, true and false as such, everything else as text.

    >>> parse_columns(["year=2024", "rating=4.5", "mine=true", "album=1st trip"])
    {'year': 2024, 'rating': 4.5, 'mine': True, 'album': '1st trip'}
    """
    columns: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes column=value, not {pair!r}")
        columns[name] = _value(text)
    return columns


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class Shown:
    """Progress on standard error: a bar on a terminal, a line each half minute elsewhere."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console(sys.stderr)
        self._clock_s = clock_s
        self._bar: Progress | None = None
        self._files = self._done = self._units = 0
        self._start_s = self._told_s = clock_s()

    def __enter__(self) -> Shown:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("files", markup=False),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("looking for files", total=None, rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def event(self, event: events.Event) -> None:
        """Draw one event of ``Library.add``."""
        match event:
            case events.Counted(files=files):
                self._files = files
            case events.FileStarted(path=path) if self._bar is not None:
                self._bar.update(self._task, description=short_path(path)[-48:])
            case events.FileDone(units=units):
                self._done += 1
                self._units += units
            case events.FileUnchanged() | events.FileSkipped() | events.FileDeferred():
                self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, total=max(self._files, self._done), rate=self._rate())
        elif self._clock_s() - self._told_s >= PLAIN_EVERY_S:
            self._told_s = self._clock_s()
            left = self._left()
            note(f"{self._done:,} of {number(self._files, 'file')}, {self._rate()}{left}")

    def _rate(self) -> str:
        return f"{self._done / max(self._clock_s() - self._start_s, 1e-9):.1f}/s"

    def _left(self) -> str:
        if not 0 < self._done < self._files:
            return ""
        seconds = (self._clock_s() - self._start_s) / self._done * (self._files - self._done)
        return f", about {duration(seconds)} left"


def _as_dict(report: AddReport, pruned: PruneReport | None, seconds: float, library: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "library": str(library.path),
        "model": library.model.model,
        "reranker": library.reranker_name or None,
        "seen": report.seen,
        "indexed": report.indexed,
        "unchanged": report.unchanged,
        "deferred": report.deferred,
        "units": report.units,
        "skipped": report.skipped,
        "interrupted": report.interrupted,
        "seconds": round(seconds, 3),
        "pruned": pruned,
    }
    return value


def _say_report(report: AddReport, pruned: PruneReport | None, seconds: float, library: Any) -> None:
    if report.skipped:
        say_skipped(report.skipped)
    if pruned is not None:
        _say_pruned(pruned)
    parts = [f"{number(report.indexed, 'file')} indexed ({number(report.units, 'unit')})"]
    if report.unchanged:
        parts.append(f"{report.unchanged:,} unchanged")
    if report.deferred:
        parts.append(f"{report.deferred:,} left for the next run")
    if report.interrupted:
        say(f"stopped: {', '.join(parts)}, {len(report.skipped)} skipped. The next run goes on from here.")
        return
    rate = f", {report.indexed / seconds:.1f} files/s" if report.indexed and seconds > 0 else ""
    place = short_path(str(library.path))
    say(f"done, {len(report.skipped)} skipped: {', '.join(parts)} in {duration(seconds)}{rate}, {place}")


def say_skipped(skipped: Sequence[Skipped], heading: str | None = None) -> None:
    """The files that were not indexed, each with its reason."""
    say(Text(heading or f"{number(len(skipped), 'file')} skipped:", style="bold"))
    for one in skipped[:MOST_LISTED]:
        say(Text.assemble("  ", (short_path(one.path), "yellow"), f": {clean(one.detail)} [{one.code}]"))
    if len(skipped) > MOST_LISTED:
        say(f"  … and {len(skipped) - MOST_LISTED:,} more; `sightline doctor --json` lists them all")


def _say_pruned(pruned: PruneReport) -> None:
    verb = "would be taken out; add --yes to do it" if pruned.dry_run else "taken out"
    for path in pruned.vanished[:MOST_LISTED]:
        say(f"  gone: {short_path(path)}")
    say(f"{number(len(pruned.vanished), 'vanished file')} ({number(pruned.rows, 'unit')}) {verb}")
    for refusal in pruned.refused:
        share = f"{refusal.vanished:,} of {number(refusal.files, 'file')}"
        why = f": {refusal.reason} ({share}); --prune --yes takes them out"
        say(Text.assemble((f"  not touched: {short_path(refusal.root)}", "yellow"), why))
