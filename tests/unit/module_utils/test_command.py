"""A command of the inventory: its output, or an error that says what happened."""

from __future__ import annotations

import re

import pytest
from ansible.module_utils.understudy.command import CommandError, run


def test_both_streams_are_returned_without_white_space_around_them() -> None:
    assert run(["sh", "-c", "echo; echo one; echo two >&2"], 10) == "one\ntwo"


def test_it_cannot_ask_anybody() -> None:
    assert run(["cat"], 10) == ""


@pytest.mark.parametrize(
    ("command", "timeout_s", "words"),
    [
        (["sh", "-c", "echo no such unit; exit 5"], 10, "ended with status 5: no such unit"),
        (["false"], 10, "false ended with status 1: no output"),
        (["sleep", "30"], 0.2, "sleep 30 did not end within 0 s"),
        (["/nowhere/command", "now"], 10, "/nowhere/command now: No such file or directory"),
    ],
)
def test_what_went_wrong_is_named(command: list[str], timeout_s: float, words: str) -> None:
    with pytest.raises(CommandError, match=re.escape(words)):
        run(command, timeout_s)


def test_a_status_that_is_an_answer() -> None:
    assert run(["sh", "-c", "echo inactive; exit 3"], 10, check=False) == "inactive"
