"""One line of a client's file, and a switch that may be cut off anywhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from ansible.module_utils.understudy import route as r
from ansible.module_utils.understudy.envfile import find
from waiting import until

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


# --- the line as it was -----------------------------------------------------------------------

SECRET = b"s3cret"
WRITTEN = [
    b"export CHATTERBOX_URL='http://panda:8772'\t# panda\x0c, until \x85 \xe9\\",
    b"CHATTERBOX_URL=HTTP://op:s3cret@Panda:8772/",
    b"CHATTERBOX_URL = http://panda:8772?key=s3cret  ",
]


@pytest.mark.parametrize("body", WRITTEN)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_the_old_line_comes_back_byte_for_byte(
    client: r.Route, file: Path, tmp_path: Path, body: bytes, end: bytes
) -> None:
    original = b"\xef\xbb\xbf# \xe9\x0c\x85\r\nX=\x1c\n" + body + end
    file.write_bytes(original)
    client.claim(ME, 60)
    for go_back in (
        lambda epoch: client.restore(epoch, ME, touch(tmp_path)),
        lambda epoch: client.switch(epoch, "panda", PANDA, ME, touch(tmp_path)),
        lambda epoch: client.switch(epoch, "panda", "HTTP://PANDA:8772/", ME, touch(tmp_path)),
    ):
        epoch = client.look()["epoch"] + 1
        there = client.switch(epoch, "titan", TITAN, ME, [])
        assert url(file) == TITAN
        seen = client.look()
        assert (seen["url"], seen["previous"]["url"]) == (TITAN, PANDA)
        back = go_back(epoch + 1)
        assert (back["changed"], back["reloaded"]) == (True, True)
        assert file.read_bytes() == original
        assert SECRET.decode() not in f"{there}{back}{seen}{client.look()}"
    assert stat.S_IMODE(Path(client.home, r.STATE).stat().st_mode) == 0o600


def test_a_line_is_remembered_over_two_standbys(client: r.Route, file: Path) -> None:
    original = file.read_bytes().replace(b"URL=http", b"URL=HTTP")
    file.write_bytes(original)
    client.claim(ME, 60)
    client.switch(1, "titan", TITAN, ME, [])
    client.switch(2, "atlas", "http://atlas:8772", ME, [])
    assert client.look()["previous"] == {"target": "titan", "url": TITAN}
    client.switch(3, "panda", PANDA, ME, [])
    assert file.read_bytes() == original


def test_a_line_of_ours_is_not_remembered(client: r.Route, file: Path) -> None:
    client.claim(ME, 60)
    client.switch(1, "titan", TITAN, ME, [])
    client.switch(2, "panda", PANDA, ME, [])
    file.write_text(file.read_text().replace("CHATTERBOX_URL=", "export CHATTERBOX_URL="))
    client.switch(3, "titan", TITAN, ME, [])
    assert f"\nexport CHATTERBOX_URL={TITAN}\n" in file.read_text()


def test_what_was_before_is_not_made_up(client: r.Route, file: Path) -> None:
    client.claim(ME, 60)
    with pytest.raises(r.RouteError, match=f"knows of no URL before {PANDA}") as raised:
        client.restore(1, ME, [])
    assert raised.value.kind == "state"
    client.switch(1, "titan", TITAN, ME, [])
    file.write_text(file.read_text().replace(TITAN, "http://cloud:1"))
    with pytest.raises(r.RouteError, match=r"changed by hand to http://cloud:1; it was left so"):
        client.restore(1, ME, [])
    assert url(file) == "http://cloud:1"


def test_a_put_back_whose_reload_fails_says_what_the_file_names(
    client: r.Route, file: Path
) -> None:
    client.claim(ME, 60)
    client.switch(1, "titan", TITAN, ME, [])
    with pytest.raises(r.RouteError) as raised:
        client.restore(1, ME, ["false"])
    assert raised.value.kind == "reload"
    assert f"names {PANDA} now, and the reload failed: false ended" in str(raised.value)
    assert (client.look()["url"], client.look()["finished"]) == (PANDA, False)
    assert file.read_text() == TEXT.replace("\r", "")


def test_a_line_that_is_not_certain_is_left_alone(client: r.Route, file: Path) -> None:
    file.write_text("X=1\nCHATTERBOX_URL=http://${PANDA}:8772\n")
    with pytest.raises(r.RouteError, match=r"voice-agent\.env, line 2, CHATTERBOX_URL=…: .*Next"):
        client.look()


@pytest.mark.parametrize(
    "there", ["", "titan", "http://a b", "http://a;id", "http://a\nX=1", "http://$(id)"]
)
def test_what_is_no_url_is_not_written(client: r.Route, file: Path, there: str) -> None:
    client.claim(ME, 60)
    with pytest.raises(r.RouteError, match="no URL of a voice server"):
        client.switch(1, "titan", there, ME, [])
    assert file.read_bytes().decode() == TEXT


def test_a_write_that_a_crash_has_cut_off_is_mended(client: r.Route, file: Path) -> None:
    file.write_bytes(TEXT.encode())
    client.claim(ME, 60)
    client.switch(1, "titan", "http://a-longer-name:8772", ME, [])
    file.write_bytes(file.read_bytes()[:60] + TEXT.encode()[60:])
    Path(client.home, r.COPY).write_bytes(TEXT.encode())
    assert url(file) != PANDA
    assert client.look()["url"] == PANDA
    assert client.look()["write_error"] is None
    client.switch(2, "titan", TITAN, ME, [])
    assert file.read_bytes().decode() == TEXT.replace(PANDA, TITAN)
    assert not Path(client.home, r.COPY).exists()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as a user without rights, or skip the test where only root may."""
    if os.geteuid():
        pytest.skip("only root may become somebody else")
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_cannot_be_written_is_said_beforehand() -> None:
    with TemporaryDirectory() as text:
        directory, file = Path(text), Path(text, "agent.env")
        directory.chmod(0o777)
        file.write_text(TEXT)
        client = r.Route(f"{text}/route", str(file), "CHATTERBOX_URL", "phone1")
        other = r.Route("/usr/route", str(file), "CHATTERBOX_URL", "phone1")
        with as_nobody():
            for route, path in ((client, file), (other, Path("/usr"))):
                assert route.look()["url"] == PANDA
                with pytest.raises(r.RouteError) as raised:
                    route.plan(TITAN)
                assert raised.value.kind == "file"
                assert f"{path} cannot be written by nobody: Permission denied" in str(raised.value)
                assert str(raised.value).endswith(f"sudo chown nobody {path}")
                if route is client:
                    client.claim(ME, 60)
                    with pytest.raises(r.RouteError, match="cannot be written by nobody"):
                        client.switch(1, "titan", TITAN, ME, [])
                    assert (client.look()["epoch"], client.look()["finished"]) == (0, True)
                os.seteuid(0)
                file.chmod(0o666)
                os.seteuid(65534)
            assert client.plan(TITAN)["changed"]


