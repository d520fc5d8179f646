"""A file that stands in line: its decoder is told of it before the file in front is read."""

import os
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from sightline import Library
from sightline.errors import MediaError
from sightline.media import pool as pool_module, units
from sightline.media.child import HANDS_OVER
from sightline.media.pool import DecodePool
from sightline.search.reading import Reading, Settled
from sightline.settings import Settings
from sightline.testing import ToyEmbedder
from tests.media.test_pool import child_of, places, same, trap, trap_pages

read: Any = units.units
Pool: Any = DecodePool

pytestmark = pytest.mark.skipif(not HANDS_OVER, reason="files go by name here, one after the other: there is no line")


@pytest.fixture
def trap_file(tmp_path):
    """The file that children are asked for in vain."""
    path = tmp_path / "trap"
    path.write_text("trap")
    return path


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("A red bicycle.")
    return path


@pytest.fixture
def photo(tmp_path):
    """Large enough to go through the common memory."""
    path = tmp_path / "photo.png"
    Image.fromarray(np.arange(200 * 300 * 3, dtype=np.uint32).astype(np.uint8).reshape(200, 300, 3)).save(path)
    return path


def outcome(values):
    """What there is, and the code that it ends with."""
    found: list[Any] = []
    try:
        for value in values:
            found.append(value)  # noqa: PERF402 - what came before the error counts
    except MediaError as error:
        found.append(error.code)
    return found


def in_line(pool, paths):
    """(path, outcome) of each file, the next one told before each is read."""
    coming = pool.units(paths[0])
    for path, following in pairwise([*paths, None]):
        now, coming = coming, None
        if following is not None:
            coming = now.next_file(following)
        yield path, outcome(now)


def expected(path, settings):
    return outcome(read(path, settings))


def equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == other if isinstance(one, str) else same(one, other) if hasattr(one, "pixels") else one == other
    return True


def line_of(pool):
    """How many files the only child was told of."""
    (child,) = pool._alive
    return len(child.line)


def test_the_child_is_told_of_one_more_file_and_gives_both_in_order(note, photo):
    with Pool() as pool:
        first = pool.units(photo)
        second = first.next_file(note)
        third = second.next_file(photo)
        assert line_of(pool) == 2, "one is read, one stands behind it"
        assert equal(list(first), expected(photo, pool.settings))
        assert line_of(pool) == 1
        pid = child_of(pool)
        assert equal(list(second), expected(note, pool.settings))
        assert equal(list(third), expected(photo, pool.settings))
        assert child_of(pool) == pid


def test_answers_are_not_mixed_up_between_files_and_callers(make_pdf, note, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(pool_module, "FILES_PER_CHILD", 7)
    rng = np.random.default_rng(0)
    paths = [note, photo, tmp_path / "none", tmp_path]
    for number in range(8):
        for name, side in (("small", 30), ("medium", 300)):
            path = tmp_path / f"{name}-{number}.png"
            Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
            paths.append(path)
        (tmp_path / f"{number}.pdf").write_bytes(make_pdf([f"{number} {page}" for page in range(4)]))
        (tmp_path / f"{number}.md").write_text(f"words of {number}")
        (tmp_path / f"bad-{number}.png").write_bytes(photo.read_bytes()[: 100 + number])
        (tmp_path / f"empty-{number}").write_bytes(b"")
        paths += [tmp_path / name for name in (f"{number}.pdf", f"{number}.md", f"bad-{number}.png", f"empty-{number}")]
    wanted = {path: expected(path, Settings()) for path in paths}
    orders = [[paths[place] for place in np.random.default_rng(seed).permutation(len(paths))] for seed in range(3)]
    wrong: list[Any] = []
    with Pool(workers=3) as pool:

        def go(order):
            try:
                seen = [equal(found, wanted[path]) for path, found in in_line(pool, order)]
                assert len(seen) == len(order)
            except AssertionError as error:
                wrong.append(error)

        threads = [threading.Thread(target=go, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and len(pool._alive) <= 3
        assert all(not child.line for child in pool._alive)


def test_large_pictures_behind_each_other_keep_their_pixels(tmp_path):
    paths = []
    for number in range(5):
        pixels = np.full((4000, 4000, 3), number, np.uint8)
        pixels[::2] += 100
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1], compress_level=1)
    with Pool() as pool:
        for number, (_, (unit,)) in enumerate(in_line(pool, paths)):
            time.sleep(0.1)  # the child is at the next
            assert (unit.pixels[1::2] == number).all() and (unit.pixels[::2] == number + 100).all()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("import os; os.abort()", "crash"),
        ("import time; time.sleep(60)", "timeout"),
        ("raise MemoryError", "memory"),
        ("import gc, os; [os.write(fd, b'x' * 99) for fd in range(3, 9)]", "crash"),
    ],
)
def test_what_ends_the_child_in_front_costs_the_file_in_front_alone(body, code, monkeypatch, trap_file, note, photo):
    trap(monkeypatch, body)
    with Pool(Settings(decode_timeout_s=2)) as pool:
        for _, found in in_line(pool, [note, trap_file, photo, trap_file, trap_file, note]):
            assert len(pool._alive) <= 1
            if found[0].text == "before":
                assert found[1:] == [code]
            else:
                assert equal(found, expected(photo if found[0].pixels is not None else note, pool.settings))


