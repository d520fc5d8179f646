"""Where bytes come from: a path, an address or bytes, with limits that hold before anything is read.

Only regular files are opened: a FIFO or a device would block for ever. A file is looked at before and after it is
read, and a change in between is an error (``changed``), so that what was hashed is what was decoded.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import ipaddress
import os
import re
import socket
import ssl
import stat
import threading
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, TypeAlias

from sightline.errors import MediaError
from sightline.media.sniff import HEAD_BYTES, Sniffed, sniff
from sightline.settings import Settings
from sightline.types import PathLike

ByteSource: TypeAlias = PathLike | bytes | bytearray | memoryview
"""A path, a ``file:``, ``data:``, ``http:`` or ``https:`` address, or the bytes themselves."""

CHUNK_BYTES: Final = 2**20
"""Bytes read at a time."""
PORTS: Final = {"http": 80, "https": 443}
"""The only schemes that are fetched, with the only ports."""
_HOST_NAME: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]{0,252})|[0-9a-f:.]{2,45}")
MAX_REDIRECTS: Final = 3
"""Redirects followed, on the same host only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """An open source.

    Attributes:
        file: seekable, at its start.
        size: bytes.
        name: file name, or "".
        sniffed: what it is.
    """

    file: BinaryIO
    size: int
    name: str
    sniffed: Sniffed


def is_url(source: object) -> bool:
    """Whether a source is an address that would be fetched.

    >>> is_url("https://example.org/a.png"), is_url("a.png")
    (True, False)
    """
    return isinstance(source, str) and source[:8].lower().startswith(("http://", "https://"))


def local_path(source: PathLike) -> str:
    """The path of a source: a ``file:`` address is turned into one."""
    path = os.fsdecode(source)
    if path[:5].lower() != "file:":
        return path
    parts = urllib.parse.urlsplit(path)
    if parts.netloc not in {"", "localhost"}:
        raise MediaError("unreadable", "a file: address must be of this machine")
    return urllib.parse.unquote(parts.path)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    # the time of change cannot be set back as the time of modification can
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextmanager
def open_regular(path: PathLike, max_bytes: int | None = None) -> Iterator[tuple[BinaryIO, int]]:
    """An open regular file and its size.

    Raises:
        MediaError: ``not_file``, ``unreadable``, ``too_large``, or ``changed`` when the block ends, well or with a
            ``MediaError``, and the file is not what it was.
    """
    try:
        before = Path(path).stat()
        if not stat.S_ISREG(before.st_mode):
            raise MediaError("not_file")
        # O_NONBLOCK: if a FIFO takes the file's place between the two calls, opening it does not wait
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):
        raise MediaError("unreadable") from None
    with os.fdopen(descriptor, "rb", buffering=CHUNK_BYTES) as file:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            raise MediaError("not_file")
        if max_bytes is not None and opened.st_size > max_bytes:
            raise MediaError("too_large")
        try:
            yield file, opened.st_size
        except (OSError, MediaError) as error:
            if not _is_still(opened, path, descriptor):  # a file half written is no broken file
                raise MediaError("changed") from None
            raise error if isinstance(error, MediaError) else MediaError("unreadable") from None
        if not _is_still(opened, path, descriptor):
            raise MediaError("changed")


def _is_still(opened: os.stat_result, path: PathLike, descriptor: int) -> bool:
    """Whether the path leads to the file that was opened, and nothing was written to it."""
    try:
        now = (os.fstat(descriptor), Path(path).stat())
    except OSError:
        return False
    return all(_signature(status) == _signature(opened) for status in now)


def limit_of(kind: str, settings: Settings) -> int | None:
    """Most bytes of a file of one kind; videos are read in parts and have no limit in bytes."""
    limits = {"image": settings.image_max_bytes, "pdf": settings.pdf_max_bytes, "text": settings.text_max_bytes}
    return limits.get(kind)


