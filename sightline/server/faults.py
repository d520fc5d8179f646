"""Every error as one JSON shape, OpenAI's: ``{"error": {"message", "type", "param", "code"}}``.

Texts are fixed or made by Sightline's own errors, which hold no paths and no words of decoders or libraries; what was
not raised on purpose is logged and answered with one fixed sentence.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sightline.errors import (
    MEDIA_CODES,
    CapacityError,
    ConfigError,
    IndexLockedError,
    IndexMismatchError,
    InputError,
    ItemError,
    MediaError,
    RemoteError,
    SightlineError,
    StoppedError,
    StoreError,
)

CODE_KEY: Final = "sightline.code"
"""Where the code of an error is left in the scope of its request."""
MOST_SHOWN: Final = 300
"""Characters of a message about the shape of a request."""

logger = logging.getLogger(__name__)

STATUS: Final[tuple[tuple[type[SightlineError], int], ...]] = (
    (InputError, 400),
    (ConfigError, 400),
    (CapacityError, 413),
    (IndexLockedError, 409),
    (IndexMismatchError, 409),
    (RemoteError, 502),
    (StoppedError, 503),
    (StoreError, 500),
)
"""The first class that fits decides; anything else is 500."""

MESSAGES: Final[dict[int, str]] = {
    400: "the request cannot be used",
    401: "a key is needed: Authorization: Bearer KEY",
    403: "this page or site may not call the server",
    404: "there is nothing here",
    405: "this method is not allowed here",
    408: "the request did not arrive in time",
    409: "this cannot be done now",
    413: "the request is too large",
    415: "this content type is not taken",
    416: "the range cannot be served",
    421: "this server does not answer to that name",
    422: "the request cannot be used",
    429: "too many requests are waiting; try again in a moment",
    500: "something went wrong here; the log of the server has it",
    502: "the server that runs the models fails; the log of this one has it",
    503: "this cannot be answered now; try again in a moment",
    504: "the answer took too long",
}
TYPES: Final[dict[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Fault(Exception):
    """An error that a route answers with.

    Attributes:
        status: of HTTP.
        message: for people; None takes the fixed sentence of the status.
        code: for programs.
        param: the key of the request that is at fault.
        retry_s: seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_s: int | None = None,
    ) -> None:
        self.status = status
        self.message = message or MESSAGES.get(status, MESSAGES[500])
        self.code = code
        self.param = param
        self.retry_s = retry_s
        super().__init__(self.message)


def body(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """The one shape."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer(fault: Fault, request: Request | None = None) -> JSONResponse:
    """A fault as a response; its code is left in the request's scope, to be counted."""
    if request is not None and fault.code is not None:
        request.scope[CODE_KEY] = fault.code
    headers = {} if fault.retry_s is None else {"Retry-After": str(fault.retry_s)}
    if fault.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body(fault.status, fault.message, fault.code, fault.param), fault.status, headers)


def of_error(error: SightlineError, param: str | None = None) -> Fault:
    """One of Sightline's errors as a fault."""
    for kind, status in STATUS:
        if isinstance(error, kind):
            code = error.code if isinstance(error, (ItemError, MediaError)) else None
            if isinstance(error, RemoteError):
                return Fault(status, code="remote", param=param)  # its words may hold the address of that server
            if code == "nan":
                return Fault(500, MEDIA_CODES[code], code=code, param=param)  # the model's fault, not the caller's
            # errors of the store name folders: for the log, not for callers
            message = str(error) if status < 409 or isinstance(error, CapacityError) else None
            return Fault(status, message, code=code, param=param, retry_s=1 if status == 503 else None)
    return Fault(500)


def _short(text: str) -> str:
    """What may hold a caller's own words, cut, and without half characters that no answer can carry."""
    return text[:MOST_SHOWN].encode("utf-8", "replace").decode("utf-8")


def install(app: FastAPI) -> None:
    """Let every error of an application leave in the one shape."""

    @app.exception_handler(Fault)
    async def on_fault(request: Request, error: Fault) -> JSONResponse:
        return answer(error, request)

    @app.exception_handler(SightlineError)
    async def on_error(request: Request, error: SightlineError) -> JSONResponse:
        fault = of_error(error)
        if fault.status >= 500:
            logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(fault, request)

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        response = answer(Fault(error.status_code))
        response.headers.update(error.headers or {})  # Allow, of a 405
        return response

    @app.exception_handler(RequestValidationError)
    async def on_shape(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0] if error.errors() else {}
        place = _short(".".join(str(part) for part in first.get("loc", ())[1:]))
        message = f"{place or 'the request'}: {_short(first.get('msg', 'cannot be used'))}"
        return answer(Fault(400, message, param=place or None, code=first.get("type")), request)

    @app.exception_handler(Exception)
    async def on_anything(request: Request, error: Exception) -> JSONResponse:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(Fault(500))
