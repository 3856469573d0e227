"""How much a listener's scores are worth, beside the pre-committed rule.

The rule of the verdict, |mean(standby) - mean(primary)| < 0.5, is exact arithmetic and is
not touched here. This module says what it does not: how wide the scores scatter, whether
they bear the outcome out, how often the rule errs with so few pairs, and whether the
listener can hear a difference at all.

The utterance is the unit: the passes of one listener over the same recording are not
independent, so every statistic is of the ten differences, each a mean over the passes.

`weigh` names the evidence *weak*, *moderate* or *strong*:

weak, if any of these holds:
    the scores are older than the audio;
    the impostor is not told from the reference: it scores less than `TOLD` below the primary;
    the listener is unsteady: repeats, or the primary against itself, differ by more than
    `UNSTEADY` on average;
    nothing ever varied: every score is the same, and no impostor was played;
    the outcome is not borne out at 5 %: for "one voice" TOST does not show every standby to lie
    within 0.5, for "two voices" no standby is shown to lie beyond 0.5.
strong, if none of these holds, and all of the following do:
    the listener was checked with repeats, same-host pairs and an impostor, and was steady to
    `STEADY`;
    for "one voice", the bootstrap interval lies within 0.5, too, and the rule errs seldom: it
    passes an identical voice with at least `RIGHT`, one that is a whole point worse with at
    most `WRONG`.
moderate otherwise.

That the rule passes a voice which is exactly 0.5 worse is no condition: at its own boundary
it is the toss of a coin, with any number of pairs. It is said in words instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from understudy.verdict.inference import (
    ALPHA,
    MARGIN,
    ROUNDING,
    bootstrap,
    differences,
    operating,
    spread,
    tost,
)

#: Points; twice the margin, twice the margin, the margin.
TOLD, UNSTEADY, STEADY = 1.0, 1.0, 0.5
#: The rule's error rates of strong evidence: see above.
RIGHT, WRONG = 0.9, 0.05


def _apart(rows: Sequence[Mapping[str, Any]], first: str, second: str) -> dict[str, Any] | None:
    """Return how far two scores of the same thing lie apart on average; None without any."""
    if not rows:
        return None
    gaps = [abs(row[first] - row[second]) for row in rows]
    return {"n": len(gaps), "same": gaps.count(0), "mean_apart": float(np.mean(gaps))}


def reliability(
    listener: Mapping[str, Any] | None, primary: str, primary_mean: float
) -> dict[str, Any] | None:
    """Return what the hidden checks say about the listener.

    Args:
        listener: of ratings.json, or None.
        primary: the host that impostors are compared with.
        primary_mean: its mean score.

    Returns:
        ``repeats`` and ``same_host`` (``n``, ``same``, ``mean_apart``), ``impostor`` (``n``,
        ``mean``, ``below`` the primary, ``told``), ``telephone`` (``n``, ``noticed``), each None
        where nothing was asked, and ``says``, the same in sentences. None without a listener.
    """
    if listener is None:
        return None
    repeats = _apart(listener["repeats"], "first", "second")
    same_host = _apart(listener["same_host"], "a", "b")
    says = [
        f"{label}: {found['same']} of {found['n']} got the same score both times, "
        f"{found['mean_apart']:.2f} points apart on average."
        for label, found in (("Hidden repeats", repeats), (f"{primary} against itself", same_host))
        if found
    ]
    impostor = None
    if listener["impostor"]:
        mean = float(np.mean([row["score"] for row in listener["impostor"]]))
        below = primary_mean - mean
        told = below >= TOLD - 1e-9
        impostor = {"n": len(listener["impostor"]), "mean": mean, "below": below, "told": told}
        says.append(
            f"The impostor scored {mean:.2f}, {below:.2f} below {primary}: "
            f"{'told apart' if told else 'not told apart'}."
        )
    telephone = None
    if listener["telephone"]:
        noticed = sum(row["noticed"] for row in listener["telephone"])
        telephone = {"n": len(listener["telephone"]), "noticed": noticed}
        says.append(
            f"On the telephone a difference would be noticed in {noticed} of "
            f"{telephone['n']} pairs."
        )
    return {
        "repeats": repeats,
        "same_host": same_host,
        "impostor": impostor,
        "telephone": telephone,
        "says": says,
    }


def weigh(
    given: Mapping[str, Any], standbys: Sequence[str], primary: str
) -> tuple[dict[str, Any], list[str]]:
    """Weigh the scores of a run.

    Args:
        given: ``scores`` (checked rows with ``utterance``, ``pass`` and a score per host),
            ``identity_matches``, ``given_before_audio`` and ``listener``, as in ratings.json.
        standbys: the hosts that are compared.
        primary: the host that they are compared with.

    Returns:
        The ``evidence`` of the verdict (numbers rounded to 6 decimals, so that two machines
        agree), and sentences for its ``warnings``.
    """
    scores = given["scores"]
    passes = len({row["pass"] for row in scores})
    hosts = {host: _host(scores, host, primary, passes) for host in standbys}
    mean = float(np.mean([row[primary] for row in scores]))
    listener = reliability(given["listener"], primary, mean)
    one_voice = given["identity_matches"] is not False and all(
        2 * abs(sum(row[host] - row[primary] for row in scores)) < len(scores) for host in standbys
    )
    weak = [*_doubts(given, [*standbys, primary], listener), *_unproved(hosts, one_voice)]
    missing = [*_unchecked(listener), *(_loose(hosts) if one_voice else [])]
    level = "weak" if weak else "moderate" if missing else "strong"
    reasons = weak or [_borne_out(hosts, one_voice)]
    reasons += [
        one["operating"]["sentence"]
        if len(hosts) == 1
        else f"{host}: {one['operating']['sentence']}"
        for host, one in hosts.items()
    ]
    reasons += [] if weak else missing
    evidence = {
        "level": level,
        "reasons": reasons,
        "utterances": len({row["utterance"] for row in scores}),
        "passes": passes,
        "margin": MARGIN,
        "hosts": hosts,
        "listener": listener,
    }
    rounded: dict[str, Any] = _round(evidence)
    return rounded, _warnings(listener, one_voice)


def _host(
    scores: Sequence[Mapping[str, Any]], host: str, primary: str, passes: int
) -> dict[str, Any]:
    found = differences(scores, host, primary)
    values = list(found.values())
    return {
        "differences": found,
        "mean": float(np.mean(values)),
        "spread": spread(values),
        "interval": bootstrap(values),
        "tost": tost(values, ROUNDING / math.sqrt(passes)),
        "operating": operating(values, passes),
    }


def _doubts(
    given: Mapping[str, Any], hosts: Sequence[str], listener: Mapping[str, Any] | None
) -> list[str]:
    """Return why the scores say little, whatever they are."""
    doubts = []
    if given["given_before_audio"]:
        doubts.append("The scores are older than the audio that they are about.")
    impostor = listener["impostor"] if listener else None
    if impostor and not impostor["told"]:
        doubts.append(
            f"The listener did not tell the impostor from the reference (it scored "
            f"{impostor['mean']:.2f}, {impostor['below']:.2f} below {hosts[-1]}; at least "
            f"{TOLD:.0f} is expected): such scores are no evidence."
        )
    for key, label in (("repeats", "hidden repeats"), ("same_host", "pairs of one host")):
        found = listener[key] if listener else None
        if found and found["mean_apart"] > UNSTEADY:
            doubts.append(
                f"The listener is unsteady: {label} differ by {found['mean_apart']:.2f} points on "
                f"average, more than {UNSTEADY:.0f}."
            )
    seen = {row[host] for row in given["scores"] for host in hosts}
    if len(seen) == 1 and not impostor:
        doubts.append(
            f"Every score is {seen.pop()}, and no impostor was played: nothing shows that the "
            "listener would have heard a difference."
        )
    return doubts


def _unproved(hosts: Mapping[str, Any], one_voice: bool) -> list[str]:
    """Return why the outcome is not borne out by a test at 5 %."""
    if one_voice:
        return [
            f"{host}: the difference is not shown to lie within {MARGIN} (TOST, "
            f"p = {_p(one['tost']['p'])}; {ALPHA} is asked for)."
            for host, one in hosts.items()
            if not one["tost"]["within"]
        ]
    if any(one["tost"]["beyond"] for one in hosts.values()):
        return []
    found = ", ".join(f"{host} p = {_p(one['tost']['p_beyond'])}" for host, one in hosts.items())
    return [f"No difference is shown to lie beyond {MARGIN} ({found}; {ALPHA} is asked for)."]


def _borne_out(hosts: Mapping[str, Any], one_voice: bool) -> str:
    """Return the test that bears the outcome out."""
    side, p = ("within", "p") if one_voice else ("beyond", "p_beyond")
    found = ", ".join(
        f"{host} p = {_p(one['tost'][p])}" for host, one in hosts.items() if one["tost"][side]
    )
    return f"The difference is shown to lie {side} {MARGIN} ({found})."


def _unchecked(listener: Mapping[str, Any] | None) -> list[str]:
    """Return what was not found out about the listener."""
    labels = {"repeats": "hidden repeats", "same_host": "pairs of one host", "impostor": "impostor"}
    absent = [label for key, label in labels.items() if not (listener and listener[key])]
    reasons = [f"The listener was not checked: no {', no '.join(absent)}."] if absent else []
    for key in ("repeats", "same_host"):
        found = listener[key] if listener else None
        if found and found["mean_apart"] > STEADY:
            reasons.append(
                f"The listener's {labels[key]} differ by {found['mean_apart']:.2f} points on "
                f"average, more than {STEADY}."
            )
    return reasons


def _loose(hosts: Mapping[str, Any]) -> list[str]:
    """Return what keeps a pass from being more than moderate evidence of one voice."""
    reasons = []
    for host, one in hosts.items():
        interval = one["interval"]
        if interval["low"] is not None and max(-interval["low"], interval["high"]) >= MARGIN:
            reasons.append(f"{host}: the bootstrap interval is not within {MARGIN}.")
        same, _, whole = (row["probability"] for row in one["operating"]["passes"])
        if same < RIGHT or whole > WRONG:
            reasons.append(
                f"{host}: with so few pairs the rule errs too often; a second pass helps."
            )
    return reasons


def _warnings(listener: Mapping[str, Any] | None, one_voice: bool) -> list[str]:
    if listener is None:
        return []
    found = []
    impostor, telephone = listener["impostor"], listener["telephone"]
    if impostor and not impostor["told"]:
        found.append("The listener did not tell an impostor from the reference; score again.")
    if one_voice and telephone and 2 * telephone["noticed"] > telephone["n"]:
        found.append(
            f"The scores say one voice, but on the telephone a difference would be noticed in "
            f"{telephone['noticed']} of {telephone['n']} pairs."
        )
    return found


def _p(value: float) -> str:
    return "less than 0.001" if value < 0.001 else f"{value:.3f}"


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) + 0.0  # no negative zero
    if isinstance(value, dict):
        return {key: _round(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_round(one) for one in value]
    return value