@contextmanager
def open_source(source: ByteSource, settings: Settings) -> Iterator[Opened]:
    """A source, open and recognised.

    Raises:
        MediaError: as ``open_regular``, ``sniff`` and ``fetch``.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield _opened(io.BytesIO(source), len(source), "", settings)
        return
    if isinstance(source, str) and (is_url(source) or source[:5].lower() == "data:"):
        data = read(source, settings)
        yield _opened(io.BytesIO(data), len(data), "", settings)
        return
    path = local_path(source)
    with open_regular(path) as (file, size):
        yield _opened(file, size, Path(path).name, settings)


@contextmanager
def open_descriptor(descriptor: int, name: str, settings: Settings) -> Iterator[Opened]:
    """A regular file that another process opened and handed over, recognised. Whether it changes, that one watches.

    Raises:
        MediaError: ``unreadable``, and as ``sniff``.
    """
    with os.fdopen(descriptor, "rb", buffering=CHUNK_BYTES) as file:
        try:
            file.seek(0)
            yield _opened(file, os.fstat(descriptor).st_size, name, settings)
        except OSError:
            raise MediaError("unreadable") from None


def _opened(file: IO[bytes], size: int, name: str, settings: Settings) -> Opened:
    head = file.read(HEAD_BYTES)
    file.seek(0)
    sniffed = sniff(head, name=name, whole=size <= len(head))
    limit = limit_of(sniffed.kind, settings)
    if limit is not None and size > limit:
        raise MediaError("too_large")
    return Opened(file=file, size=size, name=name, sniffed=sniffed)  # type: ignore[arg-type]


def read(source: ByteSource, settings: Settings) -> bytes:
    """All bytes of a source, at most ``image_max_bytes``.

    Raises:
        MediaError: as ``open_regular`` and ``fetch``; ``not_media`` for a ``data:`` address that is not base64.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) > settings.image_max_bytes:
            raise MediaError("too_large")
        return bytes(source)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _data_url(source, settings.image_max_bytes)
    if isinstance(source, str) and is_url(source):
        return fetch(source, settings)
    with open_regular(local_path(source), settings.image_max_bytes) as (file, _):
        return file.read(settings.image_max_bytes)


def _data_url(source: str, max_bytes: int) -> bytes:
    header, comma, body = source.partition(",")
    if not comma or len(header) > 200 or not header.lower().endswith(";base64"):
        raise MediaError("not_media", "a data: address must hold base64")
    if len(body) * 3 // 4 > max_bytes + 2:
        raise MediaError("too_large")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("not_media", "a data: address must hold base64") from None


# -- addresses -------------------------------------------------------------------------------------------------------


def check_address(address: str) -> None:
    """Refuse an IP address that is not of the public internet.

    Raises:
        MediaError: ``unreadable``.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if wrapped is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            check_address(str(wrapped))
            if ip.ipv4_mapped is None:
                return
            ip = wrapped
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        raise MediaError("unreadable", "the address is not of the public internet")


def _parse(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, target) of an address; anything two parsers could read in two ways is refused."""
    if any(char in url for char in "\\ \t\r\n\x00") or not url.isascii() or len(url) > 4096:
        raise MediaError("unreadable", "the address is malformed")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise MediaError("unreadable", "the address is malformed") from None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
    if not _HOST_NAME.fullmatch(host):
        raise MediaError("unreadable", "the address is malformed")
    if scheme not in PORTS or "@" in parts.netloc or (port or PORTS[scheme]) != PORTS[scheme]:
        raise MediaError("unreadable", "only plain http and https addresses on their own ports are fetched")
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    return scheme, host, PORTS[scheme], target


def _resolve(host: str, port: int, deadline: float) -> str:
    """One address of a host, after every address it resolves to was checked."""
    answer: Future[set[str]] = Future()

    def ask() -> None:
        try:
            answer.set_result({str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)})
        except Exception as error:  # handed to the one who waits
            answer.set_exception(error)

    # the system's own lookup has no deadline; one that is late ends by itself, and nobody waits for it
    threading.Thread(target=ask, name="sightline-lookup", daemon=True).start()
    try:
        found = answer.result(max(deadline - time.monotonic(), 0.1))
    except TimeoutError:
        raise MediaError("timeout") from None
    except (OSError, UnicodeError):
        raise MediaError("unreadable", "the host is unknown") from None
    for address in found:
        check_address(address)
    return sorted(found, key=lambda address: ":" in address)[0]


