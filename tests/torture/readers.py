"""Four readers while one process writes, merges and drops old versions. A trial is a query.

Rows come, change and go in groups of eight; an answer that holds part of a group, or a group of two generations, was
not of one version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from sightline.store.lance import LanceStore
from tests.torture import oracle
from tests.torture.tally import Tally
from tests.torture.victims import Report, Victims

NAME: Final = "four readers, one writer"
NUM_READERS: Final = 4
KEEP_S: Final = 20.0
"""How long a version outlives its successor here, instead of a day: far longer than a query takes on a busy machine."""


def trials(number: int, seed: int) -> Tally:
    """``number`` queries, a quarter by each reader."""
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch, Victims() as victims:
        index, stop = Path(scratch, "a.sightline"), Path(scratch, "stop")
        LanceStore(index, dim=oracle.DIM).close()
        writer = victims.start("churn", Path(scratch, "writer"), folder=str(index), stop=str(stop), keep_s=KEEP_S)
        writer.wait_for("wrote", 3)
        readers = [
            victims.start("read", Path(scratch, f"log{one}"), folder=str(index), queries=number // NUM_READERS,
                          seed=seed * NUM_READERS + one)
            for one in range(NUM_READERS)
        ]  # fmt: skip
        statuses = [reader.wait(3600.0) for reader in readers]
        stop.touch()
        statuses.append(writer.wait())
        reports = [Report().take(victim.log) for victim in [*readers, writer]]
        words = [word for report in reports for word in report.words]
        wrong = [word for word in words if word.startswith("wrong")]
        bad = [f"exit {status} {report.error} {report.crash}" for status, report in zip(statuses, reports, strict=True)
               if status != 0]  # fmt: skip
        store = LanceStore(index)
        ids = list(store.ids())
        store.close()
        writes, merges = words.count("wrote"), words.count("optimized")
        said = (wrong or bad or [f"{writes} writes and {merges} merges meanwhile"])[0]
        return Tally(NAME, sum(word.startswith(("query", "wrong")) for word in words), deaths=len(bad),
                     wrong=len(wrong), duplicated=len(ids) - len(set(ids)), said=said)  # fmt: skip
