"""Bytes and words that nobody would send: mutated files through the real decoder child, mutated texts through the parsers.

A trial is one input. A decoder may refuse, die or hang: that costs the one file and the parent gets a reason. A parser
answers or refuses in its own words. Anything else is wrong, and its input is kept to become a named test.

    python -m tests.torture.fuzz --minutes 60 [--seed 0] [--keep .fuzz]
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from sightline.errors import MEDIA_CODES, ConfigError, MediaError, PromptError
from sightline.media.pool import DecodePool
from sightline.settings import Settings
from sightline.store.exact import ExactStore
from sightline.store.lance import LanceStore
from sightline.store.schema import Filter, Row, path_id
from sightline.types import KINDS, Item, Unit
from tests.torture.tally import Tally, table

LIMIT_S = 30.0
"""Seconds that one file may take, whatever it is."""
SETTINGS = Settings(decode_timeout_s=10.0, pdf_max_pages=3, video_max_frames=4, image_max_pixels=4_000_000)
"""Small limits, so that an hour holds many inputs."""

NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
WORDS = [
    *(
        "<|im_end|>",
        "<|image_pad|>",
        "<|vision_start|>",
        "<|endoftext|>",
        "<|im_<|im_end|>end|>",
        "<tool_call>",
        "\u202e",
    ),
    *(
        "kind=page",
        "path=",
        "after=",
        "before=",
        ">=",
        "!=",
        "'",
        '"',
        "\\",
        "--",
        ";",
        "1e999",
        "-0",
        "9" * 5000,
        "\0",
        "\ud800",
    ),
    *(
        "data:",
        "image/png",
        ";base64",
        ",",
        "=",
        "AAAA",
        "%00",
        "bytes=",
        "-",
        "0-0",
        "18446744073709551616",
        " or 1=1",
    ),
    *("true", "NaN", "2026-02-30", "2026-01-01T00:00:00+99:99", "９", "rating", "author", "\n", "\u0301", "🚲"),
]


# --- mutations -------------------------------------------------------------------------------------------------------


def mutated(data: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """A few small harms: bytes changed, cut out, doubled, moved, taken from another file, or the end gone."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        at, many = random.randrange(len(out) + 1), random.choice((1, 2, 4, 32, 512))
        match random.randrange(8):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1:
                out[at : at + many] = random.randbytes(many)
            case 2:
                del out[at : at + many]
            case 3:
                out[at:at] = out[at : at + many]
            case 4:
                size = random.choice((1, 2, 4))
                number = random.choice(NUMBERS) & ((1 << 8 * size) - 1)
                out[at : at + size] = number.to_bytes(size, random.choice(("big", "little")))
            case 5:
                other = random.choice(others)
                begin = random.randrange(len(other))
                out[at:at] = other[begin : begin + many]
            case 6 if random.random() < 0.2:
                del out[at:]
            case _:
                there = random.randrange(len(out) + 1)
                out[at : at + many], out[there : there + many] = out[there : there + many], out[at : at + many]
        if not out:
            break
    return bytes(out)


def words(random: Random) -> str:
    """Words of the parsers and of attackers, and pieces of them, in any order."""
    parts = []
    for _ in range(random.randrange(1, 9)):
        word = random.choice(WORDS)
        match random.randrange(6):
            case 0:
                word = word[: random.randrange(len(word) + 1)]
            case 1:
                word += chr(
                    random.choice((random.randrange(0x80), random.randrange(0x3000), random.randrange(0x110000)))
                )
            case 2:
                word = word * random.randrange(1, 5)
        parts.append(word)
    return random.choice(("", "", " ")).join(parts)


# --- files to begin with ---------------------------------------------------------------------------------------------


def pictures() -> list[bytes]:
    """One small picture of each format that is read without an extra."""
    from PIL import Image

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    made = []
    for kind, mode, options in (
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("GIF", "P", {"save_all": True, "append_images": [picture.convert("P")]}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "L", {}),
        ("BMP", "RGB", {}),
    ):
        file = io.BytesIO()
        picture.convert(mode).save(file, kind, **options)
        made.append(file.getvalue())
    return made


def documents() -> list[bytes]:
    """PDFs of pictures, and one written by hand with text."""
    from PIL import Image

    made = []
    for mode in ("RGB", "1"):
        file = io.BytesIO()
        Image.new(mode, (60, 40)).save(file, "PDF", save_all=True, append_images=[Image.new(mode, (30, 30))])
        made.append(file.getvalue())
    stream = b"BT /F1 24 Tf 40 100 Td (a red bicycle) Tj ET 10 10 m 90 90 l S"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body = b"%PDF-1.7\n" + b"".join(b"%d 0 obj%b endobj\n" % (n, o) for n, o in enumerate(objects, 1))
    return [*made, body + b"trailer<</Root 1 0 R/Size 6>>\n%%EOF"]


