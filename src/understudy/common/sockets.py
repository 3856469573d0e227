"""Sockets to listen on, and errors that say why there is none."""

from __future__ import annotations

import errno
import ipaddress
import socket


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
    try:
        family, *_, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {bind}: {error.strerror or error}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
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


def is_loopback(address: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
