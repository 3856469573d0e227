"""A run directory, read so that nothing in it can make the reader fail.

A run may have died anywhere: a file may be missing, cut short or hold anything
at all. What cannot be used becomes a *fault*, a sentence; every accessor below
answers None or an empty list where a value is not of the expected type.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from understudy.common.files import JSON_BYTES, read_bytes
from understudy.common.jsonio import parse_json
from understudy.common.times import run_began

#: The schema versions that are read: of every file, and of those that have had more than one.
VERSION = (1,)
VERSIONS = {"ratings.json": (1, 2)}
UTTERANCES = 10
#: The most that the LLM's p50 may have grown when the window is over, as a factor.
DRIFT = 1.2
ROLES = ("standby", "primary", "llm")

#: What a verdict is computed from. Its own file and the report are not among them.
INPUT = re.compile(
    r"(run|preflight|llm|ratings|identity)\.json"
    r"|(install|bench|baseline)-(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)\.json"
)

#: The most bytes of all these files together, and the most files, hosts of a role and utterances.
MOST_BYTES = 4 * JSON_BYTES
MOST_FILES = 100
MOST_HOSTS = 20
MOST_UTTERANCES = 100

#: So many sentences are given one by one: all that ten utterances and a sheet can need.
MOST_SENTENCES = 50

#: No quantity of a run is larger: bytes of memory, Unix seconds.
LARGEST = 1e18


class RunDirectoryError(ValueError):
    """A path that leads to no run; the message says what to do."""


def locate(path: Path) -> Path:
    """Return the directory of a run, to be read and written.

    Args:
        path: the directory, or a link to it that lies beside it, such as ``reports/latest``.

    Raises:
        RunDirectoryError: there is none, it has no run's name, or a link leads elsewhere.
    """
    given = Path(os.path.abspath(path))  # noqa: PTH100 (a link must still be seen as one)
    following = f"Next: ls -l {given.parent}"
    try:
        found = given.resolve(strict=True)
        is_run = found.is_dir()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle
        is_run = False
    if not is_run:
        raise RunDirectoryError(f"{given} is no directory. {following}")
    if found.parent != given.parent.resolve():
        raise RunDirectoryError(
            f"{given} is a link to {found}, which is not in the same directory. {following}"
        )
    try:
        run_began(found.name)
    except ValueError:
        raise RunDirectoryError(
            f"{given} is no run: its name is not like 20261122-031500Z. {following}"
        ) from None
    return found


def pick(document: Any, *path: str) -> Any:
    """Return what lies at the end of the keys, or None where there is no such thing."""
    for key in path:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def number(value: Any) -> float | None:
    """Return a number as it is, anything else (also a boolean, or one too large) as None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if abs(value) <= LARGEST else None  # NaN is not, either


