"""The row that a torture test leaves in the table."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Tally:
    """What happened in the trials of one test.

    Attributes:
        test: its name in the table.
        trials: how often it was tried: kills, states, queries, files, inputs.
        lost: things that had been acknowledged and were not there afterwards, or not accounted for.
        duplicated: things that were there more than once.
        unopenable: indexes that did not open by themselves afterwards.
        deaths: processes that should have lived and died or hung.
        wrong: any other answer than the one stated for the test.
        seconds: wall time of all trials.
        said: one line about the first failure, or a figure worth knowing.
    """

    test: str
    trials: int = 0
    lost: int = 0
    duplicated: int = 0
    unopenable: int = 0
    deaths: int = 0
    wrong: int = 0
    seconds: float = 0.0
    said: str = ""

    @property
    def clean(self) -> bool:
        """Something was tried, and nothing failed."""
        return self.trials > 0 and not (self.lost or self.duplicated or self.unopenable or self.deaths or self.wrong)

    def __add__(self, other: Tally) -> Tally:
        """The trials of both, under the name of the first."""
        counted = ("trials", "lost", "duplicated", "unopenable", "deaths", "wrong", "seconds")
        sums = {name: getattr(self, name) + getattr(other, name) for name in counted}
        return replace(self, **sums, said=self.said or other.said)


HEADINGS = ("test", "trials", "lost", "duplicated", "unopenable", "parent deaths", "wrong", "seconds", "note")


def table(tallies: list[Tally]) -> str:
    """Markdown, one row a test."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for tally in tallies:
        values = [getattr(tally, field.name) for field in fields(tally)]
        lines.append("| " + " | ".join(f"{v:.0f}" if isinstance(v, float) else str(v) for v in values) + " |")
    return "\n".join(lines)
