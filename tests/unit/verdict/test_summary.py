"""The lines that a play ends with."""

from __future__ import annotations

from pathlib import Path

from decided import changed, decide

from understudy.verdict.summary import summarise

RUN = Path("/reports/20261122-031500Z")


def test_verdict_reasons_time_and_report_in_this_order() -> None:
    verdict = decide(changed())
    lines = summarise(verdict, RUN)
    assert lines[0] == f"verdict: {verdict['verdict']} (ok)"
    assert lines[1 : 1 + len(verdict["reasons"])] == verdict["reasons"]
    assert lines[-2].startswith("time: 600 s; 200 s installing, 20 s loading models, 160 s")
    assert lines[-2].endswith("210 s Ansible and the rest (1.54 x)")
    assert lines[-1] == f"report: {RUN}/report.html"


def test_what_took_no_time_is_left_out() -> None:
    timing = decide(changed())["timing"]
    timing["split"] |= {"install": 0.0, "comparison": 4.6}
    [line] = [
        row
        for row in summarise(decide(changed()) | {"timing": timing}, RUN)
        if row.startswith("time: ")
    ]
    assert "installing" not in line
    assert "5 s comparing the voices" in line


def test_a_run_of_unknown_length_has_no_such_line() -> None:
    assert not any(line.startswith("time: ") for line in summarise(decide({}), RUN))


def test_a_verdict_that_is_doubted_says_so() -> None:
    human = {"state": "stale", "why": ["The lock is another one."]}
    lines = summarise(decide(changed()) | {"human": human, "warnings": ["One pass only."]}, RUN)
    assert "warning: One pass only." in lines
    assert "the listener's verdict is stale: The lock is another one." in lines
