"""Makes the demo's files: photographs, scenes, charts, scans, a PDF, videos, texts.

Names tell nothing (``IMG_0101.png``), as cameras and scanners name files: what is found is found by what is in it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from sightline.cli.demo.texts import MANUAL, PAGES, TEXT_LABELS, TEXTS
from sightline.errors import MissingExtraError, SightlineError

Colour = tuple[int, int, int]

RED: Final = (214, 40, 40)
BLUE: Final = (29, 78, 216)
GREEN: Final = (22, 140, 60)
YELLOW: Final = (245, 190, 20)
PURPLE: Final = (126, 34, 180)
BLACK: Final = (20, 20, 24)
PAPER: Final = (250, 250, 247)


@dataclass(frozen=True, slots=True)
class Made:
    """One file of the demo.

    Attributes:
        name: path below the folder of files, with forward slashes.
        label: what it shows, for people; the index never sees it.
    """

    name: str
    label: str


# From the scikit-image wheel (its README and LICENSE name the sources; all may be used freely).
PHOTOS: Final[dict[str, tuple[str, str]]] = {
    "photos/IMG_0101.png": ("astronaut.png", "an astronaut in an orange suit, smiling, flag behind her"),
    "photos/IMG_0102.png": ("coffee.png", "a cup of espresso on a wooden table"),
    "photos/IMG_0103.png": ("chelsea.png", "the face of a ginger tabby cat"),
    "photos/IMG_0104.jpg": ("rocket.jpg", "a rocket on the launch pad between lightning towers"),
    "photos/IMG_0105.png": ("camera.png", "a man with a camera on a tripod, black and white"),
    "photos/IMG_0106.png": ("coins.png", "rows of ancient coins on a dark ground"),
    "photos/IMG_0107.png": ("moon.png", "craters on the surface of the moon"),
    "photos/IMG_0108.png": ("horse.png", "the black silhouette of a horse"),
    "photos/IMG_0109.jpg": ("hubble_deep_field.jpg", "galaxies in deep space"),
    "photos/IMG_0110.png": ("motorcycle_left.png", "a motorcycle in a garage"),
    "photos/IMG_0111.png": ("brick.png", "a brick wall"),
    "photos/IMG_0112.png": ("grass.png", "grass, seen from above"),
    "photos/IMG_0113.png": ("gravel.png", "gravel, seen from above"),
    "photos/IMG_0114.png": ("clock_motion.png", "a blurred wall clock"),
    "photos/IMG_0115.jpg": ("retina.jpg", "the retina of an eye with its blood vessels"),
    "photos/IMG_0116.png": ("page.png", "a photographed page of a book"),
    "photos/IMG_0117.gif": ("no_time_for_that_tiny.gif", "an animated picture of two people"),
}

Shape = tuple[str, Colour, float, float, float]
"""What, colour, centre (share of width, of height), radius (share of width)."""

SCENES: Final[dict[str, tuple[str, Colour, tuple[Shape, ...]]]] = {
    "scenes/scene_01.png": (
        "three red circles",
        PAPER,
        (("circle", RED, 0.25, 0.3, 0.13), ("circle", RED, 0.7, 0.28, 0.13), ("circle", RED, 0.5, 0.7, 0.13)),
    ),
    "scenes/scene_02.png": (
        "three blue circles",
        PAPER,
        (("circle", BLUE, 0.25, 0.3, 0.13), ("circle", BLUE, 0.7, 0.28, 0.13), ("circle", BLUE, 0.5, 0.7, 0.13)),
    ),
    "scenes/scene_03.png": ("one green triangle", PAPER, (("triangle", GREEN, 0.5, 0.52, 0.3),)),
    "scenes/scene_04.png": (
        "two yellow stars on a dark ground",
        (24, 30, 60),
        (("star", YELLOW, 0.3, 0.35, 0.2), ("star", YELLOW, 0.7, 0.65, 0.2)),
    ),
    "scenes/scene_05.png": (
        "a blue square to the left of a red circle",
        PAPER,
        (("square", BLUE, 0.25, 0.5, 0.17), ("circle", RED, 0.74, 0.5, 0.17)),
    ),
    "scenes/scene_06.png": (
        "a blue square to the right of a red circle",
        PAPER,
        (("circle", RED, 0.25, 0.5, 0.17), ("square", BLUE, 0.74, 0.5, 0.17)),
    ),
    "scenes/scene_07.png": (
        "six purple squares in two rows",
        PAPER,
        tuple(("square", PURPLE, x, y, 0.1) for y in (0.33, 0.67) for x in (0.2, 0.5, 0.8)),
    ),
    "scenes/scene_08.png": (
        "a green circle above a black square",
        PAPER,
        (("circle", GREEN, 0.5, 0.27, 0.17), ("square", BLACK, 0.5, 0.72, 0.17)),
    ),
}

CHARTS: Final[dict[str, str]] = {
    "charts/chart_1.png": "a bar chart: umbrellas sold per month",
    "charts/chart_2.png": "a line chart: temperature in Oslo through the year",
    "charts/chart_3.png": "a pie chart: household budget",
    "charts/chart_4.png": "a scatter plot: height and weight of penguins",
}

FILM_NAME: Final = "videos/film.mp4"
FILM_PARTS: Final = (
    "a red ball moves from left to right",
    "a blue square falls",
    "a title card: The lighthouse of Skagen",
    "a green triangle grows",
    "two yellow stars turn",
)
SLIDES_NAME: Final = "videos/slides.mp4"
SLIDES: Final = ("coffee.png", "rocket.jpg", "chelsea.png")
SLIDE_PARTS: Final = ("a cup of espresso", "a rocket on the launch pad", "the face of a ginger tabby cat")
PARTS: Final = {FILM_NAME: FILM_PARTS, SLIDES_NAME: SLIDE_PARTS}
"""What each video shows, a sentence for every ``FILM_PART_S`` seconds."""
FILM_PART_S: Final = 8
FILM_FPS: Final = 10
FILM_SIZE: Final = (320, 240)

BROKEN: Final[dict[str, str]] = {
    "broken/empty.jpg": "a file of no bytes",
    "broken/torn.png": "the first half of a photograph",
    "broken/program.pdf": "not a PDF at all",
}


STAMP: Final = "made.json"
"""Beside the folder of files: what was made, by which recipe."""


def make(folder: Path, queries: Path) -> list[Made]:
    """Writes every file below ``folder``, and the pictures that ask below ``queries``.

    What an earlier run made by the same recipe, and nobody changed, is left as it is, so that a second run of the demo
    finds nothing new: the encoder of the films is not the same to the bit every time on a busy machine.

    Raises:
        MissingExtraError: scikit-image or matplotlib is not installed.
        SightlineError: the folder cannot be written.
    """
    try:
        import matplotlib  # noqa: F401
        import skimage  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "matplotlib", "demo") from None
    stamp = folder.parent / STAMP
    there = _already_made(stamp)
    if there is not None:
        return there
    made, hashes = [], {}
    for name, label, data in _all_files():
        _write(folder / name, data)
        made.append(Made(name, label))
        hashes[f"{folder.name}/{name}"] = _hash(data)
    for name, data in _query_files():
        _write(queries / name, data)
        hashes[f"{queries.name}/{name}"] = _hash(data)
    told = {"recipe": _recipe(), "labels": {one.name: one.label for one in made}, "hashes": hashes}
    _write(stamp, json.dumps(told, ensure_ascii=False, indent=1).encode())
    return made


def _already_made(stamp: Path) -> list[Made] | None:
    """What an earlier run made, if all of it is still there; None to make it again."""
    try:
        told = json.loads(stamp.read_bytes())
        if told["recipe"] != _recipe():
            return None
        if any(_hash((stamp.parent / name).read_bytes()) != known for name, known in told["hashes"].items()):
            return None
        return [Made(name, label) for name, label in told["labels"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _recipe() -> str:
    """Changes when what is made changes: this file, the texts, and the packages that draw."""
    here = Path(__file__).parent
    packages = (importlib.metadata.version(name) for name in ("pillow", "matplotlib", "scikit-image", "av"))
    return _hash(
        b"".join((here / name).read_bytes() for name in ("files.py", "texts.py")) + " ".join(packages).encode()
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (path.is_file() and path.read_bytes() == data):
            path.write_bytes(data)
    except OSError as error:
        raise SightlineError(f"{path} cannot be written: {error.strerror}") from None


def _all_files() -> Iterator[tuple[str, str, bytes]]:
    for name, (source, label) in PHOTOS.items():
        data = photo_bytes(source)
        if data:
            yield name, label, data
    for name, (label, ground, shapes) in SCENES.items():
        yield name, label, _png(draw_scene(ground, shapes))
    for (name, label), draw in zip(CHARTS.items(), (_bars, _lines, _pie, _scatter), strict=True):
        yield name, label, _chart(draw)
    for name, (heading, lines) in PAGES.items():
        yield name, f"a page: {heading}", _png(_page(heading, lines))
    yield "papers/manual.pdf", f"a manual of {len(MANUAL)} pages", _manual()
    yield FILM_NAME, "a film of five parts", _video(_film_frames())
    yield SLIDES_NAME, "a slide show of photographs", _video(_slide_frames())
    for name, text in TEXTS.items():
        yield name, TEXT_LABELS[name], text.encode()
    torn = photo_bytes("astronaut.png")
    yield "broken/empty.jpg", BROKEN["broken/empty.jpg"], b""
    yield "broken/torn.png", BROKEN["broken/torn.png"], torn[: len(torn) // 40]
    yield "broken/program.pdf", BROKEN["broken/program.pdf"], bytes(range(256)) * 8


def _query_files() -> Iterator[tuple[str, bytes]]:
    """Pictures that ask; none of them is in the index."""
    cat = _open_photo("chelsea.png")
    face = cat.crop((90, 20, 350, 260)).resize((390, 360), Image.Resampling.LANCZOS)
    yield "cat_cropped.png", _png(ImageEnhance.Brightness(face).enhance(1.15))
    rider = _open_photo("motorcycle_right.png").resize((370, 250), Image.Resampling.LANCZOS)
    yield "motorcycle_other_side.png", _png(rider)
    stars = (("star", YELLOW, 0.65, 0.3, 0.2), ("star", YELLOW, 0.3, 0.7, 0.17))
    yield "stars_elsewhere.png", _png(draw_scene((24, 30, 60), stars))
    circles = (("circle", RED, 0.3, 0.7, 0.13), ("circle", RED, 0.72, 0.72, 0.13), ("circle", RED, 0.5, 0.3, 0.13))
    yield "three_red_circles.png", _png(draw_scene(PAPER, circles))
    yield "falling_square.mp4", _video(frame for frame in _part_frames(1, seconds=4))


# --- photographs -----------------------------------------------------------------------------------------------------


def photo_bytes(source: str) -> bytes:
    """A photograph of the scikit-image wheel as it lies there, or b"" where a release left it out. No download."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / source
    return path.read_bytes() if path.is_file() else b""


