"""Asking an LLM: what is sent, what counts as an answer, and the latency of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ansible.module_utils.understudy import llm
from loopback import HTML, Answer, Request, Scripted, free_port

JSON = "application/json"


def reply(document: object, status: int = 200, **options: Any) -> Answer:
    return Answer(json.dumps(document).encode(), status, JSON, **options)


def completion(content: str | None = "Hello!", finish_reason: str | None = "length") -> Answer:
    message = {"role": "assistant", "content": content}
    return reply({"choices": [{"message": message, "finish_reason": finish_reason}]})


MODELS = reply({"data": [{"id": "gemma"}, {"id": "other"}]})


@contextlib.contextmanager
def raw_server(data: bytes) -> Iterator[str]:
    """A server that says something else than HTTP, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def asked(server: Scripted) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in server.spoken]


def test_every_prompt_starts_with_another_nonce() -> None:
    with Scripted(completion()) as server:
        for _ in range(5):
            llm.complete(server.url, "gemma", 8, 5)
    prompts = [body["messages"][0]["content"] for body in asked(server)]
    nonces = {re.match(r"[0-9a-f]{32} ", prompt).group() for prompt in prompts}
    assert len(nonces) == len(prompts) == 5
    assert {prompt[33:] for prompt in prompts} == {llm.PROMPT}


def test_a_request_is_deterministic_and_of_fixed_length() -> None:
    with Scripted(completion()) as server:
        wall = llm.complete(server.url + "/", "gemma", 8, 5)
    assert 0 < wall < 5
    [request], [body] = server.spoken, asked(server)
    assert request.path == "/v1/chat/completions"
    assert "authorization" not in request.headers
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("gemma", 8, 0)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("sk-secret\n")
    path.chmod(0o600)
    return path


def test_the_key_is_a_bearer_token(key_file: Path) -> None:
    listed = reply({"data": [{"id": "gemma"}]})
    with Scripted(completion(), listed) as server:
        assert llm.first_model(server.url, 5, str(key_file)) == "gemma"
        llm.complete(server.url, "gemma", 8, 5, str(key_file))
    keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer sk-secret"] * 2


def test_a_key_that_is_refused_is_not_repeated(key_file: Path) -> None:
    with (
        Scripted(reply({"error": "Incorrect API key provided: sk-secret"}, 401)) as server,
        pytest.raises(llm.LlmError, match=r"answered 401: .*llm_window_api_key_file") as raised,
    ):
        llm.complete(server.url, "gemma", 8, 5, str(key_file))
    assert "sk-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "mode", "seen"),
    [
        ("sk-secret", 0o640, "has mode 0640. Next: chmod 600 "),
        ("", 0o600, "holds no API key"),
        ("sk-secret\nX-Other: header", 0o600, "holds no API key"),
        ("sk-sécret", 0o600, "holds no API key"),
        (None, 0o600, r"cannot be read \(No such file or directory\). Next: "),
    ],
)
def test_a_key_that_cannot_be_used(
    tmp_path: Path, content: str | None, mode: int, seen: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(llm.LlmError, match=seen) as raised:
        llm.complete("http://127.0.0.1:9", "gemma", 8, 5, str(path))
    assert "cret" not in str(raised.value)


def test_the_wall_time_is_that_of_the_answer() -> None:
    slow = completion()
    slow.delay_s = 0.2
    with Scripted(slow) as server:
        assert 0.2 <= llm.complete(server.url, "gemma", 8, 5) < 1.5


def test_an_answer_of_special_tokens_only_is_still_an_answer() -> None:
    with Scripted(completion(content="")) as server:
        assert llm.complete(server.url, "gemma", 8, 5) > 0


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (HTML, "answered no completion: '<!DOCTYPE html>"),
        (reply({"error": "loading"}), "answered no completion: .*loading"),
        (reply({"choices": []}), "answered no completion"),
        (reply([1]), "answered no completion"),
        (reply({"choices": [{"message": "hi"}]}), "answered no completion"),
        (completion(content=None, finish_reason=None), "answered an empty completion"),
        (Answer(b"", 200, JSON), "answered no completion: ''"),
        (reply({"detail": "engine is starting"}, 503), "answered 503: .*engine is starting"),
        (reply({"detail": "no such model"}, 404), "answered 404: .*no such model"),
        (Answer(b"{", 200, JSON, announced=500), r"IncompleteRead\(1 bytes read"),
    ],
)
def test_what_is_no_completion_is_named_with_the_url(answer: Answer, seen: str) -> None:
    with Scripted(answer) as server, pytest.raises(llm.LlmError) as raised:
        llm.complete(server.url, "gemma", 8, 2)
    assert str(raised.value).startswith(f"{server.url}/v1/chat/completions")
    assert re.search(seen, str(raised.value)), raised.value
    assert len(str(raised.value)) < 400


