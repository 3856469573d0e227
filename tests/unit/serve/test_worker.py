"""Queue, deadline, hang-ups, proofs and states of the voice server, over real HTTP."""

import json
import os
import socket
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from loopback import RATE, FakeVoice, serving, speechlike, voice_app, wait_for
from waiting import until

from understudy.audio import pcm
from understudy.model.types import Tuning
from understudy.serve import worker
from understudy.serve.canary import fresh_sentence
from understudy.serve.jobs import Job, JobQueue
from understudy.serve.synthesis import PAUSE_S

TEXT = "Good morning, how can I help you today?"
SILENCE = np.zeros(2 * RATE, np.float32)


@pytest.fixture
def http():
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture
def pool():
    with ThreadPoolExecutor(20) as threads:
        yield threads


def post(http, at, text=TEXT, **body):
    return http.post(f"{at}/synthesize", json={"text": text, **body})


def health(http, at):
    return http.get(f"{at}/health").json()


def speaks_and_waits(http, at):
    """Whether one is being spoken, and how many wait, of one moment.

    Two that wait alone are no proof that a third was accepted: none may have been begun yet.
    """
    found = health(http, at)
    return found["busy"], found["waiting"]


def hang_up_after_asking(at, text=TEXT):
    """Send a request and return the open connection."""
    host, port = at.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    body = json.dumps({"text": text}).encode()
    sock.sendall(
        b"POST /synthesize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return sock


# the queue


def test_a_full_queue_refuses_with_an_estimate(voices, voice, http, pool):
    with serving(voice_app(voices, voice, queue=2)) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        accepted = [pool.submit(post, http, at) for _ in range(3)]
        until(lambda: speaks_and_waits(http, at) == (True, 2))
        reply = post(http, at)
        assert (reply.status_code, reply.json()["detail"]) == (503, "the queue is full: 2 wait")
        assert 1 <= int(reply.headers["Retry-After"]) <= 120
        voice.may_speak.set()
        assert [one.result().status_code for one in accepted] == [200] * 3
        found = wait_for(at, "degraded").json()
        assert found["reasons"] == ["1 requests found the queue full in the last 300 s"]
        assert (found["ready"], found["busy"], found["waiting"]) == (True, False, 0)
        assert (found["served"], found["refused"]) == (3, 1)


def test_no_queue_at_all_and_one_client_after_the_other(voices, voice, http):
    with serving(voice_app(voices, voice, queue=0)) as at:
        wait_for(at, "ready")
        assert {post(http, at).status_code for _ in range(30)} == {200}


def test_the_estimate_grows_with_what_waits(voices):
    queue = JobQueue(4, 30.0)
    queue._pace_s = 0.05
    tuning = Tuning(0.3, 0.3, 0.6)
    queue._waiting.extend(Job("x" * 100, voices, tuning, time.monotonic()) for _ in range(4))
    assert queue._backlog_s() == 20
    queue._waiting.clear()
    assert queue._backlog_s() == 1


def test_order_of_arrival(voices, voice, http, pool):
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        texts = [f"Number {n}, please come in." for n in range(6)]
        replies = []
        for n, text in enumerate(texts):
            replies.append(pool.submit(post, http, at, text))
            until(lambda n=n: speaks_and_waits(http, at) == (True, n))
        voice.may_speak.set()
        assert all(reply.result().status_code == 200 for reply in replies)
    assert [text for text, _, _ in voice.said[1:]] == texts


# who does not wait any more


def test_a_running_synthesis_is_abandoned_when_the_client_hangs_up(voices, voice, http):
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        sock = hang_up_after_asking(at)
        until(lambda: voice.at_once)
        sock.close()
        until(lambda: voice.stopped == 1)
        voice.may_speak.set()
        assert post(http, at).status_code == 200
        assert len(voice.said) == 2
        found = wait_for(at, "ready").json()
        assert found["served"] == 1
        assert 0 <= found["last_request_age_s"] < 30
        until(lambda: 'requests_total{outcome="gone"} 1.0' in http.get(f"{at}/metrics").text)


def test_a_waiting_request_is_dropped_when_the_client_hangs_up(voices, voice, http, pool):
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        first = pool.submit(post, http, at, "The first one is being spoken.")
        until(lambda: voice.at_once)
        sock = hang_up_after_asking(at, "Nobody waits for this one.")
        until(lambda: health(http, at)["waiting"] == 1)
        sock.close()
        until(lambda: health(http, at)["waiting"] == 0)
        voice.may_speak.set()
        assert first.result().status_code == 200
        assert [text for text, _, _ in voice.said[1:]] == ["The first one is being spoken."]


def test_the_deadline_holds_for_who_speaks_and_who_waits(voices, voice, http, pool):
    with serving(voice_app(voices, voice, deadline_s=0.5)) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        began = time.monotonic()
        first = pool.submit(post, http, at)
        until(lambda: voice.at_once)
        second = pool.submit(post, http, at)
        replies = [first.result(), second.result()]
        assert 0.5 <= time.monotonic() - began < 3
        assert [reply.status_code for reply in replies] == [503, 503]
        details = {reply.json()["detail"] for reply in replies}
        assert details <= {
            f"not done within 0.5 s: still {where}" for where in ("in the queue", "being spoken")
        }
        assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)
        until(lambda: voice.stopped >= 1)
        voice.may_speak.set()
        assert post(http, at).status_code == 200
        assert wait_for(at, "ready").json()["refused"] == 2


