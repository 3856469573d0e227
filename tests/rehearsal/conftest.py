"""The rehearsal's services, and one whole run, once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from in_rehearsal import Played, play


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a test the time of the run that it is the first to need, on a slow machine."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(1200), append=False)


@pytest.fixture(scope="session", autouse=True)
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    reports = tmp_path_factory.mktemp("services")
    started = play(reports, "playbooks/rehearsal.yml", "-e", "rehearsal_state=started")
    assert started.status == 0, started.output[-3000:]
    yield
    stopped = play(reports, "playbooks/rehearsal.yml", "-e", "rehearsal_state=stopped")
    assert stopped.status == 0, stopped.output[-3000:]


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    return tmp_path / "reports"


@pytest.fixture(scope="session")
def whole_run(rehearsal: None, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """One whole run in mode pause, with two warm-ups; the tests only look at it."""
    return play(
        tmp_path_factory.mktemp("whole"),
        "bench.yml",
        "-e",
        "gemma_mode=pause",
        "-e",
        "tts_bench_warmup=2",
    )
