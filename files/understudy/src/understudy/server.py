"""The voice server, with the primary's contract: a client changes only its URL.

``POST`` JSON ``{text, reference_audio, exaggeration, cfg_weight, temperature}`` with
``X-Internal-Token``; the reply is raw little-endian 16-bit PCM, 24 kHz, mono.
``GET /health`` is 200 only while the last thing asked of the model came out as speech.

All work on the model runs on one thread, in the order of arrival: upstream keeps the
voice in shared state, and there is one device.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import ipaddress
import logging
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, Field

from . import audio
from .client import TOKEN_HEADER, read_token
from .sentence import fresh_sentence
from .voice import Tuning, Utterance

if TYPE_CHECKING:
    from fastapi import FastAPI

HEALTH_PATH = "/health"
MAX_TEXT = 2_000
MAX_RETRIES = 2

log = logging.getLogger("understudy.server")


class ConfigError(ValueError):
    """The server cannot be started like this; the message is one line and names the next step."""


class SynthesisError(Exception):
    """The model spoke, but never speech."""


class Voice(Protocol):
    """What the server needs of a loaded model (`understudy.voice.Voice` is one)."""

    info: dict[str, Any]

    def use_reference(self, path: Path, exaggeration: float) -> None:
        """Speak with the voice of a recording from now on; prepared once and kept."""

    def speak(self, text: str, *, seed: int, tuning: Tuning) -> Utterance:
        """Synthesise one utterance."""


@dataclass(frozen=True)
class ServerConfig:
    """What the server is told.

    Attributes:
        bind: address to listen on.
        port: and port; 0 takes a free one.
        voices_dir: where the voice references are.
        default_voice: name of a file in it, used where a request names none.
        weights_dir: what ``ChatterboxTTS.from_local`` wants.
        synthesis_path: where speech is asked for.
        token_file: holds the token; without one only loopback may be bound.
        device: a torch device.
        threads: CPU threads of torch; None leaves torch's own choice.
        token_cap: speech tokens per utterance at most; None is upstream's.
        stft_patch: apply the Blackwell patch.
        tuning: used where a request leaves it out.
    """

    bind: str
    port: int
    voices_dir: Path
    default_voice: str
    weights_dir: Path = Path()
    synthesis_path: str = "/synthesize"
    token_file: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    token_cap: int | None = None
    stft_patch: bool = False
    tuning: Tuning = field(default_factory=lambda: Tuning(0.3, 0.3, 0.6))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ServerConfig:
        """Return the config in a JSON document.

        Raises:
            ConfigError: a name is missing or unknown, or the tuning is out of range.
        """
        names = set(cls.__dataclass_fields__)
        missing = sorted({"bind", "port", "voices_dir", "default_voice"} - set(config))
        unknown = sorted(set(config) - names)
        if missing or unknown:
            raise ConfigError(f"server config: missing {missing}, unknown {unknown}")
        values = dict(config)
        for name in ("voices_dir", "weights_dir", "token_file"):
            if values.get(name) is not None:
                values[name] = Path(values[name]).expanduser()
        try:
            if "tuning" in values:
                values["tuning"] = Tuning(**values["tuning"])
        except (TypeError, ValueError) as error:
            raise ConfigError(f"server config: tuning: {error}") from error
        path = values.get("synthesis_path", "/synthesize")
        if not path.startswith("/") or path == HEALTH_PATH:
            raise ConfigError(f"server config: synthesis_path is {path!r}")
        return cls(**values)


class SpeechRequest(BaseModel):
    """The body of a request for speech; what is left out is taken from the config."""

    text: str = Field(max_length=MAX_TEXT)
    reference_audio: str | None = None
    exaggeration: float | None = Field(default=None, ge=0.0, le=2.0, allow_inf_nan=False)
    cfg_weight: float | None = Field(default=None, gt=0.0, le=2.0, allow_inf_nan=False)
    temperature: float | None = Field(default=None, gt=0.0, le=2.0, allow_inf_nan=False)

    def tuning(self, default: Tuning) -> Tuning:
        """Return the request's tuning, completed from the default."""
        own = self.model_dump(include=set(asdict(default)), exclude_none=True)
        return Tuning(**(asdict(default) | own))


