"""The questions put to the built-in models, each with its candidates and its answers, on what is held out.

Every trial draws with a seed of its own, so that it is the same whichever others are asked. Pictures that the project
renders are new by chance, not by a list: a scene of a trial may have the description of a training scene, never its
picture. What comes from files is held out by ``corpus``.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sightline.train.builtin import drawing
from sightline.train.builtin.corpus import Corpus, plain
from sightline.train.builtin.films import draw_film, film_windows, shared
from sightline.train.builtin.tasks import coarse, half, lemmas
from sightline.types import Item

LANGUAGES: Final = {
    "cmn": "Mandarin", "hin": "Hindi", "spa": "Spanish", "ara": "Arabic", "fra": "French", "ben": "Bengali",
    "por": "Portuguese", "rus": "Russian", "ind": "Indonesian", "urd": "Urdu", "deu": "German", "jpn": "Japanese",
    "mar": "Marathi", "vie": "Vietnamese", "tur": "Turkish", "tgl": "Tagalog", "pes": "Persian", "kor": "Korean",
    "tha": "Thai", "ita": "Italian",
}  # fmt: skip
"""The 20 languages of the data with most speakers of which 40 sentences or more are held out; Chinese by Mandarin."""
PAGE_SIDE: Final = 256
"""Pixels."""
LETTERS: Final = (16, 24)
"""Height of a page's letters in pixels."""
SCENE_SIDE: Final = 128
EDIT_SIDE: Final = 96
ANY_SIDE: Final = (84, 220)
"""Pixels, least and most, of a scene of any size."""
ANY_WIDTH: Final = (170, 420)
"""Pixels, least and most, of a chart of any size."""
LARGE_SIDE: Final = 384
"""Pixels of a scene as large as on a screen."""
SMALL_SIDE: Final = 96
"""Pixels of an emoji or icon."""
IOU: Final = 0.5
"""Intersection over union from which a window counts as the shot."""


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """Queries, candidates, and which candidates answer each query. Q queries, N candidates.

    Attributes:
        name: of the row, unique.
        title: what is searched for what.
        queries, documents: items.
        answers: for each query the positions that answer it; a query may have none.
        pools: for each query the positions it is compared with; None takes all.
        at: how many first candidates may hold the answer.
        measure: its name in the table.
        floor, reranked_floor: what the value has to reach, before and after reranking; None where nothing is asked.
        groups: for each query the group it is averaged in; the groups' means are averaged. None takes one mean.
        rerank: whether a reranker judges the first candidates of every query.
    """

    name: str
    title: str
    queries: Sequence[Item]
    documents: Sequence[Item]
    answers: Sequence[frozenset[int]]
    pools: Sequence[Sequence[int]] | None = None
    at: int = 1
    measure: str = "R@1"
    floor: float | None = None
    reranked_floor: float | None = None
    groups: Sequence[str] | None = None
    rerank: bool = False

    @property
    def num_candidates(self) -> int:
        """Most candidates of a query."""
        return max(len(pool) for pool in self.pools) if self.pools else len(self.documents)


def _texts(values: Iterable[str]) -> list[Item]:
    return [Item(text=value) for value in values]


def _own(count: int) -> list[frozenset[int]]:
    """Answers where candidate i answers query i."""
    return [frozenset((index,)) for index in range(count)]


