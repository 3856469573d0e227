"""Long text in pieces that the model can say: whole sentences, of some 300 characters together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import pairwise

from understudy.audio.speech_check import count_words

#: Characters of a piece. Beyond some 20 s of speech the model loses the thread.
TARGET = 300

# Escaped, since quotation marks and dashes look like others.
_OPENING = "\"'([\u201c\u2018\u00ab"
_CLOSING = "\"')\\]\u201d\u2019\u00bb"

_END = re.compile(rf"(?<=[.!?])[{_CLOSING}]*(?=\s)")
_CLAUSE = re.compile(r"(?<=[,;:\u2013\u2014])(?=\s)")

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


def split_text(text: str, target: int = TARGET) -> list[str]:
    """Return a text in pieces that are said one after the other.

    Pieces end where sentences do; a sentence that is too long is cut behind a comma, else
    at a space, else anywhere. Nothing is lost but white space and what has no word in it.

    Args:
        text: with at least one word.
        target: characters of a piece; the last may be a quarter longer, so that no scrap is left
            over: a word alone is what the model says worst.
    """
    text = re.sub(r"[^\S\n]+", " ", text.strip())
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    if len(whole := " ".join(filter(None, paragraphs))) <= target:
        return [whole]
    # Pieces of about the same length, instead of full ones and a rest.
    even = math.ceil(len(whole) / math.ceil(len(whole) / target))
    sentences = [sentence for part in paragraphs for sentence in _sentences(part)]
    units = [unit for sentence in sentences for unit in _shortened(sentence, target)]
    pieces = _packed([unit for unit in units if count_words(unit)], even, target)
    if len(pieces) > 1 and len(pieces[-1]) < target / 4:
        last = pieces.pop()
        pieces[-1] += f" {last}"
    return pieces


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
