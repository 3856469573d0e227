"""Sockets to listen on and connections to ask over, and errors that say why there is none."""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

#: Family, and address as a socket takes it: host, port and, of IPv6, flow and zone.
Address = tuple[socket.AddressFamily, tuple[Any, ...]]

#: So long after an address that has not answered yet the next one is tried (RFC 8305).
ATTEMPT_DELAY_S = 0.25


class ListenError(ValueError):
    """An address or port that cannot be had; the message names it and the next step."""


def listen(bind: str, port: int) -> socket.socket:
    """Return a socket that listens, so that a taken port is noticed before any work is done.

    Args:
        bind: address or name.
        port: 0 takes a free one.

    Raises:
        ListenError: it cannot be had.
    """
    if not 0 <= port <= 65_535:
        raise ListenError(f"{port} is no port; expected one from 0 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {bind}: {error.strerror or error}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # :: is every address, those of IPv4 too
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ListenError(
                f"port {port} on {bind} is already taken; see by whom: ss -ltnp 'sport = :{port}'"
            ) from error
        raise ListenError(
            f"cannot listen on {bind} port {port}: {error.strerror}; see: ip address"
        ) from error
    return sock


def lookup(host: str, port: int, timeout_s: float) -> list[Address]:
    """Return the addresses of a host, the preferred one first.

    Args:
        host: name or address.
        port: of TCP.
        timeout_s: how long a name may be looked up, in seconds.

    Raises:
        OSError: it has none, or none was found in time.
    """
    found: list[Address] = []
    seen = [f"the name was not looked up within {timeout_s:g} s"]

    def look_up() -> None:
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            seen[0] = error.strerror or str(error)
        except UnicodeError as error:  # a name that cannot be one
            seen[0] = str(error)
        else:
            found.extend((family, address) for family, *_, address in rows)

    # A thread, since a name is looked up without any limit of time.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not found:
        raise OSError(seen[0])
    return found.copy()


def connect(host: str, port: int, timeout_s: float) -> socket.socket:
    """Return a connection to the first address of a host that accepts one.

    The others are tried beside one that does not answer, so that it costs no time-out (RFC 8305).

    Args:
        host: name or address.
        port: of TCP.
        timeout_s: for all of it, the lookup of the name included, in seconds.

    Raises:
        OSError: there is none; the message says what was seen, for each address of a name.
    """
    deadline = time.monotonic() + timeout_s
    late = f"no answer within {timeout_s:g} s"
    waiting = lookup(host, port, timeout_s)
    seen: dict[str, str] = {}
    with ExitStack() as unused, selectors.DefaultSelector() as trying:
        while waiting or trying.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            if waiting:
                family, address = waiting.pop(0)
                try:
                    sock = unused.enter_context(socket.socket(family, socket.SOCK_STREAM))
                except OSError as refused:  # a family that this kernel lacks
                    seen[numeric(address)] = refused.strerror or str(refused)
                    continue
                sock.setblocking(False)
                seen[numeric(address)] = late
                error = sock.connect_ex(address)
                if error in (0, errno.EINPROGRESS):
                    trying.register(sock, selectors.EVENT_WRITE, address)
                else:
                    seen[numeric(address)] = os.strerror(error)
                    continue
            for key, _ in trying.select(min(left, ATTEMPT_DELAY_S) if waiting else left):
                assert isinstance(key.fileobj, socket.socket)
                trying.unregister(key.fileobj)
                error = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not error:
                    key.fileobj.settimeout(timeout_s)
                    return key.fileobj.dup()
                seen[numeric(key.data)] = os.strerror(error)
    seen |= {numeric(address): "not tried in time" for _, address in waiting}
    if set(seen) == {host}:
        raise OSError(seen[host])
    raise OSError("; ".join(f"{address}: {what}" for address, what in seen.items()))


def numeric(address: tuple[Any, ...]) -> str:
    """Return what a socket's address (host, port, …) has as a host, with its zone."""
    host, zone = str(address[0]), address[3] if len(address) == 4 else 0
    return f"{host}%{zone}" if zone and "%" not in host else host


def is_loopback(address: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