def rows(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list; an empty list where there is none."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def strings(value: Any) -> list[str]:
    """Return the strings of a list; an empty list where there is none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def seconds(value: Any) -> float | None:
    """Return an ISO 8601 time in UTC (with a ``Z``) as Unix seconds, or None."""
    if not isinstance(value, str) or not value.endswith("Z"):
        return None
    try:
        return datetime.fromisoformat(value[:-1] + "+00:00").timestamp()
    except (ValueError, OverflowError):
        return None


def show(value: Any, digits: int = 2, scale: float = 1.0) -> str:
    """Return a number for a sentence, divided by ``scale``; "unknown" for what is none."""
    known = number(value)
    return "unknown" if known is None else f"{known / scale:.{digits}f}"


def first(items: Iterable[str]) -> list[str]:
    """Return so many sentences as a person reads, and how many more there are."""
    rest = iter(items)
    found = list(itertools.islice(rest, MOST_SENTENCES))
    more = sum(1 for _ in rest)
    return [*found, f"and {more:,} more"] if more else found


def listing(items: Sequence[str]) -> str:
    """Return names as ``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


@dataclass(frozen=True)
class Run:
    """The usable documents of a run by file name, and why the others are not usable."""

    run_id: str
    documents: Mapping[str, dict[str, Any]]
    faults: Mapping[str, str]

    def get(self, name: str, *path: str) -> Any:
        """Return a value of a file, or None."""
        return pick(self.documents.get(name), *path)

    @property
    def hosts(self) -> dict[str, list[str]]:
        """The hosts by role; without a usable run.json as far as the file names tell them."""
        if "run.json" in self.documents:
            return {role: strings(self.get("run.json", "hosts", role)) for role in ROLES}
        found: dict[str, list[str]] = {role: [] for role in ROLES}
        for name in sorted([*self.documents, *self.faults]):
            match = INPUT.fullmatch(name)
            host = match["host"] if match else None
            role = "primary" if name.startswith("baseline-") else "standby"
            if host and host not in found[role]:
                found[role].append(host)
        return found

    @property
    def utterances(self) -> list[dict[str, Any]]:
        """The utterances of run.json that have an id."""
        listed = rows(self.get("run.json", "utterances"))
        return [row for row in listed if isinstance(row.get("id"), str)]

    @property
    def environments(self) -> dict[str, Any]:
        """The environment that each standby's bench recorded; None where it did not."""
        return {h: self.get(f"bench-{h}.json", "environment") for h in self.hosts["standby"]}

    @property
    def drift_limit(self) -> float:
        """The most that the LLM's p50 may have grown, as a factor."""
        return number(self.get("run.json", "limits", "drift")) or DRIFT

    @property
    def rehearsal(self) -> bool:
        """Whether the run was a rehearsal on stand-ins."""
        return self.get("run.json", "rehearsal") is True

    @property
    def again(self) -> str:
        """The command that makes another run like this one."""
        if self.rehearsal:
            return "make rehearse"
        mode = "parallel" if self.get("run.json", "gemma_mode") == "parallel" else "pause"
        return f"ansible-playbook bench.yml -e gemma_mode={mode}"

    @property
    def absent(self) -> list[str]:
        """The files of the phases that this run should have and that are not there."""
        names = ["preflight.json"]
        if self.hosts["llm"] or "run.json" not in self.documents:
            names.append("llm.json")
        for phase, role in (("install", "standby"), ("bench", "standby"), ("baseline", "primary")):
            names += [f"{phase}-{host}.json" for host in self.hosts[role]]
        return [name for name in names if name not in {*self.documents, *self.faults}]

    def unusable(self, name: str, following: str) -> str:
        """Return the fault of a file as a sentence that ends with what to do next."""
        fault = self.faults[name]
        return f"{name} cannot be used: {fault}" + (
            "" if "Next: " in fault else f". Next: {following}"
        )

    def problems(self, name: str) -> list[str]:
        """Return why a phase's file does not speak of a phase that went well.

        Args:
            name: the file's name.

        Returns:
            Sentences that name the file; none when its status is ``ok``, or when there is no
            such file: `absent` has those.
        """
        if name in self.faults:
            return [self.unusable(name, self.again)]
        if name not in self.documents:
            return []
        status, error = self.get(name, "status"), self.get(name, "error")
        if status == "ok":
            return []
        if isinstance(error, dict):
            return [sentence(name, error)]
        if status == "running":
            return [f"{name} still says running: the run died in this phase. Next: {self.again}"]
        if status == "skipped":
            return [f"{name}: the phase was skipped."]
        return [f"{name} has status {status!r}, and no error says why. Next: {self.again}"]


def sentence(name: str, error: Mapping[str, Any]) -> str:
    """Return an error of a phase file as a sentence: host, attempt, what was seen, what next."""
    host = f"{error['host']}: " if isinstance(error.get("host"), str) else ""
    trying, seen, following = (error.get(key) or "unknown" for key in ("trying", "seen", "next"))
    return f"{host}{trying} failed ({name}): {str(seen).rstrip('. ')}. Next: {following}"


def _version_fault(name: str, found: Any) -> str | None:
    """Return what is wrong with a file's schema version, and what to do; None if it is read."""
    known = VERSIONS.get(name, VERSION)
    if type(found) is int and found in known:
        return None
    fault = f"its schema_version is {json.dumps(found, default=str)[:40]}, and this understudy "
    fault += f"reads {listing([str(version) for version in known])}"
    if type(found) is int and found > known[-1]:
        return (
            f"{fault}: a newer one wrote it. Next: update understudy on the control node "
            "(git pull), then give the same command again"
        )
    if type(found) is int and found < known[0]:
        return (
            f"{fault}: an older one wrote it. Next: judge it with the understudy that made it "
            "(git_commit in run.json says which), or make a new run"
        )
    return fault


def _excess(run: Mapping[str, Any]) -> str | None:
    """Return what run.json has too many of: everything is said once for each of them."""
    for what, found, most in (
        *((f"{role} hosts", pick(run, "hosts", role), MOST_HOSTS) for role in ROLES),
        ("utterances", run.get("utterances"), MOST_UTTERANCES),
    ):
        if isinstance(found, list) and len(found) > most:
            return f"it names {len(found):,} {what}, expected at most {most}"
    return None


def judge(documents: Mapping[str, Any], faults: Mapping[str, str], run_id: str) -> Run:
    """Sort documents into those that can be used and those that cannot.

    Args:
        documents: whatever the files held, by file name.
        faults: files already known to be unusable, and why.
        run_id: the run that all of them must belong to.
    """
    usable: dict[str, dict[str, Any]] = {}
    broken = dict(faults)
    for name, document in documents.items():
        if not isinstance(document, dict):
            broken[name] = f"it holds {type(document).__name__}, not an object"
        elif name == "run.json" and (excess := _excess(document)):
            broken[name] = excess
        elif version := _version_fault(name, document.get("schema_version")):
            broken[name] = version
        elif document.get("run_id") != run_id:
            broken[name] = f"it belongs to run {document.get('run_id')!r}, not to {run_id}"
        else:
            usable[name] = document
    return Run(run_id, usable, broken)


def read(
    run_dir: Path, ratings: bytes | None = None
) -> tuple[dict[str, Any], dict[str, str], list[dict[str, str]]]:
    """Read every file that a verdict is computed from.

    Args:
        run_dir: the run directory.
        ratings: taken for ``ratings.json`` instead of what is on disk.

    Returns:
        The documents, the faults, and name and sha256 of every file read, sorted.
    """
    contents: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    names = sorted(path.name for path in run_dir.iterdir() if INPUT.fullmatch(path.name))
    if len(names) > MOST_FILES:
        count = f"{len(names):,} files of phases lie beside it, expected at most {MOST_FILES}"
        return {}, {"run.json": count}, []
    for name in names:
        try:
            contents[name] = read_bytes(run_dir / name, JSON_BYTES)
        except OSError as error:
            faults[name] = f"it cannot be read ({error.strerror})"
    while sum(map(len, contents.values())) > MOST_BYTES:
        largest = max(contents, key=lambda name: len(contents[name]))
        del contents[largest]
        faults[largest] = f"the files of the run are larger than {MOST_BYTES:,} bytes together"
    if ratings is not None:
        contents["ratings.json"] = ratings
        faults.pop("ratings.json", None)
    documents: dict[str, Any] = {}
    for name, content in contents.items():
        try:
            documents[name] = parse_json(content)
        except ValueError as error:
            faults[name] = str(error)
    files = [
        {"name": name, "sha256": hashlib.sha256(contents[name]).hexdigest()}
        for name in sorted(contents)
    ]
    return documents, faults, files
