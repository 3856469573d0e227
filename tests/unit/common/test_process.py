"""When a process was started, and whether it is alive."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from understudy.common import process


def test_a_process_is_named_by_its_start_as_long_as_it_lives() -> None:
    assert process.start_of(os.getpid()) == process.start_of(os.getpid()) != ""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process.start_of(child.pid).isdigit()
        assert process.started_at(child.pid) == pytest.approx(time.time(), abs=0.5)
        assert child.stdin
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.start_of(child.pid) == ""  # it has ended, and nobody asked how
    assert process.start_of(child.pid) == ""
    with pytest.raises(ProcessLookupError, match=f"process {child.pid} has ended"):
        process.started_at(child.pid)


def test_a_containers_own_uptime_is_not_mixed_with_the_kernels_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Path.read_text

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        return "1.00 1.00\n" if str(path) == "/proc/uptime" else real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process.started_at(child.pid) == pytest.approx(time.time(), abs=0.5)
        assert 0 <= process.age_s(child.pid) < 0.5
