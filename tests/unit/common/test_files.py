"""What is read of a name that may lead anywhere, and how much of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from understudy.common.files import read_bytes, read_within


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (os.mkfifo, "it is a pipe, not a file"),
        (os.mkdir, "Is a directory"),
        (lambda path: path.symlink_to("elsewhere"), "it is a link, not a file"),
        (lambda path: path.symlink_to(path), "it is a link, not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a link, not a file"),
        (bind, "it is a socket, not a file"),
        (lambda path: path.write_bytes(b"12345"), "it is larger than 4 bytes"),
        (lambda _: None, "No such file or directory"),
    ],
)
def test_what_is_no_small_file(tmp_path: Path, make: Callable[[Path], object], seen: str) -> None:
    make(tmp_path / "one")
    with pytest.raises(OSError, match=r".") as refused:
        read_bytes(tmp_path / "one", 4)
    assert refused.value.strerror == seen


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    for read in (lambda: read_bytes(tmp_path / name, 4), lambda: read_within(tmp_path, name, 4)):
        with pytest.raises(OSError, match="name"):
            read()


def test_a_link_is_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("file")
    assert read_bytes(tmp_path / "link", 4, links=True) == b"1234"
    for target, seen in (("/dev/zero", "a device"), (".", "Is a directory")):
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(target)
        with pytest.raises(OSError, match=seen):
            read_bytes(tmp_path / "link", 4, links=True)


def test_a_name_within_a_directory(tmp_path: Path) -> None:
    inside, outside = tmp_path / "run", tmp_path / "secret"
    (inside / "wavs").mkdir(parents=True)
    outside.write_bytes(b"1")
    (inside / "wavs/u01.wav").write_bytes(b"2")
    (inside / "away").symlink_to(tmp_path)
    (inside / "round").symlink_to("round")
    assert read_within(inside, "wavs/u01.wav", 4) == b"2"
    assert read_within(inside, "wavs/../wavs/u01.wav", 4) == b"2"
    for name in ("../secret", str(outside), "away/secret", "round/secret", "wavs", "."):
        with pytest.raises(OSError, match=r"."):
            read_within(inside, name, 4)
