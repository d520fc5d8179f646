"""``index`` and ``remove``: counts, JSON, what is remembered, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run, json_of


def test_index_says_done_and_lists_what_it_skipped(run: Run, shelf: Path) -> None:
    result = run("index", shelf)
    assert result.exit_code == 0
    assert "done, 2 skipped: 4 files indexed" in result.stdout
    assert "empty.jpg: the file is empty [empty]" in result.stdout
    assert "torn.png" in result.stdout
    assert "Traceback" not in result.output


def test_the_first_use_of_the_built_in_model_is_told_once(run: Run, shelf: Path) -> None:
    first, second = run("index", shelf), run("index", shelf)
    assert "--model Qwen/Qwen3-VL-Embedding-2B" in first.stderr
    assert "can this machine carry it?" in first.stderr
    assert len(first.stderr.strip().splitlines()) == 1
    assert second.stderr == ""


def test_index_json(run: Run, shelf: Path, home: Path) -> None:
    value = json_of(run("index", shelf, "--json"))
    assert list(value) == [
        *("library", "model", "reranker", "seen", "indexed", "unchanged", "deferred", "units", "skipped"),
        *("interrupted", "seconds", "pruned"),
    ]
    assert value["library"] == str(home / "data" / "sightline" / "library.sightline")
    assert (value["model"], value["reranker"]) == ("builtin", "builtin")
    assert value["seen"] == value["indexed"] + value["unchanged"] + value["deferred"] + len(value["skipped"]) == 6
    assert {one["code"] for one in value["skipped"]} == {"empty", "corrupt"}
    again = json_of(run("index", shelf, "--json"))
    assert (again["indexed"], again["unchanged"]) == (0, 4)


def test_library_from_the_option_then_from_the_environment(
    run: Run, shelf: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_LIBRARY", str(home / "from_env"))
    assert json_of(run("index", shelf, "--json"))["library"] == str(home / "from_env")
    given = json_of(run("index", shelf, "--json", "--library", home / "given"))
    assert given["library"] == str(home / "given")


def test_the_index_remembers_its_models(run: Run, shelf: Path) -> None:
    run("index", shelf, "--model", "toy-a", "--reranker", "toy-r")
    value = json_of(run("index", shelf, "--json"))
    assert (value["model"], value["reranker"]) == ("toy-a", "toy-r")
    found = json_of(run("search", "bicycle", "--json"))
    assert (found["model"], found["reranker"]) == ("toy-a", "toy-r")


def test_another_model_is_refused_with_the_command_that_helps(run: Run, shelf: Path) -> None:
    run("index", shelf, "--model", "toy-a")
    for other in ("toy-b", "builtin"):  # the second is refused before anything is loaded
        result = run("index", shelf, "--model", other)
        assert result.exit_code == 5
        assert "--rebuild" in result.stderr and f"--model {other}" in result.stderr
        assert result.stderr.startswith("error: ") and len(result.stderr.strip().splitlines()) == 1
    rebuilt = json_of(run("index", shelf, "--model", "toy-b", "--rebuild", "--json"))
    assert (rebuilt["model"], rebuilt["indexed"]) == ("toy-b", 4)


def test_an_index_without_a_reranker(run: Run, shelf: Path) -> None:
    assert json_of(run("index", shelf, "--reranker", "none", "--json"))["reranker"] is None
    found = json_of(run("search", "bicycle", "--json"))
    assert found["reranker"] is None and found["hits"][0]["rerank_score"] is None
    judged = json_of(run("search", "bicycle", "--reranker", "toy", "--json"))
    assert judged["reranker"] == "toy" and judged["hits"][0]["rerank_score"] is not None


def test_settings_of_the_index_are_kept_unless_the_environment_says_otherwise(
    run: Run, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_TEXT_PASSAGE_TOKENS", "64")
    assert run("index", shelf).exit_code == 0
    monkeypatch.delenv("SIGHTLINE_TEXT_PASSAGE_TOKENS")
    assert run("index", shelf).exit_code == 0
    monkeypatch.setenv("SIGHTLINE_TEXT_PASSAGE_TOKENS", "128")
    result = run("index", shelf)
    assert result.exit_code == 5 and "SIGHTLINE_TEXT_PASSAGE_TOKENS=64" in result.stderr


def test_columns_are_set_and_filtered_by(run: Run, shelf: Path) -> None:
    run("index", shelf, "--set", "year=2024", "--set", "album=first trip")
    assert json_of(run("search", "bicycle", "--where", "year>=2024 album='first trip'", "--json"))["hits"]
    assert not json_of(run("search", "bicycle", "--where", "year>2024", "--json"))["hits"]


def test_a_column_needs_a_value(run: Run, shelf: Path) -> None:
    result = run("index", shelf, "--set", "year")
    assert result.exit_code == 2 and "column=value" in result.stderr


def test_prune_looks_first_and_drops_with_yes(run: Run, shelf: Path) -> None:
    run("index", shelf)
    (shelf / "bread.md").unlink()
    looked = json_of(run("index", shelf, "--prune", "--json"))["pruned"]
    assert looked["dry_run"] and looked["vanished"] == [str(shelf / "bread.md")] and looked["rows"] == 1
    said = run("index", shelf, "--prune")
    assert "add --yes to do it" in said.stdout
    dropped = json_of(run("index", shelf, "--prune", "--yes", "--json"))["pruned"]
    assert not dropped["dry_run"] and dropped["rows"] == 1
    assert json_of(run("index", shelf, "--prune", "--json"))["pruned"]["vanished"] == []


def test_prune_does_not_touch_a_folder_that_lost_most_of_its_files(run: Run, shelf: Path) -> None:
    run("index", shelf)
    for name in ("bicycle.txt", "bread.md", "rot.png", "empty.jpg", "torn.png"):
        (shelf / name).unlink()
    result = run("index", shelf, "--prune")
    assert "not touched" in result.stdout and "have vanished" in result.stdout


def test_remove(run: Run, shelf: Path) -> None:
    run("index", shelf)
    assert json_of(run("remove", shelf / "bread.md", "--json")) == {"removed": 1}
    assert "files taken out of the index" in run("remove", shelf).stdout
    assert (shelf / "bread.md").exists()


@pytest.mark.parametrize("command", ["search", "remove"])
def test_without_an_index_the_line_says_how_to_make_one(run: Run, command: str) -> None:
    result = run(command, "x")
    assert result.exit_code == 5
    assert "sightline index" in result.stderr
    as_json = run(command, "x", "--json")
    assert as_json.exit_code == 5
    assert json_of(as_json)["error"]["type"] == "StoreError"


def test_a_path_that_does_not_exist_is_a_skipped_file(run: Run, home: Path) -> None:
    result = run("index", home / "nowhere")
    assert result.exit_code == 0
    assert "no such file or folder [unreadable]" in result.stdout


def test_an_unknown_setting_in_the_environment_is_an_error(
    run: Run, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_MODELL", "x")
    result = run("index", shelf)
    assert result.exit_code == 2 and "SIGHTLINE_MODELL is no setting" in result.stderr


def test_an_unknown_option_ends_with_two(run: Run) -> None:
    result = run("index", "--fast", "x")
    assert result.exit_code == 2 and "--fast" in result.stderr
