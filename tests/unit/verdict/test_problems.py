"""What keeps a run from being judged, in sentences."""

from __future__ import annotations

from typing import Any

import pytest
import run_factory as factory
from decided import BASELINE, BENCH, INSTALL, changed, decide, failed, said

from understudy.verdict import rules


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([(BENCH, "utterances.2.ok", False), (BENCH, "utterances.2.error", "mute")], "u03: mute"),
        ([(BENCH, "utterances.2.ok", "yes")], "u03: not ok"),
        ([(BENCH, "utterances.9", factory.REMOVED)], "9 of 10 utterances in bench-titan.json"),
        ([(BENCH, "utterances.2.id", "u02")], "u03 is missing"),
        ([(BENCH, "utterances.2.text_sha256", "0")], "u03 spoke another text"),
        ([(BENCH, "utterances.2.wav", None)], "u03 has no WAV"),
        ([(BENCH, "utterances", "ten")], "0 of 10"),
        ([(BASELINE, "utterances.0.ok", False)], "9 of 10 utterances in baseline-panda.json"),
        ([(BASELINE, "utterances", [])], "0 of 10 utterances in baseline-panda.json"),
        (
            [("llm.json", "hosts.titan.closed", False)],
            "titan: the run ended inside the LLM's window",
        ),
        ([("llm.json", "hosts", {})], "titan: the run ended before the LLM's window was open"),
        ([("preflight.json", "checks.0.ok", False)], "titan: disk: free under /home/me"),
        ([(INSTALL, "import_ok", False)], "titan: chatterbox did not import"),
        ([(INSTALL, "guard.decision", "failed")], "the Blackwell guard decided 'failed'"),
        ([(INSTALL, "guard", None)], "the Blackwell guard decided None"),
        ([(INSTALL, "smoke.ok", False)], "the smoke utterance was not heard"),
        ([("run.json", "utterances", [])], "run.json names 0 utterances, 10 are needed"),
        ([("run.json", "hosts.standby", [])], "run.json names no standby host"),
        ([("run.json", "hosts.primary", [])], "run.json names no primary host"),
    ],
)
@pytest.mark.parametrize("rated", [False, True])
def test_what_is_incomplete(changes: list[Any], text: str, rated: bool) -> None:
    result = decide(changed(*changes, rated=rated))
    assert (result["verdict"], result["ok"]) == (rules.INVALID, False)
    (reason,) = [reason for reason in result["reasons"] if text in reason]
    assert "Next: " in reason


def test_what_was_not_reached_is_one_sentence_after_the_cause() -> None:
    documents = failed("preflight.json", "preflight")
    for name in ("llm.json", INSTALL, BENCH, BASELINE):
        del documents[name]
    cause, rest = decide(documents)["reasons"]
    assert "exact preflight text" in cause
    assert rest == (
        "llm.json, install-titan.json, bench-titan.json and baseline-panda.json are missing: "
        "the run did not get that far."
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ([("restored_at", None), ("timeline", [])], "its lease of 1800 s runs out"),
        ([("restored_at", None), ("lease", None)], "before the LLM's window was open"),
        ([("timeline", [{"event": "expired"}])], "it answered again at 2026-11-22T03:19:00Z"),
        ([("timeline", [{"event": "released"}]), ("restored_at", None)], "goes on bringing it"),
    ],
)
def test_a_window_that_nobody_closed(changes: list[tuple[str, Any]], text: str) -> None:
    result = decide(
        changed(
            ("llm.json", "hosts.titan.closed", False),
            *[("llm.json", f"hosts.titan.{key}", value) for key, value in changes],
        )
    )
    assert result["verdict"] == rules.INVALID
    assert text in said(result)
