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
import numpy.typing as npt
from scipy import optimize, stats

MARGIN = 0.5
"""Points; the margin of the rule, and of equivalence."""

ALPHA = 0.05
"""Of each one-sided test; two of them make TOST, and an interval of 1 - 2 alpha."""

RESAMPLES = 9_999
SEED = 20261122

ROUNDING = math.sqrt(1 / 6)
"""Points; how far a difference of two scores scatters by their being whole numbers alone.

A rounding error is uniform over one point, so its variance is 1/12, and that of two is 1/6.
"""

PRIOR_SPREAD = 1.1
"""Points; the spread of paired differences that is assumed where the scores show none.

An assumption, not a measurement: two independent scores with a standard deviation of 0.8
each, in the middle of what one expects of one listener on a five-point scale.
"""

TOLD, UNSTEADY, STEADY = 1.0, 1.0, 0.5
"""Points; twice the margin, twice the margin, the margin."""

RIGHT, WRONG = 0.9, 0.05

WORSE = (0.0, 0.5, 1.0)
"""Points; the true differences that the rule's error rates are told for."""

Scores = npt.NDArray[np.float64]


def differences(
    scores: Sequence[Mapping[str, Any]], standby: str, primary: str
) -> dict[str, float]:
    """Return the standby's score minus the primary's by utterance, each a mean over passes."""
    found: dict[str, list[int]] = {}
    for row in scores:
        found.setdefault(row["utterance"], []).append(row[standby] - row[primary])
    return {name: float(np.mean(values)) for name, values in found.items()}


def spread(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1); 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def bootstrap(values: Sequence[float]) -> dict[str, Any]:
    """Return the bias-corrected and accelerated bootstrap interval (BCa) of a mean.

    B. Efron, "Better bootstrap confidence intervals", JASA 82 (1987), as scipy has it, with a
    fixed seed. Of ten values it covers less than it says: 87 % of 3000 simulated listeners with
    a spread of 1.1, where the t interval covered 89 %; so the level of evidence hangs on the
    t-tests first. Where all values are equal there is none: every resample is the same.

    Args:
        values: in points, at least one.

    Returns:
        ``confidence``, ``method``, and ``low`` and ``high`` in points, or None and a ``note``.
    """
    result = {"confidence": 1 - 2 * ALPHA, "method": "BCa", "low": None, "high": None, "note": None}
    if max(values) - min(values) < 1e-9:
        alike = f"All {len(values)} differences are" if len(values) > 1 else "The difference is"
        note = f"{alike} {values[0]:.2f}: resampling shows no width."
        return {**result, "note": note}
    found = stats.bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * ALPHA,
        method="BCa",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return {**result, "low": float(found.low), "high": float(found.high)}


def tost(values: Sequence[float], least_spread: float = ROUNDING) -> dict[str, Any]:
    """Test whether a mean lies within the margin, and whether it lies beyond.

    Within: two one-sided paired t-tests against -0.5 and +0.5 (TOST; D. J. Schuirmann,
    J. Pharmacokinet. Biopharm. 15, 1987). Beyond: one, against the limit on the side of the
    mean. Where the values scatter less than the rounding of the scores hides, a t-test would
    take that for certainty; the normal distribution with `least_spread` stands in for it.

    Args:
        values: paired differences in points, at least one.
        least_spread: standard deviation in points that is taken for less.

    Returns:
        ``p`` (within), ``p_lower``, ``p_upper``, ``p_beyond``, ``within`` and ``beyond`` (each at
        5 %), and a ``note`` where it was not a t-test.
    """
    data = np.asarray(values, dtype=np.float64)
    mean, note = float(data.mean()), None
    beyond = math.copysign(MARGIN, mean), "less" if mean < 0 else "greater"
    tests = [(-MARGIN, "greater"), (MARGIN, "less"), beyond]
    if spread(values) < least_spread - 1e-9:
        error = least_spread / math.sqrt(len(data))
        tails = {"greater": stats.norm.sf, "less": stats.norm.cdf}
        lower, upper, outside = (float(tails[side]((mean - at) / error)) for at, side in tests)
        note = (
            f"The differences scatter by {spread(values):.2f}, less than whole numbers hide "
            f"({least_spread:.2f}): a normal distribution with that spread was used, not t."
        )
    else:
        lower, upper, outside = (
            float(stats.ttest_1samp(data, at, alternative=side).pvalue) for at, side in tests
        )
    return {
        "p": max(lower, upper),
        "p_lower": lower,
        "p_upper": upper,
        "p_beyond": outside,
        "within": max(lower, upper) < ALPHA,
        "beyond": outside < ALPHA,
        "note": note,
    }


