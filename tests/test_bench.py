"""The benchmarks run, and end in lines of JSON that other programs can read."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROMISED = {
    *("engine", "task", "dtype", "items", "items_s", "tokens_s", "padding", "peak_rss_mb", "share_vision"),
    *("share_decoder", "share_prep", "gflop_s", "peak_gflop_s", "device", "versions", "commit", "threads"),
}


@pytest.mark.parametrize("script", ["embed", "rerank"])
def test_quick_run(script: str) -> None:
    pytest.importorskip("transformers")
    command = [sys.executable, str(ROOT / "bench" / f"{script}.py"), "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    table, _, lines = done.stdout.partition("\n\n")
    rows = [json.loads(line) for line in lines.strip().splitlines()]
    assert len(rows) >= 7
    assert len(rows) == sum(line.startswith("| ") for line in table.splitlines()) - 1
    for row in rows:
        assert set(row) >= PROMISED
        assert row["items_s"] > 0
        assert 0 <= row["padding"] < 1
    engines = {row["engine"].split(",")[0] for row in rows}
    assert engines == {"sightline", "transformers"}
    assert all(row["padding"] == 0 for row in rows if row["engine"] == "sightline")
