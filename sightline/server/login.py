"""``/login`` and ``/logout``: a browser shows a key once and gets a cookie that no script can read.

The cookie is ``HttpOnly`` and ``SameSite=Strict``. Cookies know no ports: another server on the same machine and name
sees it too, which is why it is good for this process only and is forgotten when the process ends.
"""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from sightline.server import faults
from sightline.server.faults import Fault
from sightline.server.keys import COOKIE, MAX_SHOWN_BYTES, SESSION_S, Keys, Sessions


def login_page(status: int, *, wrong: bool = False) -> Response:
    """The page that asks for a key.

    Its form is sent by the browser itself, which writes ``Origin: null`` under the policy ``no-referrer``: this page
    has another.
    """
    from sightline.server import page

    html = page.login_page(wrong)
    headers = {"Referrer-Policy": "same-origin"}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return HTMLResponse(html, status, headers)


def shown_key(body: bytes, *, is_form: bool) -> bytes:
    """The key in the body of a login, ``key=…`` or ``{"key": "…"}``; empty where there is none.

    Raises:
        Fault: 400 for a malformed body.

    >>> shown_key(b"key=abc", is_form=True), shown_key(b'{"key": "abc"}', is_form=False)
    (b'abc', b'abc')
    """
    try:
        if is_form:
            fields = urllib.parse.parse_qs(body.decode("ascii"), max_num_fields=8)
            value: Any = (fields.get("key") or [""])[0]
        else:
            read = json.loads(body)
            value = read.get("key") if isinstance(read, dict) else None
        if not isinstance(value, str):
            raise ValueError
        return value.strip().encode("utf-8")[: MAX_SHOWN_BYTES + 1]
    except ValueError:
        raise Fault(400, "a login is a form or JSON with one key", param="key") from None


def log_in(key: bytes, keys: Keys, sessions: Sessions, *, is_form: bool, secure: bool) -> Response:
    """The answer to a login."""
    if keys.asked and not keys.fits(key):
        return login_page(401, wrong=True) if is_form else faults.answer(Fault(401))
    response: Response = RedirectResponse("/", 303) if is_form else JSONResponse({"ok": True})
    if keys.asked:
        response.set_cookie(
            COOKIE, sessions.open(), max_age=SESSION_S, path="/", secure=secure, httponly=True, samesite="strict"
        )
    return response


def log_out(tokens: list[bytes], sessions: Sessions, *, is_page: bool) -> Response:
    """The answer to a logout."""
    for token in tokens:
        sessions.close(token)
    response = RedirectResponse("/", 303) if is_page else Response(status_code=204)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response
