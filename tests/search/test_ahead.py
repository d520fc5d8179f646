"""The queue between decoding and the model."""

import threading
import time

import pytest

from sightline.search.ahead import Ahead


def never() -> bool:
    return False


def test_in_order_then_none() -> None:
    queue: Ahead[int] = Ahead()
    for number in range(3):
        assert queue.put(number, 1, never)
    queue.close()
    assert [queue.get(never) for _ in range(4)] == [0, 1, 2, None]


def test_put_waits_for_room_and_one_large_message_always_enters() -> None:
    queue: Ahead[int] = Ahead(max_bytes=10)
    assert queue.put(1, 1000, never)
    entered = threading.Event()

    def enter() -> None:
        queue.put(2, 1, never)
        entered.set()

    threading.Thread(target=enter, daemon=True).start()
    assert not entered.wait(0.1)
    assert queue.get(never) == 1
    assert entered.wait(5)


def test_stopping_frees_both_sides() -> None:
    queue: Ahead[int] = Ahead(max_messages=1)
    queue.put(1, 1, never)
    start = time.monotonic()
    assert not queue.put(2, 1, lambda: True)
    queue.get(never)
    assert queue.get(lambda: True) is None
    assert time.monotonic() - start < 1


def test_a_stopped_queue_gives_nothing_more_however_much_waits() -> None:
    queue: Ahead[int] = Ahead()
    for number in range(3):
        queue.put(number, 1, never)
    assert queue.get(lambda: True) is None


def test_an_error_of_the_reader_comes_after_what_it_told() -> None:
    queue: Ahead[int] = Ahead()
    queue.put(1, 1, never)
    queue.close(ValueError("broken"))
    assert queue.get(never) == 1
    with pytest.raises(ValueError, match="broken"):
        queue.get(never)
