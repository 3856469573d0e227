"""What a play ends with: the verdict in a few lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Characters of a line; the whole text is in verdict.json.
LONGEST = 2000

#: Control characters, but the tab and the line feed.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def summarise(verdict: Mapping[str, Any], run_dir: Path) -> list[str]:
    """Return the lines that a play ends with."""
    evidence, human = verdict["evidence"], verdict["human"]
    lines = (
        [f"evidence: {evidence['level']}. {' '.join(evidence['reasons'][:2])}"] if evidence else []
    )
    lines += [f"warning: {warning}" for warning in verdict["warnings"]]
    if human and human["state"] != "stands":
        lines.append(f"the listener's verdict is {human['state']}: {' '.join(human['why'])}")
    lines = [
        f"verdict: {verdict['verdict']} ({'ok' if verdict['ok'] else 'not ok'})",
        *verdict["reasons"],
        *lines,
        *_time(verdict["timing"]),
        f"report: {run_dir / 'report.html'}",
    ]
    return [_shown(line) for line in lines]


def _shown(line: str) -> str:
    """Return a line for a terminal, which what a file of the run says cannot steer."""
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", line)


def _time(timing: Mapping[str, Any]) -> list[str]:
    """Return the line that says where the run's time went, if that is known."""
    if not timing.get("total_s") or not timing.get("ratio"):
        return []
    parts = timing["split"]
    shares = [
        f"{parts[key]:.0f} s {text}"
        for key, text in (
            ("install", "installing"),
            ("model_load", "loading models"),
            ("synthesis", "speaking"),
            ("llm_probe", "asking the LLM"),
            ("comparison", "comparing the voices"),
        )
        if parts.get(key)
    ]
    return [
        f"time: {timing['total_s']:.0f} s; {', '.join(shares)} (some at once); "
        f"{parts['other']:.0f} s Ansible and the rest ({timing['ratio']:.2f} x)"
    ]
