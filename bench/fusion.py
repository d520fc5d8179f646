"""What joining the lists of recall gives: texts, pages with and without their words, scenes and charts in one index.

    python -m bench.fusion --data DIR     # the folder of the training data; --each 120

Every kind of document is asked for as people ask for it, with the built-in model; nothing in it was trained on. R@1 of
each kind and their mean: for vectors alone, for fusion by rank with every place alike, and for recall as it is.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.measure import commit, device
from sightline.embed import Embedder
from sightline.search.fuse import fuse
from sightline.search.recall import WEIGHTS, lists, weighed
from sightline.store.exact import ExactStore
from sightline.store.schema import Found, Row, path_id
from sightline.train.builtin import drawing, trials
from sightline.train.builtin.corpus import Corpus
from sightline.train.builtin.tasks import half
from sightline.types import Item

FETCHED: Final = 100
LANGUAGES: Final = ("deu", "fra", "spa", "rus", "ita", "por")
SENTENCES: Final = 4
"""In a passage."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A document and a question that it answers; ``text`` is what the index holds of its words."""

    kind: str
    document: Item
    title: str
    query: str
    text: str = ""


def asked(corpus: Corpus, each: int) -> list[Asked]:
    """``each`` questions of every kind, of which the held-out data has enough."""
    rng = random.Random("fusion")
    sentences = trials.distinct(s for s in corpus.valid_sentences if 5 <= len(s.split()) <= 16)
    rng.shuffle(sentences)
    out = []
    for number in range(each):
        said = [sentences.pop() for _ in range(SENTENCES)]
        text = " ".join(said)
        out.append(Asked("passage", Item(text=text), f"note{number}", half(rng, rng.choice(said)), text))
    for number in range(each):
        text = sentences.pop()
        page = trials.draw_page(rng, text, (), plain_page=True)
        out.append(Asked("page with its words", Item(image=page), f"paper p. {number}", half(rng, text), text))
    for number in range(each):
        text = sentences.pop()
        page = trials.draw_page(rng, text, (), plain_page=True)
        out.append(Asked("scanned page", Item(image=page), f"scan_{number:03}", text))
    captions: set[str] = set()
    while len(captions) < each:
        scene = drawing.random_scene(rng)
        if scene.caption() not in captions:
            picture = drawing.draw_scene(rng, scene, trials.SCENE_SIDE, trials.SCENE_SIDE)
            out.append(Asked("scene", Item(image=picture), f"IMG_{len(captions):04}", scene.caption()))
            captions.add(scene.caption())
    for number in range(each // 2):
        chart = drawing.random_chart(rng)
        page = drawing.draw_chart(rng, chart, 256, 160).pixels
        out.append(Asked("chart", Item(image=page), f"chart_{number}", chart.caption(rng)))
    rows = [row for row in corpus.valid["tatoeba"] if row.lang in LANGUAGES]
    for number, row in enumerate(rng.sample(rows, min(len(rows), each // 2))):
        out.append(Asked("another language", Item(text=row.q_text), f"text{number}", row.d_text, row.q_text))
    return out


def store_of(documents: list[Asked], vectors: NDArray[np.float32]) -> ExactStore:
    """The documents as rows, numbered."""
    store = ExactStore(dim=vectors.shape[1])
    store.add(
        [
            Row(
                id=str(number),
                path_id=path_id(f"/{number}"),
                path=f"/{number}",
                kind="text" if one.document.text else "image",
                page=None,
                start_s=None,
                end_s=None,
                vector=vector,
                title=one.title,
                text=one.text,
                modified_s=0.0,
                columns={},
            )
            for number, (one, vector) in enumerate(zip(documents, vectors, strict=True))
        ]
    )
    return store


def ways(found: Sequence[list[Found]], words: str) -> dict[str, Callable[[], list[dict[str, float]]]]:
    """How the lists may be joined: the places of each with what they count."""

    def alike() -> list[dict[str, float]]:
        return [dict.fromkeys((row.id for row in rows), weight) for rows, weight in zip(found, WEIGHTS, strict=True)]

    return {
        "vectors alone": lambda: alike()[:1],
        "every place alike": alike,
        "by share": lambda: weighed(found, words),
    }


def main() -> None:
    """Prints a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--each", type=int, default=120, help="questions of a kind")
    given = parser.parse_args()
    questions = asked(Corpus(given.data), given.each)
    embedder = Embedder.load("builtin", device="cpu")
    store = store_of(questions, embedder.embed([one.document for one in questions]))
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, float] = defaultdict(float)
    vectors = embedder.embed([one.query for one in questions])
    for number, (one, vector) in enumerate(zip(questions, vectors, strict=True)):
        found, _ = lists(store, vector, one.query, FETCHED, None)
        for way, places in ways(found, one.query).items():
            started_s = time.perf_counter()
            first = fuse(places())[0].id
            seconds[way] += time.perf_counter() - started_s
            right[way][one.kind].append(first == str(number))
    shares = {way: {kind: float(np.mean(hits)) for kind, hits in kinds.items()} for way, kinds in right.items()}
    kinds = list(dict.fromkeys(one.kind for one in questions))
    print(f"| R@1 of {len(questions)} | {' | '.join(kinds)} | mean |\n|{'---|' * (len(kinds) + 2)}")
    for way, told in shares.items():
        print(f"| {way} | {' | '.join(f'{told[kind]:.2f}' for kind in kinds)} | {np.mean(list(told.values())):.2f} |")
    about = {"questions": len(questions), "device": device(), "commit": commit()}
    for way, told in shares.items():
        rounded = {kind: round(value, 3) for kind, value in told.items()}
        speed = {"items_s": round(len(questions) / seconds[way], 1)}
        print(json.dumps({"engine": "sightline", "task": f"fusion, {way}", **speed, **rounded, **about}))


if __name__ == "__main__":
    main()
