"""The listener's scores: read strictly, and refused with every row that is wrong.

They come as a sheet that an operator wrote (`parse`), or as the ``ratings.json`` of a
run directory (`examine_document`), which anybody may have edited. A sheet in CSV has a
header ``utterance,<host>,<host>``. One in JSON is a list of such rows, or an object
``{"scores": [...], "run_id": …, "identity_matches": …}`` whose last two are optional.
Scores are whole numbers from 1 to 5, one per utterance and host, and in a ratings.json
one for each pass of the listener through the utterances.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

EXPECTED = "expected a whole number from 1 to 5"
EXPECTED_PASS = "expected a pass: 1, 2, …"

#: What is kept of the listener's hidden checks, and the scores that each row has.
LISTENER: dict[str, tuple[str, ...]] = {
    "repeats": ("first", "second"),
    "same_host": ("a", "b"),
    "impostor": ("score",),
    "telephone": (),
}

#: A row's place in the sheet, for messages, and its cells.
Row = tuple[str, Any]


class RatingsError(ValueError):
    """A sheet that cannot be used.

    Attributes:
        problems: one sentence for each thing that is wrong with it.
    """

    def __init__(self, name: str, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(f"{name}: {problem}" for problem in problems))


class _Repeated(dict[str, Any]):
    """An object in which a key stood twice; JSON itself would keep the last."""

    repeated: list[str]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) == len(pairs):
        return unique
    kept = _Repeated(unique)
    keys = [key for key, _ in pairs]
    kept.repeated = sorted({key for key in keys if keys.count(key) > 1})
    return kept


def _seen(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _is_score(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 5


def _is_pass(value: Any) -> bool:
    return type(value) is int and value >= 1


def examine(
    sheet: Iterable[Row], *, utterances: Sequence[str], hosts: Sequence[str], passes: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Check the rows of a sheet.

    Args:
        sheet: the rows, each with its place (``line 4``).
        utterances: the ids that must each have exactly one row in every pass.
        hosts: the hosts that must each have a score in every row.
        passes: whether every row must say which pass it is of; otherwise all are of the first.

    Returns:
        The scores by pass, then in the order of ``utterances``, and one sentence per problem.
        The scores are only to be used if there is no problem.
    """
    problems: list[str] = []
    places: dict[tuple[int, str], str] = {}
    scores: dict[tuple[int, str], dict[str, Any]] = {}
    columns = ("pass", "utterance") if passes else ("utterance",)
    for place, row in sheet:
        if not isinstance(row, dict):
            problems.append(f"{place}: saw {_seen(row)}, expected an object with a score per host")
            continue
        problems += [f"{place}: {key} stands twice" for key in getattr(row, "repeated", ())]
        utterance: Any = row.get("utterance")
        number: Any = row.get("pass") if passes else 1
        where = place
        if utterance not in utterances:
            known = f"one of {', '.join(utterances)}"
            problems.append(f"{place}: utterance: saw {_seen(utterance)}, expected {known}")
        elif not _is_pass(number):
            where = f"{place} ({utterance})"
            problems.append(f"{where}: pass: saw {_seen(number)}, {EXPECTED_PASS}")
        elif (number, utterance) in places:
            already = f"was already scored at {places[number, utterance]}"
            problems.append(f"{place}: {_label(number, utterance, passes)} {already}")
        else:
            where = f"{place} ({_label(number, utterance, passes)})"
            places[number, utterance] = place
            scores[number, utterance] = {
                "utterance": utterance,
                "pass": number,
                **{host: row.get(host) for host in hosts},
            }
        for host in hosts:
            score = row.get(host)
            if host not in row or score is None:
                problems.append(f"{where}: {host}: no score, {EXPECTED}")
            elif not _is_score(score):
                problems.append(f"{where}: {host}: saw {_seen(score)}, {EXPECTED}")
        unknown = [str(key) for key in row if key not in (*columns, *hosts)]
        problems += [f"{where}: {key} is none of {', '.join(hosts)}" for key in unknown]
    heard = sorted({number for number, _ in places}) or [1]
    for index, number in enumerate(heard, start=1):
        if number != index:
            problems.append(f"pass {number}: there is no pass {index}, expected 1, 2, …")
            break
    wanted = [(number, utterance) for number in heard for utterance in utterances]
    problems += [
        f"{_label(number, utterance, passes)}: its row is missing, expected one per utterance"
        for number, utterance in wanted
        if (number, utterance) not in places
    ]
    return [scores[key] for key in wanted if key in scores], problems


def _label(number: int, utterance: str, passes: bool) -> str:
    return f"pass {number}, {utterance}" if passes else utterance


def _examine_listener(listener: Any, utterances: Sequence[str]) -> list[str]:
    """Return what is wrong with the hidden checks of a listener."""
    if listener is None:
        return []
    if not isinstance(listener, dict):
        return [f"listener: saw {_seen(listener)}, expected an object or null"]
    problems: list[str] = []
    for kind, fields in LISTENER.items():
        listed = listener.get(kind)
        if not isinstance(listed, list):
            problems.append(f"listener: {kind}: saw {_seen(listed)}, expected a list of rows")
            continue
        for index, row in enumerate(listed, start=1):
            where = f"listener: {kind}, row {index}"
            if not isinstance(row, dict):
                problems.append(f"{where}: saw {_seen(row)}, expected an object")
                continue
            if row.get("utterance") not in utterances:
                seen = f"saw {_seen(row.get('utterance'))}"
                problems.append(f"{where}: utterance: {seen}, expected one of the run's")
            if not _is_pass(row.get("pass")):
                problems.append(f"{where}: pass: saw {_seen(row.get('pass'))}, {EXPECTED_PASS}")
            problems += [
                f"{where}: {field}: saw {_seen(row.get(field))}, {EXPECTED}"
                for field in fields
                if not _is_score(row.get(field))
            ]
            if kind == "telephone" and not isinstance(row.get("noticed"), bool):
                seen = f"saw {_seen(row.get('noticed'))}"
                problems.append(f"{where}: noticed: {seen}, expected true or false")
    return problems


