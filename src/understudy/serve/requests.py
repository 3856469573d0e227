"""The bodies of requests and of errors."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, field_validator

from understudy.model.types import MIN_TEMPERATURE, Tuning

#: Strict: pydantic would take true for 1.0, and the schema says number.
Number = Annotated[float, Field(le=2.0, allow_inf_nan=False, strict=True)]


class Sampler(BaseModel):
    """How to speak; what is left out, or null, is taken from the config."""

    exaggeration: Annotated[Number, Field(ge=0.0)] | None = None
    cfg_weight: Annotated[Number, Field(gt=0.0)] | None = None
    temperature: Annotated[Number, Field(ge=MIN_TEMPERATURE)] | None = None

    def tuning(self, default: Tuning) -> Tuning:
        """Return the request's tuning, completed from the default."""
        own = self.model_dump(include=set(asdict(default)), exclude_none=True)
        return Tuning(**(asdict(default) | own))


class SpeechRequest(Sampler):
    """The body of a request for speech."""

    text: str
    reference_audio: str | None = None


class OpenAISpeechRequest(Sampler):
    """The body of OpenAI's request for speech, and our sampler's settings; null is left out."""

    model: str | None = None
    input: str
    voice: str = Field(description="The bare name of a voice file, with or without .wav.")
    response_format: Literal["wav", "pcm"] | None = "wav"
    speed: float | None = Field(
        default=1.0, strict=True, json_schema_extra={"minimum": 1, "maximum": 1}
    )
    stream_format: Literal["audio"] | None = "audio"
    instructions: None = Field(default=None, description="Not supported; leave it out.")

    @field_validator("speed")
    @classmethod
    def _one(cls, value: float | None) -> float | None:
        if value not in (None, 1.0):
            raise ValueError("only 1 is spoken")
        return value


class Health(BaseModel):
    """The body of ``/health``; docs/voice-server.md explains it."""

    state: Literal["starting", "ready", "degraded", "failing"]
    instance: str = Field(
        pattern="^[0-9a-f]{32}$", description="Random, made when the process starts."
    )
    ready: bool
    reasons: list[str]
    model: str | None
    device: str
    rehearsal: bool | None
    default_voice: str
    voice_sha256: str | None
    last_good_age_s: float | None
    busy: bool
    waiting: int
    served: int
    refused: int
    retries: int
    started_at: str
    ready_after_s: float | None
    version: str
    error: str | None
    environment: dict[str, Any] | None = Field(default=None, description="Once it speaks.")


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
