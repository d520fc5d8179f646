"""What the embedder learns, one task a batch: pairs, hard negatives, and which pairs say the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from sightline.train import drawing
from sightline.train.data import Corpus, Row
from sightline.train.drawing import Page
from sightline.train.packing import Side
from sightline.train.reading import SIZES, number, page_texts

Pixels = NDArray[np.uint8]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One pair to learn from.

    Attributes:
        query, document: what belongs together.
        negatives: documents that look alike and do not answer.
        key: pairs of equal key answer each other's queries.
        page: the drawn page behind the document, for the reading loss.
    """

    query: Side
    document: Side
    negatives: tuple[Side, ...] = ()
    key: str = ""
    page: Page | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs of one task under one query instruction; documents take the default."""

    task: str
    examples: list[Example]
    instruction: str = ""
    in_batch: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """A way to make batches.

    Attributes:
        name: for the log and the tables.
        share: of the steps.
        instructions: of the queries; the default is taken seven times in ten.
    """

    name: str
    share: float
    instructions: tuple[str, ...]


TASKS: Final = (
    Task("page", 0.22, ("Find a document image that matches the given query.", "Find the page with these words.")),
    Task("line", 0.28, ("Find a document image that matches the given query.", "Find the page with these words.")),
    Task("text", 0.25, ("Retrieve relevant passages.", "Retrieve text relevant to the user's query.")),
    Task("emoji", 0.04, ("Find images matching this description.",)),
    Task("scene", 0.14, ("Find images matching this description.",)),
    Task("chart", 0.03, ("Find a document image that matches the given query.",)),
    Task("clip", 0.01, ("Find videos matching this description.",)),
    Task("photo", 0.02, ("Find images matching this description.",)),
    Task("icon", 0.005, ("Find images matching this description.",)),
    Task("edit", 0.005, ("Find the image after this change.",)),
)
TEXT_SOURCES: Final = {
    "tatoeba": 10,
    "wordnet": 4,
    "wordnet-ex": 6,
    "banking77": 8,
    "emoji-xling": 4,
    "code": 2,
    "half": 70,
}
"""Sources of the task of texts, with their weights."""
EASY: Final = 0.45
"""Share of the stage until which drawn words are plain and not small."""
FILLERS: Final = frozenset(
    """the a an of to in on at is are was were be been it its he she they we you i that this these those for with as and
    or by from his her their my your not do did does have has had will would can could""".split()  # noqa: SIM905
)


def some(rng: random.Random, values: Sequence[Value], count: float) -> list[Value]:
    """About ``count`` different values, at least two where there are two."""
    return rng.sample(values, min(len(values), max(2, round(count))))


def half(rng: random.Random, text: str) -> str:
    """Half of the words of a text, in order; words that carry meaning stay more often."""
    words = text.split()
    if len(words) < 4:
        return text
    weights = [(0.5 if word.lower().strip(".,!?") in FILLERS else 1.5) * rng.random() for word in words]
    kept = sorted(sorted(range(len(words)), key=lambda i: -weights[i])[: max(2, len(words) // 2)])
    return " ".join(words[index] for index in kept).strip(".,!?")


def augment_photo(rng: random.Random, image: Image.Image) -> Image.Image:
    """A crop, perhaps mirrored, with other light."""
    width, height = image.size
    share = rng.uniform(0.72, 1.0)
    w, h = int(width * share), int(height * min(1.0, share * rng.uniform(0.9, 1.1)))
    left, top = rng.randint(0, width - w), rng.randint(0, height - h)
    image = image.crop((left, top, left + w, top + h))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.25))
    return ImageEnhance.Color(image).enhance(rng.uniform(0.7, 1.3))


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


def photo_name(rng: random.Random, row: Row) -> tuple[str, str]:
    """(words, key) for a photograph: of the grocery's two classes one."""
    name = row.d_text
    if row.src == "grocery":
        fine, _, coarse = name.rstrip(")").partition(" (")
        name = coarse if rng.random() < 0.5 else fine
    name = name.replace("longsleeve", "long sleeve shirt") if rng.random() < 0.5 else name
    text = name.lower() if rng.random() < 0.7 else name
    if rng.random() < 0.2:
        text = f"a photo of {text}"
    return text, row.d_text


