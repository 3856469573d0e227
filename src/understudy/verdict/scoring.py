"""The scores of a run: a sheet that is taken in, and what the scores come to."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from understudy.common.files import JSON_BYTES, SHEET_BYTES, open_regular, read_bytes
from understudy.common.jsonio import parse_json
from understudy.verdict.ratings import RatingsError, examine_document, parse
from understudy.verdict.run_directory import Run, judge, pick, read, seconds, show
from understudy.verdict.validity import given_for

#: The mean identity scores of two hosts match when they differ by less than this.
SCORE_DIFFERENCE = Fraction(1, 2)
#: Two means below this are those of two voices that are both far from the reference.
LOW_SCORE = 3


@dataclass(frozen=True)
class Rated:
    """Ratings that can be used.

    Attributes:
        given: what `examine_document` returned.
        means: the mean score of each host, over all rows.
        differences: each standby's mean minus the primary's.
    """

    given: Mapping[str, Any]
    means: Mapping[str, Fraction]
    differences: Mapping[str, Fraction]

    @property
    def passes(self) -> int:
        """How many times the listener went through the utterances."""
        return len({row["pass"] for row in self.given["scores"]})

    @property
    def validates(self) -> bool:
        """What the rule says: the means are close, and nobody said that the voices differ."""
        close = all(matches(difference) for difference in self.differences.values())
        return close and self.given["identity_matches"] is not False

    @property
    def summary(self) -> dict[str, Any]:
        """The ``ratings`` of the verdict."""
        return {
            "n": len(self.given["scores"]),
            "passes": self.passes,
            "means": {host: float(mean) for host, mean in self.means.items()},
            "differences": {host: float(gap) for host, gap in self.differences.items()},
        }


def matches(difference: Fraction) -> bool:
    """Tell whether two mean scores are close enough; exactly 0.5 is not."""
    return abs(difference) < SCORE_DIFFERENCE


def usable(run: Run) -> tuple[Rated | None, list[str]]:
    """Return the ratings, if they can be used, and what is wrong with them."""
    name = "ratings.json"
    again = f"ansible-playbook score.yml -e run={run.run_id}"
    if name in run.faults:
        return None, [f"{run.unusable(name, again)}."]
    if name not in run.documents:
        return None, []
    standbys, primaries = run.hosts["standby"], run.hosts["primary"]
    hosts = [*standbys, *primaries]
    given, problems = examine_document(
        run.documents[name], utterances=[u["id"] for u in run.utterances], hosts=hosts
    )
    scores = given["scores"]
    if problems or not scores or not primaries:
        return None, [f"{name}: {problem}." for problem in problems]
    means = {host: Fraction(sum(row[host] for row in scores), len(scores)) for host in hosts}
    differences = {host: means[host] - means[primaries[0]] for host in standbys}
    return Rated(given, means, differences), []


def low(run: Run, rated: Rated) -> list[str]:
    """Return a sentence for every standby that is as far from the reference as the primary."""
    primary = run.hosts["primary"][0]
    return [
        f"{host} and {primary} both score below {LOW_SCORE} ({show(float(rated.means[host]))} and "
        f"{show(float(rated.means[primary]))}): neither sounds like the reference, and two bad "
        "voices are not a validated one."
        for host in rated.differences
        if rated.means[host] < LOW_SCORE and rated.means[primary] < LOW_SCORE
    ]


def take(run_dir: Path, sheet: Path) -> dict[str, Any] | None:
    """Check a sheet against its run.

    Returns:
        The ``ratings.json``; None if no run.json says what was to be rated.

    Raises:
        RatingsError: if the sheet cannot be used.
    """
    documents, faults, _ = read(run_dir)
    run = judge(documents, faults, run_dir.name)
    hosts = [*run.hosts["standby"], *run.hosts["primary"]]
    utterances = [row["id"] for row in run.utterances]
    if not utterances:
        return None
    found = read_sheet(sheet)
    parsed = parse(found.text, found.name, utterances=utterances, hosts=hosts, run_id=run.run_id)
    heard = _audio_finished(run_dir, run.documents)
    return {
        "schema_version": 2,
        "run_id": run.run_id,
        "source": {
            "kind": "sheet",
            "name": found.name,
            "sha256": hashlib.sha256(found.content).hexdigest(),
        },
        "given_before_audio": heard is None or found.written_at < heard,
        "identity_matches": parsed["identity_matches"],
        "given_for": given_for(run.environments),
        "audio": {},
        "scores": parsed["scores"],
        "listener": None,
    }


class Sheet(NamedTuple):
    """A sheet of scores as it was read: its name for messages, and when it was written (Unix s)."""

    name: str
    content: bytes
    text: str
    written_at: float


def read_sheet(sheet: Path) -> Sheet:
    """Read a sheet, in UTF-8 or in UTF-16 as a spreadsheet writes it.

    Raises:
        RatingsError: if it cannot be read.
    """
    name = sheet.name if sheet.name.isprintable() else ascii(sheet.name)
    try:
        with os.fdopen(open_regular(sheet), "rb") as file:
            content = file.read(SHEET_BYTES + 1)
            written_at = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        raise RatingsError(name, [f"it cannot be read: {error.strerror}"]) from error
    if len(content) > SHEET_BYTES:
        raise RatingsError(name, [f"it is larger than {SHEET_BYTES:,} bytes"])
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if wide else "UTF-8"
        raise RatingsError(name, [f"it is not {encoding} (byte {error.start})"]) from error
    return Sheet(name, content, text, written_at)


def blind(run_dir: Path) -> str | None:
    """Return how the scores that are there were given, if that was blind; a sheet is not."""
    try:
        kind = pick(parse_json(read_bytes(run_dir / "ratings.json", JSON_BYTES)), "source", "kind")
    except (OSError, ValueError):
        return None
    return kind if kind in ("page", "terminal") else None


def _audio_finished(run_dir: Path, documents: Mapping[str, Any]) -> float | None:
    """Return when the first bench had all its audio, in Unix seconds; None without one."""
    times = []
    for name, document in documents.items():
        if not name.startswith("bench-"):
            continue
        finished = seconds(document.get("finished_at"))
        host = name[len("bench-") : -len(".json")]
        waves = [
            path.lstat().st_mtime for path in run_dir.glob(f"{glob.escape(host)}_native/*.wav")
        ]
        times += [finished] if finished is not None else waves
    return min(times, default=None)
