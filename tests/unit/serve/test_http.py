"""What stands before the voice server's routes, its metrics, and its description of itself."""

import contextlib
import http.client
import subprocess
import sys
from pathlib import Path

import httpx
import hypothesis
import load
import pytest
import schemathesis
from loopback import (
    RATE,
    Answer,
    FakeVoice,
    Scripted,
    pcm_answer,
    serving,
    speechlike,
    voice_app,
    wait_for,
)
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from understudy.audio import pcm, speech_check
from understudy.model.types import Synthesis
from understudy.serve import auth
from understudy.serve import http as api

TOKEN = "s3cret"
TEXT = "Good morning, how can I help you today?"
TESTS = Path(__file__).parents[2]


@pytest.fixture
def at(voices):
    with serving(voice_app(voices, FakeVoice(), TOKEN, max_body_bytes=2_048)) as url:
        wait_for(url, "ready")
        yield url


@pytest.fixture
def client(at):
    headers = {"X-Internal-Token": TOKEN}
    with httpx.Client(base_url=at, headers=headers, trust_env=False, timeout=10) as one:
        yield one


# what it tells


def test_health_tells_what_the_voice_depends_on(client):
    told = client.get("/health").json()["environment"]
    assert told["versions"]["python"].startswith("3.")
    assert {"device", "dtype", "cuda", "weights", "stft"} <= set(told)
    assert client.get("/health").json()["environment"] == told


def test_weights_that_are_listed_later_are_told(voices):
    with serving(voice_app(voices, FakeVoice(), TOKEN, weights_dir=voices)) as url:
        wait_for(url, "ready")
        manifest = voices / "manifest.json"
        for text, told in (("{", None), ('{"ve.safetensors": "ab"}', {"ve.safetensors": "ab"})):
            manifest.write_text(text)
            health = httpx.get(f"{url}/health", trust_env=False).json()
            assert health["environment"]["weights"] == told


def test_health_does_not_hang_on_what_it_tells(voices, monkeypatch):
    def breaks(_device):
        raise OSError("cut short")

    monkeypatch.setattr(api.facts, "collect", breaks)
    with serving(voice_app(voices, FakeVoice(), TOKEN, max_body_bytes=2_048)) as url:
        wait_for(url, "ready")
        reply = httpx.get(f"{url}/health", trust_env=False)
    assert (reply.status_code, reply.json()["state"]) == (200, "ready")
    told = {"note": "OSError: cut short", "dtype": None, "weights": None}
    assert reply.json()["environment"] == told


# the size of a body


def test_a_body_that_announces_too_much_is_not_read(at):
    host, port = at.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.putrequest("POST", "/synthesize")
    connection.putheader("X-Internal-Token", TOKEN)
    connection.putheader("Content-Length", "5000000")
    connection.endheaders()  # and nothing follows
    with contextlib.closing(connection):
        reply = connection.getresponse()
        assert reply.status == 413
        assert b"more than 2048 bytes" in reply.read()


def test_nor_one_that_announces_nothing(client):
    def chunks():
        for _ in range(100):
            yield b"x" * 1_000

    reply = client.post("/synthesize", content=chunks())
    assert reply.status_code == 413
    assert client.post("/health", content=chunks()).status_code == 413