def test_a_child_that_dies_of_the_next_file_has_given_the_one_in_front(monkeypatch, trap_file, note, photo):
    trap(monkeypatch, "import os; os.abort()")
    with Pool() as pool:
        first = pool.units(photo)
        second = first.next_file(trap_file)
        (child,) = pool._alive
        child._process.wait(20)
        assert equal(list(first), expected(photo, pool.settings))
        assert outcome(second)[1:] == ["crash"]
        assert equal(list(pool.units(note)), expected(note, pool.settings))


def test_pages_behind_one_that_ended_its_child_come_before_the_next_file(monkeypatch, make_pdf, note, photo, tmp_path):
    trap_pages(monkeypatch, "if number == 2: os.abort()")
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["one", "two", "three"]))
    with Pool() as pool:
        found = [found for _, found in in_line(pool, [photo, path, note, path, path, photo])]
        assert len(pool._alive) == 1
    for place in (1, 3, 4):
        assert places(found[place]) == [1, (2, "crash"), 3]
    assert [unit.text for unit in found[2]] == ["A red bicycle."]
    assert equal(found[0], found[5])


def test_a_file_told_of_while_a_document_goes_on_with_another_child(monkeypatch, make_pdf, note, tmp_path):
    trap_pages(monkeypatch, "if number == 2: os.abort()")
    path = tmp_path / "a.pdf"
    path.write_bytes(make_pdf(["one", "two", "three"]))
    with Pool() as pool:
        first = pool.units(path)
        found = [next(first), next(first)]
        second = first.next_file(note)
        assert places([*found, *first]) == [1, (2, "crash"), 3], "no page is tried again"
        assert equal(list(second), expected(note, pool.settings))


def test_a_stream_given_up_in_front_costs_the_next_nothing(make_pdf, note, tmp_path):
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 50))
    with Pool() as pool:
        first = pool.units(tmp_path / "a.pdf")
        next(first)
        second = first.next_file(note)
        pid = child_of(pool)
        first.close()
        assert not psutil.pid_exists(pid)
        assert equal(list(second), expected(note, pool.settings))


@pytest.mark.parametrize("when", ["before", "behind", "never read"])
def test_nobody_gets_the_answers_to_a_file_that_is_not_wanted_any_more(when, make_pdf, note, photo, tmp_path):
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 5))
    with Pool() as pool:
        list(pool.units(note))
        files = psutil.Process().num_fds()
        first = pool.units(photo)
        second = first.next_file(tmp_path / "a.pdf")
        if when == "before":
            second.close()
        if when != "never read":
            assert equal(list(first), expected(photo, pool.settings))
        first.close()
        second.close()
        assert not list(second)
        assert not pool._alive, "its answers are on their way, and it ends with them"
        assert equal(list(pool.units(note)), expected(note, pool.settings))
        assert psutil.Process().num_fds() == files


def test_the_time_of_a_file_counts_from_its_turn(monkeypatch, make_pdf, trap_file, tmp_path):
    trap(monkeypatch, "import time; time.sleep(2); return")
    (tmp_path / "a.pdf").write_bytes(make_pdf(["x"] * 8))
    with Pool(Settings(decode_timeout_s=4)) as pool:
        first = pool.units(tmp_path / "a.pdf")
        second = first.next_file(trap_file)
        for _ in first:
            time.sleep(0.7)  # a reader that is slow: the child waits for it, and begins with the next file late
        assert [unit.text for unit in second] == ["before"]


