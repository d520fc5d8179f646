"""Who may call, from where, how much: one layer around the whole application, before any of its routes is looked for.

A request passes these doors in this order; whichever it fails answers, and nothing behind it has run:

1. method and target: no TRACE, no control characters, no absolute form;
2. ``Host``: one of the server's own names (another site's DNS name may point here);
3. ``Origin`` and ``Sec-Fetch-Site``: no pages of other sites, except ``serve_origins``;
4. a key, or the cookie of a login, except for what ``is_open`` lists;
5. headers that announce too much: length, encoding, type, ranges;
6. the body: counted and timed as it is read, JSON checked before it is parsed.

Decisions use the decoded path of the request line alone. No header changes it, and a path that is not exactly an open
one needs a key, whatever a router would make of it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sightline.errors import ConfigError
from sightline.server import addresses, faults, login
from sightline.server.addresses import Host, parse_host, parse_site
from sightline.server.bodies import FORM_BYTES, HELD_REQUESTS, SMALL_BYTES, Intake, Purse, check_json
from sightline.server.faults import Fault
from sightline.server.keys import Keys, Sessions, bearer, cookies, keys_of
from sightline.server.ranges import check_range
from sightline.settings import Settings

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset({"/health", "/login"})
OPEN_FOLDER: Final = "/static/"
"""What needs no key: these paths, and the files of the page. Tests hold the list."""
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_PATH_CHARS: Final = 2048
MAX_HEAD_BYTES: Final = 32 * 1024
"""Bytes of a query and all headers."""
OWN_NAMES: Final = frozenset({Host("127.0.0.1"), Host("localhost"), Host("::1")})
LOGIN_METHODS: Final = frozenset({"GET", "HEAD", "POST"})
_JSON: Final = "application/json"
_MULTIPART: Final = "multipart/form-data"
_FORM: Final = "application/x-www-form-urlencoded"

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer, errors too. An answer may bring a Referrer-Policy of its own, and further Content-Security-Policies:
browsers keep to all of them."""


def check_config(settings: Settings) -> None:
    """Refuse to serve what would stand open.

    Raises:
        ConfigError: an address that other machines reach without a key; a key that can be guessed; a name or site
            that is none.
    """
    keys = keys_of(settings.serve_keys)
    addresses.hosts_of(settings.serve_hosts)
    addresses.sites_of(settings.serve_origins)
    if not keys and not addresses.is_loopback(settings.serve_host):
        raise ConfigError(
            f"serve_host {settings.serve_host!r} can be reached from other machines: set serve_keys"
            " (SIGHTLINE_SERVE_KEYS), or serve on 127.0.0.1"
        )


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """What ``uvicorn.Config`` is given besides the application, its address and its log."""
    from sightline.server.connection import options

    return options(settings)


def is_open(path: str) -> bool:
    """Whether a path is open to callers without a key.

    >>> is_open("/health"), is_open("/static/page.js"), is_open("/static/../v1/models"), is_open("/health/")
    (True, True, False, False)
    """
    if path in OPEN_PATHS:
        return True
    name = path.removeprefix(OPEN_FOLDER)
    return name != path and not _is_crooked(path) and name != ""


def _is_crooked(path: str) -> bool:
    """Whether a path has empty or dotted parts, or backslashes: a file system or proxy could read another path."""
    parts = path.split("/")[1:]
    if parts[-1:] == [""]:
        parts.pop()
    return "\\" in path or any(part in {"", ".", ".."} for part in parts)