def distribution(true: float, scatter: float, passes: int = 1) -> Scores:
    """Return how often each difference of one utterance occurs.

    The listener's opinion is taken as normal, and as rounded to what whole scores from 1 to 5
    allow, multiples of 1/passes from -4 to 4. The normal's width is the one that gives the
    wanted scatter after rounding, or the least one where rounding alone scatters more.

    Args:
        true: difference in points that the opinion has on average.
        scatter: standard deviation of the rounded differences, in points.
        passes: how many scores a difference is the mean of.

    Returns:
        The probabilities of -4, -4 + 1/passes, …, 4.
    """
    places = np.arange(-4 * passes, 4 * passes + 1)
    edges = (places[:-1] + 0.5) / passes

    def rounded(width: float) -> Scores:
        below = stats.norm.cdf(edges, true, width)
        return np.diff(below, prepend=0.0, append=1.0)

    def excess(width: float) -> float:
        shares = rounded(width)
        mean = shares @ places
        return math.sqrt(shares @ (places - mean) ** 2) / passes - scatter

    narrow, wide = 1e-3, 50.0
    if excess(narrow) >= 0:
        return rounded(narrow)
    if excess(wide) <= 0:
        return rounded(wide)
    return rounded(optimize.brentq(excess, narrow, wide))


def passing(true: float, scatter: float, utterances: int, passes: int = 1) -> float:
    """Return the probability that a voice passes the rule: its operating characteristic.

    Exact for independent utterances: the distribution of one difference is folded with itself
    once for each utterance, and the rule is applied to every possible sum.

    Args:
        true: how far the voice really is from the primary's, in points as they are scored: the
            end of the scale hides a part of a difference between two voices near 5.
        scatter: standard deviation of the differences of the utterances, in points.
        utterances: how many pairs there are.
        passes: how often each was scored.
    """
    one = distribution(true, scatter, passes)
    whole = np.ones(1)
    for _ in range(utterances):
        whole = np.convolve(whole, one)
    reach = 4 * passes * utterances
    sums = np.arange(-reach, reach + 1)
    return float(min(1.0, whole[2 * np.abs(sums) < utterances * passes].sum()))


def odds(probability: float) -> str:
    """Return a probability in words, in as few as it can be told honestly."""
    if probability >= 0.995:
        return "practically always"
    if probability <= 0.005:
        return "practically never"
    if probability < 0.095:
        return f"1 time in {float(f'{1 / probability:.2g}'):.0f}"
    if probability > 0.905:
        return f"{round(probability * 100)} times in 100"
    tenths = probability * 10
    near = round(tenths)
    if abs(tenths - near) > 0.25:
        return f"{math.floor(tenths)} to {math.ceil(tenths)} times in 10"
    shared = math.gcd(near, 10)
    return f"{near // shared} {'times' if near > shared else 'time'} in {10 // shared}"


def operating(values: Sequence[float], passes: int) -> dict[str, Any]:
    """Return how often the rule errs with as many pairs and as much scatter as here.

    Args:
        values: the paired differences of the utterances, in points.
        passes: how many scores each is the mean of.

    Returns:
        ``spread`` in points; ``assumed``, whether it is the prior one, because the scores show
        less than their rounding hides; ``passes``, the probability that a voice passes by how
        much it is really worse; ``sentence``.
    """
    seen = spread(values)
    assumed = seen < ROUNDING / math.sqrt(passes) - 1e-9
    scatter = PRIOR_SPREAD / math.sqrt(passes) if assumed else seen
    found = [passing(-worse, scatter, len(values), passes) for worse in WORSE]
    same, half, whole = map(odds, found)
    why = "as is assumed, since these hardly do" if assumed else "as these do"
    return {
        "spread": scatter,
        "assumed": assumed,
        "passes": [
            {"worse_by": worse, "probability": probability}
            for worse, probability in zip(WORSE, found, strict=True)
        ],
        "sentence": (
            f"{_pairs(len(values), passes)}: an identical voice passes this rule {same}, a voice "
            f"0.5 worse still passes {half}, one a whole point worse {whole} "
            f"(if the differences scatter by {scatter:.2f}, {why})."
        ),
    }


def _pairs(utterances: int, passes: int) -> str:
    return f"{utterances * passes} pairs, {'one pass' if passes == 1 else f'{passes} passes'}"


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
