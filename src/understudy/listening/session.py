"""What a listener answered: saved as it is given, never lost, and locked at the end.

Every answer is a new version of the whole file, written beside it, brought to the disk and
renamed, so that no crash leaves half of one. A file that is cut short or was edited was
therefore changed from outside: it is refused and left as it is.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.common.files import WAV_BYTES, atomic, open_regular, read_bytes
from understudy.common.jsonio import JsonError, parse_json, read_json
from understudy.common.times import utc_now
from understudy.documents.listening import fault_of_pass

HOME = "listening"

#: What is read of a lock: a process and an address.
LOCK_CHARACTERS = 1000

SCHEMA_VERSION = 1
LOWEST, HIGHEST = 1, 5

#: The sides of a pair, and the reference that is heard with the first kind.
REFERENCE, SIDES = "r", ("a", "b")


class ListeningError(ValueError):
    """There is nothing that could be listened to like this; one problem a line.

    Args:
        problems: sentences that say what was seen, what is expected and what to do.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n  ".join(["", *problems]) if len(problems) > 1 else problems[0])


class RefusedError(ValueError):
    """An answer that is not taken; nothing was changed.

    Args:
        sentence: what was seen and what is expected.
        status: of HTTP, for the page.
    """

    def __init__(self, sentence: str, status: int = 409) -> None:
        self.status = status
        super().__init__(sentence)


def begin(directory: Path, previous_sha256: str | None) -> None:
    """Write the session of a pass in which nothing has been answered.

    Args:
        directory: of the pass, with its plan.
        previous_sha256: of the session file of the pass before.
    """
    plan = read_json(directory / "plan.json")
    answers: dict[str, dict[str, Any]] = {
        pair["id"]: {"heard": [], "a": None, "b": None} for pair in plan["pairs"]
    } | {call["id"]: {"heard": [], "noticed": None} for call in plan["calls"]}
    document = {
        "schema_version": SCHEMA_VERSION,
        "run_id": plan["run_id"],
        "pass": plan["pass"],
        "plan_sha256": digest(directory / "plan.json"),
        "previous_sha256": previous_sha256,
        "started_at": None,
        "finished_at": None,
        "finished_with": None,
        "identity_matches": None,
        "answers": answers,
    }
    _write(directory / "session.json", document)


