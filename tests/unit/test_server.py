import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from loopback import (
    RATE,
    FakeVoice,
    free_port,
    make_voices,
    serving,
    speechlike,
    voice_app,
    wait_for,
)

import understudy
from understudy import api, audio, server
from understudy.client import Server, VoiceServerError
from understudy.voice import Tuning

TEXT = "Good morning, how can I help you today?"
SILENCE = np.zeros(2 * RATE, np.float32)
BODY = {
    "text": TEXT, "reference_audio": "samantha.wav",
    "exaggeration": 0.3, "cfg_weight": 0.3, "temperature": 0.6,
}  # fmt: skip


@pytest.fixture
def voices(tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"not for anyone")
    return make_voices(tmp_path / "voices")


def post(url, body=BODY, headers=None):
    return httpx.post(
        f"{url}/synthesize",
        content=body if isinstance(body, str) else json.dumps(body),
        headers={"Content-Type": "application/json", **(headers or {})},
        trust_env=False,
        timeout=10,
    )


@pytest.fixture
def voice():
    return FakeVoice()


@pytest.fixture
def url(voices, voice):
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        yield at


# the contract


def test_the_reply_is_raw_pcm_with_the_contracts_headers(url, voice):
    reply = post(url)
    assert reply.status_code == 200
    expected = audio.float_to_pcm16(speechlike(0.3 * 8))
    assert reply.content == expected
    assert reply.headers["X-Sample-Rate"] == "24000"
    assert reply.headers["X-Channels"] == "1"
    assert reply.headers["X-Format"] == "pcm_s16le"
    assert float(reply.headers["X-Audio-Duration"]) == pytest.approx(2.4)
    text, _, tuning = voice.said[-1]
    assert (text, tuning) == (TEXT, Tuning(cfg_weight=0.3, exaggeration=0.3, temperature=0.6))
    assert voice.references[-1] == ("samantha.wav", 0.3)


def test_our_own_client_understands_it(url):
    with Server(url) as client:
        said = client.speak(TEXT, "other.wav", Tuning(0.5, 0.7, 0.8))
        assert audio.check(said.samples, said.rate, text=TEXT)["problems"] == []
        assert client.health()["ready"] is True


def test_the_request_decides_how_and_the_config_the_rest(url, voice):
    assert post(url, {"text": TEXT, "temperature": 0.9, "reference_audio": "other.wav"}).is_success
    assert voice.said[-1][2] == Tuning(cfg_weight=0.3, exaggeration=0.3, temperature=0.9)
    assert voice.references[-1][0] == "other.wav"


def test_another_path(voices, voice):
    with serving(voice_app(voices, voice, synthesis_path="/v2/tts")) as at:
        wait_for(at, "ready")
        assert post(at).status_code == 404
        assert httpx.post(f"{at}/v2/tts", json=BODY, trust_env=False).status_code == 200


def test_every_request_has_its_own_seed(url, voice):
    post(url)
    post(url)
    assert len({seed for _, seed, _ in voice.said}) == 3


def test_one_synthesis_at_a_time_and_health_beside_it(url, voice):
    voice.may_speak.clear()
    with ThreadPoolExecutor(4) as pool:
        replies = [pool.submit(post, url) for _ in range(4)]
        while not voice.at_once:
            time.sleep(0.01)
        assert httpx.get(f"{url}/health", trust_env=False).status_code == 200
        assert not any(reply.done() for reply in replies)
        voice.may_speak.set()
        assert all(reply.result().status_code == 200 for reply in replies)
    assert voice.most_at_once == 1
    assert len(voice.said) == 5


# bad requests


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"text": ""}, "not one word"),
        ({"text": " \n "}, "not one word"),
        ({"text": "?!…"}, "not one word"),
        ({"text": "x" * 2001}, "text: String should have at most 2000 characters"),
        ({}, "text: Field required"),
        ({"text": 7}, "text: "),
        ({"text": None}, "text: "),
        ({"text": "hi", "cfg_weight": 0}, "cfg_weight: Input should be greater than 0"),
        ({"text": "hi", "temperature": "warm"}, "temperature: "),
        ({"text": "hi", "temperature": -1}, "temperature: "),
        ('{"text": "hi", "exaggeration": NaN}', "exaggeration: "),
        ('{"text": "hi"', "body: not JSON: "),
        ('{"text": "\\ud800 hello"}', "text: "),
        ("[]", "body: "),
        ("", "body: "),
    ],
)
def test_a_bad_body_is_a_422_with_a_sentence(url, voice, body, words):
    before = len(voice.said)
    reply = post(url, body)
    assert reply.status_code == 422, reply.text
    assert words in reply.json()["detail"]
    assert len(voice.said) == before


