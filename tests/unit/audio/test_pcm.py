"""PCM and WAV: what is written, what is read back, and what is refused."""

import resource

import numpy as np
import pytest
import soundfile
from loopback import RATE, speechlike

from understudy.audio import pcm


def test_pcm_rounds_to_nearest_and_saturates():
    step = 1 / 32768
    samples = np.array([0, 0.6 * step, -0.6 * step, 1.0, 7.0, -1.0, -7.0, np.inf, -np.inf, np.nan])
    values = np.frombuffer(pcm.float_to_pcm16(samples), dtype="<i2")
    low, high = -32768, 32767
    assert values.tolist() == [0, 1, -1, high, high, low, low, high, low, 0]


def test_pcm_is_little_endian():
    assert pcm.pcm16_to_float(b"\x00\x40").tolist() == [0.5]


def test_every_pcm_value_survives_the_way_to_float_and_back():
    every = np.arange(-32768, 32768, dtype="<i2").tobytes()
    assert pcm.float_to_pcm16(pcm.pcm16_to_float(every)) == every


def test_an_odd_number_of_bytes_is_refused():
    with pytest.raises(pcm.AudioError, match="3 bytes"):
        pcm.pcm16_to_float(b"\0\0\0")


def test_a_wav_is_written_as_16_bit_mono_and_read_back(tmp_path):
    path, samples = tmp_path / "a.wav", speechlike(1.0)
    pcm.write_wav(path, samples)
    info = soundfile.info(path)
    facts = (info.format, info.subtype, info.channels, info.samplerate)
    assert facts == ("WAV", "PCM_16", 1, 24000)
    back, rate = pcm.read_wav(path)
    assert rate == RATE
    assert back.dtype == np.float32
    assert np.abs(back - samples).max() <= 0.5 / 32768
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.fixture
def no_room():
    """No file of this process grows beyond 10 kB, as on a full disk."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_a_wav_that_cannot_be_written_leaves_the_old_one(tmp_path, no_room):
    path = tmp_path / "a.wav"
    pcm.write_wav(path, speechlike(1.0))
    before = path.read_bytes()
    no_room()
    with pytest.raises(OSError, match=r"a\.wav cannot be written: "):
        pcm.write_wav(path, speechlike(2.0))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_what_is_no_mono_wav_is_an_error_that_names_the_file(tmp_path):
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.zeros((100, 2)), RATE)
    with pytest.raises(pcm.AudioError, match=r"stereo\.wav: 2 channels"):
        pcm.read_wav(stereo)
    with pytest.raises(pcm.AudioError, match=r"none\.wav: No such file"):
        pcm.read_wav(tmp_path / "none.wav")
    with pytest.raises(pcm.AudioError, match="expected \\[N\\]"):
        pcm.write_wav(tmp_path / "two.wav", np.zeros((100, 2)))