def _open_photo(source: str) -> Image.Image:
    data = photo_bytes(source)
    if not data:
        return Image.new("RGB", (451, 300), (128, 128, 128))
    return Image.open(io.BytesIO(data)).convert("RGB")


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.convert("RGB").save(out, "PNG", optimize=False, compress_level=6)
    return out.getvalue()


# --- scenes ----------------------------------------------------------------------------------------------------------


def _corners(shape: Shape, width: int, height: int, turn: float = 0.0) -> list[tuple[float, float]]:
    what, _, x, y, r = shape
    cx, cy, radius = x * width, y * height, r * width
    if what == "square":
        return [(cx + radius * dx, cy + radius * dy) for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    points = 3 if what == "triangle" else 10
    corners = []
    for n in range(points):
        angle = turn - math.pi / 2 + 2 * math.pi * n / points
        reach = radius * (0.42 if what == "star" and n % 2 else 1.0)
        corners.append((cx + reach * math.cos(angle), cy + reach * math.sin(angle)))
    return corners


def draw_scene(
    ground: Colour, shapes: tuple[Shape, ...], size: tuple[int, int] = (448, 448), turn: float = 0.0
) -> Image.Image:
    """Shapes on a plain ground, drawn large and scaled down, so that edges are soft."""
    width, height = size[0] * 3, size[1] * 3
    picture = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(picture)
    for shape in shapes:
        what, colour, x, y, r = shape
        if what == "circle":
            cx, cy, radius = x * width, y * height, r * width
            draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), fill=colour)
        else:
            draw.polygon(_corners(shape, width, height, turn), fill=colour)
    return picture.reduce(3)


