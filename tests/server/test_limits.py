"""How much a caller may send, how slowly, and in what form; over real sockets where a client library would hide it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from hypothesis import given, strategies as st

from sightline.server.bodies import MAX_DEPTH, Intake, Purse, check_json
from sightline.server.faults import Fault
from sightline.server.guard import SECURITY_HEADERS, uvicorn_options
from sightline.server.ranges import one_range
from sightline.settings import Settings
from tests.server.test_guard import BEARER, KEY, is_our_error, visit

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def free():
    with visit(serve_max_bytes=100_000) as client:
        yield client


# -- bodies that are too large ---------------------------------------------------------------------------------------


def test_a_length_over_the_limit_is_refused_before_the_body_is_read(free):
    def never():
        raise AssertionError("the body was read")
        yield b""

    for path in ("/v1/echo", "/nothing"):
        response = free.post(path, content=never(), headers={**JSON, "Content-Length": "100001"})
        assert response.status_code == 413 and is_our_error(response)
    for length in ("-1", "1e9", "abc", "9" * 5000, "+5", "5, 5", "\u0665"):
        headers = [(b"Content-Type", b"application/json"), (b"Content-Length", length.encode())]
        response = free.post("/v1/echo", content=b"{}", headers=headers)
        assert response.status_code in {400, 413}


def test_a_chunked_body_is_counted_while_it_is_read(free):
    sent = 0

    async def receive():
        nonlocal sent
        sent += 10_000
        return {"type": "http.request", "body": b" " * 10_000, "more_body": True}

    async def read_all() -> Fault | None:
        intake = Intake(receive, 100_000, 60)
        with contextlib.suppress(Fault):
            while True:
                await intake()
        return intake.fault

    fault = asyncio.run(read_all())
    assert fault is not None and fault.status == 413 and sent == 110_000

    def parts():
        for _ in range(11):
            yield b" " * 10_000

    for kind in ("application/json", "multipart/form-data; boundary=x"):
        response = free.post("/v1/echo", content=parts(), headers={"Content-Type": kind})
        assert response.status_code in {400, 413} and is_our_error(response)
    assert free.post("/v1/echo", content=parts(), headers=JSON).status_code == 413


def test_uploads_are_counted_too(free):
    @free.app.post("/v1/upload")  # type: ignore[untyped-decorator]
    async def upload(request: Request) -> int:
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
        return total

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert free.post("/v1/upload", content=(b"x" * 10_000 for _ in range(10)), headers=kind).json() == 100_000
    response = free.post("/v1/upload", content=(b"x" * 10_000 for _ in range(11)), headers=kind)
    assert response.status_code == 413 and is_our_error(response)


def test_compressed_bodies_are_not_taken(free):
    import gzip

    bomb = gzip.compress(b" " * 10_000_000)
    for coding in ("gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x"):
        response = free.post("/v1/echo", content=bomb, headers={**JSON, "Content-Encoding": coding})
        assert response.status_code == 415 and is_our_error(response)
    assert free.post("/v1/echo", content=b"{}", headers={**JSON, "Content-Encoding": "identity"}).status_code == 200


def test_bodies_in_memory_are_limited_over_all_requests():
    purse = Purse(1000)

    async def read(size: int, hold: asyncio.Event | None = None) -> str:
        async def receive():
            return {"type": "http.request", "body": b"x" * size, "more_body": False}

        intake = Intake(receive, 1000, 60)
        try:
            await intake.whole(purse)
            if hold is not None:
                await hold.wait()
            return "read"
        except Fault as fault:
            return str(fault.status)
        finally:
            intake.close()

    async def many() -> list[str]:
        hold = asyncio.Event()
        first = asyncio.create_task(read(800, hold))
        await asyncio.sleep(0)
        answers = [await read(300), await read(200)]
        hold.set()
        return [*answers, await first, await read(1000)]

    assert asyncio.run(many()) == ["429", "read", "read", "read"]
    assert purse.held == 0


# -- JSON ------------------------------------------------------------------------------------------------------------

HURTFUL = {
    "deep lists": b"[" * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep behind a value": b'{"a": 1, "b": ' + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1) + b"}",
    "only ends": b"]" * 100_000,
    "many values": b"[" + b"1," * 300_000 + b"1]",
    "many lists": b"[" + b"[]," * 300_000 + b"[]]",
    "many texts": b"[" + b'"",' * 1_500_000 + b'""]',
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, escaped": b'{"a": 1, "\\u0061": 2}',
    "a key twice, inside": b'{"x": [{"a": 1, "a": 2}]}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b'{"a": -Infinity}',
    "1e400": b'{"a": 1e400}',
    "-1e400": b'{"a": -1e400}',
    "a long number": b'{"a": ' + b"9" * 50_000 + b"}",
    "NUL": b'{"a": "x\\u0000y"}',
    "NUL in a key": b'{"a\\u0000": 1}',
    "raw NUL": b'{"a": "\x00"}',
    "half a character": b'{"a": "\\ud800"}',
    "the other half": b'{"a": "\\udc00\\ud800"}',
    "half a character in a key": b'{"\\udfff": 1}',
    "half a character, raw": b'{"a": "\xed\xa0\x80"}',
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-32": '{"a": 1}'.encode("utf-32-le"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "unfinished": b'{"a": "',
    "unfinished escape": b'{"a": "\\',
    "two values": b"{} {}",
    "nothing": b" ",
    "a comment": b"{} // x",
    "escapes without end": b'"' + b'\\"' * 500_000,
}


@pytest.fixture(scope="module")
def hurt():
    with visit() as client:
        yield client


@pytest.mark.parametrize("body", HURTFUL.values(), ids=HURTFUL.keys())
def test_json_made_to_hurt(hurt, body):
    response = hurt.post("/v1/echo", content=body, headers=JSON)
    assert response.status_code == 400 and is_our_error(response)
    assert response.json()["error"]["code"] == "invalid_json"
    assert hurt.post("/v1/echo", json={"a": 1}).json() == {"a": 1}


def test_json_that_is_well(free):
    for value in (
        {"a": "NaN, Infinity, [[[[ {{{{ 1e400"},
        {"a": 'quotes " and \\ and \\u0000 and \\ud800 as words'},
        {"a": "🚲 \U0010ffff", "ключ": [1.5, -1e300, 0, None, True]},
        {"a": [[[[[[1]]]]]], "b": {"a": {"a": {"a": 1}}}},
        {"a": "x" * 90_000},
    ):
        assert free.post("/v1/echo", json=value).json() == value
    assert free.post("/v1/echo", content=b'{"a": "\\ud83d\\udeb2"}', headers=JSON).json() == {"a": "🚲"}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(min_codepoint=32, max_codepoint=126)), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values, st.booleans())
def test_whatever_json_writes_is_taken(value, ascii_only):
    check_json(json.dumps(value, ensure_ascii=ascii_only).encode())


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0d8a1eNI -', max_size=60).map(str.encode))
def test_whatever_is_taken_is_json(body):
    try:
        check_json(body)
    except Fault as fault:
        assert fault.status == 400
    else:
        json.loads(body.decode("utf-8"))


# -- ranges ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    ["bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), "bytes=0-0,1-1", "bytes=" + "0-" * 10_000, "bytes=,"],
    ids=["10,000", "two", "long", "a comma"],
)
def test_several_ranges_are_refused_everywhere(free, value):
    for path in ("/v1/echo", "/health", "/static/mark.svg", "/v1/libraries/default/items/x/media"):
        response = free.get(path, headers={"Range": value})
        # a head of 100,000 bytes is refused before its ranges are
        assert response.status_code == (400 if len(value) > 32_768 else 416) and is_our_error(response)
    two = [("Range", "bytes=0-1"), ("Range", "bytes=2-3")]
    assert free.get("/health", headers=two).status_code == 416


@given(
    st.none()
    | st.text(max_size=30)
    | st.builds("bytes={}-{}".format, st.integers(0, 300) | st.just(""), st.integers(0, 300) | st.just("")),
    st.integers(0, 250),
)
def test_a_range_lies_within_or_is_refused(header, size):
    try:
        found = one_range(header, size)
    except Fault as fault:
        assert fault.status == 416
    else:
        assert found is None or 0 <= found[0] < found[1] <= size


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *(("bytes=0-", (0, 10)), ("bytes=9-9", (9, 10)), ("BYTES=0-4", (0, 5)), ("bytes=-99", (0, 10))),
        *(("bytes=5-4", None), ("bytes=-", None), ("bytes=a-b", None), ("items=0-1", None), ("", None)),
        *(("bytes=10-", 416), ("bytes=-0", 416), ("bytes=99-100", 416), ("bytes=0-1,3-4", 416)),
        *(("bytes=" + "9" * 19 + "-", None), ("bytes=0-" + "9" * 18, (0, 10)), ("bytes=٣-٥", None)),
    ],
)
def test_ranges(header, expected):
    if expected == 416:
        with pytest.raises(Fault) as caught:
            one_range(header, 10)
        assert caught.value.status == 416
    else:
        assert one_range(header, 10) == expected


# -- over real sockets -----------------------------------------------------------------------------------------------


@pytest.fixture
def live(serve):
    """A server as it is run, and a way to write bytes to it."""

    def start(most: int | None = None, **settings) -> tuple[str, FastAPI]:
        app = visit(**settings).app
        assert isinstance(app, FastAPI)

        @app.get("/v1/endless")
        async def endless() -> StreamingResponse:
            async def content():
                while True:
                    yield b"x" * 100_000
                    await asyncio.sleep(0)

            return StreamingResponse(content())

        options = uvicorn_options(Settings(**settings))
        if most is not None:
            options["http"].most = most
        return serve(app, **options), app

    return start


def dial(url: str) -> socket.socket:
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=120)


def said(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := sock.recv(65536):
            found += chunk
    return found


def exchange(url: str, request: bytes) -> tuple[int, bytes]:
    with dial(url) as sock:
        sock.sendall(request)
        answer = said(sock)
    return int(answer.split(b" ", 2)[1]), answer


def test_what_is_not_quite_http(live):
    url, _ = live(serve_keys=KEY, serve_read_s=2)
    auth = f"Authorization: Bearer {KEY}\r\n".encode()
    close = b"Connection: close\r\n\r\n"
    for request, status in {
        b"GET / HTTP/1.1\r\n" + close: 400,
        b"GET / HTTP/1.0\r\n\r\n": 400,
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1\r\n" + close: 400,
        b"GET http://127.0.0.1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + close: 400,
        b"GET http://evil/v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n" + auth + close: 400,
        b"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n" + close: 400,
        b"CONNECT evil:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n" + close: 405,
        b"TRACE /health HTTP/1.1\r\nHost: 127.0.0.1\r\n" + close: 405,
        b"GET /static/../v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n" + close: 401,
        b"GET //v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n" + close: 401,
        b"GET /v1/echo HTTP/1.1\r\nHost: a/?x=\r\n" + close: 400,
        b"GET /v1/echo HTTP/1.1\r\nHost: 127.0.0.1/health?\r\n" + auth + close: 400,
        b"GET /v1/echo HTTP/1.1\r\nHost: evil\r\n" + auth + close: 421,
        b"GET /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 127.0.0.1\r\n" + close: 401,
        b"GET /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        + auth
        + b"Upgrade: websocket\r\nConnection: upgrade\r\n"
        + close: 405,
        b"POST /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        + auth
        + b"Content-Length: 2\r\nContent-Length: 3\r\n"
        + close: 400,
        b"POST /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n" + auth + b"Content-Length: -1\r\n" + close: 400,
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n" + close: 400,
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + close: 400,
        b"\x16\x03\x01\x02\x00\x01\x00\x01": 400,
        b"nothing\r\n\r\n": 400,
    }.items():
        found, answer = exchange(url, request)
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert found == status, request[:80]
        assert b"\r\nserver:" not in head and KEY.encode() not in answer
        for name, value in SECURITY_HEADERS.items():
            if name != "Referrer-Policy":
                assert f"\r\n{name}: {value}".lower().encode() in head, request[:80]
    assert httpx.get(url + "/openapi.json", headers=BEARER).status_code == 200


def test_large_bodies_are_not_kept(live):
    url, _ = live(serve_max_bytes=20_000_000, serve_read_s=60)
    process = psutil.Process()
    before = process.memory_info().rss
    sent = 0

    def parts():
        nonlocal sent
        for _ in range(200):
            sent += 1_000_000
            yield b" " * 1_000_000

    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert httpx.post(url + "/v1/echo", content=parts(), headers=JSON, timeout=120).status_code == 413
        announced = {**JSON, "Content-Length": "2000000000", "Expect": "100-continue"}
        with dial(url) as sock:
            head = "".join(f"{name}: {value}\r\n" for name, value in announced.items())
            sock.sendall(f"POST /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n".encode())
            assert sock.recv(100).split(b" ")[1] == b"413", "no 100, and nothing of the body"
    finally:
        done.set()
        watcher.join()
    assert most - before < 2 * 20_000_000 + 40_000_000


SLOW = 500


def test_callers_who_drip_do_not_keep_others_out(live):
    """Slow-loris: 500 callers that send heads and bodies a byte at a time, and some that send nothing."""
    url, _ = live(serve_read_s=4)
    heads = [
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        b"POST /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
        b"POST /v1/echo HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"",
    ]
    callers = [dial(url) for _ in range(SLOW)]
    try:
        for number, caller in enumerate(callers):
            caller.sendall(heads[number % 4])
        answers = [b""] * SLOW
        served = 0
        end = time.monotonic() + 120
        left = set(range(SLOW))
        while left and time.monotonic() < end:
            assert httpx.post(url + "/v1/echo", json={"a": 1}, timeout=60).json() == {"a": 1}, "others are served"
            served += len(left) == SLOW
            for number in sorted(left):
                caller = callers[number]
                caller.setblocking(False)
                try:
                    data = caller.recv(65536)
                    answers[number] += data
                    if not data or number % 4 in {1, 2}:
                        left.discard(number)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    left.discard(number)
                if number in left and number % 4 == 0:
                    with contextlib.suppress(OSError):
                        caller.send(b"x")
            time.sleep(0.2)
        assert not left, f"{len(left)} were kept"
    finally:
        for caller in callers:
            caller.close()
    assert served, "nobody was served beside all of them"
    assert sum(b" 408 " in answer for answer in answers) >= 0.9 * SLOW
    assert httpx.get(url + "/openapi.json").status_code == 200


def test_an_answer_that_nobody_reads_ends(live):
    url, _ = live(serve_read_s=1)
    with dial(url) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /v1/endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert sock.recv(10)
        time.sleep(4)
        end = time.monotonic() + 60
        with pytest.raises(ConnectionError):  # cut off, not ended
            while time.monotonic() < end and sock.recv(10_000_000):
                pass
    assert httpx.get(url + "/openapi.json").status_code == 200


def test_slow_callers_in_any_number_give_way_to_others(live):
    url, _ = live(most=20)
    callers = [dial(url) for _ in range(60)]
    try:
        for caller in callers:
            with contextlib.suppress(ConnectionError):
                caller.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        for number in range(5):
            assert httpx.post(url + "/v1/echo", json={"a": number}, timeout=60).json() == {"a": number}
        with contextlib.suppress(ConnectionError):  # it was the one that waited longest
            callers[0].settimeout(60)
            assert callers[0].recv(100) == b""
        callers[-1].sendall(b"\r\nConnection: close\r\n\r\n")  # the youngest may still end what it began
        assert b" 200 " in said(callers[-1]).partition(b"\r\n")[0]
    finally:
        for caller in callers:
            caller.close()


FILES = """
import logging, resource, sys
from sightline.server.connection import most_connections
logging.basicConfig(stream=sys.stdout, format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (300, int(sys.argv[1])))
print(most_connections(512), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize(("hard", "found"), [(2000, ["1024 1280"]), (400, ["144 400"])])
def test_the_limit_of_open_files_is_raised_or_told(hard, found):
    done = subprocess.run([sys.executable, "-c", FILES, str(hard)], capture_output=True, text=True, check=True)
    *told, last = done.stdout.splitlines()
    assert [last] == found
    assert bool(told) == (hard < 1280) and all("ulimit -n" in line for line in told)


def test_connections_are_limited(live):
    url, _ = live(most=20)
    callers = [dial(url) for _ in range(20)]
    try:
        for caller in callers:  # all of them are being answered
            caller.sendall(b"GET /v1/endless HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert caller.recv(10)
        with dial(url) as extra:
            answer = said(extra)
        assert b" 503 " in answer.partition(b"\r\n")[0] and b"retry-after" in answer.lower()
    finally:
        for caller in callers:
            caller.close()
    end = time.monotonic() + 60
    while True:  # they are let in again once the others have gone
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url + "/openapi.json").status_code == 200:
                break
        assert time.monotonic() < end
        time.sleep(0.1)


def test_connections_are_kept_and_used_again(live):
    url, _ = live(serve_read_s=1)
    with httpx.Client() as client:
        for number in range(3):
            assert client.post(url + "/v1/echo", json={"a": number}).json() == {"a": number}
            time.sleep(0.7)
        (connection,) = client._transport._pool.connections  # type: ignore[attr-defined]
        assert not connection.is_closed()
    with dial(url) as sock:  # several requests in one write
        request = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        sock.sendall((request + b"\r\n") * 2 + request + b"Connection: close\r\n\r\n")
        assert said(sock).count(b"HTTP/1.1 200") == 3


# -- without asserts -------------------------------------------------------------------------------------------------


def test_no_check_is_an_assert():
    """``python -O`` drops asserts: the doors hold all the same."""
    program = """
import asyncio, sys
from sightline.errors import ConfigError, MediaError
from sightline.server.attachments import Attachments
from sightline.server.bodies import check_json
from sightline.server.faults import Fault
from sightline.server.guard import Guard, check_config
from sightline.settings import Settings

key = "a-key-of-the-tests-0123456789"
reached = []

async def app(scope, receive, send):
    reached.append(scope["path"])
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})

def status(guard, method="GET", path="/v1/models", headers=(), body=b""):
    sent = []
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        sent.append(message)
    names = {name for name, _ in headers}
    headers = [*headers] + ([] if b"host" in names else [(b"host", b"localhost")])
    scope = dict(type="http", method=method, path=path, query_string=b"", headers=headers, server=("127.0.0.1", 1))
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"]

def refused(kind, function, *arguments):
    try:
        function(*arguments)
    except kind:
        return True
    return False

locked, free = Guard(app, Settings(serve_keys=key)), Guard(app, Settings(serve_max_bytes=1024))
bearer = (b"authorization", b"Bearer " + key.encode())
json = (b"content-type", b"application/json")
length = (b"content-length", b"9")
found = [
    sys.flags.optimize,
    status(locked), status(locked, headers=[bearer]), status(locked, headers=[(b"authorization", b"Bearer x")]),
    status(locked, path="//health"), status(locked, "TRACE", "/health"), status(locked, path="/health"),
    status(free, headers=[(b"host", b"evil")]), status(free, headers=[(b"host", b"a/?x=")]),
    status(free, "POST", headers=[(b"origin", b"null")]), status(free, headers=[(b"range", b"bytes=0-1,2-3")]),
    status(free, "POST", headers=[json, (b"content-length", b"2000")]),
    status(free, "POST", headers=[json, (b"transfer-encoding", b"chunked")], body=b" " * 2000),
    status(free, "POST", headers=[json, length], body=b"[" * 900),
    status(free, "POST", headers=[json, length], body=b'{"a": NaN}'),
    status(free, "POST", headers=[json, length, (b"content-encoding", b"gzip")]),
    status(free, "POST", headers=[(b"content-type", b"text/plain"), length]),
    status(free, "POST", headers=[json, length], body=b'{"a": 1}'),
    refused(ConfigError, check_config, Settings(serve_host="0.0.0.0")),
    refused(ConfigError, check_config, Settings(serve_keys="short")),
    refused(MediaError, Attachments(Settings()).image, "http://127.0.0.1/"),
    refused(MediaError, Attachments(Settings(allow_urls=True)).image, "http://127.0.0.1/"),
    refused(MediaError, Attachments(Settings()).image, "/etc/passwd"),
    reached,
]
print(found)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-O", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.replace("True", "true").replace("'", '"')) == [
        *(1, 401, 200, 401, 401, 405, 200, 421, 400, 403, 416, 413, 413, 400, 400, 415, 415, 200),
        *(True, True, True, True, True),
        ["/v1/models", "/health", "/v1/models"],
    ]