def test_the_deadline_holds_when_the_model_does_not_listen(voices, http):
    class Deaf(FakeVoice):
        def _take_time(self, should_stop):
            super()._take_time(lambda: False)

    voice = Deaf()
    with serving(voice_app(voices, voice, deadline_s=0.3, stuck_s=0.6)) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        assert post(http, at).status_code == 503
        found = wait_for(at, "failing")
        assert found.status_code == 503
        assert "a synthesis is stuck: " in found.json()["reasons"][0]
        voice.may_speak.set()
        wait_for(at, "ready")
        assert post(http, at).status_code == 200


# long text


def test_long_text_is_spoken_whole_in_order_with_pauses(voices, voice, http):
    sentences = [f"Sentence number {n} says that all of it is spoken. " for n in range(30)]
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        reply = post(http, at, "".join(sentences))
    pieces = [text for text, _, _ in voice.said[1:]]
    assert reply.status_code == 200
    assert len(pieces) > 3
    assert " ".join(pieces) == "".join(sentences).strip()
    spoken = sum(0.3 * len(piece.split()) for piece in pieces)
    pauses = (len(pieces) - 1) * PAUSE_S
    seconds = len(reply.content) / 2 / RATE
    assert spoken + pauses / 3 < seconds <= spoken + pauses + 0.01
    assert float(reply.headers["X-Audio-Duration"]) == pytest.approx(seconds, abs=0.001)


def test_one_bad_piece_is_repeated_alone(voices, http):
    voice = FakeVoice({2: SILENCE})
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        text = " ".join(f"Sentence {n} says that it is spoken." for n in range(20))
        assert post(http, at, text).status_code == 200
        pieces = [text for text, _, _ in voice.said[1:]]
        assert pieces[1] == pieces[2]
        assert len(pieces) == len(set(pieces)) + 1
        assert 'retries_total{reason="silent"} 1.0' in http.get(f"{at}/metrics").text


def test_the_deadline_holds_for_the_whole(voices, http):
    class Slow(FakeVoice):
        def _take_time(self, should_stop):
            time.sleep(0.3)
            super()._take_time(should_stop)

    voice = Slow()
    with serving(voice_app(voices, voice, deadline_s=0.7)) as at:
        wait_for(at, "ready")
        assert post(http, at).status_code == 200
        text = " ".join(f"Sentence {n} says that it is spoken." for n in range(40))
        assert "not done within 0.7 s" in post(http, at, text).json()["detail"]
        time.sleep(0.5)
        assert len(voice.said) <= 5


# the state


def test_while_idle_it_proves_itself_again(voices, voice, http):
    with serving(voice_app(voices, voice, proof_interval_s=0.3)) as at:
        wait_for(at, "ready")
        until(lambda: len(voice.said) >= 4)
        assert len({text for text, _, _ in voice.said}) >= 3
        assert health(http, at)["served"] == 0


def test_never_means_never(voices, voice, http):
    with serving(voice_app(voices, voice, proof_interval_s=0)) as at:
        wait_for(at, "ready")
        time.sleep(0.5)
        assert len(voice.said) == 1


def test_a_caller_comes_before_a_proof(voices, voice, http, pool):
    with serving(voice_app(voices, voice, proof_interval_s=0.3)) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        until(lambda: voice.at_once)
        reply = pool.submit(post, http, at)
        until(lambda: voice.stopped)
        voice.may_speak.set()
        assert reply.result().status_code == 200
        assert voice.said[1][0] == TEXT


