"""The decoder's process: what it gives, what it survives, what it may not do."""

import contextlib
import gc
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from sightline import Library
from sightline.errors import MediaError
from sightline.media import pool as pool_module, units, wire
from sightline.media.pool import DecodePool
from sightline.media.room import KEPT_BYTES, Filled, Room, place_bytes
from sightline.media.units import UnitError
from sightline.settings import Settings
from sightline.testing import ToyEmbedder
from sightline.types import Unit, VideoFrames

read: Any = units.units
Pool: Any = DecodePool


@pytest.fixture
def pool():
    with Pool(Settings(decode_timeout_s=20)) as pool:
        yield pool


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(path)
    return path


def same(one, other):
    for name in Unit.__dataclass_fields__:
        left, right = getattr(one, name), getattr(other, name)
        if isinstance(left, np.ndarray):
            assert (left == right).all()
        elif isinstance(left, VideoFrames):
            assert (left.frames == right.frames).all() and (left.indices, left.fps) == (right.indices, right.fps)
        else:
            assert left == right
    return True


def child_of(pool):
    (child,) = pool._alive
    return child._process.pid


@pytest.fixture(autouse=True)
def trap_file(tmp_path):
    """The file that children are asked for in vain."""
    (tmp_path / "trap").write_text("trap")


def trap(monkeypatch, body):
    """Children run ``body`` when asked for a file of the name "trap"."""
    source = textwrap.dedent(f"""
        import sys; sys.path.append(sys.argv[1])
        from sightline.media import units
        real = units.units
        def trapped(path, settings, handed):
            if path == "trap":
                yield units.Unit(kind="text", text="before")
                {body}
            yield from real(path, settings, handed)
        units.units = trapped
        from sightline.media.child import main
        main(int(sys.argv[2]))
    """)
    monkeypatch.setattr(pool_module, "_START", source)


def test_it_gives_what_units_gives(pool, picture, make_pdf, make_video, tmp_path):
    (tmp_path / "a.pdf").write_bytes(make_pdf(["one", "two"], info="A title"))
    (tmp_path / "a.md").write_text("# One\n\ntext\n\n# Two\n\nКрасный 自行车 🚲 \u2028")
    video = make_video(num=90)
    for path in (picture, tmp_path / "a.pdf", tmp_path / "a.md", video):
        expected = list(read(path, pool.settings))
        found = list(pool.units(path))
        assert len(found) == len(expected) and all(map(same, found, expected))
    assert same(pool.unit(picture, "image"), next(read(picture, pool.settings)))
    assert pool.unit(tmp_path / "a.pdf", "page", 2).text == "two"
    assert pool.unit(video, "moment", None, 4.0, 9.0).frames.indices[0] == 0


def test_errors_of_pages_and_caps_pass(make_pdf, tmp_path):
    (tmp_path / "a.pdf").write_bytes(make_pdf(["one", "two", "three"]))
    with Pool(Settings(pdf_max_pages=2)) as pool:
        found = list(pool.units(tmp_path / "a.pdf"))
    assert [value.page for value in found] == [1, 2, 3]
    assert found[-1] == UnitError(code="too_large", detail="pages 3 to 3 were not read", page=3)


def test_errors_of_files_pass_and_the_child_goes_on(pool, picture, tmp_path, code):
    (tmp_path / "bad.png").write_bytes(picture.read_bytes()[:50])
    (tmp_path / "empty").write_bytes(b"")
    assert code(pool.units, tmp_path / "bad.png") == "corrupt"
    first = child_of(pool)
    assert code(pool.units, tmp_path / "empty") == "empty"
    assert code(pool.units, tmp_path / "none") == "unreadable"
    assert code(pool.unit, picture, "page", 1) == "changed"
    assert code(pool.units, tmp_path) == "not_file"
    assert len(list(pool.units(picture))) == 1
    assert child_of(pool) == first