# --- several clients of one host ---------------------------------------------------------------


@pytest.fixture
def agents(client: r.Route, file: Path) -> list[r.Route]:
    """Two agents with one state directory and one file."""
    return [r.Route(client.home, str(file), client.key, name) for name in ("one", "two")]


def test_two_agents_keep_their_states_apart(client: r.Route, file: Path, tmp_path: Path) -> None:
    own = tmp_path / "two.env"
    own.write_bytes(TEXT.replace(PANDA, "http://elsewhere:1").encode())
    one = r.Route(client.home, str(file), client.key, "one")
    two = r.Route(client.home, str(own), client.key, "../two")
    for agent in (one, two):
        agent.claim(ME, 60)
        agent.switch(1, "titan", TITAN, ME, [])
    assert Path(two.home).parent == Path(client.home)
    assert one.look()["previous"]["url"] == PANDA
    assert two.look()["previous"]["url"] == "http://elsewhere:1"
    for agent in (one, two):
        agent.restore(2, ME, [])
        assert not agent.look()["foreign"]
    assert own.read_text() == TEXT.replace(PANDA, "http://elsewhere:1").replace("\r", "")


def test_one_file_of_two_agents(agents: list[r.Route], file: Path, tmp_path: Path) -> None:
    one, two = agents
    for agent in agents:
        agent.claim(ME, 60)
    for epoch, target, there in ((1, "titan", TITAN), (2, "panda", PANDA), (3, "titan", TITAN)):
        before = two.look()["url"]
        assert one.switch(epoch, target, there, ME, touch(tmp_path))["reloaded"]
        seen = two.look()
        assert (seen["url"], seen["finished"], seen["foreign"]) == (there, False, False)
        assert (seen["epoch"], seen["previous"]["url"]) == (epoch - 1, before)
        done = two.switch(epoch, target, there, ME, touch(tmp_path))
        assert (done["changed"], done["reloaded"]) == (True, True)
        for agent in agents:
            seen = agent.look()
            assert (seen["epoch"], seen["finished"], seen["foreign"]) == (epoch, True, False)
            assert seen["previous"]["url"] == before
            assert not agent.switch(epoch, target, there, ME, touch(tmp_path))["changed"]
    assert reloads(tmp_path) == 6
    two.restore(3, ME, [])  # it could not be heard
    assert file.read_bytes().decode() == TEXT
    assert not one.look()["finished"]  # and has to read the file again
    assert not one.look()["foreign"]


