"""The server's figures in Prometheus' text form, in a registry of their own."""

from __future__ import annotations

import re

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

from understudy import __version__

#: Every way in which a request ends.
OUTCOMES = (
    "spoken",
    "cut_off",
    "silence",
    "bad_request",
    "unauthorized",
    "full",
    "deadline",
    "gone",
    "no_speech",
    "starting",
    "stopping",
    "error",
)

STATES = ("starting", "ready", "degraded", "failing")


class Metrics:
    """Counters that the server raises, and gauges that it sets before they are read.

    Attributes:
        requests: for speech, by outcome.
        retries: syntheses repeated with another seed, by reason.
        synthesis: wall time of a whole text that was spoken, repetitions left out, in seconds.
        audio: seconds of audio made for callers.
        waiting: requests in the queue.
        last_good: seconds since the last speech that passed the checks; -1 before the first.
        state: one of `STATES`.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("understudy", "The package.", registry=registry).info({"version": __version__})
        self.requests = Counter(
            "understudy_requests",
            "Requests for speech, by outcome.",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.retries = Counter(
            "understudy_retries",
            "Syntheses repeated with another seed, by reason.",
            ["reason"],
            registry=registry,
        )
        self.synthesis = Histogram(
            "understudy_synthesis_seconds",
            "Wall time of a text that was spoken.",
            buckets=(0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 20, 30, 60),
            registry=registry,
        )
        self.audio = Counter(
            "understudy_audio_seconds", "Audio made for callers.", registry=registry
        )
        self.waiting = Gauge("understudy_waiting", "Requests in the queue.", registry=registry)
        self.last_good = Gauge(
            "understudy_last_good_age_seconds",
            "Since the last speech that passed; -1 for never.",
            registry=registry,
        )
        self.state = Enum(
            "understudy_state", "How the voice is.", states=list(STATES), registry=registry
        )

    def retried(self, problem: str) -> None:
        """Count a repetition; the reason is a problem's sentence without its figures."""
        reason = re.split(r":| for | at | after ", problem, maxsplit=1)[0]
        self.retries.labels(reason).inc()

    def text(self) -> bytes:
        """Return all of them as they stand."""
        return generate_latest(self._registry)
