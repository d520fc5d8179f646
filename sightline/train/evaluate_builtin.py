"""What the built-in models can do, on what they never saw: ``python -m sightline.train.evaluate_builtin --data DIR``.

Everything goes through the public ``Embedder`` and ``Reranker``. Candidates are drawn with fixed seeds from the
validation splits of ``data.py``; the table is what the model card quotes.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline import Embedder, Item, Reranker
from sightline.train import drawing
from sightline.train.data import Corpus, Row
from sightline.train.packing import Side
from sightline.train.tasks import Maker, half
from sightline.types import VideoFrames

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Test:
    """Queries, candidates, and which candidates answer each query.

    Attributes:
        name: what is searched for what.
        queries, documents: items.
        answers: for each query the positions that answer it.
        pools: for each query the positions it is compared with; None takes all.
        measures: of ``R@1``, ``R@10``.
    """

    name: str
    queries: list[Item]
    documents: list[Item]
    answers: list[set[int]]
    pools: list[list[int]] | None = None
    measures: tuple[int, ...] = (1, 10)

    @property
    def num_candidates(self) -> int:
        """Candidates of each query."""
        return len(self.pools[0]) if self.pools else len(self.documents)


def as_item(side: Side) -> Item:
    """A side of a training pair as the product's item."""
    video = None
    if side.frames is not None:
        video = VideoFrames(frames=side.frames, indices=tuple(range(len(side.frames))), fps=1.0)
    return Item(text=side.text or None, image=side.image, video=video)


def hits(scores: Matrix, test: Test, at: int) -> NDArray[np.float64]:
    """(N,) 1 where one of the first ``at`` candidates answers."""
    out = np.zeros(len(test.queries))
    for index, answers in enumerate(test.answers):
        pool = test.pools[index] if test.pools else range(len(test.documents))
        # equal scores are ordered by a hash of the place, so that standing first is no advantage
        order = sorted(pool, key=lambda j: (-scores[index, j], j * 2654435761 % 2**32))[:at]
        out[index] = bool(answers.intersection(order))
    return out


def interval(values: NDArray[np.float64]) -> float:
    """Half of the 95 % interval of a mean of zeros and ones."""
    mean = float(values.mean())
    return 1.96 * math.sqrt(max(mean * (1 - mean), 1e-9) / len(values))


# --- the tests ---------------------------------------------------------------------------------------------------


def pages(maker: Maker, count: int) -> list[Test]:
    """Pages with one unseen sentence each among others: by the sentence, by half of its words."""
    rng = random.Random("pages")
    sentences = rng.sample([s for s in maker.sentences if len(s.split()) >= 5], count)
    documents = []
    for sentence in sentences:
        texts = [sentence, *rng.sample(maker.sentences, 2)]
        page = drawing.draw_page(rng, texts, 256, 256, size=(13, 20), plain=rng.random() < 0.5)
        documents.append(Item(image=page.pixels))
    answers = [{index} for index in range(count)]
    return [
        Test("page by its sentence", [Item(text=s) for s in sentences], documents, answers),
        Test("page by half of the words", [Item(text=half(rng, s)) for s in sentences], documents, answers),
    ]


def lines(maker: Maker, count: int) -> list[Test]:
    """Signs of one to three words."""
    rng = random.Random("lines")
    words = sorted({w for s in maker.sentences for w in s.lower().strip(".,!?").split() if w.isalpha() and len(w) > 3})
    texts = [" ".join(rng.sample(words, rng.randint(1, 3))) for _ in range(count)]
    documents = [
        Item(image=drawing.draw_page(rng, [text], 192, 64, size=(20, 34), center=True, plain=True).pixels)
        for text in texts
    ]
    answers = [{j for j, other in enumerate(texts) if other == text} for text in texts]
    return [Test("sign by its words", [Item(text=text) for text in texts], documents, answers)]


def texts(maker: Maker, count: int) -> list[Test]:
    """Sentences by half of their words, English by another language, definitions by word."""
    rng = random.Random("texts")
    out = []
    chosen = rng.sample([s for s in maker.sentences if len(s.split()) >= 6], count)
    answers = [{index} for index in range(count)]
    out.append(
        Test("sentence by half", [Item(text=half(rng, s)) for s in chosen], [Item(text=s) for s in chosen], answers)
    )
    for name, languages in (
        ("bitext to English, 8 large", ("deu", "fra", "spa", "ita", "por", "rus", "jpn", "cmn")),
        ("bitext to English, all", ()),
    ):
        rows = [row for row in maker.rows["tatoeba"] if not languages or row.lang in languages]
        rows = rng.sample(rows, min(count, len(rows)))
        out.append(_pairs(name, rows))
    out.append(_pairs("definition by word", rng.sample(maker.rows["wordnet"], count)))
    rows = rng.sample(maker.rows["banking77"], min(300, count))
    labels = sorted({row.d_text for row in maker.rows["banking77"]})
    out.append(
        Test(
            "bank question to intent",
            [Item(text=row.q_text) for row in rows],
            [Item(text=label) for label in labels],
            [{labels.index(row.d_text)} for row in rows],
        )
    )
    return out