def test_odd_names(pool, picture):
    folder = os.fsencode(picture.parent)
    for name in (b"\xff\xfe.png", b"new\nline.png", b"quote'\".png", "ünï自.png".encode(), b"n" * 251 + b".png"):
        path = os.fsdecode(folder + b"/" + name)
        os.link(picture, path)
        assert len(list(pool.units(path))) == 1


def test_a_hang_is_killed_in_time(monkeypatch, picture, tmp_path):
    trap(monkeypatch, "import time; time.sleep(60)")
    with Pool(Settings(decode_timeout_s=1)) as pool:
        stream = pool.units(tmp_path / "trap")
        assert next(stream).text == "before"
        start = time.monotonic()
        with pytest.raises(MediaError) as caught:
            next(stream)
        assert caught.value.code == "timeout" and time.monotonic() - start < 3
        assert not pool._alive
        assert len(list(pool.units(picture))) == 1


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import os; os._exit(3)", "crash"),
        ("import os; os.kill(os.getpid(), 9)", "crash"),
        ("import ctypes; ctypes.string_at(0)", "crash"),
        ("import os; os.abort()", "crash"),
        ("raise RuntimeError('/secret/path 0x7f0000')", "crash"),
        ("raise MemoryError", "memory"),
        ("held = bytearray(4 << 30)", "memory"),
        ("import gc, os; [os.write(fd, b'x' * 99) for fd in range(3, 9)]", "crash"),
    ],
)
def test_a_death_costs_one_file(monkeypatch, picture, tmp_path, code, body, expected):
    trap(monkeypatch, body)
    with Pool(Settings(decode_timeout_s=5)) as pool:
        assert code(pool.units, tmp_path / "trap") == expected
        assert len(list(pool.units(picture))) == 1


def trap_pages(monkeypatch, body):
    """Children run ``body`` before they draw page ``number``."""
    source = textwrap.dedent(f"""
        import os, sys, time; sys.path.append(sys.argv[1])
        from sightline.media import pdf
        real = pdf.Document.page
        def trapped(self, number, settings):
            {body}
            return real(self, number, settings)
        pdf.Document.page = trapped
        from sightline.media.child import main
        main(int(sys.argv[2]))
    """)
    monkeypatch.setattr(pool_module, "_START", source)


def places(values):
    """Of each unit its page, of each error its page and code."""
    return [(value.page, value.code) if isinstance(value, UnitError) else value.page for value in values]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("if number == 2: os.abort()", [1, (2, "crash"), 3, 4]),
        ("if number == 2: raise RuntimeError", [1, (2, "crash"), 3, 4]),
        ("if number == 1: time.sleep(600)", [(1, "timeout"), 2, 3, 4]),
        ("if number == 3: bytearray(4 << 30)", [1, 2, (3, "memory"), 4]),
        ("if number == 4: os._exit(0)", [1, 2, 3, (4, "crash")]),
        ("if number in (1, 3): os.abort()", [(1, "crash"), 2, (3, "crash"), 4]),
    ],
)
def test_a_page_that_ends_its_decoder_costs_one_page(body, expected, monkeypatch, make_pdf, tmp_path):
    trap_pages(monkeypatch, body)
    (tmp_path / "a.pdf").write_bytes(make_pdf(["one", "two", "three", "four"]))
    with Pool(Settings(decode_timeout_s=4)) as pool:
        found = list(pool.units(tmp_path / "a.pdf"))
    assert places(found) == expected
    words = ["one", "two", "three", "four"]
    assert [value.text for value in found if isinstance(value, Unit)] == [
        word for number, word in enumerate(words, 1) if number in expected
    ]


def test_what_a_cap_leaves_out_is_told_behind_a_page_that_crashed(monkeypatch, make_pdf, tmp_path):
    trap_pages(monkeypatch, "if number == 2: os.abort()")
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 5))
    with Pool(Settings(pdf_max_pages=2)) as pool:
        assert places(pool.units(tmp_path / "a.pdf")) == [1, (2, "crash"), (3, "too_large")]


