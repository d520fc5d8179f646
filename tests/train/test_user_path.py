"""The path of docs/training.md, from product photos and search logs to a better index, with its own commands and files.

What the page says is what runs: blocks of its first section in their order, with tiny models for the published ones.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sightline.model.weights import Checkpoint
from sightline.train import config
from sightline.train.log import read as read_log
from sightline.train.records import open_records
from tests.parity.checkpoints import random_checkpoint

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
PATH = PAGE.split("## The whole path")[1].split("\n## ")[0]
BLOCK = re.compile(r"(?:`([\w.]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)

SMALLER = [
    ("Qwen/Qwen3-VL-Embedding-2B", "tiny"),
    (
        "steps = 600",
        'steps = 60\nsave_every = 30\ndtype = "float32"\ndevice = "cpu"\nlearn = "both"\nmin_pixels = 1024',
    ),
    ("chunk_tokens = 8192 ", "chunk_tokens = 1024 "),
    ("rate = 1e-4", "rate = 2e-3\nwarmup = 0.1\n\n[loss]\ntemperature = 0.05"),
    ("batch = 64\nnegatives = 4", "batch = 16\nnegatives = 1"),
    # a random model finds everything near everything
    ("--min-positive 0.2 --margin 0", "--min-positive -1 --margin 2"),
]
"""What the test changes in the page's blocks: sizes and thresholds, no command and no option's name."""

COLOURS = {
    "red": (215, 30, 40), "green": (30, 160, 60), "blue": (30, 70, 215), "yellow": (240, 215, 40),
    "black": (20, 20, 20), "pink": (250, 150, 190), "orange": (240, 140, 20), "grey": (130, 130, 130),
}  # fmt: skip
THINGS = ("cup", "box", "bag", "hat", "tie")


def photo(colour: str, thing: str, seed: int) -> Image.Image:
    """A product on a table: a colour and a shape, lit a little differently each time."""
    rng = random.Random(seed)
    table = tuple(rng.randint(215, 250) for _ in range(3))
    picture = Image.new("RGB", (64, 64), table)
    draw = ImageDraw.Draw(picture)
    left, top = rng.randint(4, 10), rng.randint(4, 10)
    box = (left, top, left + 46, top + 46)
    ink = tuple(max(0, min(255, value + rng.randint(-12, 12))) for value in COLOURS[colour])
    if thing == "cup":
        draw.ellipse(box, fill=ink)
    elif thing == "box":
        draw.rectangle(box, fill=ink)
    elif thing == "bag":
        draw.polygon([(box[0], box[3]), (box[2], box[3]), (left + 23, top)], fill=ink)
    elif thing == "hat":
        draw.rectangle((box[0], top + 28, box[2], box[3]), fill=ink)
    else:
        draw.rectangle((left + 16, top, left + 30, box[3]), fill=ink)
    return picture


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 photos, the logs of searches for them, labels in other words, and a model that knows nothing of either."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "photos").mkdir()
    random_checkpoint(folder / "tiny", seed=1)
    logs, labels = [], []
    for number, (colour, thing) in enumerate(itertools.product(COLOURS, THINGS)):
        name = f"photos/{number:05}.png"
        photo(colour, thing, number).save(folder / name)
        click = {"positives": [{"image": name}]}
        logs += [{"query": f"{colour} {thing}", **click}, {"query": f"buy a {colour} {thing}", **click}]
        labels.append({"query": f"{thing}, {colour}", **click})
    random.Random(0).shuffle(logs)
    for name, rows in (("logs.jsonl", logs), ("labels.jsonl", labels)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def smaller(text: str) -> str:
    """A block of the page at the size of a test."""
    for said, tiny in SMALLER:
        text = text.replace(said, tiny)
    return text


def run(command: str, folder: Path) -> str:
    """A line of the page, by this Python; its standard output."""
    words = shlex.split(command)
    program = {"sightline": [sys.executable, "-m", "sightline"], "python": [sys.executable]}[words[0]]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*program, *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "SIGHTLINE_DEVICE": "cpu"},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_from_photos_and_logs_to_a_better_index(shop: Path) -> None:
    said: dict[str, str] = {}
    for name, kind, text in BLOCK.findall(PATH):
        if kind in {"toml", "python"}:
            assert name, "a file of the page has its name above it"
            (shop / name).write_text(smaller(text))
        elif kind == "sh":
            for line in smaller(text).splitlines():
                said[line] = run(line, shop)
    commands = [" ".join(line.split()[:3]) for line in said]
    assert commands == [
        "sightline train mine", "sightline train embedder", "sightline train merge",
        "sightline index photos", "sightline index photos", "python compare.py labels.jsonl",
    ]  # fmt: skip

    mined = list(open_records(shop / "mined.jsonl"))
    assert len(mined) == 80 and all(len(record.negatives) == 4 for record in mined)
    names = [[Path(str(item.image)).name for item in (*row.positives, *row.negatives)] for row in mined]
    assert all(len(set(row)) == 5 for row in names), "no picture twice in a row"

    losses = [line.loss for line in read_log(shop / "runs/clicks/log.csv")]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert (shop / "runs/clicks/adapter/adapter_model.safetensors").is_file()
    base, trained, merged = (Checkpoint(shop / name) for name in ("tiny", "runs/clicks/model", "runs/merged"))
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    wanted = 0.8 * trained.tensor(name) + 0.2 * base.tensor(name)
    assert not trained.tensor(name).equal(base.tensor(name))
    assert np.allclose(merged.tensor(name).numpy(), wanted.numpy(), atol=1e-6)

    found = re.findall(r"(\w+)\.sightline R@(\d+) ([\d.]+)", said[list(said)[-1]])
    recall = {(index, int(k)): float(share) for index, k, share in found}
    assert set(recall) == {(index, k) for index in ("before", "after") for k in (1, 10)}
    # by chance .025 and .25; the labels are in words of another order than the logs
    assert recall["after", 10] >= 0.5 and recall["after", 10] >= recall["before", 10] + 0.15, recall
    assert recall["after", 1] > recall["before", 1], recall


def test_every_file_of_a_stage_on_the_page_is_read(tmp_path: Path) -> None:
    files = {name: text for name, kind, text in BLOCK.findall(PAGE) if kind == "toml"}
    assert set(files) == {"clicks.toml", "s0.toml", "s1.toml", "s2.toml", "reranker.toml"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        stage = config.read(tmp_path / name, "reranker" if name == "reranker.toml" else "embedder")
        assert stage.lora is not None and stage.steps >= 600


def test_the_page_names_every_column_and_kind_and_way() -> None:
    from typing import get_args

    from sightline.train.batch import Kind
    from sightline.train.merge import HOWS
    from sightline.train.records import COLUMNS

    table = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(COLUMNS) | set(get_args(Kind)) | set(HOWS) == set(table)
