"""Sentences that were not asked before, so that no cache can answer for a voice."""

from __future__ import annotations

import random
from collections.abc import Iterable

#: What a sentence is made of, slot by slot: 16^6 of them. Two that share no word differ in nearly
#: every sound, so that right answers to them are never taken for the same recording.
_SLOTS = tuple(
    tuple(words.split(", "))
    for words in (
        "two, three, four, five, six, seven, eight, nine, eleven, twelve, fourteen, sixteen, "
        "twenty, thirty, forty, sixty",
        "yellow, wooden, silver, narrow, cheerful, frozen, purple, gentle, hollow, modern, sleepy, "
        "velvet, crooked, polished, distant, orange",
        "lanterns, bicycles, sandwiches, keyboards, umbrellas, postcards, violins, candles, "
        "blankets, telescopes, mushrooms, suitcases, pigeons, teacups, magazines, bridges",
        "were waiting, arrived early, have been sold, are standing, looked splendid, fell asleep, "
        "will be painted, stopped moving, must be counted, came together, got forgotten, "
        "should stay clean, disappeared, could need repair, keep travelling, turned wet",
        "behind the station, under the staircase, near the harbour, beside the river, "
        "in the museum, on the balcony, across the valley, outside the bakery, above the garage, "
        "at the airport, along the coast, inside the chapel, before the castle, "
        "past the lighthouse, between the gardens, around the market",
        "on Monday, on Tuesday, on Wednesday, on Thursday, on Friday, on Saturday, on Sunday, "
        "this morning, last autumn, next week, in February, since April, until Christmas, "
        "after lunch, at midnight, every evening",
    )
)
_ORDERS = ((0, 1, 2, 3, 4, 5), (5, 0, 1, 2, 3, 4), (4, 0, 1, 2, 3, 5))


def fresh_sentence(unlike: Iterable[str] = ()) -> str:
    """Return an English sentence of about ten words, without digits.

    Args:
        unlike: sentences that were asked already; while there are words left, it shares none.
    """
    asked = " ".join(unlike).lower()
    dice = random.SystemRandom()
    chosen = [
        dice.choice([words for words in slot if words.lower() not in asked] or slot)
        for slot in _SLOTS
    ]
    first, *others = [chosen[index] for index in dice.choice(_ORDERS)]
    return " ".join((first[0].upper() + first[1:], *others)) + "."
