"""What the built-in models learn, task by task: pairs, hard negatives, and which pairs say the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from sightline.train.builtin import drawing
from sightline.train.builtin.corpus import Corpus, Row
from sightline.train.packing import Side

Pixels = NDArray[np.uint8]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One pair to learn from.

    Attributes:
        query, document: what belongs together.
        negatives: documents that look alike and do not answer.
        key: pairs of equal key answer each other's queries.
        shown: the words that stand on the document, where it is a picture of words and nothing else, or all its names,
            where it is a picture of one thing that has many.
        heading: what stands over the words of ``shown``, or "".
    """

    query: Side
    document: Side
    negatives: tuple[Side, ...] = ()
    key: str = ""
    shown: str = ""
    heading: str = ""


TEXT_SOURCES: Final = ("tatoeba", "wordnet", "wordnet-ex", "banking77", "emoji-xling", "code")
"""Tasks that are the pairs of texts of one source."""
FILLERS: Final = frozenset(
    """the a an of to in on at is are was were be been it its he she they we you i that this these those for with as and
    or by from his her their my your not do did does have has had will would can could""".split()  # noqa: SIM905
)


def lemmas(corpus: Corpus) -> list[str]:
    """Words of the training dictionary, to write where any word will do."""
    return sorted({word for row in corpus.train["wordnet"] for word in row.q_text.split(", ")})


def some(rng: random.Random, values: Sequence[Value], count: float) -> list[Value]:
    """About ``count`` different values, at least two where there are two."""
    return rng.sample(values, min(len(values), max(2, round(count))))


NAMES_APART: Final = ", "
"""Between the names of one picture in different languages."""
LEAST_PAIRS: Final = 4
"""Of a batch of large pictures, where so many were asked for."""
ZOOMS: Final = (1.0, 1.0, 1.0, 1.0, 1.6, 2.2, 3.2)
"""How many times larger the pictures of a batch are than those the tower learned to look at: people's own are larger,
and a model that has only seen small ones finds large ones near to everything."""
CELL: Final = 32
"""Pixels: sides are whole cells, as the model takes them."""
SHEETS: Final = ((448, 576), (448, 544))
"""Width and height of a page in a common size of paper, as large as the models take it."""
SMALLER_SHEETS: Final = ((320, 416), (288, 384), (224, 320), (256, 256))
PASSAGE: Final = (2, 8)
"""Sentences of a passage, at least and at most."""
LISTS: Final = 0.2
"""Share of the passages that are lists: rows as of a receipt or a timetable, numbers among them."""
DARK_SHARE: Final = 0.2
NEAR: Final = 7
"""Scenes that a scene has to be told from."""
ASKED: Final = 4
"""Descriptions asked of the same scenes."""
EDITS: Final = 3
"""Changes asked of the same picture."""
HEADED: Final = 0.35
"""Share of the pages with a heading."""
CLIP_SIDE: Final = 128
"""Pixels of a clip that is asked for by a picture or a clip, or asks for one."""
CLIP_FRAMES: Final = 6
"""Its frames."""


def zoomed(rng: random.Random, count: int, most: float) -> tuple[float, int]:
    """(zoom, count) of a batch."""
    zoom = min(rng.choice(ZOOMS), most)
    return zoom, fewer(count, zoom)


def fewer(count: int, zoom: float) -> int:
    """Pairs in a batch whose pictures are ``zoom`` times as wide and high.

    >>> fewer(20, 1.0), fewer(20, 2.0), fewer(20, 4.0), fewer(3, 4.0)
    (20, 7, 4, 3)
    """
    return max(min(count, LEAST_PAIRS), round(count / math.pow(zoom, 1.5)))


def cells(side: float) -> int:
    """The nearest length in whole cells.

    >>> cells(96 * 1.6)
    160
    """
    return max(1, round(side / CELL)) * CELL


