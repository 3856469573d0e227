"""Limits on connections, so that clients that send nothing keep nobody out.

uvicorn bounds the time of an idle connection only once a request was answered on it. Here every
wait for a client is bounded: for the head of a request (here), for its body (`serve.auth`), for
the next request (uvicorn's keep-alive), and for taking the answer (the kernel's
``TCP_USER_TIMEOUT``). So is the number of connections; over the limit, one that waits for its
client gives way, and a request that is being worked on never does.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections import Counter
from typing import Any

import h11
import uvicorn

from understudy.common.http_protocol import SafeProtocol
from understudy.serve.config import ConfigError

#: Within how many seconds the head of a request must have arrived.
HEAD_S = 10.0

#: For how long a client may leave a connection unused; clients keep theirs for up to 60 s.
KEEP_ALIVE_S = 75

#: For how long a client may take nothing of its answer, in seconds.
TAKE_S = 30

#: Connections accepted in one turn of the event loop, and waiting in the kernel until then.
BATCH, BACKLOG = 64, 1024

#: File descriptors for everything else, and for connections between being accepted and closed:
#: four turns of the event loop.
RESERVED_FILES = 128 + 4 * BATCH

_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
    b"Content-Length: 0\r\n\r\n"
)

log = logging.getLogger("understudy.server")


def possible(wanted: int) -> int:
    """Return how many connections the limit on open files allows, raised as far as it may be.

    Args:
        wanted: connections.

    Raises:
        ConfigError: not one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    found = min(wanted, soft - RESERVED_FILES)
    if found < 1:
        raise ConfigError(
            f"only {soft} files may be open, {RESERVED_FILES + 1} are needed at least; "
            "raise LimitNOFILE= in the unit, or ulimit -n"
        )
    if found < wanted:
        log.warning("%d connections instead of %d: %d files may be open", found, wanted, soft)
    return found


class Connections:
    """The open connections.

    Args:
        limit: how many there may be.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: Those that have waited for their clients for longest come first.
        self._open: dict[HttpProtocol, None] = {}
        self._of_address: Counter[str | None] = Counter()

    def protocol(self, **options: Any) -> HttpProtocol:
        """Return the protocol of a new connection, from what uvicorn gives it."""
        return HttpProtocol(self, **options)

    def add(self, new: HttpProtocol) -> bool:
        """Take a new connection in, in the place of another where there is no room.

        Returns:
            Whether there was room: False where every other one is being worked on, or is of an
            address that has fewer.
        """
        while len(self._open) >= self._limit:
            waiting = [one for one in self._open if one.waits_for_client]
            # The address that has most of them gives way, and there a client that never sent a
            # request; of these the one that has waited for longest.
            number = self._of_address
            oldest = min(
                waiting, key=lambda one: (-number[one.address], one.answered), default=None
            )
            if oldest is None or number[oldest.address] < number[new.address]:
                return False
            log.warning(
                "%d connections are open: closing an idle one from %s", self._limit, oldest.address
            )
            self.remove(oldest)
            oldest.transport.abort()
        self._open[new] = None
        self._of_address[new.address] += 1
        return True

    def renew(self, one: HttpProtocol) -> None:
        """Note that a connection was answered and waits for its client anew."""
        if one in self._open:
            del self._open[one]
            self._open[one] = None

    def remove(self, one: HttpProtocol) -> None:
        """Note that a connection is closed."""
        if one in self._open:
            del self._open[one]
            self._of_address -= Counter([one.address])  # none is kept at zero


class HttpProtocol(SafeProtocol):
    """uvicorn's HTTP protocol, with a bound on the time of a head and a place among the others.

    Attributes:
        answered: a request was answered on this connection.
    """

    def __init__(self, connections: Connections, **options: Any) -> None:
        super().__init__(**options)
        self.answered = False
        self._others = connections
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def address(self) -> str | None:
        """The client's address."""
        return self.client[0] if self.client else None

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's turn; else a request is being worked on."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return True
        return bool(self.flow.write_paused)  # it does not take its answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, or refuse it."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TAKE_S * 1000)
        if self._others.add(self):
            self._watch_head()
        else:
            transport.write(_NO_ROOM)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._others.remove(self)
        self._unset_keepalive_if_required()
        self._unset_head_timer()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Wait for the client anew."""
        self.answered = True
        self._others.renew(self)
        super().on_response_complete()
        self._watch_head()

    def _watch_head(self) -> None:
        """Bound the time until the head is complete; more bytes of it give no more time."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._unset_head_timer()
        elif self._head_timer is None and self.timeout_keep_alive_task is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._head_is_late)

    def _unset_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        if not self.transport.is_closing():
            if self.conn.trailing_data[0]:
                self.transport.write(_TIMED_OUT)
            self.transport.close()


def uvicorn_config(app: Any, limit: int, **options: Any) -> uvicorn.Config:
    """Return uvicorn's configuration for an application, with every wait for a client bounded.

    Args:
        app: the ASGI application.
        limit: open connections.
        options: more of uvicorn's.
    """
    return uvicorn.Config(
        app,
        http=Connections(limit).protocol,  # type: ignore[arg-type]
        ws="none",
        backlog=BATCH,
        timeout_keep_alive=KEEP_ALIVE_S,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        **options,
    )