def test_a_port_on_which_nobody_listens() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(llm.LlmError, match=f"^{url}/v1/chat/completions: .*refused"):
        llm.complete(url, "gemma", 8, 2)


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH_9.6\r\n", b""])
def test_a_port_on_which_something_else_listens(data: bytes) -> None:
    with raw_server(data) as url, pytest.raises(llm.LlmError, match=f"^{url}/v1/models: ."):
        llm.first_model(url, 2)


def test_an_answer_that_takes_too_long() -> None:
    slow = completion()
    slow.delay_s = 1.0
    with Scripted(slow) as server, pytest.raises(llm.LlmError, match=r"completions: timed out"):
        llm.complete(server.url, "gemma", 8, 0.1)


@pytest.mark.parametrize("url", ["titan/llm", "http://[titan", "http://titan:port", "ftp//x"])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(llm.LlmError, match=re.escape(url)):
        llm.complete(url, "gemma", 8, 1)


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    with Scripted(completion()) as server:
        assert llm.complete(server.url, "gemma", 8, 2) > 0


def test_the_first_model_that_is_listed() -> None:
    with Scripted(completion(), MODELS) as server:
        assert llm.first_model(server.url, 2) == "gemma"
    assert server.requests[0].path == "/v1/models"


@pytest.mark.parametrize("answer", [HTML, reply({"data": []}), reply([]), reply({"data": [1]})])
def test_no_model_is_listed(answer: Answer) -> None:
    with Scripted(completion(), answer) as server, pytest.raises(llm.LlmError) as raised:
        llm.first_model(server.url, 2)
    assert f"{server.url}/v1/models lists no model" in str(raised.value)
    assert "name it in llm_window_model" in str(raised.value)


def test_listing_models_is_not_being_ready() -> None:
    with (
        Scripted(reply({"detail": "starting"}, 503), MODELS) as server,
        pytest.raises(llm.LlmError, match=r"/v1/chat/completions answered 503.*\(waited 1 s\)"),
    ):
        llm.wait_until_ready(server.url, None, 8, 0.6, 2)
    assert len(server.spoken) >= 2


def test_ready_is_when_a_completion_comes_back() -> None:
    answers = iter([completion(content=None, finish_reason=None), completion()])
    with Scripted(lambda _: next(answers), MODELS) as server:
        assert llm.wait_until_ready(server.url, None, 8, 10, 2) == "gemma"
    assert len(server.spoken) == 2


def test_a_named_model_is_not_looked_up() -> None:
    with Scripted(completion(), MODELS) as server:
        assert llm.wait_until_ready(server.url, "mine", 8, 0, 2) == "mine"
    assert [request.method for request in server.requests] == ["POST"]
    assert asked(server)[0]["model"] == "mine"


def test_without_waiting_it_is_asked_once() -> None:
    with Scripted(reply({}, 500), MODELS) as server, pytest.raises(llm.LlmError) as raised:
        llm.wait_until_ready(server.url, "mine", 8, 0, 2)
    assert "waited" not in str(raised.value)
    assert len(server.spoken) == 1


def test_a_server_that_comes_up_late() -> None:
    port = free_port()

    def start() -> None:
        time.sleep(0.3)
        with socket.create_server(("127.0.0.1", port)) as listening:
            for body in (MODELS.body, completion().body):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                    connection.sendall(head + body)

    thread = threading.Thread(target=start)
    thread.start()
    assert llm.wait_until_ready(f"http://127.0.0.1:{port}", None, 8, 10, 2) == "gemma"
    thread.join(5)


def test_a_measurement_counts_what_it_was_asked_to() -> None:
    def speak(_: Request) -> Answer:
        return completion()

    with Scripted(speak) as server:
        found = llm.measure(lambda: llm.complete(server.url, "gemma", 8, 2), 12, 0)
    assert (found["n"], found["warmup"], found["failures"]) == (12, 0, 0)
    assert len(found["samples_ms"]) == len(server.spoken) == 12
    assert found["min_ms"] <= found["p50_ms"] <= found["p95_ms"] <= found["max_ms"]


