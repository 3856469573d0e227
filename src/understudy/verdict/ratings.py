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
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from understudy.common.jsonio import parse_json, repeated
from understudy.verdict.run_directory import first

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
    kept.repeated = repeated(key for key, _ in pairs)
    return kept


def _seen(value: Any) -> str:
    return _short(json.dumps(value, ensure_ascii=False, default=str))


def _short(text: str) -> str:
    """Return a text for a message: not at length, and on one line."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _name(key: str) -> str:
    """Return a key for a message: bare where that is readable."""
    return key if re.fullmatch(r"[\w.-]{1,80}", key) else _seen(key)


def _is_score(value: Any) -> bool:
    return type(value) is int and 1 <= value <= 5


def _is_pass(value: Any) -> bool:
    return type(value) is int and value >= 1


Scores = dict[tuple[int, str], dict[str, Any]]


def _examine(
    sheet: Iterable[Row], utterances: Sequence[str], hosts: Sequence[str], *, passes: bool
) -> tuple[Scores, Iterator[str]]:
    """Check the rows of a sheet.

    Args:
        sheet: the rows, each with its place (``line 4``).
        utterances: the ids that must each have exactly one row in every pass.
        hosts: the hosts that must each have a score in every row.
        passes: whether every row must say which pass it is of; otherwise all are of the first.

    Returns:
        The scores by pass and utterance, and one sentence per problem. The scores are there when
        the sentences have come to their end, and only to be used if there was none.
    """
    scores: Scores = {}
    return scores, _row_problems(sheet, utterances, hosts, passes, scores)


def _row_problems(
    sheet: Iterable[Row],
    utterances: Sequence[str],
    hosts: Sequence[str],
    passes: bool,
    scores: Scores,
) -> Iterator[str]:
    places: dict[tuple[int, str], str] = {}
    columns = ("pass", "utterance") if passes else ("utterance",)
    known = f"one of {', '.join(utterances)}"
    for place, row in sheet:
        if not isinstance(row, dict):
            yield f"{place}: saw {_seen(row)}, expected an object with a score per host"
            continue
        yield from (f"{place}: {_name(key)} stands twice" for key in getattr(row, "repeated", ()))
        utterance: Any = row.get("utterance")
        number: Any = row.get("pass") if passes else 1
        where = place
        if utterance not in utterances:
            yield f"{place}: utterance: saw {_seen(utterance)}, expected {known}"
        elif not _is_pass(number):
            where = f"{place} ({utterance})"
            yield f"{where}: pass: saw {_seen(number)}, {EXPECTED_PASS}"
        elif (number, utterance) in places:
            already = f"was already scored at {places[number, utterance]}"
            yield f"{place}: {_label(number, utterance, passes)} {already}"
        else:
            where = f"{place} ({_label(number, utterance, passes)})"
            places[number, utterance] = place
            scores[number, utterance] = {
                "utterance": utterance,
                "pass": number,
                **{host: row.get(host) for host in hosts},
            }
        yield from (f"{where}: {what}" for what in _cell_problems(row, hosts, columns))
    heard = sorted({number for number, _ in places}) or [1]
    for index, number in enumerate(heard, start=1):
        if number != index:
            yield f"pass {_short(str(number))}: there is no pass {index}, expected 1, 2, …"
            break
    for number in heard:
        for utterance in utterances:
            if (number, utterance) not in places:
                label = _label(number, utterance, passes)
                yield f"{label}: its row is missing, expected one per utterance"


def _cell_problems(
    row: Mapping[str, Any], hosts: Sequence[str], columns: Sequence[str]
) -> Iterator[str]:
    for host in hosts:
        score = row.get(host)
        if score is None:
            yield f"{host}: no score, {EXPECTED}"
        elif not _is_score(score):
            yield f"{host}: saw {_seen(score)}, {EXPECTED}"
    for key in row:
        if key not in (*columns, *hosts):
            yield f"{_name(key)} is none of {', '.join(hosts)}"


def _in_order(scores: Scores, utterances: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows by pass, then in the order of the utterances."""
    order = {utterance: index for index, utterance in enumerate(utterances)}
    return [scores[key] for key in sorted(scores, key=lambda key: (key[0], order[key[1]]))]


