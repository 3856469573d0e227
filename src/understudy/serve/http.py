"""The voice server's HTTP: the primary's contract, OpenAI's, health and metrics.

``POST`` JSON ``{text, reference_audio, exaggeration, cfg_weight, temperature}`` with
``X-Internal-Token``; the reply is raw little-endian 16-bit PCM, 24 kHz, mono.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import Field, create_model
from starlette.exceptions import HTTPException as StarletteHTTPException

from understudy import __version__
from understudy.audio import pcm, speech_check
from understudy.common.jsonio import JsonError, read_json
from understudy.model import environment as facts
from understudy.model.types import Synthesis, Tuning
from understudy.model.weights import MANIFEST
from understudy.serve import openapi
from understudy.serve.auth import AuthMiddleware
from understudy.serve.client import REHEARSAL_HEADER
from understudy.serve.config import HEALTH_PATH, METRICS_PATH, OPENAI_PATH, ServerConfig
from understudy.serve.jobs import Unavailable
from understudy.serve.metrics import Metrics
from understudy.serve.requests import (
    Health,
    OpenAIRefusal,
    OpenAISpeechRequest,
    SpeechRequest,
    refusal,
)
from understudy.serve.synthesis import BadVoice, LoadedVoice, silence
from understudy.serve.text_split import plain_text
from understudy.serve.worker import VoiceWorker


def _environment(config: ServerConfig, voice: LoadedVoice | None) -> dict[str, Any]:
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
    config: ServerConfig, load: Callable[[], LoadedVoice], token: str | None = None
) -> FastAPI:
    """Return the application; the model is loaded once it starts to serve.

    Args:
        config: the server's configuration.
        load: returns the loaded voice; called once, on the synthesis thread.
        token: what requests must carry; None for no authentication.
    """
    metrics = Metrics()
    worker = VoiceWorker(config, load, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.stop()

    app = FastAPI(
        title="understudy", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.worker = worker
    app.add_middleware(
        AuthMiddleware,
        token=token,
        hosts=config.allowed_hosts,
        max_body_bytes=config.max_body_bytes,
        metrics=metrics,
    )
    _answer_errors(app, metrics)
    _add_routes(app, _Routes(config, worker), secured=token is not None)
    openapi.describe(app, token is not None)
    return app


class _Routes:
    """What the routes do."""

    def __init__(self, config: ServerConfig, worker: VoiceWorker) -> None:
        self.config, self._worker, self._metrics = config, worker, worker.metrics
        self._environment: dict[str, Any] = {}

    async def health(self) -> JSONResponse:
        body = self._worker.health()
        if body["ready"]:
            known = self._environment
            if not known:  # once, and only when the start is over
                voice = self._worker.synthesizer.voice
                known.update(await asyncio.to_thread(_environment, self.config, voice))
            if known.get("weights") is None:
                known["weights"] = await asyncio.to_thread(_weights, self.config)
            body["environment"] = known
        return JSONResponse(body, 200 if body["ready"] else 503)

    async def prometheus(self) -> Response:
        self._worker.measure()
        text = self._metrics.text()
        return Response(text, media_type="text/plain; version=1.0.0; charset=utf-8")

    async def synthesize(self, request: Request, body: SpeechRequest) -> Response:
        voice = body.reference_audio or self.config.default_voice
        tuning = body.tuning(self.config.default_tuning)
        speech = await self._speak(request, "text", body.text, [voice], tuning)
        return self._pcm(speech, "application/octet-stream")

    async def openai_speech(self, request: Request, body: OpenAISpeechRequest) -> Response:
        voices = [body.voice, f"{body.voice}.wav"]
        tuning = body.tuning(self.config.default_tuning)
        speech = await self._speak(request, "input", body.input, voices, tuning)
        if body.response_format == "pcm":
            return self._pcm(speech, "audio/pcm")
        wav = pcm.to_wav(speech.samples, speech.rate)
        return Response(wav, headers=self._rehearsal(), media_type="audio/wav")

    def _pcm(self, said: Synthesis, media_type: str) -> Response:
        """Return raw PCM with the headers of the contract."""
        headers = {
            "X-Audio-Duration": f"{len(said.samples) / said.rate:.3f}",
            "X-Sample-Rate": str(said.rate),
            "X-Channels": "1",
            "X-Format": "pcm_s16le",
            **self._rehearsal(),
        }
        return Response(pcm.float_to_pcm16(said.samples), headers=headers, media_type=media_type)

    def _rehearsal(self) -> dict[str, str]:
        """Return the header by which nobody takes random weights for a voice; else none."""
        return {REHEARSAL_HEADER: "true"} if self._worker.synthesizer.rehearsal else {}

    async def _speak(
        self, request: Request, name: str, text: str, voices: list[str], tuning: Tuning
    ) -> Synthesis:
        """Return the speech.

        Args:
            request: whose client may hang up.
            name: of the text in the body.
            text: to be said.
            voices: the first that there is, is used.
            tuning: how.

        Raises:
            HTTPException: the reply instead.
        """
        try:
            text = plain_text(text)
        except ValueError as error:
            raise HTTPException(422, f"{name}: {error}") from error
        has_words = speech_check.count_words(text) > 0
        if not has_words and self.config.empty_text == "error":
            raise HTTPException(422, f"{name}: there is not one word in it")
        reference = None
        for voice in voices:
            try:
                reference = reference or self._worker.files.find(voice)
            except ValueError as error:
                raise HTTPException(422, str(error)) from error
            except LookupError as error:
                unknown = error.args[0]
        if reference is None:
            raise HTTPException(404, unknown)
        if not has_words:
            self._metrics.requests.labels("silence").inc()
            return silence()
        try:
            speech = await _while_there(request, self._worker.say(text, reference, tuning))
        except BadVoice as error:
            raise HTTPException(422, f"voice: {error}") from error
        except Unavailable as error:
            self._metrics.requests.labels(error.outcome).inc()
            raise _Counted(503, str(error), {"Retry-After": str(error.retry_after_s)}) from error
        self._metrics.requests.labels("cut_off" if speech.hit_cap else "spoken").inc()
        self._metrics.audio.inc(len(speech.samples) / speech.rate)
        self._metrics.synthesis.observe(speech.wall_s)
        return speech


def _add_routes(app: FastAPI, routes: _Routes, *, secured: bool) -> None:
    """Add the routes, and their part of the OpenAPI document."""
    text = Annotated[str, Field(max_length=routes.config.max_text)]

    # The longest text is the config's, and the OpenAPI document says so.
    async def synthesize(request: Request, body: Any) -> Response:
        return await routes.synthesize(request, body)

    async def openai_speech(request: Request, body: Any) -> Response:
        return await routes.openai_speech(request, body)

    synthesize.__annotations__["body"] = create_model(
        "SpeechRequest", __base__=SpeechRequest, text=(text, ...)
    )
    openai_speech.__annotations__["body"] = create_model(
        "OpenAISpeechRequest", __base__=OpenAISpeechRequest, input=(text, ...)
    )
    app.add_api_route(
        HEALTH_PATH,
        routes.health,
        methods=["GET"],
        response_model=None,
        summary="How the voice is",
        responses=openapi.responses(408, 413, 421)
        | {
            200: {"description": "It speaks: `ready` or `degraded`", "model": Health},
            503: {"description": "It does not: `starting` or `failing`", "model": Health},
        },
    )
    app.add_api_route(HEALTH_PATH, routes.health, methods=["HEAD"], include_in_schema=False)
    app.add_api_route(
        METRICS_PATH,
        routes.prometheus,
        methods=["GET"],
        response_model=None,
        response_class=Response,
        summary="Figures for Prometheus",
        responses=openapi.responses(401, 408, 413, 421)
        | {200: openapi.content("The figures", "text/plain")},
        openapi_extra=openapi.security(secured, "token", None),  # None from this machine
    )
    audio = openapi.content("PCM, little-endian int16, 24 kHz, mono", "application/octet-stream")
    app.add_api_route(
        routes.config.synthesis_path,
        synthesize,
        methods=["POST"],
        response_model=None,
        response_class=Response,
        summary="Speech as raw PCM",
        responses=openapi.responses(400, 401, 404, 408, 413, 421, 422, 503)
        | {200: audio | {"headers": openapi.SPEECH_HEADERS}},
        openapi_extra=openapi.security(secured, "token"),
    )
    app.add_api_route(
        OPENAI_PATH,
        openai_speech,
        methods=["POST"],
        response_model=None,
        response_class=Response,
        summary="Speech, as OpenAI's clients ask for it",
        responses=openapi.responses(400, 401, 404, 408, 413, 421, 503, model=OpenAIRefusal)
        | {200: openapi.content("The audio", "audio/wav", "audio/pcm")},
        openapi_extra=openapi.security(secured, "token", "bearer"),
    )


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


def _sentence(error: Any) -> str:
    """Return one of pydantic's errors as ``where: what``, without the input itself."""
    if error["type"] == "json_invalid":
        return f"body: not JSON: {error.get('ctx', {}).get('error', error['msg'])}"
    where = ".".join(str(part) for part in error["loc"] if part != "body") or "body"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
