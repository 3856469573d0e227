"""Base URLs of voice servers: made of a host, taken apart, and compared by what they mean."""

from __future__ import annotations

import re

from pydantic_core import Url

#: The zone of a link-local address, ``[fe80::1%eth0]``: the parser knows none.
_ZONE = re.compile(r"(^\s*\w+://(?:[^/?#\\@]*@)?\[[\da-fA-F:.]+)%(?:25)?([^]/%@]+)(?=\])", re.ASCII)


def url_host(host: str) -> str:
    """Return a host's name or address as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def endpoint(url: str) -> tuple[str, int]:
    """Return host and port of a base URL, as a socket takes them.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    parsed = _parse(url)
    if parsed is None or parsed[0] not in ("http", "https") or parsed[2] is None:
        raise ValueError(
            f"{url!r} is no base URL, such as http://panda:8772 or http://[fd00::7]:8772"
        )
    return parsed[1].strip("[]"), parsed[2]


def normalised(url: str) -> str:
    """Return a base URL in one spelling, or the text itself where it is no URL with a host.

    Scheme and host are in lower case and IDNA, addresses in their shortest form; the scheme's
    own port, a dot after the name, a slash at the end, user, query and fragment are dropped.
    No name is looked up.
    """
    parsed = _parse(url)
    if parsed is None:
        return url
    scheme, host, port, path = parsed
    usual = Url(f"{scheme}://host").port  # None for a scheme without one
    return f"{scheme}://{host}{'' if port in (None, usual) else f':{port}'}{path.rstrip('/')}"


def same_server(one: str, other: str) -> bool:
    """Return whether two base URLs lead to the same place, as far as their text says."""
    return normalised(one) == normalised(other)


def _parse(url: str) -> tuple[str, str, int | None, str] | None:
    """Return scheme, host as it stands in a URL, port and path; None for no URL with a host."""
    zone = _ZONE.search(url)
    try:
        parsed = Url(_ZONE.sub(r"\1", url))
    except ValueError:
        return None
    host = (parsed.host or "").rstrip(".")
    if zone and host.endswith("]"):
        host = f"{host[:-1]}%{zone[2]}]"
    return (parsed.scheme, host, parsed.port, parsed.path or "") if host else None
