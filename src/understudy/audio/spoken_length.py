"""How long a text may take to speak, from what of it is read out: limits in seconds.

Words are no measure: a web address is one word, and so is a Chinese sentence. What takes time is
syllables, and of the shortest time also their consonants. A text has no one number of them, since
``1,250`` may be read as a number or digit by digit, and ``NASA`` as a word or as letters, so that
the fewest and the most are estimated:

================================  =========================  ======================================
in the text                       fewest                     most
================================  =========================  ======================================
a word                            groups of vowels, without  vowels (Spanish speaks each of "ia")
                                  a silent e at the end
in capitals, or in an address     the same                   as many as letters; w has three
letters without a vowel           one in two letters         the same
a number of one or two digits     1 ("12")                   4 a digit (German 777: 9; French 99: 4)
a longer number                   2 a digit, but for the     4 a digit
                                  zeros at its end ("200")
a Chinese character               1.5 (each has a tone)      2
kana, hangul                      1                          2
letters of another script         0.5 (Arabic has no vowels) 1
a symbol                          0                          4 (a slash is "Schrägstrich"), emoji 8
================================  =========================  ======================================

The times that make seconds of them were fitted to espeak-ng in twelve languages
(``tests/tools/speech_gates.py lengths``): no text is spoken in less than the shortest time at 300
words a minute, faster than anyone reads to a caller; and 30 % of a sentence at 160, an ordinary
pace, is shorter than it. The longest time is 1.3 times as long as at 80 words a minute, or more.
"""

from __future__ import annotations

import re
import unicodedata

#: The shortest time: for a syllable and for a letter of a word, less a constant, in seconds. A
#: syllable that is not written in letters counts as one of three.
FAST_SYLLABLE_S, FAST_LETTER_S, FAST_LESS_S = 0.035, 0.0175, 0.05
LETTERS = 3

#: The longest time: for a syllable, for a pause at a mark of punctuation, and for any text.
SLOW_SYLLABLE_S, SLOW_PAUSE_S, SLOW_MORE_S = 0.5, 0.5, 4.0

#: The shortest audio of any text, in seconds ("Oui." at 300 words a minute: 0.14).
SHORTEST_S = 0.1

_MARKS = re.compile(r"[.,;:!?\u2026\u2013\u2014\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f]+|\n+")
_PARTS = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_VOWELS = re.compile("[aeiouyæœøıαεηιουωаеиоуыэюяєіѣ]+")  # noqa: RUF001 Greek, Cyrillic
_CHINESE = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_SYLLABIC = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
#: Above these code points: no Latin, Greek or Cyrillic letter; an emoji rather than a symbol.
_OTHER_SCRIPTS, _EMOJI = 0x52F, 0x2FFF


def shortest_plausible_s(text: str) -> float:
    """Return the seconds that the fastest voice needs for a text."""
    return max(SHORTEST_S, _read_out(text)[0] - FAST_LESS_S)


def longest_plausible_s(text: str) -> float:
    """Return the seconds that the slowest voice needs for a text, pauses included."""
    pauses = len(_MARKS.findall(text))
    return SLOW_MORE_S + SLOW_SYLLABLE_S * _read_out(text)[1] + SLOW_PAUSE_S * pauses


def has_pause(text: str) -> bool:
    """Return whether there is a mark of punctuation within a text at which a voice may pause."""
    return any(text[mark.end() :].strip() for mark in _MARKS.finditer(text))


def repeats(text: str) -> bool:
    """Return whether half of a text's words, or of a number's digits, were there before."""
    words = re.findall(r"[^\W\d_]+|\d", text.lower())
    return len(words) > 1 and len(set(words)) <= len(words) / 2


def _read_out(text: str) -> tuple[float, float]:
    """Return the shortest time of a text's sounds in seconds, and the most syllables."""
    shortest = most = 0.0
    for chunk in unicodedata.normalize("NFKC", text).split():
        parts = _PARTS.findall(chunk.strip("\"'([{<.,;:!?)]}>"))
        # Such as an address, a file's name or a tracking number.
        mixed = any(not part.isalpha() and part not in "'\u2019-" for part in parts)
        for part in parts:
            fewest, letters, many = _syllables(part, mixed)
            shortest += FAST_SYLLABLE_S * fewest + FAST_LETTER_S * letters
            most += many
    return shortest, most


def _syllables(part: str, mixed: bool) -> tuple[float, float, float]:
    """Return the fewest syllables of letters, digits or a symbol, their letters, and the most.

    Args:
        part: letters, digits, or one symbol.
        mixed: others stand beside it without a space.
    """
    plain = "".join(filter(str.isalpha, unicodedata.normalize("NFKD", part.lower())))
    groups = _VOWELS.findall(plain)
    names = len(plain) + 2 * plain.count("w")
    if part.isdecimal():
        fewest, most = float(len(part) < 3 or max(1, 2 * len(part.rstrip("0")))), 4 * len(part)
    elif not part[0].isalpha():
        sign_of_a_vowel = unicodedata.category(part).startswith("M")
        fewest, most = 0.0, 1 if sign_of_a_vowel else 8 if ord(part) > _EMOJI else 4
    elif ord(part[0]) > _OTHER_SCRIPTS:
        chinese, syllabic = len(_CHINESE.findall(part)), len(_SYLLABIC.findall(part))
        others = len(part) - chinese - syllabic
        fewest, most = 1.5 * chinese + syllabic + 0.5 * others, 2 * len(part) - others
    elif not groups:
        fewest, most = float(max(1, len(plain) // 2)), names
    else:
        vowels = sum(map(len, groups))
        silent = len(groups) > 1 and plain.endswith(("e", "es", "ed"))
        most = max(names, vowels) if mixed or part.isupper() else vowels
        return len(groups) - silent, len(plain), most
    return fewest, LETTERS * fewest, most
