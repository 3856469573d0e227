"""What the action plugins of a switch do on the control node, and what a client is asked."""

from __future__ import annotations

import base64
import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import loopback
import numpy as np
import pytest

from understudy.audio.pcm import float_to_pcm16
from understudy.common.process import start_of
from understudy.serve.client import samples_of

ROOT = Path(__file__).resolve().parents[3]


def plugin(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), ROOT / f"{path}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- whose claim it is -----------------------------------------------------------------------


def test_a_claim_is_dead_when_its_play_is() -> None:
    route = plugin("action_plugins/tts_route")
    own = route.me()
    assert own["id"].endswith(f"/{os.getppid()}/{start_of(os.getppid())}")
    assert not route.is_dead(own)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    node = own["id"].partition("/")[0]
    claim = {"id": f"{node}/{process.pid}/{start_of(process.pid)}"}
    assert not route.is_dead(claim)
    assert route.is_dead({"id": f"{node}/{process.pid}/1"})  # the number was given out again
    process.communicate(b"\n")
    assert route.is_dead(claim)
    assert not route.is_dead({"id": f"elsewhere/{process.pid}/1"})  # who can tell?


# --- a primary that is gone ------------------------------------------------------------------


def test_a_primary_that_takes_no_connection_is_gone() -> None:
    missing = plugin("action_plugins/tts_probe").ActionModule._missing
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert "no connection" in missing(url, 1.5)  # refused, at once
        listening.listen()
        assert missing(url, 1.5) == ""

    assert "is no base URL, such as" in missing("panda:8772", 1.5)


# --- asking from the client ------------------------------------------------------------------


ASK = {
    "url": "",
    "token_key": "TOKEN",
    "token_file": "",
    "key": "URL",
    "path": "/synthesize",
    "timeout_s": 10,
    "reference_audio": "samantha.wav",
    "text": "Hello there.",
    "tuning": {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6},
}


def to(url: str, token: str = "s3cret") -> Any:
    say = plugin("library/tts_say")
    headers = {"Content-Type": "application/json", "X-Internal-Token": token}
    return say.Settings(f"{url}/synthesize", url, headers, [token])


def test_url_and_token_come_from_where_the_client_has_them(tmp_path: Path) -> None:
    say = plugin("library/tts_say")
    file, token = tmp_path / "env", tmp_path / "token"
    file.write_text("URL=http://titan:8772/\nTOKEN=s3cret\n")
    token.write_text("other\n")
    asked = {**ASK, "file": str(file)}

    def sent(**changes: str) -> str | None:
        found: str | None = say.settings({**asked, **changes}).headers.get("X-Internal-Token")
        return found

    assert say.settings(asked).url == "http://titan:8772/synthesize"
    assert say.settings({**asked, "url": "http://panda:8772"}).url == "http://panda:8772/synthesize"
    assert sent() == "s3cret"
    assert sent(token_key="") is None
    assert sent(token_key="NO", token_file=str(token)) == "other"
    with pytest.raises(say.EnvFileError, match="there is no line NO="):
        sent(key="NO")
    with pytest.raises(say.EnvFileError, match="No such file"):
        sent(file=str(tmp_path / "none"))


def test_user_and_query_are_sent_and_not_shown(tmp_path: Path) -> None:
    say = plugin("library/tts_say")
    file = tmp_path / "env"
    file.write_text("URL=http://op:p%40ss@titan:8772/?voice=a\n")
    found = say.settings({**ASK, "file": str(file)})
    assert found.url == "http://titan:8772/synthesize?voice=a"
    assert base64.b64decode(found.headers["Authorization"].removeprefix("Basic ")) == b"op:p@ss"
    assert found.shown == "http://titan:8772"
    assert found.hide("op:p%40ss, p%40ss and voice=a") == "(secret), (secret) and (secret)"


def test_what_comes_instead_of_speech_is_said(tmp_path: Path) -> None:
    say = plugin("library/tts_say")
    voices = loopback.make_voices(tmp_path / "voices", "samantha.wav")
    app = loopback.voice_app(voices, loopback.FakeVoice(), token="s3cret")
    with loopback.serving(app) as url:
        loopback.wait_for(url, "ready")
        body, headers = say.ask(ASK, to(url))
        assert len(samples_of(headers, body)) > 500
        with pytest.raises(say.NoSpeech, match="401, the token that the client sends") as raised:
            say.ask(ASK, to(url, "wrong"))
        assert raised.value.wait_s is None
        assert "wrong" not in str(raised.value)
        with pytest.raises(say.NoSpeech, match="404, the server lacks that path or voice"):
            say.ask({**ASK, "reference_audio": "nobody.wav"}, to(url))
    with pytest.raises(say.NoSpeech, match="refused") as raised:
        say.ask(ASK, to(url))
    assert raised.value.wait_s == say.TRY_S


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_token_goes_to_no_other_server(status: int) -> None:
    say = plugin("library/tts_say")
    with loopback.Scripted(loopback.pcm_answer(loopback.speechlike(2.4))) as other:
        moved = loopback.Answer(
            b"the token s3cret was moved", status, headers=(("Location", f"{other.url}/s3cret"),)
        )
        with (
            loopback.Scripted(moved) as first,
            pytest.raises(say.NoSpeech, match=f"status {status}") as raised,
        ):
            say.ask(ASK, to(first.url))
        assert other.requests == []
    assert "which is not followed" in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_token_that_a_server_repeats_is_not_printed() -> None:
    say = plugin("library/tts_say")
    echo = loopback.pcm_answer(loopback.speechlike(2.4), X_Echo="s3cret")
    with loopback.Scripted(echo) as server:
        _, headers = say.ask(ASK, to(server.url))
    assert headers["x-echo"] == "(secret)"


