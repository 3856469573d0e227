"""Files that are replaced whole or not at all, and files that somebody else may have made."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: The most bytes that are read of a file, by what it is. Each is many times what is usual.
JSON_BYTES = 4 << 20
SHEET_BYTES = 1 << 20
WAV_BYTES = 64 << 20

#: What a name may lead to that is no file, by `stat.S_IFMT`.
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a link",
}


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file and nothing else; never wait for one.

    Args:
        path: a link at its end is refused with ``O_NOFOLLOW`` only.
        flags: of `os.open`.
        mode: of a file that ``O_CREAT`` makes.

    Returns:
        The descriptor, closed on exec.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    except ValueError as error:  # a NUL or half a surrogate pair in the name
        raise OSError(errno.EINVAL, "no file can have this name") from error
    except OSError as error:
        found = _kind(path, links=bool(flags & os.O_NOFOLLOW))
        if found and error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise OSError(error.errno, f"it is {found}, not a file") from error
        raise
    kind = os.fstat(handle).st_mode
    if stat.S_ISREG(kind):
        return handle
    os.close(handle)
    if stat.S_ISDIR(kind):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, f"it is {_KINDS.get(stat.S_IFMT(kind), 'special')}, not a file")


def _kind(path: Path, *, links: bool) -> str | None:
    """Return what a name leads to, unless that is a regular file or nothing."""
    try:
        found = path.stat(follow_symlinks=not links)
    except OSError:
        return None
    return _KINDS.get(stat.S_IFMT(found.st_mode))


def read_bytes(path: Path, most: int, *, links: bool = False) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        most: bytes that it may have.
        links: whether `path` may be a link.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger; ``strerror`` says which.
    """
    handle = open_regular(path, os.O_RDONLY | (0 if links else os.O_NOFOLLOW))
    with os.fdopen(handle, "rb") as file:
        content = bytearray()
        while chunk := file.read(1 << 20):  # its size is not asked for: it may grow
            content += chunk
            if len(content) > most:
                raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes")
    return bytes(content)


def read_within(directory: Path, name: str, most: int) -> bytes:
    """Return the content of a file that a document of a run directory names.

    Args:
        directory: the file lies in it; no link leads out of it.
        name: relative path.
        most: bytes that it may have.

    Raises:
        OSError: as `read_bytes`, or it lies elsewhere.
    """
    try:
        path = directory / name
        inside = path.resolve().is_relative_to(directory.resolve())
    except (ValueError, RuntimeError) as error:  # a NUL in the name; links in a circle
        raise OSError(errno.EINVAL, "no file can have this name") from error
    if not inside:
        raise OSError(errno.EINVAL, "it lies outside the run directory")
    return read_bytes(path, most)


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
