"""How well the built-in models do on what they never saw: ``sightline train evaluate-builtin --data DIR``.

Everything goes through the public ``Embedder`` and ``Reranker``; vectors are cut and rounded by ``sightline.vectors``.
The questions stand in ``trials``; here they are asked, counted and set as the tables that the model card quotes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sightline.errors import ConfigError
from sightline.protocols import EmbeddingModel, RerankingModel
from sightline.train.builtin.corpus import Corpus
from sightline.train.builtin.trials import TRIALS, Trial, defined_elsewhere
from sightline.vectors import convert, shorten, similarity

Matrix = NDArray[np.float32]

RESCORED: Final = 50
"""Candidates that binary vectors choose and float vectors order: as many as a search hands to its second stage."""
RERANKED: Final = 10
"""First candidates that the reranker judges."""
QUICK: Final = 0.1
"""Share of queries and candidates of a quick run."""
Z: Final = 1.959964
"""Standard deviations of a 95 % interval."""
DRAWS: Final = 2000
"""Of the bootstrap."""
VARIANTS: Final = ("dim128", "dim64", "int8", "binary")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured trial; shares are in [0, 1], None where there is nothing to say.

    Attributes:
        name, task, measure: which trial, in words, and what was counted.
        n: queries.
        candidates: of each query.
        value, low, high: the measure with full vectors, and its 95 % interval.
        floor, reached: what it has to reach, and whether it does.
        dim128, dim64, int8, binary: the same measure with shorter or coarser vectors; binary vectors choose
            ``RESCORED`` candidates that full vectors order, and mean nothing among fewer.
        reranked, reranked_low, reranked_high: the measure after the first ``RERANKED`` candidates are judged.
        reranked_floor, reranked_reached: as above.
    """

    name: str
    task: str
    measure: str
    n: int
    candidates: int
    value: float
    low: float
    high: float
    floor: float | None = None
    reached: bool | None = None
    dim128: float | None = None
    dim64: float | None = None
    int8: float | None = None
    binary: float | None = None
    reranked: float | None = None
    reranked_low: float | None = None
    reranked_high: float | None = None
    reranked_floor: float | None = None
    reranked_reached: bool | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A run: which models, what they reached, how long it took.

    Attributes:
        embedder, reranker: names of the models; "" for no reranker.
        quick: whether the trials were made smaller; such numbers are for a look, not for a card.
        minutes: wall time.
        rows: one per trial.
        defined_elsewhere: share of the words of the definitions' trial that another definition explains in training.
    """

    embedder: str
    reranker: str
    quick: bool
    minutes: float
    rows: tuple[Row, ...]
    defined_elsewhere: float | None = None

    def kept(self) -> dict[str, float]:
        """Share of the full vectors' score that each variant keeps: mean over mean, of the trials that have it."""
        shares = {}
        for name in VARIANTS:
            pairs = [(getattr(row, name), row.value) for row in self.rows if getattr(row, name) is not None]
            full = sum(value for _, value in pairs)
            if full:
                shares[name] = sum(value for value, _ in pairs) / full
        return shares

    def mean(self) -> float:
        """Mean of the values of all trials."""
        return sum(row.value for row in self.rows) / max(1, len(self.rows))

    def write(self, path: Path) -> None:
        """As JSON, with ``kept`` and ``mean`` for those who read it elsewhere."""
        written = {**asdict(self), "kept": self.kept(), "mean": self.mean()}
        path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """A report that ``write`` wrote.

        Raises:
            ConfigError: no such file, or not such a file.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            rows = tuple(Row(**row) for row in values["rows"])
            kept = {f.name: values[f.name] for f in fields(cls) if f.name != "rows"}
            return cls(rows=rows, **kept)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{path} is no report of evaluate-builtin") from None


# -- counting ----------------------------------------------------------------------------------------------------


def order(scores: NDArray[np.floating[Any]], pool: Sequence[int]) -> NDArray[np.int64]:
    """The positions of a pool, best first.

    Equal scores are ordered by a hash of the position, so that standing first is no advantage.

    Args:
        scores: (N,) of all candidates.
        pool: those that compete.
    """
    places = np.asarray(pool, np.int64)
    return places[np.lexsort((places * 2654435761 % 2**32, -scores[places]))]


def hits(scores: Matrix, trial: Trial) -> NDArray[np.float64]:
    """(Q,) 1 where one of the first ``trial.at`` candidates answers, from scores (Q, N)."""
    everything = range(len(trial.documents))
    found = np.zeros(len(trial.queries))
    for index, answers in enumerate(trial.answers):
        first = order(scores[index], trial.pools[index] if trial.pools else everything)[: trial.at]
        found[index] = not answers.isdisjoint(first.tolist())
    return found


def reranked_hits(reranker: RerankingModel, scores: Matrix, trial: Trial) -> NDArray[np.float64]:
    """(Q,) 1 where the answer stands first after the reranker judged the first candidates, as a search does it.

    The probability counts as far as the reranker's card trusts it, the place in the first stage for the rest.
    """
    everything = range(len(trial.documents))
    trust = reranker.card.trust
    found = np.zeros(len(trial.queries))
    for index, answers in enumerate(trial.answers):
        first = order(scores[index], trial.pools[index] if trial.pools else everything)[:RERANKED]
        judged = reranker.score(trial.queries[index], [trial.documents[place] for place in first])
        final = trust * judged + (1 - trust) / (1 + np.arange(len(first)))
        found[index] = int(first[int(np.argmax(final))]) in answers
    return found


def binary_scores(queries: Matrix, documents: Matrix, exact: Matrix, trial: Trial) -> Matrix:
    """Full scores of the candidates that binary vectors choose, -2 for the others; (Q, N)."""
    coarse = similarity(convert(queries, "binary"), convert(documents, "binary"), "binary")
    kept = np.full_like(exact, -2)
    for index in range(len(queries)):
        chosen = order(coarse[index], trial.pools[index] if trial.pools else range(len(documents)))[:RESCORED]
        kept[index, chosen] = exact[index, chosen]
    return kept


def mean_interval(found: NDArray[np.float64], groups: Sequence[str] | None = None) -> tuple[float, float, float]:
    """(mean, low, high) of zeros and ones with a 95 % interval.

    Wilson's for one mean; for the mean of groups' means a bootstrap inside the groups.

    >>> [round(value, 3) for value in mean_interval(np.array([1.0] * 8 + [0.0] * 2))]
    [0.8, 0.49, 0.943]
    """
    if groups is None:
        n, share = len(found), float(found.mean())
        middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
        return share, max(0.0, middle - half), min(1.0, middle + half)
    rng = np.random.default_rng(0)
    names = np.asarray(groups)
    parts = [found[names == name] for name in dict.fromkeys(groups)]
    draws = np.mean([rng.choice(part, (DRAWS, len(part))).mean(1) for part in parts], 0)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(np.mean([part.mean() for part in parts])), float(low), float(high)


def measured(trial: Trial, queries: Matrix, documents: Matrix, reranker: RerankingModel | None = None) -> Row:
    """One row of the table.

    Args:
        trial: what was asked.
        queries, documents: (Q, E) and (N, E) unit vectors of its items.
        reranker: judges the first candidates of each query; None leaves that out.
    """
    exact = similarity(queries, documents)

    def score(scores: Matrix) -> float:
        return mean_interval(hits(scores, trial), trial.groups)[0]

    def cut(dim: int) -> float | None:
        return score(similarity(shorten(queries, dim), shorten(documents, dim))) if dim < queries.shape[1] else None

    value, low, high = mean_interval(hits(exact, trial), trial.groups)
    row = Row(
        name=trial.name,
        task=trial.title,
        measure=trial.measure,
        n=len(trial.queries),
        candidates=trial.num_candidates,
        value=value,
        low=low,
        high=high,
        floor=trial.floor,
        reached=None if trial.floor is None else value >= trial.floor,
        dim128=cut(128),
        dim64=cut(64),
        int8=score(similarity(convert(queries, "int8"), convert(documents, "int8"), "int8")),
        binary=score(binary_scores(queries, documents, exact, trial)) if trial.num_candidates > RESCORED else None,
        reranked_floor=trial.reranked_floor,
    )
    if reranker is None:
        return row
    after, after_low, after_high = mean_interval(reranked_hits(reranker, exact, trial), trial.groups)
    reached = None if trial.reranked_floor is None else after >= trial.reranked_floor
    return replace(row, reranked=after, reranked_low=after_low, reranked_high=after_high, reranked_reached=reached)


def evaluate(
    data: Path,
    embedder: EmbeddingModel,
    reranker: RerankingModel | None,
    *,
    only: Sequence[str] = (),
    quick: bool = False,
    rerank_all: bool = False,
    done: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Asks the trials.

    Args:
        data: folder with ``pairs.parquet`` and ``images.parquet``.
        embedder: to measure.
        reranker: judges the trials that ask for it; None leaves that out.
        only: names in ``TRIALS``; none of them asks all.
        quick: a tenth of the queries and candidates.
        rerank_all: let the reranker judge every trial that counts first places.
        done: told each row.

    Raises:
        ConfigError: an unknown trial, or no data there.
    """
    begin = time.monotonic()
    unknown = sorted(set(only) - set(TRIALS))
    if unknown:
        raise ConfigError(f"there is no trial {unknown[0]!r}; there are {', '.join(TRIALS)}")
    for name in ("pairs.parquet", "images.parquet"):
        if not (data / name).is_file():
            raise ConfigError(f"{data} holds no {name}")
    corpus = Corpus(data)
    rows = []
    for name in only or TRIALS:
        vectors: dict[int, Matrix] = {}
        trials = TRIALS[name](corpus, QUICK if quick else 1.0)
        for trial in trials:
            if id(trial.documents) not in vectors:  # trials of one maker may share their candidates
                vectors[id(trial.documents)] = embedder.embed(trial.documents)
            judge = reranker if trial.rerank or (rerank_all and trial.at == 1) else None
            rows.append(measured(trial, embedder.embed(trial.queries), vectors[id(trial.documents)], judge))
            done(rows[-1])
    return Report(
        embedder=embedder.card.model,
        reranker=reranker.card.model if reranker is not None else "",
        quick=quick,
        minutes=(time.monotonic() - begin) / 60,
        rows=tuple(rows),
        defined_elsewhere=defined_elsewhere(corpus) if not only or "definitions" in only else None,
    )


