"""The bounded queue of requests for speech."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from understudy.model.types import Synthesis, Tuning

#: How much one synthesis changes the estimated time per character.
PACE_WEIGHT = 0.2


class Unavailable(Exception):
    """There is no speech for this request now; asked again later there may be.

    Attributes:
        outcome: one of `metrics.OUTCOMES`.
        retry_after_s: when asking again is worth it.
    """

    def __init__(self, outcome: str, message: str, retry_after_s: int = 5) -> None:
        super().__init__(message)
        self.outcome, self.retry_after_s = outcome, retry_after_s


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


class JobQueue:
    """The accepted requests in their order of arrival, and the one that is being spoken.

    Args:
        limit: requests that may wait while one is spoken.
        deadline_s: of every request.

    Attributes:
        running: the request that is being spoken.
        stopped: nothing is accepted or handed out any more.
        draining_since: monotonic time of the order to stop; nothing is accepted after it.
        full_at: monotonic times of the requests that found the queue full.
    """

    def __init__(self, limit: int, deadline_s: float) -> None:
        self.running: Job | None = None
        self.stopped = False
        self.draining_since: float | None = None
        self.full_at: deque[float] = deque(maxlen=1000)
        self._limit, self._deadline_s = limit, deadline_s
        self._waiting: deque[Job] = deque()
        self._turn = threading.Condition()
        self._pace_s = 0.03  # per character; corrected by every synthesis

    def __len__(self) -> int:
        return len(self._waiting)

    def accept(self, job: Job) -> None:
        """Put a job at the end of the queue.

        Raises:
            Unavailable: there is no room, or no future.
        """
        with self._turn:
            if self.stopped or self.draining_since is not None:
                raise self.stopping()
            # An idle thread takes the job at once, so it does not wait.
            ahead = len(self._waiting) + (self.running is not None)
            if ahead > self._limit:
                self.full_at.append(time.monotonic())
                raise Unavailable(
                    "full", f"the queue is full: {len(self._waiting)} wait", self._backlog_s()
                )
            self._waiting.append(job)
            self._turn.notify_all()

    def give_up(self, job: Job) -> None:
        """Take a job whose caller has an answer, or is gone, out of the queue."""
        job.given_up = True
        with self._turn, suppress(ValueError):
            self._waiting.remove(job)

    def next(self, until: float) -> Job | None:
        """Wait for the next job; None at a monotonic time, or when the queue is stopped."""
        with self._turn:
            while not self.stopped:
                while self._waiting:
                    job = self._waiting.popleft()
                    if job.future.set_running_or_notify_cancel():
                        self.running = job
                        return job
                pause = until - time.monotonic()
                if pause <= 0:
                    return None
                self._turn.wait(min(pause, 3600.0))
        return None

    def finish(self, job: Job, result: Synthesis | Exception) -> None:
        """Answer the running job."""
        with self._turn:
            self.running = None
        with suppress(InvalidStateError):
            if isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    def stop(self) -> None:
        """Answer whoever still waits, or is being served, with `Unavailable`."""
        with self._turn:
            self.stopped = True
            jobs = [*self._waiting, *([self.running] if self.running else [])]
            self._waiting.clear()
            self._turn.notify_all()
        for job in jobs:
            with suppress(InvalidStateError):
                job.future.set_exception(self.stopping())

    def spoke(self, characters: int, wall_s: float) -> None:
        """Correct the estimated time per character by one synthesis."""
        self._pace_s += PACE_WEIGHT * (wall_s / characters - self._pace_s)

    def stopping(self) -> Unavailable:
        """Return the refusal for a job that the end of the server is in the way of."""
        return Unavailable("stopping", "the server is stopping")

    def late(self, job: Job) -> Unavailable:
        """Return the refusal for a job that was not done in time."""
        with self._turn:
            where = "in the queue" if job in self._waiting else "being spoken"
            again = self._backlog_s()
        return Unavailable(
            "deadline", f"not done within {self._deadline_s:g} s: still {where}", again
        )

    def _backlog_s(self) -> int:
        """Return in how many seconds all that is accepted will have been spoken, about."""
        running = [self.running] if self.running else []
        characters = sum(len(job.text) for job in (*self._waiting, *running))
        return min(max(math.ceil(self._pace_s * characters), 1), 120)
