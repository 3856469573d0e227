"""Decides on the run of run_factory.py with something changed, and reads what the verdict says."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import run_factory as factory
from jsonschema import Draft202012Validator

from understudy.documents import validate
from understudy.verdict import rules

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
INSTALL, BENCH, BASELINE = "install-titan.json", "bench-titan.json", "baseline-panda.json"
#: What the phases of the run write, in their order.
PHASE_FILES = ("preflight.json", "llm.json", INSTALL, BENCH, BASELINE)
RATED = {"ratings.json": factory.ratings()}
OUTPUT = validate.load_schemas()["verdict"]

#: Results that were validated: most broken values lead to one of a few, and validating is slow.
VALID: set[str] = set()


def decide(documents: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Decide, and hold every outcome to its schema."""
    result = rules.decide(
        documents, run_id=factory.RUN_ID, computed_at="2026-11-22T04:00:00Z", **options
    )
    text = repr(result)
    if text not in VALID:
        problems = [f"{e.json_path}: {e.message}" for e in OUTPUT.iter_errors(result)]
        assert problems == [], problems  # pytest shows values only for asserts in test files
        assert isinstance(OUTPUT, Draft202012Validator)
        VALID.add(text)
    return result


def changed(*changes: tuple[str, str, Any], rated: bool = False) -> dict[str, Any]:
    documents: dict[str, Any] = factory.documents()
    if rated:
        documents.update(copy.deepcopy(RATED))
    for name, path, value in changes:
        factory.change(documents[name], path, value)
    return documents


def failed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    """The run with one phase that failed, and nothing but its header and ``fields``."""
    documents = changed()
    head = factory.header(documents[name]["phase"], documents[name]["host"])
    error = factory.error(kind, seen=f"exact {kind} text")
    documents[name] = {**head, "status": "failed", "error": error, **fields}
    return documents


def parallel(during: float | None, drift: float = 1.05) -> dict[str, Any]:
    path = "hosts.titan"
    return changed(
        ("run.json", "gemma_mode", "parallel"),
        ("llm.json", f"{path}.mode", "parallel"),
        ("llm.json", f"{path}.during", factory.latency(400)),
        ("llm.json", f"{path}.during_ratio", during),
        ("llm.json", f"{path}.drift", drift),
    )


def status(result: dict[str, Any]) -> str:
    """The nine statuses as a word: + met, - not met, . not yet."""
    signs = {"met": "+", "not_met": "-", "not_yet": "."}
    return "".join(signs[row["status"]] for row in result["criteria"])


def check(result: dict[str, Any], name: str) -> dict[str, Any]:
    (row,) = [row for row in result["checks"] if row["name"] == name]
    return row


def said(result: dict[str, Any]) -> str:
    return "\n".join(result["reasons"])
