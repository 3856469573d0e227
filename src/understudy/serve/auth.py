"""Authentication, allowed hosts, and limits on a request's body, before the application sees it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

from fastapi import Response

from understudy.common.sockets import is_loopback
from understudy.serve.client import TOKEN_HEADER
from understudy.serve.config import HEALTH_PATH, METRICS_PATH
from understudy.serve.metrics import Metrics
from understudy.serve.requests import refusal

#: Within how many seconds the whole body must have arrived.
BODY_S = 10.0

#: For how long, and up to how many bytes, a body is read and dropped after a refusal: a socket
#: closed before may take the answer away from a client that still sends.
LINGER_S, LINGER_BYTES = 2.0, 2**24

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AuthMiddleware:
    """ASGI middleware: requires the token, and bounds the body's size and time.

    Outermost, so that the body of an unauthorized request is not even looked at. ``/health`` is
    open, and ``/metrics`` to this machine. Whoever is refused here loses the connection, too.

    Args:
        app: the application that it wraps.
        token: what a request must carry; None for no authentication.
        hosts: beside loopback's, allowed ``Host`` headers where there is no token: another name
            that leads here may be a web page's (DNS rebinding).
        max_body_bytes: of a request.
        metrics: where refusals are counted.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        token: str | None,
        hosts: Iterable[str],
        max_body_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._hosts = {host.lower() for host in hosts}
        self._max = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def refuse(outcome: str, status: int, sentence: str, **headers: str) -> None:
            self._metrics.requests.labels(outcome).inc()
            headers["Connection"] = "close"
            await _answer(refusal(scope["path"], status, sentence, headers), receive, send)

        if wrong := self._wrong_host(scope):
            await refuse("bad_request", 421, wrong)
            return
        if not self._allowed(scope):
            what = f"{TOKEN_HEADER} is missing or wrong"
            if scope["path"].startswith("/v1/"):
                what = f"the token is missing or wrong: Authorization: Bearer …, or {TOKEN_HEADER}"
            await refuse("unauthorized", 401, what, **{"WWW-Authenticate": "Bearer"})
            return
        try:
            async with asyncio.timeout(BODY_S):
                body = await self._body(scope, receive)
        except TimeoutError:
            await refuse("bad_request", 408, f"the body was not here within {BODY_S:g} s")
            return
        except ValueError:
            await refuse("bad_request", 413, f"the body has more than {self._max} bytes")
            return
        if body is None:
            return
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> MutableMapping[str, Any]:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    def _allowed(self, scope: Scope) -> bool:
        path = scope["path"]
        if self._token is None or path == HEALTH_PATH:
            return True
        if path == METRICS_PATH and scope.get("client") and is_loopback(scope["client"][0]):
            return True
        headers = dict(scope["headers"])
        given = headers.get(TOKEN_HEADER.lower().encode())
        if given is None and path.startswith("/v1/"):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                return False
        # Of digests, so that the time does not depend on the length either.
        return hmac.compare_digest(_sha256((given or b"").strip()), _sha256(self._token))

    def _wrong_host(self, scope: Scope) -> str | None:
        """Return the sentence about a ``Host`` header that a server without a token refuses."""
        given = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self._token is not None or not given:
            return None
        name = re.sub(r":\d*$", "", given).removeprefix("[").removesuffix("]").rstrip(".").lower()
        if is_loopback(name) or name in self._hosts:
            return None
        return f"the host {given!r} is not served here: name it in allowed_hosts, or set a token"

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body; None when the client is gone.

        Raises:
            ValueError: it is too large, whether it says so or not.
        """
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max:
            raise ValueError
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max:
                raise ValueError
            if not message.get("more_body"):
                return bytes(body)


async def _answer(response: Response, receive: Receive, send: Send) -> None:
    """Send a whole response, and end it once the client has sent its body."""
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": True})
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while size < LINGER_BYTES and (message := await receive()).get("more_body"):
                size += len(message["body"])
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
