"""One key of an environment file: what its readers make of the line, and writing it in place.

systemd's ``EnvironmentFile=``, ``docker --env-file``, python-dotenv and a shell's ``.`` differ: the
first two know no comment after a value, the last two expand ``${NAME}``, and to some a backslash
joins two lines. A URL is taken only from a line from which no two of them take different URLs.
Files are bytes, and a line ends with a line feed, whatever the encoding.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

_LINE = rb"""(?P<head>(?:\xef\xbb\xbf)?[ \t]*(?:export[ \t]+)?%s[ \t]*=[ \t]*)(?P<rest>.*)"""
_VALUE = re.compile(
    rb"""(?:(?P<quote>["'])(?P<quoted>.*?)(?P=quote)|(?P<bare>.*?))(?:[ \t]+\#.*|[ \t]*)""",
    re.DOTALL,
)
_URL = re.compile(
    r"(?P<scheme>https?)://(?:[\w.!*+,=:%@-]*@)?(?P<host>[\w.-]+|\[[\w.:%]+\])(?::(?P<port>\d+))?"
    r"(?P<path>(?:/[\w.~!*+,=:%@/-]*)?)(?:[?][\w.~!*+,=:%@/?&-]*)?",
    re.ASCII | re.IGNORECASE,
)


class EnvFileError(Exception):
    """The file has no such line, none that can be read with certainty, or cannot be written."""


@dataclass(frozen=True)
class Assignment:
    """The line that sets a key.

    Attributes:
        key: the name that is set.
        number: of the line, from 1.
        start: of the line in the file, in bytes.
        body: the line without its end.
        head: what stands before the value.
        quote: the quotes around the value, or nothing.
        value: without quotes and without a comment after it.
        joined: the line before ends with a backslash.
    """

    key: str
    number: int
    start: int
    body: bytes
    head: bytes
    quote: bytes
    value: bytes
    joined: bool

    def text(self) -> str:
        """Return the value.

        Raises:
            EnvFileError: the readers of such a file would not agree about it.
        """
        for found, what in (
            (self.joined, "the line before ends with a backslash"),
            (b"\\" in self.value, "there is a backslash in its value"),
            (re.search(rb"`|\$[{(]", self.value), "its value is to be expanded by who reads it"),
            (re.search(rb"[\0-\x1f\x7f]", self.value), "there is a control character in its value"),
        ):
            if found:
                raise EnvFileError(f"line {self.number}, {self.key}=…: {what}")
        return self.value.decode("utf-8", "replace")

    def url(self) -> str:
        """Return the URL as `public` has it; empty where the value is.

        Raises:
            EnvFileError: no URL, or none that is certain. The value is not shown: it may be secret.
        """
        try:
            text = self.text()
            if text and (not _URL.fullmatch(text) or ("&" in text and not self.quote)):
                raise EnvFileError(f"line {self.number}, {self.key}=…: its value is not just a URL")
        except EnvFileError as error:
            raise EnvFileError(
                f"{error}, so it is not certain which URL a client takes from there. Next: write "
                f"{self.key}=http://HOST:PORT there, and a comment into a line of its own"
            ) from None
        return public(text)

    def leading_to(self, url: str) -> bytes:
        """Return the line with another URL; a comment after the value was about the old one."""
        return self.head + self.quote + url.encode() + self.quote


def find(data: bytes, key: str) -> Assignment | None:
    """Return the assignment of a key that counts, which is the last one; None where it has none."""
    pattern = re.compile(_LINE % re.escape(key.encode()), re.DOTALL)
    start, found, before = 0, None, b""
    for number, line in enumerate(data.split(b"\n"), 1):
        body = line[:-1] if line.endswith(b"\r") else line
        match = pattern.fullmatch(body)
        if match and (number == 1 or not body.startswith(b"\xef\xbb\xbf")):
            value = _VALUE.fullmatch(match["rest"])
            assert value  # it matches everything
            bare = value["quoted"] if value["quote"] else value["bare"]
            quote, joined = value["quote"] or b"", before.endswith(b"\\")
            found = Assignment(key, number, start, body, match["head"], quote, bare, joined)
        start, before = start + len(line) + 1, body
    return found


def public(url: str) -> str:
    """Return a URL in one spelling, without user, password and query, which may be secret."""
    match = _URL.fullmatch(url)
    if not match:
        return ""
    scheme, port = match["scheme"].lower(), match["port"]
    usual = {"http": "80", "https": "443"}[scheme]
    colon = f":{port}" if port and port != usual else ""
    return f"{scheme}://{match['host'].lower()}{colon}{match['path'].rstrip('/')}"


# Writing


def why_not_writable(path: str) -> str:
    """Return why a file cannot be written in place by this user; empty where it can.

    A file of one's own that nobody may write is made writable for that moment.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except PermissionError as error:
        own = os.path.exists(path) and os.stat(path).st_uid == os.geteuid()
        if not (own and error.errno == errno.EACCES):
            return str(error.strerror)
    except OSError as error:
        return str(error.strerror)
    return ""


def write(path: str, old: bytes, new: bytes, copy: str) -> None:
    """Replace the content of a file in place, so that inode, owner, mode, ACL and mounts stay.

    A file that is mounted into a container, or has several names, is the same file for all of
    them only as long as it is not replaced by another one. What is written is an environment file
    at each moment: where it gets shorter, empty lines end it until it is cut. The old content is
    kept in a copy until the new one is on the disk, so that `mixed` finds what a crash has left.

    Args:
        path: the file.
        old: its content.
        new: what it is to contain.
        copy: path for the copy.

    Raises:
        OSError: it cannot be written; its content is the old one.
    """
    part = f"{copy}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(old)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, copy)
    try:
        handle = _open(path)
        try:
            _fill(handle, new, len(old))
        except OSError:
            _fill(handle, old, 0)
            raise
        finally:
            os.close(handle)
    finally:
        with open(path, "rb") as file:
            if file.read() in (old, new):
                os.unlink(copy)


def mixed(now: bytes, old: bytes, new: bytes) -> bool:
    """Return whether a content is what a crash between two others may have left."""
    if now in (old, new):
        return False
    padded = _padded(new, len(old))
    same = 0
    while same < min(len(now), len(padded)) and now[same] == padded[same]:
        same += 1
    return now[same:] == old[same:] or not now.strip(b"\0")


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError:
        mode = os.stat(path).st_mode & 0o7777
        if mode & 0o200:
            raise
        os.chmod(path, mode | 0o200)
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        finally:
            os.chmod(path, mode)


def _padded(content: bytes, length: int) -> bytes:
    return content + b"\n" * (length - len(content))


def _fill(handle: int, content: bytes, length: int) -> None:
    padded = _padded(content, length)
    if os.pwrite(handle, padded, 0) != len(padded):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(handle, len(content))
    os.fsync(handle)
