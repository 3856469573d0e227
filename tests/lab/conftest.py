"""Fixtures of the lab's tests, and the table at their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_lab import TIMES, inside, lab, llm_answers

#: The bench installs what the others need. The failovers, which are timed, come last: CI runs the
#: rehearsal's tests beside the first ones.
ORDER = ("test_bench", "test_window", "test_lab", "test_failover", "test_control")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: ORDER.index(item.path.stem) if item.path.stem in ORDER else -1)


def pytest_collection_finish(session: pytest.Session) -> None:
    """With --collect-only, show what CI leaves out, and why."""
    if session.config.option.collectonly:
        for item in session.items:
            for mark in item.iter_markers("long"):
                print(f"{item.name}: {mark.kwargs['reason']}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TIMES:
        terminalreporter.section("Gemma answered again after")
        for what, seconds in TIMES.items():
            terminalreporter.write_line(f"{seconds:5.0f} s  {what}")


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture
def mended() -> Iterator[None]:
    """Leaves both hosts reachable and everything running, whatever the test did."""
    yield
    for host in ("titan", "panda"):
        lab("mend", host)
    inside("titan", "docker start vllm-gemma4")
    assert llm_answers()
