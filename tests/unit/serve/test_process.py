import contextlib
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
import loopback
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
from waiting import until

import understudy
from understudy.audio import pcm, speech_check
from understudy.common.sockets import is_loopback
from understudy.model.types import Tuning
from understudy.model.voice import Voice
from understudy.serve import process
from understudy.serve.client import VoiceClient
from understudy.serve.config import ServerConfig

TEXT = "Good morning, how can I help you today?"
SILENCE = np.zeros(2 * RATE, np.float32)
BODY = {
    "text": TEXT,
    "reference_audio": "samantha.wav",
    "exaggeration": 0.3,
    "cfg_weight": 0.3,
    "temperature": 0.6,
}


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
    expected = pcm.float_to_pcm16(speechlike(0.3 * 8))
    assert reply.content == expected
    assert reply.headers["X-Sample-Rate"] == "24000"
    assert reply.headers["X-Channels"] == "1"
    assert reply.headers["X-Format"] == "pcm_s16le"
    assert float(reply.headers["X-Audio-Duration"]) == pytest.approx(2.4)
    text, _, tuning = voice.said[-1]
    assert (text, tuning) == (TEXT, Tuning(cfg_weight=0.3, exaggeration=0.3, temperature=0.6))
    assert voice.references[-1] == ("samantha.wav", 0.3)


def test_our_own_client_understands_it(url):
    with VoiceClient(url) as client:
        said = client.speak(TEXT, "other.wav", Tuning(0.5, 0.7, 0.8))
        assert speech_check.check(said.samples, said.rate, text=TEXT)["problems"] == []
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
        until(lambda: voice.at_once)
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
        ({"text": "hi", "cfg_weight": True}, "cfg_weight: Input should be a valid number"),
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
    [
        "../secret.wav",
        "/etc/passwd",
        "..",
        ".",
        "a/../../secret.wav",
        "..\\secret.wav",
        "a\0.wav",
        "./samantha.wav",
        "samantha.wav/",
    ],
)
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


def test_real_weights_have_to_speak_and_a_rehearsals_say_what_they_are(voices):
    noise = np.random.default_rng(1).normal(0, 0.05, 3 * RATE)
    rehearsal, real = FakeVoice({1: noise}), FakeVoice(dict.fromkeys((1, 2, 3), noise))
    real.info = real.info | {"rehearsal": False}
    with serving(voice_app(voices, rehearsal)) as at:
        wait_for(at, "ready")
        reply = post(at)
        assert (reply.status_code, reply.headers["X-Understudy-Rehearsal"]) == (200, "true")
    with serving(voice_app(voices, real)) as at:
        wait_for(at, "ready")
        reply = post(at)
        assert reply.status_code == 503
        assert "no speech in 3 attempts: not speech: " in reply.json()["detail"]
        assert "X-Understudy-Rehearsal" not in post(at).headers


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
        "bind": "127.0.0.1",
        "port": 0,
        "synthesis_path": "/synthesize",
        "token_file": None,
        "weights_dir": "/nowhere",
        "voices_dir": str(voices),
        "default_voice": "samantha.wav",
        "device": "cpu",
        "threads": None,
        "token_cap": None,
        "stft_patch": False,
        "tuning": {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6},
        **changes,
    }


def never():
    raise AssertionError("the model must not be loaded")


def refused(capsys, document):
    assert process.run(document, never) == 1
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
        ({"stuck_s": 5, "deadline_s": 6}, "stuck_s is 5; give at least deadline_s (6)"),
    ],
)
def test_a_config_that_makes_no_sense(voices, capsys, changes, words):
    assert words in refused(capsys, config(voices, **changes))


def test_a_config_that_lacks_something(capsys):
    assert "missing ['bind', 'default_voice', 'voices_dir']" in refused(capsys, {"port": 1})


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "", "10.0.0.1", "titan")))


# the process


class Process:
    """The server as a process of its own, with a made-up voice, under a made-up systemd."""

    def __init__(self, document, tmp_path, load="FakeVoice", before=""):
        self.url = f"http://127.0.0.1:{document['port']}"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(tmp_path / "notify"))
        self.manager.settimeout(20)
        self.told = []
        paths = [str(Path(loopback.__file__).parent), str(Path(understudy.__file__).parents[1])]
        program = textwrap.dedent(f"""
            import json, sys
            sys.path[:0] = {paths!r}
            import numpy as np
            from loopback import FakeVoice
            from understudy.serve import process, worker
            process.THREAD_END_S = 0.5
            {before}
            sys.exit(process.run(json.loads(sys.argv[1]), {load}))
        """)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(document)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.manager.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()

    def wait_for(self, words):
        """Read what systemd is told until a line begins so."""
        while True:
            self.told += self.manager.recv(10_000).decode().splitlines()
            if any(line.startswith(words) for line in self.told):
                return

    def health(self):
        return httpx.get(f"{self.url}/health", trust_env=False).json()

    def end(self, sig=signal.SIGTERM):
        """Send a signal; return the exit status and the log."""
        if sig:
            self.process.send_signal(sig)
        log = self.process.communicate(timeout=20)[1]
        return self.process.returncode, log


