"""Which recordings of a run are compared, and whether they can be used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.common.files import WAV_BYTES, read_within
from understudy.common.jsonio import JsonError, read_json
from understudy.listening.session import ListeningError
from understudy.verdict.validity import given_for

SCHEMA_VERSION = 1
UTTERANCES = 10

HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
WAV = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*\.wav")


@dataclass(frozen=True)
class Recordings:
    """What a run has to listen to.

    Attributes:
        run_dir: the run directory.
        run_id: its id.
        standby: the host that is compared.
        primary: with this one.
        utterances: the ids, in the run's order.
        wavs: host and utterance -> file.
        sha256: path in the run directory -> digest of what is heard.
        voice_sha256: of the voice reference that the run was made with; None if unknown.
        given_for: the standby's weights, voice, lock and driver; see docs/run-directory.md.
    """

    run_dir: Path
    run_id: str
    standby: str
    primary: str
    utterances: Sequence[str]
    wavs: Mapping[tuple[str, str], Path]
    sha256: Mapping[str, str]
    voice_sha256: str | None
    given_for: Mapping[str, Any]

    @property
    def hosts(self) -> tuple[str, str]:
        """The standby and the primary."""
        return self.standby, self.primary


def recordings(run_dir: Path) -> Recordings:
    """Return what a run has to listen to.

    Raises:
        ListeningError: something is missing, changed or of another schema: all of it.
    """
    try:
        return _recordings(run_dir, _document(run_dir, "run.json"))
    except JsonError as error:
        raise ListeningError(
            [f"{error}; expected the run directory of a bench. Next: ls {run_dir.parent}"]
        ) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ListeningError(
            [
                f"{run_dir} has a file that is not of the expected form ({error}). "
                f"Next: understudy validate {run_dir}"
            ]
        ) from error


def _document(run_dir: Path, name: str) -> dict[str, Any]:
    return read_json(run_dir / name, links=False)


def _verdict(run_dir: Path) -> str:
    try:
        return str(_document(run_dir, "verdict.json").get("verdict"))
    except JsonError:
        return ""


def _recordings(run_dir: Path, run: Mapping[str, Any]) -> Recordings:
    version = run.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ListeningError(
            [
                f"{run_dir}/run.json has schema_version {version!r}, expected {SCHEMA_VERSION}: "
                "another version of this project made it. Next: take that version, or run the "
                "bench again"
            ]
        )
    verdict = _verdict(run_dir)
    if verdict == "invalid_run" or verdict.startswith("deferred"):
        raise ListeningError(
            [
                f"the verdict of {run_dir} is {verdict}, whatever a listener says; its report says "
                "why. Next: ansible-playbook bench.yml, or another run with -e run=ID"
            ]
        )
    hosts, rows = run.get("hosts") or {}, run.get("utterances") or []
    problems = [
        f"{run_dir}/run.json names {hosts.get(role) or 'no host'} as {role}, expected one: "
        "the page compares one host with one. Next: score a sheet, -e ab_scores=FILE"
        for role in ("standby", "primary")
        if len(hosts.get(role) or []) != 1
    ]
    ids = list(dict.fromkeys(str(row["id"]) for row in rows))
    if len(ids) != UTTERANCES:
        problems.append(f"{run_dir}/run.json has {len(ids)} utterances, expected {UTTERANCES}")
    if run.get("run_id") != run_dir.name:
        problems.append(f"{run_dir}/run.json is of another run: its run_id is not {run_dir.name}")
    if problems:
        raise ListeningError(problems)
    standby, primary = hosts["standby"][0], hosts["primary"][0]
    if not (HOST.fullmatch(standby) and HOST.fullmatch(primary) and standby != primary):
        raise TypeError("its hosts have no names of hosts")
    wavs: dict[tuple[str, str], Path] = {}
    digests: dict[str, str] = {}
    for host, name in ((standby, f"bench-{standby}.json"), (primary, f"baseline-{primary}.json")):
        problems += _files_of(run_dir, host, name, ids, wavs, digests)
    if problems:
        raise ListeningError(problems)
    return Recordings(
        run_dir,
        run_dir.name,
        standby,
        primary,
        ids,
        wavs,
        dict(sorted(digests.items())),
        str((run.get("voice") or {}).get("sha256") or "") or None,
        given_for({standby: _document(run_dir, f"bench-{standby}.json").get("environment")}),
    )


def _files_of(
    run_dir: Path,
    host: str,
    name: str,
    ids: Sequence[str],
    wavs: dict[tuple[str, str], Path],
    digests: dict[str, str],
) -> Iterator[str]:
    """Enter the files of a host, and give a sentence for each that cannot be used."""
    try:
        document = _document(run_dir, name)
    except JsonError as error:
        yield f"{error}; without it the recordings of {host} are unknown. Next: run the bench again"
        return
    rows = {row.get("id"): row for row in document.get("utterances") or []}
    for utterance in ids:
        row = rows.get(utterance) or {}
        wav = row.get("wav")
        if not isinstance(wav, str) or not WAV.fullmatch(wav):
            reason = row.get("error") or "it was not spoken"
            yield f"{host} has no recording of {utterance} ({name}: {reason}), ten are expected"
            continue
        path = run_dir / wav
        try:
            digest = hashlib.sha256(read_within(run_dir, wav, WAV_BYTES)).hexdigest()
        except OSError as error:
            yield f"{path}: {error.strerror}; {name} says that {host} spoke it"
            continue
        if row.get("wav_sha256") not in (None, digest):
            yield (
                f"{path} is not what {host} spoke: its sha256 is {digest[:12]}…, "
                f"{name} has {str(row['wav_sha256'])[:12]}…"
            )
            continue
        wavs[host, utterance] = path
        digests[wav] = digest
