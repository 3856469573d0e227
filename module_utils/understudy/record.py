"""The files of a run directory, as the Ansible half writes them.

Fields are described in docs/run-directory.md. Several hosts may write into one
file at the same time, so a write takes a lock, merges and replaces.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from typing import Any

from .clock import utc_now

SCHEMA_VERSION = 1
FINAL = ("ok", "failed", "skipped")


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `old` with `new` over it: dicts key by key, `busy` appended, the rest replaced."""
    result = dict(old)
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        elif key == "busy" and isinstance(result.get(key), list):
            result[key] = result[key] + [row for row in value if row not in result[key]]
        else:
            result[key] = value
    return result


def header(run_id: str, phase: str, host: str | None) -> dict[str, Any]:
    """Return the fields every phase file starts with."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "phase": phase,
        "host": host,
        "status": "running",
        "started_at": utc_now(),
        "finished_at": None,
        "error": None,
    }


def write(path: str, document: dict[str, Any], mode: int = 0o644) -> None:
    """Write a document with a mode, whole or not at all.

    Raises:
        OSError: the directory cannot be written.
    """
    handle, part = tempfile.mkstemp(prefix="." + os.path.basename(path), dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2, ensure_ascii=False)
            file.write("\n")
        os.chmod(part, mode)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def update(
    run_dir: str, name: str, phase: str, host: str | None, data: dict[str, Any]
) -> dict[str, Any]:
    """Merge `data` into a phase file, with a header where there is none yet.

    Args:
        run_dir: the run directory; its name is the run id.
        name: of the file.
        phase: for the header.
        host: for the header; None for a file that covers several.
        data: what is known now; a final `status` sets `finished_at`.

    Returns:
        The document as written.

    Raises:
        OSError: the directory cannot be written.
        ValueError: the file that is there is not JSON.
    """
    path = os.path.join(run_dir, name)
    with open(os.path.join(run_dir, ".lock"), "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                document = json.load(file)
        else:
            document = header(os.path.basename(run_dir.rstrip("/")), phase, host)
        # A failure that was recorded stays one.
        if document.get("error") and data.get("status") == "ok":
            data = {key: value for key, value in data.items() if key != "status"}
        document = merge(document, data)
        if data.get("status") in FINAL:
            document["finished_at"] = utc_now()
        write(path, document)
    return document


def error(kind: str, host: str | None, trying: str, seen: str, next_step: str) -> dict[str, Any]:
    """Return the contract's error object."""
    return {"kind": kind, "host": host, "trying": trying, "seen": seen, "next": next_step}