def post_when_told(url, **options):
    return httpx.post(f"{url}/synthesize", json=BODY, trust_env=False, timeout=20, **options)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_run_serves_from_the_start_and_ends_when_told(voices, tmp_path, sig):
    """The whole; the token is in no line of the log."""
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("s3cret\n")
    port = free_port()
    document = config(voices, port=port, token_file=str(tmp_path / "token"))
    with Process(document, tmp_path) as server_:
        server_.wait_for("READY=1")
        with VoiceClient(server_.url, token="s3cret", timeout_s=10) as client:
            assert client.health()["ready"]
            assert client.speak(TEXT, "samantha.wav", Tuning(0.3, 0.3, 0.6)).status == 200
        server_.wait_for("WATCHDOG=1")
        status, log = server_.end(sig)
        server_.wait_for("STOPPING=1")
    assert status == 0
    assert f"listening on 127.0.0.1 port {port}" in log
    assert "s of audio in" in log
    assert "s3cret" not in log
    told = [line for line in server_.told if not line.startswith("WATCHDOG")]
    assert told[0] == "STATUS=starting: the model is loading"
    assert told[told.index("READY=1") - 1] == "STATUS=ready"


def test_a_sigterm_lets_what_was_accepted_finish(voices, tmp_path):
    # The first caller's takes until the others have come, on a slow machine, too.
    slow = "FakeVoice._take_time = lambda s, _: time.sleep(3 if len(s.said) == 1 else 0.2)"
    document = config(voices, port=free_port())
    with Process(document, tmp_path, before=f"import time; {slow}") as server_:
        server_.wait_for("READY=1")
        with ThreadPoolExecutor(3) as pool:
            replies = [pool.submit(post_when_told, server_.url) for _ in range(3)]
            # Two that wait alone are no proof that the third was accepted.
            until(lambda: (found := server_.health())["busy"] and found["waiting"] == 2)
            server_.process.send_signal(signal.SIGTERM)
            server_.wait_for("STOPPING=1")
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server_.url}/health", trust_env=False)
            assert [reply.result().status_code for reply in replies] == [200] * 3
        assert server_.end(None)[0] == 0


def test_a_sigterm_waits_no_longer_than_that(voices, tmp_path):
    """The model is inside a call that does not come back."""
    deaf = "import time; FakeVoice._take_time = lambda s, _: time.sleep(60 if s.said else 0)"
    document = config(voices, port=free_port(), drain_s=0.5)
    with Process(document, tmp_path, before=deaf) as server_:
        server_.wait_for("READY=1")
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(post_when_told, server_.url)
            until(lambda: server_.health()["busy"])
            began = time.monotonic()
            server_.process.send_signal(signal.SIGTERM)
            assert reply.result().status_code == 503
            assert reply.result().json()["detail"] == "the server is stopping"
        status, log = server_.end(None)
        assert time.monotonic() - began < 15
    assert status == 0
    assert "the synthesis thread does not end" in log


def test_a_sigterm_while_the_model_loads(voices, tmp_path):
    document = config(voices, port=free_port(), drain_s=0.5)
    load = "lambda: __import__('time').sleep(60)"
    with Process(document, tmp_path, load=load) as server_:
        server_.wait_for("STATUS=starting")
        assert server_.end()[0] == 0
    assert "READY=1" not in server_.told


def test_a_model_that_cannot_be_loaded_ends_the_process(voices, tmp_path):
    document = config(voices, port=free_port())
    with Process(document, tmp_path, load="lambda: 1 / 0") as server_:
        server_.wait_for("STATUS=loading the model")
        status, log = server_.end(None)
    assert status == 1
    expected = (
        "understudy serve: loading the model: ZeroDivisionError: division by zero; "
        "next: check /nowhere and device cpu"
    )
    assert log.splitlines()[-1] == expected
    assert "READY=1" not in server_.told