class Session:
    """One pass of a listener.

    Args:
        directory: of the pass.

    Attributes:
        directory: the same.
        plan: what is played; see `listening.prepare`.
        document: what was answered.

    Raises:
        ListeningError: a file of the pass is missing, was cut short or was changed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "session.json"
        try:
            if directory.is_symlink():
                raise JsonError(f"{directory} is a link, expected the directory of a pass")
            self.plan = read_json(directory / "plan.json", links=False)
            self.document = read_json(self.path, links=False)
        except JsonError as error:
            raise ListeningError([_damaged(str(error), directory)]) from error
        seal = self.document.pop("seal", None)
        if seal != _seal(self.document):
            raise ListeningError(
                [_damaged(f"{self.path} is not as it was saved: edited or damaged", directory)]
            )
        if self.document.get("schema_version") != SCHEMA_VERSION:
            raise ListeningError(
                [_damaged(f"{self.path} was made by another version of this project", directory)]
            )
        fault = fault_of_pass(self.plan, self.document)
        if fault:
            raise ListeningError([_damaged(f"{directory}/{fault}", directory)])
        if self.document["plan_sha256"] != digest(directory / "plan.json"):
            raise ListeningError(
                [_damaged(f"{directory}/plan.json is not the one that was begun", directory)]
            )
        changed = [
            f"{name}.wav"
            for name, expected in self.plan["stimuli"].items()
            if not self.locked and digest(self.stimulus(name)) != expected
        ]
        if changed:
            what = f"{len(changed)} files, such as {changed[0]}," if changed[1:] else changed[0]
            raise ListeningError(
                [_damaged(f"{directory}/stimuli: {what} changed or gone", directory)]
            )

    # What is known

    @property
    def number(self) -> int:
        """Of the pass, from 1."""
        return int(self.plan["pass"])

    @property
    def locked(self) -> bool:
        """Whether the listener has handed everything in."""
        return self.document["finished_at"] is not None

    @property
    def answers(self) -> Mapping[str, dict[str, Any]]:
        """The answers by pair; None for what is still open."""
        answers: Mapping[str, dict[str, Any]] = self.document["answers"]
        return answers

    @property
    def total(self) -> int:
        """How many answers a pass needs, the last question apart."""
        return 2 * len(self.plan["pairs"]) + len(self.plan["calls"])

    @property
    def given(self) -> int:
        """How many of them there are."""
        return sum(
            value is not None
            for answer in self.answers.values()
            for key, value in answer.items()
            if key != "heard"
        )

    def stimulus(self, name: str) -> Path:
        """Return the file of a stimulus that the plan names."""
        return self.directory / "stimuli" / f"{name}.wav"

    # What is answered

    def heard(self, trial: str, side: str) -> None:
        """Note that a recording was heard to its end.

        Raises:
            RefusedError: there is no such recording, or the ratings are locked.
        """
        answer = self._open(trial)
        if side not in (SIDES if "noticed" in answer else (REFERENCE, *SIDES)):
            raise RefusedError(f"{trial} has no recording {side!r}", 404)
        if side not in answer["heard"]:
            document = copy.deepcopy(self.document)
            document["answers"][trial]["heard"].append(side)
            self._save(document)

    def score(self, trial: str, side: str, score: object, replaces: object = None) -> None:
        """Take a score for the identity of A or B with the reference.

        Args:
            trial: id of the pair.
            side: ``a`` or ``b``.
            score: a whole number from 1 to 5.
            replaces: the score that it has, where it is to be changed.

        Raises:
            RefusedError: it is no such score, the recordings were not heard, it is there
                already, or the ratings are locked.
        """
        answer = self._open(trial)
        if side not in SIDES or "noticed" in answer:
            raise RefusedError(f"{trial} has no side {side!r} to score", 404)
        if type(score) is not int or not LOWEST <= score <= HIGHEST:
            raise RefusedError(
                f"score: saw {json.dumps(score, default=str)}, "
                f"expected a whole number from {LOWEST} to {HIGHEST}",
                422,
            )
        unheard = [name for name in (REFERENCE, side) if name not in answer["heard"]]
        if unheard:
            raise RefusedError(f"{trial}: {_name(unheard[0])} must be heard to its end first")
        self._answer(trial, side, score, replaces)

    def notice(self, trial: str, noticed: object, replaces: object = None) -> None:
        """Take the answer whether the difference would be noticed on a call.

        Args:
            trial: id of the call.
            noticed: True or False.
            replaces: the answer that it has, where it is to be changed.

        Raises:
            RefusedError: as for `score`.
        """
        answer = self._open(trial)
        if "noticed" not in answer:
            raise RefusedError(f"{trial} is no call", 404)
        if not isinstance(noticed, bool):
            seen = json.dumps(noticed, default=str)
            raise RefusedError(f"noticed: saw {seen}, expected true or false", 422)
        unheard = [name for name in SIDES if name not in answer["heard"]]
        if unheard:
            raise RefusedError(f"{trial}: {_name(unheard[0])} must be heard to its end first")
        self._answer(trial, "noticed", noticed, replaces)

    def finish(self, identity_matches: object) -> None:
        """Lock everything.

        Args:
            identity_matches: True or False: is it, all in all, the same voice?

        Raises:
            RefusedError: an answer is missing, or the ratings are locked.
        """
        self._open(next(iter(self.answers)))
        if not isinstance(identity_matches, bool):
            seen = json.dumps(identity_matches, default=str)
            raise RefusedError(f"identity_matches: saw {seen}, expected true or false", 422)
        if self.given < self.total:
            raise RefusedError(f"{self.total - self.given} of {self.total} answers are missing")
        last = {"identity_matches": identity_matches, "finished_with": "page"}
        self._save({**self.document, **last, "finished_at": utc_now()})

    def _open(self, trial: str) -> dict[str, Any]:
        if self.locked:
            raise RefusedError("the ratings are locked and cannot be changed any more")
        try:
            return self.answers[trial]
        except KeyError:
            raise RefusedError(f"there is no pair {trial!r}", 404) from None

    def _answer(self, trial: str, key: str, value: object, replaces: object) -> None:
        present = self.answers[trial][key]
        # True == 1: what an answer replaces has to be of its type, too.
        if (type(present), present) != (type(replaces), replaces):
            there = json.dumps(present)
            raise RefusedError(
                f"{trial} {key}: the answer is {there} already; to change it say replaces: {there}"
                if present is not None
                else f"{trial} {key}: there is no answer {json.dumps(replaces, default=str)} yet"
            )
        document = copy.deepcopy(self.document)
        document["answers"][trial][key] = value
        self._save(document)

    def _save(self, document: dict[str, Any]) -> None:
        """Write a new version; what cannot be written was not answered."""
        document["started_at"] = document["started_at"] or utc_now()
        _write(self.path, document)
        self.document = document


# The lock


@contextlib.contextmanager
def only_one(run_dir: Path, doing: Mapping[str, Any]) -> Iterator[Any]:
    """Keep every other process from taking answers for a run.

    The lock is the kernel's and ends with the process, however that ends.

    Args:
        run_dir: the run directory.
        doing: what a second process reports of the first: ``pid``, ``url``.

    Yields:
        A function that says more of the same.

    Raises:
        ListeningError: another process has it; the message names it.
    """
    with os.fdopen(_open_lock(run_dir), "r+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ListeningError([_taken(run_dir, file.read(LOCK_CHARACTERS))]) from error

        def say(more: Mapping[str, Any]) -> None:
            file.seek(0)
            file.truncate()
            file.write(json.dumps({**doing, **more}) + "\n")
            file.flush()

        say({})
        try:
            yield say
        finally:
            file.seek(0)
            file.truncate()


def _open_lock(run_dir: Path) -> int:
    """Open the lock file, which will hold the page's secret: a file of its own, for nobody else.

    Raises:
        ListeningError: something else has its name, which is left as it is.
    """
    home = run_dir / HOME
    path = home / "lock"
    try:
        home.mkdir(exist_ok=True)
        if home.is_symlink():
            raise OSError(errno.ELOOP, "its directory is a link")
        handle = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise _no_lock(path, error.strerror) from error
    try:
        if os.fstat(handle).st_nlink != 1:
            raise _no_lock(path, "the file has another name, too")
        os.fchmod(handle, 0o600)
    except BaseException as error:
        os.close(handle)
        if isinstance(error, OSError):
            raise _no_lock(path, error.strerror) from error
        raise
    return handle


def _no_lock(path: Path, seen: str | None) -> ListeningError:
    return ListeningError([f"{path} cannot be the lock: {seen}. Next: ls -ld {path.parent} {path}"])


def _taken(run_dir: Path, content: str) -> str:
    where, then = "another process", f"fuser {run_dir / HOME / 'lock'}"
    with contextlib.suppress(ValueError, AttributeError):
        other = parse_json(content)
        pid, url = other.get("pid"), other.get("url")
        if type(pid) is int:
            where = f"process {pid}"
            then = f"open that address, or end it: kill {pid}"
        if type(pid) is int and isinstance(url, str) and url.isprintable():
            where += f" at {url}"
    return f"{run_dir} is already being listened to by {where}. Next: {then}"


# The file


def digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None where there is none."""
    try:
        return hashlib.sha256(read_bytes(path, WAV_BYTES)).hexdigest()
    except OSError:
        return None


def _seal(document: Mapping[str, Any]) -> str:
    """Return what tells that a document was changed by hand."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Replace a session file in one step that a power cut does not undo."""
    text = json.dumps({**document, "seal": _seal(document)}, indent=2) + "\n"
    with atomic(path, durable=True) as part:
        part.write_text(text, encoding="utf-8")


def _damaged(seen: str, directory: Path) -> str:
    return (
        f"{seen}. Nothing was changed. Next: bring it back from a backup, or begin this pass "
        f"again: mv -T -n {directory} ~/damaged-{directory.name}"
    )


def _name(side: str) -> str:
    return "the reference" if side == REFERENCE else side.upper()