def _pairs(name: str, rows: Sequence[Row]) -> Test:
    documents = sorted({row.d_text for row in rows})
    return Test(
        name,
        [Item(text=row.q_text) for row in rows],
        [Item(text=text) for text in documents],
        [{documents.index(row.d_text)} for row in rows],
    )


def pictures(maker: Maker, count: int) -> list[Test]:
    """Emoji, icons and photographs by name."""
    rng = random.Random("pictures")
    corpus, out = maker.corpus, []

    def shown(names: Sequence[str], side: int = 96) -> list[Item]:
        resized = (corpus.picture(name).resize((side, side), Image.Resampling.BICUBIC) for name in names)
        return [Item(image=np.asarray(image, np.uint8)) for image in resized]

    emoji = [row for row in maker.rows["emoji-name"] if row.lang == "en"]
    names = sorted({row.q_image for row in emoji})
    places = {name: index for index, name in enumerate(names)}
    for title, languages in (("emoji by English name", ("en",)), ("emoji by name, 52 other languages", ())):
        rows = [r for r in maker.rows["emoji-name"] if (r.lang in languages if languages else r.lang != "en")]
        rows = rng.sample([row for row in rows if row.q_image in places], min(count, len(rows)))
        out.append(
            Test(title, [Item(text=row.d_text) for row in rows], shown(names), [{places[r.q_image]} for r in rows])
        )
    icons = maker.rows["lucide"]
    out.append(
        Test(
            "icon by name and tags",
            [Item(text=row.d_text) for row in icons],
            shown([row.q_image for row in icons]),
            [{index} for index in range(len(icons))],
        )
    )
    for src in ("clothing", "grocery"):
        rows = rng.sample(maker.rows[src], min(count, len(maker.rows[src])))
        classes = sorted({coarse(row) for row in [*maker.rows[src], *corpus.train[src]]})
        out.append(
            Test(
                f"{src} photograph to class",
                shown([row.q_image for row in rows], 128),
                [Item(text=name.lower()) for name in classes],
                [{classes.index(coarse(row))} for row in rows],
                measures=(1,),
            )
        )
    return out


def coarse(row: Row) -> str:
    """The class of a photograph; of the groceries' two the one in brackets."""
    return row.d_text.rstrip(")").split(" (")[-1]


