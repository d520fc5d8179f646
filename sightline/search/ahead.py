"""A queue between the thread that decodes and the thread that embeds, bounded by bytes.

Pictures differ in size by a factor of a thousand, so counting them would bound nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

Message = TypeVar("Message")

AHEAD_BYTES: Final = 256 * 2**20
"""Decoded pixels and text that may wait for the model."""
AHEAD_MESSAGES: Final = 4_096
POLL_S: Final = 0.1
"""How long a wait may go without looking whether to stop."""


class Ahead(Generic[Message]):
    """First in, first out; ``put`` waits while too much is inside, ``get`` waits while nothing is.

    One message may always enter an empty queue, however large it is.
    """

    def __init__(self, max_bytes: int = AHEAD_BYTES, max_messages: int = AHEAD_MESSAGES) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._messages: deque[tuple[Message, int]] = deque()
        self._num_bytes = 0
        self._closed = False
        self._error: BaseException | None = None
        self._change = threading.Condition()

    def put(self, message: Message, num_bytes: int, stopped: Callable[[], bool]) -> bool:
        """Put a message in; False when ``stopped`` came true first."""
        with self._change:
            while self._messages and (
                self._num_bytes + num_bytes > self._max_bytes or len(self._messages) >= self._max_messages
            ):
                if stopped():
                    return False
                self._change.wait(POLL_S)
            if stopped():
                return False
            self._messages.append((message, num_bytes))
            self._num_bytes += num_bytes
            self._change.notify_all()
            return True

    def get(self, stopped: Callable[[], bool]) -> Message | None:
        """The next message; None when the queue is closed and empty, or ``stopped`` came true.

        Raises:
            BaseException: what ``close`` was given, once everything before it was taken.
        """
        with self._change:
            while not stopped() and not self._messages:
                if self._closed:
                    if self._error is not None:
                        raise self._error
                    return None
                self._change.wait(POLL_S)
            if stopped():
                return None
            message, num_bytes = self._messages.popleft()
            self._num_bytes -= num_bytes
            self._change.notify_all()
            return message

    def close(self, error: BaseException | None = None) -> None:
        """Nothing more comes."""
        with self._change:
            self._closed = True
            self._error = error
            self._change.notify_all()
