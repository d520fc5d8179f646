"""``backup``, ``restore`` and ``doctor --repair``."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline.library import Library
from sightline.store.ledger import LEDGER_NAME
from tests.cli.conftest import Run, json_of
from tests.search.test_rebuild import damage


@pytest.fixture
def place(run: Run, shelf: Path, home: Path) -> Path:
    place = home / "photos"
    assert run("index", shelf, "--library", place).exit_code == 0
    return place


def test_a_copy_gives_what_the_index_gave(run: Run, place: Path, home: Path) -> None:
    made = json_of(run("backup", place, home / "copy", "--json"))
    assert list(made) == ["path", "files", "bytes", "rows"] and made["rows"] == 4
    said = run("restore", home / "copy", home / "again")
    assert said.exit_code == 0 and "4 units in" in said.stdout and "restored to" in said.stdout
    answers = [json_of(run("search", "bicycle", "--library", one, "--json"))["hits"] for one in (place, home / "again")]
    assert answers[0] == answers[1] and answers[0]


def test_what_is_there_is_not_overwritten(run: Run, place: Path, home: Path) -> None:
    run("backup", place, home / "copy")
    for words in (("backup", place, home / "copy"), ("restore", home / "copy", place)):
        result = run(*words)
        assert result.exit_code == 5 and "is there already" in result.stderr
    assert run("restore", place, home / "new").exit_code == 5  # an index is no copy
    assert run("backup", home / "nowhere", home / "new").exit_code == 5
    assert not (home / "new").exists()


def test_doctor_says_what_it_would_repair_then_repairs(run: Run, shelf: Path, place: Path) -> None:
    with Library.open(place) as library:
        library._ledger.forget([str(shelf / "bread.md")])
    doctor = ("doctor", "--no-speed", "--library", place)
    assert run(*doctor).exit_code == 5
    looked = json_of(run(*doctor, "--repair", "--dry-run", "--json"))
    assert looked["repair"]["dry_run"] and [one["code"] for one in looked["repair"]["repaired"]] == ["unknown_rows"]
    assert [one["code"] for one in looked["index"]["problems"]] == ["unknown_rows"]
    said = run(*doctor, "--repair")
    assert said.exit_code == 0 and "repair: " in said.stdout and "health: sound" in said.stdout
    assert "repair: nothing to do" in run(*doctor, "--repair").stdout
    run("index", shelf, "--library", place)
    assert json_of(run(*doctor, "--json"))["index"]["problems"] == []


def test_doctor_repairs_a_damaged_ledger(run: Run, shelf: Path, place: Path) -> None:
    damage(place / LEDGER_NAME)
    doctor = ("doctor", "--no-speed", "--library", place, "--repair")
    assert "would be put aside" in run(*doctor, "--dry-run").stdout
    codes = {one["code"] for one in json_of(run(*doctor, "--json"))["repair"]["repaired"]}
    assert codes == {"ledger_damaged", "unknown_rows"}
    assert json_of(run("index", shelf, "--library", place, "--json"))["indexed"] == 4
    assert run("doctor", "--no-speed", "--library", place).exit_code == 0


def test_a_dry_run_of_nothing_is_refused(run: Run) -> None:
    result = run("doctor", "--no-speed", "--dry-run")
    assert result.exit_code == 2 and "--repair" in result.stderr
