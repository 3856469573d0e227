"""Sentences that were not asked before, so that no cache can answer for a voice."""

from __future__ import annotations

import random
from datetime import datetime

_ONES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty")


def in_words(number: int) -> str:
    """Return a number from 0 to 59 in English words."""
    if number < 20:
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f" {_ONES[ones]}" if ones else "")


def fresh_sentence(now: datetime | None = None) -> str:
    """Return a sentence with the time of day and a random number of four digits.

    Args:
        now: the local time; the clock's when None.
    """
    now = now or datetime.now()
    digits = " ".join(_ONES[digit] for digit in random.SystemRandom().choices(range(10), k=4))
    time = f"{in_words(now.hour)} hours and {in_words(now.minute)} minutes"
    return f"The time is {time}, and your number is {digits}."
