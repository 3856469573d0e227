"""Files that are read, or replaced, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
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


def read_regular(path: Path, *, limit: int) -> bytes:
    """Return the content of a regular file; a pipe or a device in its place is not waited for.

    Args:
        path: links are followed.
        limit: bytes.

    Raises:
        OSError: it cannot be read, is no regular file, has more bytes, or changed meanwhile.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        before = os.fstat(handle)
        if stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if before.st_size > limit:
            raise OSError(errno.EFBIG, f"more than {limit} bytes", str(path))
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(limit + 1)
        after = os.fstat(handle)
    finally:
        os.close(handle)
    if (len(content), after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise OSError(errno.EAGAIN, "changed while it was read", str(path))
    return content


def _sync(path: Path) -> None:
    """Write a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