# -- tables ------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """A share with three digits.

    >>> number(0.5), number(None)
    ('.500', '')
    """
    return "" if value is None else f"{value:.3f}".removeprefix("0")


def _range(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return ""
    return f"{number(value)} ({number(low)}–{number(high)})"


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _head(names: Sequence[str], words: int) -> list[str]:
    return [_line(names), "|" + "---|" * words + "--:|" * (len(names) - words)]


def _floors(row: Row) -> str:
    return " / ".join(number(floor) for floor in (row.floor, row.reranked_floor) if floor is not None)


def _reached(row: Row) -> str:
    said = {True: "yes", False: "no"}
    return " / ".join(said[value] for value in (row.reached, row.reranked_reached) if value is not None)


def table(report: Report) -> str:
    """The report in Markdown."""
    names = ("task", "measure", "queries", "candidates", "full vector (95 %)", "reranked (95 %)", "at least", "reached")
    lines = _head([*names, "128", "64", "int8", "binary"], 2)
    for row in report.rows:
        after = _range(row.reranked, row.reranked_low, row.reranked_high)
        before = _range(row.value, row.low, row.high)
        shorter = [number(getattr(row, name)) for name in VARIANTS]
        cells = [row.task, row.measure, row.n, row.candidates, before, after, _floors(row), _reached(row), *shorter]
        lines.append(_line(cells))
    kept = ", ".join(f"{name} {100 * share:.1f} %" for name, share in report.kept().items())
    lines += ["", f"Kept of the full score, mean over mean: {kept}."]
    if report.defined_elsewhere is not None:
        share = f"{100 * report.defined_elsewhere:.0f} %"
        lines.append(f"Of the words to be found by an unseen definition, {share} have another definition in training.")
    if report.quick:
        lines.append("A quick run: a tenth of the queries and candidates, so these numbers are for a look only.")
    lines.append(f"Measured in {report.minutes:.1f} minutes.")
    return "\n".join(lines)


def compare(files: Sequence[Path] | Mapping[str, Path]) -> str:
    """Several reports in one Markdown table, a column each, and one for the last reranker.

    Args:
        files: of ``Report.write``, in the order of the columns; a mapping names them, else the files' names do.

    Raises:
        ConfigError: a file that is no report.
    """
    named = files if isinstance(files, Mapping) else {path.stem: path for path in files}
    reports = {name: Report.read(path) for name, path in named.items()}
    if not reports:
        raise ConfigError("there is nothing to compare: give reports")
    rows = [{row.name: row for row in report.rows} for report in reports.values()]
    about: dict[str, Row] = {}
    for by_name in rows:
        about |= {name: row for name, row in by_name.items() if name not in about}
    judged = next((by_name for by_name in reversed(rows) if any(r.reranked is not None for r in by_name.values())), {})
    names = ["task", "measure", "queries", "candidates", "at least", *reports, *(["+ reranker"] if judged else [])]
    lines = _head(names, 2)
    for name, row in about.items():
        stages = [by_name.get(name) for by_name in rows]
        cells = [_range(one.value, one.low, one.high) if one else "" for one in stages]
        if judged:
            after = judged.get(name)
            cells.append(_range(after.reranked, after.reranked_low, after.reranked_high) if after else "")
        lines.append(_line([row.task, row.measure, row.n, row.candidates, _floors(row), *cells]))
    end = [""] if judged else []
    lines.append(_line(["mean of all", "", "", "", "", *(number(r.mean()) for r in reports.values()), *end]))
    for variant in VARIANTS:
        shares = [number(report.kept().get(variant)) for report in reports.values()]
        lines.append(_line([f"kept by {variant}", "share", "", "", "", *shares, *end]))
    return "\n".join(lines)
