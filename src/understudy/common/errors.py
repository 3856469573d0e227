"""What an exception says, at a length that a person reads."""

from __future__ import annotations

LONG = 1000


def describe(error: BaseException) -> str:
    """Return ``Type: text``."""
    return f"{type(error).__name__}: {error}"


def brief(text: str) -> str:
    """Return a description as it is, or its kind and last line where it is very long.

    PyTorch puts the whole source of a kernel (46 kB) before the line that says what is wrong.
    """
    text = text.strip("\0\n ")
    if len(text) <= LONG:
        return text
    kind, last = text.split(":", maxsplit=1)[0][:100], text.rpartition("\n")[2].strip("\0 ")
    return f"{kind}: … {last[-LONG:]}"
