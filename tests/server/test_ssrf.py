"""Addresses in requests: with the setting off nothing is sent anywhere, with it on only public hosts are spoken to.

A server on this machine stands for what must not be reached; it counts whoever comes.
"""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from sightline.errors import MediaError
from sightline.media import source
from sightline.server.attachments import Attachments
from sightline.settings import Settings


class Canary:
    """Listens on one port of this machine, IPv4 and UDP alike; counts connections, packets and look-ups of names."""

    def __init__(self) -> None:
        self.num_hits = 0
        self.answer = b""
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        for listen in (self._accept, self._receive):
            threading.Thread(target=listen, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._tcp.accept()
            except OSError:
                return
            self.num_hits += 1
            with caller, contextlib.suppress(OSError):
                caller.settimeout(5)
                caller.recv(65536)
                caller.sendall(self.answer)

    def _receive(self) -> None:
        while True:
            try:
                self._udp.recv(65536)
            except OSError:
                return
            self.num_hits += 1

    def close(self) -> None:
        for sock in (self._tcp, self._udp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@pytest.fixture
def canary(monkeypatch) -> Iterator[Canary]:
    """Every connection and every name of this process leads to the canary, so that none can be missed."""
    canary = Canary()
    real_connect, real_lookup = socket.socket.connect, socket.getaddrinfo

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            address = ("127.0.0.1", canary.port) if self.family == socket.AF_INET else ("::ffff:127.0.0.1", canary.port)
        real_connect(self, address)

    def lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "localtest.example":  # a name of the world that leads here, such as localtest.me
            host = "127.0.0.1"
        elif host == "metadata.google.internal":
            host = "169.254.169.254"
        elif isinstance(host, str) and host.endswith(".example"):
            host = "93.184.216.34"
        return real_lookup(host, *arguments, **options)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    yield canary
    canary.close()


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    return file.getvalue()


FORMS = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://0x7f000001/",
    "http://017700000001/",
    "http://[::1]/",
    "http://[::]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://localhost/",
    "http://localhost./",
    "http://LOCALHOST/",
    "http://localtest.example/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::80ff:fffe]/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://good.example\\@127.0.0.1/",
    "http://127.0.0.1\\@good.example/",
    "http://127.0.0.1#@good.example/",
    "http://good.example@127.0.0.1/",
    "http://127.0.0.1@good.example/",
    "http://user:word@good.example/",
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://good.example%2f@127.0.0.1/",
    "http://127.0.0.1%00.good.example/",
    "http://good.example:22/",
    "http://good.example:6379/",
    "http://good.example:443/",
    "https://good.example:80/",
    "http://good.example:-80/",
    "http:/127.0.0.1/",
    "http:127.0.0.1/",
    "http:///127.0.0.1/",
    "http://good.example\r\nHost:127.0.0.1/",
    "http://good.example/\r\nX: y",
    "http://good.example /",
    " http://127.0.0.1/",
    "\thttp://127.0.0.1/",
    "//127.0.0.1/a.png",
    "file:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "ftp://127.0.0.1/a.png",
    "gopher://127.0.0.1/_x",
    "dict://127.0.0.1:6379/info",
    "ldap://127.0.0.1/",
    "jar:http://127.0.0.1!/",
    "rtsp://127.0.0.1/a",
    "udp://127.0.0.1:40000",
    "concat:http://127.0.0.1/a|http://127.0.0.1/b",
    "crypto:http://127.0.0.1/",
    "https://127.0.0.1/",
    "HTTP://127.0.0.1/",
]


@pytest.mark.parametrize("allow", [False, True], ids=["off", "on"])
def test_no_form_of_an_address_reaches_this_machine(canary, allow):
    attachments = Attachments(Settings(allow_urls=allow))
    try:
        for address in FORMS:
            for take in (attachments.image, attachments.video):
                with pytest.raises(MediaError) as error:
                    take(address)
                assert error.value.code in {"url_off", "unreadable", "not_media"}, address
                assert error.value.code != "url_off" or not allow
                assert "127.0.0.1" not in str(error.value) and "example" not in str(error.value)
    finally:
        attachments.close()
    assert canary.num_hits == 0


def test_off_means_off(canary):
    attachments = Attachments(Settings())
    try:
        for address in ("http://good.example/a.png", "https://good.example/a.png", "HTTP://GOOD.EXAMPLE/"):
            with pytest.raises(MediaError) as error:
                attachments.image(address)
            assert error.value.code == "url_off"
    finally:
        attachments.close()
    assert canary.num_hits == 0


def test_the_canary_sings(canary):
    """What the tests above rely on: a public address would have been counted."""
    canary.answer = b"HTTP/1.0 200 OK\r\n\r\n" + png()
    attachments = Attachments(Settings(allow_urls=True))
    try:
        assert attachments.image("http://good.example/a.png").shape == (4, 4, 3)
    finally:
        attachments.close()
    assert canary.num_hits == 1


def test_hosts_on_the_list_and_others(canary):
    canary.answer = b"HTTP/1.0 200 OK\r\n\r\n" + png()
    attachments = Attachments(Settings(allow_urls=True, url_hosts="good.example, Other.example"))
    try:
        assert attachments.image("http://GOOD.example/a").shape == (4, 4, 3)
        assert attachments.image("http://other.example./a").shape == (4, 4, 3)
        for address in ("http://bad.example/a", "http://good.example.bad.example/", "http://sub.good.example/"):
            with pytest.raises(MediaError) as error:
                attachments.image(address)
            assert error.value.code == "url_off"
    finally:
        attachments.close()
    assert canary.num_hits == 2
    listed = Attachments(Settings(allow_urls=True, url_hosts="127.0.0.1,localhost"))
    for address in ("http://127.0.0.1/", "http://localhost/"):
        with pytest.raises(MediaError) as error:
            listed.image(address)
        assert error.value.code == "unreadable", "a list does not open this machine"
    listed.close()
    assert canary.num_hits == 2


def test_a_name_that_changes_its_address(canary, monkeypatch):
    """DNS rebinding: the first answer is public, all later ones lead here."""
    asked = []

    def lookup(host, port, **_):
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34" if len(asked) == 1 else "127.0.0.1", port))
        ]

    connected = []

    def connect(address, timeout=None):
        connected.append(address)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(MediaError):
        source.fetch("http://rebind.example/a.png", Settings(allow_urls=True))
    assert asked == ["rebind.example"], "looked up once"
    assert connected == [("93.184.216.34", 80)], "connected to what was checked"
    assert canary.num_hits == 0


