"""What a blind listener is given: which recordings, in which hidden order, under which names.

A pass is a directory, ``listening/pass-1`` of the run: ``stimuli/``, ``plan.json`` (what is
played, in order, under names that say nothing), ``key.json`` (what was behind the names; mode
0600, its SHA-256 stands in the plan beforehand) and ``session.json`` (what was answered).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from understudy.audio import loudness, pcm, speech_check, telephone
from understudy.audio.loudness import Levelled
from understudy.audio.pcm import AudioError, Samples
from understudy.audio.speech_check import Limits
from understudy.common.files import WAV_BYTES, read_bytes
from understudy.common.jsonio import write_json
from understudy.common.times import utc_now
from understudy.listening import session
from understudy.listening.recordings import Recordings
from understudy.listening.session import HOME, ListeningError

SCHEMA_VERSION = 1

#: At least so many pairs lie between one and its hidden repeat.
REPEAT_AFTER = 4

#: Four semitones, 2^(4/12) = 1.2599: another person, since the formants move too.
IMPOSTOR = Fraction(63, 50)

#: The reference is long; what is heard with every pair is its beginning, cut in a pause.
EXCERPT_S = (4.0, 7.0)

#: Most of the random silence that hides which pairs have the same recordings.
EXTRA_TAIL_S = 0.3


# The order


@dataclass(frozen=True)
class Pair:
    """Two recordings that are played as A and B.

    Attributes:
        kind: ``pair``, ``repeat``, ``same_host``, ``impostor`` or ``telephone``.
        utterance: what is said in both.
        a: whose recording A is: a host, or ``impostor``.
        b: and B.
    """

    kind: str
    utterance: str
    a: str
    b: str


def order(
    utterances: Sequence[str], standby: str, primary: str, seed: str
) -> tuple[list[Pair], list[Pair]]:
    """Return the pairs of a pass in their hidden order.

    Each host is A in half of the ten pairs. Three checks are mixed in, each about another
    utterance: a repeat of an earlier pair, the primary against itself, and the primary
    against an altered voice. So each of three sentences comes twice, and that says nothing.

    Args:
        utterances: the ids.
        standby: one host.
        primary: the other.
        seed: what the order is made of, and nothing else.

    Returns:
        The thirteen pairs for identity, and the ten of the telephone.
    """
    dice = random.Random(seed)

    def pairs(kind: str) -> list[Pair]:
        swapped = [index % 2 == 0 for index in range(len(utterances))]
        dice.shuffle(swapped)
        made = [
            Pair(kind, utterance, *((primary, standby) if swap else (standby, primary)))
            for utterance, swap in zip(utterances, swapped, strict=True)
        ]
        dice.shuffle(made)
        return made

    def either(one: str, other: str) -> tuple[str, str]:
        return (one, other) if dice.random() < 0.5 else (other, one)

    identity = pairs("pair")
    repeated = dice.choice(identity[: len(identity) - REPEAT_AFTER])
    same, altered = dice.sample([p.utterance for p in identity if p is not repeated], 2)
    for extra in (
        Pair("same_host", same, primary, primary),
        Pair("impostor", altered, *either(primary, "impostor")),
    ):
        identity.insert(dice.randint(0, len(identity)), extra)
    earliest = identity.index(repeated) + REPEAT_AFTER + 1
    again = Pair("repeat", repeated.utterance, *either(standby, primary))
    identity.insert(dice.randint(min(earliest, len(identity)), len(identity)), again)
    return identity, pairs("telephone")


# The pack


def prepare(
    run: Recordings,
    reference: Path,
    number: int,
    *,
    impostor_dir: Path | None = None,
    previous_sha256: str | None = None,
    seed: str | None = None,
) -> Path:
    """Make the directory of a pass, whole or not at all.

    Args:
        run: what there is to hear.
        reference: the WAV that the voice was cloned from.
        number: of the pass, from 1.
        impostor_dir: ``u01.wav`` … of somebody else, for the altered voice; None makes it of
            the primary's own recording, four semitones up or down.
        previous_sha256: of the session file of the pass before.
        seed: of the hidden order; a fresh secret when None.

    Returns:
        The directory.

    Raises:
        ListeningError: a recording cannot be used; nothing was made.
        OSError: the directory cannot be written.
    """
    seed = seed or secrets.token_hex(16)
    pairs, calls = order(run.utterances, run.standby, run.primary, seed)
    impostor = next(pair for pair in pairs if pair.kind == "impostor")
    dice = random.Random(f"{seed}/pack")
    sources = _Sources(run, reference, impostor, impostor_dir, dice)
    pack = _Pack(sources, dice)
    reference_name, whole_name = pack.reference()
    heard = {
        "pairs": [{"id": f"t{n:02}", **pack.pair(p)} for n, p in enumerate(pairs, 1)],
        "calls": [{"id": f"c{n:02}", **pack.pair(p)} for n, p in enumerate(calls, 1)],
    }
    behind = zip(heard["pairs"] + heard["calls"], pairs + calls, strict=True)

    home = run.run_dir / HOME
    home.mkdir(exist_ok=True)
    for stale in home.glob(".pass-*"):  # of a process that was killed while it made one
        shutil.rmtree(stale)
    made = Path(tempfile.mkdtemp(prefix=f".pass-{number}-", dir=home))
    try:
        made.chmod(0o755)
        key = {
            "schema_version": SCHEMA_VERSION,
            "run_id": run.run_id,
            "pass": number,
            "seed": seed,
            "pairs": {row["id"]: asdict(pair) for row, pair in behind},
            "stimuli": dict(sorted(pack.behind.items())),
        }
        plan = {
            "schema_version": SCHEMA_VERSION,
            "run_id": run.run_id,
            "pass": number,
            "made_at": utc_now(),
            "audio": dict(run.sha256),
            "reference_sha256": _sha256(reference),
            "loudness_lufs": {
                "pairs": round(sources.studio.target_lufs, 2),
                "calls": round(sources.calls.target_lufs, 2),
            },
            "key_sha256": _write_key(made / "key.json", key),
            "reference": reference_name,
            "whole_reference": whole_name,
            **heard,
            "stimuli": pack.write(made / "stimuli"),
        }
        write_json(made / "plan.json", plan)
        session.begin(made, previous_sha256)
        made.rename(home / f"pass-{number}")
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return home / f"pass-{number}"


class _Sources:
    """Every recording that is needed, cut to its speech and equally loud.

    Attributes:
        rate: in Hz, of both hosts; the reference is brought to it.
        studio: as recorded, by ``who/utterance``; who is a host, ``impostor`` or ``reference``.
        calls: the same of both hosts as a phone renders them, at `telephone.RATE`.
        cut: what was cut off before and after the speech, in seconds, by the same keys.

    Raises:
        ListeningError: a recording cannot be used.
    """

    def __init__(
        self,
        run: Recordings,
        reference: Path,
        impostor: Pair,
        impostor_dir: Path | None,
        dice: random.Random,
    ) -> None:
        raw, self.rate = _read(run)
        raw |= self._reference(reference, run.voice_sha256)
        utterance = impostor.utterance
        if impostor_dir:
            raw[f"impostor/{utterance}"] = self._stranger(impostor_dir / f"{utterance}.wav")
        else:
            ratio = dice.choice((IMPOSTOR, 1 / IMPOSTOR))
            own = raw[f"{run.primary}/{utterance}"]
            raw[f"impostor/{utterance}"] = loudness.stretched(own, ratio)
        spoken = {key: loudness.trim(samples, self.rate) for key, samples in raw.items()}
        self.cut = {key: (one.lead_s, one.tail_s) for key, one in spoken.items()}
        try:
            self.studio = loudness.level(
                {key: loudness.padded(one) for key, one in spoken.items()},
                dict.fromkeys(spoken, self.rate),
            )
            phoned = {
                key: telephone.render(self.studio.samples[key], self.rate)[0]
                for key in spoken
                if key.partition("/")[0] in run.hosts
            }
            self.calls = loudness.level(phoned, dict.fromkeys(phoned, telephone.RATE))
        except AudioError as error:
            raise ListeningError([str(error)]) from error

    def _reference(self, path: Path, expected_sha256: str | None) -> dict[str, Samples]:
        """Return the reference, whole and as the excerpt that is heard with every pair."""
        facts, problems = speech_check.check_reference(path)
        if expected_sha256 and facts["sha256"] not in (None, expected_sha256):
            problems.append(
                f"{path} is not the voice of this run: its sha256 is {facts['sha256'][:12]}…, "
                f"run.json has {expected_sha256[:12]}…"
            )
        if problems:
            raise ListeningError(
                [
                    f"{problem}. Next: name the run's own, with --reference WAV or, for score.yml, "
                    "-e listening_reference=WAV"
                    for problem in problems
                ]
            )
        samples, rate = pcm.read_wav(path)
        whole = loudness.trim(loudness.resampled(samples, rate, self.rate), self.rate).samples
        excerpt = loudness.excerpt(whole, self.rate, *EXCERPT_S)
        return {"reference/whole": whole, "reference/excerpt": excerpt}

    def _stranger(self, path: Path) -> Samples:
        """Return a recording of somebody else."""
        problems, found = _usable(path)
        if found is None:
            raise ListeningError(
                [
                    f"{problem}. Next: put one WAV per utterance into {path.parent}"
                    for problem in problems
                ]
            )
        return loudness.resampled(*found, self.rate)


def _read(run: Recordings) -> tuple[dict[str, Samples], int]:
    """Return the recordings of both hosts and their rate in Hz.

    Raises:
        ListeningError: one is damaged, empty or silent, or the rates differ: all of it.
    """
    samples: dict[str, Samples] = {}
    rates: dict[int, list[str]] = {}
    problems: list[str] = []
    for (host, utterance), path in run.wavs.items():
        wrong, found = _usable(path)
        problems += [f"{one}; expected {utterance} as {host} spoke it" for one in wrong]
        if found is not None:
            samples[f"{host}/{utterance}"] = found[0]
            rates.setdefault(found[1], []).append(f"{host}/{utterance}")
    if len(rates) > 1:
        seen = " and ".join(
            f"{rate} Hz ({', '.join(names[:2])}{', …' if len(names) > 2 else ''})"
            for rate, names in sorted(rates.items())
        )
        problems.append(
            f"{run.run_dir}: the recordings have different rates: {seen}; expected one. Something "
            "on one side's way resamples, which can be heard: mend it and run the bench again"
        )
    if problems:
        raise ListeningError(problems)
    return samples, next(iter(rates))


def _usable(path: Path) -> tuple[list[str], tuple[Samples, int] | None]:
    """Return what is wrong with a recording, and if nothing is, its samples [N] and rate in Hz."""
    try:
        samples, rate = pcm.read_wav(path)
    except AudioError as error:
        return [str(error)], None
    limits = Limits(rate_hz=rate, max_clipped_ratio=1.0)
    found = speech_check.measure(samples, rate, limits=limits, loudness=False)["problems"]
    return [f"{path} is {one}" for one in found], None if found else (samples, rate)


class _Pack:
    """The stimuli under their neutral names.

    Args:
        sources: what they are made of.
        dice: of the names and of the silence at the end.

    Attributes:
        behind: by name: what it is and what was done to it, for the key.
    """

    def __init__(self, sources: _Sources, dice: random.Random) -> None:
        self._sources, self._dice = sources, dice
        self._made: dict[str, tuple[Samples, int]] = {}
        self.behind: dict[str, dict[str, Any]] = {}

    def reference(self) -> tuple[str, str]:
        """Take the reference in; return the names of its excerpt and of the whole."""
        studio = self._sources.studio
        return self._add(studio, "reference/excerpt"), self._add(studio, "reference/whole")

    def pair(self, pair: Pair) -> dict[str, str]:
        """Take a pair in, both sides of one length; return the names of A and B."""
        levelled = self._sources.calls if pair.kind == "telephone" else self._sources.studio
        rate = telephone.RATE if pair.kind == "telephone" else self._sources.rate
        keys = [f"{who}/{pair.utterance}" for who in (pair.a, pair.b)]
        longest = max(len(levelled.samples[key]) for key in keys)
        length = longest + self._dice.randint(0, round(EXTRA_TAIL_S * rate))
        a, b = (self._add(levelled, key, rate, length) for key in keys)
        return {"a": a, "b": b}

    def _add(self, levelled: Levelled, key: str, rate: int = 0, length: int = 0) -> str:
        name = f"{self._dice.getrandbits(40):010x}"
        samples = levelled.samples[key]
        self._made[name] = (
            loudness.lengthened(samples, max(length, len(samples))),
            rate or self._sources.rate,
        )
        lead_s, tail_s = self._sources.cut[key]
        self.behind[name] = {
            "what": key,
            "loudness_before_lufs": round(levelled.measured_lufs[key], 2),
            "gain_db": round(levelled.gains_db[key], 2),
            "cut_before_s": round(lead_s, 3),
            "cut_after_s": round(tail_s, 3),
        }
        return name

    def write(self, directory: Path) -> dict[str, str]:
        """Write the WAVs; return their SHA-256 by name."""
        directory.mkdir()
        digests = {}
        for name, (samples, rate) in sorted(self._made.items()):
            path = directory / f"{name}.wav"
            pcm.write_wav(path, samples, rate)
            os.utime(path, (0, 0))  # the order of writing says nothing either
            digests[name] = _sha256(path)
        return digests


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, WAV_BYTES, links=True)).hexdigest()


def _write_key(path: Path, key: Mapping[str, Any]) -> str:
    """Write the key for nobody else's eyes; return its SHA-256, which seals it."""
    data = (json.dumps(key, indent=2, ensure_ascii=False) + "\n").encode()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()