def made(count: int) -> list[Test]:
    """Scenes and clips with hard negatives, charts, edits."""
    rng = random.Random("made")
    out = []
    queries: list[Item] = []
    documents: list[Item] = []
    answers: list[set[int]] = []
    pools: list[list[int]] = []
    for _ in range(count):
        scene = drawing.random_scene(rng)
        queries.append(Item(text=scene.caption()))
        begin = len(documents)
        seen = {scene.caption()}
        documents.append(Item(image=drawing.draw_scene(rng, scene, 128, 128)))
        while len(documents) < begin + 10:
            changed = drawing.edit_scene(rng, scene)[0]
            if changed.caption() in seen:
                changed = drawing.edit_scene(rng, changed)[0]
            if changed.caption() == scene.caption():
                continue
            seen.add(changed.caption())
            documents.append(Item(image=drawing.draw_scene(rng, changed, 128, 128)))
        answers.append({begin})
        pools.append(list(range(begin, begin + 10)))
    out.append(Test("scene, hard negatives", queries, documents, answers, pools, (1,)))

    charts = [drawing.random_chart(rng) for _ in range(count)]
    keys = [(c.measure, c.by, c.kind) for c in charts]
    out.append(
        Test(
            "chart by title and kind",
            [Item(text=f"{c.kind} chart of {c.measure} by {c.by}") for c in charts],
            [Item(image=drawing.draw_chart(rng, c, 224, 192).pixels) for c in charts],
            [{j for j, other in enumerate(keys) if other == key} for key in keys],
        )
    )
    queries, documents, answers, pools = [], [], [], []
    for index in range(max(20, count // 3)):
        shape, color = rng.choice(drawing.SHAPES), rng.choice(list(drawing.COLORS))
        motion = rng.choice(list(drawing.MOTIONS))
        queries.append(Item(text=f"a {color} {shape} {motion}"))
        for other in drawing.MOTIONS:
            clip = drawing.draw_clip(rng, shape, color, other, 128, 6)
            documents.append(as_item(Side(frames=clip)))
        answers.append({8 * index + list(drawing.MOTIONS).index(motion)})
        pools.append(list(range(8 * index, 8 * index + 8)))
    out.append(Test("clip by motion, same shape", queries, documents, answers, pools, (1,)))

    queries, documents, answers = [], [], []
    for index in range(100):
        scene = drawing.random_scene(rng)
        changed, words = drawing.edit_scene(rng, scene)
        queries.append(Item(text=words, image=drawing.draw_scene(rng, scene, 96, 96)))
        documents.append(Item(image=drawing.draw_scene(rng, changed, 96, 96)))
        answers.append({index})
    out.append(Test("picture and a change", queries, documents, answers))
    return out


# --- the table ---------------------------------------------------------------------------------------------------


def cosines(queries: Matrix, documents: Matrix, dim: int | None = None) -> Matrix:
    """Cosines of prefixes."""
    q, d = queries[:, :dim], documents[:, :dim]
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return q @ (d / np.linalg.norm(d, axis=1, keepdims=True)).T  # type: ignore[no-any-return]


def int8(vectors: Matrix) -> Matrix:
    """Each vector rounded to 255 steps of its own scale."""
    rounded: Matrix = np.round(vectors / np.abs(vectors).max(1, keepdims=True) * 127).astype(np.float32)
    return rounded


def binary(queries: Matrix, documents: Matrix, keep: int = 50) -> Matrix:
    """Sign bits choose ``keep`` candidates, float vectors order them."""
    coarse = np.sign(queries) @ np.sign(documents).T
    exact = cosines(queries, documents)
    floor = np.sort(coarse, axis=1)[:, -min(keep, coarse.shape[1])][:, None]
    return np.where(coarse >= floor, exact, -2.0).astype(np.float32)


def reranked(
    reranker: Reranker, test: Test, scores: Matrix, *, top: int, limit: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hits at 1 of the first ``limit`` queries before and after the first ``top`` candidates are judged."""
    before, after = [], []
    for index in range(min(limit, len(test.queries))):
        pool = test.pools[index] if test.pools else range(len(test.documents))
        order = sorted(pool, key=lambda j: -scores[index, j])[:top]
        judged = reranker.score(test.queries[index], [test.documents[j] for j in order])
        before.append(order[0] in test.answers[index])
        after.append(order[int(np.argmax(judged))] in test.answers[index])
    return np.asarray(before, float), np.asarray(after, float)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m sightline.train.evaluate_builtin", description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--embedder", default="builtin")
    parser.add_argument("--reranker", default="builtin", help="or none")
    parser.add_argument("--count", type=int, default=1000, help="most queries of a test")
    parser.add_argument("--rerank", type=int, default=100, help="queries reranked of a test, first 10 candidates")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    embedder = Embedder.load(options.embedder)
    reranker = None if options.reranker == "none" else Reranker.load(options.reranker)
    maker = Maker(Corpus(options.data), valid=True)
    tests: list[Callable[[], list[Test]]] = [
        lambda: pages(maker, options.count),
        lambda: lines(maker, options.count),
        lambda: texts(maker, options.count),
        lambda: pictures(maker, options.count),
        lambda: made(min(options.count, 300)),
    ]
    print(
        "| task | queries | candidates | measure | full (256) | 95 % ± | 128 | 64 | int8 | binary | reranked top 10 |"
    )
    print("|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|")
    kept: dict[str, list[float]] = {"64": [], "128": [], "int8": [], "binary": []}
    for make in tests:
        for test in make():
            queries, documents = embedder.embed(test.queries), embedder.embed(test.documents)
            variants = {
                "full": cosines(queries, documents),
                "128": cosines(queries, documents, 128),
                "64": cosines(queries, documents, 64),
                "int8": cosines(int8(queries), int8(documents)),
                # ten candidates are fewer than the sign bits would choose: all are rescored
                "binary": cosines(queries, documents) if test.pools else binary(queries, documents),
            }
            for at in test.measures:
                values = {name: hits(scores, test, at) for name, scores in variants.items()}
                means = {name: float(value.mean()) for name, value in values.items()}
                if means["full"] > 0.02:
                    for name, shares in kept.items():
                        shares.append(means[name] / means["full"])
                cell = ""
                if at == 1 and reranker is not None and options.rerank:
                    before, after = reranked(reranker, test, variants["full"], top=10, limit=options.rerank)
                    cell = f"{before.mean():.2f} → {after.mean():.2f}"
                print(
                    f"| {test.name} | {len(test.queries)} | {test.num_candidates} | R@{at} | {means['full']:.3f} "
                    f"| {interval(values['full']):.3f} | {means['128']:.3f} | {means['64']:.3f} | {means['int8']:.3f} "
                    f"| {means['binary']:.3f} | {cell} |",
                    flush=True,
                )
    print()
    parts = ", ".join(f"{name} {100 * float(np.mean(values)):.1f} %" for name, values in kept.items())
    print(f"Share of the full score kept, mean over the rows above .02: {parts}.")
    print(f"Measured in {(time.monotonic() - begin) / 60:.1f} minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
