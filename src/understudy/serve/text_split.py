"""Text as the model is to say it: without what only steers its display, in whole sentences.

Long text is said in pieces of some 300 characters.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

from understudy.audio.speech_check import count_words
from understudy.audio.spoken_length import shortest_plausible_s

#: Characters of a piece. Beyond some 20 s of speech the model loses the thread.
TARGET = 300
#: Seconds a character of usual text, at the fastest; digits and Chinese take longer.
PACE_S = 0.035

# Escaped, since quotation marks and dashes look like others.
_OPENING = "\"'([\u201c\u2018\u00ab"
_CLOSING = "\"')\\]\u201d\u2019\u00bb"

_END = re.compile(rf"(?<=[.!?])[{_CLOSING}]*(?=\s)|(?<=[\u3002\uff01\uff1f])")
_CLAUSE = re.compile(r"(?<=[,;:\u2013\u2014])(?=\s)")

#: After these no full stop is needed.
_PUNCTUATION = f".!?,;:\u2026\u2013\u2014-{_CLOSING}"

#: A full stop after these ends no sentence.
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        """
        mr mrs ms mx messrs dr prof rev hon st ste jr sr gen col maj capt lt sgt gov sen rep pres
        vs etc cf al ca approx viz no nos vol pp pg fig figs eq sec ch art op ed eds est inc ltd
        co corp dept univ assn bros ave blvd rd ext tel min max hr hrs mt ft ph.d
        jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri
        """,
    )
)

#: Such as a.m., e.g. and U.S.
_INITIALS = re.compile(r"(?:[a-z]\.)+[a-z]")


#: A line of a list may be as long as this; text that is wrapped has longer ones.
_LIST_LINE = 60

_MARKER = re.compile(
    r"(?:[-*+\u2022\u2023\u25aa\u25cf\u25e6\u2043\u2219\u00b7\u2013\u2014]|\d{1,3}[.)])\s+"
)
_BULLET = re.compile(r"[^\w\s]\s+(?!\d)")


def plain_text(text: str) -> str:
    """Return a text without the characters that are not spoken, but may stand in one.

    Nothing remains of zero-width characters, byte order marks, soft hyphens, marks of direction
    and variation; a space of vertical tabs, form feeds and the controls U+0080 to U+009F, except
    for quotation marks and dashes of Windows-1252 among these.

    Raises:
        ValueError: another control character is in it, and where.
    """
    return "".join(_plain(*one) for one in enumerate(text))


def _plain(position: int, character: str) -> str:
    """Return what remains of one character."""
    if character.isascii():
        if character in "\v\f":
            return " "
        if character.isprintable() or character in "\t\n\r":
            return character
        raise ValueError(f"control character U+{ord(character):04X} at position {position}")
    if character in "\u2028\u2029":
        return "\n"
    if "\x80" <= character <= "\x9f":
        meant = character.encode("latin-1").decode("cp1252", "replace")
        is_mark = unicodedata.category(meant) in ("Pi", "Pf", "Pd", "Ps")
        return meant if is_mark else " "
    unseen = unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"
    return "" if unseen else character


def split_text(text: str, target: int = TARGET) -> list[str]:
    """Return a text in pieces that are said one after the other.

    Pieces end where sentences do, and the lines of a list are sentences; a sentence that is too
    long is cut behind a comma, else at a space, else anywhere. Nothing is lost but white space,
    bullets, and what has no word in it.

    Args:
        text: with at least one word.
        target: characters of a piece, fewer where they take long to say; the last may be a quarter
            longer, so that no scrap is left over: a word alone is what the model says worst.
    """
    paragraphs = re.split(r"\n\s*\n", "\n".join(text.strip().splitlines()))
    lines = [line for part in paragraphs for line in _lines(part)]
    whole = " ".join(map(_closed, lines))
    pace = len(whole) / shortest_plausible_s(whole)
    target = max(1, round(target * min(1.0, pace * PACE_S)))
    if len(whole) <= target:
        return [_said(whole)]
    # Pieces of about the same length, instead of full ones and a rest.
    even = math.ceil(len(whole) / math.ceil(len(whole) / target))
    units = []
    for line in lines:
        parts = [part for one in _sentences(line) for part in _shortened(one, target)]
        units += [*parts[:-1], _closed(parts[-1])]
    pieces = _packed([unit for unit in units if count_words(unit)], even, target)
    if len(pieces) > 1 and len(pieces[-1]) < target / 4:
        last = pieces.pop()
        pieces[-1] += f" {last}"
    return [_said(piece) for piece in pieces]


def _lines(paragraph: str) -> list[str]:
    """Return a paragraph's lines, joined again where one only goes on in the next."""
    found: list[str] = []
    given = [" ".join(line.split()) for line in paragraph.split("\n")]
    prose = any(line.endswith((".", "!", "?")) for line in given)
    before = ""
    for line in given:
        item = bool(_MARKER.match(line))
        goes_on = line[:1].islower() and prose
        is_list = item or (len(before) <= _LIST_LINE and not goes_on)
        text = _BULLET.sub("", line, count=1) if item and not line[0].isdigit() else line
        if found and not is_list:
            found[-1] += f" {text}"
        else:
            found.append(text)
        before = line
    return [line for line in found if line]