# --- scans -----------------------------------------------------------------------------------------------------------


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", size)


def _page(heading: str, lines: tuple[str, ...]) -> Image.Image:
    picture = Image.new("RGB", (720, 900), (252, 251, 247))
    draw = ImageDraw.Draw(picture)
    draw.text((60, 60), heading, font=_font("DejaVuSerif-Bold", 38), fill=BLACK)
    draw.line((60, 122, 660, 122), fill=(120, 120, 120), width=2)
    font = _font("DejaVuSansMono", 24)
    for number, line in enumerate(lines):
        draw.text((60, 160 + 44 * number), line, font=font, fill=(40, 40, 46))
    return picture


# --- charts and the PDF ----------------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _style() -> dict[str, Any]:
    """What a matplotlibrc of the user must not change."""
    return {"font.family": "DejaVu Sans", "font.size": 12, "axes.spines.top": False, "axes.spines.right": False}


def _chart(draw: Callable[[Any], None]) -> bytes:
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_style()}):
        figure = _figure(6.4, 4.8)
        axes = figure.add_subplot()
        draw(axes)
        figure.tight_layout()
        out = io.BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _bars(axes: Any) -> None:
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun")
    axes.bar(months, (31, 28, 44, 62, 25, 12), color="#2563eb")
    axes.set_title("Umbrellas sold per month")
    axes.set_ylabel("umbrellas")


