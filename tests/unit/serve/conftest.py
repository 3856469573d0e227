"""A voice and its references, for what serves them."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback import FakeVoice, make_voices


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    return make_voices(tmp_path / "voices")


@pytest.fixture
def voice() -> FakeVoice:
    return FakeVoice()