def test_a_reload_that_takes_long_holds_up_no_other_client(
    agents: list[r.Route], tmp_path: Path
) -> None:
    one, two = agents
    for agent in agents:
        agent.claim(ME, 60)
    waits = [
        "sh",
        "-c",
        f"touch {tmp_path}/began; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done",
    ]
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(one.switch, 1, "titan", TITAN, ME, waits)
        until((tmp_path / "began").exists)
        assert two.switch(1, "titan", TITAN, ME, [])["changed"]
        one.claim(YOU, 60, ME["id"])  # the play of the slow one was killed
        one.switch(2, "panda", PANDA, YOU, [])
        (tmp_path / "go").touch()
        slow.result()
    seen = one.look()
    assert (seen["epoch"], seen["target"], seen["finished"]) == (2, "panda", True)


# --- what an earlier version kept --------------------------------------------------------------


def kept_before(home: str, **changes: Any) -> None:
    state = {
        "schema_version": 1,
        "epoch": 4,
        "target": "titan",
        "url": TITAN,
        "previous": {"target": None, "url": PANDA},
        "by": "op@node",
        "at": "2026-11-27T03:00:00Z",
        "finished": True,
    }
    Path(home).mkdir()
    Path(home, r.STATE).write_text(json.dumps({**state, **changes}))


@pytest.mark.parametrize("value", [PANDA, "http://op:s3cret@panda:8772", f"{PANDA} # panda"])
def test_a_failover_of_an_earlier_version_goes_back(
    agents: list[r.Route], file: Path, value: str
) -> None:
    original = TEXT.replace(f"CHATTERBOX_URL={PANDA}", f"export CHATTERBOX_URL={value}")
    file.write_bytes(original.replace(value, TITAN).encode())
    one, two = agents
    kept_before(one.shared, previous={"target": None, "url": value})
    seen = one.look()
    assert (seen["epoch"], seen["foreign"], seen["finished"]) == (4, False, True)
    assert seen["previous"] == {"target": None, "url": PANDA}
    one.claim(ME, 60)
    one.switch(5, "panda", PANDA, ME, [])
    assert file.read_bytes().decode() == original
    assert (one.look()["epoch"], two.look()["previous"]["url"]) == (5, TITAN)


def test_a_state_of_another_client_is_not_adopted(agents: list[r.Route]) -> None:
    kept_before(agents[0].shared)
    assert (agents[0].look()["epoch"], agents[0].look()["foreign"]) == (0, False)


def test_a_claim_of_an_earlier_version_counts_until_it_is_taken_over(agents: list[r.Route]) -> None:
    Path(agents[0].shared).mkdir()
    old = Path(agents[0].shared, r.CLAIM)
    old.write_text(json.dumps({**YOU, "at": time.time()}))
    with pytest.raises(r.RouteError, match="alice@other is switching the clients"):
        agents[0].claim(ME, 60)
    agents[0].claim(ME, 60, YOU["id"])
    assert not old.exists()
    agents[0].release(ME["id"])
    assert agents[0].look()["claim"] is None


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
