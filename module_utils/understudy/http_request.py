"""One HTTP request that ends in time, follows nobody elsewhere, and uses no proxy."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any


class NoReply(Exception):
    """There is no reply: no connection, or one that broke off or took too long."""


@dataclass(frozen=True)
class Reply:
    """A reply with any status.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
        body: as far as it was read.
    """

    status: int
    headers: dict[str, str]
    body: bytes


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is a reply like any other: the token is for this server alone."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def ask(
    url: str,
    timeout_s: float,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    max_bytes: int = 65536,
) -> Reply:
    """Return the reply of a server.

    Args:
        url: without user and password.
        timeout_s: for all of it, in seconds: look up the name, connect, send, read to the end.
        data: the body of a POST; None for a GET.
        headers: of the request.
        max_bytes: so much of the body is read.

    Raises:
        NoReply: there is none in time.
    """
    found: list[Reply] = []
    seen: list[str] = []

    def fetch() -> None:
        request = urllib.request.Request(url, data, headers or {})
        try:
            try:
                reply = _OPENER.open(request, timeout=timeout_s)
            except urllib.error.HTTPError as error:
                reply = error
            with reply:
                names = {name.lower(): value for name, value in reply.headers.items()}
                found.append(Reply(reply.status, names, reply.read(max_bytes)))
        except ValueError:  # its text may hold a header's value, which may be a token
            seen.append("the request cannot be sent: its URL or a header is malformed")
        except (OSError, http.client.HTTPException) as error:
            seen.append(str(getattr(error, "reason", None) or error or type(error).__name__))

    # In a thread, since a socket's time-out begins anew with each byte, and bounds no name look-up.
    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if found:
        return found[0]
    raise NoReply(seen[0] if seen else f"no whole reply within {timeout_s:g} s")


def identify(url: str, timeout_s: float) -> dict[str, Any]:
    """Return which process serves a URL, as its ``/health`` reports.

    Args:
        url: base URL of a voice server.
        timeout_s: for all of it, in seconds.

    Returns:
        ``instance`` (None where it reports none), ``answers`` (whether anything was heard of it)
        and ``seen``, for people.
    """
    try:
        reply = ask(f"{url}/health", timeout_s)
    except NoReply as error:
        return {"instance": None, "answers": False, "seen": f"{url}/health: {error}"}
    try:
        document = json.loads(reply.body)
        instance, state = document.get("instance"), document.get("state")
    except (ValueError, AttributeError):
        instance = state = None
    known = isinstance(instance, str) and 0 < len(instance) <= 200
    said = f"state {str(state)[:50]}" if state else "no state"
    return {
        "instance": instance if known else None,
        "answers": True,
        "seen": f"{url}/health: status {reply.status}, {said}",
    }
