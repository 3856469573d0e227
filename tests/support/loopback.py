"""Real HTTP servers on loopback, and voices that make a sound, for the tests."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from waiting import until

from understudy.audio import pcm
from understudy.model.types import Stopped, Synthesis
from understudy.serve import config as settings
from understudy.serve import connections, http

RATE = 24_000


#: Of a man's vowels, in Hz (Peterson and Barney, 1952).
VOWELS = np.array([[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480]])


def speechlike(seconds: float, rate: int = RATE, seed: int = 1, level: float = 0.3) -> np.ndarray:
    """Vowels and consonants that the speech check takes for speech; another text for each seed.

    Syllables of a fifth of a second, each a hiss and two vowels, the pitch gliding; float32 [N].
    """
    return _speechlike(seconds, rate, seed, level).copy()


@functools.lru_cache(maxsize=64)
def _speechlike(seconds: float, rate: int, seed: int, level: float) -> np.ndarray:
    n, dice = round(seconds * rate), np.random.default_rng(seed)
    begins = np.cumsum(dice.uniform(0.14, 0.26, int(seconds / 0.14) + 2)) - 0.14
    at = np.interp(np.arange(n) / rate, begins, np.arange(len(begins)))  # in syllables
    syllable, within = np.divmod(at, 1)
    # Two vowels a syllable, one running into the other; pitch and hiss differ, too.
    points = np.arange(0, len(begins), 0.5)
    vowels = VOWELS[dice.integers(0, len(VOWELS), len(points))]
    formants = [np.interp(at, points, column) for column in vowels.T]
    phase = 2 * np.pi * np.cumsum(np.interp(at, points, dice.uniform(95, 150, len(points)))) / rate
    pitch = np.gradient(phase) * rate / (2 * np.pi) if n > 1 else np.full(n, 120.0)
    voice = np.zeros(n)
    for k in range(1, 26):
        strength = sum(1 / (1 + ((k * pitch - formant) / 90) ** 2) for formant in formants)
        voice += strength * np.sin(k * phase) / k**0.5
    loud = np.interp(within, (0, 0.25, 0.45, 0.8, 1), (0.05, 0.05, 1, 1, 0.05))
    hiss = 0.3 * dice.uniform(0, 1, len(begins))[syllable.astype(int)]
    signal = voice * loud + dice.normal(0, 1, n) * hiss * (within < 0.25)
    return (level * signal / max(np.abs(signal).max(initial=0), 1e-9)).astype(np.float32)


def reads_out(request: Request) -> Answer:
    """The answer of a server that speaks each text in its own way, 0.3 s a word."""
    text = json.loads(request.body)["text"]
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return pcm_answer(speechlike(0.3 * len(text.split()), seed=seed))


@dataclass
class Answer:
    """What a scripted server answers."""

    body: bytes = b""
    status: int = 200
    content_type: str | None = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    announced: int | None = None


def pcm_answer(samples: np.ndarray, **headers: str) -> Answer:
    names = {"X-Sample-Rate": str(RATE), "X-Channels": "1", "X-Format": "pcm_s16le"}
    names |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(pcm.float_to_pcm16(samples), headers=tuple(names.items()))


HEALTHY = Answer(b'{"status": "ok"}', content_type="application/json")
HTML = Answer(
    b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>", content_type="text/html"
)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted(contextlib.AbstractContextManager["Scripted"]):
    """A server whose answers a function of the request decides; remembers the requests."""

    def __init__(self, speak: Answer | Callable[[Request], Answer], health: Answer = HEALTHY):
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                headers = {k.lower(): v for k, v in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(size))
                outer.requests.append(request)
                answer = health if self.command == "GET" else speak
                answer = answer(request) if callable(answer) else answer
                time.sleep(answer.delay_s)
                self.send_response(answer.status)
                if answer.content_type:
                    self.send_header("Content-Type", answer.content_type)
                for name, value in answer.headers:
                    self.send_header(name, value)
                length = len(answer.body) if answer.announced is None else answer.announced
                self.send_header("Content-Length", str(length))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(answer.body)

            do_GET = do_POST = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def spoken(self) -> list[Request]:
        return [request for request in self.requests if request.method == "POST"]

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class FakeVoice:
    """Speaks at 0.3 s a word; `script` replaces single utterances, by their order.

    An entry of the script is samples, an exception, or "cap" for audio cut off at the cap.
    """

    def __init__(self, script: dict[int, object] | None = None):
        self.info = {"model": "fake", "device": "cpu", "rehearsal": True}
        self.script = script or {}
        self.may_speak = threading.Event()
        self.may_speak.set()
        self.said: list[tuple[str, int, object]] = []
        self.references: list[tuple[str, float]] = []
        self.at_once = self.most_at_once = self.stopped = 0

    def use_reference(self, path: Path, exaggeration: float) -> str:
        self.references.append((path.name, exaggeration))
        return hashlib.sha256(path.name.encode()).hexdigest()

    def reuse_reference(self, path: Path) -> bool:
        return path.name in {name for name, _ in self.references}

    def speak(
        self, text: str, *, seed: int, tuning: object, should_stop: Callable[[], bool] | None = None
    ) -> Synthesis:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self._take_time(should_stop or (lambda: False))
        finally:
            self.at_once -= 1
        entry = self.script.get(len(self.said))
        self.said.append((text, seed, tuning))
        if isinstance(entry, Exception):
            raise entry
        samples = entry if isinstance(entry, np.ndarray) else speechlike(0.3 * len(text.split()))
        return Synthesis(samples, RATE, 0.1, 50, isinstance(entry, str))

    def _take_time(self, should_stop: Callable[[], bool]) -> None:
        """As a real one does, token by token."""
        deadline = time.monotonic() + 10
        time.sleep(0.01)
        while not self.may_speak.wait(0.005):
            if should_stop():
                self.stopped += 1
                raise Stopped
            assert time.monotonic() < deadline


def make_voices(directory: Path, *names: str) -> Path:
    """A directory with voices in it."""
    directory.mkdir()
    for name in names or ("samantha.wav", "other.wav"):
        pcm.write_wav(directory / name, speechlike(4.0))
    return directory


def voice_app(voices: Path, voice: object, token: str | None = None, **changes: object) -> object:
    """The voice server's application; `voice` is a loaded voice, or loads one."""
    load = voice if callable(voice) else lambda: voice
    config = settings.ServerConfig(
        bind="127.0.0.1", port=0, voices_dir=voices, default_voice="samantha.wav", **changes
    )
    return http.create_app(config, load, token)


@contextlib.contextmanager
def serving(app: object, limit: int = 100) -> Iterator[str]:
    """Serve an ASGI application on a free port, to so many connections; gives its URL."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(connections.uvicorn_config(app, limit))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()


def wait_for(url: str, state: str, seconds: float = 10.0) -> httpx.Response:
    """Ask for health until it reports a state."""

    def reported() -> httpx.Response | None:
        reply = httpx.get(f"{url}/health", trust_env=False)
        return reply if reply.json()["state"] == state else None

    return until(reported, seconds, f"{url} is {state}", every=0.02)
