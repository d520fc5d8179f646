"""Keys that callers show, and the sessions that browsers get for one. Both are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from sightline.errors import ConfigError
from sightline.server.addresses import listed

COOKIE: Final = "sightline_session"
MIN_KEY_CHARS: Final = 16
"""Shorter keys can be guessed over the network."""
MAX_SESSIONS: Final = 256
"""Browsers logged in at once; the one that came first has to log in again."""
SESSION_S: Final = 7 * 24 * 3600
"""Seconds a session lasts."""
MAX_SHOWN_BYTES: Final = 1024
"""Bytes of a key or token that are looked at."""


def keys_of(setting: str) -> tuple[str, ...]:
    """The keys of ``serve_keys``.

    Raises:
        ConfigError: a key that is too short, or that no header can carry. The text does not hold it.
    """
    keys = listed(setting)
    for position, key in enumerate(keys, 1):
        if len(key) < MIN_KEY_CHARS:
            raise ConfigError(f"serve_keys: key {position} is shorter than {MIN_KEY_CHARS} characters")
        if len(key) > MAX_SHOWN_BYTES or not all("!" <= char <= "~" for char in key):
            raise ConfigError(f"serve_keys: key {position} may hold ASCII letters, digits and signs only, no spaces")
    return keys


def _digest(secret: bytes) -> bytes:
    # of one length whatever was given, so that a comparison tells nothing about it
    return hashlib.sha256(secret[: MAX_SHOWN_BYTES + 1]).digest()


class Keys:
    """The keys that open the server; none at all means that no key is asked."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key.encode()) for key in keys)

    @property
    def asked(self) -> bool:
        """Whether callers need a key."""
        return bool(self._digests)

    def fits(self, key: bytes) -> bool:
        """Whether this is one of the keys."""
        given = _digest(key)
        found = False
        for digest in self._digests:  # all of them, so that the time does not tell which
            found |= hmac.compare_digest(given, digest)
        return found


def bearer(values: Sequence[bytes]) -> bytes | None:
    """The key of an ``Authorization`` header; None for none, for several, and for other schemes.

    >>> bearer([b"Bearer abc"]), bearer([b"Bearer  abc"]), bearer([b"Basic abc"]), bearer([b"Bearer a", b"Bearer b"])
    (b'abc', None, None, None)
    """
    if len(values) != 1:
        return None
    scheme, _, key = values[0].partition(b" ")
    if scheme.lower() != b"bearer" or not key or any(byte <= 32 or byte >= 127 for byte in key[:MAX_SHOWN_BYTES]):
        return None
    return key


def cookies(values: Sequence[bytes], name: str = COOKIE) -> list[bytes]:
    """What the cookies of one name hold; a browser may send several.

    >>> cookies([b"a=1; sightline_session=x; sightline_session=y"])
    [b'x', b'y']
    """
    found = []
    for value in values:
        for part in value[:8192].split(b";"):
            key, is_there, content = part.strip().partition(b"=")
            if is_there and key == name.encode() and content:
                found.append(content)
    return found[:4]


class Sessions:
    """Browsers that have shown a key. Only digests of their tokens are kept, and only in memory.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._ends: dict[bytes, float] = {}
        self._clock = clock

    def open(self) -> str:
        """A token for a new session."""
        now = self._clock()
        self._ends = {digest: end for digest, end in self._ends.items() if end > now}
        while len(self._ends) >= MAX_SESSIONS:
            self._ends.pop(next(iter(self._ends)))
        token = secrets.token_urlsafe(32)
        self._ends[_digest(token.encode())] = now + SESSION_S
        return token

    def knows(self, token: bytes) -> bool:
        """Whether a token is of a session that lasts."""
        given, now = _digest(token), self._clock()
        found = False
        for digest, end in self._ends.items():
            found |= hmac.compare_digest(given, digest) and end > now
        return found

    def close(self, token: bytes) -> None:
        """End a session."""
        self._ends.pop(_digest(token), None)

    def __len__(self) -> int:
        return len(self._ends)
