"""Killed at any moment and started again, indexing ends with the rows of a run that was never killed (safety.md C1)."""

import json
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sightline.library import Library
from sightline.store.lance import LanceStore
from sightline.store.ledger import Ledger
from sightline.testing import ToyEmbedder

HERE = Path(__file__).parent
NUM_FILES = 300
NUM_KILLS = 20
MOST_UNITS = 20
"""Of the 355 units, between two kills; a commit takes 8."""
DELAY_S = 0.004
SEED = 20_261_121


def start(index: Path, folder: Path, delay_s: float) -> subprocess.Popen[str]:
    """A child that waits for a line: importing takes longer than indexing."""
    command = [sys.executable, str(HERE / "child.py"), str(index), str(folder), str(delay_s)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()


def wait(child: subprocess.Popen[str], num_units: int) -> None:
    """Until so many units were embedded, or the child has ended."""
    assert child.stdout is not None
    for _ in range(num_units):
        child.stdout.readline()


def done(index: Path) -> list[Path]:
    """Files that are in the index."""
    ledger = Ledger(index)
    try:
        return [Path(state.path) for state in ledger.files("done")]
    finally:
        ledger.close()


def finish(child: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = child.communicate("go\n", timeout=120)
    assert child.returncode == 0
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert report["seen"] == report["indexed"] + report["unchanged"] + len(report["skipped"]) + report["deferred"]
    return report


def rows(index: Path) -> list[tuple[Any, ...]]:
    store = LanceStore(index)
    try:
        ids = list(store.ids())
        assert len(ids) == len(set(ids))
        return sorted(
            (r.id, r.path, r.kind, r.page, r.start_s, r.end_s, r.title, r.text, r.modified_s, r.vector.tobytes())
            for r in store.get(ids)
        )
    finally:
        store.close()


@pytest.mark.slow
def test_killed_at_random_moments_the_rows_are_those_of_an_uninterrupted_run(tmp_path: Path) -> None:
    folder, index, whole = tmp_path / "files", tmp_path / "killed.sightline", tmp_path / "whole.sightline"
    runpy.run_path(str(HERE / "corpus.py"))["make"](folder, NUM_FILES)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"nonsense" * 10)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4\nnonsense")
    chance = random.Random(SEED)
    num_killed = 0
    following = start(index, folder, DELAY_S)
    for number in range(NUM_KILLS):
        child, following = following, start(index, folder, DELAY_S if number + 1 < NUM_KILLS else 0.0)
        go(child)
        wait(child, chance.randint(0, MOST_UNITS))
        time.sleep(chance.uniform(0.0, 0.05))
        num_killed += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.communicate()
        if number == NUM_KILLS // 2:  # the world goes on meanwhile
            indexed = [path for path in done(index) if path.name.startswith("note-")]
            for path in chance.sample(indexed, 10):
                path.write_text(f"Changed while {path.name} was in work.\n" * chance.randint(1, 9), encoding="utf-8")
    assert num_killed == NUM_KILLS
    report = finish(following)
    assert 0 < report["indexed"] < NUM_FILES, "the kills came too late or too early"
    assert report["deferred"] == 0

    assert finish(start(whole, folder, 0.0))["indexed"] == NUM_FILES
    assert rows(index) == rows(whole)
    last = finish(start(index, folder, 0.0))
    assert (last["indexed"], last["unchanged"], last["embedded"]) == (0, NUM_FILES, 0)
    with Library.open(index) as library:
        assert {problem.code for problem in library.check()} == {"skipped"}
        assert sorted(Path(one.path).name for one in library.failures()) == ["broken.pdf", "broken.png"]


def test_ctrl_c_ends_the_work_cleanly(tmp_path: Path) -> None:
    folder, index = tmp_path / "files", tmp_path / "index"
    runpy.run_path(str(HERE / "corpus.py"))["make"](folder, 60)
    child = start(index, folder, DELAY_S)
    go(child)
    wait(child, 20)
    child.send_signal(signal.SIGINT)
    report = finish(child)
    assert report["interrupted"]
    with Library.open(index, embedder=ToyEmbedder()) as library:
        assert library.stats().files == report["indexed"] < 60
        assert not library.add([folder]).interrupted
        assert library.stats().files == 60
        assert library.check() == []
