"""What the project renders itself: pages of text, scenes of shapes, charts and moving shapes, each with its words."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]

FONT_FOLDERS: Final = (Path("/usr/share/fonts"), Path("/Library/Fonts"), Path("C:/Windows/Fonts"))
SKIP_FONTS: Final = ("Siz", "NonUni", "cmex", "cmsy", "cmmi", "Display", "LastResort", "Math", "ExtraLight")


@lru_cache(maxsize=1)
def font_files() -> tuple[str, ...]:
    """Readable Latin fonts: those that matplotlib carries, DejaVu and Liberation of the system."""
    import matplotlib

    own = sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    system = sorted(path for folder in FONT_FOLDERS for path in folder.rglob("*.ttf"))
    seen: dict[str, Path] = {}
    for path in [*own, *system]:
        wanted = path.name.startswith(("DejaVu", "STIX", "cm", "Liberation"))
        if wanted and not any(part in path.name for part in SKIP_FONTS):
            seen.setdefault(path.name, path)
    # the upright faces stand twice, because they are what people set text in
    upright = [p for n, p in seen.items() if not any(w in n for w in ("Bold", "Ital", "Obl", "cmb", "cmti", "Bol"))]
    return tuple(str(path) for path in [*seen.values(), *upright])


@lru_cache(maxsize=1)
def plain_files() -> tuple[str, ...]:
    """The faces that most documents and demos are set in: sans and serif, upright."""
    wanted = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "LiberationSans-Regular.ttf", "LiberationSerif-Regular.ttf")
    found = tuple(path for path in dict.fromkeys(font_files()) if Path(path).name in wanted)
    return found or font_files()


@lru_cache(maxsize=512)
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels."""
    return ImageFont.truetype(path, size)


@dataclass(frozen=True, slots=True)
class Word:
    """A drawn word and its box in pixels; ``whole`` when the words name what fills the box and stand not in it.

    ``edges`` are where its letters begin, and where the last one ends, from the left of the picture.
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float
    whole: bool = False
    edges: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A drawn page and every word on it."""

    pixels: Pixels
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """What stands on it, in the order in which it was drawn."""
        return " ".join(word.text for word in self.words)


SIZES: Final = (0.72, 1.5)
"""How large people's pictures are against what the model makes of them, least and most."""
AS_SEEN: Final = 0.3
"""Share of the pictures that come as large as they are seen."""


def of_any_size(rng: random.Random, draw: Callable[[int, int], Page], width: int, height: int) -> Page:
    """A picture of ``width`` x ``height`` pixels that was drawn in another size, most of the time.

    What is drawn in whole cells has every line at the same place within its cell, and its edges are sharp. A model that
    has only seen such pictures reads no others: charts were told apart .96 of the time, resized from .8 or 1.25 times
    their size .48 and .51.
    """
    if rng.random() < AS_SEEN:
        return draw(width, height)
    zoom = math.exp(rng.uniform(*map(math.log, SIZES)))
    across, down = (max(32, round(side * zoom * rng.uniform(0.95, 1.05))) for side in (width, height))
    return fitted(draw(across, down), width, height)


def fitted(page: Page, width: int, height: int) -> Page:
    """The page in another size, resized as the product does it, its words with it."""
    rows, columns = page.pixels.shape[:2]
    image = Image.fromarray(page.pixels).resize((width, height), Image.Resampling.BICUBIC)
    return Page(np.asarray(image, np.uint8), _moved(page.words, zoom=(width / columns, height / rows)))


def framed(page: Page, left: int, top: int, right: int, bottom: int) -> Page:
    """The page with so many white pixels around it."""
    pixels = np.pad(page.pixels, ((top, bottom), (left, right), (0, 0)), constant_values=255)
    return Page(pixels, _moved(page.words, by=(left, top)))


def _moved(
    words: Sequence[Word], zoom: tuple[float, float] = (1.0, 1.0), by: tuple[float, float] = (0.0, 0.0)
) -> tuple[Word, ...]:
    (x, y), (right, down) = zoom, by
    return tuple(
        replace(
            word,
            left=word.left * x + right,
            top=word.top * y + down,
            right=word.right * x + right,
            bottom=word.bottom * y + down,
            edges=tuple(edge * x + right for edge in word.edges),
        )
        for word in words
    )