def videos() -> list[bytes]:
    """A second of noise in each container, and a session description."""
    import av

    rng = np.random.default_rng(0)
    made = []
    for container, codec in (("mp4", "mpeg4"), ("avi", "mjpeg"), ("matroska", "mpeg4")):
        file = io.BytesIO()
        with av.open(file, "w", format=container) as output:
            stream = output.add_stream(codec, rate=8)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for _ in range(8):
                frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), format="rgb24")
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
        made.append(file.getvalue())
    sdp = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 40000 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    return [*made, sdp]


# --- what is tried ---------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """What inputs are thrown at, made once.

    Attributes:
        folder: everything that is written lies in it.
        keep: where inputs that went wrong are kept; None keeps none.
    """

    folder: Path
    keep: Path | None = None
    pool: DecodePool = field(default_factory=lambda: DecodePool(SETTINGS))
    seeds: dict[str, list[bytes]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        from sightline import builtin
        from sightline.media.reader import Reader
        from sightline.prep.prepare import Budgets, Preparer
        from sightline.prep.tokens import Tokenizer

        self.seeds = {"picture": pictures(), "pdf": documents(), "video": videos()}
        tokenizer = Tokenizer(builtin.path("embedder") / "tokenizer.json")
        self.preparer = Preparer(tokenizer, Reader(SETTINGS), Budgets())
        self.pads = [tokenizer.control(name) for name in ("<|image_pad|>", "<|video_pad|>")]
        self.template = self._controls(self.preparer.embedding(Item(text="words")).ids)
        rows = [row(place) for place in range(12)]
        self.exact, self.lance = ExactStore(dim=8), LanceStore(self.folder / "index", dim=8)
        for store in (self.exact, self.lance):
            with store.writing():
                store.add(rows)

    def close(self) -> None:
        """End the children and the index."""
        self.pool.close()
        self.lance.close()

    def _controls(self, ids: Any) -> int:
        tokenizer = self.preparer.tokenizer
        control = [
            tokenizer.control(name) for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>")
        ]
        return int(np.isin(np.asarray(ids), control).sum())

    # each gives the input, and raises whatever is wrong with the answer

    def file(self, kind: str, random: Random) -> bytes:
        """A file through the child, as a path or as bytes."""
        own = self.seeds[kind]
        data = mutated(random.choice(own), [one for seeds in self.seeds.values() for one in seeds], random)
        started = time.monotonic()
        try:
            if kind == "picture":
                self._shown(self.pool.picture(data))
            elif kind == "video" and random.random() < 0.5:
                self._shown(self.pool.clip(data, 1.0, 4))
            else:
                self._units(data, {"pdf": ".pdf", "video": random.choice((".mp4", ".avi", ".mkv"))}[kind])
            self.outcomes["read"] += 1
        except MediaError as error:
            self.outcomes[error.code] += 1
            assert error.code in MEDIA_CODES, error.code
            if error.code in {"crash", "timeout", "memory"}:
                self.kept(data, f"{kind}-{error.code}")
        seconds = time.monotonic() - started
        # units have a time each; three pages or moments and the opening are at most five steps
        assert seconds < 5 * SETTINGS.decode_timeout_s + LIMIT_S, f"{seconds:.0f} s"
        return data

    def _units(self, data: bytes, suffix: str) -> None:
        path = self.folder / f"file{suffix}"
        path.write_bytes(data)
        try:
            for unit in self.pool.units(path):
                self._shown(unit)
            assert path.read_bytes() == data, "the original was changed"
        finally:
            path.unlink()

    @staticmethod
    def _shown(unit: Any) -> None:
        """Pixels are whole and within limits."""
        if not isinstance(unit, Unit):
            assert unit.code in MEDIA_CODES
            return
        pixels = unit.pixels if unit.pixels is not None else None if unit.frames is None else unit.frames.frames
        if pixels is not None:
            assert pixels.dtype == np.uint8 and pixels.shape[-1] == 3 and pixels.size > 0
            assert pixels.shape[-2] * pixels.shape[-3] <= SETTINGS.image_max_pixels

    def prompt(self, random: Random) -> str:
        """No text adds a control token or a place for a picture."""
        text = words(random)
        instruction = words(random) if random.random() < 0.3 else None
        with contextlib.suppress(PromptError):  # an instruction may be too long
            ids = self.preparer.embedding(Item(text=text, instruction=instruction)).ids
            whole = len(ids) < self.preparer.budgets.max_length  # over-long text loses the template's end
            assert self._controls(ids) == self.template or not whole, "a control token came from the text"
            assert self._controls(ids) <= self.template, "a control token came from the text"
            assert not np.isin(ids, self.pads).any(), "a pad came from the text"
        return text

    def filter(self, random: Random) -> str:
        """A filter is read or refused, and both stores find the same rows with it."""
        text = words(random)
        mapping = {
            random.choice(("kind", "path", "rating>=", "author", text[:20])): random.choice(
                (text, 4, 0.5, None, [text])
            )
        }
        for given in (text, mapping):
            try:
                where = Filter.of(given)
                found = self.exact.count(where)
            except ConfigError:
                continue
            self.outcomes["read"] += 1
            assert self.lance.count(where) == found, "the stores disagree"
        return text

    def data_url(self, random: Random) -> str:
        """A data: URL is read or refused, within its bytes."""
        from sightline.server.attachments import decoded, payload

        body = base64.b64encode(random.randbytes(random.randrange(40))).decode()
        text = random.choice((words(random), f"data:image/png;base64,{body}", f"data:{words(random)};base64,{body}"))
        if random.random() < 0.5:
            text = mutated(text.encode("utf-8", "surrogatepass"), [body.encode() or b"="], random).decode("latin-1")
        try:
            assert 0 < len(decoded(payload(text), 32)) <= 32
            self.outcomes["read"] += 1
        except MediaError as error:
            assert error.code in {"not_media", "too_large", "empty"}, error.code
        return text

    def byte_range(self, random: Random) -> str:
        """A range is served, passed over or refused, and lies in the file."""
        from sightline.server.faults import Fault
        from sightline.server.ranges import one_range

        number = lambda: str(random.choice((*NUMBERS, random.randrange(200), 10**17, 10**18, "")))  # noqa: E731
        text = random.choice(
            (words(random), f"bytes={number()}-{number()}", f"bytes={number()}-{number()},{number()}-")
        )
        size = random.choice((0, 1, 100, 2**40))
        try:
            found = one_range(text, size)
            assert found is None or 0 <= found[0] < found[1] <= size, found
            self.outcomes["read"] += 1
        except Fault as fault:
            assert fault.status == 416, fault.status
        return text

    def kept(self, data: bytes | str, name: str) -> None:
        """Keep an input for a named test."""
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
            (self.keep / f"{name}-{hashlib.sha256(raw).hexdigest()[:12]}").write_bytes(raw)


def row(place: int) -> Row:
    """A row with columns, and a name that wants quoting."""
    path = f"/home/o'brien/{place}/it's \"here\"; -- \\{place}"
    vector = np.random.default_rng(place).standard_normal(8).astype(np.float32)
    columns: dict[str, Any] = {"rating": place % 5, "author": f"o'{place}\\"} if place % 3 else {}
    kind = KINDS[place % len(KINDS)]
    return Row(
        id=f"{place}", path_id=path_id(path), path=path, kind=kind, vector=vector, modified_s=place, columns=columns
    )


TARGETS: dict[str, tuple[int, Callable[[Bench, Random], bytes | str]]] = {
    "pictures": (4, lambda bench, random: bench.file("picture", random)),
    "PDFs": (2, lambda bench, random: bench.file("pdf", random)),
    "videos": (2, lambda bench, random: bench.file("video", random)),
    "prompts": (8, Bench.prompt),
    "filters": (4, Bench.filter),
    "data: URLs": (16, Bench.data_url),
    "ranges": (16, Bench.byte_range),
}
"""Name -> inputs for each of ``number``, and what gives and tries one."""


def trials(number: int, seed: int, keep: Path | None = None) -> list[Tally]:
    """``number`` times the inputs of ``TARGETS``."""
    tallies = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), keep)
        try:
            for name, (times, attempt) in TARGETS.items():
                tallies.append(_target(bench, name, times * number, attempt, Random(f"{name} {seed}")))
        finally:
            bench.close()
        left = {path.name for path in Path(folder).iterdir()} - {"index"}
        if left:
            tallies[0] = replace(tallies[0], wrong=tallies[0].wrong + len(left), said=f"files were written: {left}")
    return tallies


def _target(bench: Bench, name: str, number: int, attempt: Callable[[Bench, Random], Any], random: Random) -> Tally:
    bench.outcomes.clear()
    started, wrong, said = time.monotonic(), 0, ""
    for _ in range(number):
        state = random.getstate()
        try:
            attempt(bench, random)
        except Exception as error:  # whatever it is, it is what we look for
            wrong += 1
            said = said or f"{type(error).__name__}: {error}"[:120]
            bench.kept(repr(state), f"{name.split(':', maxsplit=1)[0]}-{type(error).__name__}")
    deaths = {code: bench.outcomes[code] for code in ("crash", "timeout", "memory") if bench.outcomes[code]}
    said = said or f"{bench.outcomes['read']} read" + (f", decoders ended: {deaths}" if deaths else "")
    return Tally(f"fuzz: {name}", trials=number, wrong=wrong, seconds=time.monotonic() - started, said=said)


def rounds(minutes: float, seed: int) -> Iterator[int]:
    """Seeds until the time is over."""
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        yield seed
        seed += 1


def main() -> int:
    """Try for a time, print the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(".fuzz"), help="folder for inputs that went wrong")
    given = parser.parse_args()
    sums: dict[str, Tally] = {}
    for seed in rounds(given.minutes, given.seed):
        for tally in trials(50, seed, given.keep):
            sums[tally.test] = sums[tally.test] + tally if tally.test in sums else tally
        print(f"{sum(one.trials for one in sums.values()):,} inputs", file=sys.stderr, flush=True)
    print(table(list(sums.values())))
    return 0 if sums and all(tally.clean for tally in sums.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