def test_a_document_may_cost_only_so_many_decoders(monkeypatch, make_pdf, tmp_path):
    trap_pages(monkeypatch, "if number > 1: os.abort()")
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 500))
    seen = []
    with Pool() as pool, pytest.raises(MediaError) as caught:
        for value in pool.units(tmp_path / "a.pdf"):
            seen.append(value)  # noqa: PERF402 - what came before the error counts
    assert caught.value.code == "crash" and places(seen) == [1, (2, "crash"), (3, "crash")]


def test_a_document_of_which_every_page_hangs_costs_the_time_of_one_step(monkeypatch, make_pdf, tmp_path, code):
    trap_pages(monkeypatch, "time.sleep(600)")
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 500))
    assert len(pool_module.PAGE_SHARE) == pool_module.DEATHS and sum(pool_module.PAGE_SHARE) == 1.0
    waited: Any = []
    real = pool_module._Child.receive

    def receive(self, timeout_s):
        try:
            return real(self, timeout_s)
        except MediaError:
            waited.append(timeout_s)
            raise

    monkeypatch.setattr(pool_module._Child, "receive", receive)
    with Pool(Settings(decode_timeout_s=4)) as pool:
        assert code(pool.units, tmp_path / "a.pdf") == "timeout"
    assert waited == [2.0, 1.0, 1.0]


def test_a_closed_pool_does_not_go_on_at_the_next_page(monkeypatch, make_pdf, tmp_path):
    trap_pages(monkeypatch, "if number == 2: time.sleep(600)")
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 5))
    pool = Pool()
    stream = pool.units(tmp_path / "a.pdf")
    next(stream)
    pool.close()
    with pytest.raises(MediaError) as caught:
        next(stream)
    assert caught.value.code == "crash"


def test_a_file_that_changes_while_it_is_read_is_noticed_by_the_parent(pool, make_pdf, tmp_path, code):
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["x"] * 5))

    def read_and_change():
        stream = pool.units(path)
        yield next(stream)
        path.write_bytes(make_pdf(["y"] * 6))
        yield from stream

    assert code(read_and_change) == "changed"


def test_a_file_that_kills_its_decoder_is_tried_twice_until_it_changes(monkeypatch, tmp_path):
    trap(monkeypatch, "import os; os.abort()")
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "trap"
    path.write_text("Words that nobody reads.")
    tried: Any = []
    real = Pool.units
    monkeypatch.setattr(DecodePool, "units", lambda self, path: tried.append(path) or fails_whole(real(self, path)))

    def fails_whole(values):
        next(values)  # the trap gives one unit before it closes; without it the file has nothing
        yield from values

    for number, expected in enumerate([1, 2, 2, 2, 3, 4, 4]):
        if number == 4:
            path.write_text("Other words.")
        with Library.open(tmp_path / "index", embedder=ToyEmbedder()) as library:
            report = library.add([tmp_path / "files"])
        assert [(one.path, one.code) for one in report.skipped] == [(str(path), "crash")]
        assert report.seen == 1 and len(tried) == expected


def test_pages_behind_one_that_crashed_are_found(monkeypatch, make_pdf, tmp_path):
    trap_pages(monkeypatch, "if number == 2: os.abort()")
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "a.pdf"
    path.write_bytes(make_pdf(["red bicycle", "blue car", "green wheel"]))
    with Library.open(tmp_path / "index", embedder=ToyEmbedder()) as library:
        report = library.add([tmp_path / "files"])
        assert (report.indexed, report.units, report.skipped) == (1, 2, ())
        assert [(hit.page, hit.snippet) for hit in library.search("green wheel", k=1)] == [(3, "green wheel")]
        assert [(one.path, one.code) for one in library.failures()] == [(str(path), "crash")]
        assert library.failures()[0].detail.startswith("page 2: ")


def test_the_memory_of_the_parent_is_not_the_limit(tmp_path, monkeypatch, code):
    Image.new("L", (7000, 7000)).save(tmp_path / "a.png")
    with Pool(Settings(decode_memory_bytes=256 * 2**20)) as pool:
        assert code(pool.units, tmp_path / "a.png") in {"memory", "crash"}
    with Pool() as pool:
        assert len(list(pool.units(tmp_path / "a.png"))) == 1


