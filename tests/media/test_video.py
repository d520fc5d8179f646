"""Videos: the official sampling, moments, and what broken files do."""

import itertools
import socket
import struct
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sightline.errors import MediaError
from sightline.media import units, video
from sightline.settings import Settings
from sightline.types import Unit

read: Any = units.units
moments: Any = video.moments
read_again: Any = units.unit


@pytest.mark.parametrize(
    ("total", "video_fps", "num"),
    [(300, 30, 10), (900, 30, 30), (9000, 30, 64), (45, 30, 4), (3, 30, 2), (7, 25, 4), (2, 1, 2)],
)
def test_how_many_frames_the_official_code_takes(total, video_fps, num):
    found = video.sample_indices(total, video_fps, 1, 64)
    assert len(found) == num and found[0] == 0 and found[-1] == total - 1


def test_which_frames_the_official_code_takes():
    assert video.sample_indices(300, 30, 1, 64) == (0, 33, 66, 100, 133, 166, 199, 233, 266, 299)
    assert video.sample_indices(7, 25, 1, 64) == (0, 2, 4, 6)
    # torch.linspace works in float32 from both ends: another rounding than float64 from one end
    assert video.sample_indices(199_460, 30.0, 30.0, 768)[:3] == (0, 260, 520)


@pytest.mark.parametrize("total", [0, 1])
def test_fewer_than_two_frames(total, code):
    assert code(video.sample_indices, total, 30, 1, 64) == "no_frames"


@given(st.integers(2, 10**6), st.floats(0.1, 240), st.floats(0.1, 60), st.integers(2, 768))
def test_sampling_is_even_and_rising(total, video_fps, fps, most):
    found = video.sample_indices(total, video_fps, fps, most)
    assert len(found) % 2 == 0 and 2 <= len(found) <= min(max(most, 2), total)
    assert list(found) == sorted(found) and found[0] == 0 and found[-1] == total - 1


@given(st.floats(0, 1e5), st.floats(0.5, 600), st.floats(0.05, 1))
def test_windows_cover_everything(duration, moment, share):
    step = max(moment * share, 0.25)
    if duration / step > 10_000:
        return
    found = video.windows(duration, moment, min(step, moment))
    assert found[0][0] == 0 and found[-1][1] == duration
    assert all(later[0] <= earlier[1] + 1e-9 for earlier, later in itertools.pairwise(found))
    assert all(end - start <= moment * (1 + 1e-9) for start, end in found)


# -- files

FILES = [
    ("a.mp4", "libx264", None),
    ("a.mov", "mpeg4", None),
    ("a.mkv", "ffv1", None),
    ("a.webm", "libvpx-vp9", None),
    ("a.avi", "mjpeg", "yuvj420p"),
    ("a.ts", "mpeg2video", None),
    ("a.flv", "flv", None),
]


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), FILES)
def test_every_container(name, codec, pix_fmt, make_video, number_of, settings):
    rate = 25
    path = make_video(name, num=60, rate=rate, codec=codec, pix_fmt=pix_fmt)
    info = video.probe(path, settings)
    assert (info.num_frames, info.width, info.height, info.rotation) == (60, 64, 48, 0)
    assert abs(info.fps - rate) < 0.1 and abs(info.duration_s - 60 / rate) < 0.05
    wanted = [0, 1, 9, 10, 31, 59]
    found = video.decode(path, wanted, settings)
    assert found.indices == tuple(wanted) and found.fps == pytest.approx(rate, abs=0.1)
    if codec in {"libx264", "ffv1"}:
        assert [number_of(frame) for frame in found.frames] == wanted
    # every moment read alone is the moment read in order
    cut = settings.replace(moment_s=1.0, moment_step_s=0.5, video_fps=4.0)
    several = list(read(path, cut))
    assert [(unit.start_s, unit.end_s) for unit in several] == video.windows(info.duration_s, 1.0, 0.5)
    for unit in several:
        alone = read_again(path, "moment", None, unit.start_s, unit.end_s, cut)
        assert alone.title == unit.title and alone.frames.indices == unit.frames.indices
        assert (alone.frames.frames == unit.frames.frames).all()


def test_long_sparse_reading_jumps(make_video, number_of, settings, monkeypatch):
    path = make_video("a.mp4", num=250, gop=10)
    decoded: Any = []
    real = video._Frames._keep
    monkeypatch.setattr(video._Frames, "_keep", lambda self, frame: decoded.append(1) or real(self, frame))
    found = video.decode(path, [0, 125, 249], settings)
    assert [number_of(frame) for frame in found.frames] == [0, 125, 249]
    assert len(decoded) < 40


def test_moments(make_video, number_of):
    path = make_video(num=100, rate=10)
    settings = Settings(moment_s=4.0, moment_step_s=2.0, video_fps=1.0)
    found = list(moments(path, settings))
    assert [(start, end) for start, end, _ in found] == [(0, 4), (2, 6), (4, 8), (6, 10)]
    for start, _, frames in found:
        assert frames.indices == (0, 13, 26, 39) and frames.fps == 10
        assert [number_of(frame) for frame in frames.frames] == [round(start * 10) + i for i in frames.indices]


