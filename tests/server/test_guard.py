"""Who may call: names, sites, keys, cookies, paths; what every answer carries; what no log holds."""

from __future__ import annotations

import asyncio
import logging
import re
import urllib.parse
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, strategies as st

from sightline.errors import ConfigError
from sightline.server import addresses
from sightline.server.addresses import Host, Site, is_own, parse_host, parse_site
from sightline.server.guard import SECURITY_HEADERS, check_config, is_open
from sightline.server.keys import COOKIE, MAX_SESSIONS, SESSION_S, Sessions, bearer, cookies
from sightline.settings import Settings
from tests.server.conftest import toy_app

KEY = "a-key-of-the-tests-0123456789"
OTHER = "another-key-of-the-tests-0123"
BEARER = {"Authorization": f"Bearer {KEY}"}
# every path that answers without a key; a new one has to be written here on purpose
OPEN = {"/health", "/login", "/static/{name}"}


def visit(base_url="http://127.0.0.1", **settings) -> TestClient:
    """A client of an application whose routes say what they were given."""
    app = toy_app(**settings)

    @app.post("/v1/echo")
    async def echo(value: dict[str, object]) -> dict[str, object]:
        return value

    @app.get("/v1/fails")
    async def fails() -> None:
        raise RuntimeError("the words of a library, with /a/path and 0x7f00")

    return TestClient(app, base_url=base_url, follow_redirects=False)


@pytest.fixture
def locked():
    with visit(serve_keys=f"{KEY},{OTHER}") as client:
        yield client


@pytest.fixture(scope="module")
def app():
    """The same without a client, for requests that leave nothing behind."""
    with visit(serve_keys=f"{KEY},{OTHER}") as client:
        yield client.app


@pytest.fixture
def free():
    with visit() as client:
        yield client