def test_failures_are_counted_and_not_timed() -> None:
    turn = itertools.count()
    with Scripted(lambda _: completion() if next(turn) % 2 else reply({}, 500)) as server:
        found = llm.measure(lambda: llm.complete(server.url, "gemma", 8, 2), 6, 0)
    assert (found["n"], found["failures"]) == (3, 3)


def test_until_a_file_appears(tmp_path: Path) -> None:
    stop, count = tmp_path / "stop", itertools.count(1)

    def ask() -> float:
        if next(count) == 4:
            stop.touch()
        return 0.1

    assert llm.measure(ask, 1000, 0, until=str(stop))["n"] == 4
    assert llm.measure(ask, 1000, 0, until=str(stop))["n"] == 0
    assert llm.measure(ask, 7, 0, until=str(tmp_path / "never"))["n"] == 7


def test_a_pause_between_two_requests() -> None:
    began = time.monotonic()
    llm.measure(lambda: 0.1, 3, 0, pause_s=0.05)
    assert time.monotonic() - began >= 0.15


def answers_of(*seconds: float) -> tuple[Any, list[float]]:
    given: list[float] = []

    def ask() -> float:
        given.append(seconds[min(len(given), len(seconds) - 1)])
        return given[-1]

    return ask, given


def test_settled_when_the_last_five_are_alike() -> None:
    ask, given = answers_of(3.0, 1.0, 0.5, 0.100, 0.101, 0.102, 0.103, 0.104)
    assert llm.settle(ask, 3) == len(given) == 8


def test_a_tenth_of_the_median_is_the_limit() -> None:
    ask, _ = answers_of(1.0, 1.0, 1.0, 1.0, 1.125, 1.0)
    assert llm.settle(ask, 1) == 10  # until the outlier has left the window
    ask, _ = answers_of(1.0, 1.0, 1.0, 1.0, 1.0625, 1.0)
    assert llm.settle(ask, 1) == 5


def test_at_least_as_many_as_asked_for() -> None:
    ask, given = answers_of(0.1)
    assert llm.settle(ask, 9) == len(given) == 9


def test_unrest_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "SETTLE_S", 0.1)
    turn = itertools.cycle([0.1, 0.9])
    began = time.monotonic()

    def ask() -> float:
        time.sleep(0.005)
        return next(turn)

    assert llm.settle(ask, 5) >= 5
    assert 0.1 <= time.monotonic() - began < 2


def test_warm_ups_come_first_and_are_not_counted() -> None:
    ask, given = answers_of(5.0, 4.0, 0.1)
    found = llm.measure(ask, 20, 5)
    assert (found["n"], found["warmup"], len(given)) == (20, 7, 27)
    assert found["max_ms"] == pytest.approx(100)


def test_a_warm_up_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "SETTLE_S", 0.3)

    def ask() -> float:
        raise llm.LlmError("gone")

    with pytest.raises(llm.LlmError, match="gone"):
        llm.measure(ask, 20, 5)


def test_quantiles_are_numpys() -> None:
    rng = np.random.default_rng(3)
    for n in (1, 2, 3, 5, 20, 101):
        values = list(rng.lognormal(size=n))
        for q in (0.0, 0.05, 0.5, 0.95, 0.99, 1.0):
            assert llm.quantile(values, q) == pytest.approx(float(np.quantile(values, q)))
    assert llm.quantile([], 0.5) is None


def test_latency_has_the_contracts_fields() -> None:
    samples = [10.0, 20.0, 40.0]
    found = llm.latency(samples, 5, 1)
    assert found == {
        "n": 3,
        "warmup": 5,
        "failures": 1,
        "min_ms": 10.0,
        "mean_ms": pytest.approx(70 / 3),
        "p50_ms": 20.0,
        "p95_ms": pytest.approx(38.0),
        "max_ms": 40.0,
        "cv": pytest.approx(np.std(samples, ddof=1) / np.mean(samples)),
        "samples_ms": samples,
    }


def test_no_samples_are_no_zeros() -> None:
    found = llm.latency([], 0, 3)
    assert {found[key] for key in found if key.endswith("_ms") and key != "samples_ms"} == {None}
    assert (found["cv"], found["samples_ms"], found["failures"]) == (None, [], 3)
    assert llm.latency([7.0], 0, 0)["cv"] is None
