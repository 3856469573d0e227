"""From a text of any length to checked speech, on a loaded voice."""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from understudy.audio import speech_check
from understudy.audio.attempt import MAX_RETRIES, Attempt, speak_checked
from understudy.audio.pcm import SAMPLE_RATE
from understudy.model.device_errors import is_device_lost, is_out_of_memory
from understudy.model.types import Stopped, Synthesis, Tuning
from understudy.serve.metrics import Metrics
from understudy.serve.text_split import split_text
from understudy.serve.voice_files import VoiceFiles

#: Silence between two pieces of a text; what they bring along counts.
PAUSE_S = 0.25
#: Silence that a piece keeps where another one is joined to it, in seconds.
EDGE_S = 0.5

#: Of so many texts it is known whether they needed another seed.
RETRY_WINDOW = 20

log = logging.getLogger("understudy.server")


class LoadedVoice(Protocol):
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


class BadVoice(Exception):
    """A voice's file is no recording of one: the caller's mistake, or the operator's."""


class ModelError(Exception):
    """The model raised, however often it was asked.

    Attributes:
        out_of_memory: since memory was short.
    """

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class DeviceLost(Exception):
    """The GPU's context did not survive an error: nothing in this process can speak again."""


class TextSynthesizer:
    """Speaks texts with a loaded voice; for one thread.

    Attributes:
        voice: the loaded model; None before.
        retries: syntheses that were repeated with another seed.
        repeated: of the last texts, whether they needed a retry.
        default_sha256: of the default voice's file, as it was last read.
        default_problem: why that file is unusable now, though its voice is still spoken with.
    """

    def __init__(self, files: VoiceFiles, metrics: Metrics) -> None:
        self.voice: LoadedVoice | None = None
        self.retries = 0
        self.repeated: deque[bool] = deque(maxlen=RETRY_WINDOW)
        self.default_sha256: str | None = None
        self.default_problem: str | None = None
        self._files, self._metrics = files, metrics

    @property
    def rehearsal(self) -> bool:
        """Whether the weights are a rehearsal's: random ones, which make a noise."""
        return self.voice is not None and self.voice.info.get("rehearsal") is True

    def speak(
        self, text: str, reference: Path, tuning: Tuning, should_stop: Callable[[], bool]
    ) -> Synthesis:
        """Speak a text, piece by piece.

        Raises:
            BadVoice: there is no voice in its file.
            NoSpeech: the voice cannot be used, or a piece was no speech in all attempts.
            ModelError: the model raised in all attempts.
            DeviceLost: the model raised what the GPU's context does not survive.
            Stopped: nobody wants it any more.
        """
        self._use(reference, tuning.exaggeration)
        retries = self.retries
        try:
            pieces = [self._piece(piece, tuning, should_stop) for piece in split_text(text)]
            speech = _joined(pieces)
            found = speech_check.check(
                speech.samples, speech.rate, text=text, rehearsal=self.rehearsal, loudness=False
            )
            if found["problems"]:
                raise NoSpeech("; ".join(found["problems"]))
        finally:
            self.repeated.append(self.retries > retries)
        return speech

    def _piece(self, text: str, tuning: Tuning, should_stop: Callable[[], bool]) -> Synthesis:
        """Speak one piece, again with another seed where the audio is unusable.

        Audio cut off at the token cap is repeated too, but returned in the end when
        nothing else is wrong with it.
        """
        voice = self.voice
        assert voice is not None
        seeds = [random.SystemRandom().randrange(2**31) for _ in range(1 + MAX_RETRIES)]

        def speak(index: int) -> Synthesis:
            if should_stop():
                raise Stopped
            try:
                return voice.speak(text, seed=seeds[index], tuning=tuning, should_stop=should_stop)
            except Stopped:
                raise
            except Exception as error:
                log.exception("synthesis failed, seed %d", seeds[index])
                _raise_if_lost(error)
                raise ModelError(one_line(error), out_of_memory=is_out_of_memory(error)) from error

        def on_retry(failed: Attempt[Synthesis]) -> None:
            problems = _problems(failed)
            self.retries += 1
            self._metrics.retried("error" if failed.error else problems[0])
            log.warning("seed %d: %s; trying another", seeds[failed.index], "; ".join(problems))

        attempt = speak_checked(
            speak,
            text,
            catch=(ModelError,),
            cut_off=lambda speech: speech.cut_off,
            on_retry=on_retry,
            rehearsal=lambda _: self.rehearsal,
            loudness=False,
        )
        if attempt.speech is not None and not attempt.check_problems:
            return attempt.speech
        seen = f"no speech in {attempt.index + 1} attempts: {'; '.join(_problems(attempt))}"
        if isinstance(attempt.error, ModelError):
            raise ModelError(seen, out_of_memory=attempt.error.out_of_memory)
        raise NoSpeech(seen)

    def _use(self, reference: Path, exaggeration: float) -> None:
        """Take on a voice; as it was before, where its file has become unusable.

        Raises:
            BadVoice: there is no voice in its file, and it is not the default, or never was one.
            NoSpeech: it cannot be used, and never could.
        """
        assert self.voice is not None
        problem = None
        is_default = reference == self._files.default
        try:
            if fault := self._files.fault(reference):
                raise BadVoice(fault)
            digest = self.voice.use_reference(reference, exaggeration)
            if is_default:
                self.default_sha256 = digest
        except Exception as error:
            _raise_if_lost(error)
            bad = isinstance(error, BadVoice)
            goes_on = self.default_sha256 is not None if is_default else not bad
            if not (goes_on and self.voice.reuse_reference(reference)):
                if bad:
                    raise
                log.exception("voice %s", reference)
                seen = f"voice {reference.name}: {one_line(error)}"
                if is_out_of_memory(error):
                    raise ModelError(seen, out_of_memory=True) from error
                raise NoSpeech(seen) from error
            problem = (
                f"{reference.name} cannot be used any more, so it speaks as prepared before: "
                f"{error if bad else one_line(error)}"
            )
        if is_default:
            if problem and problem != self.default_problem:
                log.warning("%s", problem)
            self.default_problem = problem