class Speaker:
    """The model, what became of it, and the only thread that may touch it.

    Attributes:
        state: ``starting`` until the first proof, then ``ready`` or ``failing``.
        error: why it is failing.
        last_good: monotonic time of the last speech that passed the checks.
        retries: syntheses that were repeated with another seed.
    """

    def __init__(self, config: ServerConfig, load: Callable[[], Voice]) -> None:
        self.state = "starting"
        self.error: str | None = None
        self.last_good: float | None = None
        self.retries = 0
        self.voice: Voice | None = None
        self._config, self._load = config, load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="synthesis")

    def start(self) -> None:
        """Load the model and prove it, in the background."""
        self._thread.submit(self._begin)

    def stop(self) -> None:
        """Drop what waits; what runs is finished first."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def say(self, text: str, reference: Path, tuning: Tuning) -> Utterance:
        """Return checked speech, when its turn has come.

        Raises:
            SynthesisError: no attempt was speech.
        """
        future = self._thread.submit(self._say, text, reference, tuning)
        try:
            return await asyncio.wrap_future(future)
        except SynthesisError:
            # One text may be hopeless; whether the model is, a fresh sentence tells.
            self._thread.submit(self._prove)
            raise

    def health(self) -> dict[str, Any]:
        """Return the body of ``/health``."""
        info = self.voice.info if self.voice else {}
        age = None if self.last_good is None else round(time.monotonic() - self.last_good, 1)
        return {
            "state": self.state,
            "ready": self.state == "ready",
            "model": info.get("model"),
            "device": info.get("device", self._config.device),
            "rehearsal": info.get("rehearsal"),
            "default_voice": self._config.default_voice,
            "last_good_age_s": age,
            "retries": self.retries,
            "error": self.error,
        }

    def _begin(self) -> None:
        """Load, then prove."""
        began = time.monotonic()
        try:
            self.voice = self._load()
        except Exception as error:  # the server stays up to say so
            log.exception("the model could not be loaded")
            self.state, self.error = "failing", f"loading the model: {_one_line(error)}"
            return
        log.info("model loaded in %.1f s", time.monotonic() - began)
        self._prove()

    def _prove(self) -> None:
        """Say a fresh sentence with the default voice; `_say` sets the state."""
        try:
            reference = find_voice(self._config.voices_dir, self._config.default_voice)
            self._say(fresh_sentence(), reference, self._config.tuning)
        except (SynthesisError, LookupError, ValueError) as error:
            self.state, self.error = "failing", str(error)
            log.error("not ready: %s", error)

    def _say(self, text: str, reference: Path, tuning: Tuning) -> Utterance:
        """Speak, again with another seed where the audio is unusable.

        Audio cut off at the token cap is repeated too, but returned in the end when
        nothing else is wrong with it.

        Raises:
            SynthesisError: no attempt was speech.
        """
        if self.voice is None:
            raise SynthesisError(self.error or "the model is not loaded yet")
        problems: list[str] = []
        for attempt in range(1 + MAX_RETRIES):
            seed = random.SystemRandom().randrange(2**31)
            try:
                self.voice.use_reference(reference, tuning.exaggeration)
                said = self.voice.speak(text, seed=seed, tuning=tuning)
            except Exception as error:
                log.exception("synthesis failed, seed %d", seed)
                problems = [_one_line(error)]
            else:
                heard = audio.check(said.samples, said.rate, text=text, loudness=False)
                problems = list(heard["problems"])
                last = attempt == MAX_RETRIES
                if not problems and (last or not said.hit_cap):
                    self.state, self.error, self.last_good = "ready", None, time.monotonic()
                    seconds = len(said.samples) / said.rate
                    log.info(
                        "%d characters, %.2f s of audio in %.2f s, seed %d, attempt %d",
                        *(len(text), seconds, said.wall_s, seed, attempt + 1),
                    )
                    return said
                problems = problems or [f"cut off at the token cap after {said.tokens} tokens"]
            if attempt < MAX_RETRIES:
                self.retries += 1
                log.warning("seed %d: %s; trying another", seed, "; ".join(problems))
        self.state, self.error = "failing", "; ".join(problems)
        raise SynthesisError(f"no speech in {1 + MAX_RETRIES} attempts: {self.error}")


def find_voice(voices_dir: Path, name: str) -> Path:
    """Return the file of a voice.

    Args:
        voices_dir: the one directory voices come from.
        name: of a file directly in it, links out of it excluded.

    Raises:
        ValueError: the name is not a bare file name.
        LookupError: there is no such file; the message lists those there are.
    """
    if name in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        raise ValueError(f"reference_audio is {name!r}, expected the bare name of a file")
    home = voices_dir.resolve()
    try:
        path = (home / name).resolve()
        if path.parent == home and path.is_file():
            return path
    except (OSError, RuntimeError):  # a name too long for the file system, a loop of links
        pass
    there = sorted(p.name for p in home.glob("[!.]*") if p.is_file()) if home.is_dir() else []
    raise LookupError(f"no voice {name!r}; there are: {', '.join(there) or 'none'}")


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TokenGate:
    """Lets nobody without the token past it, but to ``/health``.

    In front of everything else, so that a stranger's body is not even read.

    Args:
        app: what is behind it.
        token: what a request must carry; None lets everybody in.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str | None):
        self._app = app
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if self._token and scope["type"] == "http" and scope["path"] != HEALTH_PATH:
            given = dict(scope["headers"]).get(TOKEN_HEADER.lower().encode(), b"")
            if not hmac.compare_digest(given, self._token):
                from fastapi.responses import JSONResponse

                refusal = JSONResponse({"detail": f"{TOKEN_HEADER} is missing or wrong"}, 401)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def create_app(
    config: ServerConfig, load: Callable[[], Voice], token: str | None = None
) -> FastAPI:
    """Return the application; the model is loaded once it starts to serve.

    Args:
        config: what the server is told.
        load: returns the loaded voice; called once, on the synthesis thread.
        token: what requests must carry; None lets everybody in.
    """
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse

    speaker = Speaker(config, load)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        speaker.start()
        yield
        speaker.stop()

    app = FastAPI(title="understudy", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.speaker = speaker
    app.add_middleware(TokenGate, token=token)

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"detail": "; ".join(map(_sentence, error.errors()))}, 422)

    app.add_exception_handler(RequestValidationError, refuse)

    async def health() -> Response:
        return JSONResponse(speaker.health(), 200 if speaker.state == "ready" else 503)

    async def synthesize(request: SpeechRequest) -> Response:
        if not audio.count_words(request.text):
            raise HTTPException(422, "text: there is not one word in it")
        try:
            voice = find_voice(config.voices_dir, request.reference_audio or config.default_voice)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        except LookupError as error:
            raise HTTPException(404, error.args[0]) from error
        if speaker.voice is None:
            raise HTTPException(503, speaker.error or "the model is loading", {"Retry-After": "5"})
        try:
            said = await speaker.say(request.text, voice, request.tuning(config.tuning))
        except SynthesisError as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
        headers = {
            "X-Audio-Duration": f"{len(said.samples) / said.rate:.3f}",
            "X-Sample-Rate": str(said.rate),
            "X-Channels": "1",
            "X-Format": "pcm_s16le",
        }
        pcm = audio.float_to_pcm16(said.samples)
        return Response(pcm, media_type="application/octet-stream", headers=headers)

    app.add_api_route(HEALTH_PATH, health, methods=["GET"], response_model=None)
    app.add_api_route(config.synthesis_path, synthesize, methods=["POST"], response_model=None)
    return app