def test_a_recording_that_cannot_be_kept_does_not_undo_the_switch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    say = plugin("action_plugins/tts_say")
    heard = loopback.speechlike(2.4)
    reply = {
        "url": "http://titan:8772",
        "body": base64.b64encode(float_to_pcm16(heard)).decode(),
        "headers": {"x-sample-rate": "24000", "content-type": "application/octet-stream"},
    }
    warned: list[str] = []
    monkeypatch.setattr(say.Display, "warning", lambda _, text, *__: warned.append(text))
    monkeypatch.setattr(say.ActionBase, "run", lambda *_, **__: {})
    (tmp_path / "full").touch()  # no directory, so that nothing can be written below it
    wav = tmp_path / "full/heard.wav"
    task = SimpleNamespace(
        args={"text": "One two three four five six seven eight.", "wav": str(wav)}
    )
    action = say.ActionModule.__new__(say.ActionModule)
    action._task = task
    action._execute_module = lambda *_, **__: dict(reply)
    result = action.run(None, {})
    assert not result.get("failed"), result
    assert (result["audio"]["problems"], result["wav"]) == ([], None)
    assert len(warned) == 1
    assert str(wav) in warned[0]


def heard(
    monkeypatch: pytest.MonkeyPatch, samples: np.ndarray, **headers: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the result of `tts_say` for a client that is answered so, and what was displayed."""
    say = plugin("action_plugins/tts_say")
    shown: list[str] = []
    monkeypatch.setattr(say.Display, "display", lambda _, text, *__: shown.append(text))
    monkeypatch.setattr(say.ActionBase, "run", lambda *_, **__: {})
    reply = {
        "url": "http://titan:8772",
        "body": base64.b64encode(float_to_pcm16(samples)).decode(),
        "headers": {"x-sample-rate": "24000", "content-type": "audio/pcm", **headers},
    }
    action = say.ActionModule.__new__(say.ActionModule)
    action._task = SimpleNamespace(args={"text": "Please hold the line for a moment."})
    action._execute_module = lambda *_, **__: dict(reply)
    return action.run(None, {}), shown


def test_what_is_no_speech_is_not_taken_for_a_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(1).normal(0, 0.05, 3 * loopback.RATE)
    result, _ = heard(monkeypatch, noise)
    assert result["failed"]
    assert result["msg"].startswith("http://titan:8772: not speech: ")
    result, shown = heard(monkeypatch, noise, **{"x-understudy-rehearsal": "true"})
    assert not result.get("failed"), result
    assert result["rehearsal"]
    assert len(shown) == 1
    assert "not judged as speech" in shown[0]


# --- whether the primary speaks --------------------------------------------------------------


def probed(
    monkeypatch: pytest.MonkeyPatch, url: str, times: int
) -> tuple[dict[str, Any], list[str]]:
    """Return the result of `tts_probe`, and what was displayed."""
    probe = plugin("action_plugins/tts_probe")
    shown: list[str] = []
    monkeypatch.setattr(probe.Display, "display", lambda _, text, *__: shown.append(text))
    monkeypatch.setattr(probe.ActionBase, "run", lambda *_, **__: {})
    config = {
        "host": "panda",
        "url": url,
        "synthesis_path": "/synthesize",
        "health_path": "/health",
        "reference_audio": "samantha.wav",
        "tuning": ASK["tuning"],
    }
    action = probe.ActionModule.__new__(probe.ActionModule)
    action._task = SimpleNamespace(args={"config": config, "times": times}, action="tts_probe")
    arguments = {"config": config, "connect_s": 1.5, "times": times, "hold_down_s": 0}
    action.validate_argument_spec = lambda *_: ({}, arguments)
    return action.run(None, {}), shown


@pytest.mark.parametrize(("times", "asked"), [(1, 2), (3, 3)])
def test_a_primary_has_to_speak_different_sentences(
    monkeypatch: pytest.MonkeyPatch, times: int, asked: int
) -> None:
    with loopback.Scripted(loopback.reads_out) as server:
        result, _ = probed(monkeypatch, server.url, times)
        assert (result["healthy"], result["times"], len(server.spoken)) == (True, times, asked)
    with loopback.Scripted(loopback.pcm_answer(loopback.speechlike(4.0))) as server:
        result, _ = probed(monkeypatch, server.url, times)
        assert (result["healthy"], len(server.spoken)) == (False, 2)
        assert "the same recording for two sentences" in result["seen"]


def test_a_primary_that_rehearses_is_shown_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def hisses(request: loopback.Request) -> loopback.Answer:
        noise = np.random.default_rng(len(request.body)).normal(0, 0.05, 4 * loopback.RATE)
        return loopback.pcm_answer(noise, X_Understudy_Rehearsal="true")

    with loopback.Scripted(hisses) as server:
        result, shown = probed(monkeypatch, server.url, 1)
    assert (result["healthy"], result["rehearsal"]) == (True, True)
    assert shown == ["    panda speaks with a rehearsal's weights: not judged as speech"]
