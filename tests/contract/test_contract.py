"""The primary's HTTP contract, as questions to any server that claims to keep it.

    pytest tests/contract --server http://panda:8772 --token-file F --reference samantha.wav

Two servers that answer all of them alike can be exchanged by changing a URL. Some twelve
short sentences are spoken; nothing is changed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from understudy.audio import pcm, speech_check
from understudy.serve.client import is_rehearsal

SENTENCE = "Good morning, how can I help you today?"
RATE = 24_000


def problems(reply, text) -> list[str]:
    """What is wrong with a reply's speech; little where it is a rehearsal's by its own account."""
    rehearsal = is_rehearsal(reply.headers)
    return speech_check.check(speech(reply), RATE, text=text, rehearsal=rehearsal)["problems"]


def speech(reply) -> np.ndarray:
    """The samples of a reply that must be speech by the contract."""
    assert reply.status_code == 200, reply.text[:200]
    assert reply.headers["X-Sample-Rate"] == str(RATE)
    assert reply.headers["X-Channels"] == "1"
    assert not reply.headers.get("content-type", "").startswith(("text/", "application/json"))
    assert reply.content[:4] != b"RIFF", "a WAV, where raw PCM is the contract"
    return pcm.pcm16_to_float(reply.content)


def refused(reply) -> None:
    """A request that is the client's fault is answered so, quickly and without audio."""
    assert 400 <= reply.status_code < 500, (reply.status_code, reply.text[:200])
    assert "X-Audio-Duration" not in reply.headers


def test_health_answers_without_a_token(primary):
    assert primary.get("/health").status_code == 200


def test_speech_is_raw_pcm(primary):
    assert problems(primary.post(primary.body(SENTENCE)), SENTENCE) == []


def test_headers_describe_the_audio(primary):
    reply = primary.post(primary.body(SENTENCE))
    seconds = len(speech(reply)) / RATE
    assert float(reply.headers["X-Audio-Duration"]) == pytest.approx(seconds, abs=0.02)
    assert reply.headers["X-Format"] == "pcm_s16le"
    assert int(reply.headers["Content-Length"]) == len(reply.content)


def test_settings_may_be_left_out(primary):
    body = {"text": SENTENCE, "reference_audio": primary.reference}
    assert len(speech(primary.post(body)))


@pytest.mark.parametrize(
    "changes",
    [{"exaggeration": 0.7}, {"cfg_weight": 0.5}, {"temperature": 0.8}, {"exaggeration": 0}],
)
def test_settings_are_taken(primary, changes):
    assert len(speech(primary.post(primary.body("How are you?", **changes))))


@pytest.mark.parametrize(
    "text", ["Na\u00efve caf\u00e9 \u2013 \u201cyes\u201d.", "It costs $3.50, OK?\nGood."]
)
def test_text_is_unicode_and_may_have_lines(primary, text):
    assert problems(primary.post(primary.body(text)), text) == []


def test_several_at_once_are_all_answered(primary):
    texts = [SENTENCE, "One moment please.", "Thank you very much for calling us."]
    with ThreadPoolExecutor(len(texts)) as pool:
        replies = list(pool.map(lambda text: primary.post(primary.body(text)), texts))
    for text, reply in zip(texts, replies, strict=True):
        assert problems(reply, text) == []


@pytest.mark.parametrize("token", [None, "wrong", "\u00e9".encode()])
def test_without_the_token_there_is_nothing(primary, token):
    if primary.token is None:
        pytest.skip("no --token-file")
    reply = primary.post(primary.body(SENTENCE), token=token)
    assert reply.status_code in (401, 403)
    refused(reply)


def test_a_bearer_token_is_not_the_contract(primary):
    if primary.token is None:
        pytest.skip("no --token-file")
    headers = {"Authorization": f"Bearer {primary.token}"}
    refused(primary.post(primary.body(SENTENCE), token=None, headers=headers))


@pytest.mark.parametrize("text", ["", " \n\t", "?!", "\u2026", "\U0001f600", 7, None, ["Hello"]])
def test_text_that_is_none(primary, text):
    refused(primary.post(primary.body(text)))


def test_text_is_needed(primary):
    body = primary.body(SENTENCE)
    del body["text"]
    refused(primary.post(body))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 5000])
def test_a_body_that_is_no_request(primary, content):
    refused(primary.post(content=content, headers={"Content-Type": "application/json"}))


@pytest.mark.parametrize(
    "name", ["no-such-voice.wav", "../token", "/etc/passwd", "..", "a/../../b.wav", "x" * 300]
)
def test_a_voice_that_is_none(primary, name):
    refused(primary.post(primary.body(SENTENCE, reference_audio=name)))


@pytest.mark.parametrize(
    "changes",
    [{"temperature": "warm"}, {"temperature": -1}, {"cfg_weight": -1}, {"exaggeration": -1}],
)
def test_settings_out_of_range(primary, changes):
    refused(primary.post(primary.body(SENTENCE, **changes)))


def test_a_body_of_a_megabyte(primary):
    refused(primary.post(primary.body("word " * 200_000)))


def test_another_path_and_another_method(primary):
    token = {"X-Internal-Token": primary.token} if primary.token else {}
    import httpx

    for method, path in (
        ("POST", "/no-such-path"),
        ("GET", primary.path),
        ("DELETE", primary.path),
    ):
        reply = httpx.request(method, primary.url + path, headers=token, trust_env=False)
        assert reply.status_code in (404, 405)
