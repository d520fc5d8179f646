"""The benchmarks run, and end in lines of JSON that other programs can read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.table import about, gpu_table, rows_of, table
from sightline.model.int8 import can_int8

ROOT = Path(__file__).parents[1]
PROMISED = {
    *("engine", "task", "dtype", "items", "items_s", "tokens_s", "padding", "peak_rss_mb", "share_vision"),
    *("share_decoder", "share_prep", "gflop_s", "peak_gflop_s", "device", "versions", "commit", "threads"),
}


@pytest.mark.parametrize("script", ["embed", "rerank", "gpu"])
def test_quick_run(script: str) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    command = [sys.executable, "-m", f"bench.{script}", "--quick", "--threads", "1", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(rows) >= 7
    assert len(rows) == sum(line.startswith("| ") and not line.startswith("| task ") for line in lines)
    for row in rows:
        assert set(row) >= PROMISED
        assert row["items_s"] > 0
        assert 0 <= row["padding"] < 1
    engines = {row["engine"].split(",")[0] for row in rows}
    assert engines >= {"sightline", "transformers"}
    assert all(row["padding"] == 0 for row in rows if row["engine"] == "sightline")


@pytest.mark.skipif(not can_int8(), reason="this processor has no int8 products")
def test_int8_is_measured_beside_bf16_in_the_same_run() -> None:
    command = [sys.executable, "-m", "bench.embed", "--quick", "--dtype", "int8", "--task", "text", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [row["engine"] for row in rows] == ["sightline", "sightline in bf16"]


@pytest.mark.parametrize("script", ["load", "search"])
def test_quick_run_without_peers(script: str) -> None:
    command = [sys.executable, "-m", f"bench.{script}", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = {row["task"]: row for row in map(json.loads, done.stdout.strip().splitlines())}
    if script == "search":
        assert set(rows) == {"vector", "vector of one file", "words", "build"}
        assert rows["vector"]["recall_at_10"] == 1 and rows["words"]["p50_ms"] > 0
    else:
        assert set(rows) == {"cold start", "flat memory"}
        assert rows["flat memory"]["items"] == 200 and rows["cold start"]["load_s"] > 0


def test_words_do_not_hide_pictures_in_an_index_of_both(shared: Path) -> None:
    """Joined by rank alone, an index that holds texts put next to no picture first."""
    command = [sys.executable, "-m", "bench.fusion", "--data", str(shared / "training"), "--each", "40"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    alone, alike, shares = (row for row in rows if row["items_s"] > 0)
    pictures, written = ("scanned page", "scene", "chart"), ("passage", "page with its words")
    for kind in pictures:
        assert shares[kind] >= alone[kind] - 0.15 and shares[kind] > alike[kind] + 0.3
    for kind in written:
        missed = 1 - alone[kind]
        assert missed > 0.2, "there is something for the words to find"
        assert shares[kind] >= alike[kind] and 1 - shares[kind] <= missed / 3


def test_the_table_takes_the_last_row_of_each_and_the_best_batch_of_a_peer(tmp_path: Path) -> None:
    about = {"task": "text", "size": "small", "dtype": "float32", "gflop_s": 1, "peak_gflop_s": 2, "extra_mb": 3}
    rates = [("sightline", 1), ("peer, batch 1", 4), ("peer, batch 32", 2), ("other, batch 8", 5), ("sightline", 10)]
    lines = [json.dumps(about | {"engine": engine, "items_s": rate}) for engine, rate in rates]
    (tmp_path / "embed.jsonl").write_text("\n".join(lines), encoding="utf-8")
    row = table(rows_of(tmp_path)).splitlines()[-1]
    assert "10.00/s" in row and "5.00/s (other, batch 8)" in row and "**2.00**" in row and "2.00/s" in row


def test_the_table_of_the_gpu_leaves_empty_what_was_not_measured(tmp_path: Path) -> None:
    numbers = {"dtype": "bfloat16", "gflop_s": 1, "peak_gflop_s": 2, "gpu_mb": 5000}
    about = {"task": "image, 256 tokens", "size": "2b"} | numbers
    rates = [("sightline", 300), ("peer, batch 1", 100), ("peer, batch 32", 120)]
    lines = [json.dumps(about | {"engine": engine, "items_s": rate}) for engine, rate in rates]
    (tmp_path / "gpu.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = gpu_table(rows_of(tmp_path, ["gpu"])).splitlines()
    assert "| image, 256 tokens | 2b | 300.00/s | 120.00/s (peer, batch 32) | **2.50** | 280/s | 1 (2) | 5000 |" in rows
    assert "| image, 256 tokens | 8b |  |  |  | 90/s |  |  |" in rows


def test_the_table_says_which_rows_are_of_which_run():
    one = {"when": "2026-01-02T03", "commit": "a", "device": "d", "threads": 2, "versions": {"torch": "2"}}
    rows = [one | {"size": "small", "dtype": "float32"}, one | {"size": "small", "dtype": "bfloat16"}]
    assert about(rows) == "2026-01-02, commit a, d, 2 threads, torch 2."
    later = one | {"when": "2026-02-02T03", "commit": "b", "size": "2b", "dtype": "bfloat16"}
    first, second = about([later, *rows]).splitlines()
    assert first == "- small, bfloat16; small, float32: 2026-01-02, commit a, d, 2 threads, torch 2."
    assert second == "- 2b, bfloat16: 2026-02-02, commit b, d, 2 threads, torch 2."


def test_quick_run_of_the_server() -> None:
    pytest.importorskip("fastapi", reason="the extra serve is not installed")
    command = [sys.executable, "-m", "bench.serve", "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=800)
    assert done.returncode == 0, done.stderr
    table, _, lines = done.stdout.partition("\n\n")
    rows = [json.loads(line) for line in lines.strip().splitlines()]
    assert len(rows) == sum(line.startswith("| ") for line in table.splitlines()) - 1
    served = [row for row in rows if row["engine"] == "sightline serve"]
    assert {(row["task"], row["clients"]) for row in served} == {
        *(("text query", clients) for clients in (1, 8, 20)),
        *(("32 texts a request", clients) for clients in (1, 4)),
        ("text query beside indexing", 20),
    }
    for row in served:
        assert row["requests"] >= row["clients"] and row["items_s"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["passes"] > 0 and 0 < row["fill"] <= 1 and row["callers_per_pass"] >= 1
    assert all(row["of_engine"] > 0 for row in served if row["task"] == "32 texts a request")
    assert served[-1]["p99_over_idle"] > 0
