"""The decoder's process: takes an open file or bytes, gives units, and has as few rights as can be taken away.

Started by ``DecodePool``; not meant to be run by hand. What it gives up, ``sandbox`` says. Its environment holds no
keys, its standard input, output and error lead nowhere, and Ctrl-C is left to its parent.
"""

from __future__ import annotations

import array
import io
import os
import socket
from collections import deque
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from sightline.media import sandbox

if TYPE_CHECKING:
    from sightline.media.room import Filled

HANDS_OVER: Final = hasattr(socket, "send_fds")
"""Whether files come open through the pipe; else (Windows) the child opens them by their names."""
BUFFER_BYTES: Final = 2**16
"""Bytes taken from the socket at a time."""
SMALL_BYTES: Final = 2**15
"""Pixels up to here go through the pipe, with their header."""
Request: TypeAlias = tuple[dict[str, Any], Any, int | None]
"""Header, bytes (flat uint8), descriptor."""


class Requests:
    """What the parent asks: frames, with which an open file may come, and how much it has read of what it was given."""

    def __init__(self, number: int) -> None:
        self._socket = socket.socket(fileno=number) if HANDS_OVER else None
        self._pipe = None if HANDS_OVER else io.FileIO(number, "rb")
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._ready = self._buffer[:0]
        self._files: deque[int] = deque()
        self._waiting: deque[Request] = deque()
        self._num_read = 0

    def next(self) -> Request:
        """The next request."""
        while not self._waiting:
            self._receive()
        return self._waiting.popleft()

    def wait_until_read(self, number: int) -> None:
        """Wait until the parent has read so many units out of the common memory."""
        while self._num_read < number:
            self._receive()

    def _receive(self) -> None:
        from sightline.media import wire

        header, given = wire.receive(self)
        self._num_read = header["num_read"]
        if len(header) > 1:
            self._waiting.append((header, given, self._files.popleft() if header.get("file") else None))

    def readinto(self, buffer: Any, /) -> int | None:
        """Fill part of the buffer."""
        if self._socket is None:
            return self._pipe.readinto(buffer)  # type: ignore[union-attr]
        if not len(self._ready):
            if len(buffer) >= BUFFER_BYTES:  # within a frame, where no file comes
                return self._socket.recv_into(buffer)
            self._fill()
        taken = self._ready[: len(buffer)]
        buffer[: len(taken)] = taken
        self._ready = self._ready[len(taken) :]
        return len(taken)

    def _fill(self) -> None:
        # a read ends behind the first message that brings a file: there is never more than one
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        number, extra, _, _ = self._socket.recvmsg_into([self._buffer], room)  # type: ignore[union-attr]
        self._ready = self._buffer[:number]
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._files.extend(array.array("i", data[:4]))


class Answers:
    """What the parent is told."""

    def __init__(self, pipe: io.FileIO, requests: Requests) -> None:
        self._pipe = pipe
        self._requests = requests
        self.room: Filled | None = None

    def say(self, header: dict[str, Any]) -> None:
        """Words without pixels."""
        from sightline.media import wire

        wire.send(self._pipe, header)

    def give(self, value: Any, *, last: bool = False) -> None:
        """A unit or an error; ``last`` says that it is the end of the request too."""
        from sightline.media import wire

        header, pixels = wire.pack(value)
        if last:
            header["end"] = True
        if pixels is not None and (room := self._room_for(pixels.nbytes)) is not None:
            header["place"] = room.put(pixels)
            pixels = None
        wire.send(self._pipe, header, pixels)

    def canvas(self, num_bytes: int) -> memoryview | None:
        """The place where so many bytes of pixels go next, to be made there; None if they go through the pipe."""
        room = self._room_for(num_bytes)
        return None if room is None else room.next_place(num_bytes).data

    def _room_for(self, num_bytes: int) -> Filled | None:
        """The common memory with its next place free, if so many bytes go there."""
        from sightline.media.room import PLACES

        if self.room is None or num_bytes <= SMALL_BYTES or not self.room.fits(num_bytes):
            return None
        self._requests.wait_until_read(self.room.num_put + 1 - PLACES)
        return self.room


def _take_pipes() -> tuple[Requests, io.FileIO]:
    """The pipes of the parent on other numbers, so that nothing a decoder prints or reads touches them."""
    requests = Requests(os.dup(0))
    answers = io.FileIO(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    return requests, answers


def main(parent: int) -> None:
    """Answer requests until the parent closes its pipe."""
    requests, pipe = _take_pipes()
    held = sandbox.enter(parent, [os.fspath(PurePath(__file__).parents[1])])
    from sightline.errors import MediaError
    from sightline.media import wire
    from sightline.media.room import Filled
    from sightline.settings import Settings

    answers = Answers(pipe, requests)
    try:
        first, _, memory = requests.next()
        settings = Settings(**first["settings"])
        if memory is not None:
            answers.room = Filled(memory, first["place_bytes"])
            os.close(memory)
        held.memory = sandbox.limit_memory(settings.decode_memory_bytes)
        answers.say({"is": "ready", "held": held.as_dict()})
        while True:
            request = requests.next()
            try:
                if _answer(request, settings, answers):
                    continue
            except MediaError as error:
                answers.give(error)
            except MemoryError:
                answers.give(MediaError("memory"))
            answers.say({"is": "end"})
    except (wire.Broken, ConnectionError):
        return


def _answer(asked: Request, settings: Any, answers: Answers) -> bool:
    """Give the units that are asked for; whether their end was told with the last."""
    from sightline.media import units
    from sightline.types import Unit

    request, given, descriptor = asked
    if request["op"] in {"picture", "clip"}:
        answers.give(_given(request, given.tobytes(), settings), last=True)
        return True
    handed = units.Handed(
        descriptor=descriptor,
        first_page=request.get("first_page", 1),
        on_pages=lambda: answers.say({"is": "pages"}),
        copied=True,
        canvas=answers.canvas,
    )
    if request["op"] == "unit":
        place = (request["kind"], request["page"], request["start_s"], request["end_s"])
        answers.give(units.unit(request["path"], *place, settings, handed), last=True)
        return True
    values = units.units(request["path"], settings, handed)
    for value in values:
        if isinstance(value, Unit) and value.kind == "image":
            # a picture is all that is in its file: one message less, and one change of process
            for _ in values:
                raise RuntimeError("something came behind a picture")
            answers.give(value, last=True)
            return True
        answers.give(value)
    return False


def _given(request: dict[str, Any], data: bytes, settings: Any) -> Any:
    from sightline.media import given

    if request["op"] == "picture":
        return given.picture(data, settings)
    return given.clip(data, request["fps"], request["max_frames"], settings)