def test_2000_characters_are_spoken(url):
    assert post(url, {"text": ("word " * 400).strip()}).status_code == 200


def test_an_unknown_voice_is_a_404_that_lists_what_there_is(url, voices):
    (voices / ".hidden").touch()
    (voices / "directory").mkdir()
    reply = post(url, BODY | {"reference_audio": "nobody.wav"})
    assert reply.status_code == 404
    assert reply.json()["detail"] == "no voice 'nobody.wav'; there are: other.wav, samantha.wav"


@pytest.mark.parametrize(
    "name",
    ["../secret.wav", "/etc/passwd", "..", ".", "a/../../secret.wav", "..\\secret.wav", "a\0.wav",
     "./samantha.wav", "samantha.wav/"],
)  # fmt: skip
def test_no_path_escapes_the_directory(url, voice, name):
    before = len(voice.references)
    reply = post(url, BODY | {"reference_audio": name})
    assert reply.status_code == 422
    assert "expected the bare name of a file" in reply.json()["detail"]
    assert len(voice.references) == before


def test_no_link_and_no_directory_either(url, voices, tmp_path):
    (voices / "link.wav").symlink_to(tmp_path / "secret.wav")
    (voices / "loop.wav").symlink_to(voices / "loop.wav")
    (voices / "directory").mkdir()
    for name in ("link.wav", "loop.wav", "directory", "x" * 300):
        assert post(url, BODY | {"reference_audio": name}).status_code == 404


# the token


def test_the_token_guards_everything_but_health(voices, voice):
    with serving(voice_app(voices, voice, token="s3cret")) as at:
        wait_for(at, "ready")
        good = {"X-Internal-Token": "s3cret"}
        assert post(at, headers=good).status_code == 200
        for wrong in ({}, {"X-Internal-Token": "s3cre"}, {"X-Internal-Token": "s3cret2"}):
            reply = post(at, headers=wrong)
            assert reply.status_code == 401
            assert reply.json()["detail"] == "X-Internal-Token is missing or wrong"
            assert "s3cret" not in reply.text
        assert post(at, "{broken").status_code == 401  # before the body is looked at
        assert httpx.get(f"{at}/openapi.json", trust_env=False).status_code == 401
        assert len(voice.said) == 2


# health


def test_health_is_answered_while_the_model_loads(voices):
    loaded = threading.Event()
    voice = FakeVoice()

    def load():
        assert loaded.wait(10)
        return voice

    with serving(voice_app(voices, load)) as at:
        reply = wait_for(at, "starting")
        assert reply.status_code == 503
        assert reply.json()["ready"] is False
        early = post(at)
        assert early.status_code == 503
        assert early.headers["Retry-After"] == "5"
        loaded.set()
        reply = wait_for(at, "ready")
    assert reply.status_code == 200
    health = reply.json()
    assert (health["model"], health["device"], health["rehearsal"]) == ("fake", "cpu", True)
    assert 0 <= health["last_good_age_s"] < 5
    assert len(voice.said) == 1  # ready means that it was heard


def test_a_model_that_cannot_be_loaded(voices):
    def load():
        raise RuntimeError("t3_cfg.safetensors:\nfile is cut short")

    with serving(voice_app(voices, load)) as at:
        reply = wait_for(at, "failing")
        assert reply.status_code == 503
        expected = "loading the model: RuntimeError: t3_cfg.safetensors: file is cut short"
        assert reply.json()["error"] == expected
        assert post(at).status_code == 503


def test_a_mute_model_is_never_ready(voices):
    voice = FakeVoice(dict.fromkeys(range(100), SILENCE))
    with serving(voice_app(voices, voice)) as at:
        reply = wait_for(at, "failing")
        assert reply.status_code == 503
        assert reply.json()["last_good_age_s"] is None
        assert "silent: the loudest sample is -inf dBFS" in reply.json()["error"]
        again = post(at)
        assert again.status_code == 503
        assert "silent" in again.json()["detail"]


def test_a_default_voice_that_is_missing(voices, voice):
    (voices / "samantha.wav").unlink()
    with serving(voice_app(voices, voice)) as at:
        error = wait_for(at, "failing").json()["error"]
    assert error == "no voice 'samantha.wav'; there are: other.wav"


# audio that is none


@pytest.mark.parametrize("bad", [SILENCE, RuntimeError("CUDA"), "cap", speechlike(60.0)])
def test_bad_audio_is_tried_again_with_another_seed(voices, bad):
    voice = FakeVoice({1: bad, 2: bad})
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        assert post(at).status_code == 200
        health = wait_for(at, "ready").json()
    assert len({seed for _, seed, _ in voice.said[1:]}) == 3
    assert health["retries"] == 2


