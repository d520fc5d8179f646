"""Files of an index that a disk gave back empty or as garbage, though it had said they were safe. A trial is one index.

Four kinds by turns: the newest manifest, the newest data file, the files of transactions, those of search indexes. The
index opens by itself; what the damage took with it is looked at again by the next run, so nothing is missing then.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from sightline.library import Library
from sightline.testing import ToyEmbedder
from tests.torture import oracle
from tests.torture.failpoints import fresh, prepare, settle
from tests.torture.here import decoding_here
from tests.torture.tally import Tally
from tests.torture.victims import Report

NAME = "damaged files of an index"


def _newest(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [max(files, key=lambda path: path.stat().st_mtime_ns)] if files else []


def _head(table: Path) -> list[Path]:
    return [min((table / "_versions").glob("*.manifest"), key=lambda path: path.name)]


def _data(table: Path) -> list[Path]:
    return _newest(table / "data")


def _transactions(table: Path) -> list[Path]:
    return list((table / "_transactions").iterdir())


def _indexes(table: Path) -> list[Path]:
    return [path for path in (table / "_indices").rglob("*") if path.is_file()]


KINDS: Final[list[Callable[[Path], list[Path]]]] = [_head, _data, _transactions, _indexes]


def trials(number: int, seed: int) -> Tally:
    """``number`` indexes, a quarter of them with each kind of damage."""
    chance = random.Random(seed)
    tally = Tally(NAME)
    with tempfile.TemporaryDirectory(prefix="sightline-torture-") as scratch:
        room = Path(scratch, "room")
        corpus, whole = prepare(Path(scratch))
        while tally.trials < number:
            kind = KINDS[tally.trials % len(KINDS)]
            index, files = fresh(room, corpus)
            settle(files)
            _fill(index, files, chance, merged=kind is _indexes or chance.random() < 0.3)
            way = _damage(kind(index / "items.lance"), chance, may_be_gone=kind in (_transactions, _indexes))
            one = oracle.judge(NAME, index, Report()) + oracle.finish(NAME, index, files, whole)
            tally += one if one.clean else replace(one, said=f"{kind.__name__} {way}: {one.said}")
    return tally


def _fill(index: Path, files: Path, chance: random.Random, *, merged: bool) -> None:
    """Several commits: the files come in groups, and some were other files before."""
    with decoding_here(), Library.open(index, embedder=ToyEmbedder(dim=oracle.DIM)) as library:
        names = sorted(files.iterdir())
        last = names[chance.randint(0, len(names) - 1)]
        kept = last.read_bytes()
        last.write_bytes(b"What it said before.\n" + kept)
        for start in range(0, len(names), 4):
            library.add(names[start : start + 4])
        if merged:
            library.optimize()
        last.write_bytes(kept)
        library.add([files])


def _damage(paths: list[Path], chance: random.Random, *, may_be_gone: bool) -> str:
    way = chance.choice(["empty", "garbage", "zeros", "short", *(["gone"] if may_be_gone else [])])
    for path in paths:
        data = path.read_bytes()
        if way == "gone":
            path.unlink()
        elif way == "empty":
            path.write_bytes(b"")
        elif way == "garbage":
            path.write_bytes(chance.randbytes(len(data) + chance.randint(1, 500)))
        elif way == "zeros":
            path.write_bytes(bytes(len(data) + chance.randint(0, 1)))
        else:
            path.write_bytes(data[: chance.randint(0, max(0, len(data) - 1))])
    return way
