"""PCM and WAV: what is written, what is read back, and what is refused."""

import os
import resource
import struct
import tracemalloc

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


def header(channels=1, rate=24_000, bits=16, data=100, announced=None, riff=None, form=1):
    """A WAV of so many bytes of silence whose header says what it is told to."""
    block = channels * bits // 8
    fields = struct.pack(
        "<HHIIHH", form, channels, rate, (rate * block) % 2**32, block % 65_536, bits
    )
    size = data if announced is None else announced
    riff = 36 + data if riff is None else riff
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16) + fields
    return head + b"data" + struct.pack("<I", size) + bytes(data)


@pytest.mark.parametrize(
    "content",
    [
        header(rate=2**31),
        header(rate=2**32 - 1),
        header(rate=0),
        header(channels=65_535, bits=8, data=200_000),
        header(channels=0),
        header(bits=0),
        header(bits=64),
        header(form=0x11, bits=4),
        header(form=0x55),
        header()[:40],
        b"RIFF\xff\xff\xff\xffWAVE",
        b"fLaC" + bytes(40),
        b"",
    ],
)
def test_a_header_that_cannot_be_true(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(pcm.AudioError, match=r"a\.wav: "):
        pcm.read_wav(tmp_path / "a.wav")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [header(announced=2**32 - 1, riff=2**32 - 1), header(announced=2**31)]
)
def test_a_header_that_announces_gigabytes(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    samples, rate = pcm.read_wav(tmp_path / "a.wav")
    assert (len(samples), rate) == (50, 24_000)


def test_audio_that_unpacks_to_gigabytes_is_no_wav(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(2_000_000, dtype=np.int16), RATE)
    with pytest.raises(pcm.AudioError, match="it is not a WAV"):
        pcm.read_wav(tmp_path / "a.flac")


def test_a_wav_that_is_no_file_or_has_no_end(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with (tmp_path / "huge.wav").open("wb") as file:
        file.truncate(1 << 32)
    for name, seen in (("pipe", "a pipe"), ("huge", "larger than")):
        with pytest.raises(pcm.AudioError, match=seen):
            pcm.read_wav(tmp_path / f"{name}.wav")
