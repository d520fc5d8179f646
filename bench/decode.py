"""What decoding in a process of its own costs: the same files through ``DecodePool`` and in this process.

    python bench/decode.py [--repeats 5] [--apart] [--quick]

The files are made here: photographs of twelve and two megapixels, thumbnails, pages of text, scanned pages, a video.
Three ways read them in turns, and the median turn of each counts: in this process; by the pool as indexing does, which
tells a child of the next file before it reads this one; by the pool one file after the other, as a search does
("alone"). Hashing, which indexing does between two files, is no part of it. By the clock, the pool has two cores where
this process alone has one, but the caller does nothing with what it is given: all that overlaps is the way of the
pixels. The processor's time is that of both processes together, as the kernel counts it for each: what the pool would
cost on one core, and the figure to believe on a machine that is busy with other things. The child is up before the
clock starts; its start, which comes once in 500 files, is printed beside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sightline.media import pool as pool_module, units
from sightline.media.pool import DecodePool
from sightline.media.units import UnitError
from sightline.settings import Settings
from sightline.types import Unit

Read = Callable[[list[Path]], Iterable[Unit | UnitError]]


def photo(width: int, height: int, seed: int) -> Image.Image:
    """Smooth colours, edges and some grain: compresses like a photograph."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(coarse)
    for _ in range(60):
        x, y, size = (int(rng.integers(low, high)) for low, high in ((0, width), (0, height), (10, width // 6)))
        draw.ellipse((x, y, x + size, y + size), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
    grain = rng.normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))


def page(number: int) -> Image.Image:
    """A page as a scanner gives it: 150 dots an inch."""
    picture = Image.new("L", (1240, 1754), 250)
    draw = ImageDraw.Draw(picture)
    for line in range(60):
        draw.text((120, 100 + 26 * line), f"{number} {line} the words of a page that somebody scanned " * 2, fill=20)
    return picture


def text_pdf(path: Path, num_pages: int) -> None:
    """Pages of Helvetica, written by hand."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for number in range(num_pages):
        lines = b"".join(
            b"1 0 0 1 60 %d Tm (page %d, line %d: plain words of a paper on search) Tj "
            % (740 - 14 * line, number, line)
            for line in range(48)
        )
        body = b"BT /F1 11 Tf " + lines + b"ET"
        objects.append(b"<< /Length %d >>\nstream\n" % len(body) + body + b"\nendstream")
        kids.append(b"%d 0 R" % (len(objects) + 1))
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
    objects[1] = b"<< /Type /Pages /Kids [" + b" ".join(kids) + b"] /Count %d >>" % num_pages
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + text + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    path.write_bytes(out + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start))


def video(path: Path, seconds: int) -> None:
    """A picture that moves, 640 x 360."""
    ground: NDArray[Any] = np.asarray(photo(960, 360, 0))
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for number in range(seconds * 25):
            left = number * 2 % 320
            shown = np.ascontiguousarray(ground[:, left : left + 640])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        file.mux(stream.encode())


def make(folder: Path, quick: bool) -> Iterator[tuple[str, list[Path]]]:
    """(name, files) of each task."""
    sizes = [("photographs, 12 megapixels", 4032, 3024, 4), ("photographs, 2 megapixels", 1632, 1224, 12)]
    sizes.append(("thumbnails, 320 x 240", 320, 240, 100))
    for name, width, height, number in sizes:
        paths = [folder / f"{width}-{index}.jpg" for index in range(1 if quick else number)]
        for index, path in enumerate(paths):
            photo(width, height, index).save(path, quality=88)
        yield name, paths
    text_pdf(folder / "text.pdf", 2 if quick else 20)
    yield "PDF, pages of text", [folder / "text.pdf"]
    scans = [page(number) for number in range(2 if quick else 10)]
    scans[0].save(folder / "scan.pdf", save_all=True, append_images=scans[1:], resolution=150)
    yield "PDF, scanned pages", [folder / "scan.pdf"]
    video(folder / "clip.mp4", 2 if quick else 40)
    yield "video, 640 x 360", [folder / "clip.mp4"]


def read_all(read: Read, paths: list[Path]) -> int:
    """Units in some files."""
    return sum(1 for unit in read(paths) if isinstance(unit, Unit))


def in_line(pool: DecodePool, paths: list[Path]) -> Iterator[Unit | UnitError]:
    """File after file as ``sightline.search.reading`` reads them."""
    coming = pool.units(paths[0])
    for path in [*paths[1:], None]:
        now = coming
        if path is not None:
            coming = now.next_file(path)
        yield from now


def cpu_s() -> float:
    """Seconds of the processor that this process and its children have had.

    On Linux by their own clocks (linux/posix-timers.h: CPUCLOCK_SCHED of a process): what /proc says is counted in
    ticks of 10 ms, which miss a child that works for less at a time.
    """
    total = time.process_time()
    for child in psutil.Process().children():
        if sys.platform == "linux":
            total += time.clock_gettime((~child.pid << 3) | 2)
        else:
            times = child.cpu_times()
            total += times.user + times.system
    return total


def turn(read: Read, paths: list[Path], times: int) -> tuple[float, float]:
    """Units a second of the clock, and units a second of the processor."""
    start, start_cpu = time.perf_counter(), cpu_s()
    number = read_all(read, paths * times)
    return number / (time.perf_counter() - start), number / (cpu_s() - start_cpu)


def main() -> None:
    """Print one table, and one JSON line a task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each way; the median counts")
    parser.add_argument("--apart", action="store_true", help="each process stays on a core of its own (Linux)")
    parser.add_argument("--quick", action="store_true", help="a few files: shows that the script runs")
    parser.add_argument("--turn-s", type=float, default=1.0, help="processor seconds of one turn, about")
    given = parser.parse_args()
    settings = Settings()
    print(f"{'units a second':28} {'here':>9} {'pooled':>9} {'cost':>7} {'of cpu':>7} {'alone':>9} {'cost':>7}")

    def here(paths: list[Path]) -> Iterator[Unit | UnitError]:
        return chain.from_iterable(units.units(path, settings) for path in paths)

    def pooled(paths: list[Path]) -> Iterator[Unit | UnitError]:
        return in_line(pool, paths)

    def alone(paths: list[Path]) -> Iterator[Unit | UnitError]:
        return chain.from_iterable(map(pool.units, paths))

    rows: list[dict[str, Any]] = []
    pool_module.FILES_PER_CHILD = 10**9  # type: ignore[misc] # one child for all: its processor's clock goes with it
    with tempfile.TemporaryDirectory() as folder, DecodePool(settings) as pool:
        (Path(folder) / "first.txt").write_text("words")
        start = time.perf_counter()
        read_all(alone, [Path(folder) / "first.txt"])
        start_s = time.perf_counter() - start
        if given.apart:
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[:1])
            for child in psutil.Process().children():
                os.sched_setaffinity(child.pid, cores[1:2])
        for task, paths in make(Path(folder), given.quick):
            assert read_all(here, paths) == read_all(pooled, paths) == read_all(alone, paths) > 0
            started = time.process_time()
            read_all(here, paths)
            times = 1 if given.quick else max(1, math.ceil(given.turn_s / (time.process_time() - started)))
            turns = [[turn(way, paths, times) for way in (here, pooled, alone)] for _ in range(given.repeats)]
            inside, ahead, one = np.median(turns, axis=0)
            cost, cpu_cost = 1 - ahead / inside
            one_cost = 1 - one[0] / inside[0]
            rows.append({"engine": "pool", "task": task, "items_s": round(ahead[0], 2)})
            rows[-1] |= {"here_items_s": round(inside[0], 2), "cost": round(cost, 4), "cpu_cost": round(cpu_cost, 4)}
            rows[-1] |= {"alone_items_s": round(one[0], 2), "alone_cost": round(one_cost, 4)}
            print(
                f"{task:28} {inside[0]:9.2f} {ahead[0]:9.2f} {cost:7.1%} {cpu_cost:7.1%} {one[0]:9.2f} {one_cost:7.1%}",
                flush=True,
            )
    print(f"a child starts in {start_s:.2f} s")
    for row in rows:
        print(json.dumps(row | {"start_s": round(start_s, 3)}))


if __name__ == "__main__":
    main()
