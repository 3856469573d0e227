"""``verdict.json``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from understudy.documents.types import Count, Document, Host, Measure, Sha256, Text, Time, Version

#: The verdicts that may be ok.
GOOD = ("titan_chatterbox_redundancy_validated", "awaiting_ab_scores")

Probability = Annotated[float, Field(ge=0, le=1)]
Difference = Annotated[float, Field(ge=-4, le=4)]
Positive = Annotated[int, Field(ge=1)]


class Criterion(Document):
    """A success criterion."""

    id: Annotated[int, Field(ge=1, le=9)]
    name: Text
    status: Literal["met", "not_met", "not_yet"]
    evidence: Text


class Question(Document):
    """A question of the research document; null where it has no answer."""

    id: Annotated[int, Field(ge=1, le=6)]
    question: Text
    answer: str | None
    evidence: Text


class Check(Document):
    """A value and its threshold; ``ok`` is null where the check is for information."""

    name: Text
    ok: bool | None
    value: float | None
    threshold: float | None
    unit: str | None
    detail: str


class Ratings(Document):
    """What the scores come to, in points, by host."""

    n: Count
    passes: Positive = 1
    means: dict[str, float]
    differences: dict[str, float]


class Interval(Document):
    """The bootstrap interval of the mean difference, in points."""

    confidence: Annotated[float, Field(ge=0.9, le=0.9)]
    method: Literal["BCa"]
    low: float | None
    high: float | None
    note: str | None


class Tost(Document):
    """The test of equivalence, and of a difference beyond the margin."""

    p: Probability
    p_lower: Probability
    p_upper: Probability
    p_beyond: Probability
    within: bool
    beyond: bool
    note: str | None


class Passing(Document):
    """The probability that a voice passes the rule, by how much it is worse in points."""

    worse_by: Measure
    probability: Probability


class Operating(Document):
    """How often the rule errs."""

    spread: Measure
    assumed: bool
    passes: Annotated[list[Passing], Field(min_length=1)]
    sentence: Text


class HostEvidence(Document):
    """The statistics of one standby; differences in points, by utterance."""

    differences: dict[str, Difference]
    mean: Difference
    spread: Measure
    interval: Interval
    tost: Tost
    operating: Operating


class Apart(Document):
    """How far two scores of the same thing lie apart, in points."""

    n: Positive
    same: Count
    mean_apart: Annotated[float, Field(ge=0, le=4)]


class Impostor(Document):
    """The scores of another person's voice."""

    n: Positive
    mean: Annotated[float, Field(ge=1, le=5)]
    below: Difference
    told: bool


class Telephone(Document):
    """In how many pairs a difference would be noticed on the telephone."""

    n: Positive
    noticed: Count


class Listener(Document):
    """What the hidden checks say about the listener; null where there was none."""

    repeats: Apart | None
    same_host: Apart | None
    impostor: Impostor | None
    telephone: Telephone | None
    says: list[Text]


class Evidence(Document):
    """How much the scores are worth."""

    level: Literal["weak", "moderate", "strong"]
    reasons: Annotated[list[Text], Field(min_length=1)]
    utterances: Positive
    passes: Positive
    margin: Annotated[float, Field(ge=0.5, le=0.5)]
    hosts: Annotated[
        dict[Host, HostEvidence], Field(json_schema_extra={"additionalProperties": False})
    ]
    listener: Listener | None


class Human(Document):
    """Whether what the listener said still stands."""

    state: Literal["stands", "contradicted", "stale"]
    why: list[Text]


class Split(Document):
    """Seconds by what they were spent on; spans of several hosts may overlap."""

    install: Measure
    model_load: Measure
    synthesis: Measure
    llm_probe: Measure
    comparison: Measure = 0  # missing in runs of earlier versions
    other: Measure | None


class Timing(Document):
    """Where the time of the run went, in seconds; ``ratio`` is total by work."""

    total_s: Measure | None
    busy_s: Measure
    split: Split
    ratio: Measure | None


class JudgedHosts(Document):
    """The hosts by role."""

    standby: list[Host]
    primary: list[Host]
    llm: list[Host]


class File(Document):
    """A file that the verdict was computed from."""

    name: Text
    sha256: Sha256


class VerdictDocument(Document):
    """What the run directory says."""

    model_config = ConfigDict(
        title="verdict.json: what the run directory says",
        json_schema_extra={
            "if": {"properties": {"ok": {"const": True}}},
            "then": {
                "properties": {
                    "verdict": {"enum": list(GOOD)},
                    "checks": {"items": {"properties": {"ok": {"enum": [True, None]}}}},
                }
            },
        },
    )

    schema_version: Version
    run_id: Text
    computed_at: Time
    verdict: Literal[
        "titan_chatterbox_redundancy_validated",
        "titan_chatterbox_diverges_from_panda_investigate",
        "deferred_blackwell_port_cost",
        "awaiting_ab_scores",
        "invalid_run",
    ]
    ok: bool
    reasons: Annotated[list[Text], Field(min_length=1)]
    criteria: Annotated[list[Criterion], Field(min_length=9, max_length=9)]
    questions: Annotated[list[Question], Field(min_length=6, max_length=6)]
    checks: list[Check]
    ratings: Ratings | None
    evidence: Evidence | None = None
    warnings: list[Text] = Field(default_factory=list)
    human: Human | None = None
    timing: Timing
    hosts: JudgedHosts
    rehearsal: bool
    notes: list[str]
    files: list[File]

    @model_validator(mode="after")
    def _ok_is_borne_out(self) -> VerdictDocument:
        failed = [check.name for check in self.checks if check.ok is False]
        if self.ok and (self.verdict not in GOOD or failed):
            raise ValueError(f"ok with the verdict {self.verdict}, failed checks: {failed}")
        return self