def test_what_the_child_may_not_do(monkeypatch, tmp_path):
    target = tmp_path / "written"
    body = f"""
                import os, signal, socket, resource
                found = []
                try:
                    with open({str(target)!r}, "w") as file: file.write("x"); file.flush()
                except OSError: found.append("no writing")
                try: socket.create_connection(("127.0.0.1", 9), 1)
                except ConnectionRefusedError: found.append("network")
                except OSError: found.append("no network")
                found.append(str(resource.getrlimit(resource.RLIMIT_CORE)[0]))
                found.append(str(os.read(0, 1)))
                found.append(" ".join(sorted(os.environ)))
                import ctypes
                found.append(str(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)) if sys.platform == "linux" else "")
                found.append(str(signal.getsignal(signal.SIGINT) == signal.SIG_IGN))
                yield units.Unit(kind="text", text="; ".join(found))
                return
    """.strip()
    trap(monkeypatch, body)
    monkeypatch.setenv("SECRET_TOKEN", "word")
    with Pool() as pool:
        found = list(pool.units(tmp_path / "trap"))[1].text.split("; ")
        assert pool.held["files"] and pool.held["memory"]
        if sys.platform == "linux":
            assert pool.held["rights"] and pool.held["parent"]
            assert found[5] == "1", "no new privileges"
        if pool.held["network"]:
            assert found[1] == "no network"
    assert found[0] == "no writing" and (not target.exists() or target.stat().st_size == 0)
    assert found[2] == "0" and found[3] == "b''" and "SECRET_TOKEN" not in found[4] and found[6] == "True"


def test_children_are_replaced_after_many_files(pool, picture, monkeypatch):
    monkeypatch.setattr(pool_module, "FILES_PER_CHILD", 3)
    seen = [child_of(pool) for _ in range(7) for _ in pool.units(picture)]
    assert len(seen) == 7 and len(set(seen)) == 3


def test_an_idle_child_that_died_is_replaced(pool, picture):
    list(pool.units(picture))
    os.kill(child_of(pool), signal.SIGKILL)
    time.sleep(0.1)
    assert len(list(pool.units(picture))) == 1


def test_a_stream_given_up_ends_its_child(pool, make_pdf, tmp_path, picture):
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 50))
    stream = pool.units(tmp_path / "a.pdf")
    next(stream)
    pid = child_of(pool)
    stream.close()
    assert not psutil.pid_exists(pid)
    assert len(list(pool.units(picture))) == 1


def test_memory_is_bounded_while_the_caller_is_slow(pool, make_pdf, tmp_path):
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 300))
    stream = pool.units(tmp_path / "a.pdf")
    next(stream)
    time.sleep(1.0)
    child = psutil.Process(child_of(pool))
    assert child.memory_info().rss < 300 * 2**20
    stream.close()


