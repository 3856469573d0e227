"""The server of the listening page: it ends with the listener or with the owner."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn

from understudy.common.http_protocol import SafeProtocol
from understudy.common.process import start_of
from understudy.common.sockets import ListenError, is_loopback, listen
from understudy.common.urls import url_host
from understudy.listening.auth import AuthMiddleware
from understudy.listening.page import Page
from understudy.listening.passes import ListeningTest

TICK_S = 0.5

#: A connection is closed that asks nothing for so long, or does not finish asking.
IDLE_S = 10.0

#: More connections than that push out the ones that have waited longest without a question.
MOST_CONNECTIONS = 100


class _Connection(SafeProtocol):
    """A connection that keeps nobody else out: whoever only holds it has to go."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room for a new connection."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._check = self.loop.call_later(IDLE_S, self._look)
        if len(self.connections) > MOST_CONNECTIONS:
            idle = [one for one in self._all() if not one._answering]
            # Who was answered before has the secret: the others go first.
            last = min(idle, key=lambda one: (one.cycle is not None, one._since))
            last.transport.abort()
            self.connections.discard(last)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._check.cancel()
        super().connection_lost(exc)

    def _all(self) -> list[_Connection]:
        return [one for one in self.connections if isinstance(one, _Connection)]

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        # Between two questions uvicorn's own, shorter time runs.
        if self._answering or self.timeout_keep_alive_task is not None:
            self._check = self.loop.call_later(IDLE_S, self._look)
        else:
            self.transport.abort()


class _Server(uvicorn.Server):
    """uvicorn that reports when it is ready and ends with the owner.

    Args:
        config: uvicorn's.
        page: whose windows are watched.
        finished: returns whether there is nothing more to answer.
        owner: a process; the server ends when that has ended. None for nobody's.
        ready: called once connections are answered.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        page: Page,
        finished: Callable[[], bool],
        owner: int | None,
        ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._page, self._finished, self._owner, self._ready = page, finished, owner, ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End; a second interrupt ends at once. uvicorn's own would raise the signal again."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Begin to answer, and call `ready`."""
        await super().startup(sockets)
        self._ready()

    async def serve(self, sockets: list[Any] | None = None) -> None:
        """Serve until `_watch` or a signal ends it."""
        watch = asyncio.create_task(self._watch())
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            orphaned = self._owner is not None and not start_of(self._owner)
            if orphaned or (self._finished() and self._page.lock.left):
                self.should_exit = True


def run(
    test: ListeningTest,
    *,
    bind: str,
    port: int,
    owner: int | None,
    tell: Callable[[str], None],
    ready: Callable[[str], None],
) -> None:
    """Serve the page until the listener is done, stops, or the owner ends.

    Args:
        test: the run and its passes.
        bind: the address; any but loopback is reached by other machines, too.
        port: 0 takes a free one.
        owner: process id; None for nobody's.
        tell: called with one line about the progress.
        ready: called with the address when it can be opened.

    Raises:
        ListenError: the address or port cannot be had.
    """
    if bind in ("", "0.0.0.0", "::"):
        raise ListenError(
            f"{bind or 'nothing'} is no address that somebody could open; name the one that the "
            "other machine reaches this one by; see: ip -brief address"
        )
    with listen(bind, port) as sock:
        port = sock.getsockname()[1]
        token = secrets.token_urlsafe(24)
        bind = bind.lower()  # as a browser sends it
        names = {bind, "localhost", "127.0.0.1", "[::1]"} if is_loopback(bind) else {bind}
        hosts = {url_host(name) for name in names}
        hosts = {f"{host}:{port}" for host in hosts} | (hosts if port == 80 else set())
        servers: list[_Server] = []

        def end() -> None:
            servers[0].should_exit = True

        page = Page(test, tell, end)
        config = uvicorn.Config(
            AuthMiddleware(page.app(), token, hosts),
            http=_Connection,
            ws="none",
            backlog=MOST_CONNECTIONS // 2,
            h11_max_incomplete_event_size=1 << 14,
            log_config=None,
            log_level=logging.ERROR,  # a stranger's bad request is no news for the operator
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
        servers.append(
            _Server(
                config,
                page,
                lambda: test.current is None,
                owner,
                lambda: ready(f"http://{url_host(bind)}:{port}/{token}/"),
            )
        )
        servers[0].run(sockets=[sock])
