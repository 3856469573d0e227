"""A person who listens: a real Chromium, and what is typed into it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NO_CHROMIUM = "no Chromium; next: apt install chromium (snap: chromium-browser)"
TIMEOUT_MS = 45_000

#: Plays everything to its end, but faster, with shorter pauses between, and counts the ends.
FAST = """
const later = window.setTimeout;
window.setTimeout = (call, ms, ...rest) => later(call, ms / (window.rate || 16), ...rest);
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

    def __init__(self, playwright: Any, command: list[str]) -> None:
        """Start what serves the page, and open it.

        Args:
            playwright: started.
            command: prints `open: URL` before anything else that begins so.
        """
        self.server = subprocess.Popen(
            command,
            cwd=ROOT,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        )
        assert self.server.stdout
        said = []
        for line in self.server.stdout:
            said.append(line)
            if line.strip().startswith("open: "):
                break
        assert said[-1].strip().startswith("open: http://127.0.0.1:"), "".join(said)
        self.url = said[-1].split()[1]
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
        page.on(
            "console",
            lambda message: self.errors.append(message.text) if message.type == "error" else None,
        )
        page.add_init_script(FAST)
        page.goto(self.url)
        return page

    def sees(self, view: str) -> None:
        self.page.wait_for_selector(f"#view-{view}:not([hidden])")

    def has(self, selector: str, count: int) -> None:
        self.until("([css, n]) => document.querySelectorAll(css).length === n", [selector, count])

    def until(self, condition: str, argument: object) -> None:
        """Wait for a condition in every frame that is drawn; `expect` looks once a second."""
        self.page.wait_for_function(condition, arg=argument)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def title(self, text: str) -> None:
        self.until("text => document.getElementById('title').textContent.trim() === text", text)

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

    def finish(self, answered: int, same: str) -> None:
        """Type the pairs that are left, the calls, and whether it is the same voice, y or n."""
        for number, (a, b) in enumerate(TYPED[answered:], answered + 1):
            self.score(number, a, b)
        self.sees("calls")
        self.press("ArrowRight")
        for number, noticed in enumerate(NOTICED, 1):
            self.answer(number, noticed)
        self.sees("question")
        self.press(same, "Enter")
        self.sees("done")

    def kill(self) -> None:
        self.server.send_signal(signal.SIGKILL)
        self.server.communicate()
        self.browser.close()

    def close(self) -> None:
        self.browser.close()
        if self.server.poll() is None:
            self.server.terminate()
        self.server.communicate(timeout=30)


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
            {
                "utterance": name,
                "pass": 1,
                "titan": dict(sides)["titan"],
                "panda": dict(sides)["panda"],
            }
            for name, *sides in sorted(rows["pair"])
        ],
        "impostor": [{"pass": 1, "utterance": impostor_at, "score": dict(impostor)["impostor"]}],
        "same_host": [{"pass": 1, "utterance": same_at, "host": "panda", "a": same_a, "b": same_b}],
        "repeats": [
            {
                "pass": 1,
                "utterance": repeat_at,
                "host": host,
                "first": first[host],
                "second": dict(again)[host],
            }
            for host in ("titan", "panda")
        ],
        "telephone": [
            {"pass": 1, "utterance": name, "noticed": calls[name]} for name in sorted(calls)
        ],
    }