def test_a_proof_that_fails_is_tried_again_with_back_off(voices, http, monkeypatch):
    monkeypatch.setattr(worker, "BACK_OFF_S", 0.1)
    broken = {n: RuntimeError("device lost") for n in range(1, 10)}
    voice = FakeVoice(broken)
    with serving(voice_app(voices, voice, proof_interval_s=0.2)) as at:
        wait_for(at, "ready")
        found = wait_for(at, "failing")
        assert (found.status_code, found.json()["ready"]) == (503, False)
        assert "device lost" in found.json()["error"]
        began = time.monotonic()
        wait_for(at, "ready")
        assert time.monotonic() - began > 0.15  # after 0.1 s, then 0.2 s more
    assert len(voice.said) >= 11


def test_a_hopeless_text_does_not_take_the_voice_down(voices, http):
    voice = FakeVoice({1: SILENCE, 2: SILENCE, 3: SILENCE})
    states = []
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        assert post(http, at).status_code == 503
        states.append(health(http, at)["state"])
        wait_for(at, "ready")
    assert states[0] in ("ready", "degraded")
    assert voice.said[4][0] != TEXT


def test_a_text_that_the_model_raises_at_does_not_either(voices, http):
    voice = FakeVoice(dict.fromkeys((1, 2, 3), IndexError("index out of range in self")))
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        voice.may_speak.set()
        assert post(http, at).status_code == 503
        assert health(http, at)["state"] in ("ready", "degraded")
        wait_for(at, "ready")


def test_a_lost_device_while_a_voice_is_prepared(voices, http):
    class Lost(FakeVoice):
        def use_reference(self, path, exaggeration):
            if path.name == "other.wav":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return super().use_reference(path, exaggeration)

    with serving(voice_app(voices, Lost())) as at:
        wait_for(at, "ready")
        assert post(http, at, reference_audio="other.wav").status_code == 503
        found = wait_for(at, "failing").json()
        assert "the device is lost: RuntimeError: CUDA error" in found["error"]
        reply = post(http, at)
        assert (reply.status_code, reply.json()["detail"]) == (503, found["error"])


def test_memory_that_is_short_while_a_voice_is_prepared_is_survived(voices, monkeypatch):
    class Full(FakeVoice):
        def use_reference(self, path, exaggeration):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(worker, "BACK_OFF_S", 0.02)
    with serving(voice_app(voices, Full(), max_failed_self_tests=2)) as at:
        wait_for(at, "failing")
        time.sleep(0.5)
        with httpx.Client() as http:
            found = health(http, at)
    assert "out of memory" in found["error"]
    assert "in a row" not in found["error"]


def test_silence_at_a_seam_is_no_dead_air(voices, http):
    pad = np.zeros(round(0.9 * RATE), np.float32)
    padded = {n: np.r_[pad, speechlike(20.0), pad].astype(np.float32) for n in range(1, 9)}
    text = "one two three four five six seven eight nine ten " * 9  # two pieces, without a mark
    with serving(voice_app(voices, FakeVoice(padded))) as at:
        wait_for(at, "ready")
        assert post(http, at, text).status_code == 200


def test_many_retries_are_told(voices, http):
    voice = FakeVoice(dict.fromkeys(range(1, 10, 2), SILENCE))
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        for _ in range(5):
            assert post(http, at).status_code == 200
        assert wait_for(at, "degraded").json()["reasons"] == [
            "5 of the last 6 texts needed a retry"
        ]
        for _ in range(20):
            post(http, at)
        assert wait_for(at, "ready").json()["reasons"] == []


class Reading(FakeVoice):
    """Cannot use a file that begins with BAD."""

    def use_reference(self, path, exaggeration):
        if path.read_bytes().endswith(b"BAD"):
            raise RuntimeError("not a WAV")
        return super().use_reference(path, exaggeration)


