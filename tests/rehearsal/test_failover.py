"""Failover and failback on this machine: the same plays, with the rehearsal's services."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import httpx
from in_rehearsal import REHEARSAL, play, service
from waiting import until

ENVIRONMENT = REHEARSAL / "phone/voice-agent.env"
PANDA, TITAN = "http://127.0.0.1:8772", "http://127.0.0.1:8773"
QUICK_BACK = ["failback.yml", "-e", "failback_hold_down=0", "-e", "tts_route_hold_down_times=2"]


def speaks() -> bool:
    """Whether the primary is ready."""
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{PANDA}/health").status_code == 200
    return False


def test_there_and_back(tmp_path: Path) -> None:
    before = ENVIRONMENT.read_text()
    assert f"CHATTERBOX_URL={PANDA}" in before
    installed = play(tmp_path, "standby.yml")
    assert installed.status == 0, installed.output[-3000:]
    assert "STOPPED" in service("status", "standby")  # standby_state: cold
    assert play(tmp_path, "standby.yml").recap("titan")["changed"] == 0

    refused = play(tmp_path, "failover.yml")
    assert refused.status != 0
    assert "panda is healthy and speaks" in refused.text
    assert ENVIRONMENT.read_text() == before
    service("stop", "voice")
    try:
        over = play(tmp_path, "failover.yml")
        assert over.status == 0, over.output[-3000:]
        assert f"phone: titan speaks, heard through {TITAN}" in over.text
        assert ENVIRONMENT.read_text() == before.replace(PANDA, TITAN)
        record = json.loads((max((tmp_path / "switches").iterdir()) / "switch.json").read_text())
        assert record["times"]["heard_s"] > record["times"]["server_ready_s"] > 0
        assert play(tmp_path, "failover.yml").recap("phone")["changed"] == 0
        stays = play(tmp_path, *QUICK_BACK)
        assert stays.status != 0
        assert "panda spoke 0 of 2 times" in stays.text
    finally:
        service("start", "voice")
        until(speaks, 120, "the primary is ready again", every=0.5)
    back = play(tmp_path, *QUICK_BACK)
    assert back.status == 0, back.output[-3000:]
    assert ENVIRONMENT.read_text() == before
    assert "STOPPED" in service("status", "standby")
