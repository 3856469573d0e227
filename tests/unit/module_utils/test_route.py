"""One line of a client's file, and a switch that may be cut off anywhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy import route as r
from ansible.module_utils.understudy.envfile import find

PANDA, TITAN = "http://panda:8772", "http://titan:8772"
TEXT = f'# the agent\r\nGREETING="Good morning"\nCHATTERBOX_URL={PANDA}\nCHATTERBOX_TOKEN=s3cret\n'
ME: dict[str, Any] = {"id": "node/1/2", "who": "op@node", "command": "failover.yml"}
YOU: dict[str, Any] = {"id": "other/3/4", "who": "alice@other", "command": "failback.yml"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "voice-agent.env"
    path.write_bytes(TEXT.encode())
    path.chmod(0o640)
    return path


@pytest.fixture
def client(file: Path, tmp_path: Path) -> r.Route:
    return r.Route(str(tmp_path / "route"), str(file), "CHATTERBOX_URL")


def touch(tmp_path: Path) -> list[str]:
    return ["sh", "-c", f"echo x >>{tmp_path}/reloads"]


def url(file: Path) -> str:
    line = find(file.read_bytes(), "CHATTERBOX_URL")
    assert line
    return line.url()


def reloads(tmp_path: Path) -> int:
    path = tmp_path / "reloads"
    return len(path.read_text().splitlines()) if path.exists() else 0


# --- switching -------------------------------------------------------------------------------


def test_a_file_without_the_key_and_no_file_are_named(client: r.Route, file: Path) -> None:
    file.write_text("OTHER=1\n")
    with pytest.raises(r.RouteError, match=r"voice-agent\.env has no line CHATTERBOX_URL=…"):
        client.look()
    file.unlink()
    with pytest.raises(r.RouteError, match=r"voice-agent\.env: No such file"):
        client.look()


def test_a_switch_there_and_back(client: r.Route, file: Path, tmp_path: Path) -> None:
    assert client.look() == {
        "url": PANDA,
        "epoch": 0,
        "target": None,
        "previous": None,
        "finished": True,
        "foreign": False,
        "by": None,
        "at": None,
        "heard": None,
        "claim": None,
        "write_error": None,
    }
    client.claim(ME, 60)
    done = client.switch(1, "titan", TITAN, ME, touch(tmp_path))
    assert (done["changed"], done["reloaded"], reloads(tmp_path)) == (True, True, 1)
    assert file.read_bytes().decode() == TEXT.replace(PANDA, TITAN)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    seen = client.look()
    assert (seen["epoch"], seen["target"], seen["finished"]) == (1, "titan", True)
    assert seen["previous"] == {"target": None, "url": PANDA}
    # the second time nothing happens
    assert not client.switch(1, "titan", TITAN, ME, touch(tmp_path))["changed"]
    assert reloads(tmp_path) == 1
    client.switch(2, "panda", PANDA, ME, touch(tmp_path))
    assert file.read_bytes().decode() == TEXT
    assert client.look()["previous"] == {"target": "titan", "url": TITAN}
    assert client.release(ME["id"])
    assert not client.release(ME["id"])


def test_a_link_stays_a_link(client: r.Route, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.env"
    link.symlink_to(file)
    own = r.Route(client.home, str(link), client.key)
    own.claim(ME, 60)
    own.switch(1, "titan", TITAN, ME, [])
    assert link.is_symlink()
    assert url(file) == TITAN


def test_only_the_number_is_new(client: r.Route, tmp_path: Path) -> None:
    client.claim(ME, 60)
    assert client.switch(7, "panda", PANDA, ME, touch(tmp_path))["changed"]
    assert reloads(tmp_path) == 0
    assert client.look()["epoch"] == 7


def test_an_older_switch_does_not_win(client: r.Route) -> None:
    client.claim(ME, 60)
    client.switch(5, "titan", TITAN, ME, [])
    with pytest.raises(r.RouteError, match="switch 5 by op@node is newer than this, 4"):
        client.switch(4, "panda", PANDA, ME, [])


@pytest.mark.parametrize("command", [["sh", "-c", "echo no unit; exit 3"], ["/no/such/command"]])
def test_a_reload_that_fails_is_done_by_the_next_switch(
    client: r.Route, tmp_path: Path, command: list[str]
) -> None:
    client.claim(ME, 60)
    with pytest.raises(r.RouteError) as raised:
        client.switch(1, "titan", TITAN, ME, command)
    assert raised.value.kind == "reload"
    assert command[0] in str(raised.value)
    seen = client.look()
    assert (seen["url"], seen["finished"]) == (TITAN, False)
    assert client.switch(1, "titan", TITAN, ME, touch(tmp_path))["reloaded"]
    seen = client.look()
    assert (seen["finished"], seen["previous"]) == (True, {"target": None, "url": PANDA})


def test_a_change_by_hand_is_seen(client: r.Route, file: Path) -> None:
    client.claim(ME, 60)
    client.switch(1, "titan", TITAN, ME, [])
    file.write_text(file.read_text().replace(TITAN, "http://cloud:1"))
    assert client.look()["foreign"]
    client.switch(2, "titan", TITAN, ME, [])
    assert client.look()["previous"] == {"target": None, "url": "http://cloud:1"}


def _killed_at(call: int, client: r.Route, tmp_path: Path) -> None:
    """Switch, and die at the n-th change of a file."""
    real, count = os.replace, 0

    def replace(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == call:
            os._exit(9)
        real(*arguments)

    os.replace = replace  # type: ignore[assignment]
    client.claim(ME, 60)
    client.switch(1, "titan", TITAN, ME, touch(tmp_path))
    os._exit(0)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_killed_anywhere_it_is_finished_by_the_next(
    client: r.Route, file: Path, tmp_path: Path, call: int
) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_killed_at, args=(call, client, tmp_path)
    )
    process.start()
    process.join(20)
    assert process.exitcode == 9
    assert url(file) in (PANDA, TITAN)  # never half a line
    client.claim(YOU, 60, ME["id"])
    client.switch(1, "titan", TITAN, YOU, touch(tmp_path))
    seen = client.look()
    assert (seen["url"], seen["finished"], seen["epoch"]) == (TITAN, True, 1)
    assert seen["previous"]["url"] == PANDA
    assert reloads(tmp_path) >= 1
    assert not list(tmp_path.glob("*.understudy"))


def test_a_full_disk_changes_nothing(client: r.Route, file: Path, monkeypatch: Any) -> None:
    client.claim(ME, 60)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(r.RouteError, match="cannot be written: No space left on device"):
        client.switch(1, "titan", TITAN, ME, [])
    assert file.read_bytes().decode() == TEXT
    assert not list(file.parent.glob("*.understudy"))


# --- two operators ---------------------------------------------------------------------------


def test_a_second_operator_is_refused_with_the_name_of_the_first(client: r.Route) -> None:
    client.claim(ME, 60)
    client.claim(ME, 60)  # again, by the same
    with pytest.raises(
        r.RouteError, match=r"op@node is switching the clients with failover\.yml, since \d+ s"
    ):
        client.claim(YOU, 60)
    with pytest.raises(r.RouteError, match="the claim was lost: op@node has it"):
        client.switch(1, "titan", TITAN, YOU, [])
    client.claim(YOU, 60, instead_of=ME["id"])
    with pytest.raises(r.RouteError, match="the claim was lost: alice@other has it"):
        client.switch(1, "titan", TITAN, ME, [])
    client.release(YOU["id"])
    with pytest.raises(r.RouteError, match="it was given back"):
        client.switch(1, "titan", TITAN, YOU, [])


def test_what_was_heard_is_kept_until_the_next_switch(client: r.Route) -> None:
    heard = {"at": 12.5, "wall_s": 0.8, "audio_s": 3.1}
    client.claim(ME, 300)
    client.switch(1, "titan", TITAN, ME, [])
    assert not client.release(YOU["id"], heard)
    assert client.look()["heard"] is None
    assert client.release(ME["id"], heard)
    assert client.look()["heard"] == heard
    client.claim(ME, 300)
    client.switch(1, "titan", TITAN, ME, [])
    assert client.look()["heard"] == heard
    client.release(ME["id"])  # it was asked again, and was mute
    assert client.look()["heard"] is None
    client.claim(ME, 300)
    client.release(ME["id"], heard)
    client.claim(ME, 300)
    client.switch(2, "panda", PANDA, ME, [])
    assert client.look()["heard"] is None


def test_a_claim_gets_old(client: r.Route) -> None:
    client.claim({**YOU, "at": 0}, 60)
    claim = Path(client.home, r.CLAIM)
    claim.write_text(json.dumps({**YOU, "at": time.time() - 61}))
    client.claim(ME, 60)
    claim.write_text(json.dumps({**YOU, "at": time.time() + 3600}))  # a clock that was set back
    client.claim(ME, 60)


def test_half_a_claim_is_none_and_half_a_state_is_said(client: r.Route) -> None:
    client.claim(ME, 60)
    Path(client.home, r.CLAIM).write_text('{"id": ')
    client.claim(YOU, 60)
    Path(client.home, r.STATE).write_text('{"epoch": ')
    with pytest.raises(
        r.RouteError, match=r"route\.json cannot be read .* remove it and run again"
    ):
        client.look()