class _PinnedHttp(http.client.HTTPConnection):
    """Connects to one address that was checked, whatever the name resolves to by now."""

    def __init__(self, host: str, port: int, address: str, timeout: float, *, tls: bool) -> None:
        super().__init__(host, port, timeout=timeout)
        self._address = address
        self._tls = tls
        self._wire: Any = None

    def connect(self) -> None:
        self.sock: Any = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
        # http.client lets go of its socket when the answer has no length; the answer still reads from it
        self._wire = self.sock

    def cut_off(self) -> None:
        """End whatever waits for the other side."""
        wire = self._wire or self.sock
        if wire is not None:
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)


def check_url(url: str, settings: Settings) -> tuple[str, str, int, str]:
    """What ``fetch`` asks of an address before it looks its host up.

    Returns:
        scheme, host, port, target.

    Raises:
        MediaError: ``url_off`` unless URLs are fetched, and from this host; ``unreadable``.
    """
    if not settings.allow_urls:
        raise MediaError("url_off")
    scheme, host, port, target = _parse(url)
    allowed = {name.strip().lower().rstrip(".") for name in settings.url_hosts.split(",")} - {""}
    if allowed and host not in allowed:
        raise MediaError("url_off", "nothing is fetched from this host")
    return scheme, host, port, target


def fetch(url: str, settings: Settings) -> bytes:
    """The bytes at an http or https address.

    The name is resolved once, every address it has must be public, and the connection goes to the address that
    was checked. Redirects stay on the host.

    Raises:
        MediaError: ``url_off`` unless ``settings.allow_urls``; ``unreadable``, ``too_large`` or ``timeout``.
    """
    scheme, host, port, target = check_url(url, settings)
    deadline = time.monotonic() + settings.url_timeout_s
    address = _resolve(host, port, deadline)
    for _ in range(MAX_REDIRECTS + 1):
        status, place, body = _get(scheme, host, port, address, target, deadline, settings.url_max_bytes)
        if status == 200:
            return body
        if status not in {301, 302, 303, 307, 308} or not place:
            raise MediaError("unreadable", "the server did not give the file")
        new_scheme, new_host, port, target = _parse(urllib.parse.urljoin(f"{scheme}://{host}{target}", place))
        if new_host != host or (scheme == "https" and new_scheme != "https"):
            raise MediaError("unreadable", "the server redirects to another host")
        scheme = new_scheme
    raise MediaError("unreadable", "too many redirects")


def _get(
    scheme: str, host: str, port: int, address: str, target: str, deadline: float, max_bytes: int
) -> tuple[int, str, bytes]:
    left = max(deadline - time.monotonic(), 0.1)
    connection = _PinnedHttp(host, port, address, left, tls=scheme == "https")
    # the timeout of a socket is for each read: a server that gives a byte a second would never reach it
    timer = threading.Timer(left, connection.cut_off)
    timer.daemon = True
    timer.start()
    closing = ExitStack()
    try:
        connection.request("GET", target, headers={"User-Agent": "sightline", "Accept-Encoding": "identity"})
        response = connection.getresponse()
        closing.callback(response.close)
        if response.status != 200:
            return response.status, response.getheader("Location") or "", b""
        if int(response.getheader("Content-Length") or 0) > max_bytes:
            raise MediaError("too_large")
        body = response.read(max_bytes + 1)
        if len(body) > max_bytes:
            raise MediaError("too_large")
        if time.monotonic() >= deadline:
            raise MediaError("timeout", "fetching took too long")
        return 200, "", body
    except (OSError, http.client.HTTPException, ValueError):
        if time.monotonic() >= deadline:
            raise MediaError("timeout", "fetching took too long") from None
        raise MediaError("unreadable", "the address cannot be fetched") from None
    finally:
        timer.cancel()
        closing.close()
        connection.close()
