"""Indexes of every format that was released open and go on; newer ones are refused."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from sightline.errors import StoreError
from sightline.library import Library
from sightline.search.identity import FORMAT
from sightline.store.ledger import LEDGER_NAME, MIGRATIONS, STAMP_NAME
from sightline.testing import ToyEmbedder
from tests.store.fixtures.make import told

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("index-*"))


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    shutil.copytree(request.param, tmp_path / "old")
    return tmp_path / "old"


def test_there_is_a_fixture_of_todays_format() -> None:
    assert f"index-{FORMAT}-{len(MIGRATIONS)}" in [path.name for path in FIXTURES], (
        "python tests/store/fixtures/make.py"
    )


def test_an_index_of_every_format_opens_and_answers_as_it_did(old: Path) -> None:
    answers = json.loads((old / "answers.json").read_text(encoding="utf-8"))
    with Library.open(old, embedder=ToyEmbedder()) as library:
        assert told(library) == answers
        assert {problem.code for problem in library.check()} == {"missing_file", "skipped"}  # nobody has its files
        assert sqlite3.connect(old / LEDGER_NAME).execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_an_index_of_every_format_takes_new_files_labels_and_removals(old: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "more.txt").write_text("A yellow submarine.", encoding="utf-8")
    with Library.open(old, embedder=ToyEmbedder()) as library:
        num_labels = len(list(library.labels))
        assert library.add(tmp_path / "new").indexed == 1
        hit = library.search("yellow submarine")[0]
        assert hit.path == str(tmp_path / "new" / "more.txt")
        library.labels.put("submarine", "{}", hit.id, -1, path=hit.path, kind=hit.kind)
        library.optimize()
        gone = next(state.path for state in library.files("done") if state.path.endswith("bike.txt"))
        assert library.remove(gone) == 1
    with Library.open(old) as library:
        assert library.stats().rows == 4 and len(list(library.labels)) == num_labels + 1
        assert not [problem for problem in library.check() if problem.code not in ("missing_file", "skipped")]


def test_an_older_card_that_says_less_is_read_with_defaults(old: Path) -> None:
    with Library.open(old) as library:
        meta = library._ledger.read_meta()
        del meta["embedder"]["trust"]  # a field that came later, with a default
        library._ledger.write_meta(meta)
    with Library.open(old, embedder=ToyEmbedder()) as library:
        assert library.model == ToyEmbedder().card


@pytest.mark.parametrize(
    ("what", "rebuild"), [("index", False), ("ledger", False), ("card", False), ("index", True), ("ledger", True)]
)
def test_a_newer_format_is_refused_and_nothing_is_touched(tmp_path: Path, what: str, rebuild: bool) -> None:
    shutil.copytree(FIXTURES[-1], tmp_path / "new")
    db = sqlite3.connect(tmp_path / "new" / LEDGER_NAME, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    if what == "ledger":
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    elif what == "index":
        db.execute("UPDATE meta SET value = ? WHERE key = 'format'", (json.dumps(FORMAT + 1),))
    else:
        card = json.loads(db.execute("SELECT value FROM meta WHERE key = 'embedder'").fetchone()[0])
        db.execute("UPDATE meta SET value = ? WHERE key = 'embedder'", (json.dumps({**card, "colour": "red"}),))
    db.close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir() if path.is_file()}
    rows = sorted((tmp_path / "new" / "items.lance").rglob("*"))
    with pytest.raises(StoreError, match=r"upgrade it with pip install -U sightline"):
        Library.open(tmp_path / "new", embedder=ToyEmbedder(), rebuild=rebuild)
    assert (tmp_path / "new" / LEDGER_NAME).read_bytes() == before[LEDGER_NAME]
    assert (tmp_path / "new" / STAMP_NAME).read_bytes() == before[STAMP_NAME]
    assert sorted((tmp_path / "new" / "items.lance").rglob("*")) == rows
