"""What the stages of the built-in models are given: labels, pairs, tasks; and that it is the same every time."""

from __future__ import annotations

import dataclasses
import pickle
import random
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sightline.prep.prompt import EMBED_INSTRUCTION, embedding_prompt, to_ids
from sightline.prep.tokens import Tokenizer
from sightline.train.builtin import drawing, imitation, recipe, words
from sightline.train.builtin.corpus import Corpus, held_out
from sightline.train.builtin.drawing import Group, Page, Scene, Word
from sightline.train.builtin.imitation import Imitating, imitation_step
from sightline.train.builtin.labels import NO_GRAM, NOTHING, Speller, Targets, grams_at, targets
from sightline.train.builtin.looking import (
    Heads,
    Look,
    Looker,
    Looking,
    blended,
    from_told,
    labelled,
    looking_loss,
)
from sightline.train.builtin.spelling import GRAM_INDEX, GRAMS, grams, rarity, spelled
from sightline.train.builtin.stages import CELLS, Drawn, judging_batch
from sightline.train.builtin.tasks import Maker, half
from sightline.train.builtin.words import Bagging, Bags, Sources, words_step
from sightline.train.packing import Side
from tests.train.builtin.small import VOCAB_SIZE, descend, make_corpus, tiny_model, use_tiny_geometry

STAGES = {
    name: recipe.stage_file(name, Path("out"))
    for name in ("s0", "s1", "binding", "reranker", "s2", "more", "more_reranker")
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="module")
def corpus(data: Path) -> Corpus:
    return Corpus(data)


