"""Makes the project's code importable as Ansible and its users import it."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
import ansible.module_utils  # noqa: E402

if str(ROOT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

# Where compiled files appear, and whether, is the machine's setting; tests that list or fill a
# directory are to see the same everywhere.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

import pytest  # noqa: E402
import run_factory  # noqa: E402


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A complete, successful run of titan and panda that waits for its ratings."""
    return run_factory.write(tmp_path)