@dataclass(slots=True)
class _Reply:
    """Sends an answer, with the headers that every answer has."""

    sender: Send
    site: str | None = None
    started: bool = False
    intake: Intake | None = None

    async def send(self, message: Message) -> None:
        if self.intake is not None and self.intake.fault is not None and not self.started:
            return  # the body was refused while it was read: what the application makes of that is not the answer
        if message["type"] == "http.response.start":
            self.started = True
            self._finish(MutableHeaders(scope=message))
        await self.sender(message)

    def _finish(self, headers: MutableHeaders) -> None:
        for name, value in SECURITY_HEADERS.items():
            if name == "Content-Security-Policy":
                headers.append(name, value)
            else:
                headers.setdefault(name, value)
        headers.setdefault("Cache-Control", "no-store")
        for name in ("Server", "X-Powered-By"):
            del headers[name]
        if self.site is not None:
            headers["Access-Control-Allow-Origin"] = self.site
            headers.add_vary_header("Origin")
            headers["Access-Control-Expose-Headers"] = "Retry-After, Content-Range"

    async def fault(self, fault: Fault, scope: Scope, receive: Receive) -> None:
        self.intake = None
        await faults.answer(fault)(scope, receive, self.send)


@dataclass(slots=True)
class Guard:
    """Pure ASGI: stands around the application.

    Args:
        app: the application.
        settings: ``serve_*``.

    Raises:
        ConfigError: as ``check_config``.
    """

    app: ASGIApp
    settings: Settings
    sessions: Sessions = field(default_factory=Sessions)
    keys: Keys = field(init=False)
    names: frozenset[Host] = field(init=False)
    sites: frozenset[str] = field(init=False)
    purse: Purse = field(init=False)

    def __post_init__(self) -> None:
        check_config(self.settings)
        self.keys = Keys(keys_of(self.settings.serve_keys))
        bound = parse_host(self.settings.serve_host) or parse_host(f"[{self.settings.serve_host}]")
        self.names = OWN_NAMES | addresses.hosts_of(self.settings.serve_hosts) | ({bound} if bound else set())
        self.sites = addresses.sites_of(self.settings.serve_origins)
        self.purse = Purse(HELD_REQUESTS * self.settings.serve_max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection of ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        reply = _Reply(send)
        intake = Intake(receive, self.settings.serve_max_bytes, self.settings.serve_read_s)
        try:
            answer = await self._answer(scope, intake, reply)
            if answer is not None:
                await answer(scope, receive, reply.send)
        except Fault as fault:
            if reply.started:
                raise
            await reply.fault(fault, scope, receive)
        except Exception as error:  # whatever the application did not answer itself: one sentence, and the log
            if reply.started:
                raise
            if intake.fault is None:
                logger.error("%s %r failed", scope["method"], scope["path"], exc_info=error)
            await reply.fault(intake.fault or Fault(500), scope, receive)
        finally:
            intake.close()

    async def _answer(self, scope: Scope, intake: Intake, reply: _Reply) -> Response | None:
        """The answer of the guard itself; None when the application has answered."""
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        _check_target(scope)
        host = self._check_host(scope, headers)
        reply.site = self._check_origin(method, headers, host)
        if reply.site is not None and method == "OPTIONS" and "access-control-request-method" in headers:
            return _preflight()
        tokens = cookies([value for name, value in scope["headers"] if name == b"cookie"])
        if not self._is_known(scope, tokens) and not is_open(path):
            if method in {"GET", "HEAD"} and path == "/":
                return login.login_page(401)
            raise Fault(401)
        kind = self._check_headers(path, headers)
        if path == "/login":
            return await self._log_in(method, kind, headers, intake)
        if path == "/logout":
            if method != "POST":
                raise Fault(405)
            return login.log_out(tokens, self.sessions, is_page="text/html" in headers.get("accept", ""))
        if _is_crooked(path):
            raise Fault(404)
        if kind == _JSON and not await self._check_json(intake):
            return None
        reply.intake = intake
        await self.app(scope, intake, reply.send)
        if intake.fault is not None and not reply.started:
            raise intake.fault
        return None

    def _check_host(self, scope: Scope, headers: Headers) -> Host:
        values = headers.getlist("host")
        host = parse_host(values[0]) if len(values) == 1 else None
        if host is None:
            raise Fault(400, "the Host header is missing or malformed")
        if host in self.names or Host(host.name) in self.names:
            return host
        # an IP address is of this machine if the connection came in on it, and no DNS answer can make it another's
        here = scope.get("server")
        if here and addresses.is_address(host.name) and host.name == here[0]:
            return host
        raise Fault(421)

    def _check_origin(self, method: str, headers: Headers, host: Host) -> str | None:
        """The site to name in CORS headers; None for callers that are no page of another site."""
        origins = headers.getlist("origin")
        place = headers.get("sec-fetch-site", "")
        if len(origins) > 1:
            raise Fault(403)
        if origins:
            if origins[0] in self.sites:
                return origins[0]
            site = parse_site(origins[0])
            if site is None or not addresses.is_own(site, host):
                raise Fault(403)
        elif place in {"cross-site", "same-site"}:
            # a link on another site may lead here; its pages may not load what is here
            is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            if not (method in {"GET", "HEAD"} and is_link):
                raise Fault(403)
        return None

    def _is_known(self, scope: Scope, tokens: list[bytes]) -> bool:
        if not self.keys.asked:
            return True
        key = bearer([value for name, value in scope["headers"] if name == b"authorization"])
        if key is not None:
            return self.keys.fits(key)
        return any(self.sessions.knows(token) for token in tokens)

    def _check_headers(self, path: str, headers: Headers) -> str:
        """The content type of the body, in the three that are taken; empty when there is no body."""
        for value in headers.getlist("range"):
            check_range(value)
        if len(headers.getlist("range")) > 1:
            raise Fault(416)
        lengths, types = headers.getlist("content-length"), headers.getlist("content-type")
        if len(lengths) > 1 or len(types) > 1 or (lengths and not (lengths[0].isascii() and lengths[0].isdigit())):
            raise Fault(400)
        length = int(lengths[0][:20]) if lengths else 0
        if length > (FORM_BYTES if path == "/login" else self.settings.serve_max_bytes):
            raise Fault(413)
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Fault(415, "bodies are taken as they are, without Content-Encoding")
        if not length and "transfer-encoding" not in headers:
            return ""
        kind = types[0].partition(";")[0].strip().lower() if types else ""
        if kind not in {_JSON, _MULTIPART} and not (kind == _FORM and path == "/login"):
            raise Fault(415, f"a body is {_JSON}, or {_MULTIPART} for uploads")
        return kind

    async def _check_json(self, intake: Intake) -> bool:
        """Look at the whole body; False when the caller has gone."""
        body = await intake.whole(self.purse)
        if body is None:
            return False
        if len(body) <= SMALL_BYTES:
            check_json(body)
        else:
            await asyncio.to_thread(check_json, body)
        return True

    async def _log_in(self, method: str, kind: str, headers: Headers, intake: Intake) -> Response | None:
        if method not in LOGIN_METHODS:
            raise Fault(405)
        if method != "POST":
            return login.login_page(200)
        body = await intake.whole(self.purse)
        if body is None:
            return None
        if len(body) > FORM_BYTES:
            raise Fault(413)
        if kind == _JSON:
            check_json(body)
        key = login.shown_key(body, is_form=kind == _FORM)
        secure = headers.get("origin", "").startswith("https://")
        return login.log_in(key, self.keys, self.sessions, is_form=kind == _FORM, secure=secure)


def _check_target(scope: Scope) -> None:
    path, query = scope["path"], scope.get("query_string", b"")
    if scope["method"] not in METHODS:
        raise Fault(405)
    if not path.startswith("/") or len(path) > MAX_PATH_CHARS or any(char < " " or char == "\x7f" for char in path):
        raise Fault(400, "the target of the request is malformed")
    if b"%00" in query or b"\0" in query:
        raise Fault(400, "the query of the request is malformed")
    # the web server's own limit is for heads that come in pieces
    if len(query) + sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEAD_BYTES:
        raise Fault(400, "the head of the request is too large")


def _preflight() -> Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=headers)