def half(rng: random.Random, text: str) -> str:
    """Half of the words of a text, in order; words that carry meaning stay more often."""
    words = text.split()
    if len(words) < 4:
        return text
    weights = [(0.5 if word.lower().strip(".,!?") in FILLERS else 1.5) * rng.random() for word in words]
    kept = sorted(sorted(range(len(words)), key=lambda i: -weights[i])[: max(2, len(words) // 2)])
    return " ".join(words[index] for index in kept).strip(".,!?")


def augment_photo(rng: random.Random, image: Image.Image) -> Image.Image:
    """A crop, perhaps turned, mirrored or partly hidden, with other light: there are few photographs to learn from."""
    width, height = image.size
    if rng.random() < 0.4:
        image = image.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR, fillcolor=image.getpixel((0, 0)))
    share = rng.uniform(0.6, 1.0)
    w, h = int(width * share), int(height * min(1.0, share * rng.uniform(0.85, 1.18)))
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    image = image.crop((left, top, left + w, top + h))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.25:
        across, down = rng.randint(w // 8, w // 3), rng.randint(h // 8, h // 3)
        x, y = rng.randint(0, w - across), rng.randint(0, h - down)
        image.paste(tuple(rng.randint(0, 255) for _ in range(3)), (x, y, x + across, y + down))
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.65, 1.35))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.7, 1.3))
    return ImageEnhance.Color(image).enhance(rng.uniform(0.5, 1.4))


def augment_drawing(rng: random.Random, image: Image.Image, side: int) -> Pixels:
    """An emoji or icon, resized a little and shifted on white or a light ground."""
    paper = (255, 255, 255) if rng.random() < 0.75 else tuple(rng.randint(225, 255) for _ in range(3))
    size = round(side * rng.uniform(0.8, 1.0))
    canvas = Image.new("RGB", (side, side), paper)
    small = image.resize((size, size), Image.Resampling.BICUBIC)
    if paper != (255, 255, 255):
        array = np.asarray(small, np.float32) * np.asarray(paper, np.float32) / 255
        small = Image.fromarray(array.astype(np.uint8))
    canvas.paste(small, (rng.randint(0, side - size), rng.randint(0, side - size)))
    return np.asarray(canvas, np.uint8)


def scene_picture(rng: random.Random, scene: drawing.Scene, side: int, paper: drawing.Color | None = None) -> Pixels:
    """A scene drawn in any size, as the model is shown it."""
    return drawing.of_any_size(rng, partial(drawing.scene_page, rng, scene, paper=paper), side, side).pixels


def coarse(row: Row) -> str:
    """The class of a photograph: of a grocery the one in brackets, or "" for a description without.

    >>> coarse(Row("grocery", "i2t", "en", "", "", "Gala (Apple)", "", ""))
    'apple'
    """
    if row.src != "grocery":
        return row.d_text.lower()
    return row.d_text.rstrip(")").rpartition(" (")[2].lower() if " (" in row.d_text else ""


def photo_name(rng: random.Random, row: Row) -> tuple[str, str]:
    """(words, key) for a photograph: of a grocery's two classes mostly the coarser."""
    name = key = coarse(row)
    if row.src == "grocery" and rng.random() < 0.35:
        name = row.d_text.partition(" (")[0]
    name = name.replace("longsleeve", "long sleeve shirt") if rng.random() < 0.3 else name
    text = name.lower() if rng.random() < 0.7 else name.capitalize()
    if rng.random() < 0.15:
        text = f"a photo of {text}"
    return text, key


def page_texts(
    rng: random.Random, sentences: Sequence[str], words: Sequence[str], width: int, height: int
) -> list[str]:
    """Enough text for a page: sentences, lists of rare words, numbers, capitals."""
    area = width * height
    texts = []
    for _ in range(max(1, area // 9000)):
        kind = rng.random()
        if kind < 0.72:
            text = rng.choice(sentences)
        elif kind < 0.9:
            text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 6)))
        else:
            text = f"{rng.choice(words)} {number(rng)} {rng.choice(words)} {number(rng)}"
        if area <= 64 * 192:
            text = " ".join(text.split()[: rng.randint(1, 5)])
        case = rng.random()
        texts.append(text.upper() if case < 0.06 else text.title() if case < 0.12 else text)
    return texts


