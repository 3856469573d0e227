"""The nine success criteria."""

from __future__ import annotations

from typing import Any

import pytest
from decided import INSTALL, changed, decide, status


@pytest.mark.parametrize(("limit", "shown"), [(1.2, "1.2"), (3, "3"), (2.0, "2")])
def test_the_criterion_names_the_limit_of_the_run(limit: float, shown: str) -> None:
    result = decide(changed(("run.json", "limits.drift", limit)))
    assert result["criteria"][6]["name"] == (
        f"the LLM's p50 after the window is at most {shown} x the one before"
    )


def guard(**fields: Any) -> dict[str, Any]:
    documents = changed()
    documents[INSTALL]["guard"].update(fields)
    return documents


PROBE = {"ok": False, "cold_cache": True, "ops": [], "error": "nvrtc: error"}
FINE = {**PROBE, "ok": True, "error": None}
VERIFIED = {"ok": True, "max_relative_error": 1e-6, "tolerance": 1e-4, "detail": None}


@pytest.mark.parametrize(
    ("documents", "sign", "answer"),
    [
        (guard(), "+", "No: it does not occur"),
        (guard(decision="not_applicable", device="cpu", device_name=None), "+", None),
        (
            guard(decision="patched", probe=PROBE, patched_probe=FINE, verify=VERIFIED),
            "+",
            "nvrtc: error. The patch works as a drop-in",
        ),
        (guard(decision="patched", probe=PROBE, patched_probe=PROBE), "-", "does not cure it"),
        (guard(decision="unpatched", probe=PROBE), "-", "switched off"),
        (guard(decision="unpatched", probe=FINE), "+", "No: it does not occur"),
    ],
)
def test_the_guard(documents: dict[str, Any], sign: str, answer: str | None) -> None:
    result = decide(documents)
    assert status(result)[1] == sign
    found = result["questions"][1]["answer"]
    assert found is None if answer is None else answer in found