def test_a_caller_never_gets_silence_with_a_200(voices):
    voice = FakeVoice({1: SILENCE, 2: SILENCE, 3: np.full(2 * RATE, np.nan, np.float32)})
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        reply = post(at)
        assert reply.status_code == 503
        assert "no speech in 3 attempts: NaN" in reply.json()["detail"]
        assert reply.headers["Retry-After"] == "5"
        # One text failed: a fresh sentence decides whether the model did.
        assert wait_for(at, "ready").status_code == 200
        assert post(at).status_code == 200
    assert voice.said[4][0] != TEXT


def test_a_model_that_breaks_is_not_ready_any_more(voices):
    voice = FakeVoice({n: RuntimeError("device lost") for n in range(1, 100)})
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        assert post(at).status_code == 503
        reply = wait_for(at, "failing")
        assert reply.status_code == 503
        assert "device lost" in reply.json()["error"]


def test_audio_at_the_cap_is_better_than_none(voices):
    voice = FakeVoice(dict.fromkeys(range(100), "cap"))
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        assert post(at).status_code == 200
    assert len(voice.said) == 6


# starting


def config(voices, **changes):
    return {
        "bind": "127.0.0.1", "port": 0, "synthesis_path": "/synthesize", "token_file": None,
        "weights_dir": "/nowhere", "voices_dir": str(voices), "default_voice": "samantha.wav",
        "device": "cpu", "threads": None, "token_cap": None, "stft_patch": False,
        "tuning": {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6}, **changes,
    }  # fmt: skip


def never():
    raise AssertionError("the model must not be loaded")


def refused(capsys, document):
    assert server.run(document, never) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def test_a_taken_port_is_noticed_before_the_model_is_loaded(voices, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        err = refused(capsys, config(voices, port=port))
    assert err == (
        f"understudy serve: port {port} on 127.0.0.1 is already taken; "
        f"see by whom: ss -ltnp 'sport = :{port}'\n"
    )


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "panda"])
def test_without_a_token_only_loopback(voices, capsys, bind):
    assert "without a token only loopback" in refused(capsys, config(voices, bind=bind))


def test_an_address_that_is_not_ours(voices, capsys, tmp_path):
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("s3cret")
    err = refused(capsys, config(voices, bind="192.0.2.1", token_file=str(token)))
    assert "cannot listen on 192.0.2.1" in err
    assert "s3cret" not in err


def test_a_token_file_that_is_empty(voices, capsys, tmp_path):
    (tmp_path / "token").touch()
    err = refused(capsys, config(voices, token_file=str(tmp_path / "token")))
    assert "is empty" in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": "red"}, "unknown ['colour']"),
        ({"tuning": {"cfg_weight": 0, "exaggeration": 0.3, "temperature": 0.6}}, "cfg_weight"),
        ({"tuning": {"speed": 1}}, "speed"),
        ({"synthesis_path": "/health"}, "synthesis_path"),
        ({"synthesis_path": "tts"}, "synthesis_path"),
    ],
)
def test_a_config_that_makes_no_sense(voices, capsys, changes, words):
    assert words in refused(capsys, config(voices, **changes))


def test_a_config_that_lacks_something(capsys):
    assert "missing ['bind', 'default_voice', 'voices_dir']" in refused(capsys, {"port": 1})


def test_loopback():
    assert all(map(api.is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(api.is_loopback, ("0.0.0.0", "::", "", "10.0.0.1", "titan")))


def test_run_serves_from_the_start_and_ends_when_told(voices, tmp_path):
    """The whole, as a process; the token is in no line of its log."""
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("s3cret\n")
    port = free_port()
    document = config(voices, port=port, token_file=str(tmp_path / "token"))
    paths = [str(Path(__file__).parent), str(Path(understudy.__file__).parents[1])]
    program = textwrap.dedent(f"""
        import json, sys
        sys.path[:0] = {paths!r}
        from loopback import FakeVoice
        from understudy.server import run
        sys.exit(run(json.loads(sys.argv[1]), FakeVoice))
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(document)], stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        with Server(f"http://127.0.0.1:{port}", token="s3cret", timeout_s=10) as client:
            while True:
                try:
                    assert client.health()["ready"]
                    break
                except VoiceServerError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert client.speak(TEXT, "samantha.wav", Tuning(0.3, 0.3, 0.6)).status == 200
    finally:
        os.kill(process.pid, signal.SIGTERM)
        log = process.communicate(timeout=10)[1]
    assert process.returncode == 0
    assert f"listening on 127.0.0.1 port {port}" in log
    assert "s of audio in" in log
    assert "s3cret" not in log