def test_a_call_within_a_stream_and_from_other_threads(pool, make_pdf, tmp_path, picture):
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 5))
    for unit in pool.units(tmp_path / "a.pdf"):
        assert pool.unit(tmp_path / "a.pdf", "page", unit.page).page == unit.page
    results = []
    threads = [threading.Thread(target=lambda: results.extend(pool.units(picture))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(pool._alive) == 1, "only as many idle children as workers are kept"


def test_a_child_outlives_the_thread_that_asked_for_it(pool, picture):
    thread = threading.Thread(target=lambda: list(pool.units(picture)))
    thread.start()
    thread.join()
    time.sleep(0.2)
    pid = child_of(pool)
    assert len(list(pool.units(picture))) == 1 and child_of(pool) == pid


def test_closing_ends_children_at_work(monkeypatch, tmp_path):
    trap(monkeypatch, "import time; time.sleep(60)")
    pool = Pool()
    caught = []

    def ask():
        try:
            list(pool.units(tmp_path / "trap"))
        except MediaError as error:
            caught.append(error.code)

    thread = threading.Thread(target=ask)
    thread.start()
    while not pool._alive:
        time.sleep(0.01)
    pid = child_of(pool)
    pool.close()
    thread.join(10)
    assert caught == ["crash"] and not psutil.pid_exists(pid)
    with pytest.raises(MediaError):
        list(pool.units(tmp_path / "trap"))
    pool.close()


PARENT = """
import sys, time
from sightline.media.pool import DecodePool
from sightline.media.room import KEPT_BYTES, Filled, Room, place_bytes
print("main ran", flush=True)
pool = DecodePool()
for value in pool.units(sys.argv[1]):
    print([child._process.pid for child in pool._alive][0], flush=True)
time.sleep(60)
"""


def start_parent(tmp_path, picture):
    script = tmp_path / "user_script.py"
    script.write_text(PARENT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(picture)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "main ran\n"
    return process, int(process.stdout.readline())


def gone(pid):
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_children_die_with_their_parent(tmp_path, picture):
    process, pid = start_parent(tmp_path, picture)
    assert psutil.pid_exists(pid)
    process.kill()
    process.communicate()
    assert gone(pid)


def test_control_c_prints_nothing_of_the_children(tmp_path, picture):
    process, pid = start_parent(tmp_path, picture)
    os.kill(pid, signal.SIGINT)
    time.sleep(0.2)
    assert psutil.pid_exists(pid)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert out == "" and err.count("Traceback") == 1 and "child" not in err, "only the script's own"
    assert gone(pid)


def test_nothing_is_left_open(picture):
    before = psutil.Process().num_fds()
    for _ in range(3):
        with Pool() as pool:
            list(pool.units(picture))
    gc.collect()
    assert psutil.Process().num_fds() <= before


# -- the language of the pipe


class Pipe:
    def __init__(self, data=b""):
        self.data = bytearray(data)

    def write(self, data):
        taken = bytes(data[:1000])
        self.data += taken
        return len(taken)

    def readinto(self, buffer):
        taken = bytes(self.data[: min(len(buffer), 700)])
        buffer[: len(taken)] = taken
        del self.data[: len(taken)]
        return len(taken)


VALUES = [
    Unit(kind="text", title="a", text="é\ud800\x00" * 1000),
    Unit(kind="image", pixels=np.arange(2700).astype(np.uint8).reshape(30, 30, 3)),
    Unit(
        kind="moment",
        start_s=0.5,
        end_s=1.5,
        frames=VideoFrames(frames=np.ones((2, 3, 4, 3), np.uint8), indices=(0, 9), fps=29.97),
    ),
    UnitError(code="corrupt", page=3),
]


@pytest.mark.parametrize("value", VALUES)
def test_what_is_sent_arrives(value):
    pipe = Pipe()
    wire.send(pipe, *wire.pack(value))
    found = wire.unpack(*wire.receive(pipe))
    assert found == value if isinstance(value, UnitError) else same(found, value)


def frame(header, pixels=b"", *, num_header=None, num_pixels=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    lengths = (len(text) if num_header is None else num_header, len(pixels) if num_pixels is None else num_pixels)
    return struct.pack("<IQ", *lengths) + text + pixels


UNIT = {"is": "unit", "kind": "image", "title": "", "text": "", "page": None, "start_s": None, "end_s": None}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 5,
        frame(b"not json"),
        frame(b"[]"),
        frame(b"[" * 100_000),
        frame({}, num_header=2**31),
        frame({}, num_pixels=2**60),
        frame({}),
        frame({"is": "unit"}),
        frame({**UNIT, "kind": "nonsense"}),
        frame({**UNIT, "shape": [10, 10, 3]}, bytes(299)),
        frame({**UNIT, "shape": [-1, 3]}, bytes(9)),
        frame({**UNIT, "shape": [1, 1, 1, 1, 3]}, bytes(3)),
        frame({**UNIT, "shape": ["x"]}),
        frame({**UNIT, "shape": [1, 1, 1, 3]}, bytes(3)),
        frame({**UNIT, "shape": [1, 1, 1, 3], "indices": [0], "fps": -1.0}, bytes(3)),
        frame({**UNIT, "page": "x"}),
        frame({"is": "failure", "code": "nonsense", "detail": ""}),
        frame({"is": "failure", "code": [], "detail": ""}),
    ],
)
def test_nonsense_from_a_child_is_a_broken_pipe(data):
    with pytest.raises(wire.Broken):
        wire.unpack(*wire.receive(Pipe(data)))


@given(
    st.dictionaries(
        st.sampled_from([*UNIT, "shape", "indices", "fps", "code", "detail"]),
        st.one_of(st.none(), st.integers(), st.text(), st.floats(), st.lists(st.integers())),
    )
)
def test_any_header_is_taken_or_refused(header):
    with contextlib.suppress(wire.Broken):
        wire.unpack({**UNIT, **header}, np.zeros(12, np.uint8))


# -- the memory that a child fills


@pytest.fixture
def room():
    made: Any = Room.make(2 * 64 * 4096)
    if made is None:
        pytest.skip("this system has no memory to hand over: pixels go through the pipe")
    yield made
    made.close()


def test_what_is_put_is_read_and_stays_as_it_was_read(room):
    filled = Filled(room.fileno(), 64 * 4096)
    given = [np.full((50, 40, 3), number, np.uint8) for number in range(5)]
    found = [room.read(filled.put(pixels), pixels.nbytes) for pixels in given]
    assert room.num_read == filled.num_put == 5
    for number, pixels in enumerate(found):
        assert pixels.shape == (6000,) and (pixels == number).all(), "the places were filled again since"


def test_what_is_made_in_its_place_is_there(room):
    filled = Filled(room.fileno(), 64 * 4096)
    for number in range(5):
        other = np.full((50, 40, 3), 100 + number, np.uint8)
        filled.next_place(6000)[:] = number
        drawn = filled.next_place(6000).reshape(50, 40, 3)
        assert (room.read(filled.put(drawn), 6000) == number).all()
        filled.next_place(6000)[:] = 77  # made, and then not given
        assert (room.read(filled.put(other), 6000) == 100 + number).all()
        filled.next_place(6000)[:] = np.arange(6000) % 251
        turned = filled.next_place(6000).reshape(50, 40, 3)[::-1]
        assert (room.read(filled.put(turned.copy()), 6000).reshape(50, 40, 3)[-1, -1] == [117, 118, 119]).all()


@pytest.mark.parametrize(
    ("place", "size"),
    [(2, 1), (-1, 1), (0, 64 * 4096 + 1), (1, 64 * 4096 + 1), (0, -1), ("0", 1), (0.0, 1), (None, 1), (True, 1)],
)
def test_places_that_are_none_are_refused(room, place, size):
    with pytest.raises(ValueError, match="no such place"):
        room.read(place, size)


def test_nobody_changes_the_size_of_the_memory(room):
    for size in (0, 4096, 2**30):
        with pytest.raises(PermissionError):
            os.truncate(room.fileno(), size)


def test_what_a_great_picture_took_is_given_back():
    size = place_bytes(2**31)
    room: Any = Room.make(2 * size)
    if room is None:
        pytest.skip("this system has no memory to hand over: pixels go through the pipe")
    filled = Filled(room.fileno(), size)
    place = filled.put(np.ones(size, np.uint8))
    assert os.fstat(room.fileno()).st_blocks * 512 >= size
    assert room.read(place, size).all()
    assert os.fstat(room.fileno()).st_blocks * 512 <= 2 * KEPT_BYTES
    assert (room.read(filled.put(np.full(size, 7, np.uint8)), size) == 7).all(), "and it is used again"
    room.close()
    with pytest.raises(ValueError, match="closed"):
        room.read(0, 1)


@pytest.mark.parametrize(
    "shape",
    [None, "xyz", [], [3], [10, 3], [0, 5, 3], [-4, -4, 3], [2.0, 2, 3], [True, 4, 3], [2**40, 1, 3], [2**16] * 4],
)
def test_a_shape_that_is_none_is_refused(shape):
    with pytest.raises(wire.Broken):
        wire.num_pixel_bytes({"shape": shape})


def lie(monkeypatch, **words):
    """Children say other things of the pixels of a file called "lie" than they should; other files they give."""
    source = textwrap.dedent(f"""
        import os, sys; sys.path.append(sys.argv[1])
        from sightline.media import room, wire
        real = wire.pack
        def pack(value):
            header, pixels = real(value)
            if header.get("title") == "lie":
                header |= {words!r}
            return header, pixels
        wire.pack = pack
        put = room.Filled.put
        room.Filled.put = lambda self, pixels: put(self, pixels) if LIES is None else LIES
        from sightline.media.child import main
        main(int(sys.argv[2]))
    """).replace("LIES", repr(words.pop("place", None)))
    monkeypatch.setattr(pool_module, "_START", source)


@pytest.fixture
def photo(tmp_path):
    """A picture large enough to go through the memory, and its pixels."""
    pixels = np.arange(200 * 300 * 3, dtype=np.uint32).astype(np.uint8).reshape(200, 300, 3)
    Image.fromarray(pixels).save(tmp_path / "lie.png")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return pixels


@pytest.mark.parametrize(
    "words",
    [
        {"shape": [20_000, 20_000, 3]},
        {"shape": [2**31, 2**31, 3]},
        {"shape": [0, 0, 3]},
        {"shape": [-1, -1, 3]},
        {"shape": None},
        {"shape": [200, 300]},
        {"shape": [200, 300, 4]},
        {"kind": "nonsense"},
    ],
)
def test_a_child_that_lies_about_its_pixels_costs_one_file(words, monkeypatch, photo, tmp_path, code):
    lie(monkeypatch, **words)
    with Pool() as pool:
        assert code(pool.units, tmp_path / "lie.png") == "crash"
        assert not pool._alive, "nothing more is believed of it"
        (unit,) = pool.units(tmp_path / "photo.png")
        assert (unit.pixels == photo).all()


@pytest.mark.parametrize("place", [2, -1, 2**62, "0", [0], 0.5])
def test_a_child_that_lies_about_the_place_costs_its_files(place, monkeypatch, photo, tmp_path, code):
    lie(monkeypatch, place=place)
    with Pool() as pool:
        if Room.make(4096) is None:
            pytest.skip("this system has no memory to hand over: pixels go through the pipe")
        assert code(pool.units, tmp_path / "photo.png") == "crash"
        assert not pool._alive


def test_a_child_that_dies_between_two_units_costs_what_comes_behind(monkeypatch, tmp_path, photo):
    trap(
        monkeypatch,
        """
                import numpy, os
                for number in range(2):
                    pixels = numpy.full((300, 300, 3), number, numpy.uint8)
                    yield units.Unit(kind="page", page=number + 1, pixels=pixels)
                os.abort()
        """.strip(),
    )
    with Pool() as pool:
        stream = pool.units(tmp_path / "trap")
        assert next(stream).text == "before"
        found = [next(stream), next(stream)]
        with pytest.raises(MediaError) as caught:
            next(stream)
        assert caught.value.code == "crash"
        assert [int(unit.pixels.max()) for unit in found] == [0, 1], "units already given stay good"
        (unit,) = pool.units(tmp_path / "photo.png")
        assert (unit.pixels == photo).all()


def test_a_child_writes_on_only_when_its_parent_has_read(monkeypatch, tmp_path):
    trap(
        monkeypatch,
        """
                import numpy
                for number in range(20):
                    pixels = numpy.full((300, 300, 3), number, numpy.uint8)
                    yield units.Unit(kind="page", page=number + 1, pixels=pixels)
                return
        """.strip(),
    )
    with Pool() as pool:
        for _ in range(2):  # the places go on from where the file before left them
            found = []
            for unit in pool.units(tmp_path / "trap"):
                time.sleep(0.01)  # a parent that is slow: the child could be far ahead
                found.append(unit)
            assert [int(unit.pixels.mean()) for unit in found[1:]] == list(range(20))
            assert all((unit.pixels == unit.pixels[0, 0, 0]).all() for unit in found[1:]), "no two were mixed"


def test_pages_drawn_in_the_common_memory_stay_as_they_were_given(pool, monkeypatch, make_pdf, tmp_path):
    trap_pages(monkeypatch, "if number == 5: raise MemoryError")
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf([f"page {number} " * number for number in range(1, 9)]))
    expected = list(read(path, pool.settings))
    for _ in range(2):
        found = []
        for value in pool.units(path):
            time.sleep(0.03)  # the child is at a later page
            found.append(value)
        assert found.pop(4) == UnitError(code="memory", page=5)
        assert all(map(same, found, expected[:4] + expected[5:]))
        assert len({unit.pixels.tobytes() for unit in found}) == 7, "each page looks different"
    assert same(pool.unit(path, "page", 3), expected[2])


def test_small_pictures_behind_a_large_one_in_the_same_child(pool, photo, tmp_path):
    large = np.zeros((4000, 4000, 3), np.uint8)
    large[1::2] = 200
    Image.fromarray(large).save(tmp_path / "large.png", compress_level=1)
    (first,) = pool.units(tmp_path / "photo.png")
    pid = child_of(pool)
    for _ in range(2):
        (unit,) = pool.units(tmp_path / "large.png")
        assert (unit.pixels == large).all()
        (unit,) = pool.units(tmp_path / "photo.png")
        assert (unit.pixels == photo).all() and unit.pixels.flags.writeable
    assert (first.pixels == photo).all() and child_of(pool) == pid


@pytest.mark.parametrize("memory", [Settings().decode_memory_bytes, 512 * 2**20])
def test_what_does_not_fit_a_place_goes_through_the_pipe(memory, monkeypatch, tmp_path):
    monkeypatch.setattr("sightline.media.pool.place_bytes", lambda _: 2**20)
    pixels = np.arange(900 * 900 * 3, dtype=np.uint32).astype(np.uint8).reshape(900, 900, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with Pool(Settings(decode_memory_bytes=memory)) as pool:
        for _ in range(3):
            (unit,) = pool.units(tmp_path / "a.png")
            assert (unit.pixels == pixels).all()


def test_a_system_without_such_memory_uses_the_pipe(monkeypatch, photo, tmp_path):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with Pool() as pool:
        for _ in range(3):
            (unit,) = pool.units(tmp_path / "photo.png")
            assert (unit.pixels == photo).all()


def test_a_stream_closed_behind_its_only_picture_keeps_its_child(pool, photo, tmp_path):
    stream = pool.units(tmp_path / "photo.png")
    next(stream)
    pid = child_of(pool)
    stream.close()
    assert len(list(pool.units(tmp_path / "photo.png"))) == 1 and child_of(pool) == pid


def test_the_memory_of_both_processes_stays_flat_over_three_hundred_pictures(pool, tmp_path):
    rng = np.random.default_rng(0)
    for name, side in (("small", 400), ("large", 2400)):
        pixels = np.repeat(np.repeat(rng.integers(0, 256, (side // 20, side // 20, 3), np.uint8), 20, 0), 20, 1)
        Image.fromarray(pixels).save(tmp_path / f"{name}.jpg")

    def read(number):
        for place in range(number):
            assert len(list(pool.units(tmp_path / ("large.jpg" if place % 10 == 0 else "small.jpg")))) == 1
        gc.collect()
        child = psutil.Process(child_of(pool))
        return np.array([process.memory_info().rss for process in (psutil.Process(), child)])

    read(40)
    files = psutil.Process().num_fds()
    before = read(10)
    after = read(300)
    assert ((after - before) < 48 * 2**20).all(), (before, after)
    assert psutil.Process().num_fds() == files


def test_a_child_runs_the_code_of_its_parent(tmp_path):
    for name in ("sightline", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    words = pool_module.OUR_CODE + "import json, sightline; print(sightline.__file__); print(json.__file__)"
    command = [sys.executable, "-P", "-B", "-c", words, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0] == str(tmp_path / "sightline" / "__init__.py"), "another one is installed here"
    assert not said[1].startswith(str(tmp_path)), "Python's own modules are its own"
