import json
import os
import socket
import threading
import time

import numpy as np
import pytest
from loopback import HTML, RATE, Answer, Scripted, free_port, pcm_answer, speechlike

from understudy.model.types import Tuning
from understudy.serve.client import VoiceClient, VoiceServerError, read_token

TUNING = Tuning(cfg_weight=0.3, exaggeration=0.4, temperature=0.6)
TOKEN = "s3cret-token"


def speak(url, *, path="/synthesize", token=None, timeout_s=5.0):
    with VoiceClient(url, path, token=token, timeout_s=timeout_s) as server:
        return server.speak("Hello there.", "samantha.wav", TUNING)


def failure(answer, **options):
    with Scripted(answer) as fake, pytest.raises(VoiceServerError) as caught:
        speak(fake.url, **options)
    assert caught.value.url.startswith(fake.url)
    assert fake.url in str(caught.value)
    assert TOKEN not in str(caught.value)
    return caught.value


def test_the_request_is_the_primarys_contract():
    samples = speechlike(1.0)
    with Scripted(pcm_answer(samples)) as fake:
        said = speak(fake.url, path="/v2/tts", token=TOKEN)
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v2/tts")
    assert request.headers["x-internal-token"] == TOKEN
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "text": "Hello there.",
        "reference_audio": "samantha.wav",
        "exaggeration": 0.4,
        "cfg_weight": 0.3,
        "temperature": 0.6,
    }
    assert (said.rate, said.status, said.headers["x-format"]) == (RATE, 200, "pcm_s16le")
    assert said.samples.dtype == np.float32
    assert np.abs(said.samples - samples).max() <= 0.5 / 32768
    assert 0 < said.ttfb_s <= said.wall_s


def test_no_token_no_header():
    with Scripted(pcm_answer(speechlike(1.0))) as fake:
        speak(fake.url)
    assert "x-internal-token" not in fake.requests[0].headers


def test_a_mute_server_is_heard_as_it_is():
    """Silence is audio; that it is no speech is for the check to say."""
    with Scripted(pcm_answer(np.zeros(RATE))) as fake:
        assert not speak(fake.url).samples.any()


def test_a_proxy_in_the_environment_does_not_stand_between(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with Scripted(pcm_answer(speechlike(1.0))) as fake:
        assert speak(fake.url).status == 200


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (HTML, "status 200, a web page: <!DOCTYPE html><html><body>Welcome to nginx!"),
        (Answer(HTML.body), "status 200, a web page"),
        (Answer(b"{}", content_type="application/json"), "2 bytes of application/json: {}"),
        (Answer(b"model is still loading, wait"), "model is still loading, wait"),
        (Answer(b"boom", 500, "text/plain"), "status 500, 4 bytes of text/plain: boom"),
        (Answer(b"", 302, headers=(("Location", "/login"),)), "status 302"),
        (Answer(bytes(100), 404), "status 404"),
        (Answer(b""), "status 200, and not one byte of audio"),
        (Answer(b"RIFF" + bytes(96)), "a sound file (b'RIFF'"),
        (Answer(bytes(1001)), "1001 bytes: an odd number"),
        (pcm_answer(speechlike(1.0), X_Sample_Rate="8000"), "X-Sample-Rate is '8000', expected 24"),
        (pcm_answer(speechlike(1.0), X_Sample_Rate="fast"), "X-Sample-Rate is 'fast'"),
        (pcm_answer(speechlike(1.0), X_Channels="2"), "X-Channels is '2', expected 1"),
        (Answer(bytes(1000), announced=5000), "the reply broke off"),
    ],
)
def test_everything_else_is_an_error_that_says_what_came(answer, seen):
    error = failure(answer)
    assert seen in error.seen
    assert error.trying == "asking for speech"
    assert error.reached


def test_the_status_is_kept():
    assert failure(Answer(b"no", 401, "text/plain")).status == 401


def test_a_long_answer_is_shown_by_its_beginning():
    seen = failure(Answer(b"x" * 5000, 500, "text/plain")).seen
    assert seen.endswith(": " + "x" * 200)


def test_a_token_repeated_by_the_server_is_not_repeated_by_us():
    error = failure(Answer(f"bad token {TOKEN}".encode(), 403, "text/plain"), token=TOKEN)
    assert error.seen.endswith("bad token …")
    wrong = pcm_answer(speechlike(1.0), X_Sample_Rate=TOKEN)
    assert "…" in failure(wrong, token=TOKEN).seen


def test_a_token_across_the_cut_is_not_shown_in_part():
    body = ("y" * 195 + TOKEN).encode()
    assert "s3cr" not in failure(Answer(body, 500, "text/plain"), token=TOKEN).seen


def test_the_token_is_not_in_the_repr():
    assert TOKEN not in repr(VoiceClient("http://127.0.0.1:1", token=TOKEN))


def test_nobody_listens():
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(VoiceServerError, match=r"no connection: .*refused") as caught:
        speak(url)
    assert not caught.value.reached
    assert caught.value.status is None


def test_an_unknown_host():
    with pytest.raises(VoiceServerError, match="no connection") as caught:
        speak("http://no-such-host.invalid:8772")
    assert not caught.value.reached


def test_not_a_url():
    with pytest.raises(VoiceServerError):
        speak("panda:8772")


def test_a_server_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(VoiceServerError, match=r"no complete reply within 0\.3 s") as caught:
            speak(url, timeout_s=0.3)
    assert not caught.value.reached


def test_a_server_that_drips_is_not_waited_for():
    """Every read is quick, the whole is not."""
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def drip():
            peer, _ = sock.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(100):
                    try:
                        peer.sendall(bytes(10))
                    except OSError:
                        return
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(VoiceServerError, match=r"no complete reply within 0\.5 s"):
            speak(f"http://127.0.0.1:{sock.getsockname()[1]}", timeout_s=0.5)
    assert time.monotonic() - began < 3


def test_not_http_at_all():
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def greet():
            peer, _ = sock.accept()
            with peer:
                peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                peer.recv(65536)

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(VoiceServerError, match="the reply broke off"):
            speak(f"http://127.0.0.1:{sock.getsockname()[1]}")


# health


def health(answer):
    with Scripted(Answer(), health=answer) as fake, VoiceClient(fake.url) as server:
        return server.health()


def test_health_is_what_the_server_says():
    assert health(Answer(b'{"status": "ok", "n": 1}')) == {"status": "ok", "n": 1}
    assert health(Answer(b"OK", content_type="text/plain")) == {"body": "OK"}
    assert health(Answer(b'"fine"')) == {"body": "fine"}


@pytest.mark.parametrize("answer", [HTML, Answer(b'{"state": "starting"}', 503), Answer(b"", 404)])
def test_unhealthy(answer):
    with pytest.raises(VoiceServerError, match=f"asking for health at .*status {answer.status}"):
        health(answer)


# token files


def test_a_token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    assert read_token(path) == TOKEN
    assert read_token(None) is None


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"two words", "geh\u00e4im".encode(), b"\xff", b"a\nb"]
)
def test_a_token_file_of_no_use(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="token file") as caught:
        read_token(path)
    assert "two words" not in str(caught.value)


def test_a_pipe_in_the_place_of_the_token_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "token")
    with pytest.raises(ValueError, match="a pipe, not a file"):
        read_token(tmp_path / "token")


def test_a_missing_token_file(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_token(tmp_path / "none")
