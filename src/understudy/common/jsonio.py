"""JSON files that are never half-written, and errors that name the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.common.files import atomic


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


def read_json(path: Path | str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        JsonError: it cannot be read, is not JSON, or is not an object.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise JsonError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise JsonError(f"{path}: byte {error.start} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise JsonError(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    if not isinstance(document, dict):
        raise JsonError(f"{path}: {type(document).__name__}, expected an object")
    return document


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def parse_json(content: bytes) -> Any:
    """Return the JSON document in the bytes.

    Raises:
        ValueError: with what is wrong with them.
    """
    if not content.strip():
        raise ValueError("it is empty")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_not_json)
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not complete JSON ({error})") from error
