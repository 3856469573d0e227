"""Speak, check, retry: one text, until the audio passes the speech check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy.typing as npt

from understudy.audio import speech_check

#: How often a text whose audio is unusable is synthesised again.
MAX_RETRIES = 2

#: Distance between the seeds of a text's attempts; keeps them apart from its neighbours'.
RETRY_SEED_STEP = 100_000


class Speech(Protocol):
    """Audio to check: float32 [N], and its samples per second."""

    @property
    def samples(self) -> npt.NDArray[Any]:
        """In [-1, 1]."""

    @property
    def rate(self) -> int:
        """In Hz."""


SpeechT = TypeVar("SpeechT", bound=Speech)


@dataclass(frozen=True)
class Attempt(Generic[SpeechT]):
    """One attempt at a text.

    Attributes:
        index: counts from 0.
        speech: the audio; None when there was an error.
        audio: what `speech_check.check` found; None when there was an error.
        cut_off: the sentence about audio that was cut off, else None.
        error: what was raised instead.
    """

    index: int
    speech: SpeechT | None = None
    audio: dict[str, Any] | None = None
    cut_off: str | None = None
    error: Exception | None = None

    @property
    def problems(self) -> list[str]:
        """What is wrong with the audio; the cut first."""
        return [*([self.cut_off] if self.cut_off else []), *self.check_problems]

    @property
    def check_problems(self) -> list[str]:
        """What the speech check found, whether or not the audio is cut off."""
        return list(self.audio["problems"]) if self.audio else []


def speak_checked(
    speak: Callable[[int], SpeechT],
    text: str,
    *,
    retries: int = MAX_RETRIES,
    catch: tuple[type[Exception], ...] = (),
    cut_off: Callable[[SpeechT], str | None] = lambda _: None,
    on_retry: Callable[[Attempt[SpeechT]], None] = lambda _: None,
    rehearsal: Callable[[SpeechT], bool] = lambda _: False,
    loudness: bool = True,
) -> Attempt[SpeechT]:
    """Synthesise a text until its audio passes the check, or the retries are used up.

    Args:
        speak: returns the audio of an attempt, by the attempt's index (which selects the seed).
        text: what is synthesised; it bounds the plausible length.
        retries: how many attempts may follow the first.
        catch: what an attempt may raise and be repeated for; all else is passed on.
        cut_off: returns the sentence about audio that was cut off, else None.
        on_retry: called with every attempt that is followed by another one.
        rehearsal: returns whether audio is said to be made with a rehearsal's weights.
        loudness: passed to `speech_check.check`.

    Returns:
        The last attempt: the first without an error and without problems, if there was one.
    """
    for index in range(1 + retries):
        try:
            speech = speak(index)
        except catch as error:
            attempt = Attempt[SpeechT](index, error=error)
        else:
            audio = speech_check.check(
                speech.samples,
                speech.rate,
                text=text,
                rehearsal=rehearsal(speech),
                loudness=loudness,
            )
            attempt = Attempt(index, speech, audio, cut_off(speech))
            if not attempt.problems:
                break
        if index < retries:
            on_retry(attempt)
    return attempt
