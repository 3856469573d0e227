"""A listener with a keyboard and a real Chromium, who is killed half-way and comes back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import run_factory
from listening_run import make

sync_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_MS = 45_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium; next: apt install chromium (snap: chromium-browser)"
)

#: Plays everything to its end, but faster, and counts the ends.
FAST = """
const play = HTMLMediaElement.prototype.play;
window.ended = 0;
HTMLMediaElement.prototype.play = function () {
  this.playbackRate = window.rate || 16;
  this.onended = () => { window.ended += 1; };
  return play.call(this);
};
"""


class Listener:
    """The command, a browser, and what a person does at its keyboard."""

    def __init__(self, playwright: Any, run_dir: Path, reference: Path) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", "understudy", "listen", str(run_dir),
             "--reference", str(reference), "--result", str(run_dir.parent / "result.json"),
             "--owner", str(os.getpid())],
            stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "files/understudy/src")},
        )  # fmt: skip
        assert self.server.stderr
        line = self.server.stderr.readline()
        assert line.startswith("open: http://127.0.0.1:"), line
        self.url = line.split()[1]
        self.browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        self.errors: list[str] = []
        self.page = self.window()

    def window(self) -> Any:
        page = self.browser.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text)
                if message.type == "error" else None)  # fmt: skip
        page.add_init_script(FAST)
        page.goto(self.url)
        return page

    def sees(self, view: str) -> None:
        self.page.wait_for_selector(f"#view-{view}:not([hidden])")

    def has(self, selector: str, count: int) -> None:
        expect = sync_api.expect(self.page.locator(selector))
        expect.to_have_count(count, timeout=TIMEOUT_MS)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def title(self, text: str) -> None:
        sync_api.expect(self.page.locator("#title")).to_have_text(text, timeout=TIMEOUT_MS)

    def hear(self, count: int) -> None:
        self.press(" ")
        self.has("#takes .heard", count)
        self.has(".playing", 0)

    def score(self, number: int, a: int, b: int) -> None:
        """Hear and score the pair that is shown, and go on."""
        self.title(f"Pair {number} of 13")
        self.hear(3)
        self.press(str(a))
        self.has(f'.scale[data-side=a] [data-score="{a}"][aria-pressed=true]', 1)
        self.press(str(b))
        self.has(f'.scale[data-side=b] [data-score="{b}"][aria-pressed=true]', 1)
        self.press("ArrowRight")

    def answer(self, number: int, noticed: bool) -> None:
        """Hear and answer the call that is shown, and go on."""
        self.title(f"Call {number} of 10")
        self.hear(2)
        self.press("y" if noticed else "n")
        self.has(f'#notice [data-noticed="{str(noticed).lower()}"][aria-pressed=true]', 1)
        self.press("ArrowRight")

    def kill(self) -> None:
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.browser.close()

    def close(self) -> None:
        self.browser.close()
        if self.server.poll() is None:
            self.server.terminate()
        self.server.communicate(timeout=30)


@pytest.fixture
def playwright() -> Iterator[Any]:
    with sync_api.sync_playwright() as started:
        yield started


#: What is typed for A and B of the thirteen pairs, and for the ten calls.
TYPED = [(1 + n % 5, 1 + (3 * n + 1) % 5) for n in range(13)]
NOTICED = [n % 3 == 0 for n in range(10)]


def expected(run_dir: Path) -> dict[str, Any]:
    """What the key makes of what was typed, worked out apart from the program."""
    key = json.loads((run_dir / "listening/pass-1/key.json").read_text())["pairs"]
    rows = {kind: [] for kind in ("pair", "repeat", "same_host", "impostor", "telephone")}
    for n, (a, b) in enumerate(TYPED, 1):
        pair = key[f"t{n:02}"]
        rows[pair["kind"]].append((pair["utterance"], (pair["a"], a), (pair["b"], b)))
    calls = {key[f"c{n:02}"]["utterance"]: noticed for n, noticed in enumerate(NOTICED, 1)}
    [(impostor_at, *impostor)] = rows["impostor"]
    [(same_at, (_, same_a), (_, same_b))] = rows["same_host"]
    [(repeat_at, *again)] = rows["repeat"]
    first = next(dict(sides) for name, *sides in rows["pair"] if name == repeat_at)
    return {
        "scores": [
            {"utterance": name, "pass": 1, "titan": dict(sides)["titan"],
             "panda": dict(sides)["panda"]}
            for name, *sides in sorted(rows["pair"])
        ],
        "impostor": [{"pass": 1, "utterance": impostor_at, "score": dict(impostor)["impostor"]}],
        "same_host": [
            {"pass": 1, "utterance": same_at, "host": "panda", "a": same_a, "b": same_b}
        ],
        "repeats": [
            {"pass": 1, "utterance": repeat_at, "host": host, "first": first[host],
             "second": dict(again)[host]}
            for host in ("titan", "panda")
        ],
        "telephone": [
            {"pass": 1, "utterance": name, "noticed": calls[name]} for name in run_factory.IDS
        ],
    }  # fmt: skip


def test_a_run_is_scored_by_keyboard_across_a_crash(playwright: Any, tmp_path: Path) -> None:
    run_dir, reference = make(tmp_path, 0.3)
    one = Listener(playwright, run_dir, reference)
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

    again = Listener(playwright, run_dir, reference)
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
        for number, (a, b) in enumerate(TYPED[3:], 4):
            again.score(number, a, b)
        again.sees("calls")
        again.press("ArrowRight")
        for number, noticed in enumerate(NOTICED, 1):
            again.answer(number, noticed)
        again.sees("question")
        again.press("n", "Enter")
        again.sees("done")
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
    one = Listener(playwright, run_dir, reference)
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
    one = Listener(playwright, run_dir, reference)
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
