"""How long a text may take to speak, from what of it is read out: limits in seconds.

Words are no measure: a web address is one word, and so is a Chinese sentence. What takes time is
syllables. A text has no one number of them, since ``1,250`` may be read as a number or digit by
digit and ``NASA`` as a word or as letters, so that the fewest and the most are estimated:

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
Chinese, kana, hangul             1 a character              2
letters of another script         0.3 (Arabic has no vowels) 1
a symbol                          0                          4 (a slash is "Schrägstrich"), emoji 8
================================  =========================  ======================================

The rates that make seconds of them were measured with espeak-ng in thirteen languages
(``tests/tools/speech_gates.py lengths``): at 300 words a minute, faster than anyone reads to a
caller, no text has more than 10.2 of the fewest syllables a second; at 160, an ordinary pace, a
sentence has 3.7 to 5.6, so that one of which 70 % is missing has more than 12.
"""

from __future__ import annotations

import re
import unicodedata

#: Of the fewest syllables: more a second than this is not the whole text.
FASTEST_PER_S = 11.5

#: Of the most syllables: fewer a second than this, and more than the text was said.
SLOWEST_PER_S = 2.0

#: A pause at each mark of punctuation, and what a voice may add to any text, in seconds.
PAUSE_S, EXTRA_S = 0.5, 4.0

#: The shortest audio of any text, in seconds ("Oui." at 300 words a minute: 0.14).
SHORTEST_S = 0.1

_MARKS = re.compile(r"[.,;:!?\u2026\u2013\u2014\u3001\u3002\uff0c\uff1b\uff1a\uff01\uff1f]+|\n+")
_PARTS = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_VOWELS = re.compile("[aeiouyæœøıαεηιουωаеиоуыэюяєіѣ]+")  # noqa: RUF001 Greek, Cyrillic
_SYLLABIC = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
)
#: Above these code points: no Latin, Greek or Cyrillic letter; an emoji rather than a symbol.
_OTHER_SCRIPTS, _EMOJI = 0x52F, 0x2FFF


def shortest_plausible_s(text: str) -> float:
    """Return the seconds that the fastest voice needs for a text."""
    return max(SHORTEST_S, syllables(text)[0] / FASTEST_PER_S)


def longest_plausible_s(text: str) -> float:
    """Return the seconds that the slowest voice needs for a text, pauses included."""
    pauses = PAUSE_S * len(_MARKS.findall(text))
    return EXTRA_S + syllables(text)[1] / SLOWEST_PER_S + pauses


def syllables(text: str) -> tuple[float, float]:
    """Return the fewest and the most syllables in which a text can be read out."""
    fewest = most = 0.0
    for chunk in unicodedata.normalize("NFKC", text).split():
        parts = _PARTS.findall(chunk.strip("\"'([{<.,;:!?)]}>"))
        # Such as an address, a file's name or a tracking number.
        mixed = any(not part.isalpha() and part not in "'\u2019-" for part in parts)
        for part in parts:
            few, many = _syllables(part, mixed)
            fewest, most = fewest + few, most + many
    return fewest, most


def _syllables(part: str, mixed: bool) -> tuple[float, float]:
    """Return the same of letters, of digits, or of one symbol; `mixed`: with others around."""
    if part.isdecimal():
        said = part.rstrip("0") if all(digit.isascii() for digit in part) else part
        return (1 if len(part) < 3 else max(1, 2 * len(said))), 4 * len(part)
    if not part[0].isalpha():
        if unicodedata.category(part).startswith("M"):  # a vowel's sign
            return 0, 1
        return 0, 8 if ord(part) > _EMOJI else 4
    characters = len(_SYLLABIC.findall(part))
    if characters or ord(part[0]) > _OTHER_SCRIPTS:
        others = len(part) - characters
        return characters + 0.3 * others, 2 * characters + others
    plain = "".join(filter(str.isalpha, unicodedata.normalize("NFKD", part.lower())))
    groups = _VOWELS.findall(plain)
    names = len(plain) + 2 * plain.count("w")
    if not groups:
        return max(1, len(plain) // 2), names
    silent = len(groups) > 1 and plain.endswith(("e", "es", "ed"))
    vowels = sum(map(len, groups))
    spelled = mixed or part.isupper()
    return len(groups) - silent, max(names, vowels) if spelled else vowels
