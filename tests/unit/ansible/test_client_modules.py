"""The modules that look at a client, switch it and ask through it, as a play calls them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import loopback
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible.module_utils.understudy.http_request import NoReply, ask, identify

ROOT = Path(__file__).resolve().parents[3]
PANDA, TITAN = "http://panda:8772", "http://titan:8772"
ME = {"id": "node/1/2", "who": "op@node", "command": "failover.yml"}
YOU = {"id": "other/3/4", "who": "alice@other", "command": "failback.yml"}
WRITTEN = "CHATTERBOX_URL=HTTP://op:s3cret@panda:8772 # s3cret\n"
TO_TITAN = {"epoch": 1, "target": "titan", "url": TITAN}
SPEECH = loopback.speechlike(2.4)

Call = Callable[..., dict[str, Any]]


def load(name: str, directory: str = "library") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / directory / f"{name}.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def env(tmp_path: Path) -> Path:
    path = tmp_path / "agent.env"
    path.write_text(WRITTEN)
    return path


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a module with options and return its result."""

    def call(name: str, check: bool = False, /, **options: Any) -> dict[str, Any]:
        internal = {"_ansible_remote_tmp": str(tmp_path), "_ansible_check_mode": check}
        with patch_module_args({**options, **internal}), pytest.raises(SystemExit):
            load(name).main()
        printed = capsys.readouterr().out
        assert "s3cret" not in printed
        result: dict[str, Any] = json.loads(printed)
        return result

    return call


@pytest.fixture
def route(run: Call, env: Path, tmp_path: Path) -> Call:
    """Run tts_route for the client phone1."""

    def call(state: str, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"file": str(env), "key": "CHATTERBOX_URL", "home": str(tmp_path / "route")}
        given |= {"state": state, "name": "phone1", "holder": ME}
        return run("tts_route", check, **{**given, **options})

    return call


# --- tts_route ---------------------------------------------------------------------------------


def test_there_and_back(route: Call, env: Path) -> None:
    planned = route("switched", check=True, **TO_TITAN)
    assert planned["changed"]
    assert env.read_text() == WRITTEN
    done = route("switched", reload_command=["true"], **TO_TITAN)
    assert (done["changed"], done["reloaded"]) == (True, True)
    assert done["diff"] == planned["diff"]
    assert done["diff"]["before"] == f"CHATTERBOX_URL={PANDA} …\n"
    assert done["diff"]["after"] == f"CHATTERBOX_URL={TITAN}\n"
    assert (done["route"]["url"], done["now"]["url"]) == (PANDA, TITAN)
    assert not route("switched", **TO_TITAN)["changed"]
    planned = route("restored", check=True, epoch=2)
    back = route("restored", epoch=2)
    assert back["diff"] == planned["diff"]
    assert (back["changed"], back["now"]["url"], env.read_text()) == (True, PANDA, WRITTEN)
    assert not route("released", heard={"at": 1})["changed"]
    seen = route("seen")
    assert (seen["route"]["claim"], seen["route"]["heard"]) == (None, {"at": 1})


def test_what_is_known_is_returned_where_a_claim_fails(route: Call, tmp_path: Path) -> None:
    route("switched", holder=YOU, **TO_TITAN)
    refused = route("switched", **TO_TITAN)
    assert (refused["failed"], refused["kind"], refused["changed"]) == (True, "claimed", False)
    assert refused["claim"]["who"] == "alice@other"
    assert refused["route"]["url"] == TITAN
    (tmp_path / "file").touch()
    broken = route("switched", home=str(tmp_path / "file"), **TO_TITAN)
    assert (broken["kind"], broken["route"]["url"]) == ("state", TITAN)
    assert "file" in broken["msg"]


