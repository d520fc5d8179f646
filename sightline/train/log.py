"""What a run tells: a CSV file, TensorBoard where it is installed, a line on the screen, a picture of the curves."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from sightline.errors import MissingExtraError

COLUMNS: Final = ("step", "task", "loss", "accuracy", "rate", "grad_norm", "tokens_s", "seconds", "more")
"""Of the CSV file. ``more`` has further figures of a step as name=value, parted by spaces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One step.

    Attributes:
        step: from 1.
        task: whose batch it was.
        loss: of the batch.
        accuracy: see ``contrast.accuracy``; nan where there is none.
        rate: learning rate.
        grad_norm: of all gradients together, before clipping.
        tokens_s: tokens a second through the decoder, of all processes.
        seconds: since the run began, time before an interruption included.
        more: other figures of the step.
    """

    step: int
    task: str
    loss: float
    accuracy: float
    rate: float
    grad_norm: float
    tokens_s: float
    seconds: float
    more: Mapping[str, float] = field(default_factory=dict)


class Log:
    """The log of one run in a folder: ``log.csv``, and ``tensorboard/`` where that is installed.

    Args:
        folder: of the run.
        done: steps of the checkpoint that the run goes on from; what an interrupted run wrote after it is dropped.
        steps: of the whole run, for the progress display.
        screen: show progress on standard error.
    """

    def __init__(self, folder: Path, *, done: int, steps: int, screen: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.csv"
        kept = [line for line in read(self.path) if line.step <= done] if done and self.path.is_file() else []
        self.seconds_before = kept[-1].seconds if kept else 0.0
        partial = self.path.with_suffix(".partial")
        with partial.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *(_row(line) for line in kept)])
        partial.replace(self.path)
        self._file: TextIO = self.path.open("a", encoding="utf-8", newline="")
        self._writer: Any = csv.writer(self._file)
        self._board = _board(folder / "tensorboard", done)
        self._screen = Screen(steps, done) if screen else None

    def write(self, line: Line) -> None:
        """Adds a step; it is in the file when this returns."""
        self._writer.writerow(_row(line))
        self._file.flush()
        if self._board is not None:
            figures = {"loss": line.loss, "accuracy": line.accuracy, **line.more}
            for name, value in figures.items():
                self._board.add_scalar(f"{line.task}/{name}", value, line.step)
            for name in ("rate", "grad_norm", "tokens_s"):
                self._board.add_scalar(name, getattr(line, name), line.step)
        if self._screen is not None:
            self._screen.show(line)

    def close(self) -> None:
        """Ends the display and the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._screen is not None:
            self._screen.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Screen:
    """Progress on standard error: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, steps: int, done: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._steps = steps
        self._console = Console(stderr=True, markup=False, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done)
        self._bar.start()

    def show(self, line: Line) -> None:
        """The newest step."""
        text = f"{line.task}  loss {line.loss:.4f}  accuracy {line.accuracy:.2f}  {line.tokens_s:,.0f} tokens/s"
        self._bar.update(self._task, completed=line.step, description=text)
        every = max(1, self._steps // 20)
        if not self._console.is_terminal and (line.step % every == 0 or line.step == self._steps):
            self._console.print(f"step {line.step} of {self._steps}  {text}", soft_wrap=True)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.stop()


def _board(folder: Path, done: int) -> Any:
    """TensorBoard's writer; None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1 if done else None)


def _row(line: Line) -> list[str]:
    more = " ".join(f"{name}={value:.6g}" for name, value in line.more.items())
    # nine digits give a float32 back as it was
    numbers = (line.loss, line.accuracy, line.rate, line.grad_norm)
    return [
        str(line.step),
        line.task,
        *(f"{number:.9g}" for number in numbers),
        f"{line.tokens_s:.0f}",
        f"{line.seconds:.2f}",
        more,
    ]


def read(path: Path) -> list[Line]:
    """The lines of a log; one that a kill cut short is left out."""
    out = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            if len(row) != len(COLUMNS) or row[0] == COLUMNS[0]:
                continue
            more = dict(part.split("=", 1) for part in row[8].split())
            out.append(
                Line(
                    step=int(row[0]),
                    task=row[1],
                    loss=float(row[2]),
                    accuracy=float(row[3]),
                    rate=float(row[4]),
                    grad_norm=float(row[5]),
                    tokens_s=float(row[6]),
                    seconds=float(row[7]),
                    more={name: float(value) for name, value in more.items()},
                )
            )
    return out


# --- the picture -----------------------------------------------------------------------------------------------------

PANELS: Final = (
    ("loss", "loss"),
    ("accuracy", "accuracy"),
    ("grad_norm", "norm of the gradients"),
    ("rate", "learning rate"),
    ("tokens_s", "tokens a second"),
)
BY_TASK: Final = ("loss", "accuracy")
"""Figures that are compared within a task only."""


def draw_curves(lines: Sequence[Line], path: Path, *, title: str = "") -> None:
    """Writes a picture: a small panel for each figure, each step as a dot, the smoothed course as a line.

    Raises:
        MissingExtraError: without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "train") from None
    tasks = sorted({line.task for line in lines})
    shown = [panel for panel in PANELS if any(math.isfinite(getattr(line, panel[0])) for line in lines)]
    columns = min(3, len(shown))
    rows = -(-len(shown) // max(1, columns))
    figure = Figure(figsize=(4.2 * max(1, columns), 2.8 * max(1, rows) + 0.5), layout="constrained")
    for place, (name, label) in enumerate(shown):
        axes = figure.add_subplot(rows, columns, place + 1)
        groups = tasks if name in BY_TASK else [""]
        for index, task in enumerate(groups):
            points = [(line.step, getattr(line, name)) for line in lines if task in ("", line.task)]
            points = [point for point in points if math.isfinite(point[1])]
            if not points:
                continue
            steps, values = zip(*points, strict=True)
            colour = f"C{index % 10}"
            if name == "rate":
                axes.plot(steps, values, color=colour, linewidth=1.5)
                continue
            axes.plot(steps, values, ".", color=colour, alpha=0.25, markersize=3, markeredgewidth=0)
            axes.plot(steps, smoothed(values), color=colour, linewidth=1.5, label=task or None)
        axes.set_title(label, fontsize=10)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.02)
        if name == "accuracy":
            axes.set_ylim(-0.03, 1.03)
        if place >= len(shown) - columns:
            axes.set_xlabel("step", fontsize=9)
        if name == BY_TASK[0] and 1 < len(tasks) <= 12:
            axes.legend(fontsize=7, frameon=False)
    if title:
        figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a twentieth of the values, without the pull to 0 at the beginning.

    >>> smoothed([2.0, 2.0, 2.0])
    [2.0, 2.0, 2.0]
    """
    keep = 1 - 1 / max(1.0, len(values) / 20)
    total = weight = 0.0
    out = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        out.append(total / weight)
    return out


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr)
