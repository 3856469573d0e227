"""Base URLs of voice servers, compared by what they mean and not by how they are spelt."""

from __future__ import annotations

import re

from pydantic_core import Url

#: The zone of a link-local address, ``[fe80::1%eth0]``: the parser knows none.
_ZONE = re.compile(r"(^\s*\w+://(?:[^/?#\\@]*@)?\[[\da-fA-F:.]+)%(?:25)?([^]/%@]+)(?=\])", re.ASCII)


def normalised(url: str) -> str:
    """Return a base URL in one spelling, or the text itself where it is no URL with a host.

    Scheme and host are in lower case and IDNA, addresses in their shortest form; the scheme's
    own port, a dot after the name, a slash at the end, user, query and fragment are dropped.
    No name is looked up.
    """
    zone = _ZONE.search(url)
    try:
        parsed = Url(_ZONE.sub(r"\1", url))
    except ValueError:
        return url
    host = (parsed.host or "").rstrip(".")
    if not host:
        return url
    if zone and host.endswith("]"):
        host = f"{host[:-1]}%{zone[2]}]"
    usual = Url(f"{parsed.scheme}://host").port  # None for a scheme without one
    port = "" if parsed.port in (None, usual) else f":{parsed.port}"
    return f"{parsed.scheme}://{host}{port}{(parsed.path or '').rstrip('/')}"


def same_server(one: str, other: str) -> bool:
    """Return whether two base URLs lead to the same place, as far as their text says."""
    return normalised(one) == normalised(other)