def test_a_body_in_chunks_that_fits(client):
    reply = client.post(
        "/synthesize",
        content=(part for part in (b'{"text": "Good ', b'morning to you."}')),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 200


def test_a_body_that_does_not_come(at, monkeypatch):
    monkeypatch.setattr(auth, "BODY_S", 0.2)
    host, port = at.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    connection.putrequest("POST", "/synthesize")
    connection.putheader("X-Internal-Token", TOKEN)
    connection.putheader("Content-Length", "500")
    connection.endheaders(b"{")
    with contextlib.closing(connection), connection.getresponse() as reply:
        assert reply.status == 408


def test_text_that_cannot_be_spoken(client):
    for text, words in {
        "bell \x07": "text: control character U+0007 at position 5",
        "nul \x00": "control character U+0000",
        "\U0001f600 \U0001f44d": "not one word",
        "\u2014 \u2026 !": "not one word",
    }.items():
        reply = client.post("/synthesize", json={"text": text})
        assert (reply.status_code, words in reply.json()["detail"]) == (422, True), reply.text
    assert client.post("/synthesize", json={"text": "One\tline\r\nand one."}).status_code == 200


@pytest.mark.parametrize("text", ["\u2014 \u2026 !", "\U0001f600", "", " \n", "\u200b"])
def test_a_text_without_a_word_may_be_silence(voices, text):
    voice = FakeVoice()
    with serving(voice_app(voices, voice, empty_text="silence")) as at:
        wait_for(at, "ready")
        with httpx.Client(base_url=at, trust_env=False) as client:
            reply = client.post("/synthesize", json={"text": text})
            assert (reply.status_code, reply.headers["X-Audio-Duration"]) == (200, "0.250")
            assert reply.content == bytes(2 * RATE // 4)
            wav = client.post("/v1/audio/speech", json={"input": text, "voice": "other"})
            assert (wav.status_code, wav.content[:4]) == (200, b"RIFF")
            assert client.post("/synthesize", json={"text": "\a"}).status_code == 422
            unknown = {"text": text, "reference_audio": "nobody.wav"}
            assert client.post("/synthesize", json=unknown).status_code == 404
    assert len(voice.said) == 1


def test_null_is_not_given(client):
    for path, body in {
        "/synthesize": {
            "text": TEXT,
            "reference_audio": None,
            "exaggeration": None,
            "cfg_weight": None,
            "temperature": None,
        },
        "/v1/audio/speech": {
            "input": TEXT,
            "voice": "samantha",
            "model": None,
            "response_format": None,
            "speed": None,
            "stream_format": None,
            "instructions": None,
            "exaggeration": None,
            "cfg_weight": None,
            "temperature": None,
        },
    }.items():
        reply = client.post(path, json=body)
        assert reply.status_code == 200, reply.text
    assert reply.content[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('"temperature": 1e-39', "temperature: Input should be greater than or equal to 0.01"),
        ('"temperature": 0.009', "temperature: Input should be greater than or equal to 0.01"),
        ('"temperature": 5e-324', "temperature: "),
        ('"temperature": 0', "temperature: "),
        ('"temperature": -0.0', "temperature: "),
        ('"temperature": 2.1', "temperature: Input should be less than or equal to 2"),
        ('"temperature": 1e999', "temperature: "),
        ('"temperature": 1' + 400 * "0", "temperature: "),
        ('"exaggeration": 1e300', "exaggeration: Input should be less than or equal to 2"),
        ('"exaggeration": -1e-300', "exaggeration: "),
        ('"cfg_weight": Infinity', "cfg_weight: "),
        ('"cfg_weight": 0.0', "cfg_weight: Input should be greater than 0"),
    ],
)
def test_a_setting_that_the_sampler_cannot_work_with(client, setting, words):
    body = f'{{"text": "Hello there.", {setting}}}'
    for path, status in (("/synthesize", 422), ("/v1/audio/speech", 400)):
        content = body.replace('"text"', '"voice": "other", "input"') if "v1" in path else body
        headers = {"Content-Type": "application/json"}
        reply = client.post(path, content=content, headers=headers)
        assert (reply.status_code, words in reply.text) == (status, True), reply.text
    assert client.get("/health").json()["state"] == "ready"


def test_head(client):
    reply = client.head("/health")
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["Content-Length"]) > 100
    assert client.head("/synthesize").status_code == 405


def test_a_fault_of_ours_is_a_503_too(voices, monkeypatch):
    app = voice_app(voices, FakeVoice())
    monkeypatch.setattr(app.state.worker.files, "find", lambda _: 1 / 0)
    with TestClient(app, "http://localhost", raise_server_exceptions=False) as client:
        reply = client.post("/synthesize", json={"text": TEXT})
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "5")
    assert reply.json()["detail"] == "a fault of the server: ZeroDivisionError; see its log"


# metrics


def figures(client):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics(client, at):
    for _ in range(3):
        assert client.post("/synthesize", json={"text": TEXT}).status_code == 200
    client.post("/synthesize", json={"text": "?"})
    client.post("/synthesize", content=b"{")
    httpx.post(f"{at}/synthesize", trust_env=False)
    found = figures(client)
    name = "understudy_requests_total"
    assert (found[name, "spoken"], found[name, "bad_request"]) == (3, 2)
    assert found[name, "unauthorized"] == 1
    assert found["understudy_audio_seconds_total",] == pytest.approx(3 * 2.4)
    assert found["understudy_synthesis_seconds_count",] == 3
    assert found["understudy_waiting",] == 0
    assert 0 <= found["understudy_last_good_age_seconds",] < 10
    assert found["understudy_state", "ready"] == 1
    assert found["understudy_state", "failing"] == 0
    assert found["process_resident_memory_bytes",] > 1e6


def test_metrics_are_for_this_machine_or_for_the_token(voices):
    app = voice_app(voices, FakeVoice(), TOKEN)
    for peer, headers, status in (
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("192.0.2.7", {}, 401),
        ("192.0.2.7", {"X-Internal-Token": TOKEN}, 200),
        ("192.0.2.7", {"X-Internal-Token": "wrong"}, 401),
        ("192.0.2.7", {"X-Forwarded-For": "127.0.0.1"}, 401),
    ):
        client = TestClient(app, client=(peer, 1234))
        assert client.get("/metrics", headers=headers).status_code == status, (peer, headers)