@dataclass
class Maker:
    """Draws batches of any task from a corpus.

    Args:
        corpus: the data.
        valid: draw from what is held out instead.
    """

    corpus: Corpus
    valid: bool = False
    rows: dict[str, list[Row]] = field(init=False)
    sentences: list[str] = field(init=False)
    words: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.corpus.valid if self.valid else self.corpus.train
        self.sentences = self.corpus.valid_sentences if self.valid else self.corpus.sentences
        self.words = sorted({w for row in self.corpus.train["wordnet"] for w in row.q_text.split(", ")})
        emoji = [*self.rows["emoji-name"], *self.rows["emoji-keywords"]]
        self.emoji_english = [row for row in emoji if row.lang == "en"]
        self.emoji_all = emoji
        self.photos: dict[str, list[Row]] = {}
        for row in [*self.rows["clothing"], *self.rows["grocery"]]:
            self.photos.setdefault(row.d_text, []).append(row)
        self.makers: dict[str, Callable[[random.Random, float, float], Batch]] = {
            "page": self.pages,
            "line": self.lines,
            "text": self.texts,
            "emoji": self.emoji,
            "scene": self.scenes,
            "chart": self.charts,
            "clip": self.clips,
            "photo": self.photographs,
            "icon": self.icons,
            "edit": self.edits,
        }

    def batch(self, rng: random.Random, progress: float, scale: float = 1.0) -> Batch:
        """A batch of a task drawn by its share."""
        task = rng.choices(TASKS, [task.share for task in TASKS])[0]
        made = self.makers[task.name](rng, progress, scale)
        told = "" if rng.random() < 0.7 else rng.choice(task.instructions)
        return Batch(made.task, made.examples, told, made.in_batch)

    def pages(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Pages and one of their sentences, half of its words, or the heading."""
        width, height, count = rng.choice([size for size in SIZES if size[0] * size[1] >= 256 * 256])
        examples = []
        for _ in range(max(2, round(count * scale))):
            plain = rng.random() < (1.0 if progress < EASY else 0.5)
            texts = page_texts(rng, self.sentences, self.words, width, height)
            # the first text is the one asked for, as the text itself and no list of words
            texts[0] = rng.choice(self.sentences)
            heading = ""
            if rng.random() < 0.35:
                heading = " ".join(rng.choice(self.words) for _ in range(rng.randint(1, 3))).capitalize()
            if rng.random() < 0.35:
                texts = texts[: rng.randint(1, 2)]
            page = drawing.draw_page(
                rng, texts, width, height, size=(16, 24) if progress < EASY else (12, 22), heading=heading, plain=plain
            )
            kind = rng.random()
            query = heading if heading and kind < 0.35 else texts[0] if kind < 0.6 else half(rng, texts[0])
            examples.append(Example(Side(query), Side(image=page.pixels), key=texts[0], page=page))
        return Batch("page", examples)

    def lines(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Words, names, short lines and amounts, in larger letters."""
        sizes = [size for size in SIZES if size[0] * size[1] < 256 * 256 and size[1] <= 128]
        width, height, count = rng.choice(sizes)
        examples = []
        for _ in range(max(2, round(min(count, 128) * scale))):
            kind = rng.random()
            if kind < 0.7:
                words = rng.choice(self.sentences).split()
                begin = rng.randrange(len(words))
                text = " ".join(words[begin : begin + rng.randint(1, 5)])
            elif kind < 0.93:
                text = " ".join(rng.choice(self.words) for _ in range(rng.choice((1, 1, 2, 3))))
            else:
                text = f"{rng.choice(self.words)} {number(rng)}"
            plain = rng.random() < (1.0 if progress < EASY else 0.5)
            if width >= 384 and rng.random() < 0.5:
                text = rng.choice(self.sentences)
            page = drawing.draw_page(
                rng,
                [text],
                width,
                height,
                size=(18, 26) if progress < EASY else (14, 32),
                center=rng.random() < 0.6,
                plain=plain,
            )
            query = half(rng, text) if rng.random() < 0.3 else text
            if rng.random() < 0.2:
                query = query.lower()
            examples.append(Example(Side(query), Side(image=page.pixels), key=text.lower(), page=page))
        return Batch("line", examples)

    def halves(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Sentences by half of their words."""
        texts = [rng.choice(self.sentences) for _ in range(max(2, round(160 * scale)))]
        return Batch("half", [Example(Side(half(rng, text)), Side(text), key=text) for text in texts])

    def texts(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Translations, definitions, questions, code, and sentences by half of their words."""
        src = rng.choices([*TEXT_SOURCES], [*TEXT_SOURCES.values()])[0]
        count = max(2, round((64 if src == "code" else 160) * scale))
        examples = []
        if src == "half":
            return self.halves(rng, progress, scale)
        for row in some(rng, self.rows[src], count):
            query, document = row.q_text, row.d_text
            if src == "wordnet" and rng.random() < 0.5:
                query, document = document, query
            examples.append(Example(Side(query), Side(document), key=row.d_text))
        return Batch(src, examples)

    def emoji(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Emoji by name or keywords, half of the time in English."""
        rows = self.emoji_english if rng.random() < 0.5 else self.emoji_all
        side = rng.choice((64, 96, 96, 128))
        examples = []
        for row in some(rng, rows, 128 * scale):
            text = row.d_text
            if row.src == "emoji-keywords":
                words = text.split(", ")
                text = rng.choice(words) if rng.random() < 0.5 else ", ".join(rng.sample(words, min(3, len(words))))
            picture = augment_drawing(rng, self.corpus.picture(row.q_image), side)
            examples.append(Example(Side(text), Side(image=picture), key=row.q_image))
        return Batch("emoji", examples)

    def scenes(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Scenes by description, each with one or two scenes in which one thing is different."""
        width, height = rng.choice(((96, 96), (128, 128), (128, 128), (160, 128), (192, 192)))
        each = 1 if width * height > 128 * 128 else rng.choice((1, 2))
        examples = []
        for _ in range(max(2, round(48 * scale))):
            scene = drawing.random_scene(rng)
            negatives = tuple(
                Side(image=drawing.draw_scene(rng, drawing.edit_scene(rng, scene)[0], width, height))
                for _ in range(each)
            )
            picture = drawing.draw_scene(rng, scene, width, height)
            examples.append(Example(Side(scene.caption(rng)), Side(image=picture), negatives, key=scene.caption()))
        return Batch("scene", examples)

    def charts(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Charts by title, kind and trend; now and then those of Vega."""
        if rng.random() < 0.15:
            examples = []
            for row in some(rng, self.rows["vega"], 48 * scale):
                image = self.corpus.picture(row.q_image).resize((160, 128), Image.Resampling.BICUBIC)
                examples.append(Example(Side(row.d_text), Side(image=np.asarray(image, np.uint8)), key=row.d_text))
            return Batch("vega", examples)
        width, height = rng.choice(((192, 160), (256, 160), (224, 192)))
        examples = []
        for _ in range(max(2, round(48 * scale))):
            chart = drawing.random_chart(rng)
            page = drawing.draw_chart(rng, chart, width, height)
            query = chart.caption(rng)
            # a query that names less than the chart shows answers for every chart that shows it
            examples.append(Example(Side(query), Side(image=page.pixels), key=f"{chart.measure} {chart.by}", page=page))
        return Batch("chart", examples)

    def clips(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Moving shapes by description, with the opposite motion as a negative."""
        side, frames = rng.choice(((96, 6), (96, 8), (128, 4), (128, 6)))
        examples = []
        for _ in range(max(2, round(24 * scale))):
            shape, color = rng.choice(drawing.SHAPES), rng.choice(list(drawing.COLORS))
            motion = rng.choice(list(drawing.MOTIONS))
            clip = drawing.draw_clip(rng, shape, color, motion, side, frames)
            other = drawing.draw_clip(rng, shape, color, drawing.MOTIONS[motion], side, frames)
            text = f"a {color} {shape} {motion}"
            if rng.random() < 0.2:
                text = rng.choice(("a video of ", "a clip of ")) + text
            examples.append(
                Example(Side(text), Side(frames=clip), (Side(frames=other),), key=f"{color}{shape}{motion}")
            )
        return Batch("clip", examples)

    def photographs(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Garments and groceries by class, at most two of a class."""
        side = rng.choice((96, 128, 128))
        names = some(rng, list(self.photos), 72 * scale)
        # garments have ten classes and as many pictures as the groceries' 84
        names += [name for name in self.photos if self.photos[name][0].src == "clothing"] * 2
        examples = []
        for name in names:
            row = rng.choice(self.photos[name])
            text, key = photo_name(rng, row)
            image = augment_photo(rng, self.corpus.picture(row.q_image)).resize((side, side), Image.Resampling.BICUBIC)
            key = text.removeprefix("a photo of ").lower() if row.src == "grocery" else key
            examples.append(Example(Side(text), Side(image=np.asarray(image, np.uint8)), key=key))
        return Batch("photo", examples)

    def icons(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """Line icons by name or tags."""
        side = rng.choice((64, 96, 128))
        examples = []
        for row in some(rng, self.rows["lucide"], 96 * scale):
            name, _, tags = row.d_text.partition(": ")
            words = [word for word in tags.split(", ") if word]
            text = name if rng.random() < 0.4 or not words else ", ".join(rng.sample(words, min(len(words), 3)))
            picture = augment_drawing(rng, self.corpus.picture(row.q_image), side)
            examples.append(Example(Side(text), Side(image=picture), key=row.q_image))
        return Batch("icon", examples)

    def edits(self, rng: random.Random, progress: float, scale: float) -> Batch:
        """A picture and words for a change; the picture unchanged is a negative."""
        examples = []
        if rng.random() < 0.25:
            for row in some(rng, self.rows["emoji-tone"], 32 * scale):
                one = augment_drawing(rng, self.corpus.picture(row.q_image), 96)
                two = augment_drawing(rng, self.corpus.picture(row.d_image), 96)
                examples.append(
                    Example(Side(row.q_text, image=one), Side(image=two), (Side(image=one),), key=row.d_image)
                )
            return Batch("tone", examples)
        for _ in range(max(2, round(32 * scale))):
            scene = drawing.random_scene(rng)
            changed, words = drawing.edit_scene(rng, scene)
            one = drawing.draw_scene(rng, scene, 96, 96)
            two = drawing.draw_scene(rng, changed, 96, 96)
            examples.append(Example(Side(words, image=one), Side(image=two), (Side(image=one),), key=changed.caption()))
        return Batch("edit", examples)


def keys_equal(keys: Sequence[str], extra: int) -> NDArray[np.bool_]:
    """(N, N + extra) true where two pairs of a batch say the same."""
    array = np.asarray(keys)
    same = array[:, None] == array[None, :]
    return np.concatenate([same, np.zeros((len(keys), extra), np.bool_)], 1)
