"""The voice server as OpenAI's own client finds it."""

import io

import httpx
import openai
import pytest
import soundfile
from loopback import RATE, FakeVoice, make_voices, serving, speechlike, voice_app, wait_for

from understudy.audio import pcm
from understudy.model.types import Tuning

TOKEN = "s3cret"
TEXT = "Good morning, how can I help you today?"
SPOKEN = pcm.float_to_pcm16(speechlike(0.3 * 8))


@pytest.fixture(scope="module")
def voice():
    return FakeVoice()


@pytest.fixture(scope="module")
def at(voice, tmp_path_factory):
    voices = make_voices(tmp_path_factory.mktemp("openai") / "voices")
    with serving(voice_app(voices, voice, TOKEN, max_body_bytes=4_096, max_text=500)) as url:
        wait_for(url, "ready")
        yield url


CLIENTS = []


@pytest.fixture(autouse=True)
def closed():
    """Close the connections of every client that a test made."""
    yield
    while CLIENTS:
        CLIENTS.pop().close()


def client(at, key=TOKEN):
    CLIENTS.append(openai.OpenAI(base_url=f"{at}/v1", api_key=key, max_retries=0, timeout=10))
    return CLIENTS[-1]


def speech(at, **changes):
    asked = {"model": "chatterbox", "voice": "samantha", "input": TEXT, **changes}
    return client(at).audio.speech.create(**asked)


@pytest.mark.parametrize("name", ["samantha", "samantha.wav"])
def test_a_wav(at, voice, name):
    reply = speech(at, voice=name, response_format="wav")
    samples, rate = soundfile.read(io.BytesIO(reply.content), dtype="int16")
    assert (rate, samples.tobytes()) == (RATE, SPOKEN)
    assert reply.response.headers["content-type"] == "audio/wav"
    assert voice.references[-1][0] == "samantha.wav"


def test_pcm_as_a_stream_into_a_file(at, tmp_path):
    streaming = client(at).audio.speech.with_streaming_response
    with streaming.create(
        model="chatterbox", voice="other", input=TEXT, response_format="pcm", speed=1
    ) as reply:
        reply.stream_to_file(tmp_path / "speech.pcm")
    assert (tmp_path / "speech.pcm").read_bytes() == SPOKEN


def test_a_wav_where_no_format_is_named(at):
    assert speech(at).content[:4] == b"RIFF"


def test_the_samplers_settings_beside_the_rest(at, voice):
    speech(at, extra_body={"temperature": 0.9})
    assert voice.said[-1][2] == Tuning(cfg_weight=0.3, exaggeration=0.3, temperature=0.9)


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"response_format": "mp3"}, "response_format", "Input should be 'wav' or 'pcm'"),
        ({"response_format": "opus"}, "response_format", "Input should be 'wav' or 'pcm'"),
        ({"speed": 1.5}, "speed", "only 1 is spoken"),
        ({"stream_format": "sse"}, "stream_format", "'audio'"),
        ({"instructions": "Whisper."}, "instructions", ""),
        ({"voice": {"id": "voice_1"}}, "voice", ""),
        ({"input": "?!"}, None, "there is not one word in it"),
        ({"input": "bell \x07"}, None, "control character U+0007 at position 5"),
        ({"input": "x" * 501}, "input", "at most 500 characters"),
        ({"voice": "../token"}, None, "expected the bare name of a file"),
    ],
)
def test_what_cannot_be_done_is_a_400_that_says_so(at, changes, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        speech(at, **changes)
    error = caught.value.body
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


def test_an_unknown_voice(at):
    with pytest.raises(openai.NotFoundError) as caught:
        speech(at, voice="alloy")
    assert caught.value.body["message"] == (
        "no voice 'alloy.wav'; there are: other.wav, samantha.wav"
    )


def test_a_wrong_key(at):
    with pytest.raises(openai.AuthenticationError) as caught:
        client(at, "wrong").audio.speech.create(model="x", voice="samantha", input=TEXT)
    assert caught.value.code == "invalid_api_key"
    assert "wrong" not in caught.value.body["message"].replace("missing or wrong", "")


def test_both_headers_are_taken_here_and_one_only_elsewhere(at):
    body = {"model": "x", "voice": "samantha", "input": TEXT, "text": TEXT}
    bearer, own = {"Authorization": f"Bearer {TOKEN}"}, {"X-Internal-Token": TOKEN}
    basic = {"Authorization": f"Basic {TOKEN}"}

    def status(path, headers):
        return httpx.post(at + path, json=body, headers=headers, trust_env=False).status_code

    assert [status("/v1/audio/speech", given) for given in (bearer, own, basic, {})] == [
        200,
        200,
        401,
        401,
    ]
    assert [status("/synthesize", given) for given in (bearer, own)] == [401, 200]


def test_too_large_and_not_there(at):
    with pytest.raises(openai.APIStatusError) as caught:
        speech(at, input="x" * 5_000)
    assert caught.value.status_code == 413
    with pytest.raises(openai.NotFoundError):
        client(at).models.list()


def test_a_voice_that_cannot_speak(tmp_path):
    voices = make_voices(tmp_path / "voices")
    mute = FakeVoice(dict.fromkeys(range(100), RuntimeError("device lost")))
    with serving(voice_app(voices, mute)) as url:
        wait_for(url, "failing")
        with pytest.raises(openai.InternalServerError) as caught:
            speech(url)
    assert caught.value.status_code == 503
    assert caught.value.body["type"] == "server_error"
    assert "device lost" in caught.value.body["message"]
    assert caught.value.response.headers["Retry-After"] == "5"
