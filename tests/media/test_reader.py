"""What a caller hands in: single videos told from lists, frame lists sampled as the official code does it."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.media.reader import Reader
from sightline.protocols import MediaReader
from sightline.settings import Settings
from sightline.types import VideoFrames

RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)


def png(picture=RED):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def reader():
    return Reader()


def test_it_is_a_media_reader(reader):
    checked: MediaReader = reader
    assert (checked.image(png()) == RED).all()
    assert checked.resize(RED, 2, 3).shape == (2, 3, 3)


def test_a_list_of_pictures_is_one_video(reader, tmp_path):
    odd = tmp_path / "frame"
    odd.write_bytes(png())
    lists: list[Any] = [
        [RED, RED],
        [Image.fromarray(RED)] * 3,
        ["a.jpg", "b.PNG", "c.svg"],
        [odd, odd],
        [png(), png()],
        ["https://x.example/a.jpg?size=1", "data:image/png;base64,AA=="],
        (RED, "a.webp", png()),
    ]
    for frames in lists:
        assert [list(one) for one in reader.videos(frames)] == [list(frames)] or len(reader.videos(frames)) == 1
    assert len(reader.videos(np.stack([RED, RED]))) == 1


def test_a_list_of_videos_is_several(reader, make_video):
    path = make_video(num=4)
    frames = VideoFrames(frames=np.stack([RED]), indices=(0,), fps=1.0)
    assert reader.videos(None) == reader.videos([]) == ()
    assert reader.videos("a.mp4") == ("a.mp4",)
    assert reader.videos(frames) == (frames,)
    assert reader.videos(["a.mp4", path, path.read_bytes(), frames]) == ("a.mp4", path, path.read_bytes(), frames)
    assert [len(one) for one in reader.videos([[RED, RED], (RED,)])] == [2, 1]
    assert len(reader.videos([[RED], "a.mp4"])) == 2


@pytest.mark.parametrize("mixed", [["a.jpg", "a.mp4"], [RED, [RED]], RED, Image.fromarray(RED)])
def test_what_cannot_be_told_apart_is_refused(reader, mixed, code):
    assert code(reader.videos, mixed) == "not_media"


def test_frame_lists_are_cut_off_not_rounded(reader):
    frames = [np.full((2, 2, 3), number, np.uint8) for number in range(100)]
    found = reader.video(frames, fps=1.0, max_frames=64)
    assert [int(frame[0, 0, 0]) for frame in found] == np.linspace(0, 99, 64, dtype=int).tolist()
    assert len(reader.video(frames[:64], fps=1.0, max_frames=64)) == 64


def test_frames_of_any_kind(reader, tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    found = reader.video([RED, png(), Image.fromarray(RED), tmp_path / "a.png"], fps=1.0, max_frames=64)
    assert all((frame == RED).all() for frame in found)


def test_a_bad_frame_is_an_error(reader, code):
    assert code(reader.video, [RED, png()[:40]], fps=1.0, max_frames=64) == "corrupt"
    assert code(reader.video, [], fps=1.0, max_frames=64) == "no_frames"
    assert code(reader.video, 5, fps=1.0, max_frames=64) == "not_media"


def test_video_files_by_path_and_bytes(reader, make_video, number_of):
    path = make_video(num=60, rate=10)
    for source in (path, str(path), path.read_bytes()):
        found = reader.video(source, fps=1.0, max_frames=64)
        assert found.indices == (0, 12, 24, 35, 47, 59) and found.fps == 10
        assert [number_of(frame) for frame in found.frames] == list(found.indices)
    assert reader.video(found, fps=9.0, max_frames=2) is found
    assert len(reader.video(path, fps=30.0, max_frames=9).frames) == 8


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_are_videos(reader, format):
    pictures = [Image.new("RGB", (8, 8), (number * 20, 0, 0)) for number in range(10)]
    file = io.BytesIO()
    options = {"lossless": True} if format == "WEBP" else {}
    pictures[0].save(file, format, save_all=True, append_images=pictures[1:], duration=500, **options)
    found = reader.video(file.getvalue(), fps=1.0, max_frames=64)
    assert found.indices == (0, 3, 6, 9) and found.fps == 2.0
    assert np.abs(found.frames[:, 0, 0, 0].astype(int) - [0, 60, 120, 180]).max() <= 4


def test_what_is_no_video(reader, code, tmp_path):
    (tmp_path / "a.mp4").write_text("words")
    (tmp_path / "a.txt").write_text("words")
    assert code(reader.video, png(), fps=1.0, max_frames=4) == "no_video"
    assert code(reader.video, tmp_path / "a.mp4", fps=1.0, max_frames=4) == "not_media"
    assert code(reader.video, tmp_path / "a.txt", fps=1.0, max_frames=4) == "no_video"
    assert code(reader.video, b"%PDF-1.4", fps=1.0, max_frames=4) == "not_media"
    assert code(reader.video, "http://x.example/a.mp4", fps=1.0, max_frames=4) == "url_off"


def test_settings_hold(code):
    small = Reader(Settings(image_max_pixels=10))
    assert code(small.image, png()) == "too_large"
    assert code(small.image, Image.fromarray(RED)) == "too_large"
