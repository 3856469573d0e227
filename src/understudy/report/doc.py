"""A value of a run's documents as a page shows it, whatever it turns out to be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from markupsafe import Markup, escape

from understudy.report import charts

UNKNOWN = "\N{EN DASH}"


class Doc:
    """A JSON value that can be asked for anything.

    ``doc["a"]["b"]`` is a `Doc` whatever ``doc`` holds; what is not there holds None.
    Iteration gives the elements of a list and nothing for any other value. There are no
    public attributes, so that a template can write ``doc.items`` and mean the key.
    """

    __slots__ = ("_held",)

    def __init__(self, value: object = None) -> None:
        self._held: object = value._held if isinstance(value, Doc) else value

    def __call__(self) -> object:
        """Return the value itself."""
        return self._held

    def __getitem__(self, key: object) -> Doc:
        if isinstance(self._held, dict) and isinstance(key, str):
            return Doc(self._held.get(key))
        return Doc()

    def __iter__(self) -> Iterator[Doc]:
        values = self._held if isinstance(self._held, list) else []
        return iter([Doc(value) for value in values])

    def __len__(self) -> int:
        return len(self._held) if isinstance(self._held, list | dict) else 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def __str__(self) -> str:
        return show(self)


def show(value: object, depth: int = 4) -> str:
    """Return a value for a reader: numbers with at most four significant digits.

    Args:
        value: anything that JSON can hold.
        depth: how many levels of lists and objects are shown; deeper ones are an ellipsis.
    """
    raw = raw_of(value)
    if raw is None:
        return UNKNOWN
    if isinstance(raw, bool):
        return "yes" if raw else "no"
    if isinstance(raw, int | float):
        number = number_of(raw)
        if number is None:
            return UNKNOWN
        whole = number == int(number) and abs(number) < 1e6
        return with_minus(f"{number:.0f}" if whole else f"{number:.4g}")
    if isinstance(raw, list | dict) and raw and not depth:
        return "…"
    if isinstance(raw, list):
        return ", ".join(show(one, depth - 1) for one in raw) or "none"
    if isinstance(raw, dict):
        return ", ".join(f"{key}: {show(one, depth - 1)}" for key, one in raw.items()) or "none"
    return str(raw)


def num(value: object, digits: int = 2) -> str:
    """Return a number with a fixed number of decimals."""
    number = number_of(value)
    if number is None:
        return UNKNOWN
    return with_minus(f"{number:.{digits}f}" if abs(number) < charts.LARGEST else f"{number:.3g}")


def size(value: object) -> str:
    """Return a number of bytes in decimal units, as disks and GPUs are sold."""
    number = number_of(value)
    if number is None:
        return UNKNOWN
    for unit, digits in (("bytes", 0), ("kB", 0), ("MB", 0), ("GB", 2)):
        if abs(number) < 1000 or unit == "GB":
            return f"{num(number, digits)} {unit}"
        number /= 1000
    return UNKNOWN


def seconds(value: object) -> str:
    """Return a duration; from two minutes on in minutes and seconds."""
    number = number_of(value)
    if number is None:
        return UNKNOWN
    if 120 <= number < charts.LARGEST:
        minutes, rest = divmod(round(number), 60)
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    return f"{num(number, 2 if abs(number) < 10 else 1)} s"


def ms(value: object) -> str:
    """Return a number of milliseconds."""
    number = number_of(value)
    return UNKNOWN if number is None else f"{num(number, 0 if abs(number) >= 100 else 1)} ms"


def percent(value: object) -> str:
    """Return a probability in per cent; certainty is not claimed."""
    number = number_of(value)
    if number is None:
        return UNKNOWN
    if number < 0.01:
        return "less than 1 %"
    return "more than 99 %" if number > 0.99 else f"{num(number * 100, 0)} %"


def when(value: object) -> str:
    """Return an ISO 8601 time as date and time in UTC; what is no such time as it is."""
    raw = raw_of(value)
    if not isinstance(raw, str):
        return show(raw)
    try:
        return datetime.fromisoformat(raw).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError):
        return raw


def commit(value: object) -> str:
    """Return a git commit with its first ten digits, and what follows the hash."""
    text = show(value)
    return text[:10] + text[40:] if re.match(r"[0-9a-f]{40}", text) else text


def code(value: object) -> Markup:
    """Return a text in which what stands between backticks is marked up as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(show(value)))))


def pairs(value: object) -> list[tuple[str, Doc]]:
    """Return the keys and values of an object, in order; nothing for any other value."""
    raw = raw_of(value)
    return [(str(key), Doc(one)) for key, one in raw.items()] if isinstance(raw, dict) else []


def raw_of(value: object) -> object:
    """Return what a `Doc` holds, and anything else as it is."""
    return value() if isinstance(value, Doc) else value


def number_of(value: object) -> float | None:
    """Return a finite number, and None for anything else, booleans included."""
    raw = raw_of(value)
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        number = float(raw)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def numbers_of(values: Iterable[object]) -> list[float]:
    """Return the finite numbers among some values."""
    return [number for number in map(number_of, values) if number is not None]


def text_of(value: object) -> str:
    """Return a text, and an empty one for anything else."""
    raw = raw_of(value)
    return raw if isinstance(raw, str) else ""


def with_minus(digits: str) -> str:
    """Return a number with a typographic minus sign."""
    return digits.replace("-", "\N{MINUS SIGN}") if digits.startswith("-") else digits


def is_known(value: object) -> bool:
    """Tell whether there is a value."""
    return raw_of(value) is not None


def is_numeric(value: object) -> bool:
    """Tell whether a value is a finite number."""
    return number_of(value) is not None
