"""The files of a pass, as far as the listening page relies on them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from understudy.documents.types import Sha256, Time

#: The neutral name of a recording, which is a part of its file's name.
Stimulus = Annotated[str, Field(pattern=r"^[0-9a-f]{10}$")]
Trial = Annotated[str, Field(pattern=r"^[tc][0-9]{2}$")]
Score = Annotated[int, Field(ge=1, le=5)] | None
Some = Field(min_length=1, max_length=50)


class _Form(BaseModel):
    """An object of which other fields are let pass, and without conversion of types."""

    model_config = ConfigDict(extra="ignore", strict=True)


class PlannedTrial(_Form):
    """Two recordings that are played as A and B."""

    id: Trial
    a: Stimulus
    b: Stimulus


class Plan(_Form):
    """``plan.json``: what is played, in order."""

    run_id: str
    number: Annotated[int, Field(ge=1, alias="pass")]
    audio: dict[str, Sha256]
    key_sha256: Sha256
    reference: Stimulus
    whole_reference: Stimulus
    pairs: Annotated[list[PlannedTrial], Some]
    calls: Annotated[list[PlannedTrial], Some]
    stimuli: dict[Stimulus, Sha256]

    @model_validator(mode="after")
    def _plays_what_it_has(self) -> Plan:
        trials = [*self.pairs, *self.calls]
        played = {name for one in trials for name in (one.a, one.b)}
        if not {*played, self.reference, self.whole_reference} <= self.stimuli.keys():
            raise ValueError("it plays a recording that is not among the stimuli")
        if len({one.id for one in trials}) < len(trials):
            raise ValueError("two pairs have one id")
        return self


class PairAnswer(_Form):
    """What was answered about a pair; null for what is open."""

    model_config = ConfigDict(extra="forbid")
    heard: list[Literal["r", "a", "b"]]
    a: Score
    b: Score


class CallAnswer(_Form):
    """What was answered about a call; null while it is open."""

    model_config = ConfigDict(extra="forbid")
    heard: list[Literal["a", "b"]]
    noticed: bool | None


class SessionDocument(_Form):
    """``session.json``: what was answered."""

    plan_sha256: Sha256
    previous_sha256: Sha256 | None
    started_at: Time | None
    finished_at: Time | None
    finished_with: Literal["page", "terminal"] | None
    identity_matches: bool | None
    answers: dict[Trial, PairAnswer | CallAnswer]


def fault_of_pass(plan: dict[str, Any], session: dict[str, Any]) -> str | None:
    """Return what is wrong with the files of a pass: the file, the place and what was expected."""
    try:
        planned = Plan.model_validate(plan)
    except ValidationError as error:
        return f"plan.json: {_first(error)}"
    try:
        answered = SessionDocument.model_validate(session)
    except ValidationError as error:
        return f"session.json: {_first(error)}"
    kinds: dict[str, type[_Form]] = {one.id: PairAnswer for one in planned.pairs}
    kinds |= {one.id: CallAnswer for one in planned.calls}
    if {name: type(answer) for name, answer in answered.answers.items()} != kinds:
        return "session.json: its answers are not about the pairs of plan.json"
    values = [value for answer in answered.answers.values() for value in _values(answer)]
    if answered.finished_at and None in (*values, answered.identity_matches):
        return "session.json: it is finished, and an answer is missing"
    return None


def _values(answer: PairAnswer | CallAnswer) -> tuple[Any, ...]:
    return (answer.noticed,) if isinstance(answer, CallAnswer) else (answer.a, answer.b)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])[:80]
    return f"{place}: {first['msg']}" if place else first["msg"]
