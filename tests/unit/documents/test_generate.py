"""The generated schemas are those in the repository, and models and schemas agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_factory as factory
from pydantic import ValidationError

from understudy.documents import generate, validate

RECORDED = sorted(Path(__file__).parents[1].glob("verdict/recorded/*/*Z"))
CHANGES: list[tuple[str, str, Any, bool]] = [
    ("run", "gemma_mode_note", "why", True),
    ("run", "gemma_mode_note", 3, False),
    ("run", "comment", "why", False),
    ("run", "schema_version", 2, False),
    ("run", "hosts.llm", ["titan", "titan"], False),
    ("run", "utterances", [], True),
    ("run", "utterances.9", factory.REMOVED, False),
    ("run", "limits.drift", 0.5, False),
    ("run", "voice.sha256", None, True),
    ("run", "voice.sha256", "abc", False),
    ("run", "rehearsal", 1, False),
    ("verdict", "human", factory.REMOVED, True),
    ("verdict", "ratings.passes", factory.REMOVED, True),
    ("verdict", "verdict", "invalid_run", False),
    ("verdict", "checks.0.ok", False, False),
    ("verdict", "checks.0.ok", None, True),
    ("verdict", "criteria.8", factory.REMOVED, False),
    ("verdict", "evidence.margin", 0.4, False),
    ("verdict", "evidence.hosts", {"-x": {}}, False),
    ("verdict", "timing.split.other", None, True),
    ("verdict", "comment", "why", False),
]


@pytest.mark.parametrize("name", generate.MODELS)
def test_the_schema_is_the_generated_one(name: str) -> None:
    kept = json.loads((validate.SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    assert kept == generate.schema_of(name), "next: make schemas"


def accepted(name: str, document: Any) -> tuple[bool, bool]:
    """Whether the schema accepts a document, and whether the model does."""
    valid = validate.load_schemas()[name].is_valid(document)
    try:
        generate.MODELS[name].model_validate(document)
    except ValidationError:
        return valid, False
    return valid, True


@pytest.mark.parametrize("name", ["run", "verdict"])
@pytest.mark.parametrize("run_dir", RECORDED, ids=lambda path: path.parent.name)
def test_recorded_documents_are_accepted(run_dir: Path, name: str) -> None:
    assert accepted(name, json.loads((run_dir / f"{name}.json").read_text("utf-8"))) == (True, True)


@pytest.mark.parametrize(("name", "path", "value", "fine"), CHANGES)
def test_models_and_schemas_agree(name: str, path: str, value: Any, fine: bool) -> None:
    (run_dir,) = [run for run in RECORDED if run.parent.name == "validated"]
    document = json.loads((run_dir / f"{name}.json").read_text("utf-8"))
    factory.change(document, path, value)
    assert accepted(name, document) == (fine, fine)
