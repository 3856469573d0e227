"""A listener with a keyboard and a real Chromium, who is killed half-way and comes back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from listener import CHROMIUM, NO_CHROMIUM, TYPED, Listener, expected
from listening_run import make
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)


def listener(playwright: Any, run_dir: Path, reference: Path) -> Listener:
    """Start the command on a run."""
    command = [
        sys.executable,
        "-m",
        "understudy",
        "listen",
        str(run_dir),
        "--reference",
        str(reference),
        "--result",
        str(run_dir.parent / "result.json"),
        "--owner",
        str(os.getpid()),
    ]
    return Listener(playwright, command)


@pytest.fixture
def playwright() -> Iterator[Any]:
    with sync_playwright() as started:
        yield started


def test_a_run_is_scored_by_keyboard_across_a_crash(playwright: Any, tmp_path: Path) -> None:
    run_dir, reference = make(tmp_path, 0.3)
    one = listener(playwright, run_dir, reference)
    one.sees("intro")
    one.press("ArrowRight")

    # Not before it was heard: neither scored nor left.
    one.title("Pair 1 of 13")
    one.press("3", "ArrowRight")
    one.title("Pair 1 of 13")
    one.has(".scale [aria-pressed=true]", 0)
    assert one.page.evaluate("document.querySelectorAll('.scale button:enabled').length") == 0

    # The first pair at its own speed.
    one.page.evaluate("window.rate = 1")
    one.score(1, *TYPED[0])
    assert one.page.evaluate("window.ended") == 3
    one.page.evaluate("window.rate = 16")

    one.score(2, *TYPED[1])
    one.title("Pair 3 of 13")
    one.hear(3)
    one.press("2")  # a slip, which is put right: back to A, and another number
    one.has('.scale[data-side=a] [data-score="2"][aria-pressed=true]', 1)
    one.press("a")
    one.has(".playing", 1)
    one.has(".playing", 0)
    one.press(str(TYPED[2][0]))
    one.has(f'.scale[data-side=a] [data-score="{TYPED[2][0]}"][aria-pressed=true]', 1)

    # A second window is told, and takes nothing.
    two = one.window()
    two.wait_for_selector("#view-taken:not([hidden])")
    two.close()

    plan = (run_dir / "listening/pass-1/plan.json").read_bytes()
    assert not one.errors
    one.kill()
    assert not (run_dir / "ratings.json").exists()

    again = listener(playwright, run_dir, reference)
    try:
        again.sees("trial")
        assert (run_dir / "listening/pass-1/plan.json").read_bytes() == plan
        again.title("Pair 3 of 13")
        again.has("#takes .heard", 3)
        assert "5 of 36" in again.page.inner_text("#count")
        again.press(str(TYPED[2][1]))
        again.has(f'.scale[data-side=b] [data-score="{TYPED[2][1]}"][aria-pressed=true]', 1)
        again.press("ArrowLeft")
        again.title("Pair 2 of 13")
        again.press("ArrowRight")
        again.title("Pair 3 of 13")
        again.press("ArrowRight")
        again.finish(3, "n")
        assert not again.errors
        ratings = json.loads((run_dir / "ratings.json").read_text())
        wanted = expected(run_dir)
        assert ratings["scores"] == wanted.pop("scores")
        assert {name: ratings["listener"][name] for name in wanted} == wanted
        assert ratings["identity_matches"] is False
        again.page.click("#end")
        again.sees("closed")
        assert again.server.wait(30) == 0
        result = json.loads((tmp_path / "result.json").read_text())
        assert (result["status"], result["passes"]) == ("finished", 1)
    finally:
        again.close()


def test_the_page_fits_a_phone_and_can_be_touched(playwright: Any, tmp_path: Path) -> None:
    run_dir, reference = make(tmp_path, 0.3)
    one = listener(playwright, run_dir, reference)
    try:
        page = one.page
        page.set_viewport_size({"width": 360, "height": 740})
        page.click("#begin")
        for side in ("r", "a", "b"):
            page.click(f"#takes [data-side={side}]")
            one.has(f"#takes .heard[data-side={side}]", 1)
        page.click('.scale[data-side=b] [data-score="4"]')
        one.has('.scale[data-side=b] [data-score="4"][aria-pressed=true]', 1)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        small = page.evaluate(
            "[...document.querySelectorAll('button')].filter((b) => b.offsetParent)"
            ".filter((b) => b.offsetHeight < 44 || b.offsetWidth < 44).map((b) => b.textContent)"
        )
        assert small == []
        page.click("#stop")
        one.sees("closed")
        assert one.server.wait(30) == 0
        assert json.loads((tmp_path / "result.json").read_text())["given"] == 1
    finally:
        one.close()


def test_a_server_that_is_gone_is_said(playwright: Any, tmp_path: Path) -> None:
    run_dir, reference = make(tmp_path, 0.3)
    one = listener(playwright, run_dir, reference)
    try:
        one.sees("intro")
        one.press("ArrowRight")
        one.title("Pair 1 of 13")
        one.server.kill()
        one.server.wait()
        one.page.wait_for_selector("#alert:not([hidden])")
        assert "Everything up to your last answer is saved" in one.page.inner_text("#alert")
    finally:
        one.close()
