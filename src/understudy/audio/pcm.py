"""PCM and WAV.

Samples are float32 in [-1, 1], mono, shape [N]. Files are written with
soundfile: torchaudio needs an extra decoder for it and may saturate.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import soundfile

from understudy.common.files import WAV_BYTES, atomic, read_bytes

SAMPLE_RATE = 24_000
"""Hz; what Chatterbox makes and every server here speaks."""


PCM_SCALE = 32_768
"""One in 16-bit PCM. 32767 is the largest sample, so full scale is just below 1.0."""


HIGHEST_RATE = 768_000
"""Hz; the highest rate of any converter. A header may announce 2 GHz."""


Samples = npt.NDArray[np.float32]


class AudioError(ValueError):
    """A file or a buffer that is not the audio it should be; the message names it."""


def float_to_pcm16(samples: npt.NDArray[Any]) -> bytes:
    """Return little-endian 16-bit PCM, rounded to nearest and saturated, never wrapped.

    Args:
        samples: in [-1, 1], shape [N]. NaN becomes 0, since PCM has none: `check` first.
    """
    numbers = np.nan_to_num(np.asarray(samples, dtype=np.float64), nan=0.0)
    scaled = np.rint(np.clip(numbers, -2.0, 2.0) * PCM_SCALE)
    return np.clip(scaled, -PCM_SCALE, PCM_SCALE - 1).astype("<i2").tobytes()


def pcm16_to_float(pcm: bytes) -> Samples:
    """Return the float32 samples [N] of little-endian 16-bit PCM; exact, and its own inverse.

    Raises:
        AudioError: the number of bytes is odd.
    """
    if len(pcm) % 2:
        raise AudioError(f"{len(pcm)} bytes are not 16-bit PCM: the number is odd")
    return np.frombuffer(pcm, dtype="<i2").astype(np.float32) / np.float32(PCM_SCALE)


def write_wav(path: Path | str, samples: npt.NDArray[Any], rate: int = SAMPLE_RATE) -> None:
    """Write a mono 16-bit WAV, whole or not at all.

    Args:
        path: its directory must exist.
        samples: in [-1, 1], shape [N]; beyond it they saturate.
        rate: in Hz.

    Raises:
        AudioError: there is more than one channel.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if samples.ndim != 1:
        raise AudioError(f"{path}: samples of shape {list(samples.shape)}, expected [N]")
    frames = np.frombuffer(float_to_pcm16(samples), dtype="<i2").astype(np.int16)
    with atomic(path) as part:
        try:
            soundfile.write(part, frames, rate, format="WAV", subtype="PCM_16")
        except soundfile.LibsndfileError as error:  # no OSError, a full disk neither
            raise OSError(f"{path} cannot be written: {error}") from error


def to_wav(samples: npt.NDArray[Any], rate: int = SAMPLE_RATE) -> bytes:
    """Return samples [N] as a mono 16-bit WAV; beyond [-1, 1] they saturate."""
    frames = np.frombuffer(float_to_pcm16(samples), dtype="<i2").astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, frames, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


@contextlib.contextmanager
def opened(content: bytes) -> Iterator[soundfile.SoundFile]:
    """Open a WAV whose header may announce anything.

    What it yields has no more samples than bytes, so that reading it takes no more memory than
    its size allows.

    Raises:
        AudioError: it is no WAV, or its header cannot be true.
    """
    if content[:4] not in (b"RIFF", b"RF64") or content[8:12] != b"WAVE":
        raise AudioError("it is not a WAV")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if not 0 < file.samplerate <= HIGHEST_RATE:
                raise AudioError(f"its header announces {file.samplerate} Hz")
            if not 0 <= file.frames * file.channels <= len(content):
                raise AudioError(
                    f"its header announces {file.frames} frames of {file.channels} channels, "
                    f"and it has {len(content)} bytes"
                )
            yield file
    except (soundfile.SoundFileError, TypeError, ZeroDivisionError) as error:
        raise AudioError(reason(error)) from error


def read_wav(path: Path | str) -> tuple[Samples, int]:
    """Return the samples [N] and the rate in Hz of a mono WAV.

    Raises:
        AudioError: it cannot be read, is no audio, or has more than one channel.
    """
    path = Path(path)
    try:
        with opened(read_bytes(path, WAV_BYTES, links=True)) as file:
            rate = file.samplerate
            samples = file.read(dtype="float32", always_2d=True)
    except (OSError, AudioError) as error:
        raise AudioError(f"{path}: {reason(error)}") from error
    if samples.shape[1] != 1:
        raise AudioError(f"{path}: {samples.shape[1]} channels, expected 1")
    return cast(Samples, samples[:, 0]), int(rate)


def reason(error: Exception) -> str:
    """Return what an exception has to say, without the path it may repeat."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, soundfile.LibsndfileError):
        return str(error.error_string)
    return str(error)
