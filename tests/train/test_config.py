"""A stage's file: what it may say, what it says by default, and what is told to someone who mistypes."""

from pathlib import Path

import pytest

from sightline.errors import ConfigError
from sightline.train.config import read, stage_of

LEAST = {"start": "builtin", "out": "o", "steps": 9, "task": [{"name": "a", "data": "x.jsonl"}]}


def test_a_file_with_every_kind_of_value_is_read(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "s1.toml").write_text(
        'start = "base"\nout = "runs/s1"\nsteps = 20\nlearn = "both"\nchunk_tokens = 512\n'
        '[optimiser]\nrate = 1\n[loss]\ndims = [64, 128]\nquantised = ["int8"]\nbeside = true\n[lora]\nrank = 4\n'
        '[[task]]\nname = "a"\ndata = ["x.jsonl", "/y.parquet"]\nweight = 2\n'
        '[[task]]\nname = "b"\ndata = "z.jsonl"\nkind = "graded"\ninstruction = "Find"\n'
    )
    stage = read(tmp_path / "s1.toml", "embedder")
    assert stage.start == str(tmp_path / "base") and stage.out == tmp_path / "runs/s1"
    assert stage.optimiser.rate == 1.0 and isinstance(stage.optimiser.rate, float)
    assert stage.loss.dims == (64, 128) and stage.loss.quantised == ("int8",) and stage.loss.beside
    assert stage.lora is not None and stage.lora.rank == 4
    first, second = stage.task
    assert first.data == (tmp_path / "x.jsonl", Path("/y.parquet")) and first.kind == "contrast" and first.weight == 2
    assert second.kind == "graded" and second.instruction == "Find"


def test_an_empty_lora_table_is_the_reports_and_none_is_full_training():
    lora = stage_of({**LEAST, "lora": {}}, "embedder").lora
    assert lora is not None and (lora.rank, lora.alpha) == (32, 32)
    assert set(lora.targets) == {f"{part}_proj" for part in ("q", "k", "v", "up", "down", "gate")}
    assert stage_of(LEAST, "embedder").lora is None


def test_a_rerankers_tasks_are_yes_or_no():
    assert stage_of(LEAST, "reranker").task[0].kind == "yes_no"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"learning_rate": 1e-4}, "learning_rate.*Allowed: start, out, steps"),
        ({"lora": {"ranks": 8}}, "'lora.ranks'; did you mean 'rank'.*Allowed: rank, alpha"),
        ({"task": [{"name": "a", "data": "x", "batchs": 3}]}, "'task.batchs'.*'batch'"),
        ({"task": [{"data": "x"}]}, "'task.name' is missing"),
        ({"task": [{"name": "a"}]}, "give data"),
        ({"task": []}, "at least one"),
        ({"task": [{"name": "a", "data": "x"}] * 2}, "two tasks are called 'a'"),
        ({"task": [{"name": "a", "data": "x", "kind": "yes_no"}]}, "contrast, classes, graded, distil"),
        ({"steps": "many"}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"dtype": "float16"}, "one of bfloat16, float32"),
        ({"loss": {"quantised": ["int4"]}}, "one of int8, binary"),
        ({"loss": {"temperature": 0}}, "temperature"),
        ({"loss": 3}, "loss must be a table"),
        ({"optimiser": {"warmup": 2.0}}, "from 0 to 0.99"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(change, says):
    with pytest.raises(ConfigError, match=says):
        stage_of({**LEAST, **change}, "embedder")


def test_a_file_that_is_not_there_or_no_toml(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.toml", "embedder")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(ConfigError, match="not TOML"):
        read(tmp_path / "bad.toml", "embedder")
