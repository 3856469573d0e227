"""The voice worker: the one thread that may touch the model, and the state of the voice.

All work on the model runs on one thread, in the order of arrival: upstream keeps the
voice in shared state, and there is one device.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from understudy import __version__
from understudy.common import process
from understudy.common.times import utc_now
from understudy.model.types import Stopped, Synthesis, Tuning
from understudy.serve.canary import fresh_sentence
from understudy.serve.config import ServerConfig
from understudy.serve.jobs import Job, JobQueue, Unavailable
from understudy.serve.metrics import Metrics
from understudy.serve.synthesis import (
    BadVoice,
    DeviceLost,
    LoadedVoice,
    ModelError,
    NoSpeech,
    TextSynthesizer,
    one_line,
)
from understudy.serve.voice_files import VoiceFiles

#: So many of the last texts may need another seed before the voice is degraded.
RETRIES_TOO_MANY = 5

#: For how long a full queue is reported.
FULL_REMEMBERED_S = 300.0

#: The first pause before a failing voice's next self-test; doubled up to the second.
BACK_OFF_S, BACK_OFF_MAX_S = 5.0, 300.0

log = logging.getLogger("understudy.server")


class VoiceWorker:
    """The model, what became of it, and the only thread that may touch it.

    Attributes:
        queue: the requests.
        files: the voices that a request can name.
        synthesizer: the loaded model, and what is known of its texts.
        fatal: why only a new process can speak; set once, and then the thread ends.
        on_fatal: called when it is set.
        error: why it is failing.
        instance: random name of this process, so that a restart is noticed.
        served: requests answered with speech.
        refused: requests answered with a 503.
    """

    def __init__(
        self, config: ServerConfig, load: Callable[[], LoadedVoice], metrics: Metrics | None = None
    ) -> None:
        self.fatal: str | None = None
        self.error: str | None = None
        self.instance = uuid.uuid4().hex
        self.served = self.refused = 0
        self.metrics = metrics or Metrics()
        self.queue = JobQueue(config.queue, config.deadline_s)
        self.files = VoiceFiles(config.voices_dir, config.default_voice)
        self.synthesizer = TextSynthesizer(self.files, self.metrics)
        self.on_fatal: Callable[[], None] = lambda: None

        self._config, self._load = config, load
        self._started_at = utc_now()
        self._ready_after_s: float | None = None
        self._busy_since: float | None = None
        self._asked_at: float | None = None
        self._thread = threading.Thread(target=self._work, name="synthesis", daemon=True)

        self._last_good: float | None = None
        self._doubt: str | None = None
        self._test_at = math.inf
        self._failures = self._failed_tests = 0

    # What the server calls, from its event loop.

    def start(self) -> None:
        """Load the model and run its first self-test, in the background."""
        self._thread.start()

    def stop(self, wait_s: float = 0.0) -> None:
        """Answer whoever still waits with `Unavailable`, and abandon what runs.

        Args:
            wait_s: how long to wait for the thread to end.
        """
        self.queue.stop()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def end(self, reason: str) -> None:
        """Answer everybody who waits: only a new process can speak. Safe on any thread."""
        self.fatal = reason
        log.critical("%s; ending", reason)
        self.queue.stop()
        self.on_fatal()

    @property
    def running(self) -> bool:
        """Whether the thread has not ended yet."""
        return self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread can still be expected to do something."""
        return self.running and not self._stuck()

    async def say(self, text: str, reference: Path, tuning: Tuning) -> Synthesis:
        """Return checked speech, when its turn has come.

        Cancelling it takes the request out of the queue, or stops the synthesis.

        Raises:
            Unavailable: not now, and why.
            BadVoice: there is no voice in its file.
        """
        self._asked_at = time.monotonic()
        deadline = self._asked_at + self._config.deadline_s
        job = Job(text, reference, tuning, deadline)
        try:
            if self.fatal:
                raise Unavailable("error", self.fatal)
            if self.synthesizer.voice is None:
                raise Unavailable("starting", "the model is loading")
            self.queue.accept(job)
            said = await asyncio.wait_for(asyncio.wrap_future(job.future), self._config.deadline_s)
        except TimeoutError:
            self.refused += 1
            raise self.queue.late(job) from None
        except Unavailable:
            self.refused += 1
            raise
        finally:
            self.queue.give_up(job)
        self.served += 1
        return said

    def health(self) -> dict[str, Any]:
        """Return the body of ``/health``."""
        voice = self.synthesizer.voice
        info = voice.info if voice else {}
        state, reasons = self.judge()
        age = self._age()
        return {
            "state": state,
            "instance": self.instance,
            "ready": state in ("ready", "degraded"),
            "reasons": reasons,
            "model": info.get("model"),
            "device": info.get("device", self._config.device),
            "rehearsal": info.get("rehearsal"),
            "default_voice": self._config.default_voice,
            "voice_sha256": self.synthesizer.default_sha256,
            "last_good_age_s": None if age is None else round(age, 1),
            "last_request_age_s": (
                None if self._asked_at is None else round(time.monotonic() - self._asked_at, 1)
            ),
            "busy": self._busy_since is not None,
            "waiting": len(self.queue),
            "served": self.served,
            "refused": self.refused,
            "retries": self.synthesizer.retries,
            "started_at": self._started_at,
            "ready_after_s": self._ready_after_s,
            "version": __version__,
            "error": self.fatal or self.error,
        }

    @property
    def state(self) -> str:
        """``starting``, ``ready``, ``degraded`` or ``failing``."""
        return self.judge()[0]

    def judge(self) -> tuple[str, list[str]]:
        """Return the state and the reasons for it, as sentences; none for ``ready``."""
        if stuck := self._stuck():
            return "failing", [stuck]
        if error := self.fatal or self.error:
            return "failing", [error]
        if self._last_good is None:
            loaded = self.synthesizer.voice is not None
            return "starting", ["self-test pending" if loaded else "the model is loading"]
        reasons = self._concerns()
        return ("degraded" if reasons else "ready"), reasons

    def measure(self) -> None:
        """Set the gauges."""
        self.metrics.waiting.set(len(self.queue))
        age = self._age()
        self.metrics.last_good.set(-1 if age is None else age)
        self.metrics.state.state(self.state)

    def _concerns(self) -> list[str]:
        """Return what an operator should know of a voice that speaks."""
        concerns = []
        if self._doubt:
            concerns.append(
                f"the last request produced no usable speech ({self._doubt}); self-test pending"
            )
        if self.synthesizer.default_problem:
            concerns.append(self.synthesizer.default_problem)
        repeated = list(self.synthesizer.repeated)  # a copy: the thread appends
        if sum(repeated) >= RETRIES_TOO_MANY:
            concerns.append(f"{sum(repeated)} of the last {len(repeated)} texts needed a retry")
        now = time.monotonic()
        full = sum(now - then < FULL_REMEMBERED_S for then in self.queue.full_at)
        if full:
            concerns.append(
                f"{full} requests found the queue full in the last {FULL_REMEMBERED_S:.0f} s"
            )
        interval, age = self._config.proof_interval_s, self._age()
        if interval and age is not None and age > 2 * interval + self._config.deadline_s:
            concerns.append(
                f"no good synthesis and no self-test for longer than {2 * interval:g} s"
            )
        return concerns

    def _age(self) -> float | None:
        """Return the seconds since the last good synthesis."""
        return None if self._last_good is None else time.monotonic() - self._last_good

    def _stuck(self) -> str | None:
        """Return a sentence if the synthesis that runs will not come back."""
        since, bound = self._busy_since, self._config.stuck_s
        if since is None or time.monotonic() - since <= bound:
            return None
        return f"a synthesis is stuck: it takes longer than {bound:g} s"

    # What happens on the thread.

    def _work(self) -> None:
        """Load, test, and then speak until stopped; whatever ends it before is fatal."""
        try:
            self._load_and_speak()
        except BaseException:  # SystemExit, too
            log.exception("the synthesis thread has ended")
            self.end("the synthesis thread has ended; see the log")

    def _load_and_speak(self) -> None:
        began = time.monotonic()
        try:
            self.synthesizer.voice = self._load()
        except Exception as error:
            log.exception("the model could not be loaded")
            self.end(f"loading the model: {one_line(error)}")
            return
        log.info("model loaded in %.1f s", time.monotonic() - began)
        self._self_test()
        while not self.queue.stopped:
            job = self.queue.next(self._test_at)
            if job is None:
                self._self_test()
            else:
                self._serve(job)

    def _serve(self, job: Job) -> None:
        """Speak for a caller."""

        def should_stop() -> bool:
            return self.queue.stopped or job.given_up or time.monotonic() > job.deadline

        try:
            result: Synthesis | Exception = self._say(
                job.text, job.reference, job.tuning, should_stop
            )
        except Stopped:
            log.info("abandoned after %s", "the deadline" if not job.given_up else "a hang-up")
            result = self.queue.stopping() if self.queue.stopped else self.queue.late(job)
        except BadVoice as error:
            result = error
        except (NoSpeech, ModelError) as error:
            # The text may be at fault; a self-test finds out whether the model is.
            self._doubt, self._test_at = str(error), time.monotonic()
            result = Unavailable("no_speech", str(error))
        except DeviceLost as error:
            self.queue.finish(job, Unavailable("error", str(error)))
            self.end(f"the device is lost: {error}")
            return
        except Exception as error:  # a fault of ours must not end the thread
            log.exception("not spoken")
            result = Unavailable("error", one_line(error))
        self.queue.finish(job, result)

    def _self_test(self) -> None:
        """Say a fresh sentence with the default voice; a caller has precedence once it spoke."""

        def should_stop() -> bool:
            return self.queue.stopped or (self._last_good is not None and bool(len(self.queue)))

        try:
            reference = self.files.find(self._config.default_voice)
            self._say(fresh_sentence(), reference, self._config.default_tuning, should_stop)
        except Stopped:
            self._test_at = time.monotonic()
        except DeviceLost as error:
            self.end(f"the device is lost: {error}")
        except (NoSpeech, ModelError) as error:
            # Memory that others hold comes back, and a new process would have to find more of it.
            self._failed(str(error), anew=not getattr(error, "out_of_memory", False))
        except (LookupError, BadVoice) as error:  # the voice's file, which may be put right
            self._failed(error.args[0], anew=False)
        except Exception as error:
            self._failed(one_line(error))

    def _say(
        self, text: str, reference: Path, tuning: Tuning, should_stop: Callable[[], bool]
    ) -> Synthesis:
        """Speak a text, piece by piece.

        Raises:
            BadVoice: there is no voice in its file.
            NoSpeech: the voice cannot be used, or a piece was no speech in all attempts.
            ModelError: the model raised in all attempts.
            DeviceLost: nothing in this process can speak again.
            Stopped: nobody wants it any more.
        """
        began = self._busy_since = time.monotonic()
        try:
            said = self.synthesizer.speak(text, reference, tuning, should_stop)
        finally:
            self._busy_since = None
        wall = time.monotonic() - began
        self.queue.spoke(len(text), wall)
        seconds = len(said.samples) / said.rate
        log.info("%d characters, %.2f s of audio in %.2f s", len(text), seconds, wall)
        self._spoke()
        return said

    def _spoke(self) -> None:
        """Record that it was speech."""
        now = time.monotonic()
        if self._ready_after_s is None:
            self._ready_after_s = round(process.age_s(os.getpid()), 1)
        self._last_good, self.error, self._doubt = now, None, None
        self._failures = self._failed_tests = 0
        self._test_at = now + (self._config.proof_interval_s or math.inf)

    def _failed(self, error: str, *, anew: bool = True) -> None:
        """Record that it did not speak, and when to try again.

        Args:
            error: what was seen.
            anew: whether a new process may do better; one is asked for after
                ``max_failed_self_tests``.
        """
        self._failed_tests += anew
        limit = self._config.max_failed_self_tests
        if anew and limit and self._failed_tests >= limit:
            self.end(f"{self._failed_tests} self-tests failed in a row, the last one: {error}")
            return
        pause = min(BACK_OFF_S * 2**self._failures, BACK_OFF_MAX_S)
        self.error, self._failures = error, min(self._failures + 1, 16)
        self._test_at = time.monotonic() + pause
        log.error("not ready: %s; next self-test in %.0f s", error, pause)
