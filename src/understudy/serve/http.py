"""The voice server's HTTP: the primary's contract, OpenAI's, health and metrics.

``POST`` JSON ``{text, reference_audio, exaggeration, cfg_weight, temperature}`` with
``X-Internal-Token``; the reply is raw little-endian 16-bit PCM, 24 kHz, mono.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import unicodedata
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, create_model, field_validator
from starlette.exceptions import HTTPException as StarletteHTTPException

from understudy import __version__
from understudy.audio import pcm, speech_check
from understudy.common.jsonio import JsonError, read_json
from understudy.common.sockets import is_loopback
from understudy.model import environment as facts
from understudy.model.types import Synthesis, Tuning
from understudy.model.weights import MANIFEST
from understudy.serve.client import TOKEN_HEADER
from understudy.serve.config import HEALTH_PATH, METRICS_PATH, OPENAI_PATH, ServerConfig
from understudy.serve.metrics import Metrics
from understudy.serve.worker import Speaker, Unavailable, Voice

#: A body that is not here by then will not come.
BODY_S = 10.0

Range = Field(default=None, gt=0.0, le=2.0, allow_inf_nan=False)


class Sampler(BaseModel):
    """How to speak; what is left out is taken from the config."""

    exaggeration: float | None = Field(default=None, ge=0.0, le=2.0, allow_inf_nan=False)
    cfg_weight: float | None = Range
    temperature: float | None = Range

    def tuning(self, default: Tuning) -> Tuning:
        """Return the request's tuning, completed from the default."""
        own = self.model_dump(include=set(asdict(default)), exclude_none=True)
        return Tuning(**(asdict(default) | own))


class SpeechRequest(Sampler):
    """The body of a request for speech."""

    text: str
    reference_audio: str | None = None


class OpenAISpeechRequest(Sampler):
    """The body of OpenAI's request for speech, and our sampler's settings."""

    model: str
    input: str
    voice: str = Field(description="The bare name of a voice file, with or without .wav.")
    response_format: Literal["wav", "pcm"] = "wav"
    speed: float = Field(default=1.0, json_schema_extra={"minimum": 1, "maximum": 1})
    stream_format: Literal["audio"] = "audio"
    instructions: None = Field(default=None, description="Not supported; leave it out.")

    @field_validator("speed")
    @classmethod
    def _one(cls, value: float) -> float:
        if value != 1.0:
            raise ValueError("only 1 is spoken")
        return value


class Refusal(BaseModel):
    """The body of an error."""

    detail: str


class OpenAIError(BaseModel):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIRefusal(BaseModel):
    """The body of an error, in OpenAI's shape."""

    error: OpenAIError


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Gate:
    """Lets nobody without the token past it, and no body that is too large.

    In front of everything else, so that a stranger's body is not even read. ``/health`` is
    open, and ``/metrics`` to this machine.

    Args:
        app: what is behind it.
        token: what a request must carry; None lets everybody in.
        max_body_bytes: of a request.
        metrics: where refusals are counted.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        token: str | None,
        max_body_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._max = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def refuse(outcome: str, status: int, sentence: str, **headers: str) -> None:
            self._metrics.requests.labels(outcome).inc()
            await refusal(scope["path"], status, sentence, headers)(scope, receive, send)

        if not self._allowed(scope):
            what = f"{TOKEN_HEADER} is missing or wrong"
            if scope["path"].startswith("/v1/"):
                what = f"the token is missing or wrong: Authorization: Bearer …, or {TOKEN_HEADER}"
            await refuse("unauthorized", 401, what, **{"WWW-Authenticate": "Bearer"})
            return
        try:
            async with asyncio.timeout(BODY_S):
                body = await self._body(scope, receive)
        except TimeoutError:
            await refuse("bad_request", 408, f"the body was not here within {BODY_S:g} s")
            return
        except ValueError:
            await refuse("bad_request", 413, f"the body has more than {self._max} bytes")
            return
        if body is None:
            return
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> MutableMapping[str, Any]:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    def _allowed(self, scope: Scope) -> bool:
        path = scope["path"]
        if self._token is None or path == HEALTH_PATH:
            return True
        if path == METRICS_PATH and scope.get("client") and is_loopback(scope["client"][0]):
            return True
        headers = dict(scope["headers"])
        given = headers.get(TOKEN_HEADER.lower().encode())
        if given is None and path.startswith("/v1/"):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer":
                return False
        # Of digests, so that the time does not depend on the length either.
        return hmac.compare_digest(_sha256((given or b"").strip()), _sha256(self._token))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the whole body; None when the client is gone.

        Raises:
            ValueError: it is too large, whether it says so or not.
        """
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._max:
            raise ValueError
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max:
                raise ValueError
            if not message.get("more_body"):
                return bytes(body)


