"""The checks that every request to the listening page must pass."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

from understudy.common.jsonio import parse_json

MAX_BODY_BYTES = 4096

#: An answer has arrived whole after so long.
BODY_S = 10.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AuthMiddleware:
    """Refuses requests without the secret, and answers that do not come from the page (ASGI).

    Args:
        app: serves what passes.
        token: the first part of every path.
        hosts: allowed ``Host`` headers (against DNS rebinding).
    """

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str, hosts: set[str]
    ) -> None:
        self._app, self._token, self._hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        if not refused and scope["method"] == "POST":
            try:
                receive = await _whole(receive)
            except _Refused as error:
                refused = error.args
        if refused:
            status, sentence = refused
            # A body may still be on its way, and nobody without the secret keeps a connection.
            reply = JSONResponse({"detail": sentence}, status, headers={"Connection": "close"})
            await reply(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        host, origin, length, media_type = (
            _only(scope, name) for name in ("host", "origin", "content-length", "content-type")
        )
        if host not in self._hosts:
            return 421, f"the host {host!r} is not served here"
        first = scope["path"].removeprefix("/").partition("/")[0]
        if not hmac.compare_digest(first.encode(), self._token):
            return 404, "there is nothing here: the address has a secret part, given in full"
        if _all(scope, "transfer-encoding"):
            return 411, "the length of an answer is given by Content-Length alone"
        if scope["method"] != "POST":
            if scope["method"] not in ("GET", "HEAD"):
                return 405, f"saw {scope['method'][:20]}, expected GET or POST"
            return (413, "a question has no body") if _all(scope, "content-length") else None
        if origin not in {f"http://{host}" for host in self._hosts}:
            return 403, f"answers are taken from this page, not from {origin!r}"
        if (media_type or "").partition(";")[0].strip() != "application/json":
            return 415, "an answer is application/json"
        if not re.fullmatch("[0-9]{1,4}", length or "") or int(length or 0) > MAX_BODY_BYTES:
            return 413, f"an answer has at most {MAX_BODY_BYTES} bytes, and says how many"
        return None


class _Refused(Exception):
    """A status and a sentence."""


def _all(scope: Scope, name: str) -> list[str]:
    """Return the values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name.encode()]


def _only(scope: Scope, name: str) -> str | None:
    """Return the value of a header that stands once; None for any other."""
    values = _all(scope, name)
    return values[0] if len(values) == 1 else None


async def _whole(receive: Receive) -> Receive:
    """Read a body and return what gives it out again.

    Raises:
        _Refused: it is too large or too slow, or no JSON.
    """
    content = b""
    more = True
    try:
        async with asyncio.timeout(BODY_S):
            while more:
                message = await receive()
                content += message.get("body", b"")
                more = message["type"] == "http.request" and message.get("more_body", False)
                if len(content) > MAX_BODY_BYTES:
                    raise _Refused(413, f"an answer has at most {MAX_BODY_BYTES} bytes")
    except TimeoutError:
        raise _Refused(408, f"the answer has not arrived within {BODY_S:.0f} s") from None
    try:
        parse_json(content)
    except ValueError as error:
        raise _Refused(422, f"the answer cannot be read: {error}") from None
    read = False

    async def again() -> MutableMapping[str, Any]:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": content, "more_body": False}

    return again


def _with_headers(send: Send) -> Send:
    extra = [
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]

    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return wrapped