def listen(bind: str, port: int) -> socket.socket:
    """Return a socket that listens, so that a taken port is noticed before a model is loaded.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"cannot listen on {bind}: {error.strerror or error}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {bind} is already taken; see by whom: ss -ltnp 'sport = :{port}'"
            ) from error
        raise ConfigError(
            f"cannot listen on {bind} port {port}: {error.strerror}; see: ip address"
        ) from error
    return sock


def is_loopback(bind: str) -> bool:
    """Return whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"


def run(config: Mapping[str, Any], load: Callable[[], Voice] | None = None) -> int:
    """Serve until told to stop.

    Args:
        config: the JSON document; see `ServerConfig`.
        load: returns the loaded voice; the real model when None.

    Returns:
        The exit status: 0 after an interrupt, 1 with one line on stderr when the
        server could not be started.
    """
    try:
        settings = ServerConfig.from_dict(config)
        try:
            token = read_token(settings.token_file)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if token is None and not is_loopback(settings.bind):
            raise ConfigError(
                f"without a token only loopback may be bound, not {settings.bind}; "
                "set token_file, or bind 127.0.0.1"
            )
        sock = listen(settings.bind, settings.port)
    except ConfigError as error:
        print(f"understudy serve: {error}", file=sys.stderr)
        return 1
    import uvicorn

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    log.info("listening on %s port %d", settings.bind, sock.getsockname()[1])
    app = create_app(settings, load or (lambda: load_voice(settings)), token)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    )
    with sock, suppress(KeyboardInterrupt):
        server.run(sockets=[sock])
    return 0


def load_voice(config: ServerConfig) -> Voice:
    """Return the real model, loaded from the config's weights."""
    from . import voice

    return voice.Voice.load(
        config.weights_dir,
        config.device,
        stft_patch=config.stft_patch,
        token_cap=config.token_cap,
        threads=config.threads,
    )


def _sentence(error: Any) -> str:
    """Return one of pydantic's errors as ``where: what``, without the input itself."""
    if error["type"] == "json_invalid":
        return f"body: not JSON: {error.get('ctx', {}).get('error', error['msg'])}"
    where = ".".join(str(part) for part in error["loc"] if part != "body") or "body"
    return f"{where}: {error['msg']}"


def _one_line(error: Exception) -> str:
    """Return an exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
