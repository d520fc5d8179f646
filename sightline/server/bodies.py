"""The body of a request: counted and timed while it is read, and looked at before anything is built of it.

JSON is checked for what parsers disagree on or die of: depth, number of values, repeated keys, NaN, infinities,
numbers too great, NUL and lone surrogates. The scan keeps nothing and runs before the parser.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from starlette.types import Message, Receive

from sightline.server.faults import Fault

MAX_DEPTH: Final = 32
"""Levels of lists and objects in JSON; the deepest request of ours has eight."""
MAX_VALUES: Final = 200_000
"""Values in JSON: a value takes some 100 bytes once it is read, and the largest request of ours has some thousands."""
MAX_QUOTES: Final = 2_000_000
"""Quotation marks in JSON, those inside texts included: the scan takes a second for as many."""
SMALL_BYTES: Final = 64 * 1024
"""Bytes that are checked at once; more are checked in a thread."""
FORM_BYTES: Final = 4096
"""Bytes of a login form."""
HELD_REQUESTS: Final = 16
"""Whole bodies of the greatest size that may be in memory at once; smaller ones count for their size."""

# possessive, and an unfinished string ends with the body: no body makes it look at a byte twice
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_NUMBER: Final = re.compile(rb"NaN|Infinity")
_ESCAPED: Final = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


def check_json(body: bytes) -> None:
    """Refuse JSON that is malformed or made to hurt.

    Raises:
        Fault: 400.
    """
    if body.count(b'"') > MAX_QUOTES:
        raise _bad("holds too many values")
    skeleton = _STRING.sub(b'""', body)
    if skeleton.count(b",") + skeleton.count(b"[") + skeleton.count(b"{") > MAX_VALUES:
        raise _bad("holds too many values")
    depth = 0
    for byte in skeleton.translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            raise _bad("is nested too deeply")
        if depth < 0:
            raise _bad("is not valid JSON")
    if _NO_NUMBER.search(skeleton):
        raise _bad("holds a number that JSON has not")
    try:
        # the strict reading: json.loads of bytes would take lone surrogates and other encodings
        text = body.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_no_repeats, parse_float=_finite, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _bad("is not valid JSON") from None
    if _ESCAPED.search(body) and not all(_is_plain(string) for string in _strings(value)):
        raise _bad("holds NUL or half a character")


def _bad(what: str) -> Fault:
    return Fault(400, f"the body {what}", code="invalid_json")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _bad("holds a key twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _bad("holds a number that is too great")
    return value


def _no_constant(_: str) -> None:
    raise _bad("holds a number that JSON has not")


def _strings(value: Any) -> Iterator[str]:
    """Every string in a value that was read, keys included; the depth is bounded by now."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _strings(entry)


def _is_plain(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Purse:
    """Bytes of bodies that are in memory, over all requests.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def take(self, number: int) -> None:
        """Count bytes in.

        Raises:
            Fault: 429 when there is no room now.
        """
        if self.held + number > self.most:
            raise Fault(429, retry_s=1)
        self.held += number


class Intake:
    """Stands for the ``receive`` of one request: its body comes through within limits, or there is a fault.

    Args:
        receive: of the server.
        most: bytes of the body.
        seconds: from now until the body must be there.

    Attributes:
        fault: why the body was refused; None while all is well. Frameworks swallow what ``receive`` raises.
    """

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive = receive
        self._most = most
        self._end = asyncio.get_running_loop().time() + seconds
        self._left: Message | None = None
        self._over = False
        self._held: tuple[Purse, int] | None = None
        self.num_bytes = 0
        self.fault: Fault | None = None

    async def __call__(self) -> Message:
        """The next message."""
        if self._left is not None:
            message, self._left = self._left, None
            return message
        if self.fault is not None:
            raise self.fault
        if self._over:
            return await self._receive()
        return await self._next()

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError:
            raise self._refuse(Fault(408)) from None
        if message["type"] != "http.request":
            self._over = True
            return message
        self.num_bytes += len(message.get("body", b""))
        if self.num_bytes > self._most:
            raise self._refuse(Fault(413))
        self._over = not message.get("more_body", False)
        return message

    def _refuse(self, fault: Fault) -> Fault:
        self.fault = fault
        return fault

    async def whole(self, purse: Purse) -> bytes | None:
        """The whole body, kept to be given again; None when the caller has gone.

        Raises:
            Fault: 408, 413, or 429 when too many bodies are in memory.
        """
        chunks: list[bytes] = []
        self._held = (purse, 0)
        while not self._over:
            message = await self._next()
            if message["type"] != "http.request":
                return None
            chunk = message.get("body", b"")
            purse.take(len(chunk))
            self._held = (purse, self._held[1] + len(chunk))
            chunks.append(chunk)
        body = b"".join(chunks)
        self._left = {"type": "http.request", "body": body, "more_body": False}
        return body

    def close(self) -> None:
        """Let go of the body."""
        if self._held is not None:
            purse, number = self._held
            purse.held -= number
            self._held = None
        self._left = None
