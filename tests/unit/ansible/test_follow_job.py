"""How the action finds out that a background job is gone."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
JOB = "j123456789012.4711"


def action(path: Path) -> Any:
    """The action, with a shell that has nothing but what is in a directory."""
    spec = importlib.util.spec_from_file_location("follow", ROOT / "action_plugins/follow_job.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = object.__new__(module.ActionModule)

    def execute(command: str, **_: Any) -> dict[str, Any]:
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            check=False,
            env={"PATH": str(path)},
            text=True,
            capture_output=True,
        )
        return {"rc": ended.returncode, "stdout": ended.stdout, "stderr": ended.stderr}

    made._low_level_execute_command = execute
    return made


def test_a_job_is_alive_while_a_process_has_its_name(tmp_path: Path) -> None:
    found = shutil.which("grep")
    assert found
    (tmp_path / "grep").symlink_to(found)  # and no pgrep, as on a bare Debian
    follow = action(tmp_path)
    assert not follow._is_alive(JOB)
    name = JOB.partition(".")[0]
    wrapper = [sys.executable, "-c", "input()", "async_wrapper.py", name, "60"]
    with subprocess.Popen(wrapper, stdin=subprocess.PIPE) as job:
        assert follow._is_alive(JOB)
        job.communicate()
    assert not follow._is_alive(JOB)


def test_a_job_that_cannot_be_looked_for_is_not_gone(tmp_path: Path) -> None:
    assert action(tmp_path)._is_alive(JOB)