def status_of(app: FastAPI, method: str, target: str, *headers: tuple[str, str]) -> int:
    """The status of a request as it stands on the wire: clients tidy paths up before they send them."""
    path, _, query = target.partition("?")
    sent = []
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": ""},
        **{"method": method, "path": urllib.parse.unquote(path), "raw_path": path.encode()},
        **{"query_string": query.encode(), "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8077)},
        "headers": [(b"host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in headers)],
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"])


def is_our_error(response) -> bool:
    """One shape, and nothing in it that a caller should not know."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    for secret in (KEY, OTHER, "0x", "/work", "/usr", "Traceback", "starlette", "pydantic"):
        assert secret not in response.text
    return True


# -- keys ------------------------------------------------------------------------------------------------------------


def concrete(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", path)


def routes_of(app: FastAPI) -> list[tuple[str, str]]:
    """Every (method, path) of an application, mounted folders and what the schema hides too."""
    found: set[tuple[str, str]] = set()

    def walk(routes: Any, prefix: str = "") -> None:
        for route in routes:
            path = prefix + getattr(route, "path", "")
            # a mounted folder, a mounted application, or a router that newer versions of FastAPI keep whole
            holders: tuple[Any, ...] = (route, getattr(route, "app", None), getattr(route, "original_router", None))
            inner = next((holder.routes for holder in holders if getattr(holder, "routes", None)), None)
            if inner is not None:
                walk(inner, path)
                continue
            found.update((method, path) for method in getattr(route, "methods", None) or {"GET"})

    walk(app.routes)
    for path, methods in app.openapi()["paths"].items():
        found.update((method.upper(), path) for method in methods)
    return sorted(found)


def test_every_route_asks_for_a_key(locked):
    routes = routes_of(locked.app)
    for known in (
        "POST /v1/echo",
        "GET /openapi.json",
        "GET /",
        "GET /static/{name}",
        "POST /v1/search",
        "GET /metrics",
    ):
        assert tuple(known.split()) in routes
    assert all(path.startswith("/") for _, path in routes)
    answered = 0
    for method, path in routes:
        if path in OPEN:
            continue
        for headers in ({}, {"Authorization": "Bearer wrong-key-wrong-key"}):
            for suffix in ("", f"?key={KEY}&api_key={KEY}&token={KEY}&Authorization=Bearer%20{KEY}"):
                response = locked.request(method, concrete(path) + suffix, headers=headers)
                assert response.status_code == 401, (method, path, headers)
                assert response.headers["www-authenticate"] == "Bearer"
                answered += 1
    assert answered >= 8


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
LIKE_OPEN = [
    *("/v1/echo", "//v1/echo", "/V1/echo", "/v1/echo/", "/v1//echo", "/v1/./echo", "/v1/../v1/echo", "/", "//", "/."),
    *("/health/", "/Health", "//health", "/health/../v1/echo", "/health;/v1/echo", "/health%2f", "/health%20", "/he"),
    *("/static/../v1/echo", "/static/%2e%2e/v1/echo", "/static/..%2fv1/echo", "/static//v1/echo", "/static/./x"),
    *("/static", "/static/", "/static/..\\v1/echo", "/static/%5c..", "/login/x", "/login/", "/LOGIN", "/metrics"),
    *("/docs", "/redoc", "/openapi.json", "/ready", "/logout", "/nothing", "/%2e%2e/health", "/v1/models?x=/health"),
    *("/static/%2e%2e/%2e%2e/etc/passwd", "/health/%2e%2e/v1/echo", "/x/../health", "/.health"),
]
MALFORMED = [
    "/health%00",
    "/health%0d%0aX:y",
    "http://127.0.0.1/health",
    "*",
    "",
    "health",
    "/" + "x" * 3000,
    "/a?b=%00",
]


@pytest.mark.parametrize("path", LIKE_OPEN)
def test_paths_that_look_like_open_ones_are_not(app, path):
    assert {status_of(app, method, path) for method in METHODS} == {401}


@pytest.mark.parametrize("path", MALFORMED)
def test_malformed_targets(app, path):
    assert {status_of(app, method, path) for method in METHODS} == {400}
    assert status_of(app, "GET", path, ("authorization", f"Bearer {KEY}")) == 400


@pytest.mark.parametrize(
    "path", ["//v1/echo", "/v1//echo", "/v1/./echo", "/static/%2e%2e/v1/echo", "/V1/echo", "/v1/echo/"]
)
def test_crooked_paths_with_a_key_are_not_there(app, path):
    assert status_of(app, "GET", path, ("authorization", f"Bearer {KEY}")) == 404


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "TRACK", "get", "", "GET /"])
def test_other_methods(app, method):
    for path in ("/health", "/v1/echo", "/"):
        assert status_of(app, method, path, ("authorization", f"Bearer {KEY}")) == 405


def test_web_sockets_are_refused(locked):
    from starlette.websockets import WebSocketDisconnect

    for path in ("/health", "/v1/echo", "/"):
        with pytest.raises(WebSocketDisconnect), locked.websocket_connect(path, headers=BEARER):
            pass


@pytest.mark.parametrize(
    "value",
    [
        *("", "Bearer", "Bearer ", f"Bearer  {KEY}", f"Bearer{KEY}", f"Basic {KEY}", KEY, f"Bearer {KEY} x"),
        *(f"Bearer {KEY},", f'Bearer "{KEY}"', f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Bearer {KEY.upper()}"),
        *(f"Bearer {KEY},{OTHER}", f"Token {KEY}", f"Bearer Bearer {KEY}", "Bearer " + "x" * 20_000, "Bearer \xff\xfe"),
        *(f"Bearer\t{KEY}", "Bearer *", "Bearer null", "Bearer undefined"),
    ],
)
def test_forms_of_authorization_that_are_not_the_key(locked, value):
    response = locked.post("/v1/echo", json={"a": 1}, headers={b"Authorization": value.encode("latin-1")})
    assert response.status_code == 401 and is_our_error(response)


def test_forms_that_are(locked):
    for value in (f"Bearer {KEY}", f"Bearer {OTHER}", f"bearer {KEY}", f"BEARER {KEY}"):
        assert locked.post("/v1/echo", json={"a": 1}, headers={"Authorization": value}).json() == {"a": 1}


def test_two_authorizations_are_none(locked):
    headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")]
    assert locked.get("/nothing", headers=headers).status_code == 401
    assert locked.get("/nothing", headers=headers[::-1]).status_code == 401


def test_headers_of_proxies_open_nothing(locked):
    for name in ("X-Forwarded-For", "X-Real-IP", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Api-Key"):
        for value in ("127.0.0.1", "/health", KEY):
            assert locked.post("/v1/echo", json={}, headers={name: value}).status_code == 401
    for name in ("X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-HTTP-Method-Override"):
        assert locked.get("/nothing", headers={**BEARER, name: "/v1/echo"}).status_code == 404


def test_without_keys_none_is_asked(free):
    assert free.post("/v1/echo", json={"a": 1}).json() == {"a": 1}


# -- login -----------------------------------------------------------------------------------------------------------


def test_login_gives_a_cookie_that_opens(locked):
    response = locked.post("/login", json={"key": KEY})
    assert response.status_code == 200
    (cookie,) = response.headers.get_list("set-cookie")
    assert cookie.startswith(COOKIE + "=") and {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie and KEY not in cookie
    token = cookie.split(";")[0].partition("=")[2]
    assert len(token) >= 40
    assert locked.post("/v1/echo", json={"a": 1}).json() == {"a": 1}, "the client keeps the cookie"
    assert locked.post("/logout").status_code == 204
    locked.cookies.clear()
    again = {"Cookie": f"{COOKIE}={token}"}
    assert locked.post("/v1/echo", json={}, headers=again).status_code == 401, "the token is forgotten"


def test_login_as_a_form(locked):
    wrong = locked.post("/login", data={"key": "wrong-wrong-wrong-wrong"})
    assert wrong.status_code == 401 and "text/html" in wrong.headers["content-type"]
    assert "set-cookie" not in wrong.headers
    right = locked.post("/login", data={"key": f" {KEY} "}, headers={"Origin": "https://127.0.0.1"})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    assert "Secure" in right.headers["set-cookie"].split("; "), "a page that came over https"


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"key": 5}', b'{"key": null}', b'{"key": "a", "key": "b"}', b"\xff", b'{"key": "\\ud800"}'],
)
def test_logins_that_are_none(locked, body):
    response = locked.post("/login", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400 and is_our_error(response)


def test_logins_are_small(locked):
    assert locked.post("/login", json={"key": "x" * 5000}).status_code == 413

    def parts():
        yield b'{"key": "'
        yield b"x" * 5000

    response = locked.post("/login", content=parts(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413


def test_a_visitor_without_a_session_sees_the_login_page(locked):
    response = locked.get("/")
    assert response.status_code == 401 and "text/html" in response.headers["content-type"]
    assert "<form" in response.text and KEY not in response.text
    # browsers send "Origin: null" with the forms of pages under no-referrer
    assert response.headers["referrer-policy"] == "same-origin"
    assert locked.get("/login").status_code == 200


def test_sessions_end_and_are_few():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    first = sessions.open().encode()
    assert sessions.knows(first) and not sessions.knows(b"") and not sessions.knows(first[:-1])
    for _ in range(MAX_SESSIONS):
        sessions.open()
    assert len(sessions) == MAX_SESSIONS and not sessions.knows(first)
    last = sessions.open().encode()
    now[0] = SESSION_S + 1.0
    assert not sessions.knows(last)
    sessions.open()
    assert len(sessions) == 1


# -- names and sites -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        *("a/?x=", "127.0.0.1/health?", "127.0.0.1/health#", "user@127.0.0.1", "127.0.0.1:80:80", "127.0.0.1:x", ""),
        *("127.0.0.1, evil", "[::1", "::1", "[127.0.0.1]", "127.0.0.1 ", "127.0.0.1:99999", "127.0.0.1:0", "-", "a\\b"),
    ],
)
def test_malformed_hosts(locked, host):
    for path in ("/health", "/v1/echo"):
        response = locked.get(path, headers={"Host": host})
        assert response.status_code == 400 and is_our_error(response)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8077",
        "127.0.0.1.evil.example",
        "localhost.",
        "127.1",
        "0",
        "2130706433",
        "10.1.2.3",
    ],
)
def test_hosts_of_others(free, host):
    response = free.post("/v1/echo", json={}, headers={"Host": host})
    assert response.status_code == 421 and is_our_error(response)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8077", "localhost", "LOCALHOST:80", "[::1]:8077", "[0::1]"])
def test_hosts_of_ours(free, host):
    assert free.post("/v1/echo", json={}, headers={"Host": host}).status_code == 200


def test_hosts_of_the_settings():
    with visit(serve_host="10.0.0.5", serve_hosts="search.example, b.example:81", serve_keys=KEY) as client:
        for host, status in {
            "10.0.0.5:8077": 401,
            "SEARCH.example:9": 401,
            "b.example:81": 401,
            "b.example:82": 421,
            "b.example": 421,
            "c.search.example": 421,
            "10.0.0.6": 421,
        }.items():
            assert client.get("/nothing", headers={"Host": host}).status_code == status, host


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "http://evil.example", "https://127.0.0.1.evil.example", "http://127.0.0.1:9999", "http://localhost"),
        *("file://", "http://127.0.0.1/", "http://127.0.0.1@evil.example", "", "*", "chrome-extension://abc"),
        *("http://127.0.0.1 http://evil.example", "HTTP://127.0.0.1", "ftp://127.0.0.1"),
    ],
)
def test_pages_of_other_sites_may_not_call(free, origin):
    for kind, body in (
        ("application/json", b"{}"),
        ("text/plain", b'{"a": 1}'),
        ("application/x-www-form-urlencoded", b"a=1"),
        ("multipart/form-data; boundary=x", b"--x--"),
    ):
        response = free.post("/v1/echo", content=body, headers={"Origin": origin, "Content-Type": kind})
        assert response.status_code == 403 and is_our_error(response)
        assert "access-control-allow-origin" not in response.headers
    assert free.delete("/v1/libraries/default/items", headers={"Origin": origin}).status_code == 403


def test_forms_of_other_sites_reach_nothing_even_without_an_origin(free):
    for site in ("cross-site", "same-site"):
        assert free.post("/v1/echo", json={}, headers={"Sec-Fetch-Site": site}).status_code == 403
        assert free.get("/v1/picture", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
        framed = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        assert free.get("/", headers=framed).status_code == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert free.get("/nothing", headers=link).status_code == 404, "a link may lead here"
        assert free.post("/v1/echo", json={}, headers=link).status_code == 403
    # a form's type is not taken whoever sends it
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert free.post("/v1/echo", content=b"{}", headers={"Content-Type": kind}).status_code == 415


def test_pages_of_ours_may():
    for base, origin in (
        ("http://127.0.0.1:8077", "http://127.0.0.1:8077"),
        ("http://localhost", "http://localhost"),
        ("http://localhost", "http://localhost:80"),
        ("http://localhost", "https://localhost"),
        ("http://[::1]:8077", "http://[::1]:8077"),
    ):
        with visit(base) as client:
            response = client.post("/v1/echo", json={}, headers={"Origin": origin, "Sec-Fetch-Site": "same-origin"})
            assert response.status_code == 200, origin
            assert "access-control-allow-origin" not in response.headers


def test_sites_that_are_allowed():
    site = "https://app.example"
    with visit(serve_keys=KEY, serve_origins=f"{site}, http://localhost:3000") as client:
        ask = {"Origin": site, "Access-Control-Request-Method": "POST", "Sec-Fetch-Site": "cross-site"}
        preflight = client.options("/v1/echo", headers=ask)
        assert preflight.status_code == 204
        headers = {name: value for name, value in preflight.headers.items() if name.startswith("access-control-")}
        assert headers == {
            "access-control-allow-origin": site,
            "access-control-allow-methods": "GET, POST, PUT, DELETE",
            "access-control-allow-headers": "Authorization, Content-Type",
            "access-control-max-age": "600",
            "access-control-expose-headers": "Retry-After, Content-Range",
        }, "no star, no credentials"
        assert preflight.headers["vary"] == "Origin"
        answer = client.post("/v1/echo", json={}, headers={"Origin": site, **BEARER})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, site)
        refused = client.post("/v1/echo", json={}, headers={"Origin": site})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, site)
        for other in (
            "https://app.example.evil",
            "https://APP.example",
            "http://app.example",
            "https://app.example:444",
        ):
            answer = client.options("/v1/echo", headers={**ask, "Origin": other})
            assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
        assert client.options("/v1/echo", headers={"Origin": site}).status_code == 401, "not a preflight"


# -- what every answer carries ---------------------------------------------------------------------------------------


def test_headers_of_every_answer(locked, caplog):
    answers = [
        locked.post("/v1/echo", json={}, headers=BEARER),
        locked.post("/v1/echo", json=[], headers=BEARER),
        locked.post("/v1/echo", content=b"{", headers={**BEARER, "Content-Type": "application/json"}),
        locked.get("/v1/fails", headers=BEARER),
        locked.get("/nothing", headers=BEARER),
        locked.get("/v1/echo", headers=BEARER),
        locked.get("/"),
        locked.get("/v1/echo"),
        locked.get("/", headers={"Host": "evil"}),
        locked.get("/", headers={"Origin": "null"}),
        locked.request("TRACE", "/"),
        locked.post("/login", json={"key": KEY}),
    ]
    assert [answer.status_code for answer in answers] == [200, 400, 400, 500, 404, 405, 401, 401, 421, 403, 405, 200]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            if name != "Referrer-Policy" or "html" not in answer.headers["content-type"]:
                assert answer.headers[name] == value
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
    csp = answers[0].headers["content-security-policy"]
    assert "unsafe" not in csp and "*" not in csp and "http" not in csp


def test_what_fails_is_said_in_one_sentence_and_logged(locked, caplog):
    with caplog.at_level(logging.ERROR):
        response = locked.get("/v1/fails", headers=BEARER)
    assert response.status_code == 500 and is_our_error(response) and "words of a library" not in response.text
    assert "words of a library" in caplog.text


def test_keys_are_in_no_log_and_no_error(locked, caplog):
    with caplog.at_level(logging.DEBUG):
        for headers in (BEARER, {"Authorization": f"Basic {KEY}"}, {"Cookie": f"{COOKIE}={KEY}"}, {"Host": KEY}):
            for path in ("/v1/fails", "/v1/echo", "/", f"/v1/fails?key={KEY}"):
                for response in (locked.get(path, headers=headers), locked.post(path, json={}, headers=headers)):
                    assert KEY not in response.text and KEY not in str(response.headers)
        locked.post("/login", json={"key": OTHER + "x"})
    # the client of the test logs the addresses it calls; the server must not
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    for record in caplog.records:
        if record.exc_info:
            logged += str(record.exc_info[1])
    assert "fails" in logged and KEY not in logged and OTHER not in logged
    assert KEY not in repr(Settings(serve_keys=KEY))


# -- the configuration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "search.example", "127.0.0.1.example", "0"])
def test_without_a_key_only_this_machine_is_served(host):
    with pytest.raises(ConfigError, match="serve_keys"):
        check_config(Settings(serve_host=host))
    with pytest.raises(ConfigError, match="serve_keys"):
        toy_app(serve_host=host, serve_keys=" , ")
    check_config(Settings(serve_host=host, serve_keys=KEY))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]"])
def test_this_machine_needs_none(host):
    check_config(Settings(serve_host=host))


@pytest.mark.parametrize("key", ["k3y", "x" * 15, f"{KEY},k3y", "a key with spaces in it", "schlüssel-schlüssel"])
def test_weak_keys_are_refused_and_not_repeated(key):
    with pytest.raises(ConfigError, match="serve_keys") as caught:
        check_config(Settings(serve_keys=key))
    assert not any(word in str(caught.value) for word in (key, KEY, "k3y", "spaces in it"))


@pytest.mark.parametrize("setting", [{"serve_origins": "*"}, {"serve_origins": "null"}, {"serve_origins": "a.example"}])
def test_open_sites_are_refused(setting):
    with pytest.raises(ConfigError, match="serve_origins"):
        check_config(Settings(**setting))


@pytest.mark.parametrize("hosts", ["*", "http://a.example", "a.example/", "*.example"])
def test_names_that_are_none_are_refused(hosts):
    with pytest.raises(ConfigError, match="serve_hosts"):
        check_config(Settings(serve_hosts=hosts))


# -- the parsers -----------------------------------------------------------------------------------------------------


@given(st.text(max_size=80) | st.from_regex(r"\[?[0-9a-f:.]{0,12}\]?(:[0-9]{0,6})?", fullmatch=True))
def test_a_host_is_a_host_or_nothing(text):
    host = parse_host(text)
    if host is not None:
        assert not set(host.name) & set("/?#@\\ \t\r\n\0,[]%") and host.name == host.name.lower()
        assert host.port is None or 0 < host.port < 65536
        written = f"[{host.name}]" if ":" in host.name else host.name
        assert parse_host(written + (f":{host.port}" if host.port else "")) == host
    site = parse_site("http://" + text)
    assert (site is None) == (host is None)


@given(st.text(max_size=60))
def test_a_site_is_a_site_or_nothing(text):
    site = parse_site(text)
    assert site is None or text.startswith(site.scheme + "://")
    assert site is None or site.scheme not in {"http", "https"} or is_own(site, site.host)


def test_own_sites():
    assert is_own(Site("http", Host("a", 80)), Host("a"))
    assert is_own(Site("https", Host("a", 443)), Host("a"))
    assert not is_own(Site("http", Host("a", 80)), Host("a", 81))
    assert not is_own(Site("http", Host("a", 80)), Host("b"))
    assert not is_own(Site("ftp", Host("a", None)), Host("a"))


@given(st.binary(max_size=60))
def test_a_bearer_is_a_key_or_nothing(value):
    key = bearer([value])
    assert key is None or (key in value and b" " not in key and value.lower().startswith(b"bearer "))
    assert all(found in value for found in cookies([value]))


@given(st.text(alphabet="/.\\staicheloglnm%2e\x00", max_size=30))
def test_open_paths_are_exactly_the_listed_ones(path):
    if is_open(path):
        assert path in {"/health", "/login"} or (path.startswith("/static/") and ".." not in path.split("/"))


def test_lists_of_settings():
    assert addresses.hosts_of("a, B:80 ,[::1]") == {Host("a"), Host("b", 80), Host("::1")}
    assert addresses.sites_of("https://a") == {"https://a"}
