"""The model behind the server: a bounded queue, one thread, and what became of the speech.

All work on the model runs on one thread, in the order of arrival: upstream keeps the
voice in shared state, and there is one device.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from understudy import __version__
from understudy.audio import speech_check
from understudy.common.jsonio import utc_now
from understudy.model.types import Stopped, Synthesis, Tuning
from understudy.serve.canary import fresh_sentence
from understudy.serve.config import ServerConfig
from understudy.serve.metrics import Metrics
from understudy.serve.text_split import split_text

MAX_RETRIES = 2

#: Silence between two pieces of a text; what they bring along counts.
PAUSE_S = 0.25

#: Of so many utterances so many may need another seed before somebody should know.
RETRY_WINDOW, RETRIES_TOO_MANY = 20, 5

#: How long a full queue is worth mentioning.
FULL_REMEMBERED_S = 300.0

#: The first pause before a voice that failed is proved again; doubled up to the second.
BACK_OFF_S, BACK_OFF_MAX_S = 5.0, 300.0

log = logging.getLogger("understudy.server")


class Unavailable(Exception):
    """There is no speech for this request now; asked again later there may be.

    Attributes:
        outcome: one of `metrics.OUTCOMES`.
        retry_after_s: when asking again is worth it.
    """

    def __init__(self, outcome: str, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.outcome, self.retry_after_s = outcome, retry_after_s


class Voice(Protocol):
    """What the server needs of a loaded model (`understudy.model.voice.Voice` is one)."""

    info: dict[str, Any]

    def use_reference(self, path: Path, exaggeration: float) -> str:
        """Speak with the voice of a recording from now on; returns its SHA-256."""

    def reuse_reference(self, path: Path) -> bool:
        """Speak as a file sounded when it was last read, if it ever was."""

    def speak(
        self, text: str, *, seed: int, tuning: Tuning, should_stop: Callable[[], bool] | None = None
    ) -> Synthesis:
        """Synthesise one utterance; raises `Stopped` when told to stop."""


class NoSpeech(Exception):
    """A text was not spoken; the model may be well."""


class ModelError(Exception):
    """The model raised, however often it was asked."""


@dataclass(eq=False)
class Job:
    """One accepted request.

    Attributes:
        text: to be said.
        reference: file of the voice.
        tuning: how.
        deadline: monotonic time after which nobody wants it any more.
        future: receives the speech, or `Unavailable`.
        given_up: the caller is gone.
    """

    text: str
    reference: Path
    tuning: Tuning
    deadline: float
    future: Future[Synthesis] = field(default_factory=Future)
    given_up: bool = False


class Speaker:
    """The model, what became of it, and the only thread that may touch it.

    Attributes:
        voice: the loaded model; None before.
        fatal: why it could not be loaded; set once, and then the thread has ended.
        error: why it is failing.
        draining_since: monotonic time of the order to stop; nothing is accepted after it.
        served: requests answered with speech.
        refused: requests answered with a 503.
        retries: syntheses that were repeated with another seed.
    """

    def __init__(
        self, config: ServerConfig, load: Callable[[], Voice], metrics: Metrics | None = None
    ) -> None:
        self.voice: Voice | None = None
        self.fatal: str | None = None
        self.error: str | None = None
        self.draining_since: float | None = None
        self.served = self.refused = self.retries = 0
        self.metrics = metrics or Metrics()
        self.on_fatal: Callable[[], None] = lambda: None

        self._config, self._load = config, load
        self._default: Path | None = None
        self._started_at = utc_now()
        self._ready_after_s: float | None = None
        self._voice_sha256: str | None = None
        self._voice_problem: str | None = None

        self._waiting: deque[Job] = deque()
        self._turn = threading.Condition()
        self._stopped = False
        self._running: Job | None = None
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._work, name="synthesis", daemon=True)

        self._last_good: float | None = None
        self._unproven: str | None = None
        self._prove_at = math.inf
        self._failures = 0
        self._repeated: deque[bool] = deque(maxlen=RETRY_WINDOW)
        self._full_at: deque[float] = deque(maxlen=1000)
        self._pace_s = 0.03  # per character; corrected by every synthesis

    # What the server calls, from its event loop.

    def start(self) -> None:
        """Load the model and prove it, in the background."""
        self._thread.start()

    def stop(self, wait_s: float = 0.0) -> None:
        """Answer whoever still waits with `Unavailable`, and abandon what runs.

        Args:
            wait_s: how long to wait for the thread to end.
        """
        with self._turn:
            self._stopped = True
            jobs = [*self._waiting, *([self._running] if self._running else [])]
            self._waiting.clear()
            self._turn.notify_all()
        for job in jobs:
            with suppress(InvalidStateError):
                job.future.set_exception(self._stopping())
        if self._thread.is_alive():
            self._thread.join(wait_s)

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
        """
        deadline = time.monotonic() + self._config.deadline_s
        job = Job(text, reference, tuning, deadline)
        try:
            self._accept(job)
            said = await asyncio.wait_for(asyncio.wrap_future(job.future), self._config.deadline_s)
        except TimeoutError:
            self.refused += 1
            raise self._late(job) from None
        except Unavailable:
            self.refused += 1
            raise
        finally:
            self._give_up(job)
        self.served += 1
        return said

    def find(self, name: str) -> Path:
        """Return the file of a voice; see `find_voice`.

        The default voice is found, too, while it is only remembered.
        """
        is_default = name == self._config.default_voice
        try:
            path = find_voice(self._config.voices_dir, name)
        except LookupError:
            if is_default and self._default:
                return self._default
            raise
        if is_default:
            self._default = path
        return path

    def health(self) -> dict[str, Any]:
        """Return the body of ``/health``."""
        info = self.voice.info if self.voice else {}
        state, reasons = self.judge()
        age = self._age()
        return {
            "state": state,
            "ready": state in ("ready", "degraded"),
            "reasons": reasons,
            "model": info.get("model"),
            "device": info.get("device", self._config.device),
            "rehearsal": info.get("rehearsal"),
            "default_voice": self._config.default_voice,
            "voice_sha256": self._voice_sha256,
            "last_good_age_s": None if age is None else round(age, 1),
            "busy": self._busy_since is not None,
            "waiting": len(self._waiting),
            "served": self.served,
            "refused": self.refused,
            "retries": self.retries,
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
        if self._thread.ident and not (self.running or self.fatal or self._stopped):
            return "failing", ["the synthesis thread has ended; see the log"]
        if error := self.fatal or self.error:
            return "failing", [error]
        if self._last_good is None:
            return "starting", ["the voice was not heard yet" if self.voice else "it is loading"]
        reasons = self._concerns()
        return ("degraded" if reasons else "ready"), reasons

    def measure(self) -> None:
        """Set the gauges."""
        self.metrics.waiting.set(len(self._waiting))
        age = self._age()
        self.metrics.last_good.set(-1 if age is None else age)
        self.metrics.state.state(self.state)

    def _concerns(self) -> list[str]:
        """Return what an operator should know of a voice that speaks."""
        concerns = []
        if self._unproven:
            concerns.append(f"the last text came out as no speech ({self._unproven}); to be proved")
        if self._voice_problem:
            concerns.append(self._voice_problem)
        repeated = list(self._repeated)  # a copy: the thread appends
        if sum(repeated) >= RETRIES_TOO_MANY:
            concerns.append(f"{sum(repeated)} of the last {len(repeated)} texts needed a retry")
        now = time.monotonic()
        full = sum(now - then < FULL_REMEMBERED_S for then in self._full_at)
        if full:
            concerns.append(
                f"{full} requests found the queue full in the last {FULL_REMEMBERED_S:.0f} s"
            )
        interval, age = self._config.proof_interval_s, self._age()
        if interval and age is not None and age > 2 * interval + self._config.deadline_s:
            concerns.append(f"no good synthesis for longer than {2 * interval:g} s, nor a proof")
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

    # The queue.

    def _accept(self, job: Job) -> None:
        """Put a job at the end of the queue.

        Raises:
            Unavailable: there is no model, no room, or no future.
        """
        if self.voice is None:
            raise Unavailable("starting", self.fatal or "the model is loading")
        with self._turn:
            if self._stopped or self.draining_since is not None:
                raise self._stopping()
            # An idle thread takes the job at once, so it does not wait.
            ahead = len(self._waiting) + (self._running is not None)
            if ahead > self._config.queue:
                self._full_at.append(time.monotonic())
                raise Unavailable(
                    "full", f"the queue is full: {len(self._waiting)} wait", self._backlog_s()
                )
            self._waiting.append(job)
            self._turn.notify_all()

    def _give_up(self, job: Job) -> None:
        """Take a job whose caller has an answer, or is gone, out of the queue."""
        job.given_up = True
        with self._turn, suppress(ValueError):
            self._waiting.remove(job)

    def _backlog_s(self) -> int:
        """Return in how many seconds all that is accepted will have been spoken, about."""
        running = [self._running] if self._running else []
        characters = sum(len(job.text) for job in (*self._waiting, *running))
        return min(max(math.ceil(self._pace_s * characters), 1), 120)

    def _late(self, job: Job) -> Unavailable:
        """Return the refusal for a job that was not done in time."""
        seconds = self._config.deadline_s
        with self._turn:
            where = "in the queue" if job in self._waiting else "being spoken"
            again = self._backlog_s()
        return Unavailable("deadline", f"not done within {seconds:g} s: still {where}", again)

    def _stopping(self) -> Unavailable:
        return Unavailable("stopping", "the server is stopping")

    def _next(self) -> Job | None:
        """Wait for the next job; None when the voice is to prove itself, or all is over."""
        with self._turn:
            while not self._stopped:
                while self._waiting:
                    job = self._waiting.popleft()
                    if job.future.set_running_or_notify_cancel():
                        self._running = job
                        return job
                pause = self._prove_at - time.monotonic()
                if pause <= 0:
                    return None
                self._turn.wait(min(pause, 3600.0))
        return None

    # What happens on the thread.

    def _work(self) -> None:
        """Load, prove, and then speak until stopped."""
        began = time.monotonic()
        try:
            self.voice = self._load()
        except Exception as error:
            log.exception("the model could not be loaded")
            self.fatal = f"loading the model: {_one_line(error)}"
            self.on_fatal()
            return
        log.info("model loaded in %.1f s", time.monotonic() - began)
        self._prove()
        while not self._stopped:
            job = self._next()
            if job is None:
                self._prove()
            else:
                self._serve(job)

    def _serve(self, job: Job) -> None:
        """Speak for a caller."""

        def should_stop() -> bool:
            return self._stopped or job.given_up or time.monotonic() > job.deadline

        try:
            result: Synthesis | Exception = self._say(
                job.text, job.reference, job.tuning, should_stop
            )
        except Stopped:
            log.info("abandoned after %s", "the deadline" if not job.given_up else "a hang-up")
            result = self._stopping() if self._stopped else self._late(job)
        except NoSpeech as error:
            # One text may be hopeless; whether the model is, a fresh sentence tells.
            self._unproven, self._prove_at = str(error), time.monotonic()
            result = Unavailable("no_speech", str(error))
        except ModelError as error:
            self.error, self._prove_at = str(error), time.monotonic()
            result = Unavailable("no_speech", str(error))
        except Exception as error:  # a fault of ours must not end the thread
            log.exception("not spoken")
            result = Unavailable("error", _one_line(error))
        with self._turn:
            self._running = None
        with suppress(InvalidStateError):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    def _prove(self) -> None:
        """Say a fresh sentence with the default voice; a caller has precedence once it spoke."""

        def should_stop() -> bool:
            return self._stopped or (self._last_good is not None and bool(self._waiting))

        try:
            reference = self.find(self._config.default_voice)
            self._say(fresh_sentence(), reference, self._config.tuning, should_stop)
        except Stopped:
            self._prove_at = time.monotonic()
        except (NoSpeech, ModelError) as error:
            self._failed(str(error))
        except Exception as error:
            self._failed(error.args[0] if isinstance(error, LookupError) else _one_line(error))

    def _say(
        self, text: str, reference: Path, tuning: Tuning, should_stop: Callable[[], bool]
    ) -> Synthesis:
        """Speak a text, piece by piece.

        Raises:
            NoSpeech: the voice cannot be used, or a piece was no speech in all attempts.
            ModelError: the model raised in all attempts.
            Stopped: nobody wants it any more.
        """
        began = self._busy_since = time.monotonic()
        retries = self.retries
        try:
            self._use(reference, tuning.exaggeration)
            pieces = [self._piece(piece, tuning, should_stop) for piece in split_text(text)]
            said = _joined(pieces)
            if problems := speech_check.check(said.samples, said.rate, text=text, loudness=False)[
                "problems"
            ]:
                raise NoSpeech("; ".join(problems))
        finally:
            self._busy_since = None
            self._repeated.append(self.retries > retries)
        wall = time.monotonic() - began
        self._pace_s += 0.2 * (wall / len(text) - self._pace_s)
        seconds = len(said.samples) / said.rate
        log.info("%d characters, %.2f s of audio in %.2f s", len(text), seconds, wall)
        self._spoke()
        return said

    def _piece(self, text: str, tuning: Tuning, should_stop: Callable[[], bool]) -> Synthesis:
        """Speak one piece, again with another seed where the audio is unusable.

        Audio cut off at the token cap is repeated too, but returned in the end when
        nothing else is wrong with it.
        """
        assert self.voice is not None
        problems: list[str] = []
        for attempt in range(1 + MAX_RETRIES):
            seed = random.SystemRandom().randrange(2**31)
            raised = False
            if should_stop():
                raise Stopped
            try:
                said = self.voice.speak(text, seed=seed, tuning=tuning, should_stop=should_stop)
            except Stopped:
                raise
            except Exception as error:
                log.exception("synthesis failed, seed %d", seed)
                problems, raised = [_one_line(error)], True
            else:
                problems = list(
                    speech_check.check(said.samples, said.rate, text=text, loudness=False)[
                        "problems"
                    ]
                )
                last = attempt == MAX_RETRIES
                if not problems and (last or not said.hit_cap):
                    return said
                problems = problems or [f"cut off at the token cap after {said.tokens} tokens"]
            if attempt < MAX_RETRIES:
                self.retries += 1
                self.metrics.retried("error" if raised else problems[0])
                log.warning("seed %d: %s; trying another", seed, "; ".join(problems))
        kind = ModelError if raised else NoSpeech
        raise kind(f"no speech in {1 + MAX_RETRIES} attempts: {'; '.join(problems)}")

    def _use(self, reference: Path, exaggeration: float) -> None:
        """Take on a voice; as it was before, where its file has become unusable.

        Raises:
            NoSpeech: it cannot be used, and never could.
        """
        assert self.voice is not None
        problem = None
        try:
            digest = self.voice.use_reference(reference, exaggeration)
            if reference == self._default:
                self._voice_sha256 = digest
        except Exception as error:
            if not self.voice.reuse_reference(reference):
                log.exception("voice %s", reference)
                raise NoSpeech(f"voice {reference.name}: {_one_line(error)}") from error
            problem = (
                f"{reference.name} cannot be used any more, so it speaks as prepared before: "
                f"{_one_line(error)}"
            )
        if reference == self._default:
            if problem and problem != self._voice_problem:
                log.warning("%s", problem)
            self._voice_problem = problem

    def _spoke(self) -> None:
        """Take down that it was speech."""
        now = time.monotonic()
        if self._ready_after_s is None:
            self._ready_after_s = round(_process_age_s(), 1)
        self._last_good, self.error, self._unproven, self._failures = now, None, None, 0
        self._prove_at = now + (self._config.proof_interval_s or math.inf)

    def _failed(self, error: str) -> None:
        """Take down that it did not speak, and when to try again."""
        pause = min(BACK_OFF_S * 2**self._failures, BACK_OFF_MAX_S)
        self.error, self._failures = error, min(self._failures + 1, 16)
        self._prove_at = time.monotonic() + pause
        log.error("not ready: %s; next proof in %.0f s", error, pause)


def find_voice(voices_dir: Path, name: str) -> Path:
    """Return the file of a voice.

    Args:
        voices_dir: the one directory voices come from.
        name: of a file directly in it, links out of it excluded.

    Raises:
        ValueError: the name is not a bare file name.
        LookupError: there is no such file; the message lists those there are.
    """
    if name in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        raise ValueError(f"voice {name!r}: expected the bare name of a file")
    home = voices_dir.resolve()
    try:
        path = (home / name).resolve()
        if path.parent == home and path.is_file():
            return path
    except (OSError, RuntimeError):  # a name too long for the file system, a loop of links
        pass
    there = sorted(p.name for p in home.glob("[!.]*") if p.is_file()) if home.is_dir() else []
    raise LookupError(f"no voice {name!r}; there are: {', '.join(there) or 'none'}")


def _joined(pieces: list[Synthesis]) -> Synthesis:
    """Return utterances as one, with a pause between them."""
    if len(pieces) == 1:
        return pieces[0]
    rate = pieces[0].rate
    parts: list[Any] = []
    trailing = 0.0
    for piece in pieces:
        heard = speech_check.check(piece.samples, rate, loudness=False)
        if parts:
            silence = max(0.0, PAUSE_S - trailing - heard["leading_silence_s"])
            parts.append(np.zeros(round(silence * rate), np.float32))
        parts.append(piece.samples)
        trailing = heard["trailing_silence_s"]
    return Synthesis(
        samples=np.concatenate(parts),
        rate=rate,
        wall_s=sum(piece.wall_s for piece in pieces),
        tokens=sum(piece.tokens for piece in pieces),
        hit_cap=any(piece.hit_cap for piece in pieces),
    )


def _process_age_s() -> float:
    """Return how long this process has been running, in seconds."""
    import psutil

    return time.time() - psutil.Process().create_time()


def _one_line(error: Exception) -> str:
    """Return an exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
