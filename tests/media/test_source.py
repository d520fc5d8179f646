"""Where bytes come from, and what is refused before anything is read."""

import base64
import http.server
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import MediaError
from sightline.media import source
from sightline.settings import Settings


def test_bytes_paths_and_file_addresses_are_one(tmp_path, settings):
    path = tmp_path / "a b.txt"
    path.write_bytes(b"words")
    for given in (
        b"words",
        path,
        str(path),
        path.as_uri(),
        "data:text/plain;base64," + base64.b64encode(b"words").decode(),
    ):
        assert source.read(given, settings) == b"words"


def test_names_that_are_not_utf8(tmp_path, settings):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.txt"
    Path(os.fsdecode(path)).write_bytes(b"words")
    assert source.read(os.fsdecode(path), settings) == b"words"


def opened(path):
    with source.open_regular(path):
        pass


def test_only_regular_files_are_opened(tmp_path, code):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        start = time.monotonic()
        for path in (tmp_path, tmp_path / "fifo", tmp_path / "socket", "/dev/zero", "/dev/tty"):
            assert code(opened, path) in {"not_file", "unreadable"}
        assert code(opened, tmp_path / "fifo") == "not_file"
        assert time.monotonic() - start < 1


@pytest.mark.parametrize("path", ["/no/such/file", "nul\x00byte", "x" * 5000, "file://elsewhere/a.png", ""])
def test_unreadable(path, code):
    assert code(opened, path) == ("unreadable" if path else "not_file")
    assert code(source.read, path, Settings()) in {"unreadable", "not_file"}


def test_a_loop_of_links(tmp_path, code):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert code(opened, tmp_path / "a") == "unreadable"


@pytest.mark.parametrize("found", [None, MediaError("empty"), OSError()], ids=["good", "empty", "unread"])
@pytest.mark.parametrize("change", ["grow", "replace", "delete", "touch"])
def test_a_change_while_reading_is_an_error_and_what_was_found_in_it_is_not(tmp_path, code, change, found):
    path = tmp_path / "a"
    path.write_bytes(b"words")

    def read():
        with source.open_regular(path) as (file, _):
            file.read()
            if change == "grow":
                path.write_bytes(b"more words")
            elif change == "replace":
                (tmp_path / "b").write_bytes(b"other")
                (tmp_path / "b").rename(path)
            elif change == "delete":
                path.unlink()
            else:
                os.utime(path, ns=(1, 1))
            if found is not None:
                raise found

    assert code(read) == "changed"


def test_what_is_wrong_with_a_file_that_stays_as_it_is(tmp_path, code):
    (tmp_path / "a").write_bytes(b"words")

    def read(found):
        with source.open_regular(tmp_path / "a"):
            raise found

    assert code(read, MediaError("empty")) == "empty"
    assert code(read, OSError()) == "unreadable"


def test_sizes_are_limited(tmp_path, code):
    small = Settings(image_max_bytes=10, text_max_bytes=10, pdf_max_bytes=10)
    assert code(source.read, b"x" * 11, small) == "too_large"
    assert code(source.read, "data:image/png;base64," + "A" * 40, small) == "too_large"
    for name, start in (("a.png", b"\x89PNG\r\n\x1a\n"), ("a.txt", b"text"), ("a.pdf", b"%PDF-1.4")):
        (tmp_path / name).write_bytes(start + b" " * 20)

        def open_it(path=tmp_path / name):
            with source.open_source(path, small):
                pass

        assert code(open_it) == "too_large"


@pytest.mark.parametrize(
    "url", ["data:image/png,abc", "data:image/png;base64,=====", "data:;base64", "data:" + "x" * 999 + ";base64,AA=="]
)
def test_data_addresses_must_be_base64(url, code, settings):
    assert code(source.read, url, settings) == "not_media"


# -- addresses


def test_addresses_are_off(code, settings):
    assert code(source.read, "http://example.org/a.png", settings) == "url_off"
    assert code(source.read, "HTTPS://example.org/a.png", settings) == "url_off"


REFUSED = [
    "http://169.254.169.254/latest",
    "http://[fd00:ec2::254]/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://localhost./",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[fe80::1]/",
    "http://224.0.0.1/",
    "http://good\\@evil/",
    "http://good#@127.0.0.1",
    "http://user:word@93.184.216.34/",
    "http://127。0。0。1/",
    "http://93.184.216.34:22/",
    "http://93.184.216.34:6379/",
    "http:///a",
    "http://a\tb/",
    "https://[::]/",
    "http://93.184.216.34:99999/",
]