def examine_document(
    document: Mapping[str, Any], *, utterances: Sequence[str], hosts: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Check a ``ratings.json``: nothing of one that is wrong anywhere is to be used.

    Args:
        document: its content, of schema version 1 (one pass, no listener) or 2.
        utterances: the ids of the run.
        hosts: the standbys and the primary.

    Returns:
        ``scores`` (each row with its pass), ``identity_matches``, ``given_before_audio`` and
        ``listener`` (None in version 1), and one sentence per problem.
    """
    passes = document.get("schema_version") != 1
    listed = document.get("scores")
    if isinstance(listed, list):
        sheet = [(f"row {index}", row) for index, row in enumerate(listed, start=1)]
        scores, problems = examine(sheet, utterances=utterances, hosts=hosts, passes=passes)
    else:
        scores, problems = [], [f"scores: saw {_seen(listed)}, expected a list of rows"]
    identity = document.get("identity_matches")
    if not (identity is None or isinstance(identity, bool)):
        problems.append(f"identity_matches: saw {_seen(identity)}, expected true, false or null")
    before = document.get("given_before_audio")
    if not isinstance(before, bool):
        problems.append(f"given_before_audio: saw {_seen(before)}, expected true or false")
    listener = document.get("listener") if passes else None
    problems += _examine_listener(listener, utterances)
    return {
        "scores": scores,
        "identity_matches": identity,
        "given_before_audio": before,
        "listener": listener,
    }, problems


def _cell(text: str) -> Any:
    """Return a cell as the score it is, as the text it is, or None for an empty one."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) == 1 else text or None


def _csv(text: str, hosts: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return the rows of a CSV sheet and what is wrong with its form."""
    header_expected = f"expected the header {','.join(['utterance', *hosts])}"
    sheet: list[Row] = []
    problems: list[str] = []
    header: list[str] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            place = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = [cell.strip() for cell in cells]
                wanted = ["utterance", *hosts]
                wrong = [f"no column {name}" for name in wanted if name not in header]
                wrong += [f"unknown column {_seen(name)}" for name in header if name not in wanted]
                wrong += [f"column {n} stands twice" for n in wanted if header.count(n) > 1]
                problems += [f"{place}: {what}, {header_expected}" for what in wrong]
                if wrong:
                    break
            elif len(cells) > len(header):
                count = f"saw {len(cells)} cells, expected {len(header)}"
                problems.append(f"{place} ({cells[0].strip()}): {count}")
            else:
                pairs = zip(header, cells)  # noqa: B905 (strict= is not in Python 3.9)
                sheet.append(
                    (place, {n: c.strip() if n == "utterance" else _cell(c) for n, c in pairs})
                )
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: it is not CSV ({error})")
    return sheet, problems


def _json(text: str, run_id: str | None) -> tuple[list[Row], list[str], bool | None]:
    """Return the rows of a JSON sheet, what is wrong with its form, and the identity answer."""
    try:
        document = json.loads(text, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        return [], [f"it is not JSON ({error}), expected a list of rows or an object"], None
    problems: list[str] = []
    identity = None
    if isinstance(document, dict):
        known = ("scores", "run_id", "identity_matches")
        repeated = getattr(document, "repeated", ())
        problems += [f"{key} stands twice" for key in repeated]
        problems += [f"unknown key {_seen(key)}" for key in document if key not in known]
        claimed = document.get("run_id")
        if "run_id" in document and run_id is not None and claimed != run_id:
            problems.append(f"run_id: saw {_seen(claimed)}, expected {_seen(run_id)}")
        identity = document.get("identity_matches")
        if not (identity is None or isinstance(identity, bool)):
            problems.append(f"identity_matches: saw {_seen(identity)}, expected true or false")
        document = document.get("scores")
    if not isinstance(document, list):
        return [], [*problems, f"scores: saw {_seen(document)}, expected a list of rows"], identity
    sheet = [(f"row {index}", row) for index, row in enumerate(document, start=1)]
    return sheet, problems, identity


def parse(
    text: str,
    name: str,
    *,
    utterances: Sequence[str],
    hosts: Sequence[str],
    run_id: str | None = None,
) -> dict[str, Any]:
    """Read a sheet of scores.

    Args:
        text: the sheet, JSON or CSV.
        name: its file name, for messages and to tell the format.
        utterances: the ids of the run.
        hosts: the standbys and the primary.
        run_id: the run; a sheet that names another one is refused.

    Returns:
        ``scores``, one row per utterance in the run's order, and ``identity_matches``.

    Raises:
        RatingsError: if anything is missing, unknown, repeated or out of range. It names
            every problem, not the first one only.
    """
    text = text.lstrip("\ufeff")
    if not text.strip():
        raise RatingsError(name, ["it is empty, expected a score for every utterance and host"])
    identity = None
    if text.lstrip()[0] in "[{" or name.lower().endswith(".json"):
        sheet, problems, identity = _json(text, run_id)
    else:
        sheet, problems = _csv(text, hosts)
    if problems and not sheet:
        raise RatingsError(name, problems)
    scores, wrong = examine(sheet, utterances=utterances, hosts=hosts)
    if problems or wrong:
        raise RatingsError(name, problems + wrong)
    return {"identity_matches": identity, "scores": scores}