def _closed(line: str) -> str:
    """Return a line with a mark, a line's end, where a sentence ends without one of its own."""
    return line if line[-1:] in _PUNCTUATION else f"{line}\n"


def _said(piece: str) -> str:
    """Return a piece with a full stop for every such mark inside it."""
    return piece.rstrip("\n").replace("\n ", ". ")


def _sentences(text: str) -> list[str]:
    """Return the sentences of a paragraph."""
    ends = [end.end() for end in _END.finditer(text) if _ends(text, end.start(), end.end())]
    return _cut(text, ends)


def _ends(text: str, mark: int, after: int) -> bool:
    """Return whether a sentence ends at a mark (the index behind it)."""
    if text[after:].lstrip(f" {_OPENING}")[:1].islower():
        return False
    if text[mark - 1] != ".":
        return True
    *before, word = text[:mark].rsplit(maxsplit=1)
    word = word.lstrip(_OPENING)
    stem = word.rstrip(".").lower()
    ellipsis = word.endswith("..")
    initial = len(stem) == 1 and stem.isalpha() and stem != "i"
    enumerated = stem.isdigit() and (not before or before[0][-1] in ".!?")  # "1. First"
    return not (
        ellipsis or initial or enumerated or stem in _ABBREVIATIONS or _INITIALS.fullmatch(stem)
    )


def _shortened(sentence: str, target: int) -> Iterable[str]:
    """Return a sentence, in parts where it is too long."""
    if len(sentence) <= target:
        return [sentence]
    clauses = _cut(sentence, [clause.end() for clause in _CLAUSE.finditer(sentence)])
    parts: list[str] = []
    for clause in clauses:
        words = [
            word[i : i + target] for word in clause.split() for i in range(0, len(word), target)
        ]
        parts += [clause] if len(clause) <= target else _packed(words, target, target)
    return _packed(parts, target, target)


def _packed(units: list[str], even: int, target: int) -> list[str]:
    """Return units joined into pieces: up to the even length, never above the target."""
    pieces: list[str] = []
    for unit in units:
        joined = f"{pieces[-1]} {unit}" if pieces else unit
        if pieces and len(pieces[-1]) < even and len(joined) <= target:
            pieces[-1] = joined
        else:
            pieces.append(unit)
    return pieces


def _cut(text: str, ends: list[int]) -> list[str]:
    """Return a text cut at some indexes, without the space around the parts."""
    bounds = [0, *ends, len(text)]
    parts = (text[a:b].strip() for a, b in pairwise(bounds))
    return [part for part in parts if part]
