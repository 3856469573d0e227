"""The checks that every request to the listening page must pass."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.responses import JSONResponse

MAX_BODY_BYTES = 4096

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
        if refused:
            status, sentence = refused
            await JSONResponse({"detail": sentence}, status)(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"host", "") not in self._hosts:
            return 421, f"the host {headers.get(b'host', '')!r} is not served here"
        first = scope["path"].removeprefix("/").partition("/")[0]
        if not hmac.compare_digest(first.encode(), self._token):
            return 404, "there is nothing here: the address has a secret part, given in full"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get(b"origin") not in {f"http://{host}" for host in self._hosts}:
            return 403, f"answers are taken from this page, not from {headers.get(b'origin')!r}"
        if headers.get(b"content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "an answer is application/json"
        length = headers.get(b"content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, f"an answer has at most {MAX_BODY_BYTES} bytes, and says how many"
        return None


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