def test_a_full_disk_is_no_claim_of_somebody_else(
    route: Call, env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    broken = route("switched", **TO_TITAN)
    assert (broken["kind"], broken["route"]["url"]) == ("state", PANDA)
    assert "claim.json cannot be written: No space left on device" in broken["msg"]
    assert env.read_text() == WRITTEN


def test_a_reload_that_fails_says_what_the_file_names(route: Call, env: Path) -> None:
    failed = route("switched", reload_command=["false"], **TO_TITAN)
    assert (failed["failed"], failed["kind"], failed["changed"]) == (True, "reload", True)
    assert f"{env} names {TITAN} now, and the reload failed: false ended" in failed["msg"]
    assert (failed["route"]["url"], failed["now"]["url"]) == (PANDA, TITAN)
    assert not failed["now"]["finished"]
    failed = route("restored", epoch=1, reload_command=["false"])
    assert (failed["kind"], failed["now"]["url"]) == ("reload", PANDA)
    assert env.read_text() == WRITTEN


def test_a_file_that_is_broken_has_a_kind(route: Call, env: Path) -> None:
    env.write_text("CHATTERBOX_URL=http://${PANDA}:8772\n")
    broken = route("switched", **TO_TITAN)
    assert (broken["kind"], broken.get("route")) == ("file", None)
    assert f"{env}, line 1, CHATTERBOX_URL=…: its value is to be expanded" in broken["msg"]


def test_the_action_plugin_says_which_client_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    action = load("tts_route", "action_plugins")
    monkeypatch.setattr(action.ActionBase, "run", lambda *_, **__: {})
    plugin = action.ActionModule.__new__(action.ActionModule)
    sent: list[dict[str, Any]] = []
    plugin._execute_module = lambda _, args, **__: sent.append(args) or {}
    for args in ({}, {"name": "other"}):
        plugin._task = SimpleNamespace(args={"state": "seen", **args})
        plugin.run(None, {"inventory_hostname": "phone2"})
    assert [args["name"] for args in sent] == ["phone2", "other"]


# --- which process serves a URL ------------------------------------------------------------------


def health(**document: Any) -> loopback.Answer:
    body = json.dumps(document).encode()
    return loopback.Answer(body, document.pop("status", 200), "application/json")


@pytest.mark.parametrize(
    ("answer", "instance", "seen"),
    [
        (health(state="ready", instance="a1b2"), "a1b2", "status 200, state ready"),
        (health(state="starting", instance="c3", status=503), "c3", "status 503, state starting"),
        (health(status=200), None, "status 200, no state"),
        (health(instance=""), None, "status 200"),
        (health(instance=7), None, "status 200"),
        (loopback.Answer(b"[]"), None, "status 200"),
        (loopback.Answer(b"\xff"), None, "status 200"),
        (loopback.Answer(b"", 302, headers=(("Location", "http://127.0.0.1:1/"),)), None, "302"),
    ],
)
def test_a_server_is_identified(
    route: Call, env: Path, answer: loopback.Answer, instance: str | None, seen: str
) -> None:
    with loopback.Scripted(loopback.Answer(), answer) as server:
        env.write_text(f"CHATTERBOX_URL={server.url.replace('//', '//op:s3cret@')}/\n")
        found = route("seen", identify_s=5)["route"]["server"]
        [request] = server.requests
    assert found["instance"] == instance
    assert seen in found["seen"]
    assert (request.method, request.path) == ("GET", "/health")
    assert not {"authorization", "x-internal-token"} & request.headers.keys()
    assert "server" not in route("seen")["route"]


def test_nobody_answers() -> None:
    found = identify(f"http://127.0.0.1:{loopback.free_port()}", 5)
    assert found["instance"] is None
    assert "refused" in found["seen"]


@contextlib.contextmanager
def dripping(every_s: float) -> Iterator[str]:
    """A server that sends its reply byte by byte and never ends."""
    ended = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                while not ended.wait(every_s):
                    connection.sendall(b"x")

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


def test_a_reply_that_never_ends_is_left() -> None:
    with dripping(0.05) as url:
        began = time.monotonic()
        with pytest.raises(NoReply, match=r"no whole reply within 0\.4 s"):
            ask(url, 0.4)
        assert time.monotonic() - began < 5


def test_a_header_that_cannot_be_sent_is_not_shown() -> None:
    for token in ("s3cret\nX", "s3cret\u20ac"):
        with pytest.raises(NoReply, match="cannot be sent") as raised:
            ask("http://127.0.0.1:1", 5, headers={"X-Internal-Token": token})
        assert "s3cret" not in str(raised.value)


# --- tts_say -----------------------------------------------------------------------------------


@pytest.fixture
def say(run: Call, env: Path) -> Call:
    def call(url: str, **options: Any) -> dict[str, Any]:
        env.write_text(f"CHATTERBOX_URL={url}\nTOKEN='s3cret'\n")
        given = {"file": str(env), "key": "CHATTERBOX_URL", "token_key": "TOKEN"}
        given |= {"reference_audio": "samantha.wav", "tuning": {}, "text": "Hello there."}
        return run("tts_say", **{**given, **options})

    return call


def busy(*, after: str | None = None, text: str = "it speaks to others") -> loopback.Answer:
    headers = (("Retry-After", after),) if after else ()
    return loopback.Answer(text.encode(), 503, "text/plain", headers)


class Script:
    """Answers one after the other, the last one again and again; keeps when it was asked."""

    def __init__(self, *answers: loopback.Answer) -> None:
        self.answers, self.asked = list(answers), list[float]()

    def __call__(self, _: loopback.Request) -> loopback.Answer:
        self.asked.append(time.monotonic())
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def in_s(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize(
    ("after", "least"),
    [(lambda: "1", 1.0), (lambda: in_s(2), 1.0), (lambda: "soon", 0.5), (lambda: "-3", 0.5)],
)
def test_a_busy_server_is_asked_again_when_it_says(
    say: Call, after: Callable[[], str], least: float
) -> None:
    script = Script(busy(after=after()), loopback.pcm_answer(SPEECH))
    with loopback.Scripted(script) as server:
        result = say(server.url, wait_s=20)
    assert not result.get("failed"), result
    first, second = script.asked
    assert least <= second - first < 10
    assert result["wall_s"] < 10


def test_it_is_asked_for_the_last_time_at_the_end(say: Call) -> None:
    script = Script(busy(after="3600"))
    with loopback.Scripted(script) as server:
        result = say(server.url, wait_s=1.2)
    first, last = script.asked
    assert 1.1 <= last - first < 5
    assert result["msg"] == (
        f"{server.url}: status 503: it speaks to others (2 times) in {last - first:.0f} s"
    )


def test_a_connection_that_breaks_off_hides_nothing(say: Call) -> None:
    asked: list[float] = []

    def answer(_: loopback.Request) -> loopback.Answer:
        asked.append(time.monotonic())
        if len(asked) > 2:
            raise ConnectionAbortedError  # it is shut down
        return busy()

    with loopback.Scripted(answer) as server:
        result = say(server.url, wait_s=1.1)
    assert len(asked) >= 3
    assert "status 503: it speaks to others (2 times), " in result["msg"]
    assert "(once) in " in result["msg"] or "times) in " in result["msg"]


def test_the_whole_is_bounded(say: Call) -> None:
    with dripping(0.05) as url:
        began = time.monotonic()
        result = say(url, wait_s=0.2, timeout_s=0.5)
        assert time.monotonic() - began < 5
    assert "no whole reply within 0.5 s" in result["msg"]