@pytest.mark.parametrize("url", REFUSED)
def test_addresses_that_are_never_fetched(url, code, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was made")

    monkeypatch.setattr(socket, "create_connection", refuse)
    if "good#" in url:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("127.0.0.1", 80))])
    assert code(source.fetch, url, Settings(allow_urls=True)) == "unreadable"


@pytest.mark.parametrize("url", ["ftp://example.org/a", "gopher://example.org/", "ldap://example.org"])
def test_other_schemes_are_paths_that_do_not_exist(url, code):
    assert code(source.read, url, Settings(allow_urls=True)) == "unreadable"


def test_one_private_address_among_public_ones_is_enough(code, monkeypatch):
    found = [(0, 0, 0, "", (ip, 80)) for ip in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert code(source.fetch, "http://both.example/", Settings(allow_urls=True)) == "unreadable"


def test_a_name_that_nobody_answers_for_takes_no_longer_than_an_address(code, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: never.wait(30) and [])
    began = time.monotonic()
    assert code(source.fetch, "http://slow.example/", Settings(allow_urls=True, url_timeout_s=0.3)) == "timeout"
    assert time.monotonic() - began < 5
    never.set()


@pytest.mark.parametrize("error", [socket.gaierror("no such name"), UnicodeError("label too long")])
def test_a_name_that_does_not_exist(error, code, monkeypatch):
    def unknown(*_, **__):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert code(source.fetch, "http://none.example/", Settings(allow_urls=True)) == "unreadable"


@pytest.fixture
def server(monkeypatch):
    """A server on this machine that stands for a public one, and the number of look-ups made."""
    seen: dict[str, Any] = {"lookups": 0, "hosts": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen["hosts"].append(self.headers["Host"])
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path[4:])
                self.end_headers()
            elif self.path == "/endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(b"x" * 65536)
                except OSError:
                    pass
            elif self.path == "/slow":
                self.send_response(200)
                self.end_headers()
                try:
                    for _ in range(50):
                        self.wfile.write(b"x")
                        time.sleep(0.1)
                except OSError:
                    pass
            elif self.path == "/drip":
                try:
                    for byte in b"HTTP/1.0 200 OK\r\nX: " + b"x" * 50:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.1)
                except OSError:
                    pass
            elif self.path == "/lie":
                self.send_response(200)
                self.send_header("Content-Length", "-5x")
                self.end_headers()
            else:
                self.send_response(200 if self.path == "/a" else 404)
                self.end_headers()
                self.wfile.write(b"words")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def lookup(host, port, **_):
        seen["lookups"] += 1
        return [(0, 0, 0, "", ("93.184.216.34", port))]

    def connect(address, timeout=None):
        assert address == ("93.184.216.34", 80)
        here = socket.socket()
        here.settimeout(timeout)
        here.connect(("127.0.0.1", server.server_port))
        return here

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket, "create_connection", connect)
    yield seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_fetching(server, code):
    on = Settings(allow_urls=True, url_max_bytes=10**6, url_timeout_s=1.0)
    assert source.fetch("http://public.example/a", on) == b"words"
    assert source.fetch("http://public.example/to//a", on) == b"words"
    assert server["lookups"] == 2, "resolved once each, redirects too"
    assert set(server["hosts"]) == {"public.example"}
    assert code(source.fetch, "http://public.example/no", on) == "unreadable"
    assert code(source.fetch, "http://public.example/to/http://other.example/a", on) == "unreadable"
    assert code(source.fetch, "http://public.example/to/http://127.0.0.1/a", on) == "unreadable"
    assert code(source.fetch, "http://public.example/to/file:///etc/passwd", on) == "unreadable"
    assert code(source.fetch, "http://public.example/to//to//to//to//to//a", on) == "unreadable"
    assert code(source.fetch, "http://public.example/endless", on) == "too_large"
    assert code(source.fetch, "http://public.example/lie", on) == "unreadable"
    start = time.monotonic()
    assert code(source.fetch, "http://public.example/slow", on) == "timeout"
    assert code(source.fetch, "http://public.example/drip", on) == "timeout"
    assert time.monotonic() - start < 4
