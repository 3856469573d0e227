import hashlib
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from loopback import RATE, speechlike
from scipy.signal import butter, resample_poly, sosfilt

from understudy.audio import speech_check

#: What espeak-ng made of it (en-gb, 165 words a minute), at 8 kHz.
TEXT = "Could you please spell your last name for me?"
SPOKEN = resample_poly(soundfile.read(Path(__file__).with_name("espeak_ng.flac"))[0], 3, 1)
HISS = np.random.default_rng(1).normal(0, 1, 6 * RATE)


def problems(samples, rate=RATE, text=TEXT, **options):
    return speech_check.check(samples, rate, text=text, loudness=False, **options)["problems"]


def measured(samples, rate=RATE):
    return speech_check.measure(samples, rate)["problems"]


# measure


def test_audio_is_measured():
    t = np.arange(2 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 997 * t)
    quiet = np.zeros(RATE // 2)
    found = speech_check.measure(np.concatenate([quiet, tone, quiet, quiet]), RATE)
    assert list(found) == [
        "sample_rate_hz",
        "channels",
        "duration_s",
        "peak_dbfs",
        "rms_dbfs",
        "loudness_lufs",
        "clipped_samples",
        "silence_ratio",
        "leading_silence_s",
        "trailing_silence_s",
        "finite",
        "problems",
    ]
    assert found["problems"] == []
    assert found["peak_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert found["rms_dbfs"] == pytest.approx(-6.02 - 3.01 - 2.43, abs=0.02)
    # BS.1770: a 997 Hz sine at 0 dBFS in one channel is -3.01 LUFS
    assert speech_check.loudness_lufs(tone, RATE) == pytest.approx(-9.03, abs=0.1)
    assert found["loudness_lufs"] == pytest.approx(-9.7, abs=0.2)  # the edges count
    assert found["duration_s"] == 3.5
    assert found["leading_silence_s"] == pytest.approx(0.5, abs=0.021)
    assert found["trailing_silence_s"] == pytest.approx(1.0, abs=0.021)
    assert found["silence_ratio"] == pytest.approx(1.5 / 3.5, abs=0.01)
    assert found["finite"] is True


def test_digital_silence_has_no_levels():
    found = speech_check.check(np.zeros(RATE, np.float32), RATE, text=TEXT)
    assert found["problems"] == ["silent: the loudest sample is -inf dBFS"]
    assert [found[k] for k in ("peak_dbfs", "rms_dbfs", "loudness_lufs")] == [None] * 3
    assert found["silence_ratio"] == 1.0
    assert found["leading_silence_s"] == found["trailing_silence_s"] == 1.0


def test_a_faint_hiss_is_silent():
    assert measured(speechlike(2.0, level=0.001)) == ["silent: the loudest sample is -60.0 dBFS"]


def test_one_click_or_an_offset_is_no_speech():
    click = np.zeros(2 * RATE)
    click[RATE] = 0.8
    assert problems(click) == ["silent: 99 % of it is below -50 dBFS"]
    assert problems(np.full(2 * RATE, 0.5)) == ["silent: 100 % of it is below -50 dBFS"]


def test_nothing_at_all():
    assert problems(np.zeros(0, np.float32)) == ["empty: not one sample"]


def test_punctuation_is_no_word():
    assert speech_check.count_words("Well - yes , no . . .  7 4 1!") == 6


def test_short_audio_has_no_loudness():
    assert speech_check.measure(speechlike(0.39), RATE)["loudness_lufs"] is None
    assert speech_check.measure(speechlike(0.5), RATE)["loudness_lufs"] is not None
    assert speech_check.measure(speechlike(0.5), RATE, loudness=False)["loudness_lufs"] is None


def test_flat_tops_are_clipping_and_single_peaks_are_not():
    top = 32767 / 32768
    samples = np.array([0, top, top, 0, -1, -1, -1, 0, top, 0, top, top, top, top])
    assert speech_check.clipped_samples(samples) == 3 + 4
    assert measured(speechlike(2.0, level=top)) == []


@pytest.mark.parametrize("top", [1.0, 0.99, 0.3])  # the vocoder clamps at 0.99
def test_saturated_speech_is_clipped(top):
    assert problems(np.clip(30 * SPOKEN, -0.99, 0.99) * top)[0].startswith("clipped: ")
    assert problems(np.maximum(SPOKEN, 0.2 * SPOKEN.min()) * top)[0].startswith("clipped: ")


def test_nan_is_reported_and_does_not_spoil_the_rest():
    samples = SPOKEN.copy()
    samples[100:103] = np.nan
    samples[200] = np.inf
    found = speech_check.check(samples, RATE, text=TEXT)
    assert found["finite"] is False
    assert found["problems"][0] == f"NaN or infinite: 4 of {len(SPOKEN)} samples"
    assert found["rms_dbfs"] < 0


def test_a_wrong_rate_and_two_channels_are_reported_together():
    both = np.stack([resample_poly(SPOKEN, 1, 3)] * 2, axis=1)
    assert problems(both, 8000) == [
        "wrong rate: 8000 Hz, expected 24000 Hz",
        "wrong number of channels: 2, expected 1",
    ]


# check


def band(samples):
    return sosfilt(butter(4, [300, 3400], "bandpass", fs=RATE, output="sos"), samples)


def noisy(samples):
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-25 / 20)
    return samples + level * HISS[: len(samples)]


def echoing(samples):
    n = RATE // 3
    room = np.random.default_rng(2).normal(0, 1, n) * np.exp(-7 * np.arange(n) / n)
    return samples + 0.5 * np.convolve(samples, room / np.linalg.norm(room))[: len(samples)]


@pytest.mark.parametrize("change", [np.array, band, noisy, echoing, lambda x: 0.03 * x])
def test_speech_passes(change):
    assert problems(change(SPOKEN)) == []


@pytest.mark.parametrize("text", ["Hi.", "Yes", "No, thanks."])
def test_a_short_answer_passes(text):
    assert problems(speechlike(0.5, seed=3), text=text) == []


def test_the_voices_of_other_tests_pass():
    for seed in range(1, 6):
        assert problems(speechlike(2.4, seed=seed)) == []


@pytest.mark.parametrize("n", [2, 480, 960, 961, 1440, 1441, 1920, 2400, 2880, 4000])
def test_a_scrap_is_too_short(n):
    assert problems(SPOKEN[RATE // 2 : RATE // 2 + n])[-1].startswith("too short for the text: ")


def test_what_is_cut_off_is_too_short():
    (seen,) = problems(SPOKEN[: int(0.3 * len(SPOKEN))])
    assert seen == "too short for the text: 0.7 s, expected at least 0.9 s"
    (seen,) = problems(np.concatenate([SPOKEN[: int(0.3 * len(SPOKEN))], np.zeros(RATE)]))
    assert seen.startswith("too short for the text: ")


def test_what_goes_on_and_on_is_too_long():
    (seen,) = problems(speechlike(14.0))
    assert seen == "absurdly long for the text: 14.0 s, expected at most 13.0 s"
    assert any("absurdly long" in row for row in problems(np.tile(SPOKEN, 9)))


@pytest.mark.parametrize(
    ("pause", "where"), [(0.0, "after"), (1e-4, "after"), (0.006, "after"), (0.0, "before")]
)
def test_dead_air_around_speech(pause, where):
    silence = pause * HISS
    parts = (SPOKEN, silence) if where == "after" else (silence, SPOKEN)
    seen = problems(np.concatenate(parts))[0]
    assert seen.startswith("dead air: 6.")
    assert seen.endswith(f" s {where} the speech, expected at most 2 s")


def test_dead_air_within_speech_and_a_pause_at_a_comma():
    half = len(SPOKEN) // 2

    def torn(seconds):
        return np.concatenate([SPOKEN[:half], np.zeros(int(seconds * RATE)), SPOKEN[half:]])

    assert "within the speech, expected at most 1.5 s" in problems(torn(1.8))[0]
    comma = TEXT.replace("spell", "spell,")
    assert problems(torn(1.8), text=comma) == []
    assert "within the speech, expected at most 2.5 s" in problems(torn(6), text=comma)[0]


def test_a_hum_a_buzz_or_a_hiss_is_dead_air_too():
    t = np.arange(6 * RATE) / RATE
    level = np.sqrt(np.mean(SPOKEN**2))
    for other in (np.sin(2 * np.pi * 200 * t), 2 * (150 * t % 1) - 1, HISS):
        seen = problems(
            np.concatenate([SPOKEN, SPOKEN[::-1], level * other]), text=f"{TEXT} {TEXT}"
        )
        assert seen[0].startswith(("dead air: ", "not speech: ")), seen


@pytest.mark.parametrize(
    "text", ["ha ha ha ha ha ha", "7777-7777-7777", "Yes, yes, yes, yes, yes.", "Hello? Hello?"]
)
def test_a_text_that_repeats_itself_may_be_spoken_so(text):
    said = np.tile(SPOKEN[int(0.3 * RATE) : int(1.3 * RATE)], 4)
    assert problems(said)[0].startswith("not speech: the same again every 1.0 s")
    assert problems(said, text=text) == []


def test_a_rehearsals_noise_is_audio_of_about_the_right_length():
    noise = 0.05 * HISS[: 3 * RATE]
    assert problems(noise)[0].startswith("not speech: ")
    assert problems(noise, rehearsal=True) == []
    assert problems(noise[: RATE // 5], rehearsal=True)[0].startswith("too short for the text: ")
    assert problems(np.tile(noise, 5), rehearsal=True)[0].startswith("absurdly long ")
    assert problems(0.01 * noise, rehearsal=True)[0].startswith("silent: ")
    assert problems(np.clip(20 * noise, -0.99, 0.99), rehearsal=True)[0].startswith("clipped: ")


def test_ten_seconds_take_a_moment():
    long = np.tile(SPOKEN, 5)[: 10 * RATE].astype(np.float32)
    problems(long)
    taken = []
    for _ in range(5):
        began = time.process_time()
        problems(long)
        taken.append(time.process_time() - began)
    assert min(taken) < 0.06  # 10 ms on an idle core


# check_reference


def reference(path, samples, rate=RATE, **options):
    soundfile.write(path, samples, rate, format="WAV", **options)
    return speech_check.check_reference(path)


def test_a_good_reference(tmp_path):
    facts, found = reference(tmp_path / "v.wav", speechlike(5.0))
    assert found == []
    digest = hashlib.sha256((tmp_path / "v.wav").read_bytes()).hexdigest()
    assert facts.pop("sha256") == digest
    assert facts == {"sample_rate_hz": 24000, "channels": 1, "duration_s": 5.0}


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_other_sample_formats_and_rates_are_as_good(tmp_path, subtype):
    assert reference(tmp_path / "v.wav", speechlike(5.0, 44100), 44100, subtype=subtype)[1] == []


def test_all_problems_at_once(tmp_path):
    path = tmp_path / "v.wav"
    facts, found = reference(path, np.zeros((8000, 2)), 8000)
    assert facts["channels"] == 2
    assert found == [
        f"{path} has 2 channels; expected 1 (mono)",
        f"{path} is sampled at 8000 Hz (telephone quality); expected 16000 Hz or more",
        f"{path} lasts 1.0 s; expected at least 3 s",
        f"{path} is silent: the loudest sample is -inf dBFS; expected speech",
    ]


@pytest.mark.parametrize(("silence", "first"), [(8.0, "6 s"), (0.0, None), (5.0, None)])
def test_what_the_model_uses_is_silent(tmp_path, silence, first):
    """A long pause at the start is what it would clone; the file as a whole is not silent."""
    samples = np.concatenate([np.zeros(round(silence * RATE), np.float32), speechlike(20.0)])
    found = reference(tmp_path / "v.wav", samples)[1]
    assert bool(found) is bool(first)
    if first:
        assert f"silent: the loudest sample is -inf dBFS in the first {first}" in found[0]


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "loop", "huge"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "v.wav"
    with socket.socket(socket.AF_UNIX) as sock:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "socket":
            sock.bind(str(path))
        elif kind == "loop":
            path.symlink_to(path)
        else:
            path.touch()
            os.truncate(path, 2**40)
        facts, found = speech_check.check_reference(path)
    assert facts["duration_s"] is None
    assert f"{path} cannot be read: " in found[0]


def test_only_some_problems_make_a_reference_unusable(tmp_path):
    path = tmp_path / "v.wav"
    for samples, rate, words in (
        (speechlike(1.0, 8000), 8000, None),
        (np.clip(9 * speechlike(5.0), -1, 1), RATE, None),
        (np.stack([speechlike(5.0)] * 2, axis=1), RATE, None),
        (np.zeros((8000, 2)), 8000, "is silent: "),
        (np.full(5 * RATE, np.nan), RATE, "NaN"),
        (np.zeros(0), RATE, "holds not one sample"),
    ):
        reference(path, samples, rate, subtype="FLOAT")
        fault = speech_check.reference_fault(path)
        assert words in fault if words else fault is None
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert "is not a WAV" in speech_check.reference_fault(path)


def test_too_long_and_clipped(tmp_path):
    path = tmp_path / "v.wav"
    _, found = reference(path, np.clip(9 * np.tile(speechlike(11.0, 16000), 11), -1, 1), 16000)
    assert len(found) == 2
    assert found[0] == f"{path} lasts 121.0 s; expected at most 120 s"
    assert " is clipped: " in found[1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html><html>404</html>", "an HTML page; expected RIFF"),
        (b"ID3\x04\x00" * 100, "MP3"),
        (b"RIFF\x24\x00\x00\x00WAVE", "is not a readable WAV"),
        (bytes(5000), "is not a WAV"),
    ],
)
def test_what_is_no_wav(tmp_path, content, words):
    path = tmp_path / "v.wav"
    path.write_bytes(content)
    facts, found = speech_check.check_reference(path)
    assert len(found) == 1
    assert words in found[0]
    assert found[0].startswith(str(path))
    assert facts["duration_s"] is None


def test_a_flac_by_the_name_of_wav(tmp_path):
    path = tmp_path / "v.wav"
    soundfile.write(path, speechlike(5.0), RATE, format="FLAC")
    assert "FLAC; expected RIFF" in speech_check.check_reference(path)[1][0]


def test_a_reference_cut_short_in_copying(tmp_path):
    path = tmp_path / "v.wav"
    reference(path, speechlike(8.0))
    path.write_bytes(path.read_bytes()[:-100_001])
    assert "is cut short: " in speech_check.check_reference(path)[1][0]


def test_a_missing_reference_and_a_directory(tmp_path):
    facts, found = speech_check.check_reference(tmp_path / "none.wav")
    assert found == [f"{tmp_path / 'none.wav'} does not exist; expected a WAV of the voice"]
    assert set(facts.values()) == {None}
    assert "Is a directory" in speech_check.check_reference(tmp_path)[1][0]


@pytest.mark.parametrize(
    "name",
    ["roles/run/README.md", "roles/run/defaults/main.yml", "roles/run/meta/argument_specs.yml"],
)
def test_the_limits_of_a_reference_are_documented_as_they_are(name):
    text = (Path(__file__).resolve().parents[3] / name).read_text(encoding="utf-8")
    assert speech_check.REFERENCE_LIMITS.removeprefix("a ") in text