@pytest.fixture(scope="module")
def path(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``tokenizer.json``, learned from the corpus."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_geometry(patch)
        recipe.start(data, folder, 0)
    yield folder / "start" / "embedder" / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(path: Path) -> Tokenizer:
    return Tokenizer(path)


def test_no_sentence_is_on_both_sides(corpus: Corpus) -> None:
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


# --- labels of cells -------------------------------------------------------------------------------------------------


def cells_of(labels: Targets, ids: set[int]) -> set[int]:
    """Rows that are asked for one of these tokens."""
    return {int(row) for row, label in zip(labels.rows, labels.classes, strict=True) if int(label) in ids}


def test_a_written_word_is_the_label_of_its_cells(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    page = drawing.draw_page(rng, ["river"], 128, 64, size=(20, 20), plain=True)
    tokens, letters, _ = targets(page, Speller(tokenizer), rng)
    word = page.words[0]
    touched = {
        r * 4 + c
        for r in range(int(word.top // 32), int(word.bottom // 32) + 1)
        for c in range(int(word.left // 32), int(word.right // 32) + 1)
    }
    found = cells_of(tokens, set(tokenizer.encode(" river")))
    assert found and found <= touched
    for labels in (tokens, letters):
        sums = np.zeros(labels.rows.max() + 1)
        np.add.at(sums, labels.rows, labels.weights)
        assert sums[np.unique(labels.rows)] == pytest.approx(1.0, abs=1e-5)


def test_a_shapes_cells_are_asked_for_colour_and_shape(tokenizer: Tokenizer) -> None:
    rng = random.Random(1)
    page = drawing.scene_page(rng, Scene((Group("circle", "red", size="large", place="in the middle"),)), 128, 128)
    (word,) = page.words
    assert word.whole and word.text == "red circle"
    tokens, letters, grams = targets(page, Speller(tokenizer), rng)
    names = {*tokenizer.encode(" red"), *tokenizer.encode(" circle")}
    middle = int((word.top + word.bottom) / 2 // 32) * 4 + int((word.left + word.right) / 2 // 32)
    assert {int(c) for r, c in zip(tokens.rows, tokens.classes, strict=True) if r == middle} == names
    for token in names:
        assert len(cells_of(tokens, {token})) >= 4
    assert set(letters.classes) <= {NOTHING} and set(grams.classes) <= {NO_GRAM}, "nothing is written in a shape"


def test_words_stay_on_what_they_name_in_any_size() -> None:
    """A black box on white, drawn in other sizes, in a frame: the word's box is where the black is."""
    drawn: list[tuple[int, int]] = []

    def draw(width: int, height: int) -> Page:
        drawn.append((width, height))
        pixels = np.full((height, width, 3), 255, np.uint8)
        pixels[height // 4 : height // 2, width // 4 : width // 2] = 0
        edges = (width // 4, width // 3, width // 2)
        return Page(pixels, (Word("x", width // 4, height // 4, width // 2, height // 2, edges=edges),))

    rng = random.Random(0)
    for _ in range(60):
        page = drawing.framed(drawing.of_any_size(rng, draw, 128, 96), 3, 5, 7, 9)
        (word,) = page.words
        assert page.pixels.shape == (96 + 14, 128 + 10, 3)
        rows, columns = np.nonzero(page.pixels[..., 0] < 128)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box == pytest.approx((word.left, word.top, word.right, word.bottom), abs=1.01)
        assert word.edges[0] == word.left < word.edges[1] < word.edges[2] == word.right
    assert 8 <= drawn.count((128, 96)) <= 30, "as large as it is seen"
    widths = [width for width, _ in drawn]
    assert 85 <= min(widths) < 100 and 170 < max(widths) <= 202


def test_a_letter_that_grows_when_made_small_moves_no_other() -> None:
    assert [(GRAMS[gram], place) for gram, place in grams(" İa")] == [("a", 1)]
    assert [(GRAMS[gram], place) for gram, place in grams(" Ba")] == [("b", 0), ("_b", 0), ("a", 1), ("ba", 1)]


def test_letters_and_pairs_are_asked_for_where_the_font_puts_them(tokenizer: Tokenizer) -> None:
    rng = random.Random(4)
    page = drawing.draw_page(rng, ["illwww"], 256, 64, size=(24, 24), plain=True)
    (word,) = page.words
    assert word.edges[0] == word.left and word.edges[-1] == pytest.approx(word.right)
    assert word.edges[3] < word.left + 0.4 * (word.right - word.left), "narrow letters take less than their share"
    places = {GRAMS[gram]: at for gram, at in grams_at(word)}
    assert word.edges[0] < places["_i"] == places["i"] < word.edges[1] == places["il"]
    labels = targets(page, Speller(tokenizer), rng)[2]
    row = int((word.top + word.bottom) / 2 // 32)
    for gram in ("_i", "il", "lw"):
        cells = cells_of(labels, {GRAM_INDEX[gram]})
        assert row * 8 + int(places[gram] // 32) in cells and {cell % 8 for cell in cells} == {int(places[gram] // 32)}


def test_a_ruled_page_has_each_line_in_one_row_of_cells(tokenizer: Tokenizer) -> None:
    rng = random.Random(2)
    texts = ["the river crosses the old garden by the bridge", "a letter for the camera"]
    page = drawing.draw_page(rng, texts, 128, 256, size=(20, 20), plain=True, ruled=True)
    lines = sorted({word.top for word in page.words})
    assert len(lines) >= 3
    assert all(int(word.top // 32) == int(word.bottom // 32) for word in page.words)
    assert len({int(top // 32) for top in lines}) == len(lines)
    tokens, _, _ = targets(page, Speller(tokenizer), rng)
    for token in tokenizer.encode(" camera"):
        rows = {cell // 4 for cell in cells_of(tokens, {token})}
        assert rows <= {int(word.top // 32) for word in page.words if token in tokenizer.encode(" " + word.text)}


def test_pages_to_look_at_grow_harder(corpus: Corpus, tokenizer: Tokenizer) -> None:
    looker = Looker(corpus, tokenizer, 0, 100, 300)
    first, last = looker(0), looker(99)
    assert set(first.parts) >= {"page", "scene", "emoji", "photo"} and len(first.parts) == 5
    for look in (first, last):
        for part in look.parts.values():
            assert len(part.patches) == sum(t * r * c for t, r, c in part.grids) and part.tokens.rows.max() * 4 < len(
                part.patches
            )
    sizes = {looker(step).parts["page"].grids[0] for step in range(60, 100, 4)}
    assert max(rows for _, rows, _ in sizes) > max(looker(step).parts["page"].grids[0][1] for step in range(5))


def test_looking_at_one_scene_lowers_its_loss(corpus: Corpus, tokenizer: Tokenizer) -> None:
    rng = random.Random(3)
    pages = [drawing.scene_page(rng, drawing.random_scene(rng), 96, 96) for _ in range(4)]
    look = Look(
        {"scene": labelled(pages, Speller(tokenizer), rng, letters=False)}, np.linspace(0, 0.99, 50, dtype=np.float32)
    )
    model = tiny_model(tokenizer.added_tokens)
    heads = small_heads(tokenizer)
    parameters = [*model.visual.parameters(), *heads.words.parameters()]
    before = looking_loss(model, heads, look)[1]["scene"]
    losses = descend(lambda: looking_loss(model, heads, look)[0], parameters, 30, 3e-3)
    assert losses[-1] < 0.7 * losses[0]
    assert before < 0.4 < 0.5 < looking_loss(model, heads, look)[1]["scene"]


def test_looking_at_one_line_teaches_its_letters(tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    pages = [drawing.draw_page(rng, ["river garden"], 128, 32, size=(18, 18), plain=True) for _ in range(3)]
    part = labelled(pages, Speller(tokenizer), rng, letters=True)
    look = Look({"page": part}, np.linspace(0, 0.99, 50, dtype=np.float32))
    model, heads = tiny_model(tokenizer.added_tokens), small_heads(tokenizer)
    parameters = [*model.visual.parameters(), *heads.parameters()]
    before = looking_loss(model, heads, look)[1]
    descend(lambda: looking_loss(model, heads, look)[0], parameters, 60, 3e-3)
    after = looking_loss(model, heads, look)[1]
    assert before["page_spelled"] < 0.5 < 0.9 < after["page_spelled"]
    assert after["page_summed"] < 0.7 * before["page_summed"]


def small_heads(tokenizer: Tokenizer, things: int = 3) -> Heads:
    told = spelled(tokenizer, VOCAB_SIZE, 96, torch.ones(len(GRAMS)))
    names = torch.randn(things, 96, generator=torch.manual_seed(0))
    return Heads(64, Bags(VOCAB_SIZE, 96, 0, told), torch.nn.functional.normalize(names, dim=1))


def test_cells_of_a_page_come_to_how_it_is_spelled(tokenizer: Tokenizer) -> None:
    rng = random.Random(6)
    pages = [drawing.draw_page(rng, [text], 256, 96, size=(18, 18), plain=True) for text in ("a quiet river", "jam")]
    part, heads = labelled(pages, Speller(tokenizer), rng, letters=True), small_heads(tokenizer)
    blank = tokenizer.added_tokens["<|vision_pad|>"]
    for place, page in enumerate(pages):
        cells = len(part.patches) // 8
        own = (part.shares.rows // cells == place) & (part.shares.classes != blank)
        assert own.any()
        written = Targets(part.shares.rows[own], part.shares.classes[own], part.shares.weights[own])
        ids = [token for word in page.words for token in tokenizer.encode(" " + word.text)]
        come_to = heads.told(written, 2 * cells).sum(0)
        torch.testing.assert_close(come_to, heads.table[ids].sum(0), atol=1e-3, rtol=1e-3)
        empty = set(range(place * cells, (place + 1) * cells)) - set(written.rows.tolist())
        told = heads.told(part.shares, 2 * cells)
        assert empty
        assert all((told[cell] == heads.table[blank]).all() for cell in empty)


def test_cells_that_are_what_they_are_told_lose_nothing() -> None:
    told = torch.randn(8, 5, generator=torch.manual_seed(1))
    assert float(from_told(told, told, 2)) == pytest.approx(0.0, abs=1e-6)
    assert float(from_told(told.mean(0).expand(8, 5), told, 2)) > 4.0, "the mean explains nothing"


def test_garments_are_a_good_part_of_a_batch_of_photographs(corpus: Corpus) -> None:
    """Ten classes of 53: one of a class at most would leave an eighth of the batch for them."""
    maker, rng = Maker(corpus), random.Random(10)
    garments = {name for name, rows in maker.photos.items() if rows[0].src == "clothing"}
    drawn = [example.key for _ in range(10) for example in maker.photo(rng, 6)]
    others = len(maker.photos) - len(garments)
    expected = 3 * len(garments) / (3 * len(garments) + others)
    assert garments and others
    assert sum(key in garments for key in drawn) / len(drawn) == pytest.approx(expected, abs=0.2)


def test_a_blend_is_both_of_its_pictures() -> None:
    rng = random.Random(8)
    pages = [Page(np.full((32, 32, 3), 60 * place, np.uint8), ()) for place in range(4)]
    seen = 0
    for _ in range(20):
        out, things = blended(rng, pages, [10, 11, 12, 13])
        assert things is not None
        assert list(things.first) == [10, 11, 12, 13]
        assert (things.share >= 0.5).all()
        for page, first, second, share in zip(out, things.first, things.second, things.share, strict=True):
            mixed = 60 * (share * (first - 10) + (1 - share) * (second - 10))
            assert abs(page.pixels.astype(float) - mixed).max() <= 0.51
            seen += share < 1
    assert seen > 20


def test_things_are_learned_from_the_whole_picture(corpus: Corpus, tokenizer: Tokenizer) -> None:
    looker, rng = Looker(corpus, tokenizer, 0, 100, 300), random.Random(9)
    pages, things = looker.emoji(rng, 0.5, 64)
    assert things is not None
    names = looker.maker.things
    assert all(names[place] in looker.maker.emoji_names for place in things.first)
    _, shown = looker.photo(rng, 0.5, 200)
    assert shown is not None
    assert all(names[place] in looker.maker.photos for place in [*shown.first, *shown.second])
    look = Look({"emoji": labelled(pages, looker.speller, rng, letters=False, things=things)}, np.zeros(1, np.float32))
    model, heads = tiny_model(tokenizer.added_tokens), small_heads(tokenizer, len(names))
    parameters = [*model.visual.parameters(), *heads.parameters()]
    before = looking_loss(model, heads, look)[1]["emoji_things"]
    descend(lambda: looking_loss(model, heads, look)[0], parameters, 30, 3e-3)
    assert before < 1 == looking_loss(model, heads, look)[1]["emoji_things"]


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sources(corpus: Corpus, tokenizer: Tokenizer) -> Sources:
    return Sources(corpus, tokenizer, 0)


def test_bags_learn_to_translate(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy language whose words are the English ones backwards."""
    monkeypatch.setattr(words, "SHARES", {"tatoeba": 1.0})
    bags, rng = Bags(VOCAB_SIZE, 32, 0), np.random.default_rng(0)
    before = words_step(bags, sources.batch(rng, 24))[1]["accuracy"]
    losses = descend(lambda: words_step(bags, sources.batch(rng, 24))[0], bags.parameters(), 120, 0.02)
    assert before < 0.5 < 0.75 < words_step(bags, sources.batch(rng, 24))[1]["accuracy"]
    assert losses[-1] < 0.5 * losses[0]


def test_words_spelled_alike_lie_together_before_anything_is_learned(corpus: Corpus, tokenizer: Tokenizer) -> None:
    told = spelled(tokenizer, VOCAB_SIZE, 256, rarity(corpus.sentences))
    bags = Bags(VOCAB_SIZE, 256, 0, told)
    assert torch.equal(bags.table(), bags.rows.weight + told)
    assert dict(bags.named_parameters()).keys() == {"rows.weight", "weights.weight"}, "how it is spelled stays"
    torch.nn.init.zeros_(bags.rows.weight)
    ids = [np.asarray(tokenizer.encode(text), np.int64) for text in (" garden", " gardens", " bicycle")]
    near, far = bags(ids)[0] @ bags(ids)[1], bags(ids)[0] @ bags(ids)[2]
    assert near > 0.6 > 0.3 > far


def test_half_of_a_sentence_finds_the_sentence(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "SHARES", {"half": 1.0})
    batch = sources.batch(np.random.default_rng(0), 40)
    assert batch.task == "half" and len(batch.first) == len(batch.second) == 40
    known = {tuple(ids) for ids in sources.sentences}
    for part, whole in zip(batch.first, batch.second, strict=True):
        assert tuple(whole) in known
        left = iter(whole.tolist())
        assert len(part) and all(token in left for token in part.tolist()), "tokens of the sentence, in its order"
    assert sum(map(len, batch.first)) == pytest.approx(0.5 * sum(map(len, batch.second)), rel=0.15)


def test_a_batch_has_every_answer_once(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "SHARES", {"banking77": 1.0})
    monkeypatch.setattr(words, "DROPPED", 0.0)
    batch = sources.batch(np.random.default_rng(0), 40)
    answers = [tuple(ids) for ids in batch.second]
    assert 1 < len(answers) == len(set(answers)) <= 5


def test_the_decoder_learns_to_say_the_bags(corpus: Corpus, data: Path, path: Path) -> None:
    tokenizer = Tokenizer(path)
    batch = Imitating(data, path, 0, 8)()(0)
    model, bags = tiny_model(tokenizer.added_tokens), Bags(VOCAB_SIZE, 96, 0).requires_grad_(False)
    imitation.settle(model, bags)
    before = imitation_step(model, bags, batch)[1]
    descend(lambda: imitation_step(model, bags, batch)[0], model.language_model.parameters(), 40, 3e-3)
    after = imitation_step(model, bags, batch)[1]
    assert after["texts"] < 0.1, "a mean cosine over 0.9"
    kinds = {"texts", "page", "sheet", "line", "emoji", "photo"}
    assert set(after) == {*kinds, "apart"} and all(after[kind] < before[kind] for kind in kinds)
    assert after["apart"] > before["apart"], "pictures lie nearer to their own bag than to others"


def test_pictures_are_told_apart_by_bags_that_say_something_else() -> None:
    told = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.01], [0.6, 0.8]]), dim=1)
    made = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    loss, share = imitation.told_apart(made, told)
    scores = np.array([[1.0, 0.0, -np.inf, 0.6], [0.6, 0.8, float(made[1] @ told[2]), 1.0]])  # the third says the first
    weights = np.exp(scores / imitation.TEMPERATURE)
    paper = -np.log(np.array([weights[0, 0], weights[1, 1]]) / weights.sum(1)).mean()
    assert float(loss) == pytest.approx(paper, rel=1e-5) and share == 0.5, "the second is nearest to another's bag"


# --- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_every_task_of_a_stage_can_be_drawn(corpus: Corpus, stage: str) -> None:
    maker = Maker(corpus)
    assert [task.name for task in STAGES[stage].task].count(CELLS) == (stage == "s1")
    for task in STAGES[stage].task:
        if task.name == CELLS:
            continue
        examples = maker.tasks[task.name](random.Random(task.name), 6)
        assert 2 <= len(examples) <= 6 or task.name in ("photo", "banking77"), task.name
        for example in examples:
            assert example.key and bool(example.query.text) == (task.name != "again")
            if stage in ("s0", "s1"):
                assert len(example.negatives) >= task.negatives, task.name
    raw = tomllib.loads((recipe.FILES / f"{stage}.toml").read_text(encoding="utf-8"))
    assert len({task["name"] for task in raw["task"]}) == len(raw["task"])


@pytest.mark.parametrize(
    ("task", "most"), [("scene", 448), ("chart", 608), ("photo", 416), ("edit", 320), ("page", 576), ("sheet", 576)]
)
def test_pictures_come_small_and_as_large_as_peoples_own(corpus: Corpus, task: str, most: int) -> None:
    maker, sides = Maker(corpus), set()
    for seed in range(40):
        height, width, _ = maker.tasks[task](random.Random(seed), 5)[0].document.image.shape  # type: ignore[union-attr]
        assert height % 32 == width % 32 == 0
        sides.add(max(height, width))
    assert min(sides) <= 256 and most - 64 <= max(sides) <= most


@pytest.mark.parametrize(("name", "asked"), [("near", 4), ("near_edit", 3)])
def test_a_reranker_tells_a_picture_from_seven_near_ones(
    corpus: Corpus, tokenizer: Tokenizer, name: str, asked: int
) -> None:
    """The same pictures are right for one query and wrong for another."""
    (task,) = (task for task in recipe.stage_file("reranker", Path("out")).task if task.name == name)
    maker, rng = Maker(corpus), random.Random(0)
    examples = maker.tasks[task.name](rng, 2 * asked)
    for example in examples:
        pictures = [example.document.image, *(side.image for side in example.negatives)]
        assert len({picture.tobytes() for picture in pictures if picture is not None}) == 8 == 1 + task.negatives
        assert len({picture.shape for picture in pictures if picture is not None}) == 1
    for start in range(0, len(examples), asked):
        group = examples[start : start + asked]
        answers = {id(example.document) for example in group}
        assert len(answers) == asked == len({example.key for example in group})
        assert all(answers - {id(one.document)} <= {id(side) for side in one.negatives} for one in group)
    if name == "near_edit":
        assert all(any(example.query.image is side.image for side in example.negatives) for example in examples)
    texts = [example.document for example in maker.half(rng, 9)]
    assert judging_batch(task, examples, texts, tokenizer, rng).groups == (8,) * len(examples)


def test_a_reranker_is_asked_about_documents_of_other_kinds(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """As a library's recall puts them beside each other. Alone, a task's batch has its own documents only."""
    (task,) = (task for task in recipe.stage_file("reranker", Path("out")).task if task.name == "half")
    maker, rng = Maker(corpus), random.Random(0)
    pictures = [example.document for example in maker.scene(rng, 5)]
    examples = maker.half(rng, 6)
    alone = judging_batch(task, examples, [], tokenizer, rng)
    beside = judging_batch(task, examples, pictures, tokenizer, rng)
    assert alone.groups == (1 + task.negatives,) * 6 and beside.groups == (8,) * 6
    assert len(alone.queries[0].grids) == 0 and len(beside.queries[0].grids) == 6 * (7 - task.negatives)


def test_scenes_on_a_dark_ground_are_seen() -> None:
    rng, dark = random.Random(0), 0
    for _ in range(200):
        scene = drawing.random_scene(rng)
        paper = drawing.dark_paper(rng, scene, 0.5)
        if paper is not None:
            dark += 1
            for group in scene.groups:
                assert sum(abs(a - b) for a, b in zip(drawing.COLORS[group.color], paper, strict=True)) > 100
    assert 20 < dark < 90


def pixels_of(side: Side) -> np.ndarray:
    pixels = side.frames if side.frames is not None else side.image
    assert pixels is not None
    return pixels


def test_what_a_picture_asks_for_is_the_same_thing_and_not_one_near_it(corpus: Corpus) -> None:
    maker, kinds = Maker(corpus), set()
    for seed in range(20):
        for example in maker.again(random.Random(seed), 6):
            asked, found = example.query, example.document
            kinds.add((asked.frames is not None, found.frames is not None))
            assert not asked.text and not found.text and example.key
            right = pixels_of(found)
            for wrong in map(pixels_of, example.negatives):
                assert right.shape == wrong.shape and not np.array_equal(right, wrong)
            assert all(length % 32 == 0 for side in (asked, found) for length in pixels_of(side).shape[-3:-1])
    assert kinds == {(False, False), (False, True), (True, True)}


def test_things_exchanged_are_told_apart_by_their_descriptions_alone() -> None:
    kinds = set()
    for seed in range(60):
        (one, said), (other, denied) = drawing.exchanged(random.Random(seed))
        bags = [
            (sorted(g.shape for g in s.groups), sorted(g.color for g in s.groups), sorted(g.count for g in s.groups))
            for s in (one, other)
        ]
        assert bags[0] == bags[1] and one.caption() != other.caption() and said.caption() != denied.caption()
        alone = len(said.groups) == 1
        if alone and not said.groups[0].place:
            assert said.groups[0] in one.groups and said.groups[0] not in other.groups
        if not alone:
            same = {one.caption(), one.turned().caption()} if one.relation else {one.caption()}
            assert said.caption() in same and denied.caption() not in same
        kinds.add((bool(one.relation), alone))
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}


def test_what_lies_on_the_left_is_drawn_there() -> None:
    for seed in range(200):
        for scene, said in drawing.exchanged(random.Random(seed)):
            if not said.groups[0].place:
                continue
            words = drawing.scene_page(random.Random(seed), scene, 128, 128).words
            own = next(w for w in words if w.text == f"{said.groups[0].color} {said.groups[0].shape}")
            x, y = (own.left + own.right) / 256, (own.top + own.bottom) / 256
            where = {"on the left": x < 0.4, "on the right": x > 0.6, "at the top": y < 0.4, "at the bottom": y > 0.6}
            assert where[said.groups[0].place], (scene.caption(), said.caption(), x, y)


@pytest.mark.parametrize(("motion", "opposite"), drawing.MOTIONS.items())
def test_a_motion_has_words_that_its_opposite_has_not(motion: str, opposite: str) -> None:
    said = [
        {drawing.clip_words(random.Random(seed), "circle", "red", one) for seed in range(200)}
        for one in (motion, opposite)
    ]
    assert {f"a red circle {motion}", f"a red ball {motion}"} < said[0] and not said[0] & said[1]
    assert len(said[0]) == (1 + len(drawing.MOVING_SHAPES["circle"])) * (1 + len(drawing.MOTION_WORDS[motion]))


@pytest.mark.parametrize("relation", drawing.RELATIONS)
def test_a_relation_is_the_same_from_its_other_side(relation: str) -> None:
    scene = drawing.Scene((drawing.Group("star", "red"), drawing.Group("ring", "blue")), relation=relation)
    turned = scene.turned()
    assert turned.caption() == f"a blue ring {drawing.RELATIONS[relation]} a red star" and turned.turned() == scene


def test_a_page_tells_its_text_apart_from_its_heading(corpus: Corpus) -> None:
    maker, under = Maker(corpus), 0
    for seed in range(30):
        for example in maker.page(random.Random(seed), 4):
            assert example.shown and (not example.heading or not example.shown.startswith(example.heading))
            under += bool(example.heading)
    assert under > 10


def test_a_sheet_is_asked_for_by_what_stands_on_it(corpus: Corpus) -> None:
    maker = Maker(corpus)
    for seed in range(12):
        for example in maker.sheet(random.Random(seed), 6):
            asked = set(re.findall(r"\w+", example.query.text.lower())) - {"and"}
            assert asked and asked <= set(re.findall(r"\w+", example.shown.lower()))


def test_the_cells_of_a_sheet_stand_in_columns_and_on_the_page() -> None:
    rows = [
        ("Night train", "19:42", "track 8"),
        ("Sleeping car", "21:10", "track 3"),
        ("breakfast is served from six",),
    ]
    for seed in range(20):
        page = drawing.draw_sheet(random.Random(seed), "Departures", rows, 448, 576, size=(12, 16))
        assert (
            page.text == "Departures Night train 19:42 track 8 Sleeping car 21:10 track 3 breakfast is served from six"
        )
        assert page.pixels.shape == (576, 448, 3)
        assert all(0 <= word.left < word.right <= 448 and word.bottom <= 576 + 3 for word in page.words)
        places = {word.text: word for word in page.words}
        assert places["19:42"].left == pytest.approx(places["21:10"].left)
        assert places["19:42"].left > places["train"].right


def test_rows_that_do_not_fit_are_not_there() -> None:
    page = drawing.draw_sheet(random.Random(0), "", [(f"row{number}",) for number in range(90)], 96, 128, size=(12, 12))
    assert 3 < len(page.words) < 12


def test_a_passage_is_asked_for_by_what_stands_in_it_or_in_english(corpus: Corpus) -> None:
    maker = Maker(corpus)
    own = foreigners = lists = 0
    for seed in range(30):
        for example in maker.passage(random.Random(seed), 4):
            assert example.document.text.endswith(example.key)
            lists += "\n" in example.key
            asked = set(re.findall(r"\w+", example.query.text.lower())) - {"and"}
            if asked <= set(re.findall(r"\w+", example.document.text.lower())):
                own += 1
            else:
                foreigners += 1
    assert own > 60 and foreigners > 10 and lists > 10


def test_half_keeps_order() -> None:
    text = "one red bird sings in the old green tree"
    kept = half(random.Random(1), text).split()
    said = text.split()
    assert len(kept) == len(said) // 2
    assert [said.index(word) for word in kept] == sorted(said.index(word) for word in kept)


def test_an_edited_scene_has_another_caption() -> None:
    rng = random.Random(0)
    for _ in range(300):
        scene = drawing.random_scene(rng)
        edited, said = drawing.edit_scene(rng, scene)
        assert edited.caption() != scene.caption()
        assert said.startswith("the same, but")


def test_no_of_a_thing_draws_none_and_its_edit_draws_some() -> None:
    scene = Scene((Group("star", "red", count=2), Group("ring", "blue", count=0)))
    assert scene.caption() == "two red stars and no blue rings"
    drawn = [word.text for word in drawing.scene_page(random.Random(0), scene, 128, 128).words]
    assert drawn == ["red star", "red star"]
    came = 0
    for seed in range(40):
        rng = random.Random(seed)
        edited, said = drawing.edit_scene(rng, scene)
        if edited.groups[1] != scene.groups[1]:
            came += 1
            count = edited.groups[1].count
            shown = [word.text for word in drawing.scene_page(rng, edited, 128, 128).words]
            assert count > 0 and shown.count("blue ring") == count and "ring" in said
    assert came > 5


# --- steps -----------------------------------------------------------------------------------------------------------


def flat(value: Any) -> Iterator[object]:
    """All that a batch holds, one after the other."""
    if isinstance(value, np.ndarray):
        yield value.shape, value.tobytes()
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from flat(part)
    elif isinstance(value, dict):
        yield from flat(list(value.items()))
    elif dataclasses.is_dataclass(value):
        yield from flat([getattr(value, field.name) for field in dataclasses.fields(value)])
    else:
        yield value


@pytest.mark.parametrize("name", ["words", "looking", "imitation", "s1", "reranker", "s2", "more", "more_reranker"])
def test_a_step_is_the_same_whoever_draws_it(data: Path, path: Path, name: str) -> None:
    source: Any = {
        "words": lambda: Bagging(data, path, 5, 16),
        "looking": lambda: Looking(data, path, 5, 100, 200),
        "imitation": lambda: Imitating(data, path, 5, 16),
    }.get(name)
    if source is None:
        stage = recipe.stage_file(name, Path("out"), recipe.Scale(batch=0.05))
        role: Any = "reranker" if name in recipe.RERANKERS else "embedder"
        distilled = path if name == "s2" else None
        source = Drawn(data, path, stage.task, role, 5, distilled=distilled, prompts=name == "more")
    else:
        source = source()
    make, again = source(), pickle.loads(pickle.dumps(source))()  # as another process gets it
    seven = list(flat(make(7)))
    make(8)
    assert list(flat(make(7))) == seven == list(flat(again(7)))
    assert list(flat(make(8))) != seven
    if isinstance(source, Drawn):
        mixed = make(7)
        assert len({part.task for part in mixed.parts}) == len(mixed.parts) == 4
        assert mixed.task == "+".join(part.task for part in mixed.parts)
        if name in ("s0", "s1", "more"):
            told = {part.task for part, shown in zip(mixed.parts, mixed.shown, strict=True) if shown is not None}
            assert told == {part.task for part in mixed.parts} & {"page", "sheet", "line", "emoji"}
            assert [len(keys) for keys in mixed.keys] == [len(part.queries[0].lengths) for part in mixed.parts]
        assert (mixed.look is not None) == (name == "s1")
        if name in recipe.RERANKERS:
            assert all(min(part.groups) > 1 for part in mixed.parts)
        if name == "s2":
            assert [len(pack.lengths) for pack in mixed.pairs] == [
                len(part.queries[0].lengths) + len(part.owner) for part in mixed.parts
            ]