@pytest.mark.parametrize("damage", ["garbage", "gone"])
def test_the_default_voice_goes_on_as_it_was_prepared(voices, http, damage):
    voice = Reading()
    with serving(voice_app(voices, voice)) as at:
        digest = wait_for(at, "ready").json()["voice_sha256"]
        assert len(digest) == 64
        file = voices / "samantha.wav"
        kept = file.read_bytes()
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(b"BAD")
        assert post(http, at).status_code == 200
        assert post(http, at, reference_audio="samantha.wav").status_code == 200
        found = wait_for(at, "degraded").json()
        assert "samantha.wav cannot be used any more" in found["reasons"][0]
        assert found["voice_sha256"] == digest
        file.write_bytes(kept)
        assert post(http, at).status_code == 200
        wait_for(at, "ready")


def test_another_voice_that_is_none_is_not_the_models_fault(voices, http):
    voice = Reading()
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        good = (voices / "other.wav").read_bytes()
        (voices / "other.wav").write_bytes(good + b"BAD")
        reply = post(http, at, reference_audio="other.wav")
        assert reply.status_code == 503
        assert reply.json()["detail"] == "voice other.wav: RuntimeError: not a WAV"
        wait_for(at, "ready")
        (voices / "other.wav").unlink()
        assert post(http, at, reference_audio="other.wav").status_code == 404


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"Hello there.", "is not a WAV: it starts with b'Hello there.'"),
        (b"<!doctype html><title>404</title>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "is not a WAV"),
        (b"RIFF\x24\x00\x00\x00WAVE", "is not a readable WAV"),
        (np.zeros(5 * RATE, np.float32), "is silent: the loudest sample is -inf dBFS"),
        (np.r_[np.zeros(7 * RATE), speechlike(9.0)].astype(np.float32), "in the first 6 s"),
        (np.zeros(0, np.float32), "holds not one sample"),
    ],
    ids=["empty", "text", "html", "lfs", "headless", "silent", "begins silent", "no sample"],
)
@pytest.mark.parametrize("used_before", [False, True])
def test_a_voice_that_is_none_is_a_422_and_changes_nothing(
    voices, voice, http, content, words, used_before
):
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        if used_before:
            assert post(http, at, reference_audio="other.wav").status_code == 200
        said = len(voice.said)
        if isinstance(content, bytes):
            (voices / "other.wav").write_bytes(content)
        else:
            pcm.write_wav(voices / "other.wav", content)
        reply = post(http, at, reference_audio="other.wav")
        assert reply.status_code == 422
        assert words in reply.json()["detail"]
        assert str(voices) not in reply.text
        openai = http.post(
            f"{at}/v1/audio/speech", json={"model": "x", "input": TEXT, "voice": "other"}
        )
        assert openai.status_code == 400
        assert words in openai.json()["error"]["message"]
        found = health(http, at)
        assert (found["state"], found["reasons"], found["refused"]) == ("ready", [], 0)
        assert len(voice.said) == said
        assert post(http, at).status_code == 200
        pcm.write_wav(voices / "other.wav", speechlike(4.0))
        assert post(http, at, reference_audio="other.wav").status_code == 200


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "loop", "dangling"])
def test_what_is_no_file_hangs_nothing(voices, voice, http, kind):
    """As a voice, and as the default voice once it spoke."""
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        for name in ("other.wav", "samantha.wav"):
            path = voices / name
            path.unlink()
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "directory":
                path.mkdir()
            else:
                path.symlink_to({"device": "/dev/zero", "loop": path, "dangling": "none"}[kind])
        assert post(http, at, reference_audio="other.wav").status_code == 404
        assert post(http, at).status_code == 200
        assert "cannot be used any more" in wait_for(at, "degraded").json()["reasons"][0]


def test_a_file_name_that_is_no_text_is_not_listed(voices, voice, http):
    (voices / os.fsdecode(b"M\xfcller.wav")).touch()
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        reply = post(http, at, reference_audio="nobody.wav")
    assert reply.status_code == 404
    assert "other.wav" in reply.json()["detail"]


def test_an_accent_may_be_composed_in_two_ways(voices, voice, http):
    name = "Ren\u00e9e.wav"
    decomposed = unicodedata.normalize("NFD", name)
    pcm.write_wav(voices / decomposed, speechlike(4.0))
    with serving(voice_app(voices, voice)) as at:
        wait_for(at, "ready")
        for spelt in (name, decomposed):
            assert post(http, at, reference_audio=spelt).status_code == 200
            assert voice.references[-1][0] == decomposed
        assert post(http, at, reference_audio="Ren\u00e8e.wav").status_code == 404