def _label(number: int, utterance: str, passes: bool) -> str:
    return f"pass {number}, {utterance}" if passes else utterance


def _listener_problems(listener: Any, utterances: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the hidden checks of a listener."""
    if listener is None:
        return
    if not isinstance(listener, dict):
        yield f"listener: saw {_seen(listener)}, expected an object or null"
        return
    for kind, fields in LISTENER.items():
        listed = listener.get(kind)
        if not isinstance(listed, list):
            yield f"listener: {kind}: saw {_seen(listed)}, expected a list of rows"
            continue
        for index, row in enumerate(listed, start=1):
            where = f"listener: {kind}, row {index}"
            if not isinstance(row, dict):
                yield f"{where}: saw {_seen(row)}, expected an object"
                continue
            if row.get("utterance") not in utterances:
                seen = f"saw {_seen(row.get('utterance'))}"
                yield f"{where}: utterance: {seen}, expected one of the run's"
            if not _is_pass(row.get("pass")):
                yield f"{where}: pass: saw {_seen(row.get('pass'))}, {EXPECTED_PASS}"
            for field in fields:
                if not _is_score(row.get(field)):
                    yield f"{where}: {field}: saw {_seen(row.get(field))}, {EXPECTED}"
            if kind == "telephone" and not isinstance(row.get("noticed"), bool):
                seen = f"saw {_seen(row.get('noticed'))}"
                yield f"{where}: noticed: {seen}, expected true or false"


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
    wrong: Iterable[str] = ()
    scores: Scores = {}
    if isinstance(listed, list):
        sheet = ((f"row {index}", row) for index, row in enumerate(listed, start=1))
        scores, wrong = _examine(sheet, utterances, hosts, passes=passes)
    others = []
    if not isinstance(listed, list):
        others.append(f"scores: saw {_seen(listed)}, expected a list of rows")
    identity = document.get("identity_matches")
    if not (identity is None or isinstance(identity, bool)):
        others.append(f"identity_matches: saw {_seen(identity)}, expected true, false or null")
    before = document.get("given_before_audio")
    if not isinstance(before, bool):
        others.append(f"given_before_audio: saw {_seen(before)}, expected true or false")
    listener = document.get("listener") if passes else None
    problems = first(itertools.chain(wrong, others, _listener_problems(listener, utterances)))
    return {
        "scores": _in_order(scores, utterances),
        "identity_matches": identity,
        "given_before_audio": before,
        "listener": listener,
    }, problems


#: What a spreadsheet may separate cells with.
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}

#: A first line by which a spreadsheet is told the separator.
SEPARATED_BY = re.compile(r'"?sep=(.)"?[,;\t]*', re.IGNORECASE)

#: A score as spreadsheets write it in several countries.
SCORE = re.compile(r"([0-9])(?:[.,]0+)?")

#: Full-width forms (of East Asian keyboards) as the ASCII they stand for.
NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}

#: What may stand around a cell beside spaces: marks without a width.
WIDTHLESS = "\ufeff\u200b\u200e\u200f\u2060"


def _trimmed(text: str) -> str:
    """Return a cell without the blanks around it, no-break spaces among them."""
    before = None
    while text != before:
        before, text = text, text.strip().strip(WIDTHLESS)
    return text


def _plain(text: str) -> str:
    """Return a trimmed cell in ASCII letters and digits where it has full-width ones."""
    return _trimmed(text).translate(NARROW)


def _cell(text: str) -> Any:
    """Return a cell as the score it is, as the text it is, or None for an empty one."""
    score = SCORE.fullmatch(_plain(text))
    return int(score[1]) if score else _trimmed(text) or None


def _known(text: str, names: Sequence[str]) -> str:
    """Return the name that is meant, in whatever case it is written; otherwise the text."""
    plain = _plain(text)
    alike = [name for name in names if name.casefold() == plain.casefold()]
    return plain if plain in names else alike[0] if len(alike) == 1 else _trimmed(text)


def _separator(lines: Sequence[str], columns: int) -> str:
    """Return what separates the cells of most lines; the header says whether that is right."""

    def fitting(separator: str) -> int:
        return sum(line.count(separator) >= columns - 1 for line in lines)

    return max(SEPARATORS, key=fitting)


def _csv(text: str, utterances: Sequence[str], hosts: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Return the rows of a CSV sheet and what is wrong with its form."""
    wanted = ["utterance", *hosts]
    sheet: list[Row] = []
    problems: list[str] = []
    header: list[str] = []
    lines = text.splitlines(keepends=True)
    told = SEPARATED_BY.fullmatch(lines[0].strip("\r\n"))
    separator = told[1] if told else _separator(lines, len(wanted))
    if separator not in SEPARATORS:
        known = ", ".join(SEPARATORS.values())
        return [], [f"line 1: saw {_seen(lines[0].strip())}, expected one of {known}"]
    shown = ("," if separator == "\t" else separator).join(wanted)
    expected = f"expected the header {shown}"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for raw in reader:
            place = f"line {reader.line_num}"
            cells = [_trimmed(cell) for cell in raw]
            while cells and not cells[-1]:  # the columns to the right of a table
                cells.pop()
            if not cells or (told and reader.line_num == 1):
                continue
            if not header:
                header = [_known(cell, wanted) for cell in cells]
                wrong = [f"no column {name}" for name in wanted if name not in header]
                wrong += [f"unknown column {_seen(name)}" for name in header if name not in wanted]
                wrong += [f"column {_name(name)} stands twice" for name in repeated(header)]
                problems += [f"{place}: {what}, {expected}" for what in wrong]
                if wrong:
                    break
            elif len(cells) > len(header):
                count = f"saw {len(cells)} cells, expected {len(header)}"
                problems.append(f"{place} ({_short(cells[0])}): {count}")
            else:
                row = {name: _cell(cell) for name, cell in zip(header, cells, strict=False)}
                named = dict(zip(header, cells, strict=False)).get("utterance", "")
                sheet.append((place, {**row, "utterance": _known(named, utterances)}))
    except csv.Error as error:
        seen = str(error).replace("\t", "tab")
        problems.append(f"line {reader.line_num}: it is not CSV ({seen})")
    return sheet, problems


def _json(text: str, run_id: str | None) -> tuple[list[Row], list[str], bool | None]:
    """Return the rows of a JSON sheet, what is wrong with its form, and the identity answer."""
    try:
        document = parse_json(text, pairs=_pairs, constant=float)
    except ValueError as error:
        return (
            [],
            [f"it is not JSON that can be used: {error}; expected a list of rows or an object"],
            None,
        )
    problems: list[str] = []
    identity = None
    if isinstance(document, dict):
        known = ("scores", "run_id", "identity_matches")
        twice = getattr(document, "repeated", ())
        problems += [f"{_name(key)} stands twice" for key in twice]
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
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise RatingsError(name, [f"line {line}: it holds a NUL character, which is no text"])
    identity = None
    if text.lstrip()[0] in "[{" or name.lower().endswith(".json"):
        sheet, problems, identity = _json(text, run_id)
    else:
        sheet, problems = _csv(text, utterances, hosts)
    if problems and not sheet:
        raise RatingsError(name, first(problems))
    scores, wrong = _examine(sheet, utterances, hosts, passes=False)
    found = first(itertools.chain(problems, wrong))
    if found:
        raise RatingsError(name, found)
    return {"identity_matches": identity, "scores": _in_order(scores, utterances)}