def _lines(axes: Any) -> None:
    axes.plot(range(1, 13), (-4, -3, 1, 6, 12, 16, 18, 17, 12, 7, 1, -3), color="#dc2626", linewidth=3, marker="o")
    axes.set_title("Temperature in Oslo")
    axes.set_xlabel("month")
    axes.set_ylabel("degrees Celsius")


def _pie(axes: Any) -> None:
    parts = {"rent": 38, "food": 22, "transport": 12, "savings": 18, "books": 10}
    axes.pie(list(parts.values()), labels=list(parts), colors=["#2563eb", "#f59e0b", "#16a34a", "#9333ea", "#dc2626"])
    axes.set_title("Household budget")


def _scatter(axes: Any) -> None:
    rng = np.random.default_rng(7)
    height = rng.normal(70, 8, 80)
    axes.scatter(height, height * 0.35 - 12 + rng.normal(0, 1.4, 80), color="#0f766e", s=26)
    axes.set_title("Penguins")
    axes.set_xlabel("height in cm")
    axes.set_ylabel("weight in kg")


def _manual() -> bytes:
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    out = io.BytesIO()
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_style(), "pdf.fonttype": 42}):
        about = {"Title": "Aurora espresso machine: manual", "CreationDate": None, "Producer": None, "Creator": None}
        with PdfPages(out, metadata=about) as book:
            for number, (heading, text) in enumerate(MANUAL, start=1):
                figure = _figure(5.8, 8.2)
                figure.text(0.1, 0.9, heading, fontsize=22, fontweight="bold", va="top")
                figure.text(0.1, 0.82, textwrap.fill(text, 46), fontsize=13, va="top", linespacing=1.5)
                if number == 1:
                    _machine(figure)
                figure.text(0.5, 0.04, f"{number}", fontsize=10, ha="center")
                book.savefig(figure)
    return out.getvalue()


