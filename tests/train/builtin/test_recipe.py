"""The whole recipe at toy scale: every loss falls, every stage changes the vectors, and the product opens the result."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLModel
from typer.testing import CliRunner

import sightline as sl
from sightline import builtin
from sightline.cli.app import app
from sightline.errors import ConfigError
from sightline.media.reader import Reader
from sightline.model.config import ModelConfig
from sightline.model.vl import QwenVL
from sightline.model.weights import Checkpoint
from sightline.prep.prepare import Budgets, Preparer
from sightline.prep.tokens import Tokenizer
from sightline.train import log, trainer
from sightline.train.builtin import layout, recipe, tasks as made
from sightline.train.checkpoints import latest
from tests.parity.conftest import picture
from tests.train.builtin.small import Here, make_corpus, real_config, use_tiny_geometry
from tests.train.test_export import theirs

STEPS = {"words": 90, "looking": 18, "imitation": 36, "s0": 15, "s1": 48, "binding": 12, "reranker": 24, "s2": 18}
"""Of the toy run."""
MORE_STEPS = {"more": 15, "more_reranker": 15}
"""Of what goes on from its models."""
RATES = {"imitation": 2.0, "s0": 3.0, "s1": 5.0, "binding": 2.0, "reranker": 4.0, "s2": 4.0}
"""Factors: a small network wants larger steps."""
TASKS = ("cells", "tatoeba", "emoji", "scene", "clip")
"""The cells, and as many as one step takes, so that losses of different steps are of the same tasks; test_drawn.py has
the others."""
SCALE = recipe.Scale(batch=0.1)
SAVE_EVERY = 10

real_stage_file = recipe.stage_file


def toy_stage(name: str, out: Path, scale: recipe.Scale = SCALE, **more: Any) -> Any:
    """A stage of a few steps, with checkpoints between them."""
    stage = real_stage_file(name, out, dataclasses.replace(scale, rate=RATES.get(name, 1.0)), **more)
    tasks = tuple(task for task in stage.task if task.name in TASKS) or stage.task
    return dataclasses.replace(stage, steps=(STEPS | MORE_STEPS)[name], save_every=SAVE_EVERY, task=tasks)


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """Tiny networks, few steps, batches drawn in this process, of one size, so that their losses can be compared."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_geometry(patch)
        patch.setattr(recipe, "stage_file", toy_stage)
        patch.setattr(made, "ZOOMS", (1.0,))
        patch.setattr(trainer, "Ahead", Here)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    told: list[str] = []
    recipe.run(data, folder, scale=SCALE, device="cpu", screen=False, done=lambda name, _: told.append(name))
    assert told == [*recipe.STAGES]
    return folder


