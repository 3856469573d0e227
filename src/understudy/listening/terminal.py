"""Blind scoring on a machine without a browser: the same pass, asked for by keyboard."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from understudy.listening.passes import Sitting
from understudy.listening.session import REFERENCE, SIDES, ListeningError, RefusedError, Session

PLAYERS: dict[str, list[str]] = {
    "aplay": ["-q"],
    "paplay": [],
    "pw-play": [],
    "afplay": [],
    "ffplay": ["-nodisp", "-autoexit", "-loglevel", "error"],
}

INTRODUCTION = """
You hear a reference voice, then A and B, which say the same sentence. Score each of them from
1 to 5: does it sound like the reference, the same person through the same recording chain?
  5 the same          4 the same, with a trace of a difference    3 the same person, different sound
  2 perhaps another   1 another person
It is not a question of which is better. Every answer is saved at once.
  Enter plays what comes next, or all again; r, a, b play one; 1 to 5 scores; u goes back; q stops.
"""

Play = Callable[[Path], None]
Ask = Callable[[str], str]
Say = Callable[[str], None]


class Stopped(Exception):
    """The listener goes on another time."""


def player(name: str | None = None) -> Play:
    """Return what plays a WAV to its end.

    Args:
        name: of the player; the first one that is found when None.

    Raises:
        ListeningError: there is none.
    """
    found = next((one for one in ([name] if name else PLAYERS) if shutil.which(one)), None)
    if found is None:
        looked = name or ", ".join(PLAYERS)
        raise ListeningError(
            [
                f"no player was found: {looked}. "
                "Next: apt install alsa-utils, or name one with --player"
            ]
        )
    command = [found, *PLAYERS.get(Path(found).name, [])]

    def play(path: Path) -> None:
        ended = subprocess.run(
            [*command, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            reason = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or ["no reason given"]
            raise ListeningError(
                [f"{found} could not play a recording (status {ended.returncode}): {reason[0]}. "
                 "Next: name another one with --player"]
            )  # fmt: skip

    return play


def run(sitting: Sitting, play: Play, ask: Ask, say: Say) -> None:
    """Ask for every answer of the open pass, and lock it.

    Args:
        sitting: the run and its passes.
        play: plays a WAV to its end.
        ask: shows a prompt and returns what was typed.
        say: shows a line.

    Raises:
        ListeningError: nothing can be played, or ``ratings.json`` cannot be written.
    """
    one = sitting.current
    if one is None:
        return
    say(INTRODUCTION)
    try:
        _answer(one, play, ask, say)
        sitting.finish(_last_question(one, ask, say), "terminal")
    except (Stopped, EOFError, KeyboardInterrupt):
        say(f"Stopped with {one.given} of {one.total} answers; the same command goes on from here.")
        return
    say("All answers are locked, and ratings.json is written.")


def _answer(one: Session, play: Play, ask: Ask, say: Say) -> None:
    """Go through the pairs, then the calls; begin where an answer is missing."""
    trials: Sequence[dict[str, Any]] = one.plan["pairs"] + one.plan["calls"]
    at = next((n for n, trial in enumerate(trials) if _open(one, trial)), len(trials))
    while at < len(trials):
        trial, pairs = trials[at], len(one.plan["pairs"])
        call = at >= pairs
        if call and at == pairs:
            say("\nNow both as a caller hears them. One question: would you notice on a call?")
        title = (
            f"call {at + 1 - pairs} of {len(trials) - pairs}"
            if call
            else f"pair {at + 1} of {pairs}"
        )
        at += _trial(one, trial, title, play, ask, say)
        at = max(at, 0)


def _open(one: Session, trial: dict[str, Any]) -> list[str]:
    """Return the answers of a pair that are missing."""
    return [key for key, value in one.answers[trial["id"]].items() if value is None]


def _trial(one: Session, trial: dict[str, Any], title: str, play: Play, ask: Ask, say: Say) -> int:
    """Play a pair and take its answers; return 1 to go on, -1 to go back."""
    name = trial["id"]
    call = "noticed" in one.answers[name]
    sides = SIDES if call else (REFERENCE, *SIDES)

    def hear(these: Sequence[str]) -> None:
        for side in these:
            say(f"  {'reference' if side == REFERENCE else side.upper()} …")
            play(one.stimulus(one.plan["reference"] if side == REFERENCE else trial[side]))
            one.heard(name, side)

    while True:
        answer = one.answers[name]
        unheard = [side for side in sides if side not in answer["heard"]]
        missing = _open(one, trial)
        if unheard:
            wanted = "Enter plays"
        elif not missing:
            wanted = f"Enter goes on; {'y or n' if call else 'a1 to b5'} corrects"
        elif call:
            wanted = "noticeable? y or n"
        else:
            wanted = f"{missing[0].upper()}: 1 to 5"
        typed = ask(f"{title}, {wanted}: ").strip().lower()
        try:
            if typed == "q":
                raise Stopped
            if typed == "u":
                return -1
            if typed == "" and not (unheard or missing):
                return 1
            if typed == "":
                hear(unheard or sides)
            elif typed in sides:
                hear([typed])
            elif call and typed in ("y", "n"):
                one.notice(name, typed == "y", answer["noticed"])
            elif not call and missing and typed.isdigit():
                one.score(name, missing[0], int(typed), answer[missing[0]])
            elif not call and typed[:1] in SIDES and typed[1:].isdigit():
                one.score(name, typed[0], int(typed[1:]), answer[typed[0]])
            else:
                say(f"  {typed!r} is none of: Enter, {', '.join(sides)}, "
                    f"{'y, n' if call else '1 to 5, a1 to b5'}, u, q")  # fmt: skip
                continue
        except RefusedError as error:
            say(f"  {error}")
            continue
        if not _open(one, trial) and (typed in ("y", "n") or typed[-1:].isdigit()):
            return 1


def _last_question(one: Session, ask: Ask, say: Say) -> bool:
    say(
        f"\nThree of the {len(one.plan['pairs'])} pairs were checks, and one of those held an "
        "altered voice. Apart from that:"
    )
    while True:
        typed = ask("all in all, is it the same voice? y or n (this locks your answers): ")
        if typed.strip().lower() in ("y", "n"):
            return typed.strip().lower() == "y"
        if typed.strip().lower() == "q":
            raise Stopped