def _ground(rng: random.Random) -> tuple[Color, Color]:
    """Background and ink: mostly black on white, sometimes tinted, sometimes dark."""
    kind = rng.random()
    if kind < 0.55:
        return (255, 255, 255), _gray(rng.randint(0, 60))
    if kind < 0.85:
        paper = tuple(rng.randint(215, 255) for _ in range(3))
        return paper, tuple(rng.randint(0, 100) for _ in range(3))  # type: ignore[return-value]
    paper = tuple(rng.randint(0, 60) for _ in range(3))
    return paper, tuple(rng.randint(190, 255) for _ in range(3))  # type: ignore[return-value]


def _gray(value: int) -> Color:
    return value, value, value


def draw_page(
    rng: random.Random,
    texts: Sequence[str],
    width: int,
    height: int,
    *,
    size: tuple[int, int] = (11, 22),
    heading: str = "",
    center: bool = False,
    plain: bool = False,
    ruled: bool = False,
) -> Page:
    """Sets texts as paragraphs, as many lines as fit.

    Args:
        rng: decides font, colours, margins.
        texts: paragraphs, top to bottom.
        width, height: of the page in pixels.
        size: least and largest height of the font in pixels; it is made smaller when the first text does not fit.
        heading: larger line above.
        center: lines in the middle, as on a sign.
        plain: black on white in a common face, as most pages are.
        ruled: in the most common face, every line in the middle of its own 32 pixels, as a child learns to read.
    """
    paper, ink = ((255, 255, 255), _gray(rng.randint(0, 30))) if plain else _ground(rng)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    path = plain_files()[0] if ruled else rng.choice(plain_files() if plain else font_files())
    pixels = rng.randint(*size)
    margin = rng.randint(2, max(3, width // 16))
    words: list[Word] = []
    for attempt in range(4):  # smaller until the first text fits
        face = font(path, pixels)
        lines = _wrap(texts[0] if texts else "", face, width - 2 * margin)
        step = round(pixels * 1.25)
        if len(lines) * step <= height - 4 or pixels <= 10 or attempt == 3:
            break
        pixels = max(10, round(pixels * 0.8))
    y = float(rng.randint(1, max(2, min(height // 12, 12))))
    if heading:
        large = font(path, round(pixels * 1.4))
        for line in _wrap(heading, large, width - 2 * margin)[:2]:
            words += _line(draw, line, margin, y, large, ink)
            y += round(pixels * 1.4 * 1.3)
        y += pixels // 3
    leading = round(pixels * rng.uniform(1.15, 1.5))
    if ruled:
        y, leading = (32 - 1.2 * pixels) / 2, 32
    paragraphs = [_wrap(text, face, width - 2 * margin) for text in texts]
    if center:
        total = sum(len(p) for p in paragraphs) * leading
        y = max(y, rng.uniform(0, 1) * (height - total))
    for lines in paragraphs:
        for line in lines:
            if y + pixels > height:
                break
            left = margin + ((width - 2 * margin - face.getlength(line)) * rng.choice((0, 0.5)) if center else 0)
            words += _line(draw, line, left, y, face, ink)
            y += leading
        y += 0 if ruled else leading * 0.4
    array = np.asarray(image, np.uint8) if plain else _worn(rng, image, blurred=0.2, noisy=0.15)
    return Page(array, tuple(words))


@lru_cache(maxsize=1)
def even_files() -> tuple[str, ...]:
    """The upright faces whose letters are all of one width, as tills and tables set them."""
    named = [path for path in dict.fromkeys(font_files()) if "Mono" in path or Path(path).name == "cmtt10.ttf"]
    upright = tuple(path for path in named if not any(slant in path for slant in ("Ital", "Obl")))
    return upright or font_files()


MONOSPACED: Final = 0.4
"""Share of the sheets in letters of one width."""


def draw_sheet(
    rng: random.Random,
    heading: str,
    rows: Sequence[Sequence[str]],
    width: int,
    height: int,
    *,
    size: tuple[int, int] = (11, 22),
) -> Page:
    """Sets a receipt, a menu, a timetable, a form or minutes: a heading, then rows in columns, as many as fit.

    Args:
        rng: decides font, colours, margins.
        heading: larger line above, often with a rule below.
        rows: cells of each row, left to right; a row of one cell is a sentence, and takes the lines that it needs.
        width, height: of the page in pixels.
        size: least and largest height of the font in pixels.
    """
    paper, ink = ((255, 255, 255), _gray(rng.randint(0, 40))) if rng.random() < 0.6 else _ground(rng)
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    even = rng.random() < MONOSPACED
    pixels = rng.randint(*size)
    face = font(rng.choice(even_files() if even else plain_files() if rng.random() < 0.7 else font_files()), pixels)
    margin = rng.randint(4, max(5, width // 10))
    inside = width - 2 * margin
    large = font(rng.choice(font_files()), round(pixels * rng.uniform(1.2, 1.7)))
    y = float(rng.randint(2, max(3, height // 10)))
    words: list[Word] = []
    for line in _wrap(heading, large, inside)[:2]:
        words += _line(draw, line, margin, y, large, ink)
        y += large.size * 1.3
    if heading and rng.random() < 0.4:
        draw.line((margin, y + 2, width - margin, y + 2), fill=ink, width=rng.randint(1, 2))
        y += 4
    y += pixels * rng.uniform(0.3, 1.2)
    leading = pixels * rng.uniform(1.2, 1.8)
    num_columns = max((len(row) for row in rows), default=1)
    # the last column ends at the right margin, or begins where a tab would stand; those between share what is left
    first = inside * rng.uniform(0.4, 0.62)
    to_the_right = rng.random() < 0.5
    indent = pixels * rng.choice((0, 0, 1.2))
    for row in rows:
        lines = _wrap(row[0], face, inside - indent if len(row) == 1 else first)
        for number, line in enumerate(lines):
            if y + pixels > height:
                return Page(_worn(rng, image), tuple(words))
            words += _line(draw, line, margin + indent * (number > 0 or len(row) > 1), y, face, ink)
            for column, cell in enumerate(row[1:] if number == 0 else (), start=1):
                left = margin + first + (inside - first) * (column - 1) / max(1, num_columns - 1)
                if to_the_right and column == len(row) - 1:
                    left = width - margin - face.getlength(cell)
                words += _line(draw, cell, left, y, face, ink)
            y += leading
    return Page(_worn(rng, image), tuple(words))


def _worn(rng: random.Random, image: Image.Image, *, blurred: float = 0.15, noisy: float = 0.1) -> Pixels:
    """Sometimes a little unsharp, sometimes with noise, as a camera or a scanner gives it."""
    if rng.random() < blurred:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
    array = np.asarray(image, np.uint8)
    if rng.random() < noisy:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.uniform(2, 8), array.shape)
        array = np.clip(array + noise, 0, 255).astype(np.uint8)
    return array


def _wrap(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines: list[str] = []
    line: list[str] = []
    used, space = 0.0, face.getlength(" ")
    for word in text.split():
        length = face.getlength(word)
        if line and used + space + length > width:
            lines.append(" ".join(line))
            line, used = [], -space
        line.append(word)
        used += space + length
    if line:
        lines.append(" ".join(line))
    return lines


def _line(
    draw: ImageDraw.ImageDraw, line: str, left: float, top: float, face: ImageFont.FreeTypeFont, ink: Color
) -> list[Word]:
    draw.text((left, top), line, font=face, fill=ink)
    words, x = [], left
    space = face.getlength(" ")
    height = face.size
    for word in line.split(" "):
        length = face.getlength(word)
        edges = tuple(x + face.getlength(word[:index]) for index in range(len(word) + 1))
        words.append(Word(word, x, top + height * 0.1, x + length, top + height * 1.1, edges=edges))
        x += length + space
    return words


# --- scenes -----------------------------------------------------------------------------------------------------

COLORS: Final[dict[str, Color]] = {
    "red": (220, 30, 35),
    "blue": (30, 70, 220),
    "green": (30, 150, 50),
    "yellow": (245, 215, 30),
    "orange": (245, 140, 20),
    "purple": (130, 40, 160),
    "pink": (245, 130, 180),
    "brown": (120, 70, 30),
    "black": (15, 15, 15),
    "gray": (130, 130, 130),
}
SHAPES: Final = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart", "hexagon", "arrow")
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six")
PLACES: Final[dict[str, tuple[float, float]]] = {
    "in the top left corner": (0.2, 0.2),
    "in the top right corner": (0.8, 0.2),
    "in the bottom left corner": (0.2, 0.8),
    "in the bottom right corner": (0.8, 0.8),
    "in the middle": (0.5, 0.5),
    "at the top": (0.5, 0.18),
    "at the bottom": (0.5, 0.82),
    "on the left": (0.18, 0.5),
    "on the right": (0.82, 0.5),
}


def draw_shape(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float, color: Color) -> None:
    """One filled shape around (x, y) with radius r."""

    def polygon(points: Sequence[tuple[float, float]]) -> None:
        draw.polygon([(x + px * r, y + py * r) for px, py in points], fill=color)

    def turned(count: int, start: float, radii: Sequence[float] = (1.0,)) -> list[tuple[float, float]]:
        angles = [start + 2 * math.pi * i / count for i in range(count)]
        return [
            (math.cos(a) * radii[i % len(radii)], math.sin(a) * radii[i % len(radii)]) for i, a in enumerate(angles)
        ]

    match shape:
        case "circle":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        case "ring":
            draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=max(2, round(r * 0.35)))
        case "square":
            draw.rectangle((x - r * 0.85, y - r * 0.85, x + r * 0.85, y + r * 0.85), fill=color)
        case "triangle":
            polygon([(0, -1), (0.95, 0.8), (-0.95, 0.8)])
        case "star":
            polygon(turned(10, -math.pi / 2, (1.05, 0.45)))
        case "diamond":
            polygon([(0, -1), (0.75, 0), (0, 1), (-0.75, 0)])
        case "hexagon":
            polygon(turned(6, 0))
        case "cross":
            polygon([(-.3, -1), (.3, -1), (.3, -.3), (1, -.3), (1, .3), (.3, .3), (.3, 1), (-.3, 1), (-.3, .3),
                     (-1, .3), (-1, -.3), (-.3, -.3)])  # fmt: skip
        case "heart":
            draw.ellipse((x - r, y - r * 0.9, x + r * 0.08, y + r * 0.2), fill=color)
            draw.ellipse((x - r * 0.08, y - r * 0.9, x + r, y + r * 0.2), fill=color)
            polygon([(-0.93, -0.05), (0.93, -0.05), (0, 1)])
        case "arrow":
            polygon([(-1, -0.25), (0.2, -0.25), (0.2, -0.7), (1, 0), (0.2, 0.7), (0.2, 0.25), (-1, 0.25)])
        case _:
            raise AssertionError(shape)


@dataclass(frozen=True, slots=True)
class Group:
    """Equal shapes of a scene: how many, of which colour, how large, where."""

    shape: str
    color: str
    count: int = 1
    size: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture of shapes; ``relation`` orders its two groups."""

    groups: tuple[Group, ...]
    relation: str = ""

    def caption(self, rng: random.Random | None = None) -> str:
        """A full description in English."""
        parts = [_group_words(group) for group in self.groups]
        text = f"{parts[0]} {self.relation} {parts[1]}" if self.relation else " and ".join(parts)
        if rng is not None and rng.random() < 0.3:
            text = rng.choice(("a picture of ", "there is ", "an image with ", "a drawing of ")) + text
        return text

    def turned(self) -> Scene:
        """The same, described from its other side: "a below b" as "b above a"."""
        return replace(self, groups=self.groups[::-1], relation=RELATIONS[self.relation])


def _group_words(group: Group) -> str:
    size = group.size + " " if group.size else ""
    place = " " + group.place if group.place else ""
    if group.count == 1:
        article = "an" if (size or group.color)[0] in "aeiou" else "a"
        return f"{article} {size}{group.color} {group.shape}{place}"
    plural = group.shape + ("es" if group.shape.endswith("s") else "s")
    return f"{NUMBERS[group.count]} {size}{group.color} {plural}{place}"


RELATIONS: Final[dict[str, str]] = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}


def random_scene(rng: random.Random) -> Scene:
    """A scene of one of six kinds: one shape, counted, placed, two groups, one thing and not another, a relation."""
    kind = rng.random()
    colors = rng.sample(list(COLORS), 2)
    shapes = rng.sample(SHAPES, 2)
    size = rng.choice(("", "", "", "small", "large"))
    if kind < 0.15:
        return Scene((Group(shapes[0], colors[0], size=size),))
    if kind < 0.40:
        return Scene((Group(shapes[0], colors[0], count=rng.randint(2, 6)),))
    if kind < 0.60:
        return Scene((Group(shapes[0], colors[0], size=size, place=rng.choice(list(PLACES))),))
    if kind < 0.74:
        return Scene(tuple(Group(s, c, count=rng.randint(1, 3)) for s, c in zip(shapes, colors, strict=True)))
    if kind < 0.80:
        return Scene((Group(shapes[0], colors[0], count=rng.randint(1, 3)), Group(shapes[1], colors[1], count=0)))
    pair = tuple(Group(s, c) for s, c in zip(shapes, colors, strict=True))
    return Scene(pair, rng.choice(list(RELATIONS)))


def edit_scene(rng: random.Random, scene: Scene) -> tuple[Scene, str]:
    """The scene with one thing changed, so that its caption becomes false, and the change in words."""
    index = rng.randrange(len(scene.groups))
    group = scene.groups[index]
    changes: list[Callable[[], tuple[Group, str]]] = []

    def color() -> tuple[Group, str]:
        taken = {other.color for other in scene.groups}
        new = rng.choice([c for c in COLORS if c not in taken])
        return replace(group, color=new), f"the same, but the {group.shape} is {new}"

    def shape() -> tuple[Group, str]:
        taken = {other.shape for other in scene.groups}
        new = rng.choice([s for s in SHAPES if s not in taken])
        return replace(group, shape=new), f"the same, but a {new} instead of the {group.shape}"

    def count() -> tuple[Group, str]:
        new = rng.choice([n for n in range(1, 7) if n != group.count])
        return replace(group, count=new), f"the same, but with {NUMBERS[new]} {group.shape}" + ("s" if new > 1 else "")

    def place() -> tuple[Group, str]:
        new = rng.choice([p for p in PLACES if p != group.place])
        return replace(group, place=new), f"the same, but {new}"

    def size() -> tuple[Group, str]:
        new = "small" if group.size == "large" else "large"
        return replace(group, size=new), f"the same, but {new}"

    if not group.count:  # nothing of it is drawn, so only its coming shows
        change, words = count()
        return replace(scene, groups=(*scene.groups[:index], change, *scene.groups[index + 1 :])), words
    changes += [color, color, shape]
    if len(scene.groups) == 1 and not group.place and not group.size:
        changes += [count, count] if group.count > 1 else [count]
    if len(scene.groups) == 2 and not scene.relation:
        changes.append(count)
    if group.place:
        changes += [place, place]
    if group.size:
        changes.append(size)
    if scene.relation and rng.random() < 0.45:
        opposite = RELATIONS[scene.relation]
        return replace(scene, relation=opposite), f"the same, but the {scene.groups[0].shape} is {opposite} the other"
    changed, words = rng.choice(changes)()
    groups = (*scene.groups[:index], changed, *scene.groups[index + 1 :])
    return replace(scene, groups=groups), words


def near_scenes(rng: random.Random, scene: Scene, count: int) -> list[Scene]:
    """Scenes one change away, two where there are not enough of those; no two have one description."""
    found: dict[str, Scene] = {}
    for attempt in range(100 * count):
        changed = edit_scene(rng, scene)[0]
        if attempt >= 20 * count:
            changed = edit_scene(rng, changed)[0]
        if changed.caption() != scene.caption():
            found.setdefault(changed.caption(), changed)
        if len(found) == count:
            return list(found.values())
    raise ValueError(f"{len(found)} scenes are near {scene.caption()!r}, {count} are needed")


SIDES: Final = {
    "to the left of": ("on the left", "on the right"),
    "to the right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
"""Where the two groups of a relation lie."""


def exchanged(rng: random.Random) -> list[tuple[Scene, Scene]]:
    """Two scenes of the same shapes, colours and numbers, and of each a description that is false of the other.

    They differ in what lies where, what has which colour, or how many there are of what. A third of the descriptions
    name one of the two groups alone: a network learns to bind a colour to its shape from these first, and from that
    what lies where.
    """
    shapes, colors = rng.sample(SHAPES, 2), rng.sample([*COLORS], 2)
    pair = tuple(Group(shape, color) for shape, color in zip(shapes, colors, strict=True))
    kind, one_alone = rng.random(), rng.random() < 1 / 3
    if kind < 0.5:
        relation = rng.choice([*RELATIONS])
        scenes = [Scene(pair, relation=one) for one in (relation, RELATIONS[relation])]
        if not one_alone:
            return [(scene, scene.turned() if rng.random() < 0.5 else scene) for scene in scenes]
        index = rng.randrange(2)
        return [(scene, Scene((replace(scene.groups[index], place=SIDES[scene.relation][index]),))) for scene in scenes]
    if kind < 0.85:
        crossed = tuple(Group(shape, color) for shape, color in zip(shapes, colors[::-1], strict=True))
        scenes = [Scene(pair), Scene(crossed)]
    else:
        counts = rng.sample(range(1, 5), 2)
        scenes = [
            Scene(tuple(replace(group, count=count) for group, count in zip(pair, numbers, strict=True)))
            for numbers in (counts, counts[::-1])
        ]
    return [(scene, Scene((rng.choice(scene.groups),)) if one_alone else scene) for scene in scenes]


def draw_scene(rng: random.Random, scene: Scene, width: int, height: int, *, paper: Color | None = None) -> Pixels:
    """The picture of a scene; places are jittered and shapes do not touch."""
    return scene_page(rng, scene, width, height, paper=paper).pixels


DARK: Final = ("black", "brown", "gray", "purple", "blue")
"""Colours that are not seen on a dark ground."""


def dark_paper(rng: random.Random, scene: Scene, share: float) -> Color | None:
    """A dark ground for ``share`` of the scenes whose shapes are seen on it."""
    if rng.random() >= share or any(group.color in DARK for group in scene.groups):
        return None
    return rng.randint(0, 50), rng.randint(0, 50), rng.randint(0, 70)


def scene_page(rng: random.Random, scene: Scene, width: int, height: int, *, paper: Color | None = None) -> Page:
    """The picture of a scene with every shape's name and box."""
    if paper is None:
        paper = (255, 255, 255) if rng.random() < 0.6 else tuple(rng.randint(225, 255) for _ in range(3))  # type: ignore[assignment]
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    unit = min(width, height)
    total = sum(group.count for group in scene.groups)
    normal = unit * (0.22 if total == 1 else 0.16 if total <= 3 else 0.115)
    spots: list[tuple[float, float, float]] = []
    words: list[Word] = []
    for index, group in enumerate(scene.groups):
        radius = normal * {"": rng.uniform(0.85, 1.15), "small": 0.45, "large": 1.6}[group.size]
        if group.place and group.size != "large":
            radius = min(radius, unit * 0.15)
        for _ in range(group.count):
            x, y = _spot(rng, scene, index, group, width, height, radius, spots)
            spots.append((x, y, radius))
            color = tuple(min(255, max(0, c + rng.randint(-14, 14))) for c in COLORS[group.color])
            draw_shape(draw, group.shape, x, y, radius, color)  # type: ignore[arg-type]
            name = f"{group.color} {group.shape}"
            words.append(Word(name, x - radius, y - radius, x + radius, y + radius, whole=True))
    return Page(np.asarray(image, np.uint8), tuple(words))


def _spot(
    rng: random.Random,
    scene: Scene,
    index: int,
    group: Group,
    width: int,
    height: int,
    radius: float,
    taken: Sequence[tuple[float, float, float]],
) -> tuple[float, float]:
    """A free place for one shape; the least crowded of 40 tries when none is free."""
    best, best_gap = (width / 2, height / 2), -math.inf
    for _ in range(40):
        if group.place:
            fx, fy = PLACES[group.place]
            x = width * (fx + rng.uniform(-0.05, 0.05))
            y = height * (fy + rng.uniform(-0.05, 0.05))
        elif scene.relation:
            first = index == 0
            low = scene.relation in ("to the left of", "above")
            along = rng.uniform(0.18, 0.32) if first == low else rng.uniform(0.68, 0.82)
            across = rng.uniform(0.35, 0.65)
            fx, fy = (along, across) if "left" in scene.relation or "right" in scene.relation else (across, along)
            x, y = width * fx, height * fy
        else:
            x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        x, y = min(max(x, radius), width - radius), min(max(y, radius), height - radius)
        gap = min((math.hypot(x - ox, y - oy) - radius - other for ox, oy, other in taken), default=math.inf)
        if gap > 2:
            return x, y
        if gap > best_gap:
            best, best_gap = (x, y), gap
    return best


# --- clips ------------------------------------------------------------------------------------------------------

MOTIONS: Final[dict[str, str]] = {
    "moving to the right": "moving to the left",
    "moving to the left": "moving to the right",
    "moving up": "moving down",
    "moving down": "moving up",
    "growing": "shrinking",
    "shrinking": "growing",
    "appearing": "disappearing",
    "disappearing": "appearing",
}

MOTION_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "moving to the right": ("moving right", "moves to the right", "moves from left to right", "goes to the right"),
    "moving to the left": ("moving left", "moves to the left", "moves from right to left", "goes to the left"),
    "moving up": ("moving upwards", "moves up", "goes up", "rises"),
    "moving down": ("moving downwards", "moves down", "goes down", "falls"),
    "growing": ("grows", "getting larger", "gets bigger"),
    "shrinking": ("shrinks", "getting smaller", "gets smaller"),
    "appearing": ("appears", "comes into sight"),
    "disappearing": ("disappears", "vanishes"),
}
"""Other words for a motion."""
MOVING_SHAPES: Final[dict[str, tuple[str, ...]]] = {"circle": ("ball", "dot", "disc"), "square": ("box",)}
"""Other words for a shape that moves."""


def clip_words(rng: random.Random, shape: str, color: str, motion: str) -> str:
    """A clip in words: half of the time the shape's own, and the motion's."""
    if rng.random() < 0.5:
        shape = rng.choice(MOVING_SHAPES.get(shape, (shape,)))
    if rng.random() < 0.5:
        motion = rng.choice(MOTION_WORDS[motion])
    return f"a {color} {shape} {motion}"


def draw_clip(rng: random.Random, shape: str, color: str, motion: str, side: int, frames: int) -> NDArray[np.uint8]:
    """Frames (F, side, side, 3) of one shape in motion."""
    paper = (255, 255, 255) if rng.random() < 0.6 else tuple(rng.randint(225, 255) for _ in range(3))
    x0, y0 = side * rng.uniform(0.4, 0.6), side * rng.uniform(0.4, 0.6)
    radius = side * rng.uniform(0.12, 0.18)
    out = []
    for index in range(frames):
        t = index / (frames - 1)
        x, y, r, shown = x0, y0, radius, True
        travel = side * (0.2 + 0.6 * t)
        match motion:
            case "moving to the right":
                x = travel
            case "moving to the left":
                x = side - travel
            case "moving down":
                y = travel
            case "moving up":
                y = side - travel
            case "growing":
                r = radius * (0.5 + 2.0 * t)
            case "shrinking":
                r = radius * (2.5 - 2.0 * t)
            case "appearing":
                shown = t >= 0.5
            case "disappearing":
                shown = t < 0.5
            case _:
                raise AssertionError(motion)
        image = Image.new("RGB", (side, side), paper)
        if shown:
            draw_shape(ImageDraw.Draw(image), shape, x, y, r, COLORS[color])
        out.append(np.asarray(image, np.uint8))
    return np.stack(out)


# --- charts -----------------------------------------------------------------------------------------------------

MEASURES: Final = (
    "sales", "rainfall", "temperature", "population", "revenue", "visitors", "exports", "prices", "profit", "traffic",
    "energy use", "unemployment", "crop yield", "downloads", "water level", "birth rate", "wages", "attendance",
    "emissions", "stock price", "production", "exam results", "response time", "memory use", "errors", "income",
    "expenses", "book loans", "ticket sales", "wind speed",
)  # fmt: skip
BY: Final[dict[str, tuple[str, ...]]] = {
    "month": ("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    "year": ("2018", "2019", "2020", "2021", "2022", "2023"),
    "country": ("France", "Japan", "Brazil", "Kenya", "India", "Canada"),
    "city": ("Paris", "Tokyo", "Lima", "Cairo", "Delhi", "Oslo"),
    "region": ("North", "South", "East", "West", "Center"),
    "product": ("Tea", "Coffee", "Milk", "Juice", "Water"),
    "age group": ("0-9", "10-19", "20-39", "40-59", "60+"),
    "day": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat"),
    "department": ("IT", "HR", "Sales", "Legal", "Design"),
}
CHART_KINDS: Final = ("bar", "line", "pie", "scatter")


@dataclass(frozen=True, slots=True)
class Chart:
    """What a chart shows."""

    kind: str
    measure: str
    by: str
    trend: str

    def title(self) -> str:
        """The words drawn above it."""
        return f"{self.measure.capitalize()} by {self.by}"

    def caption(self, rng: random.Random) -> str:
        """A query for it."""
        forms = [f"{self.kind} chart of {self.measure} by {self.by}", self.title(), f"{self.measure} {self.by} chart"]
        if self.trend:
            forms.append(f"{self.kind} chart of {self.trend} {self.measure}")
        return rng.choice(forms)


def random_chart(rng: random.Random) -> Chart:
    """A chart of any kind."""
    kind = rng.choice(CHART_KINDS)
    trend = rng.choice(("rising", "falling", "")) if kind in ("bar", "line") else ""
    return Chart(kind, rng.choice(MEASURES), rng.choice(list(BY)), trend)


FRAME: Final = 14
"""Most pixels of white around a chart."""


def framed_chart(rng: random.Random, chart: Chart, width: int, height: int, *, letters: float = 1 / 11) -> Page:
    """The chart somewhere on its picture, as charts come."""
    left, right, top, bottom = (rng.randint(0, FRAME) if rng.random() < 0.6 else 0 for _ in range(4))
    page = draw_chart(rng, chart, width - left - right, height - top - bottom, letters=letters)
    return framed(page, left, top, right, bottom)


def draw_chart(rng: random.Random, chart: Chart, width: int, height: int, *, letters: float = 1 / 11) -> Page:
    """The chart with its title and labels; ``letters`` is the title's share of the height."""
    path = rng.choice(font_files())
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    ink = _gray(rng.randint(0, 70))
    pixels = max(11, round(height * letters))
    face = font(path, pixels)
    while face.getlength(chart.title()) > width - 8 and pixels > 10:
        pixels -= 1
        face = font(path, pixels)
    words = _line(draw, chart.title(), max(4.0, (width - face.getlength(chart.title())) / 2), 2, face, ink)
    labels = BY[chart.by]
    count = rng.randint(4, len(labels))
    values = [rng.uniform(0.2, 1.0) for _ in range(count)]
    if chart.trend:
        values = [0.25 + 0.7 * (i + rng.uniform(-0.3, 0.3)) / count for i in range(count)]
        if chart.trend == "falling":
            values.reverse()
    top, bottom, left, right = pixels + 10, height - 14, 12, width - 6
    names = rng.sample(list(COLORS)[:8], 6)
    small = font(path, 10)
    if chart.kind == "pie":
        side = bottom - top + 8
        start, total = rng.uniform(0, 360), sum(values)
        box = ((width - side) / 2, top, (width + side) / 2, top + side)
        for index, value in enumerate(values):
            sweep = 360 * value / total
            draw.pieslice(box, start, start + sweep, fill=COLORS[names[index % 6]], outline="white")
            start += sweep
        return Page(np.asarray(image, np.uint8), tuple(words))
    draw.line((left, top, left, bottom, right, bottom), fill=ink)
    step = (right - left) / count
    color = COLORS[names[0]]
    points = [(left + step * (i + 0.5), bottom - v * (bottom - top)) for i, v in enumerate(values)]
    if chart.kind == "bar":
        for x, y in points:
            draw.rectangle((x - step * 0.35, y, x + step * 0.35, bottom - 1), fill=color)
    elif chart.kind == "line":
        draw.line(points, fill=color, width=rng.choice((2, 3)))
    else:
        for _ in range(rng.randint(15, 35)):
            x, y = rng.uniform(left + 4, right - 4), rng.uniform(top + 4, bottom - 4)
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color)
    if chart.kind != "scatter":
        for (x, _), label in zip(points, labels, strict=False):
            draw.text((x - small.getlength(label) / 2, bottom + 1), label, font=small, fill=ink)
    return Page(np.asarray(image, np.uint8), tuple(words))