def _equal(keys: Sequence[object]) -> list[frozenset[int]]:
    """Answers where equal keys answer each other."""
    places: dict[object, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        places[key].append(index)
    return [frozenset(places[key]) for key in keys]


def distinct(values: Iterable[str]) -> list[str]:
    """One of those that differ in capitals and punctuation only, in order."""
    return list({plain(value): value for value in reversed(list(values))}.values())[::-1]


# -- what is written ---------------------------------------------------------------------------------------------


def pages(corpus: Corpus, share: float) -> list[Trial]:
    """Pages with one unseen sentence, half of them plain, a third under a heading of other words."""
    rng = random.Random("pages")
    words = lemmas(corpus)
    sentences = distinct(s for s in corpus.valid_sentences if 5 <= len(s.split()) <= 16)
    sentences = rng.sample(sentences, min(round(1000 * share), len(sentences)))
    documents = [
        Item(image=draw_page(rng, sentence, words if index % 3 == 0 else (), plain_page=index % 2 == 0))
        for index, sentence in enumerate(sentences)
    ]
    trial = Trial("page", "page by its words", _texts(sentences), documents, _own(len(sentences)), floor=0.90)
    paraphrases = _texts(half(rng, sentence) for sentence in sentences)
    other = replace(trial, name="page-half", title="page by half of its words", queries=paraphrases, floor=0.60)
    return [trial, other]


def draw_page(rng: random.Random, sentence: str, words: Sequence[str], *, plain_page: bool) -> NDArray[np.uint8]:
    """A page with every word of the sentence on it, under a heading of one or two of ``words`` where there are any."""
    page = None
    for _ in range(20):
        heading = " ".join(rng.choice(words) for _ in range(rng.randint(1, 2))).capitalize() if words else ""
        page = drawing.draw_page(rng, [sentence], PAGE_SIDE, PAGE_SIDE, size=LETTERS, heading=heading, plain=plain_page)
        if {word.text for word in page.words} >= set(sentence.split()):
            return page.pixels
    raise ValueError(f"no page holds this sentence: {sentence!r}")


def signs(corpus: Corpus, share: float) -> list[Trial]:
    """Signs of one to three words of unseen sentences."""
    rng = random.Random("signs")
    spoken = (word for s in corpus.valid_sentences for word in s.lower().strip(".,!?").split())
    words = sorted({word for word in spoken if word.isalpha() and word.isascii() and len(word) > 3})
    signs = [" ".join(rng.sample(words, rng.randint(1, 3))) for _ in range(round(300 * share))]
    documents = [
        Item(image=drawing.draw_page(rng, [sign], 192, 64, size=(20, 34), center=True, plain=True).pixels)
        for sign in signs
    ]
    return [Trial("sign", "sign by its words", _texts(signs), documents, _equal(signs))]


def charts(corpus: Corpus, share: float) -> list[Trial]:
    """Charts by kind and title."""
    rng = random.Random("charts")
    made = [drawing.random_chart(rng) for _ in range(round(200 * share))]
    return [chart_trial(made, [drawing.draw_chart(rng, chart, 224, 192).pixels for chart in made])]


def chart_trial(made: Sequence[drawing.Chart], pictures: Sequence[NDArray[np.uint8]]) -> Trial:
    """Each chart, of which there is a picture, by its kind and title."""
    titles = [f"{chart.kind} chart of {chart.measure} by {chart.by}" for chart in made]
    documents = [Item(image=picture) for picture in pictures]
    return Trial("chart", "chart by kind and title", _texts(titles), documents, _equal(titles))


# -- texts -------------------------------------------------------------------------------------------------------


def halves(corpus: Corpus, share: float) -> list[Trial]:
    """Unseen sentences by half of their words."""
    rng = random.Random("halves")
    sentences = distinct(s for s in corpus.valid_sentences if 6 <= len(s.split()) <= 16)
    chosen = rng.sample(sentences, min(round(1000 * share), len(sentences)))
    queries = _texts(half(rng, sentence) for sentence in chosen)
    return [Trial("half", "sentence by half of its words", queries, _texts(chosen), _own(len(chosen)))]


def intents(corpus: Corpus, share: float) -> list[Trial]:
    """Unseen questions of a bank's customers by intent."""
    rng = random.Random("intents")
    rows = rng.sample(corpus.valid["banking77"], min(round(300 * share), len(corpus.valid["banking77"])))
    labels = sorted({row.d_text for side in (corpus.train, corpus.valid) for row in side["banking77"]})
    answers = [frozenset((labels.index(row.d_text),)) for row in rows]
    return [Trial("intent", "bank question to intent", _texts(row.q_text for row in rows), _texts(labels), answers)]


def bitext(corpus: Corpus, share: float) -> list[Trial]:
    """Sentences of 20 languages to their English translation.

    The candidates of a language are all its own held-out translations, then those of the other languages.
    """
    rng = random.Random("bitext")
    rows = {code: [row for row in corpus.valid["tatoeba"] if row.lang == code] for code in LANGUAGES}
    english = distinct(row.d_text for code in LANGUAGES for row in rows[code])
    places = {plain(text): index for index, text in enumerate(english)}
    total = round(1000 * share)
    queries: list[str] = []
    answers: list[frozenset[int]] = []
    pools: list[list[int]] = []
    groups: list[str] = []
    for code, own in rows.items():
        meant: dict[str, set[int]] = defaultdict(set)
        for row in own:
            meant[row.q_text].add(places[plain(row.d_text)])
        asked = rng.sample(sorted(meant), min(round(50 * share), len(meant)))
        mine = sorted({place for text in asked for place in meant[text]} | set().union(*meant.values()))[:total]
        others = [place for place in range(len(english)) if place not in set(mine)]
        pool = sorted([*mine, *rng.sample(others, min(total - len(mine), len(others)))])
        for text in asked:
            queries.append(text)
            answers.append(frozenset(meant[text]))
            pools.append(pool)
            groups.append(code)
    return [
        Trial(
            "bitext",
            f"{len(LANGUAGES)} languages to English",
            _texts(queries),
            _texts(english),
            answers,
            pools,
            measure="R@1 mean",
            floor=0.35,
            groups=groups,
        )
    ]


def definitions(corpus: Corpus, share: float) -> list[Trial]:
    """Unseen definitions to their word."""
    rng = random.Random("definitions")
    one_each = {row.q_text: row for row in corpus.valid["wordnet"]}
    rows = rng.sample([one_each[word] for word in sorted(one_each)], min(round(1000 * share), len(one_each)))
    return [
        Trial(
            "definition",
            "WordNet definition to word",
            _texts(row.d_text for row in rows),
            _texts(row.q_text for row in rows),
            _own(len(rows)),
            at=10,
            measure="R@10",
            floor=0.35,
        )
    ]


def defined_elsewhere(corpus: Corpus) -> float:
    """Share of the words asked by ``definitions`` that another definition explains in training."""
    known = set(lemmas(corpus))
    asked = [str(item.text).split(", ") for item in definitions(corpus, 1.0)[0].documents]
    return sum(not known.isdisjoint(words) for words in asked) / len(asked)


# -- pictures ----------------------------------------------------------------------------------------------------


def _shown(corpus: Corpus, name: str) -> Item:
    picture = corpus.picture(name).resize((SMALL_SIDE, SMALL_SIDE), Image.Resampling.BICUBIC)
    return Item(image=np.asarray(picture, np.uint8))


def emoji(corpus: Corpus, share: float) -> list[Trial]:
    """Emoji by a name never seen in its language, among all emoji."""
    rng = random.Random("emoji")
    everything = [*corpus.train["emoji-name"], *corpus.valid["emoji-name"]]
    names = sorted({row.q_image for row in everything})
    places = {name: index for index, name in enumerate(names)}
    meant: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row in everything:
        meant[row.lang, row.d_text.casefold()].add(places[row.q_image])
    held = corpus.valid["emoji-name"]
    rows = rng.sample(held, min(round(1000 * share), len(held)))
    return [
        Trial(
            "emoji",
            "emoji by name, unseen in the language",
            _texts(row.d_text for row in rows),
            [_shown(corpus, name) for name in names],
            [frozenset(meant[row.lang, row.d_text.casefold()]) for row in rows],
            at=10,
            measure="R@10",
            floor=0.50,
        )
    ]


def icons(corpus: Corpus, share: float) -> list[Trial]:
    """Unseen line icons by name and tags."""
    rows = corpus.valid["lucide"]
    documents = [_shown(corpus, row.q_image) for row in rows]
    return [Trial("icon", "icon by name and tags", _texts(r.d_text for r in rows), documents, _own(len(rows)))]


def photographs(corpus: Corpus, share: float) -> list[Trial]:
    """Unseen photographs of garments and groceries to the name of their class, as the product shows them."""
    out = []
    for src, floor in (("clothing", 0.65), ("grocery", 0.50)):
        rows = [row for row in corpus.valid[src] if coarse(row)]
        rows = random.Random(src).sample(rows, round(len(rows) * share))
        classes = sorted({coarse(row) for row in [*corpus.train[src], *corpus.valid[src]]} - {""})
        out.append(
            Trial(
                src,
                f"{src} photograph to class",
                [Item(image=corpus.picture(row.q_image)) for row in rows],
                _texts(name.lower() for name in classes),
                [frozenset((classes.index(coarse(row)),)) for row in rows],
                measure="accuracy",
                floor=floor,
            )
        )
    return out


# -- what is drawn -----------------------------------------------------------------------------------------------


def scenes(corpus: Corpus, share: float) -> list[Trial]:
    """Scenes by description among nine in which one thing is different."""
    trial = scene_trial(random.Random("scenes"), round(300 * share), lambda: SCENE_SIDE)
    return [replace(trial, floor=0.60, reranked_floor=0.85, rerank=True)]


def scene_trial(rng: random.Random, count: int, side: Callable[[], int]) -> Trial:
    """``count`` scenes of ``side()`` pixels, each among its hard negatives of the same size."""
    queries: list[str] = []
    documents: list[Item] = []
    pools: list[list[int]] = []
    for _ in range(count):
        scene = drawing.random_scene(rng)
        pool = [scene, *drawing.near_scenes(rng, scene, 9)]
        pools.append(list(range(len(documents), len(documents) + len(pool))))
        pixels = side()
        documents += [Item(image=drawing.draw_scene(rng, one, pixels, pixels)) for one in pool]
        queries.append(scene.caption())
    answers = [frozenset(pool[:1]) for pool in pools]
    return Trial("scene", "scene by description, hard negatives", _texts(queries), documents, answers, pools)


def edits(corpus: Corpus, share: float) -> list[Trial]:
    """A picture and a change to the picture after it: among the others' answers and the picture itself."""
    trial = edit_trial(random.Random("edits"), round(100 * share), 3, lambda: EDIT_SIDE)
    return [replace(trial, floor=0.50, reranked_floor=0.75, rerank=True)]


def edit_trial(rng: random.Random, size: int, rounds: int, side: Callable[[], int]) -> Trial:
    """``rounds`` times ``size`` edits of scenes of ``side()`` pixels, each round with candidates of its own."""
    queries: list[Item] = []
    documents: list[Item] = []
    captions: list[str] = []
    pools: list[list[int]] = []
    for _ in range(rounds):
        begin = len(documents)
        for index in range(size):
            scene = drawing.random_scene(rng)
            other, words = drawing.edit_scene(rng, scene)
            pixels = side()
            picture = drawing.draw_scene(rng, scene, pixels, pixels)
            queries.append(Item(text=words, image=picture))
            documents.append(Item(image=drawing.draw_scene(rng, other, pixels, pixels)))
            captions.append(other.caption())
            # the picture itself stands for the answer of the next query
            others = [begin + place for place in range(size) if place != (index + 1) % size]
            pools.append([*others, begin + size + index])
        documents += [Item(image=query.image) for query in queries[-size:]]
        captions += [""] * size
    answers = [
        frozenset(place for place in pool if captions[place] == captions[own])
        for pool, own in zip(pools, (i // size * 2 * size + i % size for i in range(rounds * size)), strict=True)
    ]
    return Trial("edit", 'picture and "the same, but …" to picture', queries, documents, answers, pools)


def large(corpus: Corpus, share: float) -> list[Trial]:
    """What is drawn once more, in the sizes that people's pictures have."""
    rng = random.Random("large")
    scene = scene_trial(rng, round(100 * share), lambda: LARGE_SIDE)
    edit = edit_trial(rng, max(2, round(100 * share)), 1, lambda: LARGE_SIDE)
    made = [drawing.random_chart(rng) for _ in range(round(100 * share))]
    chart = chart_trial(made, [drawing.draw_chart(rng, chart, 512, 384, letters=1 / 20).pixels for chart in made])
    return [replace(one, name=f"{one.name}-large", title=f"{one.title}, large") for one in (scene, edit, chart)]


def sized(corpus: Corpus, share: float) -> list[Trial]:
    """What is drawn once more, in any size: people's pictures are no whole number of cells wide, and are resized."""
    rng = random.Random("sized")
    scene = scene_trial(rng, round(100 * share), lambda: rng.randint(*ANY_SIDE))
    edit = edit_trial(rng, max(2, round(100 * share)), 1, lambda: rng.randint(*ANY_SIDE))
    made = [drawing.random_chart(rng) for _ in range(round(100 * share))]
    pictures = []
    for one in made:
        width = rng.randint(*ANY_WIDTH)
        height = round(width / rng.uniform(1.1, 1.6))
        pictures.append(drawing.framed_chart(rng, one, width, height, letters=1 / rng.uniform(11, 18)).pixels)
    chart = chart_trial(made, pictures)
    return [replace(one, name=f"{one.name}-sized", title=f"{one.title}, any size") for one in (scene, edit, chart)]


def moments(corpus: Corpus, share: float) -> list[Trial]:
    """Shots of rendered films by description, to the plain windows that the product cuts (before it merges hits)."""
    rng = random.Random("moments")
    queries: list[str] = []
    documents: list[Item] = []
    answers: list[frozenset[int]] = []
    pools: list[list[int]] = []
    for number in range(round(20 * share)):
        film = draw_film(rng, 7 + number % 2)
        found = film_windows(film)
        pool = list(range(len(documents), len(documents) + len(found)))
        documents += [Item(video=frames) for _, _, frames in found]
        for shot in film.shots:
            queries.append(shot.words)
            pools.append(pool)
            near = (shared((start, end), (shot.start_s, shot.end_s)) >= IOU for start, end, _ in found)
            answers.append(frozenset(place for place, good in zip(pool, near, strict=True) if good))
    return [
        Trial(
            "moment",
            "moment of a 60 s video by description",
            _texts(queries),
            documents,
            answers,
            pools,
            measure="R@1, IoU ≥ .5",
            floor=0.60,
        )
    ]


TRIALS: Final[dict[str, Callable[[Corpus, float], list[Trial]]]] = {
    "pages": pages,
    "scenes": scenes,
    "photographs": photographs,
    "emoji": emoji,
    "edits": edits,
    "moments": moments,
    "bitext": bitext,
    "definitions": definitions,
    "signs": signs,
    "charts": charts,
    "halves": halves,
    "intents": intents,
    "icons": icons,
    "large": large,
    "sized": sized,
}
"""Makers of trials by the name that ``--only`` takes; each takes the corpus and the share of its size to make."""