def test_the_default_voice_may_be_a_link_that_is_turned(voices, voice, http):
    (voices / "samantha.wav").unlink()
    (voices / "samantha.wav").symlink_to("one.wav")
    for name in ("one.wav", "two.wav"):
        pcm.write_wav(voices / name, speechlike(4.0))
    with serving(voice_app(voices, voice)) as at:
        first = wait_for(at, "ready").json()["voice_sha256"]
        (voices / "samantha.wav").unlink()
        (voices / "samantha.wav").symlink_to("two.wav")
        assert post(http, at).status_code == 200
        assert voice.references[-1][0] == "two.wav"
        assert health(http, at)["voice_sha256"] not in (None, first)


def test_a_proof_that_is_overdue_is_told(voices):
    one = voice_app(voices, FakeVoice(), proof_interval_s=10.0).state.worker
    one.synthesizer.voice = FakeVoice()
    one._say(
        fresh_sentence(), one.files.find("samantha.wav"), one._config.default_tuning, lambda: False
    )
    assert one.judge() == ("ready", [])
    one._last_good -= 60
    state, reasons = one.judge()
    assert state == "degraded"
    assert reasons == ["no good synthesis and no self-test for longer than 20 s"]


def test_a_thread_that_has_ended_is_told(voices, http):
    class Deadly(FakeVoice):
        def speak(self, *_, **__):
            if self.said:
                raise SystemExit
            return super().speak(*_, **__)

    app = voice_app(voices, Deadly(), deadline_s=0.5)
    with serving(app) as at:
        wait_for(at, "ready")
        assert post(http, at).status_code == 503
        assert health(http, at)["reasons"] == ["the synthesis thread has ended; see the log"]
        assert not app.state.worker.alive


def test_the_body_of_health(voices, voice, http):
    with serving(voice_app(voices, voice)) as at:
        found = wait_for(at, "ready").json()
    assert list(found) == [
        "state",
        "instance",
        "ready",
        "reasons",
        "model",
        "device",
        "rehearsal",
        "default_voice",
        "voice_sha256",
        "last_good_age_s",
        "last_request_age_s",
        "busy",
        "waiting",
        "served",
        "refused",
        "retries",
        "started_at",
        "ready_after_s",
        "version",
        "error",
        "environment",
    ]
    assert found["reasons"] == []
    assert found["error"] is None
    assert found["last_request_age_s"] is None
    assert found["ready_after_s"] > 0
    assert found["started_at"].endswith("Z")


def test_the_instance_is_of_this_process_and_for_everybody(voices, voice, http):
    """Without a token, and before the model is loaded, too."""

    def load():
        time.sleep(0.2)
        return voice

    seen = set()
    for _ in range(2):
        with serving(voice_app(voices, load, token="s3cret")) as at:
            early = health(http, at)["instance"]
            assert early == wait_for(at, "ready").json()["instance"]
        assert len(early) == 32
        seen.add(early)
    assert len(seen) == 2


# stopping


def test_after_the_order_to_stop_nothing_is_accepted_and_all_is_finished(voices, voice, http, pool):
    app = voice_app(voices, voice)
    with serving(app) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        accepted = [pool.submit(post, http, at) for _ in range(3)]
        until(lambda: speaks_and_waits(http, at) == (True, 2))
        app.state.worker.queue.draining_since = time.monotonic()
        refused = post(http, at)
        assert (refused.status_code, refused.json()["detail"]) == (503, "the server is stopping")
        voice.may_speak.set()
        assert [one.result().status_code for one in accepted] == [200] * 3


def test_when_the_time_is_up_everybody_is_answered(voices, http, pool):
    class Deaf(FakeVoice):
        def _take_time(self, should_stop):
            super()._take_time(lambda: False)

    voice = Deaf()
    app = voice_app(voices, voice)
    with serving(app) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        accepted = [pool.submit(post, http, at) for _ in range(3)]
        until(lambda: speaks_and_waits(http, at) == (True, 2))
        app.state.worker.stop()
        replies = [one.result() for one in accepted]
        assert [reply.status_code for reply in replies] == [503] * 3
        assert {reply.json()["detail"] for reply in replies} == {"the server is stopping"}
        voice.may_speak.set()


def test_nothing_of_a_thread_is_left_behind(voices, voice, http):
    before = threading.active_count()
    app = voice_app(voices, voice)
    with serving(app) as at:
        wait_for(at, "ready")
        post(http, at)
    until(lambda: not app.state.worker.running)
    assert threading.active_count() <= before + 1
