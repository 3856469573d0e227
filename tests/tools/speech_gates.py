"""How good is the speech check? Tables, measured with espeak-ng's voices.

    apt-get install espeak-ng
    PYTHONPATH=src:tests/support .venv/bin/python tests/tools/speech_gates.py [TABLE ...]

`lengths`: how long texts take from 80 to 300 words a minute, against the limits made of the text.
`voices`: how much right speech is refused; with --recordings DIR, the WAVs of people in it, too.
`impostors`: how much of what is no speech passes.
`same`: the likeness of two sentences by one voice, and of one sentence and itself, changed.
`cost`: the time that the check of 10 s of audio takes.

espeak's recordings are also heard through a telephone, with noise, quietly, and in a room.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from impostors import made_of, without_speech
from scipy.signal import butter, fftconvolve, lfilter, resample_poly, sosfilt

from understudy.audio.frames import Frames
from understudy.audio.pcm import SAMPLE_RATE as RATE
from understudy.audio.pcm import pcm16_to_float
from understudy.audio.same_recording import likeness
from understudy.audio.speech_check import check
from understudy.audio.spoken_length import longest_plausible_s, shortest_plausible_s
from understudy.audio.voice_activity import Activity
from understudy.serve.canary import fresh_sentence

SPEEDS = (80, 120, 160, 220, 300)
VARIANTS = ("f1", "f2", "f4", "m1", "m3", "m5", "m7", "croak", "klatt", "klatt4", "Alicia", "zac")
SENTENCES = {
    "en-us": (
        "Good morning, thank you for calling. How can I help you today?",
        "Could you please spell your last name for me?",
        "Your appointment is on Thursday, March 14th, at half past two in the afternoon.",
        "The total comes to 249 dollars and 80 cents, including the delivery.",
        "Let me transfer you to Daniel Whitaker, he looks after new contracts.",
        "Please hold the line while I look that up for you.",
        "Where were you while we were away?",
        "I am a lawyer in Lima.",
        "One moment please.",
        "No, I don't know.",
        "Yes.",
    ),
    "de": (
        "Guten Morgen, vielen Dank für Ihren Anruf. Wie kann ich Ihnen heute helfen?",
        "Bitte warten Sie einen Augenblick, ich schaue das für Sie nach.",
        "Rechtsschutzversicherungsgesellschaften zahlen nicht.",
        "Ja, gerne.",
    ),
    "fr": (
        "Bonjour, merci d'avoir appelé. Comment puis-je vous aider aujourd'hui?",
        "Veuillez patienter pendant que je vérifie cela pour vous.",
        "Oui, d'accord.",
    ),
    "es": (
        "Buenos días, gracias por llamar. ¿En qué puedo ayudarle hoy?",
        "Por favor espere mientras lo busco.",
        "Claro que sí.",
    ),
    "cmn": ("早上好,感谢您的来电。今天我能为您做些什么?", "请稍等,我帮您查一下。", "好的。"),
}
OTHER_TEXTS = {
    "en-us": (
        "Hi.",
        "Strengths",
        "4111-1111-1111-1111",
        "IBAN: GB29NWBK60161331926819",
        "Visit https://www.example.com/account/reset-password?token=8f3a91c27b",
        "550e8400-e29b-41d4-a716-446655440000",
        "1Z999AA10123456784",
        "+44 20 7946 0958",
        "john.doe_99@mail.example.org",
        "$1,234,567.89",
        "100000000",
        "NASA and the FBI, BBC, WWW",
        "x = (a + b) * c / 2 - 5%",
        "192.168.100.254",
    ),
    "de": ("Donaudampfschifffahrtsgesellschaftskapitän", "Ihre Nummer ist 777777."),
    "fr": ("Votre numéro est 99 97 95 78 71.", "Oui."),
    "ja": ("おはようございます。お電話ありがとうございます。", "東京都"),
    "ko": ("안녕하세요. 전화해 주셔서 감사합니다.",),
    "ru": ("Доброе утро, спасибо за звонок. Чем я могу вам помочь?", "Взгляд"),
    "ar": ("صباح الخير، شكرا لاتصالك.",),
    "hi": ("नमस्ते, कॉल करने के लिए धन्यवाद।",),
    "el": ("Καλημέρα, ευχαριστώ για την κλήση.",),  # noqa: RUF001
    "pl": ("Dzień dobry, dziękuję za telefon. W czym mogę pomóc?", "Szczęście"),
}


@functools.cache
def say(text: str, voice: str = "en-us", words_per_minute: int = 160) -> np.ndarray:
    """Return espeak-ng's samples [N] at 24 kHz."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "--stdout", "--", text]
    wav = subprocess.run(command, capture_output=True, check=True).stdout
    return resample_poly(pcm16_to_float(wav[44 : len(wav) // 2 * 2]), 160, 147)  # from 22,050 Hz


def noisy(samples: np.ndarray, ratio_db: float = 25) -> np.ndarray:
    level = np.sqrt(np.mean(samples**2)) * 10 ** (-ratio_db / 20)
    return samples + level * np.random.default_rng(0).normal(0, 1, len(samples))


def in_a_room(samples: np.ndarray) -> np.ndarray:
    n = int(0.3 * RATE)
    echo = np.random.default_rng(0).normal(0, 1, n) * np.exp(-6.9 * np.arange(n) / n)
    heard = samples + 0.5 * fftconvolve(samples, echo / np.linalg.norm(echo))[: len(samples)]
    return 0.5 * heard / np.abs(heard).max()


def through_a_telephone(samples: np.ndarray) -> np.ndarray:
    band = butter(4, (300, 3400), "bandpass", fs=RATE, output="sos")
    return sosfilt(band, samples)


WAYS = {
    "as it is": np.array,
    "telephone, 300 to 3,400 Hz": through_a_telephone,
    "noise at 25 dB": noisy,
    "at -30 dBFS": lambda x: x * 10 ** (-30 / 20) / np.sqrt(np.mean(x**2)),
    "in a room": in_a_room,
}


def problems(samples: np.ndarray, text: str) -> list[str]:
    return check(samples, RATE, text=text, loudness=False)["problems"]


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def lengths() -> None:
    """Print the limits of each text, and how long it takes."""
    row("text", "limits in s", *SPEEDS, "30 % at 160")
    texts = [(voice, text) for d in (SENTENCES, OTHER_TEXTS) for voice in d for text in d[voice]]
    margins: list[tuple[float, float]] = []
    cut = 0
    for voice, text in texts:
        least, most = shortest_plausible_s(text), longest_plausible_s(text)
        spoken = [Activity.of(Frames.of(say(text, voice, s), RATE)).spoken_s for s in SPEEDS]
        part = say(text, voice, 160)
        part = part[: int(0.3 * len(part))]
        caught = any(problem.startswith("too short") for problem in problems(part, text))
        cut += caught
        margins.append((min(spoken) / least, most / max(spoken)))
        times = (f"{seconds:.1f}" for seconds in spoken)
        row(text[:40], f"{least:.1f} to {most:.1f}", *times, "too short" if caught else "")
    fast, slow = (min(column) for column in zip(*margins, strict=True))
    print(f"{len(texts)} texts: at 300 words a minute at least {fast:.2f} x the shortest time; the")
    print(f"longest time is at least {slow:.2f} x that at 80; {cut} of them too short when cut")


def right_speech(recordings: Path | None) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield the kind, the text and the samples of speech that is right."""
    for voice, texts in SENTENCES.items():
        for text, speed in itertools.product(texts, SPEEDS):
            for way, change in WAYS.items():
                yield way, text, change(say(text, voice, speed))
    for voice, variant in itertools.product(("en-us", "de"), VARIANTS):
        for text, speed in itertools.product(SENTENCES[voice], (120, 160, 240)):
            yield "other voices", text, say(text, f"{voice}+{variant}", speed)
    for path in sorted(recordings.rglob("*.wav")) if recordings else ():
        samples, rate = soundfile.read(path)
        if 0.5 <= len(samples) / rate <= 30:
            yield "recordings", "", resample_poly(samples, RATE, rate)


def voices(recordings: Path | None) -> None:
    """Print how many recordings of right speech are refused, and why."""
    all_, refused = Counter[str](), Counter[str]()
    for kind, text, samples in right_speech(recordings):
        found = problems(samples, text or "one, two")
        if kind == "recordings":  # whose text is not known
            found = [seen for seen in found if not seen.startswith(("too short", "absurdly"))]
        all_[kind] += 1
        refused[kind] += bool(found)
        if found:
            print(f"refused: {kind}: {text}: {'; '.join(found)}")
    for kind, count in all_.items():
        row(kind, count, refused[kind])


def impostors() -> None:
    """Print which impostors pass for speech."""
    speech = say(SENTENCES["en-us"][0])
    backwards = {"speech, backwards": speech[::-1]}
    n = passed = 0
    for name, sound in (without_speech() | made_of(speech) | backwards).items():
        for way, change in WAYS.items():
            activity = Activity.of(Frames.of(change(sound), RATE))
            n += 1
            if not (activity.not_speech() or activity.dead_air(marked=True)):
                passed += 1
                print(f"passes: {name}, {way}")
    row("impostors, each in five ways", n, f"{passed} pass")


def same() -> None:
    """Print the likeness of different sentences and of one sentence, changed."""
    speakers = ("en-us", "en-gb", *(f"en-us+{variant}" for variant in VARIANTS))
    random.seed(1)
    different = []
    for voice, speed in itertools.product(speakers, SPEEDS):
        asked: list[str] = []
        for _ in range(5):
            asked.append(fresh_sentence(asked))
        said = [say(text, voice, speed) for text in asked]
        different += [likeness(a, b, RATE) for a, b in itertools.combinations(said, 2)]
    row(f"two of {len(different)} pairs of sentences", f"at most {max(different):.2f}")
    changes = {
        "shifted by 10 ms": lambda x: x[RATE // 100 :],
        "with silence around it": lambda x: np.concatenate([np.zeros(5000), x, np.zeros(9000)]),
        "the first half": lambda x: x[: len(x) // 2],
        "the second half": lambda x: x[len(x) // 2 :],
        "noise at 15 dB": lambda x: noisy(x, 15)[133:],
        "telephone, 300 to 3,400 Hz": through_a_telephone,
        "in a room": in_a_room,
        "treble raised": lambda x: lfilter([1, -0.7], [1], x),
        "clipped at a fifth": lambda x: np.clip(x, -np.abs(x).max() / 5, np.abs(x).max() / 5),
    }
    for name, change in changes.items():
        once = [say(fresh_sentence(), voice, 160) for voice in speakers]
        row(name, f"at least {min(likeness(x, change(x), RATE) for x in once):.2f}")


def cost() -> None:
    """Print the processor time of a check of 10 s, and of a comparison of 5 s and 5 s."""
    text = " ".join(SENTENCES["en-us"][:5])
    speech = say(text)[: 10 * RATE].astype(np.float32)

    def fastest(work: object) -> float:
        taken = []
        for _ in range(20):
            began = time.process_time()
            work()
            taken.append(time.process_time() - began)
        return 1000 * min(taken)

    row("check of 10 s", f"{fastest(lambda: problems(speech, text)):.1f} ms")
    half = len(speech) // 2
    pair = fastest(lambda: likeness(speech[:half], speech[half:], RATE))
    row("comparison of 5 s and 5 s", f"{pair:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ("lengths", "voices", "impostors", "same", "cost")
    parser.add_argument("tables", nargs="*", default=names, help=", ".join(names))
    parser.add_argument("--recordings", type=Path, help="a directory with WAVs of people")
    arguments = parser.parse_args()
    for name in arguments.tables:
        print(f"\n{name}")
        table = globals()[name] if name in names else parser.error(f"no table {name!r}")
        table(arguments.recordings) if name == "voices" else table()


if __name__ == "__main__":
    main()