def _environment(config: ServerConfig, voice: Voice | None) -> dict[str, Any]:
    """Return what the voice depends on, so that two hosts can be compared.

    Whatever goes wrong is a note: that it speaks does not hang on it.
    """
    try:
        environment = facts.collect(config.device)
    except Exception as error:
        environment = {"note": f"{type(error).__name__}: {error}"}
    return environment | {"dtype": voice.info.get("dtype") if voice else None}


def _weights(config: ServerConfig) -> dict[str, Any] | None:
    """Return the digests of the weights; None where nobody has taken them yet."""
    try:
        return read_json(config.weights_dir / MANIFEST)
    except JsonError:
        return None


def create_app(
    config: ServerConfig, load: Callable[[], Voice], token: str | None = None
) -> FastAPI:
    """Return the application; the model is loaded once it starts to serve.

    Args:
        config: what the server is told.
        load: returns the loaded voice; called once, on the synthesis thread.
        token: what requests must carry; None lets everybody in.
    """
    metrics = Metrics()
    speaker = Speaker(config, load, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        speaker.start()
        yield
        speaker.stop()

    app = FastAPI(
        title="understudy", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.speaker = speaker
    app.add_middleware(Gate, token=token, max_body_bytes=config.max_body_bytes, metrics=metrics)
    _answer_errors(app, metrics)
    text = Annotated[str, Field(max_length=config.max_text)]
    # The longest text is the config's, and the OpenAPI document says so.
    Request_ = create_model("SpeechRequest", __base__=SpeechRequest, text=(text, ...))
    OpenAIRequest_ = create_model(
        "OpenAISpeechRequest", __base__=OpenAISpeechRequest, input=(text, ...)
    )

    async def spoken(
        request: Request, name: str, text: str, voices: list[str], tuning: Tuning
    ) -> Synthesis:
        """Return the speech, or raise what the client is to be told."""
        if wrong := _unspeakable(text):
            raise HTTPException(422, f"{name}: {wrong}")
        reference = None
        for voice in voices:
            try:
                reference = reference or speaker.find(voice)
            except ValueError as error:
                raise HTTPException(422, str(error)) from error
            except LookupError as error:
                unknown = error.args[0]
        if reference is None:
            raise HTTPException(404, unknown)
        try:
            said = await _while_there(request, speaker.say(text, reference, tuning))
        except Unavailable as error:
            metrics.requests.labels(error.outcome).inc()
            raise _Counted(503, str(error), {"Retry-After": str(error.retry_after_s)}) from error
        metrics.requests.labels("cut_off" if said.hit_cap else "spoken").inc()
        metrics.audio.inc(len(said.samples) / said.rate)
        metrics.synthesis.observe(said.wall_s)
        return said

    told: dict[str, Any] = {}

    async def health() -> JSONResponse:
        body = speaker.health()
        if body["ready"]:
            if not told:  # once, and only when the start is over
                told.update(await asyncio.to_thread(_environment, config, speaker.voice))
            if told.get("weights") is None:
                told["weights"] = await asyncio.to_thread(_weights, config)
            body["environment"] = told
        return JSONResponse(body, 200 if body["ready"] else 503)

    async def prometheus() -> Response:
        speaker.measure()
        return Response(metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    async def synthesize(request: Request, body: Any) -> Response:
        voice = body.reference_audio or config.default_voice
        said = await spoken(request, "text", body.text, [voice], body.tuning(config.tuning))
        return _pcm(said, "application/octet-stream")

    async def openai_speech(request: Request, body: Any) -> Response:
        voices = [body.voice, f"{body.voice}.wav"]
        said = await spoken(request, "input", body.input, voices, body.tuning(config.tuning))
        if body.response_format == "wav":
            return Response(pcm.to_wav(said.samples, said.rate), media_type="audio/wav")
        return _pcm(said, "audio/pcm")

    synthesize.__annotations__["body"] = Request_
    openai_speech.__annotations__["body"] = OpenAIRequest_

    secured = token is not None
    app.add_api_route(
        HEALTH_PATH, health, methods=["GET"], response_model=None, summary="How the voice is",
        responses=_responses(408, 413)
        | {
            200: {"description": "It speaks: `ready` or `degraded`", "model": dict[str, Any]},
            503: {"description": "It does not: `starting` or `failing`", "model": dict[str, Any]},
        },
    )  # fmt: skip
    app.add_api_route(
        METRICS_PATH, prometheus, methods=["GET"], response_model=None, response_class=Response,
        summary="Figures for Prometheus",
        responses=_responses(401, 408, 413) | {200: _content("The figures", "text/plain")},
        openapi_extra=_security(secured, "token", None),  # None from this machine
    )  # fmt: skip
    app.add_api_route(
        config.synthesis_path, synthesize, methods=["POST"], response_model=None,
        response_class=Response, summary="Speech as raw PCM",
        responses=_responses(400, 401, 404, 408, 413, 422, 503)
        | {200: _content("PCM, little-endian int16, 24 kHz, mono", "application/octet-stream")
           | {"headers": _SPEECH_HEADERS}},
        openapi_extra=_security(secured, "token"),
    )  # fmt: skip
    app.add_api_route(
        OPENAI_PATH, openai_speech, methods=["POST"], response_model=None,
        response_class=Response, summary="Speech, as OpenAI's clients ask for it",
        responses=_responses(400, 401, 404, 408, 413, 503, model=OpenAIRefusal)
        | {200: _content("The audio", "audio/wav", "audio/pcm")},
        openapi_extra=_security(secured, "token", "bearer"),
    )  # fmt: skip
    _describe(app, secured)
    return app


async def _while_there(request: Request, work: Awaitable[Synthesis]) -> Synthesis:
    """Return what some work comes to, and cancel it when the client hangs up.

    Raises:
        HTTPException: status 499, which nobody will read.
    """
    task = asyncio.ensure_future(work)
    # With the body read, the only message left is that the client is gone.
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise HTTPException(499, "the client hung up")
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class _Counted(HTTPException):
    """A refusal that the metrics know already."""


def _answer_errors(app: FastAPI, metrics: Metrics) -> None:
    """Make every error a sentence in the shape of the path's contract."""

    def count(request: Request, outcome: str) -> None:
        if request.method == "POST":
            metrics.requests.labels(outcome).inc()

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        count(request, "bad_request")
        errors = error.errors()
        param = next((part for part in errors[0]["loc"] if part != "body"), None)
        named = str(param) if isinstance(param, str) else None
        path = request.url.path
        return refusal(path, 422, "; ".join(map(_sentence, errors)), param=named)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        if not isinstance(error, _Counted):
            count(request, "gone" if error.status_code == 499 else "bad_request")
        headers = dict(error.headers or {})
        return refusal(request.url.path, error.status_code, error.detail, headers)

    async def broken(request: Request, error: Exception) -> Response:
        count(request, "error")
        sentence = f"a fault of the server: {type(error).__name__}; see its log"
        return refusal(request.url.path, 503, sentence, {"Retry-After": "5"})

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(StarletteHTTPException, refused)
    app.add_exception_handler(Exception, broken)


def refusal(
    path: str,
    status: int,
    sentence: str,
    headers: dict[str, str] | None = None,
    param: str | None = None,
) -> Response:
    """Return an error in the shape of the path's contract."""
    if not path.startswith("/v1/"):
        return JSONResponse({"detail": sentence}, status, headers)
    status = 400 if status == 422 else status
    kind = "server_error" if status >= 500 else "invalid_request_error"
    code = {401: "invalid_api_key", 404: "not_found", 503: "unavailable"}.get(status)
    error = {"message": sentence, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers)


def _unspeakable(text: str) -> str | None:
    """Return why a text cannot be spoken."""
    for position, character in enumerate(text):
        if unicodedata.category(character) == "Cc" and character not in "\t\n\r":
            return f"control character U+{ord(character):04X} at position {position}"
    return None if speech_check.count_words(text) else "there is not one word in it"


def _pcm(said: Synthesis, media_type: str) -> Response:
    """Return raw PCM with the headers of the contract."""
    headers = {
        "X-Audio-Duration": f"{len(said.samples) / said.rate:.3f}",
        "X-Sample-Rate": str(said.rate),
        "X-Channels": "1",
        "X-Format": "pcm_s16le",
    }
    return Response(pcm.float_to_pcm16(said.samples), headers=headers, media_type=media_type)


def _sentence(error: Any) -> str:
    """Return one of pydantic's errors as ``where: what``, without the input itself."""
    if error["type"] == "json_invalid":
        return f"body: not JSON: {error.get('ctx', {}).get('error', error['msg'])}"
    where = ".".join(str(part) for part in error["loc"] if part != "body") or "body"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# The OpenAPI document.

_WHAT = {
    400: "The body is not what it should be",
    401: "The token is missing or wrong",
    404: "No such voice",
    408: "The body did not arrive in time",
    413: "The body is too large",
    422: "The request cannot be spoken, and why",
    503: "Not now, and why; Retry-After says when again",
}

_SPEECH_HEADERS = {
    "X-Audio-Duration": {"schema": {"type": "number"}, "description": "in seconds"},
    "X-Sample-Rate": {"schema": {"type": "integer"}, "description": "in Hz"},
    "X-Channels": {"schema": {"type": "integer"}},
    "X-Format": {"schema": {"type": "string"}},
}


def _responses(*statuses: int, model: type[BaseModel] = Refusal) -> dict[int | str, dict[str, Any]]:
    """Return the description of some errors."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": _WHAT[status], "model": model} for status in statuses
    }
    if 503 in found:
        found[503]["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "in seconds"}
        }
    return found


def _content(description: str, *types: str) -> dict[str, Any]:
    """Return the description of a reply that is not JSON."""
    schema = {"type": "string"} | ({} if types == ("text/plain",) else {"format": "binary"})
    return {"description": description, "content": {one: {"schema": schema} for one in types}}


def _security(secured: bool, *schemes: str | None) -> dict[str, Any]:
    """Return which of the schemes a route asks for; None stands for nothing at all."""
    asked: list[dict[str, list[str]]] = [{scheme: []} if scheme else {} for scheme in schemes]
    return {"security": asked} if secured else {}


def _describe(app: FastAPI, secured: bool) -> None:
    """Complete the OpenAPI document by what FastAPI cannot know."""
    document = app.openapi()  # made once, and kept by the application
    if secured:
        document.setdefault("components", {})["securitySchemes"] = {
            "token": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
    # FastAPI adds a 422 to every route with a body; OpenAI's errors are 400.
    document["paths"][OPENAI_PATH]["post"]["responses"].pop("422", None)