def some_heading(rng: random.Random, words: Sequence[str]) -> str:
    """One to three rare words to stand over a page, or most often none."""
    if rng.random() >= HEADED:
        return ""
    return " ".join(rng.choice(words) for _ in range(rng.randint(1, 3))).capitalize()


def number(rng: random.Random) -> str:
    """An amount, a date, a year, a count."""
    return rng.choice(
        (
            f"{rng.randint(0, 9999)}",
            f"${rng.randint(0, 999)}.{rng.randint(0, 99):02d}",
            f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.{rng.randint(1990, 2030)}",
            f"{rng.randint(1, 100)}%",
            f"{rng.randint(1900, 2030)}",
        )
    )


def sheet_rows(rng: random.Random, sentences: Sequence[str], words: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of a receipt, a menu, a timetable, a form or minutes: most of one kind, a few sentences between them."""

    def said(most: int) -> str:
        if rng.random() < 0.5:
            return " ".join(rng.choice(words) for _ in range(rng.randint(1, most)))
        spoken = rng.choice(sentences).strip(".,!?").split()
        begin = rng.randrange(len(spoken))
        return " ".join(spoken[begin : begin + rng.randint(1, most)])

    kinds: tuple[Callable[[], tuple[str, ...]], ...] = (
        lambda: (said(3).capitalize(), number(rng)),
        lambda: (f"{rng.randint(1, 9)} {said(3)}", number(rng)),
        lambda: (said(1).capitalize(), said(3).capitalize()),
        lambda: (
            said(1).capitalize(),
            f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}",
            f"{said(1)} {number(rng)}",
        ),
        lambda: (rng.choice(sentences),),
        lambda: (f"{rng.randint(1, 9)}. {rng.choice(sentences)}",),
    )
    kind, sentence = rng.choice(kinds), kinds[-2]
    return [(sentence if rng.random() < 0.15 else kind)() for _ in range(rng.choice((3, 5, 8, 12)))]


def words_from(rng: random.Random, texts: Sequence[str], most: int) -> str:
    """One or two pieces of different texts, as people ask for a page of which they remember something."""
    pieces = []
    for text in rng.sample(list(texts), min(len(texts), rng.choice((1, 1, 2)))):
        spoken = text.split()
        begin = rng.randrange(max(1, len(spoken) - most + 1))
        pieces.append(" ".join(spoken[begin : begin + most]).strip(".,!?:"))
    return rng.choice((", ", " ", ": ", " and ")).join(pieces)


class Maker:
    """Draws pairs of any task from the training part of a corpus.

    Args:
        corpus: the data.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.rows = corpus.train
        self.sentences = corpus.sentences
        self.words = lemmas(corpus)
        self.emoji_all = [*self.rows["emoji-name"], *self.rows["emoji-keywords"]]
        self.emoji_english = [row for row in self.emoji_all if row.lang == "en"]
        names: dict[str, list[str]] = {}
        for row in self.rows["emoji-name"]:
            names.setdefault(row.q_image, []).append(row.d_text)
        self.emoji_names = {picture: NAMES_APART.join(sorted(set(said))) for picture, said in names.items()}
        self.spoken: dict[str, list[Row]] = {}
        for row in self.rows["tatoeba"]:
            self.spoken.setdefault(row.lang, []).append(row)
        self.languages = sorted(self.spoken)
        self.photos: dict[str, list[Row]] = {}
        for row in [*self.rows["clothing"], *self.rows["grocery"]]:
            if coarse(row):
                self.photos.setdefault(coarse(row), []).append(row)
        self.things = [*self.emoji_names, *self.photos]
        """What one picture can show: emoji by file, photographs by class."""
        self.tasks: dict[str, Callable[[random.Random, int], list[Example]]] = {
            "page": self.page,
            "sheet": self.sheet,
            "line": self.line,
            "passage": self.passage,
            "half": self.half,
            "scene": self.scene,
            "near": self.near,
            "near_edit": self.near_edit,
            "which": self.which,
            "chart": self.chart,
            "clip": self.clip,
            "edit": self.edit,
            "again": self.again,
            "tone": self.tone,
            "emoji": self.emoji,
            "icon": self.icon,
            "photo": self.photo,
            "vega": self.vega,
            **{src: partial(self.text, src=src) for src in TEXT_SOURCES},
        }

    def page(self, rng: random.Random, count: int) -> list[Example]:
        """Pages and one of their sentences, half of its words, or the heading; a third of the batches full sheets."""
        width, height = rng.choice(((256, 256), (256, 256), (256, 192), (224, 320), *SHEETS))
        is_sheet = (width, height) in SHEETS
        count = fewer(count, math.sqrt(width * height) / 256) if is_sheet else count
        examples = []
        for _ in range(count):
            texts = page_texts(rng, self.sentences, self.words, width, height)
            # the first text is the one asked for, as the text itself and no list of words
            texts = [rng.choice(self.sentences), *texts[1:]][: rng.choice((3, 6, 12, 20) if is_sheet else (1, 1, 2, 6))]
            heading = some_heading(rng, self.words)
            plain = rng.random() < 0.5
            size = (10, 22) if is_sheet else (14, 24)
            page = drawing.draw_page(rng, texts, width, height, size=size, heading=heading, plain=plain)
            kind = rng.random()
            query = heading if heading and kind < 0.3 else texts[0] if kind < 0.6 else half(rng, texts[0])
            body = page.text.removeprefix(heading).strip()
            over = heading if body else ""  # one that fills the page is its text
            document = Side(image=page.pixels)
            examples.append(Example(Side(query), document, key=texts[0], shown=body or page.text, heading=over))
        return examples

    def sheet(self, rng: random.Random, count: int) -> list[Example]:
        """Receipts, menus, timetables, forms and minutes, and their heading or pieces of it and of their rows."""
        width, height = rng.choice((*SHEETS, *SMALLER_SHEETS))
        examples = []
        for _ in range(fewer(count, math.sqrt(width * height) / 256)):
            heading = " ".join(rng.choice(self.words) for _ in range(rng.randint(1, 3)))
            heading = heading.upper() if rng.random() < 0.3 else heading.capitalize()
            rows = sheet_rows(rng, self.sentences, self.words)
            page = drawing.draw_sheet(rng, heading, rows, width, height, size=(12, 24))
            lines = [" ".join(cells) for cells in rows if set(" ".join(cells).split()) <= {w.text for w in page.words}]
            kind = rng.random()
            query = heading if kind < 0.15 or not lines else words_from(rng, [heading, *lines], rng.choice((3, 5, 9)))
            query = query.lower() if rng.random() < 0.3 else query
            examples.append(Example(Side(query), Side(image=page.pixels), key=page.text, shown=page.text))
        return examples

    def line(self, rng: random.Random, count: int) -> list[Example]:
        """Words, names, short lines and amounts, in larger letters."""
        width, height = rng.choice(((192, 64), (192, 64), (128, 128), (256, 64), (384, 64)))
        examples = []
        for _ in range(count):
            kind = rng.random()
            if kind < 0.7:
                words = rng.choice(self.sentences).split()
                begin = rng.randrange(len(words))
                text = " ".join(words[begin : begin + rng.randint(1, 5)])
            elif kind < 0.93:
                text = " ".join(rng.choice(self.words) for _ in range(rng.choice((1, 1, 2, 3))))
            else:
                text = f"{rng.choice(self.words)} {number(rng)}"
            page = drawing.draw_page(
                rng, [text], width, height, size=(15, 32), center=rng.random() < 0.6, plain=rng.random() < 0.5
            )
            query = half(rng, text) if rng.random() < 0.3 else text
            if rng.random() < 0.2:
                query = query.lower()
            examples.append(Example(Side(query), Side(image=page.pixels), key=text.lower(), shown=page.text))
        return examples

    def half(self, rng: random.Random, count: int) -> list[Example]:
        """Sentences by half of their words."""
        texts = [rng.choice(self.sentences) for _ in range(count)]
        return [Example(Side(half(rng, text)), Side(text), key=text) for text in texts]

    def passage(self, rng: random.Random, count: int) -> list[Example]:
        """Texts of several sentences, or lists, and one of these, half of it, or pieces of several.

        A third of the others are in another language, and most of these are asked for in English.
        """
        examples = []
        for _ in range(count):
            num = rng.randint(*PASSAGE)
            is_list = rng.random() < LISTS
            if is_list:
                texts = asked = [" ".join(cells) for cells in sheet_rows(rng, self.sentences, self.words)]
            elif rng.random() < 1 / 3:
                rows = [rng.choice(self.spoken[rng.choice(self.languages)])]
                rows += rng.sample(self.spoken[rows[0].lang], min(num, len(self.spoken[rows[0].lang])) - 1)
                texts, asked = [row.q_text for row in rows], [row.d_text for row in rows]
                if rng.random() < 0.25:
                    asked = texts
            else:
                texts = asked = [rng.choice(self.sentences) for _ in range(num)]
            kind = rng.random()
            one = rng.choice(asked)
            query = (
                one if kind < 0.25 else half(rng, one) if kind < 0.6 else words_from(rng, asked, rng.choice((2, 3, 5)))
            )
            query = query.lower() if rng.random() < 0.2 else query
            order = rng.sample(texts, len(texts))
            heading = (
                " ".join(rng.choice(self.words) for _ in range(2)).capitalize() + "\n" if rng.random() < 0.3 else ""
            )
            body = ("\n" if is_list else " ").join(order)
            examples.append(Example(Side(query), Side(heading + body), key=body))
        return examples

    def text(self, rng: random.Random, count: int, *, src: str) -> list[Example]:
        """Translations, definitions, questions, code: pairs of one source, either way round where both are asked."""
        examples = []
        for row in some(rng, self.rows[src], count):
            query, document = row.q_text, row.d_text
            if src in ("wordnet", "tatoeba") and rng.random() < 0.5:
                query, document = document, query
            examples.append(Example(Side(query), Side(document), key=row.d_text))
        return examples

    def emoji(self, rng: random.Random, count: int) -> list[Example]:
        """Emoji by name or keywords, a third of them in English."""
        rows = self.emoji_english if rng.random() < 0.33 else self.emoji_all
        side = rng.choice((64, 96, 96, 128))
        examples = []
        for row in some(rng, rows, count):
            text = row.d_text
            if row.src == "emoji-keywords":
                words = text.split(", ")
                text = rng.choice(words) if rng.random() < 0.5 else ", ".join(rng.sample(words, min(3, len(words))))
            picture = augment_drawing(rng, self.corpus.picture(row.q_image), side)
            # a name is one of many: all of them together say better what the picture is than the one asked for
            names = self.emoji_names.get(row.q_image, text)
            examples.append(Example(Side(text), Side(image=picture), key=row.q_image, shown=names))
        return examples

    def scene(self, rng: random.Random, count: int) -> list[Example]:
        """Scenes by description, each with two scenes in which one thing is different."""
        zoom, count = zoomed(rng, count, 3.5)
        side = cells(rng.choice((96, 128, 128)) * zoom)
        examples = []
        for _ in range(count):
            scene = drawing.random_scene(rng)
            wrong = [drawing.edit_scene(rng, scene)[0] for _ in range(2)]
            drawn = [
                scene_picture(rng, one, side, paper=drawing.dark_paper(rng, one, DARK_SHARE)) for one in (scene, *wrong)
            ]
            picture, negatives = drawn[0], tuple(Side(image=one) for one in drawn[1:])
            examples.append(Example(Side(scene.caption(rng)), Side(image=picture), negatives, key=scene.caption()))
        return examples

    def near(self, rng: random.Random, count: int) -> list[Example]:
        """Scenes by description, each with seven in which one thing is different: what a reranker has to tell apart.

        ``ASKED`` descriptions are asked of the same eight pictures, so that no picture is right or wrong by its looks.
        """
        zoom, count = zoomed(rng, count, 3.5)
        side = cells(rng.choice((96, 96, 128, 128, 160)) * zoom)
        examples = []
        for _ in range(max(1, count // ASKED)):
            scene = drawing.random_scene(rng)
            every = (scene, *drawing.near_scenes(rng, scene, NEAR))
            sides = [
                Side(image=scene_picture(rng, one, side, drawing.dark_paper(rng, one, DARK_SHARE))) for one in every
            ]
            for place in (0, *rng.sample(range(1, len(every)), ASKED - 1)):
                text = every[place].caption(rng) if rng.random() < 0.5 else every[place].caption()
                negatives = tuple(other for other in sides if other is not sides[place])
                examples.append(Example(Side(text), sides[place], negatives, key=every[place].caption()))
        return examples

    def near_edit(self, rng: random.Random, count: int) -> list[Example]:
        """A picture and words for a change, told from other changes of it, itself, scenes near both and another."""
        zoom, count = zoomed(rng, count, 3.5)
        side = cells(rng.choice((96, 96, 96, 128)) * zoom)
        examples = []
        for _ in range(max(1, count // EDITS)):
            scene = drawing.random_scene(rng)
            changes: dict[str, tuple[drawing.Scene, str]] = {}
            while len(changes) < EDITS:
                changed, words = drawing.edit_scene(rng, scene)
                if changed.caption() != scene.caption():
                    changes.setdefault(changed.caption(), (changed, words))
            first = next(iter(changes.values()))[0]
            near = [
                one for one in drawing.near_scenes(rng, first, NEAR) if one.caption() not in (*changes, scene.caption())
            ]
            picture, again, *others = (
                Side(image=scene_picture(rng, one, side))
                for one in (scene, scene, *near[:2], drawing.random_scene(rng))
            )
            answers = [Side(image=scene_picture(rng, changed, side)) for changed, _ in changes.values()]
            for answer, (changed, words) in zip(answers, changes.values(), strict=True):
                wrong = (*(other for other in answers if other is not answer), picture, again, *others)
                examples.append(Example(Side(words, image=picture.image), answer, wrong, key=changed.caption()))
        return examples

    def which(self, rng: random.Random, count: int) -> list[Example]:
        """Scenes by what has which colour or number, or lies where: each told from one of the same things exchanged."""
        zoom, count = zoomed(rng, count, 2.2)
        side = cells(rng.choice((96, 96, 128)) * zoom)
        examples = []
        for _ in range(max(1, count // 2)):
            every = drawing.exchanged(rng)
            sides = [Side(image=scene_picture(rng, scene, side)) for scene, _ in every]
            for own, other, (scene, said) in zip(sides, sides[::-1], every, strict=True):
                examples.append(Example(Side(said.caption(rng)), own, (other,), key=scene.caption()))
        return examples

    def chart(self, rng: random.Random, count: int) -> list[Example]:
        """Charts by title, kind and trend."""
        zoom, count = zoomed(rng, count, 2.4)
        width, height = (cells(zoom * side) for side in rng.choice(((192, 160), (256, 160), (224, 192))))
        examples = []
        for _ in range(count):
            chart = drawing.random_chart(rng)
            draw = partial(drawing.framed_chart, rng, chart, letters=1 / rng.uniform(11, 24))
            page = drawing.of_any_size(rng, draw, width, height)
            # a query that names less than the chart shows answers for every chart that shows it
            key = f"{chart.measure} {chart.by}"
            examples.append(Example(Side(chart.caption(rng)), Side(image=page.pixels), key=key))
        return examples

    def vega(self, rng: random.Random, count: int) -> list[Example]:
        """Charts of Vega by marks and fields."""
        examples = []
        for row in some(rng, self.rows["vega"], count):
            image = self.corpus.picture(row.q_image).resize((160, 128), Image.Resampling.BICUBIC)
            examples.append(Example(Side(row.d_text), Side(image=np.asarray(image, np.uint8)), key=row.d_text))
        return examples

    def clip(self, rng: random.Random, count: int) -> list[Example]:
        """Moving shapes by description, with the opposite motion as a negative; some come after the end of another."""
        side, num_frames = rng.choice((96, 128)), rng.choice((6, 8, 8))
        examples = []
        for _ in range(count):
            shape, color = rng.choice(drawing.SHAPES), rng.choice(list(drawing.COLORS))
            motion = rng.choice(list(drawing.MOTIONS))
            clip = drawing.draw_clip(rng, shape, color, motion, side, num_frames)
            other = drawing.draw_clip(rng, shape, color, drawing.MOTIONS[motion], side, num_frames)
            key, text = f"a {color} {shape} {motion}", drawing.clip_words(rng, shape, color, motion)
            if rng.random() < 0.3:
                scene = drawing.random_scene(rng)
                picture = scene_picture(rng, scene, side)
                key = text = scene.caption()
                clip = np.repeat(picture[None], num_frames, 0)
                changed = scene_picture(rng, drawing.edit_scene(rng, scene)[0], side)
                other = np.repeat(changed[None], num_frames, 0)
            if rng.random() < 0.4:  # as a window of a film that begins before the shot, or ends after it
                before = drawing.draw_clip(
                    rng,
                    rng.choice(drawing.SHAPES),
                    rng.choice(list(drawing.COLORS)),
                    rng.choice(list(drawing.MOTIONS)),
                    side,
                    num_frames,
                )
                cut = rng.randint(1, 2)
                begins = rng.random() < 0.5
                clip = np.concatenate([before[-cut:], clip[:-cut]] if begins else [clip[cut:], before[:cut]])
            if rng.random() < 0.2:
                text = rng.choice(("a video of ", "a clip of ")) + text
            examples.append(Example(Side(text), Side(frames=clip), (Side(frames=other),), key=key))
        return examples

    def photo(self, rng: random.Random, count: int) -> list[Example]:
        """Garments and groceries by class: one of a class at most, of garments, which have but ten, three."""
        zoom, count = zoomed(rng, count, 3.2)
        side = cells(rng.choice((96, 128, 128)) * zoom)
        classes = [name for name, rows in self.photos.items() for _ in range(3 if rows[0].src == "clothing" else 1)]
        examples = []
        for name in some(rng, classes, count):
            row = rng.choice(self.photos[name])
            text, key = photo_name(rng, row)
            image = augment_photo(rng, self.corpus.picture(row.q_image)).resize((side, side), Image.Resampling.BICUBIC)
            examples.append(Example(Side(text), Side(image=np.asarray(image, np.uint8)), key=key))
        return examples

    def icon(self, rng: random.Random, count: int) -> list[Example]:
        """Line icons by name or tags."""
        side = rng.choice((64, 96, 128))
        examples = []
        for row in some(rng, self.rows["lucide"], count):
            name, _, tags = row.d_text.partition(": ")
            words = [word for word in tags.split(", ") if word]
            text = name if rng.random() < 0.4 or not words else ", ".join(rng.sample(words, min(len(words), 3)))
            picture = augment_drawing(rng, self.corpus.picture(row.q_image), side)
            examples.append(Example(Side(text), Side(image=picture), key=row.q_image))
        return examples

    def edit(self, rng: random.Random, count: int) -> list[Example]:
        """A picture and words for a change; the picture unchanged and one changed otherwise are negatives."""
        zoom, count = zoomed(rng, count, 3.5)
        side = cells(96 * zoom)
        examples = []
        for _ in range(count):
            scene = drawing.random_scene(rng)
            changed, words = drawing.edit_scene(rng, scene)
            one, two, again = (scene_picture(rng, drawn, side) for drawn in (scene, changed, scene))
            negatives = (Side(image=one), Side(image=again))
            examples.append(Example(Side(words, image=one), Side(image=two), negatives, key=changed.caption()))
        return examples

    def again(self, rng: random.Random, count: int) -> list[Example]:
        """A picture or a clip, and the same thing shown otherwise: whole, turned round, arranged or moving anew."""
        zoom, count = zoomed(rng, count, 2.2)
        side = cells(rng.choice((96, 128)) * zoom)
        kinds = (self._photo_again, self._scene_again, self._page_again, self._still_again, self._clip_again)
        return [rng.choice(kinds)(rng, side) for _ in range(count)]

    def _photo_again(self, rng: random.Random, side: int) -> Example:
        """A part of a photograph, mirrored, turned or in other light, and the whole."""
        name = rng.choice([*self.photos])
        image = self.corpus.picture(rng.choice(self.photos[name]).q_image)
        part, whole = (
            np.asarray(one.resize((side, side), Image.Resampling.BICUBIC), np.uint8)
            for one in (augment_photo(rng, image), image)
        )
        return Example(Side(image=part), Side(image=whole), key=name)

    def _scene_again(self, rng: random.Random, side: int) -> Example:
        """A scene and another drawing of it; two in which one thing is different are wrong."""
        scene = drawing.random_scene(rng)
        near = [one for one in drawing.near_scenes(rng, scene, 2) if one.caption() != scene.caption()]
        first, again, *wrong = (Side(image=scene_picture(rng, one, side)) for one in (scene, scene, *near))
        return Example(first, again, tuple(wrong), key=scene.caption())

    def _page_again(self, rng: random.Random, side: int) -> Example:
        """The upper part of a page and the page."""
        texts = page_texts(rng, self.sentences, self.words, 256, 256)
        heading = some_heading(rng, self.words)
        page = drawing.draw_page(rng, texts[:6], 256, 256, size=(14, 24), heading=heading, plain=rng.random() < 0.5)
        part = page.pixels[: CELL * rng.randint(3, 6), : CELL * rng.randint(6, 8)]
        return Example(Side(image=np.ascontiguousarray(part)), Side(image=page.pixels), key=page.text)

    def _still_again(self, rng: random.Random, side: int) -> Example:
        """A scene and a clip that shows it; a clip of one in which one thing is different is wrong."""
        scene = drawing.random_scene(rng)
        other = drawing.edit_scene(rng, scene)[0]
        picture, still, wrong = (scene_picture(rng, one, CLIP_SIDE) for one in (scene, scene, other))
        clips = (Side(frames=np.repeat(one[None], CLIP_FRAMES, 0)) for one in (still, wrong))
        return Example(Side(image=picture), next(clips), (next(clips),), key=scene.caption())

    def _clip_again(self, rng: random.Random, side: int) -> Example:
        """A clip of a moving shape and another of the same; the opposite motion is wrong."""
        shape, color = rng.choice(drawing.SHAPES), rng.choice([*drawing.COLORS])
        motion = rng.choice([*drawing.MOTIONS])
        first, again, wrong = (
            Side(frames=drawing.draw_clip(rng, shape, color, one, CLIP_SIDE, CLIP_FRAMES))
            for one in (motion, motion, drawing.MOTIONS[motion])
        )
        return Example(first, again, (wrong,), key=f"a {color} {shape} {motion}")

    def tone(self, rng: random.Random, count: int) -> list[Example]:
        """An emoji and the words for another tone of skin."""
        examples = []
        for row in some(rng, self.rows["emoji-tone"], count):
            one = augment_drawing(rng, self.corpus.picture(row.q_image), 96)
            two = augment_drawing(rng, self.corpus.picture(row.d_image), 96)
            examples.append(Example(Side(row.q_text, image=one), Side(image=two), (Side(image=one),), key=row.d_image))
        return examples


def keys_equal(keys: Sequence[str], extra: int) -> NDArray[np.bool_]:
    """(N, N + extra) true where two pairs of a batch say the same."""
    array = np.asarray(keys)
    same = array[:, None] == array[None, :]
    return np.concatenate([same, np.zeros((len(keys), extra), np.bool_)], 1)