def _machine(figure: Any) -> None:
    """A drawing of the machine for the cover."""
    from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

    axes = figure.add_axes((0.2, 0.12, 0.6, 0.4))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 9.4)
    axes.set_axis_off()
    axes.add_patch(FancyBboxPatch((1.2, 0.5), 7.6, 7.8, boxstyle="round,pad=0.1,rounding_size=0.6", color="#334155"))
    axes.add_patch(Rectangle((2, 1.2), 6, 3.4, color="#e2e8f0"))
    axes.add_patch(Rectangle((4.4, 4.1), 1.2, 0.9, color="#0f172a"))
    axes.add_patch(Rectangle((4.2, 1.4), 1.6, 1.3, color="#f8fafc", ec="#0f172a"))
    for x, colour in ((2.6, "#22c55e"), (4.0, "#f59e0b"), (5.4, "#e2e8f0")):
        axes.add_patch(Circle((x, 6.6), 0.42, color=colour))


# --- videos ----------------------------------------------------------------------------------------------------------


def _film_frames() -> Iterator[Image.Image]:
    for part in range(len(FILM_PARTS)):
        yield from _part_frames(part)


def _part_frames(part: int, seconds: int = FILM_PART_S) -> Iterator[Image.Image]:
    """One part of the film, a frame each tenth of a second."""
    last = seconds * FILM_FPS - 1
    for number in range(seconds * FILM_FPS):
        yield _part_frame(part, number / last)


def _part_frame(part: int, t: float) -> Image.Image:
    if part == 0:
        return draw_scene(PAPER, (("circle", RED, 0.12 + 0.76 * t, 0.5, 0.1),), FILM_SIZE)
    if part == 1:
        return draw_scene(PAPER, (("square", BLUE, 0.5, 0.14 + 0.72 * t, 0.1),), FILM_SIZE)
    if part == 2:
        picture = Image.new("RGB", FILM_SIZE, (16, 24, 48))
        draw = ImageDraw.Draw(picture)
        draw.text((160, 95), "The lighthouse", font=_font("DejaVuSerif-Bold", 30), fill=(255, 245, 220), anchor="mm")
        draw.text((160, 145), "of Skagen", font=_font("DejaVuSerif", 26), fill=(255, 245, 220), anchor="mm")
        return picture
    if part == 3:
        return draw_scene(PAPER, (("triangle", GREEN, 0.5, 0.55, 0.06 + 0.24 * t),), FILM_SIZE)
    stars = (("star", YELLOW, 0.3, 0.5, 0.16), ("star", YELLOW, 0.7, 0.5, 0.16))
    return draw_scene((24, 30, 60), stars, FILM_SIZE, turn=2 * math.pi * t)


def _slide_frames() -> Iterator[Image.Image]:
    """Three photographs for eight seconds each, the camera moving slowly in."""
    for source in SLIDES:
        photo = _open_photo(source)
        scale = max(FILM_SIZE[0] / photo.width, FILM_SIZE[1] / photo.height) * 1.15
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
        for number in range(FILM_PART_S * FILM_FPS):
            margin = 0.06 * number / (FILM_PART_S * FILM_FPS)
            x = (photo.width - FILM_SIZE[0]) / 2 * (1 - margin)
            y = (photo.height - FILM_SIZE[1]) / 2 * (1 - margin)
            yield photo.resize(FILM_SIZE, Image.Resampling.BILINEAR, (x, y, x + FILM_SIZE[0], y + FILM_SIZE[1]))


def _video(frames: Iterator[Image.Image]) -> bytes:
    """An MP4: H.264 where FFmpeg has an encoder for it, else MPEG-4. One thread."""
    import av

    out = io.BytesIO()
    h264 = "libx264" in av.codecs_available
    # a constant quality on one thread: rate control towards a number of bits differs more from run to run
    quality = {"crf": "24", "x264-params": "threads=1:lookahead-threads=1:sync-lookahead=0"} if h264 else {}
    with av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264" if h264 else "mpeg4", rate=FILM_FPS, options=quality)
        stream.width, stream.height = FILM_SIZE
        stream.pix_fmt = "yuv420p"
        if not h264:
            stream.bit_rate = 800_000
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = FILM_FPS * 2
        for picture in frames:
            pixels: NDArray[np.uint8] = np.asarray(picture.convert("RGB"))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()