def _raise_if_lost(error: Exception) -> None:
    """Raise `DeviceLost` for an error that only a new process gets over."""
    if is_device_lost(error):
        raise DeviceLost(one_line(error)) from error


def _problems(attempt: Attempt[Synthesis]) -> list[str]:
    """Return why an attempt is unusable; the cut only where nothing else is wrong."""
    if attempt.error:
        return [str(attempt.error)]
    return attempt.check_problems or attempt.problems


def _joined(pieces: list[Synthesis]) -> Synthesis:
    """Return utterances as one, with a pause between them."""
    if len(pieces) == 1:
        return pieces[0]
    rate = pieces[0].rate
    parts: list[Any] = []
    trailing = 0.0
    for number, piece in enumerate(pieces, start=1):
        heard = speech_check.measure(piece.samples, rate, loudness=False)
        before, behind = heard["leading_silence_s"], heard["trailing_silence_s"]
        first = max(0.0, before - EDGE_S) if number > 1 else 0.0
        last = max(0.0, behind - EDGE_S) if number < len(pieces) else 0.0
        if parts:
            silence = max(0.0, PAUSE_S - trailing - (before - first))
            parts.append(np.zeros(round(silence * rate), np.float32))
        parts.append(piece.samples[round(first * rate) : len(piece.samples) - round(last * rate)])
        trailing = behind - last
    return Synthesis(
        samples=np.concatenate(parts),
        rate=rate,
        wall_s=sum(piece.wall_s for piece in pieces),
        tokens=sum(piece.tokens for piece in pieces),
        hit_cap=any(piece.hit_cap for piece in pieces),
    )


def silence() -> Synthesis:
    """Return what a text without a word sounds like."""
    return Synthesis(np.zeros(round(PAUSE_S * SAMPLE_RATE), np.float32), SAMPLE_RATE, 0.0, 0, False)


def one_line(error: Exception) -> str:
    """Return an exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
