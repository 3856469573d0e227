"""A command of the inventory: its output, or an error that says what happened."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from ansible.module_utils.understudy import command as c
from ansible.module_utils.understudy.command import CommandError, run
from waiting import until


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


def test_its_output_need_not_be_text() -> None:
    assert run(["printf", r"gr\374\337e"], 10) == "gr\ufffd\ufffde"
    with pytest.raises(CommandError, match="status 1: \ufffd"):
        run(["sh", "-c", r"printf '\377'; exit 1"], 10)


def test_output_is_returned_whole() -> None:
    assert len(run(["head", "-c", "3000000", "/dev/zero"], 10)) == 3_000_000


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_service_that_keeps_its_output_open_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create")
    service = f"while [ ! -e {tmp_path}/end ]; do echo on; sleep 0.05; done; touch {tmp_path}/ended"
    began = time.monotonic()
    assert run(["sh", "-c", f"({service}) & echo started"], 20).startswith("started")
    assert time.monotonic() - began < 10
    assert not (tmp_path / "ended").exists()  # nor is it killed, by a pipe that nobody reads
    (tmp_path / "end").touch()
    until((tmp_path / "ended").exists)


def test_a_timeout_ends_everything_that_was_started(tmp_path: Path) -> None:
    script = f"(sleep 60; true) & echo $! >{tmp_path}/child; wait"
    with pytest.raises(CommandError, match="did not end within"):
        run(["sh", "-c", script], 0.5)
    child = int((tmp_path / "child").read_text())

    def gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    until(gone)


def test_the_home_is_put_in_where_a_word_begins_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/op")
    words = ["~/bin/x", "$HOME/a", "${HOME}", "~", "a~/b", "--file=~/c", "$HOMELESS", ""]
    assert c.expanded(words) == [
        *["/home/op/bin/x", "/home/op/a", "/home/op", "/home/op"],
        *["a~/b", "--file=~/c", "$HOMELESS", ""],
    ]
    assert run(["echo", "~/x"], 10) == "/home/op/x"


def test_a_command_finds_the_users_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "isdir", lambda path: path == f"/run/user/{os.getuid()}")
    monkeypatch.setattr(os.path, "exists", lambda path: path == f"/run/user/{os.getuid()}/bus")
    found = c.environment()
    assert found["XDG_RUNTIME_DIR"] == f"/run/user/{os.getuid()}"
    assert found["DBUS_SESSION_BUS_ADDRESS"] == f"unix:path=/run/user/{os.getuid()}/bus"
    assert found["HOME"] == str(Path.home())
    assert found["PATH"] == os.environ["PATH"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/own")
    assert c.environment()["XDG_RUNTIME_DIR"] == str(tmp_path)
    assert c.environment()["DBUS_SESSION_BUS_ADDRESS"] == "unix:path=/own"


def test_there_is_no_directory_of_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    assert "XDG_RUNTIME_DIR" not in c.environment()
