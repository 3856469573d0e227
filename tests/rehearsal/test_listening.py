"""A listener scores a run that was really spoken, and the verdict is what the rule demands."""

from __future__ import annotations

import json
import os
import shutil
import signal
from fractions import Fraction
from pathlib import Path

import played
import pytest
from in_rehearsal import INVENTORY, Played
from listener import CHROMIUM, NO_CHROMIUM, TYPED, Listener, expected
from playwright.sync_api import sync_playwright

RULE = {
    True: "titan_chatterbox_redundancy_validated",
    False: "titan_chatterbox_diverges_from_panda_investigate",
}


@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_a_listener_is_killed_half_way_and_gets_the_verdict(
    whole_run: Played, reports: Path
) -> None:
    shutil.copytree(whole_run.reports, reports, symlinks=True)
    run_dir = (reports / "latest").resolve()
    score = ["ansible-playbook", *INVENTORY, "score.yml", "-e", f"run_reports_dir={reports}"]
    with sync_playwright() as playwright:
        one = Listener(playwright, score)
        one.sees("intro")
        one.press("ArrowRight")
        for number, (a, b) in enumerate(TYPED[:6], 1):
            one.score(number, a, b)
        one.title("Pair 7 of 13")
        os.kill(one.server.pid, signal.SIGKILL)  # the page has to end by itself
        one.server.wait()
        one.page.wait_for_selector("#alert:not([hidden])")
        one.browser.close()
        assert not (run_dir / "ratings.json").exists()
        verdict = json.loads((run_dir / "verdict.json").read_text())
        assert verdict["verdict"] == "awaiting_ab_scores"

        again = Listener(playwright, score)
        try:
            again.sees("trial")
            again.finish(6, "y")
            again.page.click("#end")
            again.sees("closed")
            output, _ = again.server.communicate(timeout=120)
        finally:
            again.close()
    rows = expected(run_dir)["scores"]
    off = Fraction(sum(row["titan"] - row["panda"] for row in rows), len(rows))
    verdict = json.loads((run_dir / "verdict.json").read_text())
    assert verdict["verdict"] == RULE[abs(off) < Fraction(1, 2)]
    assert verdict["ratings"]["differences"]["titan"] == pytest.approx(float(off))
    assert verdict["evidence"]["level"] in ("weak", "moderate", "strong")
    assert verdict["human"]["state"] == "stands"
    scored = played.Played(again.server.returncode, output, reports)
    assert f"verdict: {verdict['verdict']}" in scored.output
    assert scored.status == (0 if verdict["ok"] else 2)