@pytest.fixture
def fetched(canary, monkeypatch):
    """Answers of the canary, which stands for a public host; limits are small."""
    settings = Settings(allow_urls=True, url_max_bytes=100_000, url_timeout_s=1.0)

    def fetch(answer: bytes) -> tuple[str, int]:
        canary.answer, before = answer, canary.num_hits
        with pytest.raises(MediaError) as error:
            source.fetch("http://good.example/a", settings)
        return error.value.code, canary.num_hits - before

    return fetch


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nConnection: close\r\n\r\n".encode()


def test_redirects_stay_on_the_host(fetched):
    places = ["http://127.0.0.1/", "http://localhost/", "http://other.example/", "//127.0.0.1/a", "file:///etc/passwd"]
    places += ["http://good.example:6379/", "http://good.example@127.0.0.1/", "gopher://127.0.0.1/", "http://[::1]/"]
    for place in places:
        for status in (301, 302, 303, 307, 308):
            assert fetched(redirect(place, status)) == ("unreadable", 1), place
    assert fetched(redirect("/again")) == ("unreadable", 4), "and are few"


def test_a_page_that_sends_browsers_on_sends_nobody_on(canary):
    page = b"<meta http-equiv=refresh content='0; url=http://127.0.0.1/'>"
    canary.answer = b"HTTP/1.0 200 OK\r\nRefresh: 0; url=http://127.0.0.1/\r\n\r\n" + page
    assert source.fetch("http://good.example/a", Settings(allow_urls=True)) == page
    assert canary.num_hits == 1


def test_answers_that_are_too_long(fetched):
    assert fetched(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 200_000) == ("too_large", 1)
    assert fetched(b"HTTP/1.0 200 OK\r\nContent-Length: 99999999999\r\n\r\nx") == ("too_large", 1)
    assert fetched(b"HTTP/1.0 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n") == ("unreadable", 1)
    assert fetched(b"nothing like HTTP") == ("unreadable", 1)
    assert fetched(b"HTTP/1.0 404 Not Found\r\n\r\nsecret words") == ("unreadable", 1)


def test_a_content_type_is_not_believed(canary):
    attachments = Attachments(Settings(allow_urls=True))
    try:
        canary.answer = b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n<meta http-equiv=refresh content=0>"
        with pytest.raises(MediaError) as error:
            attachments.image("http://good.example/a.png")
        assert error.value.code == "not_media"
        canary.answer = b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n" + png()
        assert attachments.image("http://good.example/a.html").shape == (4, 4, 3)
    finally:
        attachments.close()
    assert canary.num_hits == 2


def test_the_addresses_of_a_request_share_one_limit(canary):
    data = png()
    canary.answer = b"HTTP/1.0 200 OK\r\n\r\n" + data + b"\0" * (2000 - len(data))
    attachments = Attachments(Settings(allow_urls=True, serve_max_bytes=3000))
    from sightline.errors import ItemError
    from sightline.server.wire import Part

    try:
        with pytest.raises(ItemError) as error:
            attachments.items([Part(image=["http://good.example/a"]), Part(image=["http://good.example/a"])])
    finally:
        attachments.close()
    assert (error.value.position, error.value.code) == (1, "too_large")


def test_playlists_in_a_video_reach_nothing(canary):
    """FFmpeg would follow these; they are text, and text is no video."""
    attachments = Attachments(Settings())
    place = f"127.0.0.1:{canary.port}"
    lists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://{place}/a.ts\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile http://{place}/a.mp4\n",
        f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {canary.port} RTP/AVP 96\r\n",
        f"<?xml version='1.0'?><MPD><BaseURL>http://{place}/</BaseURL></MPD>",
        f"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://{place}/a.png'/></svg>",
        f"[playlist]\nFile1=http://{place}/a.mp4\n",
    ]
    start = time.monotonic()
    try:
        for text in lists:
            for take in (attachments.image, attachments.video):
                with pytest.raises(MediaError) as error:
                    take("data:video/mp4;base64," + base64.b64encode(text.encode()).decode())
                assert error.value.code in {"not_media", "no_video", "unsupported"}
    finally:
        attachments.close()
    assert canary.num_hits == 0 and time.monotonic() - start < 300
