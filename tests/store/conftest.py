"""Rows, and both stores behind one fixture."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.store.exact import ExactStore
from sightline.store.lance import LanceStore
from sightline.store.schema import ItemStore, Row, path_id

DIM = 16

HOSTILE_NAMES = [
    "it's.jpg",
    "''",
    "' OR '1'='1",
    "'; DROP TABLE items; --",
    '"double".png',
    "`backtick`",
    "back\\slash\\",
    "100%",
    "under_score",
    "star*?[a]",
    "new\nline",
    "tab\tand\rreturn",
    "caf\udce9 latin-1",
    "\udcff\udcfe",
    "\U0010ff00 escape \U0010ff00dce9",
    "日本語のファイル.pdf",
    "한국어",
    "e\u0301 decomposed",
    "\u202egnp.exe",
    "<img src=x onerror=alert(1)>",
    "a\x01b",
    " leading and trailing ",
    "n" * 255,
]


@pytest.fixture
def hostile_names() -> list[str]:
    assert len(set(HOSTILE_NAMES)) == 23
    return HOSTILE_NAMES


@pytest.fixture
def make_row() -> Callable[..., Row]:
    def make(number: int, **changes: Any) -> Row:
        path = changes.get("path", f"/files/{number:04d}.png")
        values: dict[str, Any] = {
            "id": f"row-{number:05d}",
            "path": path,
            "path_id": path_id(path),
            "kind": "image",
            "vector": np.random.default_rng(number).standard_normal(DIM).astype(np.float32),
        }
        return Row(**{**values, **changes})

    return make


@pytest.fixture(params=["exact", "lance"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ItemStore]:
    made: ItemStore = ExactStore(DIM) if request.param == "exact" else LanceStore(tmp_path / "a.sightline", dim=DIM)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a.sightline"


@pytest.fixture
def child() -> Path:
    return Path(__file__).with_name("child.py")