def test_no_ready_before_speech_and_no_watchdog_when_stuck(voices, tmp_path):
    mute = (
        "import time; worker.BACK_OFF_S = 0.3; silence = np.zeros(48000, np.float32); "
        "FakeVoice.__init__.__defaults__ = ({n: silence for n in range(3)},); "
        "FakeVoice._take_time = lambda s, _: time.sleep(6 if len(s.said) == 4 else 0)"
    )
    document = config(voices, port=free_port(), stuck_s=0.5, deadline_s=0.5)
    with Process(document, tmp_path, before=mute) as server_:
        server_.wait_for("STATUS=failing: no speech in 3 attempts: silent")
        assert "READY=1" not in server_.told
        server_.wait_for("READY=1")
        assert post_when_told(server_.url).status_code == 503
        server_.wait_for("STATUS=failing: a synthesis is stuck")
        server_.told.clear()
        time.sleep(1)
        server_.manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            server_.wait_for("WATCHDOG=1")
        status, log = server_.end(None)
    assert status == 1
    assert "a synthesis is stuck: it takes longer than 0.5 s; ended" in log


def test_a_second_signal_refuses_what_was_accepted_and_cuts_nobody_off(voices, tmp_path):
    slow = "import time; FakeVoice._take_time = lambda s, _: time.sleep(3 if s.said else 0)"
    document = config(voices, port=free_port())
    with Process(document, tmp_path, before=slow) as server_:
        server_.wait_for("READY=1")
        with ThreadPoolExecutor(3) as pool:
            replies = [pool.submit(post_when_told, server_.url) for _ in range(3)]
            until(lambda: (found := server_.health())["busy"] and found["waiting"] == 2)
            began = time.monotonic()
            for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                server_.process.send_signal(sig)
                time.sleep(0.3)
            answers = [reply.result() for reply in replies]
            assert time.monotonic() - began < 2.5
        assert [answer.status_code for answer in answers] == [503] * 3
        assert answers[0].json()["detail"] == "the server is stopping"
        assert server_.end(None)[0] == 0


def test_idle_strangers_at_the_limit_on_open_files(voices, tmp_path):
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))"
    document = config(voices, port=free_port())
    with Process(document, tmp_path, before=few) as server_, contextlib.ExitStack() as stack:
        server_.wait_for("READY=1")
        for _ in range(700):
            stack.enter_context(socket.create_connection(("127.0.0.1", document["port"]), 5))
        for _ in range(3):
            assert server_.health()["ready"]
            assert post_when_told(server_.url).status_code == 200
        status, log = server_.end()
    assert status == 0
    assert len(log) < 10_000
    assert "116 connections instead of 512" in log


# what only a new process gets over


def lost(words):
    """A voice whose device is lost in the middle of its second utterance."""
    return (
        "import time; FakeVoice._take_time = lambda s, _: time.sleep(0.6 if s.said else 0); "
        f"FakeVoice.__init__.__defaults__ = ({{n: RuntimeError({words!r}) for n in range(1, 99)}},)"
    )


def test_a_lost_device_ends_the_process_and_everybody_is_answered_first(voices, tmp_path):
    words = "CUDA error: device-side assert triggered"
    document = config(voices, port=free_port())
    with Process(document, tmp_path, before=lost(words)) as server_:
        server_.wait_for("READY=1")
        idle = socket.create_connection(("127.0.0.1", document["port"]))
        with ThreadPoolExecutor(3) as pool, idle:
            began = time.monotonic()
            replies = [pool.submit(post_when_told, server_.url) for _ in range(3)]
            statuses = [reply.result().status_code for reply in replies]
            status, log = server_.end(None)
        assert time.monotonic() - began < 5
    assert statuses == [503] * 3
    assert status == 1
    assert log.splitlines()[-1] == (
        f"understudy serve: the device is lost: RuntimeError: {words}; "
        "ended, so that the service manager starts it anew"
    )
    assert log.count("synthesis failed") == 1, "it was asked again"


def test_a_sigterm_while_it_ends(voices, tmp_path):
    document = config(voices, port=free_port(), drain_s=30)
    with Process(document, tmp_path, before=lost("CUDA error: misaligned address")) as server_:
        server_.wait_for("READY=1")
        with ThreadPoolExecutor(1) as pool:
            reply = pool.submit(post_when_told, server_.url)
            until(lambda: server_.health()["busy"])
            status, log = server_.end()
            assert reply.result().status_code == 503
    assert status == 1
    assert "the device is lost" in log


def test_out_of_memory_is_survived(voices, tmp_path):
    words = "CUDA out of memory. Tried to allocate 20.00 MiB"
    document = config(voices, port=free_port(), max_failed_self_tests=1)
    soon = f"worker.BACK_OFF_S = 0.05; {lost(words)}; FakeVoice._take_time = lambda *_: None"
    with Process(document, tmp_path, before=soon) as server_:
        server_.wait_for("READY=1")
        assert post_when_told(server_.url).status_code == 503
        server_.wait_for("STATUS=failing")
        time.sleep(0.5)
        assert "out of memory" in server_.health()["error"]
        assert server_.end()[0] == 0