def test_overlapping_moments_decode_each_frame_once(make_video, monkeypatch):
    path = make_video(num=100, rate=10)
    stamps: Any = []
    real = video._Frames.get
    monkeypatch.setattr(video._Frames, "get", lambda self, pts: stamps.append(pts) or real(self, pts))
    list(moments(path, Settings(moment_s=4.0, moment_step_s=1.0, video_fps=5.0)))
    assert stamps == sorted(set(stamps))


def test_a_video_shorter_than_a_moment(make_video, settings):
    ((start, end, frames),) = moments(make_video(num=7, rate=10), settings)
    assert (start, end) == (0, pytest.approx(0.7)) and len(frames.frames) == 4


@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_one_frame_is_given_twice(codec, make_video, settings):
    path = make_video("a.mkv", num=1, codec=codec)
    for frames in (video.sample(path, 1, 64, settings), next(iter(moments(path, settings)))[2]):
        assert frames.indices == (0, 0) and (frames.frames[0] == frames.frames[1]).all()


def test_no_frames(make_video, settings, code):
    for name in ("a.mp4", "a.mkv"):
        path = make_video(name, num=0)
        assert code(video.sample, path, 1, 64, settings) in {"no_frames", "corrupt", "no_video"}
        assert code(units.units, path, settings) in {"no_frames", "corrupt", "no_video"}


def test_sound_alone(tmp_path, settings, code):
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    assert code(units.units, path, settings) == "no_video"


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation(degrees, make_video, settings):
    path = make_video(num=4, size=(64, 48))
    data = path.read_bytes()
    place = data.index(
        b"\x00\x01\x00\x00" + bytes(12) + b"\x00\x01\x00\x00" + bytes(12) + b"@\x00\x00\x00", data.index(b"tkhd")
    )
    one, minus = 0x10000, -0x10000
    a, b, c, d = {0: (one, 0, 0, one), 90: (0, one, minus, 0), 180: (minus, 0, 0, minus), 270: (0, minus, one, 0)}[
        degrees
    ]
    path.write_bytes(data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000) + data[place + 36 :])
    # the matrix of a telephone held upright turns the picture clockwise
    assert video.probe(path, settings).rotation == (360 - degrees) % 360
    shape = video.sample(path, 1, 4, settings).frames.shape[1:3]
    assert shape == ((48, 64) if degrees % 180 == 0 else (64, 48))


def test_rotation_turns_the_right_way(tmp_path, settings):
    import av

    path = tmp_path / "a.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255  # upper left
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for _ in range(4):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    data = path.read_bytes()
    place = data.index(
        b"\x00\x01\x00\x00" + bytes(12) + b"\x00\x01\x00\x00" + bytes(12) + b"@\x00\x00\x00", data.index(b"tkhd")
    )
    clockwise = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000)
    path.write_bytes(data[:place] + clockwise + data[place + 36 :])
    frame = video.sample(path, 1, 4, settings).frames[0]
    assert frame.shape == (64, 48, 3)
    assert frame[10, 40].mean() > 200 and frame[10, 10].mean() < 50 and frame[50, 40].mean() < 50


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (33, 17), (8192, 2)])
def test_odd_sizes(size, make_video, settings):
    path = make_video("a.mkv", num=4, size=size, codec="ffv1")
    assert video.sample(path, 1, 4, settings).frames.shape == (4, size[1], size[0], 3)
    assert next(iter(moments(path, settings)))[2].frames.shape == (4, size[1], size[0], 3)


def test_too_wide(make_video, settings, code):
    path = make_video("a.mkv", num=2, size=(8194, 2), codec="ffv1")
    assert code(video.sample, path, 1, 4, settings) == "too_large"
    assert code(units.units, path, settings) == "too_large"


def test_frames_of_moments_are_bounded(make_video, settings):
    path = make_video("a.mkv", num=4, size=(1920, 1080), codec="ffv1")
    height, width = next(iter(moments(path, settings)))[2].frames.shape[1:3]
    assert height * width <= video.FRAME_PIXELS and abs(width / height - 16 / 9) < 0.01
    assert video.sample(path, 1, 4, settings).frames.shape == (4, 1080, 1920, 3)


def test_varying_frame_rate(make_video, number_of):
    # ten frames in the first second, then one a second
    times = [*range(10), *range(10, 110, 10)]
    path = make_video("a.mkv", num=20, rate=10, times=times, codec="ffv1")
    settings = Settings(moment_s=2.0, moment_step_s=2.0, video_fps=2.0)
    found = list(moments(path, settings))
    assert [number_of(frame) for frame in found[0][2].frames][-1] == 10
    assert [number_of(frame) for frame in found[2][2].frames] == [13, 14]
    assert found[2][2].fps == 1.0


def test_negative_time_stamps(make_video, number_of, settings):
    path = make_video("a.mkv", num=20, times=list(range(-5, 15)), codec="ffv1")
    found = video.sample(path, 1, 4, settings)
    assert len(found.frames) == 4 and number_of(found.frames[-1]) == 19


