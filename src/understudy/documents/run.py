"""``run.json``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from understudy.documents.types import (
    Count,
    Document,
    Host,
    Measure,
    Noted,
    RunId,
    Sha256,
    Text,
    Time,
    Unique,
    UtteranceId,
    Version,
)

Hosts = Annotated[list[Host], *Unique]


class Controller(Noted):
    """The control node."""

    ansible: Text
    python: Text
    host: Text


class HostsByRole(Document):
    """The names of the hosts, as in the inventory."""

    standby: Hosts
    primary: Hosts
    llm: Hosts


class TuningValues(Document):
    """How the voice speaks."""

    cfg_weight: float
    exaggeration: float
    temperature: float


class RunLimits(Document):
    """What the run may not exceed."""

    drift: Annotated[float, Field(ge=1)]


class VoiceReference(Noted):
    """The recording that is cloned; null where it could not be read."""

    name: Text
    sha256: Sha256 | None
    sample_rate_hz: Count | None
    channels: Count | None
    duration_s: Measure | None


class UtteranceEntry(Document):
    """A sentence that every host speaks."""

    id: UtteranceId
    text: Text
    text_sha256: Sha256
    seed: Count


def _ten(rows: list[UtteranceEntry]) -> list[UtteranceEntry]:
    if len(rows) not in (0, 10):
        raise ValueError(f"{len(rows)} utterances, expected ten, or none of a refused file")
    return rows


class RunDocument(Noted):
    """What was asked for, of which hosts, with what."""

    model_config = ConfigDict(title="run.json: what was asked for, of whom, with what")

    schema_version: Version
    run_id: RunId
    started_at: Time
    finished_at: Time | None
    command: Text
    gemma_mode: Literal["parallel", "pause"]
    stft_patch: Literal["auto", "force", "off"]
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}(-dirty)?$")] | None
    inventory: list[str]
    controller: Controller
    rehearsal: bool
    notes: list[str]
    hosts: HostsByRole
    tuning: TuningValues
    limits: RunLimits
    voice: VoiceReference
    utterances: Annotated[
        list[UtteranceEntry],
        *Unique,
        AfterValidator(_ten),
        Field(json_schema_extra={"anyOf": [{"maxItems": 0}, {"minItems": 10, "maxItems": 10}]}),
    ]
