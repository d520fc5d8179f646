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

from sightline.errors import MediaError
from sightline.media import pool as pool_module, units, wire
from sightline.media.pool import DecodePool
from sightline.media.units import UnitError
from sightline.settings import Settings
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


def trap(monkeypatch, body):
    """Children run ``body`` when asked for a file whose name begins with "trap"."""
    source = textwrap.dedent(f"""
        import sys; sys.path.append(sys.argv[1])
        from sightline.media import units
        real = units.units
        def trapped(path, settings):
            if "trap" in path:
                yield units.Unit(kind="text", text="before")
                {body}
            yield from real(path, settings)
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
                found.append("NoNewPrivs:\\t1" if "NoNewPrivs:\\t1" in open("/proc/self/status").read() else "")
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
            assert found[5] == "NoNewPrivs:\t1"
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
