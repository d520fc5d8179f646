"""Sixteen videos that have hurt others, each with its stated outcome, through the whole of indexing.

The numbers in the names are those of the cases; every file is made here.
"""

import base64
import io
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sightline.errors import MediaError
from sightline.media import sandbox, source
from sightline.settings import Settings
from sightline.testing import ToyEmbedder
from tests.media.outcome import Desk
from tests.media.test_named_pdfs import told

MB = 2**20
LONG: Any = {"moment_s": 2.0, "moment_step_s": 2.0, "video_fps": 2.0}
"""Moments of two seconds that do not overlap: damage is then of one moment."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    desk = Desk(tmp_path_factory.mktemp("named-videos"), ToyEmbedder(), Settings(**LONG))
    yield desk
    desk.close()


@pytest.fixture
def desk_with(tmp_path_factory):
    """A desk with limits of its own."""
    desks = []

    def open_desk(**limits):
        desks.append(Desk(tmp_path_factory.mktemp("desk"), ToyEmbedder(), Settings(**limits)))
        return desks[-1]

    yield open_desk
    for desk in desks:
        desk.close()


def moments(outcome):
    return sorted((row.start_s, row.end_s) for row in outcome.rows)


def every_two(seconds):
    return [(float(start), float(min(start + 2, seconds))) for start in range(0, seconds, 2)]


def rebuilt(path, **options):
    """The file with its index where the options of the container want it."""
    out = path.with_name("rebuilt" + path.suffix)
    with av.open(str(path)) as given, av.open(str(out), "w", options=options) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return out


def sound(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_01_truncated_before_its_index(share, desk, make_video):
    """The index is the last thing in the file: without it nothing can be found."""
    data = make_video(num=100).read_bytes()
    assert desk.take("a.mp4", data[: int(len(data) * share)]).code == "corrupt"


def test_01_truncated_behind_its_index(desk, make_video):
    """What is there is in, and what is missing is told."""
    data = rebuilt(make_video(num=100, size=(128, 96)), movflags="faststart").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    path = desk.write("a.mp4", data[: len(data) // 2])
    outcome = desk.index(path)
    assert outcome.code == "indexed" and (0.0, 2.0) in moments(outcome) and len(outcome.rows) < 5
    assert told(desk, path) and {code for code, _ in told(desk, path)} == {"corrupt"}


@pytest.mark.parametrize("kind", [b"mett", b"tx3g", b"rtp "])
def test_02_no_stream_of_pictures(kind, desk, make_video):
    """Tracks, but of something else."""
    data = make_video(num=20).read_bytes()
    handlers = {b"mett": b"meta", b"tx3g": b"sbtl", b"rtp ": b"hint"}
    place = data.index(b"vide", data.index(b"hdlr"))
    data = data[:place] + handlers[kind] + data[place + 4 :]
    place = data.index(b"avc1", data.index(b"stsd"))
    outcome = desk.take("a.mp4", data[:place] + kind + data[place + 4 :])
    assert (outcome.code, outcome.rows) == ("no_video", [])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_03_sound_alone(name, desk, tmp_path):
    outcome = desk.take(name, sound(tmp_path / name).read_bytes())
    assert (outcome.code, outcome.rows) == ("no_video", [])


def test_03_sound_with_a_cover(desk, tmp_path):
    """A picture of the sleeve is no video."""
    cover = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(cover, "JPEG")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000)
        picture = file.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = picture, 0, 0, Fraction(1, 1)
        packet.is_keyframe = True
        file.mux(packet)
    assert desk.take("a.mp4", path.read_bytes()).code == "no_video"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_04_no_frames(name, desk, make_video):
    outcome = desk.take(name, make_video(name, num=0).read_bytes())
    assert outcome.code in {"no_frames", "no_video", "corrupt"} and not outcome.rows


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_05_one_frame(name, desk, make_video):
    codec = "mjpeg" if name == "a.avi" else "libx264"
    path = make_video(name, num=1, codec=codec, pix_fmt="yuvj420p" if name == "a.avi" else None)
    outcome = desk.take(name, path.read_bytes())
    assert outcome.code == "indexed" and len(outcome.rows) == 1


def test_06_a_varying_rate(desk, make_video, number_of):
    """Ten frames in the first second, then one a second: places are those of the clock, not of the count."""
    path = make_video("a.mkv", num=20, rate=10, times=[*range(10), *range(10, 110, 10)], codec="ffv1")
    path = desk.write("a.mkv", path.read_bytes())
    outcome = desk.index(path)
    assert outcome.code == "indexed" and [start for start, _ in moments(outcome)] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert [number_of(frame) for frame in desk.pool.unit(path, "moment", None, 4.0, 6.0).frames.frames] == [13, 14]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_07_turned(degrees, desk, make_video):
    data = make_video(num=4, size=(64, 48)).read_bytes()
    head = b"\x00\x01\x00\x00" + bytes(12) + b"\x00\x01\x00\x00" + bytes(12) + b"@\x00\x00\x00"
    place = data.index(head, data.index(b"tkhd"))
    one, minus = 0x10000, -0x10000
    a, b, c, d = {90: (0, one, minus, 0), 180: (minus, 0, 0, minus), 270: (0, minus, one, 0)}[degrees]
    turned = data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000) + data[place + 36 :]
    path = desk.write("a.mp4", turned)
    outcome = desk.index(path)
    assert outcome.code == "indexed"
    frames = desk.pool.unit(path, "moment", None, *moments(outcome)[0]).frames.frames
    assert frames.shape[1:3] == ((64, 48) if degrees % 180 else (48, 64))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), "indexed"),
        ((3, 5), "indexed"),
        ((8192, 2), "indexed"),
        ((8194, 2), "too_large"),
        ((2, 8194), "too_large"),
    ],
)
def test_08_odd_sizes(size, expected, desk, make_video):
    assert desk.take("a.mkv", make_video("a.mkv", num=4, size=size, codec="ffv1").read_bytes()).code == expected


@pytest.mark.parametrize("claimed", [0, 2**31, 2**32 - 1])
def test_09_a_wrong_length(claimed, desk, make_video):
    """The header claims nothing, or fifty days: the frames are what counts."""
    data = bytearray(make_video(num=50, rate=10).read_bytes())
    for box, skip in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
        struct.pack_into(">I", data, data.index(box) + skip + 4, claimed)
    outcome = desk.take("a.mp4", bytes(data))
    assert outcome.code == "indexed" and [start for start, _ in moments(outcome)] == [0.0, 2.0, 4.0]
    assert moments(outcome)[-1][1] == pytest.approx(5.0, abs=0.2)


def test_09_a_frame_thirty_years_later(desk, make_video):
    path = make_video("a.mkv", num=10, times=[*range(9), 10**10], codec="ffv1")
    path = desk.write("a.mkv", path.read_bytes())
    outcome = desk.index(path)
    assert outcome.code == "indexed" and (0.0, 2.0) in moments(outcome) and len(outcome.rows) < 3
    assert [code for code, _ in told(desk, path)] == ["too_large"] and outcome.cpu_s < 5


def test_10_negative_times(desk, make_video):
    path = make_video("a.mkv", num=20, times=list(range(-5, 15)), codec="ffv1")
    outcome = desk.take("a.mkv", path.read_bytes())
    assert outcome.code == "indexed" and moments(outcome)[0][0] == 0.0


def test_11_another_size_midway(desk, tmp_path):
    parts = []
    for number, size in enumerate(((64, 48), (128, 96), (32, 200))):
        part = tmp_path / f"{number}.ts"
        with av.open(str(part), "w") as file:
            stream = file.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for _ in range(50):
                picture = np.zeros((*size[::-1], 3), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())
        parts.append(part.read_bytes())
    outcome = desk.take("a.ts", b"".join(parts))
    assert outcome.code == "indexed" and outcome.rows and outcome.child_bytes < 500 * MB


def test_12_ten_hours_at_a_frame_a_second(desk_with, tmp_path):
    """What a limit leaves out is told; the rest is in; memory does not follow the length."""
    path = tmp_path / "a.mkv"
    shot = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(shot, "JPEG")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        for second in range(36_000):
            packet = av.Packet(shot.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, second, second, Fraction(1, 1)
            packet.is_keyframe = True
            file.mux(packet)
    desk = desk_with(moment_s=600.0, moment_step_s=600.0)
    path = desk.write("a.mkv", path.read_bytes())
    outcome = desk.index(path)
    assert outcome.code == "indexed"
    assert moments(outcome) == [(600.0 * number, 600.0 * (number + 1)) for number in range(24)]
    assert told(desk, path) == [("too_large", "at 14400 s: what comes after 14400 s was not read")]
    assert outcome.child_bytes < 400 * MB


def test_13_damage_every_two_seconds(desk, tmp_path):
    """The good part is in, what is lost is told, and the end is reached."""
    rng = np.random.default_rng(0)
    whole = tmp_path / "a.mkv"
    with av.open(str(whole), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        stream.codec_context.gop_size = 20
        stream.options = {"sc_threshold": "0"}
        for _ in range(200):
            picture = rng.integers(0, 256, (96, 96, 3), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
    data = bytearray(whole.read_bytes())
    with av.open(io.BytesIO(bytes(data))) as file:
        keys = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.is_keyframe]
    assert len(keys) == 10
    for place, size in keys[1::2]:  # every second group of pictures loses the picture that it begins with
        data[place + 40 : place + size] = rng.integers(0, 256, size - 40, np.uint8).tobytes()
    path = desk.write("a.mkv", bytes(data))
    outcome = desk.index(path)
    assert outcome.code == "indexed"
    assert [start for start, _ in moments(outcome)] == [0.0, 4.0, 8.0, 12.0, 16.0]
    assert sorted(told(desk, path)) == sorted(
        ("corrupt", f"at {start} s: the file is damaged and cannot be decoded") for start in (2, 6, 10, 14, 18)
    )


def test_14_a_rare_codec(desk, make_video):
    """MagicYUV: an overflow in it was found in August (CVE-2026-8461). It is not on the list."""
    outcome = desk.take("a.avi", make_video("a.avi", num=4, codec="magicyuv").read_bytes())
    assert (outcome.code, outcome.rows) == ("format_not_allowed", [])


SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 40000 RTP/AVP 96\r\n"


def test_15_a_session_description(desk):
    """FFmpeg would listen and wait; nothing that understands it is ever asked."""
    for name in ("a.mp4", "a.sdp", "a.mkv", "a.txt", "a"):
        start = time.thread_time()
        outcome = desk.take(name, SDP.encode())
        if outcome.code == "indexed":
            assert [row.kind for row in outcome.rows] == ["text"] and name in {"a.txt", "a", "a.sdp"}
        else:
            assert outcome.code in {"not_media", "unsupported", "corrupt"}
        assert time.thread_time() - start < 1 and outcome.cpu_s < 3


WITHOUT_SOCKETS = """
import ctypes, io, sys, time
import av, numpy
from sightline.errors import MediaError
from sightline.media import sandbox, units, video
from sightline.settings import Settings
import PIL.Image, pypdfium2
sandbox.REFUSED = {name: sandbox.REFUSED[name] for name in ("socket", "socketpair")}
sandbox.REFUSE = sandbox.KILL
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(sandbox.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and sandbox._refuse_calls(libc)
if sys.argv[1] == "control":
    import _socket
    _socket.socket()
for path in sys.argv[2:]:
    start = time.process_time()
    try:
        values = list(units.units(path, Settings()))
        assert all(value.kind == "text" and "canary" not in value.text for value in values), values
        print(path, "text")
    except MediaError as error:
        print(path, error.code)
    with open(path, "rb") as file:
        try:
            print(list(video.file_moments(file, Settings())))
        except MediaError as error:
            assert error.code == "corrupt", error
    assert time.process_time() - start < 1
print("survived")
"""


def run_without_sockets(word, *paths):
    """A process in which asking for a socket is death, reading files as the decoder does, and past its first gate."""
    command = [sys.executable, "-P", "-B", "-c", WITHOUT_SOCKETS, word, *map(str, paths)]
    environment = {"PYTHONPATH": str(Path(sandbox.__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


PLAYLISTS = {
    "session": SDP,
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nPLACE\n#EXT-X-ENDLIST\n",
    "master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nPLACE\n",
    "key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="PLACE"\n#EXTINF:1,\nPLACE\n',
    "concat": "ffconcat version 1.0\nfile 'PLACE'\n",
    "dash": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><Period><AdaptationSet><Representation"
    " bandwidth='1' id='1'><BaseURL>PLACE</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "smil": "<smil><body><video src='PLACE'/></body></smil>",
}
TARGETS = ["http://127.0.0.1:9/a.ts", "//127.0.0.1/share/a.ts", "\\\\127.0.0.1\\share\\a.ts", "OTHER", "file://OTHER"]


@pytest.mark.skipif(sys.platform != "linux", reason="the process that dies of a socket is made with seccomp")
def test_16_playlists_open_no_socket_and_no_other_file(tmp_path):
    """Every kind of list with every kind of place in it, under every name that FFmpeg might believe."""
    other = tmp_path / "other.txt"
    other.write_text("canary: what no row may hold")
    paths = []
    for number, (kind, body) in enumerate(PLAYLISTS.items()):
        for place, target in enumerate(TARGETS):
            for suffix in ("mp4", "m3u8", "mpd", "sdp", "ts"):
                path = tmp_path / f"{kind}-{number}-{place}.{suffix}"
                path.write_text(body.replace("PLACE", target.replace("OTHER", str(other))))
                paths.append(path)
    assert run_without_sockets("control").returncode != 0, "a socket is death"
    run = run_without_sockets("files", *paths)
    assert run.returncode == 0 and run.stdout.splitlines()[-1] == "survived", run.stdout[-500:] + run.stderr[-500:]
    assert len(run.stdout.splitlines()) == len(paths) + 1 == 176


def test_16_playlists_through_indexing(desk):
    for kind, body in PLAYLISTS.items():
        for target in TARGETS[:3]:
            outcome = desk.take(f"{kind}.mp4", body.replace("PLACE", target).encode())
            assert outcome.code in {"not_media", "unsupported", "corrupt"} and not outcome.rows


def test_16_fifty_thousand_pictures_in_one_address():
    """Pictures joined by commas are no base64: refused before anything is decoded."""
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "JPEG")
    address = "data:video/jpeg;base64," + ",".join([base64.b64encode(picture.getvalue()).decode()] * 50_000)
    start = time.process_time()
    with pytest.raises(MediaError) as caught:
        source.read(address, Settings())
    assert caught.value.code in {"not_media", "too_large"} and time.process_time() - start < 2