def test_a_far_time_stamp_is_bounded(make_video):
    path = make_video("a.mkv", num=10, times=[*range(9), 10**9], codec="ffv1")
    start = time.monotonic()
    found = list(moments(path, Settings()))
    assert time.monotonic() - start < 3
    assert len(found) == 2 and found[-1][2].code == "too_large"


def test_a_header_that_lies_about_its_length(make_video, settings):
    path = make_video(num=50, rate=10)
    data = bytearray(path.read_bytes())
    place = data.index(b"mvhd") + 16
    for claimed in (0, 2**31):
        struct.pack_into(">I", data, place + 4, claimed)
        path.write_bytes(data)
        assert video.probe(path, settings).duration_s == pytest.approx(5.0, abs=0.2)


def test_truncated(make_video, settings, code):
    path = make_video(num=100, rate=10)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # the index is at the end
    assert code(units.units, path, settings) == "corrupt"


def test_what_is_there_of_a_truncated_file_is_read_and_the_loss_is_told(make_video, settings):
    path = make_video("a.mkv", num=200, rate=10, size=(256, 256), codec="ffv1")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found = list(read(path, settings))
    assert 1 <= len(found) <= 4 and found[0].frames is not None
    path = make_video("a.avi", num=200, rate=10, codec="mjpeg", pix_fmt="yuvj420p")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    found = list(read(path, settings))
    assert found[0].frames is not None and found[-1].code == "corrupt" and "missing" in found[-1].detail


def test_damage_in_the_middle_costs_its_own_moments(make_video, number_of):
    path = make_video("a.mkv", num=120, rate=10, size=(128, 128), gop=10)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    middle = len(data) // 2
    data[middle - 200 : middle + 200] = rng.integers(0, 256, 400, np.uint8).tobytes()
    path.write_bytes(data)
    found = list(read(path, Settings(moment_s=2.0, moment_step_s=2.0)))
    good = [value for value in found if isinstance(value, Unit) and value.frames is not None]
    assert len(good) >= 3
    first: Any = good[0].frames
    assert number_of(first.frames[0]) == 0


def test_a_change_of_resolution(tmp_path, settings):
    import av

    path = tmp_path / "a.ts"
    parts = []
    for size in ((64, 48), (128, 96)):
        part = tmp_path / f"{size[0]}.ts"
        with av.open(str(part), "w") as file:
            stream = file.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for _ in range(25):
                file.mux(
                    stream.encode(av.VideoFrame.from_ndarray(np.zeros((*size[::-1], 3), np.uint8), format="rgb24"))
                )
            file.mux(stream.encode())
        parts.append(part.read_bytes())
    path.write_bytes(b"".join(parts))
    shapes = {
        value.frames.frames.shape[1:]
        for value in read(path, settings)
        if isinstance(value, Unit) and value.frames is not None
    }
    assert shapes == {(48, 64, 3)}


def test_rare_codecs_are_refused(make_video, settings, code):
    path = make_video("a.avi", num=4, codec="magicyuv")
    assert code(units.units, path, settings) == "format_not_allowed"


def test_the_cap_of_seconds_is_told(make_video, code):
    path = make_video(num=100, rate=10)
    found = list(read(path, Settings(video_max_s=5.0, moment_s=2.0, moment_step_s=2.0)))
    assert [value.end_s for value in found[:-1]] == [2.0, 4.0, 5.0]
    assert found[-1].code == "too_large"
    assert code(video.sample, path, 1, 64, Settings(video_max_s=5.0)) == "too_large"


def test_playlists_open_nothing(tmp_path, settings):
    """A server that must not be asked, and files that name it, under every name that FFmpeg might believe."""
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.2)

        def watch():
            try:
                while True:
                    calls.append(server.accept())
            except OSError:
                return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        bodies = [
            f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {port} RTP/AVP 96\r\n",
            f"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n",
            f"ffconcat version 1.0\nfile http://127.0.0.1:{port}/a.mp4\n",
            f"<?xml version='1.0'?><MPD><Period><BaseURL>http://127.0.0.1:{port}/</BaseURL></Period></MPD>",
            f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n//127.0.0.1:{port}/share\n",
        ]
        start = time.monotonic()
        for body in bodies:
            for name in ("a.mp4", "a.m3u8", "a.sdp", "a.mpd", "a.ffconcat"):
                path = tmp_path / name
                path.write_text(body)
                try:
                    assert all(value.kind == "text" for value in read(path, settings))
                except MediaError as error:
                    assert error.code == "not_media"
                # and when they are forced on the decoder, it does not believe them
                with path.open("rb") as file, pytest.raises(MediaError, match="corrupt"):
                    list(video.file_moments(file, settings))
        assert time.monotonic() - start < 5
        thread.join()
    assert not calls


def test_an_index_out_of_range(make_video, settings, code):
    assert code(video.decode, make_video(num=4), [4], settings) == "option"