def test_a_file_that_went_or_changed_while_it_stood_in_line(note, photo, tmp_path):
    gone, changed = tmp_path / "gone.txt", tmp_path / "changed.txt"
    for path in (gone, changed):
        path.write_text("words")
    with Pool() as pool:
        first = pool.units(photo)
        second = first.next_file(gone)
        gone.unlink()
        list(first)
        third = second.next_file(changed)
        assert outcome(second)[-1] == "changed"
        changed.write_text("other words")
        fourth = third.next_file(tmp_path / "none")
        assert outcome(third)[-1] == "changed"
        assert outcome(fourth) == ["unreadable"]
        assert equal(list(pool.units(note)), expected(note, pool.settings))


def test_a_file_met_while_it_is_written_anew_is_changed_and_not_empty(note, photo):
    with Pool() as pool:
        first = pool.units(photo)
        second = first.next_file(note)
        os.truncate(note, 0)  # what its writer begins with
        assert outcome(first)
        assert outcome(second) == ["changed"]


def test_children_are_replaced_after_many_files_in_line_too(note, monkeypatch):
    monkeypatch.setattr(pool_module, "FILES_PER_CHILD", 3)
    with Pool() as pool:
        seen: Any = []
        for _ in in_line(pool, [note] * 8):
            seen += [child._process.pid for child in pool._alive if child._process.pid not in seen]
            assert len(pool._alive) <= 1
        assert len(seen) == 3


def test_closing_from_another_thread_ends_both(monkeypatch, trap_file, note):
    trap(monkeypatch, "import time; time.sleep(60)")
    pool = Pool()
    first = pool.units(trap_file)
    second = first.next_file(note)
    pid = child_of(pool)
    thread = threading.Timer(0.5, pool.close)
    thread.start()
    start = time.monotonic()
    assert outcome(first)[-1] == "crash" and outcome(second) == ["crash"]
    assert time.monotonic() - start < 30
    thread.join()
    assert not psutil.pid_exists(pid) and not pool._alive


def test_the_next_file_of_one_that_is_read_to_its_end_starts_by_itself(note, photo):
    with Pool() as pool:
        first = pool.units(note)
        list(first)
        second = first.next_file(photo)
        assert not list(first)
        assert equal(list(second), expected(photo, pool.settings))


# -- in an index


def test_indexing_has_one_file_in_line_and_one_child(monkeypatch, tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(20):
        (tmp_path / "files" / f"{number:02}.txt").write_text(f"words of {number}")
    lines: Any = []
    most: Any = []
    real, take = pool_module._Child.receive, Pool._take

    def receive(self, timeout_s):
        lines.append(len(self.line))
        return real(self, timeout_s)

    def taken(self):
        child = take(self)
        most.append(len(self._alive))
        return child

    monkeypatch.setattr(pool_module._Child, "receive", receive)
    monkeypatch.setattr(Pool, "_take", taken)
    with Library.open(tmp_path / "index", embedder=ToyEmbedder()) as library:
        report = library.add([tmp_path / "files"])
    assert (report.seen, report.indexed, report.skipped) == (20, 20, ())
    assert set(most) == {1}, "one decoder, as decode_workers says"
    assert lines.count(2) >= 19, "all but the last are read while the next one stands in line"


def test_a_file_behind_one_that_ends_its_child_is_indexed_and_not_counted_as_tried(monkeypatch, tmp_path):
    source = """
import os, sys; sys.path.append(sys.argv[1])
from sightline.media import units
real = units.units
units.units = lambda path, *rest: os.abort() if path.startswith("trap") else real(path, *rest)
from sightline.media.child import main
main(int(sys.argv[2]))
"""
    monkeypatch.setattr(pool_module, "_START", source)
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("a.txt", "trap-1.txt", "trap-3.txt", "u.txt", "v.txt"):
        (folder / name).write_text(f"words of {name}")
    (folder / "trap-2.txt").write_bytes(b"")
    order: Any = []
    tell = Reading._tell

    def told(self, message, num_bytes=0):
        path = message.path if isinstance(message, Settled) else message.job.path
        order.append((Path(path).name, type(message).__name__))
        tell(self, message, num_bytes)

    monkeypatch.setattr(Reading, "_tell", told)
    with Library.open(tmp_path / "index", embedder=ToyEmbedder()) as library:
        report = library.add([folder])
        skipped = sorted((Path(one.path).name, one.code) for one in report.skipped)
        states = {Path(state.path).name: state for state in library.files()}
    assert skipped == [("trap-1.txt", "crash"), ("trap-2.txt", "empty"), ("trap-3.txt", "crash")]
    assert order == sorted(order, key=lambda told: told[0]), "files are told in the order in which they were found"
    assert (report.seen, report.indexed, report.deferred) == (6, 3, 0)
    for name in ("a.txt", "u.txt", "v.txt"):
        assert (states[name].status, states[name].attempts) == ("done", 1)