# its own description


def test_every_sentence_of_the_description_holds(voices):
    """Requests made up from the OpenAPI document, good ones and bad ones."""
    with serving(voice_app(voices, FakeVoice(), TOKEN)) as url:
        wait_for(url, "ready")
        fuzz_all(url)


def fuzz_all(at):
    headers = {"X-Internal-Token": TOKEN}
    schema = schemathesis.openapi.from_url(f"{at}/openapi.json", headers=headers)
    checks = schemathesis.checks
    left_out = [
        # What is no word or not the name of a voice cannot be said in a schema.
        checks.CHECKS.get_one("positive_data_acceptance")
    ]
    asked = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)

            @hypothesis.settings(
                max_examples=120,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=strategy)
            def fuzz(case):
                reply = case.call_and_validate(headers=headers, excluded_checks=left_out)
                assert reply.status_code < 500 or reply.status_code == 503
                asked.add((case.method, case.path, reply.status_code))

            # A route without parameters has no bad ones.
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                fuzz()
    assert {path for _, path, _ in asked} == {
        "/health",
        "/metrics",
        "/synthesize",
        "/v1/audio/speech",
    }


def test_the_description_without_a_token_asks_for_none(voices):
    document = voice_app(voices, FakeVoice(), max_text=77).openapi()
    assert "securitySchemes" not in document["components"]
    text = document["components"]["schemas"]["SpeechRequest"]["properties"]["text"]
    assert text["maxLength"] == 77


# the contract


#: Without the cache, and without plugins that the contract does not use: one takes 2 s to import.
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest")


def contract(*options):
    command = [sys.executable, "-m", "pytest", "-q", *PLUGINS, TESTS / "contract"]
    return subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, timeout=200
    )


def test_our_server_keeps_the_primarys_contract(at, tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    options = [f"--server={at}", f"--token-file={tmp_path / 'token'}", "--reference=samantha.wav"]
    ran = contract(*options)
    assert ran.returncode == 0, ran.stdout
    assert "skipped" not in ran.stdout


def test_a_difference_is_shown():
    with Scripted(pcm_answer(speechlike(2.4), X_Channels="2")) as other:
        ran = contract(f"--server={other.url}", "--reference=samantha.wav")
    assert ran.returncode == 1
    assert "test_speech_is_raw_pcm" in ran.stdout
    assert "assert '2' == '1'" in ran.stdout
    with Scripted(Answer(b"", 500)) as other:
        assert contract(f"--server={other.url}", "--reference=x").returncode == 1


def test_without_a_server_nothing_is_asked():
    ran = contract()
    assert ran.returncode == 0
    assert "passed" not in ran.stdout


# many clients at once


class Distinct(FakeVoice):
    """Says every text in a way of its own, and quickly."""

    def speak(self, text, *, seed, tuning, should_stop=None):
        super().speak(text, seed=seed, tuning=tuning, should_stop=should_stop)
        return Synthesis(distinct(text), RATE, 0.01, 50, False)


def distinct(text):
    samples = speechlike(0.3 * speech_check.count_words(text))
    samples[: 8 * len(text)] = 0.25
    for n, character in enumerate(text):
        samples[8 * n] = ord(character) / 512
    return samples


def own_words(text, reply):
    same = reply.content == pcm.float_to_pcm16(distinct(text))
    return None if same else "the words of somebody else"


@pytest.mark.parametrize("queue", [8, 3])
def test_every_reply_is_the_answer_to_its_own_request(voices, queue):
    with serving(voice_app(voices, Distinct(), queue=queue)) as url:
        wait_for(url, "ready")
        found = load.run(
            url, reference="samantha.wav", requests=200, clients=8, judge=own_words, timeout_s=20
        )
        assert (found.wrong, found.lost, found.spoken) == ([], [], 200)
        served = httpx.get(f"{url}/health", trust_env=False).json()
    assert served["served"] == 200
    assert served["refused"] == found.refused == found.statuses[503]
    assert (found.refused > 0) is (queue == 3)
    assert set(found.rss_mb) == {50, 200}
    assert set(found.summary()) >= {"p50_s", "p95_s", "rss_mb"}


def test_the_load_test_notices_the_words_of_somebody_else(voices):
    with serving(voice_app(voices, FakeVoice())) as url:
        wait_for(url, "ready")
        found = load.run(url, reference="samantha.wav", requests=30, clients=4)
    assert any("the same audio as for" in line for line in found.wrong)
