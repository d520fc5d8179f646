"""JSON over HTTP to one server: connections kept open, tries repeated, nothing followed, no secret in any text."""

from __future__ import annotations

import email.utils
import http.client
import json
import logging
import queue
import random
import ssl
import threading
import time
import urllib.parse
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sightline
from sightline.errors import ConfigError, RemoteError

logger = logging.getLogger(__name__)

RETRIED: Final = frozenset({429, 502, 503, 504})
"""Statuses that say "not now"."""
MAX_WAIT_S: Final = 60.0
"""A longer ``Retry-After`` is not waited for."""
MAX_ANSWER_BYTES: Final = 512 * 2**20
KEPT_CONNECTIONS: Final = 16
SHOWN_CHARS: Final = 200
"""Characters of a server's own words that are passed on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said.

    Attributes:
        status: of HTTP.
        value: the JSON document; None where there is none.
        retry_after_s: seconds after which the server wants to be asked again, or None.
    """

    status: int
    value: Any
    retry_after_s: float | None = None

    @property
    def code(self) -> str:
        """The error's code as OpenAI's and DashScope's shapes have it, or ""."""
        found = self._error.get("code")
        return found if isinstance(found, str) else ""

    @property
    def message(self) -> str:
        """The error's message in one short line, or ""."""
        found = self._error.get("message")
        line = " ".join(found.split()) if isinstance(found, str) else ""
        return "".join(char for char in line if char.isprintable())[:SHOWN_CHARS]

    @property
    def _error(self) -> Mapping[str, Any]:
        if not isinstance(self.value, dict):
            return {}
        inner = self.value.get("error")
        return inner if isinstance(inner, dict) else self.value


@dataclass(slots=True, weakref_slot=True, eq=False)
class Caller:
    """Asks one server. Any thread may call.

    Attributes:
        url: base address; paths are put behind it.
        key: sent as ``Authorization: Bearer``, and nowhere else.
        timeout_s: for connecting and for each wait on the server.
        retries: tries after the first, when the server is busy or the connection breaks.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    retries: int = 5
    _idle: queue.LifoQueue[http.client.HTTPConnection] = field(
        default_factory=lambda: queue.LifoQueue(KEPT_CONNECTIONS), repr=False
    )
    _closed: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            _ = parts.port
        except ValueError:
            raise ConfigError("the address of the server is malformed") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError("the address of the server begins with http:// or https:// and names a host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ConfigError("the address of the server holds no user, query or fragment; a key is given as key=")
        if self.key is not None and not (self.key and self.key.isascii() and self.key.isprintable()):
            raise ConfigError("the key is one line of ASCII characters")
        if self.timeout_s <= 0 or self.retries < 0:
            raise ConfigError("timeout_s must be over 0 and retries at least 0")
        self.url = self.url.rstrip("/")
        weakref.finalize(self, _drain, self._idle)

    def get(self, path: str) -> Any:
        """The JSON document at a path. Raises ``RemoteError``."""
        return self.ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        """The JSON answer to a JSON body. Raises ``RemoteError``."""
        return self.ask("POST", path, json.dumps(body, allow_nan=False).encode(), headers)

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None = None) -> Any:
        """One question, asked until it is answered or the tries are spent.

        Raises:
            RemoteError: no answer, or another status than 2xx; carries the status and the server's code.
        """
        for attempt in range(self.retries + 1):
            last = attempt == self.retries
            try:
                answer = self._once(method, path, body, headers or {})
            except (OSError, http.client.HTTPException) as error:
                if last or isinstance(error, ssl.SSLCertVerificationError):
                    raise RemoteError(f"{self.url} cannot be reached ({type(error).__name__})") from None
                self._wait(attempt, None)
                continue
            if 200 <= answer.status < 300:
                return answer.value
            too_long = answer.retry_after_s is not None and answer.retry_after_s > MAX_WAIT_S
            if answer.status not in RETRIED or last or too_long:
                raise self._refusal(answer, path)
            logger.info("%s answered %d; trying again", self.url, answer.status)
            self._wait(attempt, answer.retry_after_s)
        raise AssertionError("the loop ends by itself")

    def close(self) -> None:
        """Close the connections that are kept open. May be called twice."""
        self._closed.set()
        _drain(self._idle)

    def _refusal(self, answer: Answer, path: str) -> RemoteError:
        words = {
            401: "refuses the key" if self.key else "asks for a key: key=…",
            403: "refuses the key" if self.key else "asks for a key: key=…",
            404: f"has nothing at {path}, or not this model",
            429: "is busy and stays busy",
        }
        text = f"{self.url} {words.get(answer.status, f'answered {answer.status}')}"
        said = answer.message
        if said and not (self.key and self.key in said):
            text += f": {said}"
        return RemoteError(text, status=answer.status, code=answer.code)

    def _wait(self, attempt: int, retry_after_s: float | None) -> None:
        """What the server asks for, else half a second doubled each time, with jitter so that callers spread."""
        wait_s = retry_after_s if retry_after_s is not None else min(0.5 * 2**attempt, 16.0)
        self._closed.wait(wait_s * (1 + random.random() / 4))  # noqa: S311 - no secret hangs on it

    def _once(self, method: str, path: str, body: bytes | None, more: Mapping[str, str]) -> Answer:
        connection = self._take()
        headers = {"User-Agent": f"sightline/{sightline.__version__}", "Accept": "application/json", **more}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, urllib.parse.urlsplit(self.url).path + path, body, headers)
            response = connection.getresponse()
            data = response.read(MAX_ANSWER_BYTES + 1)
        except BaseException:  # whatever it was, the connection is in an unknown state
            connection.close()
            raise
        if len(data) > MAX_ANSWER_BYTES:
            connection.close()
            raise RemoteError(f"{self.url} answered with too much", status=response.status)
        self._give_back(connection, keep=not response.will_close)
        try:
            value = json.loads(data) if data else None
        except ValueError:
            if 200 <= response.status < 300:
                raise RemoteError(
                    f"{self.url} answered something that is not JSON; is it the right address?", status=response.status
                ) from None
            value = None
        return Answer(response.status, value, _retry_after(response.getheader("Retry-After")))

    def _take(self) -> http.client.HTTPConnection:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            parts = urllib.parse.urlsplit(self.url)
            host = parts.hostname or ""
            if parts.scheme == "https":
                context = ssl.create_default_context()
                return http.client.HTTPSConnection(host, parts.port, timeout=self.timeout_s, context=context)
            return http.client.HTTPConnection(host, parts.port, timeout=self.timeout_s)

    def _give_back(self, connection: http.client.HTTPConnection, *, keep: bool) -> None:
        if keep and not self._closed.is_set():
            try:
                self._idle.put_nowait(connection)
                return
            except queue.Full:
                pass
        connection.close()


def _drain(idle: queue.LifoQueue[http.client.HTTPConnection]) -> None:
    while True:
        try:
            idle.get_nowait().close()
        except queue.Empty:
            return


def _retry_after(text: str | None) -> float | None:
    """Seconds of a ``Retry-After`` header, which holds seconds or a date.

    >>> _retry_after("2"), _retry_after("soon"), _retry_after(None)
    (2.0, None, None)
    """
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
