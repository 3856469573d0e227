"""The listener's sheet: read strictly, and refused with every row that is wrong.

CSV has a header ``utterance,<host>,<host>``. JSON is a list of such rows, or an
object ``{"scores": [...], "run_id": …, "identity_matches": …}`` whose last two
are optional. Scores are whole numbers from 1 to 5, one per utterance and host.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

EXPECTED = "expected a whole number from 1 to 5"

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
    return json.dumps(value, ensure_ascii=False, default=str)


def examine(
    sheet: Iterable[Row], *, utterances: Sequence[str], hosts: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Check the rows of a sheet.

    Args:
        sheet: the rows, each with its place (``line 4``).
        utterances: the ids that must each have exactly one row.
        hosts: the hosts that must each have a score in every row.

    Returns:
        The scores in the order of ``utterances`` and one sentence per problem. The
        scores are only to be used if there is no problem.
    """
    problems: list[str] = []
    places: dict[str, str] = {}
    scores: dict[str, dict[str, Any]] = {}
    for place, row in sheet:
        if not isinstance(row, dict):
            problems.append(f"{place}: saw {_seen(row)}, expected an object with a score per host")
            continue
        problems += [f"{place}: {key} stands twice" for key in getattr(row, "repeated", ())]
        utterance: Any = row.get("utterance")
        where = place
        if utterance not in utterances:
            known = f"one of {', '.join(utterances)}"
            problems.append(f"{place}: utterance: saw {_seen(utterance)}, expected {known}")
        elif utterance in places:
            problems.append(f"{place}: {utterance} was already scored at {places[utterance]}")
        else:
            places[utterance] = place
            scores[utterance] = {"utterance": utterance, **{host: row.get(host) for host in hosts}}
            where = f"{place} ({utterance})"
        for host in hosts:
            score = row.get(host)
            if host not in row or score is None:
                problems.append(f"{where}: {host}: no score, {EXPECTED}")
            elif type(score) is not int or not 1 <= score <= 5:
                problems.append(f"{where}: {host}: saw {_seen(score)}, {EXPECTED}")
        unknown = [str(key) for key in row if key not in ("utterance", *hosts)]
        problems += [f"{where}: {key} is none of {', '.join(hosts)}" for key in unknown]
    missing = [utterance for utterance in utterances if utterance not in places]
    problems += [
        f"{utterance}: its row is missing, expected one per utterance" for utterance in missing
    ]
    return [scores[utterance] for utterance in utterances if utterance in scores], problems


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