@pytest.fixture
def shipped(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The toy models in the place of the package's."""
    recipe.ship(recipe.results(out, recipe.STAGES), tmp_path / "package")
    folders = {role: tmp_path / "package" / role for role in builtin.MODELS}
    monkeypatch.setattr(builtin, "path", folders.__getitem__)
    return folders


@pytest.mark.parametrize("name", STEPS)
def test_the_loss_of_every_stage_falls(out: Path, name: str) -> None:
    losses = [line.loss for line in log.read(out / name / "log.csv")]
    third = STEPS[name] // 3
    assert len(losses) == STEPS[name] and np.isfinite(losses).all()
    assert np.mean(losses[-third:]) < 0.97 * np.mean(losses[:third])
    assert (out / name / "curves.png").is_file() and latest(out / name / "checkpoints") == STEPS[name]


def vectors(folder: Path) -> np.ndarray:
    items = [
        sl.Item(text="the red river"),
        sl.Item(image=picture(96, 64, 1)),
        sl.Item(text="x", image=picture(64, 64, 2)),
    ]
    return sl.Embedder.load(str(folder), dtype="float32", device="cpu").embed(items)


def test_every_stage_changes_the_vectors(out: Path) -> None:
    folders = [out / "start" / "embedder"] + [
        out / n / "model" for n in ("looking", "imitation", "s0", "s1", "s2", "s3")
    ]
    made = [vectors(folder) for folder in folders]
    for before, after, folder in zip(made, made[1:], folders[1:], strict=False):
        assert np.abs(before - after).max() > 1e-3, folder
    s1, s2, s3 = (Checkpoint(out / name / "model") for name in ("s1", "s2", "s3"))
    for name in ("model.language_model.norm.weight", "model.visual.pos_embed.weight"):
        middle = (recipe.MERGE[0] * s1.tensor(name) + recipe.MERGE[1] * s2.tensor(name)) / sum(recipe.MERGE)
        torch.testing.assert_close(s3.tensor(name), middle, atol=1e-6, rtol=0)


def moved(one: Path, two: Path) -> set[str]:
    """Which parts differ between two checkpoints by more than bf16, in which a stage holds what does not learn."""
    first, second = Checkpoint(one), Checkpoint(two)
    differ = {
        name for name in first.files if not torch.equal(first.tensor(name).bfloat16(), second.tensor(name).bfloat16())
    }
    return {"vision" if ".visual." in name else "table" if "embed_tokens" in name else "decoder" for name in differ}


def test_each_stage_moves_the_towers_it_is_for(out: Path) -> None:
    start = out / "start" / "embedder"
    assert moved(start, out / "looking" / "model") == {"vision", "table"}  # the table is that of the bags
    assert moved(out / "looking" / "model", out / "imitation" / "model") == {"decoder", "table"}
    parts = {"vision": {"vision"}, "decoder": {"decoder", "table"}, "both": {"vision", "decoder", "table"}}
    for before, name in (("imitation", "s0"), ("s0", "s1"), ("s1", "binding"), ("binding", "reranker"), ("s1", "s2")):
        assert moved(out / before / "model", out / name / "model") == parts[toy_stage(name, out).learn], name


def test_transformers_gives_the_embedders_vectors(out: Path) -> None:
    folder = out / "s3" / "model"
    network = Qwen3VLModel.from_pretrained(folder, dtype=torch.float32).eval()
    preparer = Preparer(Tokenizer(folder / "tokenizer.json"), Reader(), Budgets(max_pixels=layout.MAX_PIXELS))
    embedder = sl.Embedder.load(str(folder), dtype="float32", device="cpu")
    for item in (sl.Item(text="the red river"), sl.Item(image=picture(97, 64, 3))):
        state = theirs(network, preparer.embedding(item), network.config)["last_hidden_state"][0, -1]
        ours = embedder.embed([item])[0]
        assert np.abs(torch.nn.functional.normalize(state, dim=0).numpy() - ours).max() <= 1e-5


def test_transformers_gives_the_rerankers_odds(out: Path) -> None:
    folder = out / "reranker" / "model"
    reranker = sl.Reranker.load(str(folder), dtype="float32", device="cpu")
    assert reranker.card.trust == recipe.TRUST
    documents = [sl.Item(text="the red river"), sl.Item(image=picture(64, 96, 5))]
    network = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = Tokenizer(folder / "tokenizer.json")
    preparer = Preparer(tokenizer, Reader(), Budgets(max_pixels=layout.MAX_PIXELS))
    yes, no = tokenizer.word_id("yes"), tokenizer.word_id("no")
    for document, ours in zip(documents, reranker.log_odds("a river", documents), strict=True):
        question, answer = preparer.read(sl.Item(text="a river")), preparer.read(document)
        prompt = preparer.pair(question, answer, instruction=reranker.card.instruction)
        logits = theirs(network, prompt, network.config)["logits"][0, -1]
        assert abs(float(logits[yes] - logits[no]) - ours) <= 1e-4 * max(1.0, abs(ours))


def test_the_packages_models_go_on(
    data: Path, out: Path, shipped: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = ("page", "passage", "sheet", "tatoeba")
    with monkeypatch.context() as patch:
        patch.setattr(f"{__name__}.TASKS", pages)
        words = ["train", "builtin", "--data", data, "--out", tmp_path / "on", "--stages", "more,more_reranker"]
        words += ["--batch", 0.1, "--device", "cpu", "--ship", tmp_path / "new", "--json"]
        done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["stages"] == ["more", "more_reranker"]
    assert moved(shipped["embedder"], tmp_path / "new" / "embedder") == {"decoder"}
    assert "vision" not in moved(shipped["reranker"], tmp_path / "new" / "reranker")
    assert not (tmp_path / "on" / "start").exists()
    # what texts say is held: an old index of them is found by the new model
    texts = [f"the {color} {noun}" for color in ("red", "blue", "green") for noun in ("river", "house", "ticket")]
    before, after = (
        sl.Embedder.load(str(folder), dtype="float32", device="cpu").embed(texts)
        for folder in (shipped["embedder"], tmp_path / "new" / "embedder")
    )
    assert (before * after).sum(1).min() > 0.9
    assert sl.Reranker.load(str(tmp_path / "new" / "reranker"), device="cpu").card.trust == recipe.TRUST


class Stopped(Exception):
    """As a kill would, between two steps."""


@pytest.mark.parametrize(
    ("name", "step"), [("looking", "looking_loss"), ("s0", "embedding_step"), ("more", "embedding_step")]
)
def test_a_stopped_stage_goes_on_to_the_same_losses(
    data: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, step: str
) -> None:
    """Stopped in a step after its first checkpoint; the stages before it are those of the whole run."""
    for before in ("start", "words", "looking", "imitation"):
        if before != name:
            (tmp_path / before).symlink_to(out / before)
    if name == "more":  # the pages before the kill are remembered after it
        monkeypatch.setattr(f"{__name__}.TASKS", ("page", "passage", "sheet", "tatoeba"))
        recipe.ship(recipe.results(out, recipe.STAGES), tmp_path / "package")
        monkeypatch.setattr(builtin, "path", (tmp_path / "package").joinpath)
    real, taken = getattr(recipe, step), 0

    def stopping(*given: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == SAVE_EVERY + 3:
            raise Stopped
        return real(*given)

    again: dict[str, Any] = {"scale": SCALE, "stages": [name], "device": "cpu", "screen": False}
    with monkeypatch.context() as patch:
        patch.setattr(recipe, step, stopping)
        with pytest.raises(Stopped):
            recipe.run(data, tmp_path, **again)
    assert latest(tmp_path / name / "checkpoints") == SAVE_EVERY and not (tmp_path / name / "model").exists()
    recipe.run(data, tmp_path, **again)
    if name == "more":
        recipe.run(data, tmp_path / "whole", **again)
        out = tmp_path / "whole"
    expected, found = (log.read(folder / name / "log.csv") for folder in (out, tmp_path))
    assert [line.step for line in found] == [line.step for line in expected]
    assert [line.loss for line in found] == pytest.approx([line.loss for line in expected], abs=1e-5)
    assert [line.task for line in found] == [line.task for line in expected]
    assert np.array_equal(vectors(tmp_path / name / "model"), vectors(out / name / "model"))


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_does_nothing_twice_and_ships(
    data: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a stage that is done was done again")

    monkeypatch.setattr(trainer, "run", never)
    words = ["train", "builtin", "--data", str(data), "--out", str(out), "--ship", str(tmp_path / "two"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == {"out": str(out), "stages": [*recipe.STAGES], "ship": str(tmp_path / "two")}
    shipped = Checkpoint(tmp_path / "two" / "embedder")
    assert {shipped.described(name)[1] for name in shipped.files} == {"BF16"}
    assert np.abs(vectors(tmp_path / "two" / "embedder") - vectors(out / "s3" / "model")).max() < 0.05
    assert sl.Reranker.load(str(tmp_path / "two" / "reranker"), device="cpu").score("a", ["b"]).shape == (1,)


def test_the_command_trains_with_processes_that_draw(
    data: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user runs it: the real steps of the stage, fewer, drawn by two other processes."""
    monkeypatch.undo()
    from sightline.train.ahead import Ahead

    monkeypatch.setattr(trainer, "Ahead", Ahead)
    monkeypatch.setattr(recipe, "stage_file", real_stage_file)
    (tmp_path / "start").symlink_to(out / "start")
    factor = 6 / real_stage_file("words", tmp_path).steps
    words = ["train", "builtin", "--data", data, "--out", tmp_path, "--stages", "words", "--steps", factor]
    words += ["--batch", 0.02, "--workers", 2, "--device", "cpu", "--seed", 3, "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["stages"] == ["words"]
    assert len(log.read(tmp_path / "words" / "log.csv")) == 6 and (tmp_path / "words" / "bags.safetensors").is_file()


def test_wrong_options_are_named(data: Path, tmp_path: Path) -> None:
    for more, words in (
        (["--data", data, "--stages", "words,s9"], "unknown stage 's9'"),
        (["--data", tmp_path], "holds no pairs.parquet"),
        (["--data", data, "--steps", "0"], "factors over 0"),
    ):
        done = CliRunner().invoke(app, ["train", "builtin", "--out", str(tmp_path / "o"), *map(str, more)])
        assert done.exit_code == 2 and words in done.output
    with pytest.raises(ConfigError, match="run the stage"):
        recipe.run(data, tmp_path / "o", stages=["s1"], screen=False)


# --- the package -----------------------------------------------------------------------------------------------------


def test_factors_scale_a_stage(tmp_path: Path) -> None:
    one = real_stage_file("s1", tmp_path)
    two = real_stage_file("s1", tmp_path, recipe.Scale(steps=2, batch=3, rate=0.5), workers=7, device="cpu")
    assert two.steps == 2 * one.steps and two.optimiser.rate == one.optimiser.rate / 2
    assert [task.batch for task in two.task] == [3 * task.batch for task in one.task]
    assert (two.workers, two.device, two.out) == (7, "cpu", tmp_path / "s1")


def test_the_two_models_fit_the_package(out: Path) -> None:
    """Twenty million parameters each, forty megabytes together in the wheel: those there are, and those to come."""
    config = real_config(Tokenizer(out / "start" / "embedder" / "tokenizer.json").added_tokens)
    with torch.device("meta"):
        each = sum(parameter.numel() for parameter in QwenVL(ModelConfig.from_dict(config)).parameters())
    assert each <= 20_000_000 and 2 * 2 * each <= 40_000_000 and config["tie_word_embeddings"] is True
    folders = [builtin.path(name) for name in builtin.MODELS]
    assert all(Checkpoint(folder).num_parameters() <= 20_000_000 for folder in folders)
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert sum(len(zlib.compress(file.read_bytes(), 1)) for file in files) <= 40_000_000
