"""JSON that somebody else wrote: refused in a sentence, and soon."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from understudy.common.jsonio import JsonError, parse_json, read_json


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"[" * 100_000, "nested more than 50 levels deep"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "nested more than 50 levels deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number has 5,000 digits, expected at most 300"),
        (b'{"a": -' + b"1" * 301 + b"}", "a number has 302 digits"),
        (b'{"a": 1e999}', "the number 1e999 is too large"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": "\\ud800"}', r"half a surrogate pair, \ud800"),
        (b'{"\\udfff": 1}', r"half a surrogate pair, \udfff"),
        (b'{"a": 1, "b": {"a": 1, "c": 2, "a": 2}}', 'the key "a" stands twice'),
        (b'{"a": "\xed\xa0\x80"}', "byte 7 is not UTF-8"),
        ("\ufeff{}".encode(), "BOM"),
        ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        (b"[" + b"0," * 100_001 + b"0]", "it holds more than 100,000 values"),
    ],
)
def test_what_a_later_step_would_trip_over(tmp_path: Path, content: bytes, seen: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_json(content)
    assert seen in str(refused.value)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(JsonError) as unread:
        read_json(tmp_path / "a.json")
    assert str(unread.value).startswith(f"{tmp_path}/a.json: ")
    assert len(str(unread.value)) < len(str(tmp_path)) + 200


def test_what_is_good(tmp_path: Path) -> None:
    document = {"a": [1e300, 10**299, "\U0001d11e", None, {"a": {"a": 1}}], "ü": True}
    for escaped in (True, False):
        text = json.dumps(document, ensure_ascii=escaped)
        assert parse_json(text.encode()) == parse_json(text) == document


def test_a_deep_document_is_refused_from_deep_in_a_program() -> None:
    """Without a limit of its own the depth that is read depends on the caller's."""

    def deeper(levels: int) -> None:
        if levels:
            deeper(levels - 1)
        else:
            parse_json(b"[" * 40 + b"]" * 40)

    deeper(sys.getrecursionlimit() // 2)


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to("/dev/zero")
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 32)  # sparse
    for name, seen in (("pipe", "a pipe"), ("link", "a device"), ("huge", "larger than")):
        with pytest.raises(JsonError, match=seen):
            read_json(tmp_path / f"{name}.json")
    with pytest.raises(JsonError, match="it is a link"):
        read_json(tmp_path / "link.json", links=False)
