"""The list of files of the page."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from understudy.common.files import WAV_BYTES, read_bytes
from understudy.report.doc import Doc, text_of

#: The page itself is not listed.
NAME = "report.html"


@dataclass(frozen=True)
class Listed:
    """A file of the directory; ``note`` says how it differs from what the verdict saw."""

    name: str
    bytes: int | None
    sha256: str
    note: str


def files(run_dir: Path, verdict: Doc) -> list[Listed]:
    """List the files of the directory, and say which changed since the verdict.

    What a listener hears is left out: the names are blind, and there are fifty to a pass.
    """
    used = {text_of(one["name"]): text_of(one["sha256"]) for one in verdict["files"]}
    rows = []
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if name == NAME or name.startswith("listening/") or path.name.startswith("."):
            continue
        if path.is_symlink() or not path.is_file():
            continue
        try:
            content = read_bytes(path, WAV_BYTES)
        except OSError as error:
            rows.append(Listed(name, None, "", error.strerror or "not readable"))
            continue
        digest = hashlib.sha256(content).hexdigest()
        changed = used.get(name, digest) != digest
        rows.append(Listed(name, len(content), digest, "changed since the verdict" * changed))
    there = {row.name for row in rows}
    rows.extend(
        Listed(name, None, sha256, "gone since the verdict")
        for name, sha256 in used.items()
        if name and name not in there
    )
    return rows
