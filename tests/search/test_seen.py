"""What was read lately is not decoded again, as long as its file stays what it was."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.errors import MediaError
from sightline.library import Library
from sightline.media.pool import DecodePool
from sightline.search.seen import Seen, num_bytes
from sightline.types import Unit, VideoFrames
from tests.cli.toys import Judge, Seeing


class Counting:
    """Gives a picture of a kilobyte, and counts."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def unit(self, path, kind, *, page=None, start_s=None, end_s=None):
        self.read.append(Path(path).name)
        if not Path(path).exists():
            raise MediaError("not_found")
        return Unit(kind=kind, title=path, pixels=np.zeros((16, 64, 3), np.uint8)[:, :, :1].repeat(3, 2)[:, :22])


def files(folder, count):
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        path.write_bytes(b"a picture")
    return list(map(str, paths))


def test_reads_once_until_the_file_changes(tmp_path):
    (path,) = files(tmp_path, 1)
    reader = Counting()
    seen = Seen(reader)
    first = seen.unit(path, "image")
    assert seen.unit(path, "image") is first and reader.read == ["0.png"]
    seen.unit(path, "page", page=2)
    assert len(reader.read) == 2, "another unit of the same file"
    os.utime(path, ns=(1, 1))
    assert seen.unit(path, "image") is not first
    with Path(path).open("ab") as file:
        file.write(b"!")
    os.utime(path, ns=(1, 1))
    seen.unit(path, "image")
    assert len(reader.read) == 4


def test_memory_is_a_limit_and_the_longest_unused_goes_first(tmp_path):
    paths = files(tmp_path, 4)
    reader = Counting()
    size = num_bytes(reader.unit(paths[0], "image"))
    reader.read.clear()
    seen = Seen(reader, max_bytes=2 * size)
    for path in (*paths[:2], paths[0], paths[2]):  # 1 is the longest unused when 2 comes
        seen.unit(path, "image")
    assert reader.read == ["0.png", "1.png", "2.png"]
    seen.unit(paths[0], "image")
    assert len(reader.read) == 3
    seen.unit(paths[1], "image")
    assert reader.read[3:] == ["1.png"]
    small = Seen(reader, max_bytes=size - 1)
    assert small.unit(paths[3], "image") is not small.unit(paths[3], "image"), "too large to be kept"
    seen.clear()
    seen.unit(paths[0], "image")
    assert reader.read[-1] == "0.png" and len(reader.read) == 7


def test_frames_count_and_errors_are_not_kept(tmp_path):
    frames = VideoFrames(frames=np.zeros((2, 8, 8, 3), np.uint8), indices=(0, 1), fps=1.0)
    assert num_bytes(Unit(kind="moment", title="", frames=frames)) == 2 * 8 * 8 * 3
    reader = Counting()
    seen = Seen(reader)
    path = str(tmp_path / "a.png")
    for _ in range(2):
        with pytest.raises(MediaError):
            seen.unit(path, "image")
    files(tmp_path, 1)
    (tmp_path / "0.png").rename(path)
    assert seen.unit(path, "image").pixels is not None and len(reader.read) == 3


def test_a_second_search_decodes_nothing(tmp_path, monkeypatch):
    for number, colour in enumerate(((220, 30, 30), (30, 170, 60), (40, 60, 220))):
        Image.new("RGB", (80, 60), colour).save(tmp_path / f"{number}.png")
    asked = []
    plain = DecodePool.unit

    def counted(*given, **place):
        asked.append(given[1])
        return plain(*given, **place)

    monkeypatch.setattr(DecodePool, "unit", counted)
    with Library.open(tmp_path / "index", embedder=Seeing(), reranker=Judge()) as library:
        library.add([tmp_path])
        first = library.search("red")
        assert len(asked) == 3
        again = library.search("red")
        assert len(asked) == 3
        assert [(hit.path, hit.score) for hit in again] == [(hit.path, hit.score) for hit in first]
        Image.new("RGB", (80, 60), (250, 0, 0)).save(tmp_path / "1.png")
        library.search("red")
        assert len(asked) == 4
