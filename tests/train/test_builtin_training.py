"""A few steps of every stage on data made here: losses fall, and what is exported is what was trained."""

import io
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sightline import builtin
from sightline.model.weights import Checkpoint
from sightline.prep.prompt import EMBED_INSTRUCTION, embedding_prompt, to_ids
from sightline.prep.tokens import Tokenizer
from sightline.train import drawing, geometry
from sightline.train.builtin import new_model, train_tokenizer
from sightline.train.data import Corpus, held_out
from sightline.train.export import export
from sightline.train.loop import learning_rate, optimiser
from sightline.train.packing import embedding_pack, forward
from sightline.train.reading import LetterHead, Readable, Speller, reading_batch, reading_loss, targets
from sightline.train.stages import encode, judged
from sightline.train.steps import embedding_step, reranking_step
from sightline.train.tasks import TASKS, Maker, half

FIELDS = ("task", "src", "lang", "q_text", "q_image", "d_text", "d_image", "neg_text", "neg_image")


def picture(color: tuple[int, int, int], side: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, "webp", lossless=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the shared data, in small."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    nouns = [
        "river",
        "house",
        "garden",
        "table",
        "window",
        "street",
        "letter",
        "engine",
        "bottle",
        "flower",
        "mountain",
        "ticket",
        "bridge",
        "camera",
    ]
    verbs = ["opens", "crosses", "paints", "sells", "watches", "repairs", "follows", "carries"]
    rows, images = [], {}

    def add(src: str, task: str, **values: str) -> None:
        rows.append(dict.fromkeys(FIELDS) | {"src": src, "task": task, "lang": "en"} | values)

    def image(name: str) -> str:
        images[name] = picture((rng.randrange(256), rng.randrange(256), rng.randrange(256)))
        return name

    for i in range(60):
        sentence = f"The {rng.choice(nouns)} {rng.choice(verbs)} the {rng.choice(nouns)} number {i}."
        add("tatoeba", "t2t", q_text=sentence.upper(), d_text=sentence)
        add("wordnet", "t2t", q_text=rng.choice(nouns), d_text=f"something that {rng.choice(verbs)} thing {i}")
        add("wordnet-ex", "t2t", q_text=f"a {rng.choice(nouns)} in {i} words", d_text=f"{rng.choice(nouns)}: sense {i}")
        add("banking77", "t2t", q_text=f"where is my {rng.choice(nouns)} {i}?", d_text=rng.choice(nouns))
        add("emoji-xling", "t2t", q_text=f"das {nouns[i % 14]} {i}", d_text=f"{nouns[i % 14]} {i}")
        add("code", "t2t", q_text=f"returns {i}", d_text=f"def f():\n    return {i}")
        for src in ("emoji-name", "emoji-keywords", "lucide", "vega"):
            add(src, "i2t", q_image=image(f"{src}/{i:04x}.webp"), d_text=f"{rng.choice(nouns)}: {i}, {nouns[i % 14]}")
        add("clothing", "i2t", q_image=image(f"clothing/{i}.webp"), d_text=("dress", "hat", "shirt")[i % 3])
        add("grocery", "i2t", q_image=image(f"grocery/{i}.webp"), d_text=("Gala (Apple)", "Kiwi (Kiwi)")[i % 2])
        add(
            "emoji-tone",
            "it2i",
            q_text="the same, darker",
            q_image=image(f"t/{i:04x}_a.webp"),
            d_image=f"t/{i:04x}_a.webp",
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    pq.write_table(pa.table({"id": list(images), "webp": list(images.values())}), folder / "images.parquet")
    return folder


@pytest.fixture(scope="module")
def out(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    train_tokenizer(data, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(out: Path) -> Tokenizer:
    return Tokenizer(out / "embedder" / "tokenizer.json")


@pytest.fixture(autouse=True)
def few_threads() -> None:
    torch.set_num_threads(1)


def test_no_sentence_is_on_both_sides(data: Path) -> None:
    corpus = Corpus(data)
    assert corpus.sentences and corpus.valid_sentences
    assert not set(corpus.sentences) & set(corpus.valid_sentences)
    assert not {row.d_text for row in corpus.train["tatoeba"]} & {row.d_text for row in corpus.valid["tatoeba"]}
    assert sum(held_out(str(i)) for i in range(5000)) == pytest.approx(500, abs=80)


def test_prompts_take_few_tokens(tokenizer: Tokenizer) -> None:
    ids = to_ids(embedding_prompt(EMBED_INSTRUCTION, ["a"]), tokenizer)
    assert len(ids) <= 22
    assert tokenizer.decode(list(tokenizer.encode("Größe 価格"))) == "Größe 価格"
    assert tokenizer.word_id("yes") != tokenizer.word_id("no")
    assert len(tokenizer.added_tokens) == 26


def test_labels_stand_where_the_words_stand(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    page = drawing.draw_page(rng, ["river"], 128, 64, size=(20, 20), plain=True)
    tokens, letters = targets(page, Speller(tokenizer), rng)
    word = page.words[0]
    wanted = set(tokenizer.encode(" river"))
    cells = {int(row) for row, label in zip(tokens.rows, tokens.classes, strict=True) if int(label) in wanted}
    touched = {
        r * 4 + c
        for r in range(int(word.top // 32), int(word.bottom // 32) + 1)
        for c in range(int(word.left // 32), int(word.right // 32) + 1)
    }
    assert cells and cells <= touched
    for labels in (tokens, letters):
        sums = np.zeros(labels.rows.max() + 1)
        np.add.at(sums, labels.rows, labels.weights)
        assert sums[np.unique(labels.rows)] == pytest.approx(1.0, abs=1e-5)


def test_every_task_draws_and_has_a_finite_loss(data: Path, tokenizer: Tokenizer) -> None:
    maker = Maker(Corpus(data))
    model, speller = new_model(tokenizer, 0), Speller(tokenizer)
    head = LetterHead(model.config.vision.hidden_size)
    readable = Readable(speller, maker.sentences, geometry.VOCAB_SIZE)
    assert {task.name for task in TASKS} == set(maker.makers)
    for name, make in maker.makers.items():
        rng = random.Random(name)
        batch = make(rng, 0.5, 0.05)
        loss, _ = embedding_step(model, head, encode(batch, tokenizer, speller, rng), readable, centre=False)
        assert torch.isfinite(loss), name


def test_half_keeps_order() -> None:
    text = "one red bird sings in the old green tree"
    kept = half(random.Random(1), text).split()
    words = text.split()
    assert len(kept) == len(words) // 2
    assert [words.index(word) for word in kept] == sorted(words.index(word) for word in kept)


def test_an_edited_scene_has_another_caption() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = drawing.random_scene(rng)
        edited, words = drawing.edit_scene(rng, scene)
        assert edited.caption() != scene.caption()
        assert words.startswith("the same, but")


def test_training_lowers_the_loss_and_the_export_reloads(data: Path, out: Path, tokenizer: Tokenizer) -> None:
    corpus = Corpus(data)
    maker, speller = Maker(corpus), Speller(tokenizer)
    model = new_model(tokenizer, 0)
    head = LetterHead(model.config.vision.hidden_size)
    readable = Readable(speller, corpus.sentences, geometry.VOCAB_SIZE)
    rng = random.Random(0)
    adam = optimiser([model, head])

    def steps(loss_of: object, count: int) -> tuple[float, float]:
        first = last = 0.0
        for step in range(count):
            loss, _ = loss_of()  # type: ignore[operator]
            adam.zero_grad()
            loss.backward()
            adam.step()
            first, last = (loss.item() if step == 0 else first), loss.item()
        return first, last

    pages = reading_batch(rng, corpus.sentences, maker.words, speller, 0.0, 0.02)
    first, last = steps(lambda: reading_loss(model, head, pages, readable), 6)
    assert last < first

    scenes = maker.scenes(rng, 0.0, 0.1)
    encoded = encode(scenes, tokenizer, speller, rng)
    first, last = steps(lambda: embedding_step(model, head, encoded, readable, centre=True), 10)
    assert last < first

    with torch.no_grad():  # what is stored is bf16
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
    folder = out / "embedder"
    export(model, folder, folder)
    checkpoint = Checkpoint(folder)
    reloaded = checkpoint.build(torch.device("cpu"), torch.float32)
    pack = embedding_pack([example.document for example in scenes.examples], tokenizer)
    with torch.no_grad():
        assert torch.equal(forward(model, pack), forward(reloaded, pack))

    scores = np.eye(len(scenes.examples), dtype=np.float32)
    pairs = judged(scenes, scenes.examples, scores, tokenizer, rng, 3, 2)
    yes, no = tokenizer.word_id("yes"), tokenizer.word_id("no")
    first, last = steps(lambda: reranking_step(model, pairs, yes, no), 8)
    assert last < first


def test_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(p / 100, 1.0) for p in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=0.02)
    assert rates[0] < 0.1 and rates[-1] == pytest.approx(0.02)


def test_the_two_models_fit_the_package(tokenizer: Tokenizer) -> None:
    model = new_model(tokenizer, 0)
    each = sum(parameter.numel() for parameter in model.parameters())
    assert 2 * each <= 15_000_000
    assert geometry.config_json(tokenizer.added_tokens)["tie_word_embeddings"] is True
    folders = [builtin.path(name) for name in builtin.MODELS]
    if all((folder / "model.safetensors").is_file() for folder in folders):
        size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*"))
        assert size <= 30_000_000
        for folder in folders:
            assert Checkpoint(folder).num_parameters() == each
