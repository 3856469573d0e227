"""JSON files that are never half-written, and errors that name the place.

Somebody else may have written what is read here. One reader refuses what a later step would
trip over: numbers that are none, half surrogate pairs, keys that stand twice, nesting without
end and sizes that no document here has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from understudy.common.files import JSON_BYTES, atomic, read_bytes

#: How deep lists and objects may lie in each other; documents here have eight levels.
DEEPEST = 50

#: The most values of a document; the longest here have two thousand.
MOST_VALUES = 100_000
MANY = f"it holds more than {MOST_VALUES:,} values"

#: The most characters of a text; the longest here is what a compiler says about a kernel.
MOST_CHARACTERS = 100_000

#: The most digits of a whole number; more are no number for a float either.
MOST_DIGITS = 300

Pairs = list[tuple[str, Any]]


class JsonError(ValueError):
    """A JSON file that cannot be read; the message names the path and the position."""


def json_text(document: Mapping[str, Any]) -> str:
    """Return a document as it stands in a file: two spaces, keys in their order.

    Raises:
        ValueError: a number is NaN or infinite, which is not JSON.
        TypeError: a value has no form in JSON.
    """
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path | str, document: Mapping[str, Any]) -> None:
    """Write a document as UTF-8, two spaces, keys in their order: whole or not at all.

    Args:
        path: its directory must exist.
        document: only finite numbers; NaN is not JSON.

    Raises:
        OSError: the file cannot be written.
        ValueError: a number is NaN or infinite.
        TypeError: a value has no form in JSON.
    """
    path = Path(path)
    try:
        text = json_text(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path | str, *, links: bool = True) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: the file.
        links: whether it may be a link.

    Raises:
        JsonError: it cannot be read, is not JSON, or is not an object.
    """
    path = Path(path)
    try:
        document = _load(read_bytes(path, JSON_BYTES, links=links))
    except OSError as error:
        raise JsonError(f"{path}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise JsonError(f"{path}: {_place(error)}") from error
    except ValueError as error:
        raise JsonError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise JsonError(f"{path}: {type(document).__name__}, expected an object")
    return document


def parse_json(
    content: bytes | str,
    *,
    pairs: Callable[[Pairs], Any] | None = None,
    constant: Callable[[str], Any] | None = None,
) -> Any:
    """Return the JSON document in the bytes.

    Args:
        content: UTF-8, or a text.
        pairs: makes an object of its keys and values; by default a key that stands twice is an
            error.
        constant: makes a value of ``NaN`` or ``Infinity``; by default they are an error.

    Raises:
        ValueError: with what is wrong with them.
    """
    if not content.strip():
        raise ValueError("it is empty")
    try:
        return _load(content, pairs, constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not complete JSON ({_place(error)})") from error


def _load(
    content: bytes | str,
    pairs: Callable[[Pairs], Any] | None = None,
    constant: Callable[[str], Any] | None = None,
) -> Any:
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        if max(text.count(","), text.count("["), text.count("{")) > 2 * MOST_VALUES:
            raise ValueError(MANY)  # known without making a million lists
        document = json.loads(
            text,
            object_pairs_hook=pairs or _once,
            parse_constant=constant or _not_json,
            parse_float=_finite,
            parse_int=_whole,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {DEEPEST} levels deep") from error
    _check(document)
    return document


def _place(error: json.JSONDecodeError) -> str:
    return f"line {error.lineno}, column {error.colno}: {error.msg}"


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits, expected at most {MOST_DIGITS}")
    return int(text)


def _once(pairs: Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        key = json.dumps(repeated(key for key, _ in pairs)[0])
        raise ValueError(f"the key {key[:80]} stands twice")
    return found


def repeated(keys: Iterable[str]) -> list[str]:
    """Return the keys that stand more than once, each once, in their order."""
    seen: dict[str, int] = {}
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
    return [key for key, count in seen.items() if count > 1]


def _check(document: Any) -> None:
    """Raise ValueError for what is JSON and yet not to be worked with."""
    level, depth, count = [document], 0, 0
    while level:
        count += len(level)
        if count > MOST_VALUES:
            raise ValueError(MANY)
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, dict):
                for key in value:
                    _check_text(key)
                inner += value.values()
        level, depth = inner, depth + 1


def _check_text(text: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"it holds a text of {len(text):,} characters, expected at most {MOST_CHARACTERS:,}"
        )
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            half = ascii(text[error.start])[1:-1]
            raise ValueError(f"it holds half a surrogate pair, {half}, which is no text") from error
