"""The key opened: locked answers become ``ratings.json``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.common.files import JSON_BYTES, read_bytes
from understudy.common.jsonio import JsonError, parse_json, read_json, write_json
from understudy.listening.recordings import Recordings
from understudy.listening.session import ListeningError, Session, digest
from understudy.verdict.ratings import examine_document

NAME = "ratings.json"
SCHEMA_VERSION = 2

Row = dict[str, Any]


def ratings(run: Recordings, passes: Sequence[Session]) -> dict[str, Any]:
    """Return the document ``ratings.json`` of the locked passes.

    ``identity_matches`` is true only if every pass says so.

    Args:
        run: what was heard.
        passes: at least one, all of them locked, in their order.

    Raises:
        ListeningError: a pass is not locked, or its key is not the one that was sealed.
    """
    try:
        document = _document(run, [(one, _key(one)) for one in passes])
        _, wrong = examine_document(document, utterances=run.utterances, hosts=run.hosts)
    except ListeningError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        wrong = [str(error)]
    if wrong:
        home = passes[-1].directory.parent
        raise ListeningError(
            [
                f"{home}: the keys and the answers do not go together ({wrong[0]}). Next: bring "
                f"them back, or listen again: mv -T -n {home} ~/listening-{run.run_id}"
            ]
        )
    return document


def _document(run: Recordings, both: Sequence[tuple[Session, Mapping[str, Any]]]) -> Row:
    passes = [one for one, _ in both]
    last = passes[-1]
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "source": {
            "kind": last.document["finished_with"],
            "name": str(last.path.relative_to(run.run_dir)),
            "sha256": digest(last.path),
        },
        "given_before_audio": False,
        "identity_matches": all(one.document["identity_matches"] for one in passes),
        "given_for": dict(run.given_for),
        "audio": dict(run.sha256),
        "scores": [row for one, key in both for row in _scores(run, one, key)],
        "listener": {
            "started_at": passes[0].document["started_at"],
            "finished_at": last.document["finished_at"],
            "repeats": [row for one, key in both for row in _repeats(run, one, key)],
            "same_host": [
                {"pass": one.number, "utterance": pair["utterance"], "host": pair["a"]}
                | {side: answer[side] for side in ("a", "b")}
                for one, key in both
                for pair, answer in _of(one, key, "same_host")
            ],
            "impostor": [
                {"pass": one.number, "utterance": pair["utterance"]}
                | {"score": answer["a" if pair["a"] == "impostor" else "b"]}
                for one, key in both
                for pair, answer in _of(one, key, "impostor")
            ],
            "telephone": [
                {"pass": one.number, "utterance": pair["utterance"], "noticed": answer["noticed"]}
                for one, key in both
                for pair, answer in _in_order(run, _of(one, key, "telephone"))
            ],
        },
    }


def means(document: Mapping[str, Any], hosts: Sequence[str]) -> dict[str, float]:
    """Return the mean score of each host over all rows."""
    rows = document["scores"]
    return {host: sum(row[host] for row in rows) / len(rows) for host in hosts}


def write(run: Recordings, passes: Sequence[Session]) -> dict[str, Any]:
    """Write ``ratings.json`` of the locked passes, if it is not there as it should be.

    Returns:
        The document.

    Raises:
        ListeningError: there is one that does not come from these passes.
        OSError: it cannot be written.
    """
    check(run, passes)
    document = ratings(run, passes)
    if _present(run.run_dir / NAME) != document:
        write_json(run.run_dir / NAME, document)
    return document


def check(run: Recordings, passes: Sequence[Session]) -> None:
    """Make sure that no ``ratings.json`` would be lost.

    Args:
        run: the run.
        passes: the locked ones; what they were written as before may be replaced.

    Raises:
        ListeningError: there is one that comes from a sheet, from other audio, or was edited.
    """
    path = run.run_dir / NAME
    present = _present(path)
    if present is None:
        return
    if any(present == ratings(run, passes[:count]) for count in range(1, len(passes) + 1)):
        return
    source = present.get("source")
    if not isinstance(source, dict):
        source = {}
    kind, name = source.get("kind", "sheet"), source.get("name", "an unknown source")
    seen = (
        f"comes from the sheet {name}"
        if kind == "sheet"
        else "is of other audio or was edited: it is not what these answers give"
        if passes
        else f"comes from {name}, which is not there"
    )
    raise ListeningError(
        [
            f"{path} is there already and {seen}. It is not overwritten. "
            f"Next: mv -n {path} ~/ratings-{path.parent.name}.json, then the same command again"
        ]
    )


def _present(path: Path) -> dict[str, Any] | None:
    """Return the document that is there; an empty one for what cannot be read."""
    try:
        return read_json(path, links=False)
    except JsonError:
        return {} if os.path.lexists(path) else None


def _key(one: Session) -> Mapping[str, Any]:
    """Return the opened key of a locked pass."""
    if not one.locked:
        raise ListeningError([f"pass {one.number} is not finished: its key stays sealed"])
    path = one.directory / "key.json"
    try:
        data = read_bytes(path, JSON_BYTES)
    except OSError as error:
        raise ListeningError(
            [
                f"{path}: {error.strerror}; without it nobody knows who was A and who B. "
                f"Next: bring it back, or listen again: mv {one.directory} "
                f"{one.directory.parent}/damaged-{one.directory.name}"
            ]
        ) from error
    if hashlib.sha256(data).hexdigest() != one.plan["key_sha256"]:
        raise ListeningError(
            [
                f"{path} is not the key that was sealed before the first answer. "
                f"Next: bring it back, or listen again: mv {one.directory} "
                f"{one.directory.parent}/damaged-{one.directory.name}"
            ]
        )
    key: Mapping[str, Any] = parse_json(data)
    if key["pairs"].keys() != one.answers.keys():  # a check of the listener would be left out
        raise ValueError(f"{path.name} is not about the pairs that were answered")
    return key


def _of(one: Session, key: Mapping[str, Any], kind: str) -> Iterator[tuple[Row, Row]]:
    """Give the pairs of a kind as the key knows them, each with its answer."""
    for name, pair in key["pairs"].items():
        if pair["kind"] == kind:
            yield pair, one.answers[name]


def _in_order(run: Recordings, rows: Iterator[tuple[Row, Row]]) -> list[tuple[Row, Row]]:
    return sorted(rows, key=lambda row: run.utterances.index(row[0]["utterance"]))


def _by_host(pair: Row, answer: Row) -> dict[str, int]:
    """Return the scores of a pair by whose recordings they were for."""
    return {pair["a"]: answer["a"], pair["b"]: answer["b"]}


def _scores(run: Recordings, one: Session, key: Mapping[str, Any]) -> Iterator[Row]:
    for pair, answer in _in_order(run, _of(one, key, "pair")):
        scores = _by_host(pair, answer)
        yield {"utterance": pair["utterance"], "pass": one.number} | {
            host: scores[host] for host in run.hosts
        }


def _repeats(run: Recordings, one: Session, key: Mapping[str, Any]) -> Iterator[Row]:
    for pair, answer in _of(one, key, "repeat"):
        first = next(
            _by_host(other, given)
            for other, given in _of(one, key, "pair")
            if other["utterance"] == pair["utterance"]
        )
        second = _by_host(pair, answer)
        for host in run.hosts:
            yield {"pass": one.number, "utterance": pair["utterance"], "host": host} | {
                "first": first[host],
                "second": second[host],
            }
