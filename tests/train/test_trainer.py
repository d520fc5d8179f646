"""A run: it goes on after a kill as if nothing had been, several processes are one, and the product loads what it made."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import sightline as sl
from sightline.cli.app import app
from sightline.errors import ConfigError
from sightline.train import log, trainer
from sightline.train.checkpoints import latest
from sightline.train.config import Optimiser
from tests.train.runs import pair
from tests.train.tiny import Drawn, folder_of, network_of, stage_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("tiny") / "checkpoint")


def start(*words, **environment):
    command = [sys.executable, "-m", "tests.train.runs", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_killed_run_goes_on_to_the_same_losses(folder, tmp_path, optimiser):
    """Killed in step 4, after the checkpoint of step 2 and the log of step 3. Dropout is on: random numbers count."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    runs = [start("killed", folder, *to, OPTIMISER=optimiser) for to in ((whole, 0), (parts, 4))]
    assert [run.wait(timeout=600) for run in runs] == [0, -signal.SIGKILL]
    assert latest(parts / "checkpoints") == 2 and [line.step for line in log.read(parts / "log.csv")] == [1, 2, 3]
    (parts / "checkpoints" / "step-00000004.partial").mkdir()  # as a kill while writing leaves it
    assert start("killed", folder, parts, 0, OPTIMISER=optimiser).wait(timeout=600) == 0
    expected, found = log.read(whole / "log.csv"), log.read(parts / "log.csv")
    assert [line.step for line in found] == [1, 2, 3, 4, 5, 6]
    for one, other in zip(expected, found, strict=True):
        assert other.loss == pytest.approx(one.loss, abs=1e-6)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
        assert (other.rate, other.accuracy, other.task) == (one.rate, one.accuracy, one.task)
    assert latest(parts / "checkpoints") == 6 and (parts / "curves.png").stat().st_size > 10_000
    with pytest.raises(ConfigError, match="another loss" if optimiser == "adamw" else "another optimiser"):
        run(folder, parts, steps=9)


def run(folder, out, **more):
    network = network_of(folder).requires_grad_(True)
    stage = stage_for(out, folder, **more)
    trainer.run(network, Drawn(folder), stage, step=lambda batch: (network.visual.merger.norm.weight.sum(), {}))


@pytest.mark.parametrize("kind", ["contrast", "distil"])
def test_two_processes_have_the_gradients_of_one(folder, tmp_path, kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pair(folder, tmp_path / "one.pt", kind)
    several = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    runs = [
        start("pair", folder, tmp_path / "two.pt", kind, RANK=str(rank), LOCAL_RANK=str(rank), **several)
        for rank in range(2)
    ]
    assert [run.wait(timeout=600) for run in runs] == [0, 0]
    one, two = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "two.pt")
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6) and two["accuracy"] == one["accuracy"]
    assert set(two["grads"]) == set(one["grads"]) and any("shift" in name for name in two["grads"])
    for name, grad in one["grads"].items():
        torch.testing.assert_close(two["grads"][name], grad, atol=1e-5, rtol=1e-4, msg=name)


def test_what_goes_wrong_where_batches_are_made_reaches_the_user(folder, tmp_path):
    network = network_of(folder).requires_grad_(True)
    stage = stage_for(tmp_path / "o", folder)
    with pytest.raises(ConfigError, match=r"step 0.*tokenizer"):
        trainer.run(network, Drawn(tmp_path / "nowhere"), stage, step=lambda batch: (torch.zeros(()), {}))


def test_gradients_that_are_no_numbers_do_not_move_weights(folder, tmp_path):
    network = network_of(folder).requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def step(batch):
        return network.language_model.norm.weight.sum() * float("nan"), {}

    trainer.run(network, Drawn(folder, ("graded",)), stage_for(tmp_path / "o", folder, steps=2), step=step)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(ConfigError, match="not finite"):
        run_ = stage_for(tmp_path / "p", folder, steps=30)
        trainer.run(network, Drawn(folder, ("graded",)), run_, step=step)


def test_the_learning_rate_follows_from_the_step():
    course = Optimiser(rate=2.0, warmup=0.1, floor=0.1)
    rates = [trainer.learning_rate(step, 100, course) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == 2.0 == rates[9]
    assert rates[55] == pytest.approx(1.1) and rates[99] == pytest.approx(0.2, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


# --- the command -----------------------------------------------------------------------------------------------------


def data(folder: Path, role: str) -> Path:
    """Colours by name: six pictures with their words, which a tiny network can learn by heart."""
    colours = {"red": (220, 20, 20), "night": (10, 10, 40), "wall": (240, 240, 240), "dog": (130, 80, 30)}
    rows = []
    for name, colour in colours.items():
        Image.fromarray(np.full((64, 64, 3), colour, np.uint8)).save(folder / f"{name}.png")
        others = [{"image": f"{other}.png"} for other in colours if other != name]
        rows.append({"query": name, "positives": [{"image": f"{name}.png"}], "negatives": others})
    path = folder / f"{role}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("role", ["embedder", "reranker"])
def test_the_command_trains_a_checkpoint_that_the_product_loads(folder, tmp_path, role):
    data(tmp_path, role)
    lora, steps, rate = ("", 80, 1e-3) if role == "reranker" else ("[lora]\nrank = 8\n", 30, 3e-3)
    (tmp_path / "stage.toml").write_text(
        f'start = "{folder}"\nout = "run"\nsteps = {steps}\ndtype = "float32"\ndevice = "cpu"\nmax_pixels = 4096\n'
        f"chunk_tokens = 200\nlearn = 'both'\n[optimiser]\nrate = {rate}\n"
        f'[loss]\ndims = [16]\nquantised = ["int8"]\ntemperature = 0.1\nlistwise = 1.0\n{lora}'
        f'[[task]]\nname = "colours"\ndata = "{role}.jsonl"\nbatch = 4\nnegatives = 3\n'
    )
    done = CliRunner().invoke(app, ["train", role, str(tmp_path / "stage.toml"), "--json"])
    assert done.exit_code == 0, done.output
    lines = log.read(tmp_path / "run" / "log.csv")
    assert len(lines) == steps
    first, last = (np.mean([line.loss for line in part]) for part in (lines[:5], lines[-5:]))
    assert last < 0.7 * first and lines[-1].accuracy == 1.0
    model = tmp_path / "run" / "model"
    if role == "embedder":
        assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()
        before, after = (sl.Embedder.load(str(where), device="cpu") for where in (folder, model))
        assert np.abs(before.embed(["red"]) - after.embed(["red"])).max() > 0.01
        pictures = [sl.Item(image=str(tmp_path / f"{name}.png")) for name in ("red", "night", "dog")]
        scores = after.embed(["red", "night", "dog"]) @ after.embed(pictures).T
        assert scores.argmax(1).tolist() == [0, 1, 2]
    else:
        reranker = sl.Reranker.load(str(model), device="cpu")
        pictures = [sl.Item(image=str(tmp_path / f"{name}.png")) for name in ("wall", "night", "dog")]
        assert reranker.score("night", pictures).argmax() == 1
    again = CliRunner().invoke(app, ["train", role, str(tmp_path / "stage.toml"), "--json"])
    assert again.exit_code == 0 and len(log.read(tmp_path / "run" / "log.csv")) == steps


def test_the_command_names_what_it_does_not_know(tmp_path):
    (tmp_path / "stage.toml").write_text('start = "builtin"\nout = "o"\nsteps = 3\nlr = 1\n')
    done = CliRunner().invoke(app, ["train", "embedder", str(tmp_path / "stage.toml")])
    assert done.exit_code == 2 and "unknown key 'lr'" in done.output
