"""One writer per folder; the lock of the dead is taken over."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sightline.errors import IndexLockedError, StoreError
from sightline.store.lock import LOCK_NAME, WriterLock, read_owner


def hold(child: Path, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, str(child), "hold", str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_owner_is_named(tmp_path: Path, child: Path) -> None:
    process = hold(child, tmp_path)
    try:
        owner = read_owner(tmp_path)
        assert owner is not None and owner["pid"] == process.pid and owner["host"] and owner["started"]
        begin = time.monotonic()
        with (
            pytest.raises(IndexLockedError, match=rf"locked by pid {process.pid} on .* since \d{{4}}-"),
            WriterLock(tmp_path),
        ):
            pass
        assert time.monotonic() - begin < 1
        with pytest.raises(IndexLockedError, match=f"pid {process.pid}"), WriterLock(tmp_path, timeout_s=0.2):
            pass
    finally:
        process.kill()
        process.communicate()


def test_the_lock_of_a_dead_owner_is_taken_over(tmp_path: Path, child: Path) -> None:
    for _ in range(3):
        process = hold(child, tmp_path)
        process.kill()
        process.communicate()
        with WriterLock(tmp_path):
            owner = read_owner(tmp_path)
            assert owner is not None and owner["pid"] == os.getpid()


def test_waiting_gets_the_lock_when_it_comes_free(tmp_path: Path) -> None:
    first = WriterLock(tmp_path)
    first.__enter__()
    taken = threading.Event()

    def wait() -> None:
        with WriterLock(tmp_path, timeout_s=10):
            taken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not taken.wait(0.2)
    first.__exit__(None, None, None)
    thread.join()
    assert taken.is_set()


def test_it_may_be_entered_again_but_not_by_another_handle(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path)
    with lock, lock:
        assert lock.depth == 2
        with pytest.raises(IndexLockedError, match=r"this process \(pid"), WriterLock(tmp_path):
            pass
    assert lock.depth == 0
    with WriterLock(tmp_path):
        pass


def test_threads_of_one_handle_take_turns(tmp_path: Path) -> None:
    lock, inside, most = WriterLock(tmp_path), [0], [0]

    def work() -> None:
        for _ in range(20):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0005)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


@pytest.mark.parametrize("text", ["", "garbage", "[]", "{}", '{"pid": "x"}', "\udcff"])
def test_an_unreadable_lock_file_is_no_obstacle(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert read_owner(tmp_path) is None
    with WriterLock(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), WriterLock(tmp_path):
        raise ZeroDivisionError
    with WriterLock(tmp_path):
        pass


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"), WriterLock(tmp_path / "none"):
        pass


def test_what_a_killed_owner_was_starting_may_hold_the_lock_a_moment_longer(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    held = os.open(tmp_path / LOCK_NAME, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    os.pwrite(held, json.dumps({"pid": dead.pid, "host": socket.gethostname(), "started": "now"}).encode(), 0)
    threading.Timer(0.3, os.close, [held]).start()
    with WriterLock(tmp_path):
        owner = read_owner(tmp_path)
        assert owner is not None and owner["pid"] == os.getpid()
