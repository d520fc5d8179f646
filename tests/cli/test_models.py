"""``embed`` and ``rerank`` without an index; ``models``, ``settings``, ``doctor``, ``--version``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import sightline
from sightline.cli.machine import Machine
from sightline.settings import data_folder, table
from tests.cli.conftest import Run, json_of, toys


def test_embed_prints_a_line_for_each_item(run: Run, shelf: Path) -> None:
    result = run("embed", "one", "two", "--image", shelf / "rot.png", "--model", "toy")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert lines[0]["text"] == "one" and lines[2]["image"] == str(shelf / "rot.png")
    assert all(len(line["vector"]) == 64 and line["precision"] == "float32" for line in lines)
    assert np.linalg.norm(lines[0]["vector"]) == pytest.approx(1, abs=1e-5)


def test_embed_reads_lines_of_standard_input(run: Run) -> None:
    result = run("embed", "-", "--model", "toy", input="erste\nzweite\n")
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["erste", "zweite"]


def test_embed_writes_an_array(run: Run, tmp_path: Path) -> None:
    result = run("embed", "one", "two", "--out", tmp_path / "v.npy", "--model", "toy", "--dim", "64")
    assert result.exit_code == 0 and result.stdout == ""
    assert np.load(tmp_path / "v.npy").shape == (2, 64)
    assert run("embed", "x", "--out", tmp_path / "v.txt").exit_code == 2
    assert run("embed", "x", "--out", tmp_path / "no" / "v.npy", "--model", "toy").exit_code == 5


def test_an_item_that_fails_is_a_line_with_the_reason(run: Run) -> None:
    result = run("embed", "good", "poison", "fine", "--model", "toy")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.exit_code == 2
    assert lines[1]["error"]["code"] == "corrupt" and "vector" in lines[2]
    assert "1 item of 3" in result.stderr


def test_embed_errors(run: Run) -> None:
    assert run("embed").exit_code == 2
    assert "precision is one of" in run("embed", "x", "--precision", "int4").stderr


def test_rerank(run: Run) -> None:
    result = run("rerank", "red bicycle", "a cake", "a red bicycle", "--reranker", "toy", "--json")
    value = json_of(result)
    assert (value["query"], value["reranker"]) == ("red bicycle", "toy")
    assert [(one["rank"], one["index"], one["text"]) for one in value["results"]] == [
        (1, 1, "a red bicycle"),
        (2, 0, "a cake"),
    ]
    assert "a red bicycle" in run("rerank", "red", "a red bicycle", "--reranker", "toy").stdout
    assert run("rerank", "red").exit_code == 2
    assert run("rerank", "red", "x", "--reranker", "none").exit_code == 2


def test_the_note_on_the_built_in_model_comes_once_for_commands_without_index(run: Run) -> None:
    first, second = run("embed", "x"), run("rerank", "x", "y")
    assert "Qwen/Qwen3-VL-Embedding-2B" in first.stderr and second.stderr == ""


def test_models(run: Run) -> None:
    value = json_of(run("models", "--json"))
    names = [one["name"] for one in value["models"]]
    assert names[:2] == ["builtin", "builtin"] and "Qwen/Qwen3-VL-Reranker-8B" in names
    two = next(one for one in value["models"] if one["name"] == "Qwen/Qwen3-VL-Embedding-2B")
    assert (two["parameters"], two["size_gb"], two["dim"]) == (2_127_532_032, 4.3, 2048)
    said = run("models").stdout
    assert "Qwen/Qwen3-VL-Embedding-8B" in said and "64 … 4096" in said


@pytest.mark.parametrize(
    ("machine", "where", "words"),
    [
        (Machine(32, 8), "cpu", "yes, on the CPU (slow)"),
        (Machine(32, 8, "H100", 80), "gpu", "yes, on H100"),
        (Machine(32, 8, "old", 2), "cpu", "yes, on the CPU (slow)"),
        (Machine(4, 2), "", "no: needs about 6.3 GB of memory, here are 4.0"),
    ],
)
def test_what_a_machine_carries(machine: Machine, where: str, words: str) -> None:
    assert (machine.carries(4.3), machine.verdict(4.3)) == (where, words)


def test_settings(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_PDF_MAX_PAGES", "7")
    value = json_of(run("settings", "--json"))
    assert [one["name"] for one in value] == [name for name, *_ in table()]
    assert next(one for one in value if one["name"] == "pdf_max_pages")["value"] == 7
    said = run("settings").stdout
    assert all(variable in said for _, variable, *_ in table())


def test_doctor_without_and_with_an_index(run: Run, shelf: Path) -> None:
    empty = json_of(run("doctor", "--no-speed", "--json"))
    assert empty["index"]["exists"] is False and "speed" not in empty
    assert "make one: sightline index" in run("doctor", "--no-speed").stdout
    run("index", shelf)
    (shelf / "bread.md").unlink()
    value = json_of(run("doctor", "--no-speed", "--json"))
    assert value["versions"]["sightline"] == sightline.__version__
    assert (value["index"]["files"], value["index"]["skipped"]) == (4, 2)
    assert [problem["code"] for problem in value["index"]["problems"]] == ["missing_file"]
    assert {failure["code"] for failure in value["index"]["failures"]} == {"empty", "corrupt"}
    said = run("doctor", "--no-speed")
    assert said.exit_code == 0
    assert "health: sound" in said.stdout and "empty.jpg: the file is empty [empty]" in said.stdout


def test_doctor_ends_with_five_when_the_index_is_damaged(
    run: Run, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sightline.library import Library
    from sightline.store.schema import Problem

    run("index", shelf)
    monkeypatch.setattr(Library, "check", lambda self: [Problem(code="duplicate_id", detail="twice the same row")])
    result = run("doctor", "--no-speed")
    assert result.exit_code == 5 and "twice the same row [duplicate_id]" in result.stdout


def test_doctor_measures_speed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sightline.cli import looking

    monkeypatch.setattr(looking, "MEASURE_S", 0.05)
    monkeypatch.setattr(toys.Seeing, "_one", lambda self, item: np.eye(64)[0])
    speed = json_of(run("doctor", "--json"))["speed"]
    assert set(speed) == {"model", "device", "dtype", "load_s", "texts_per_s", "images_per_s", "matmul_gflops"}
    assert speed["texts_per_s"] > 0 and speed["matmul_gflops"] > 0


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"sightline {sightline.__version__}\n"
    assert run("search", "-h").exit_code == 0


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert data_folder() == tmp_path / "data" / "sightline"
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert data_folder() == tmp_path / "home" / ".local" / "share" / "sightline"
    monkeypatch.setattr("sys.platform", "darwin")
    assert data_folder() == tmp_path / "home" / "Library" / "Application Support" / "sightline"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert data_folder() == tmp_path / "local" / "sightline"