@pytest.mark.parametrize(("limit", "status"), [(3, 1), (0, 0)])
def test_self_tests_that_fail_again_and_again_end_the_process(voices, tmp_path, limit, status):
    mute = (
        "worker.BACK_OFF_S = 0.1; silence = np.zeros(48000, np.float32); "
        "FakeVoice.__init__.__defaults__ = ({n: silence for n in range(1000)},)"
    )
    document = config(voices, port=free_port(), max_failed_self_tests=limit)
    with Process(document, tmp_path, before=mute) as server_:
        server_.wait_for("STATUS=failing")
        if not limit:
            time.sleep(1)
        ended, log = server_.end(None if limit else signal.SIGTERM)
    assert ended == status
    assert (f"{limit} self-tests failed in a row, the last one: no speech" in log) is bool(limit)


def test_a_synthesis_thread_that_dies_ends_the_process(voices, tmp_path):
    dies = (
        lost("").replace("RuntimeError('')", "1").replace("0.6 if s.said", "sys.exit() if s.said")
    )
    document = config(voices, port=free_port())
    with Process(document, tmp_path, before=dies) as server_:
        server_.wait_for("READY=1")
        began = time.monotonic()
        assert post_when_told(server_.url).status_code == 503
        status, log = server_.end(None)
        assert time.monotonic() - began < 5
    assert status == 1
    assert "the synthesis thread has ended" in log


# what is found before a minute is spent on loading


def test_a_token_that_others_can_read(voices, capsys, tmp_path):
    token = tmp_path / "token"
    token.write_text("s3cret")
    for mode in (0o640, 0o604, 0o660, 0o601):
        token.chmod(mode)
        err = refused(capsys, config(voices, token_file=str(token)))
        assert f"(mode {mode:04o}); chmod 600 {token}\n" in err
        assert "s3cret" not in err


def test_a_token_that_is_not_there(voices, capsys, tmp_path):
    err = refused(capsys, config(voices, token_file=str(tmp_path / "none")))
    assert "No such file" in err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nobody.wav", None, "no voice 'nobody.wav'; there are: other.wav, samantha.wav; put"),
        ("../secret.wav", None, "expected the bare name of a file"),
        ("page.wav", b"<!doctype html>", "an HTML page"),
        ("empty.wav", b"", "is empty (0 bytes)"),
        ("silent.wav", pcm.to_wav(SILENCE, RATE), "is silent: "),
    ],
)
def test_a_default_voice_that_is_none(voices, capsys, name, content, words):
    if content is not None:
        (voices / name).write_bytes(content)
    err = refused(capsys, config(voices, default_voice=name))
    assert words in err
    assert str(voices) in err


def test_weights_that_are_missing_or_cut(voices, capsys, tmp_path):
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "ve.safetensors").write_bytes(b"\x10" + bytes(7) + b"{}")
    (weights / "tokenizer.json").write_text("{}")
    assert process.run(config(voices, weights_dir=str(weights))) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{weights}/ve.safetensors: not a safetensors file, or cut short at 10 bytes" in err
    assert f"{weights}/t3_cfg.safetensors: missing" in err
    assert "understudy weights --config FILE" in err
    assert "conds.pt" not in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"port": "http"}, "port: "),
        ({"port": 70_000}, "port: Input should be less than or equal to 65535"),
        ({"queue": -1}, "queue: "),
        ({"empty_text": "hum"}, "empty_text: "),
        ({"tuning": {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 1e-39}}, "temperature"),
        ({"deadline_s": 0}, "deadline_s: Input should be greater than 0"),
        ({"deadline_s": float("nan")}, "deadline_s: "),
        ({"proof_interval_s": -5}, "proof_interval_s: "),
        ({"max_text": "long"}, "max_text: "),
        ({"max_body_bytes": 10}, "max_body_bytes: "),
        ({"voices_dir": 7}, "voices_dir: "),
        ({"bind": None}, "bind: "),
        ({"tuning": "loud"}, "tuning"),
        ({"tuning": {"cfg_weight": "a", "exaggeration": 0.3, "temperature": 0.6}}, "tuning"),
        ({"synthesis_path": 7}, "synthesis_path: "),
        ({"synthesis_path": "/metrics"}, "synthesis_path is '/metrics'"),
        ({"synthesis_path": "/v1/audio/speech"}, "synthesis_path is"),
    ],
)
def test_a_value_that_makes_no_sense(voices, capsys, changes, words):
    assert words in refused(capsys, config(voices, **changes))


@pytest.mark.parametrize("fast_load", [False, True])
def test_the_server_honours_fast_load(voices, monkeypatch, fast_load):
    asked = []
    monkeypatch.setattr(Voice, "load", lambda *_, **options: asked.append(options["fast_load"]))
    process.load_voice(ServerConfig.from_dict(config(voices, fast_load=fast_load)))
    assert asked == [fast_load]
