"""Files that are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic(path: Path, *, mode: int = 0o644, durable: bool = False) -> Iterator[Path]:
    """Yield an empty file beside `path` to write to; it replaces `path` at the end.

    After an error in the block, `path` is as it was and the new file is deleted.

    Args:
        path: its directory must exist.
        mode: permissions of the file.
        durable: a power cut does not undo the replacement.

    Raises:
        OSError: the file cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(mode)
        if durable:
            _sync(part)
        part.replace(path)
        if durable:
            _sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    """Write a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
