"""Where the time of a run went."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from understudy.verdict.run_directory import Run, number, rows, seconds

KINDS = ("install", "model_load", "synthesis", "llm_probe", "comparison")

Interval = tuple[float, float]


def union(intervals: Iterable[Interval]) -> float:
    """Return the length of the union of intervals, in the unit of their ends."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def split(run: Run) -> dict[str, Any]:
    """Return the ``timing`` of a verdict, in seconds.

    The run ends at run.json's ``finished_at`` or, as long as that is null, with
    the last phase that finished. Intervals of different hosts are laid over each
    other as they are: their clocks are taken to agree.
    """
    spans: dict[str, list[Interval]] = {kind: [] for kind in KINDS}
    ends: list[float] = []
    for name, document in run.documents.items():
        for row in rows(document.get("busy")):
            start, end, what = number(row.get("start")), number(row.get("end")), row.get("what")
            if start is not None and end is not None and start <= end and what in KINDS:
                spans[str(what)].append((start, end))
        finished = seconds(document.get("finished_at"))
        if finished is not None and name != "run.json":
            ends.append(finished)
    begun = seconds(run.get("run.json", "started_at"))
    ended = seconds(run.get("run.json", "finished_at")) or max(ends, default=None)
    total = None if begun is None or ended is None else max(0.0, ended - begun)
    everything = union(span for kind in KINDS for span in spans[kind])
    busy = union(span for kind in KINDS if kind != "install" for span in spans[kind])
    parts: dict[str, float | None] = {kind: round(union(spans[kind]), 3) for kind in KINDS}
    parts["other"] = None if total is None else round(max(0.0, total - everything), 3)
    return {
        "total_s": None if total is None else round(total, 3),
        "busy_s": round(busy, 3),
        "split": parts,
        "ratio": round(total / everything, 3) if total is not None and everything > 0 else None,
    }
