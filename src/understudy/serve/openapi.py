"""What the OpenAPI document says beside what FastAPI finds out itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from understudy.serve.client import REHEARSAL_HEADER, TOKEN_HEADER
from understudy.serve.config import OPENAI_PATH
from understudy.serve.requests import Refusal

MEANINGS = {
    400: "The body is not what it should be",
    401: "The token is missing or wrong",
    404: "No such voice",
    408: "The body did not arrive in time",
    421: "The Host header is not one of this server",
    413: "The body is too large",
    422: "The request cannot be spoken, and why",
    503: "Not now, and why; Retry-After says when again",
}

SPEECH_HEADERS = {
    "X-Audio-Duration": {"schema": {"type": "number"}, "description": "in seconds"},
    "X-Sample-Rate": {"schema": {"type": "integer"}, "description": "in Hz"},
    "X-Channels": {"schema": {"type": "integer"}},
    "X-Format": {"schema": {"type": "string"}},
    REHEARSAL_HEADER: {
        "schema": {"type": "string", "enum": ["true"]},
        "description": "only with a rehearsal's random weights: a noise, no voice",
    },
}


def responses(*statuses: int, model: type[BaseModel] = Refusal) -> dict[int | str, dict[str, Any]]:
    """Return the description of some errors."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": MEANINGS[status], "model": model} for status in statuses
    }
    if 503 in found:
        found[503]["headers"] = {
            "Retry-After": {"schema": {"type": "integer"}, "description": "in seconds"}
        }
    return found


def content(description: str, *types: str) -> dict[str, Any]:
    """Return the description of a reply that is not JSON."""
    schema = {"type": "string"} | ({} if types == ("text/plain",) else {"format": "binary"})
    return {"description": description, "content": {one: {"schema": schema} for one in types}}


def security(secured: bool, *schemes: str | None) -> dict[str, Any]:
    """Return which of the schemes a route asks for; None stands for nothing at all."""
    asked: list[dict[str, list[str]]] = [{scheme: []} if scheme else {} for scheme in schemes]
    return {"security": asked} if secured else {}


def describe(app: FastAPI, secured: bool) -> None:
    """Complete the OpenAPI document by what FastAPI cannot know."""
    document = app.openapi()  # made once, and kept by the application
    if secured:
        document.setdefault("components", {})["securitySchemes"] = {
            "token": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
    # FastAPI adds a 422 to every route with a body; OpenAI's errors are 400.
    document["paths"][OPENAI_PATH]["post"]["responses"].pop("422", None)
