"""Shall the clients be switched, to whom, and what came of it: what failover and failback think."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from understudy.common.jsonio import read_json
from understudy.common.times import run_began

FAILOVER, FAILBACK = "failover.yml", "failback.yml"


class Refused(Exception):
    """Nobody is switched; the message says what was seen and the next command."""


def evidence(reports: str, days: float, now: float | None = None) -> dict[str, Any]:
    """Return what is known of the standby's voice.

    Args:
        reports: directory of all runs.
        days: after so many a verdict is stale; 0 for never.
        now: Unix time.

    Returns:
        ``run_id``, ``verdict`` and ``age_days`` of the newest run, and ``warning`` (None, or what
        an operator should know before callers hear that voice).
    """
    known: dict[str, Any] = {"run_id": None, "verdict": None, "age_days": None}
    try:
        found = read_json(Path(reports, "latest", "verdict.json"))
        run_id, verdict = found["run_id"], found["verdict"]
        then = run_began(run_id)
    except (ValueError, KeyError, TypeError):
        missing = "no run has a verdict: nobody has shown that the standby sounds like the primary"
        return {**known, "warning": missing}
    age = ((time.time() if now is None else now) - then.timestamp()) / 86400
    wrong: str | None = None
    state = (found.get("human") or {}).get("state", "stands")
    if found.get("rehearsal"):
        wrong = f"the newest run is a rehearsal (run {run_id}): it says nothing about the standby"
    elif not verdict.endswith("_validated"):
        wrong = f"the last verdict is {verdict} (run {run_id}): the standby may sound different"
    elif state != "stands" or not found.get("ok", True):
        seen = f"is {state}" if state != "stands" else "has a check that failed"
        wrong = f"the last verdict {seen} (run {run_id}): the standby may sound different"
    elif days and age > days:
        wrong = (
            f"the last verdict is {age:.0f} days old (run {run_id}): much may have changed since"
        )
    return {"run_id": run_id, "verdict": verdict, "age_days": round(age, 2), "warning": wrong}


def decide(
    command: str,
    clients: dict[str, dict[str, Any]],
    standbys: dict[str, dict[str, Any]],
    primary: dict[str, Any],
    to: str = "",
    force: bool = False,
    heard_for_s: float = 0,
    now: float | None = None,
) -> dict[str, Any]:
    """Say who is to speak to whom.

    Args:
        command: `FAILOVER` or `FAILBACK`.
        clients: by name; ``url``, ``epoch``, ``target``, ``previous``, ``finished``, ``foreign``,
            ``heard`` as `route.Route.look` has them, or ``problem`` alone where nothing could be
            seen.
        standbys: by name, in the inventory's order; ``url``, ``reached``, ``ready``.
        primary: ``host``, ``speaks``, ``seen``, ``wall_s``; ``url`` for clients that remember none.
        to: the standby that was asked for.
        force: fail over although the primary speaks.
        heard_for_s: how long what was heard through a client's URL stands, in seconds.
        now: Unix time.

    Returns:
        ``to``; ``urls`` by client; ``epoch``; ``already_switched`` (every client that
        can be switched is there); ``settled`` (where all of them also were heard there not long ago
        and the server is well, so nothing is left to do: what was heard, by client; else empty);
        ``warnings``.

    Raises:
        Refused: nobody is to be switched.
    """
    seen = {name: row for name, row in clients.items() if "url" in row}
    if not seen:
        problems = "; ".join(f"{name}: {row['problem']}" for name, row in clients.items())
        raise Refused(
            f"no client can be told. {problems or 'The group `clients` is empty'}. Next: put the "
            "clients into the group `clients` of the inventory, and see that ssh reaches them"
        )
    if command == FAILOVER:
        to = to or _best(standbys)
        if to not in standbys:
            raise Refused(
                f"{to} is not in the group `standby`. Next: ansible-inventory --graph standby"
            )
        if not standbys[to].get("reached"):
            raise Refused(f"{to} cannot be reached, and nobody else can speak. Next: ssh {to} true")
        urls = dict.fromkeys(seen, standbys[to]["url"])
    else:
        to = primary["host"]
        urls = {name: _home(row, standbys, primary["url"]) for name, row in seen.items()}
    last = max(row["epoch"] for row in seen.values())
    whole = all(row["target"] == to for row in seen.values() if row["epoch"] == last)
    already_switched = all(
        row["url"] == urls[name] and row["finished"] for name, row in seen.items()
    )
    if command == FAILOVER and primary["speaks"] and not force and not already_switched:
        raise Refused(
            f"{primary['host']} is healthy and speaks (a fresh sentence in "
            f"{primary['wall_s']:.1f} s). Where callers hear nothing all the same, look at the "
            "clients. "
            "To switch in spite of it: ansible-playbook failover.yml -e force=true"
        )
    epoch = last if last and whole else last + 1
    well = standbys[to].get("ready") if command == FAILOVER else primary["speaks"]
    now = time.time() if now is None else now
    settled = {
        name: row["heard"]
        for name, row in seen.items()
        if well
        and row["finished"]
        and (row["epoch"], row["url"]) == (epoch, urls[name])
        and row.get("heard")
        and now - heard_for_s < row["heard"]["at"] <= now
    }
    return {
        "to": to,
        "urls": urls,
        "epoch": epoch,
        "already_switched": already_switched,
        "settled": settled if len(settled) == len(seen) else {},
        "warnings": list(_warnings(seen, last)),
    }


def _best(standbys: dict[str, dict[str, Any]]) -> str:
    """Return the standby that is up, else one that can be reached, else the first."""
    for quality in ("ready", "reached", "url"):
        for name, row in standbys.items():
            if row.get(quality):
                return name
    return next(iter(standbys), "nobody")


def _home(row: dict[str, Any], standbys: dict[str, dict[str, Any]], otherwise: str) -> str:
    """Return where a client's voice came from before any standby."""
    away = row["target"] in standbys or row["url"] in [s.get("url") for s in standbys.values()]
    if not away:
        return str(row["url"])
    previous = row["previous"] or {}
    if previous.get("url") and previous.get("target") not in standbys:
        return str(previous["url"])
    return otherwise


def _ago(seconds: float) -> str:
    """Return how long before the command something was heard; nothing where it was not."""
    return f", {seconds:.0f} s before this command" if seconds > 0 else ""


def _warnings(seen: dict[str, dict[str, Any]], last: int) -> Any:
    half = [
        name for name, row in seen.items() if not row["finished"] or row["epoch"] not in (0, last)
    ]
    half += [name for name, row in seen.items() if last and row["epoch"] == 0]
    if half:
        yield f"switch {last} was left half-done on {', '.join(half)}; it is finished now"
    for name, row in seen.items():
        if row["foreign"]:
            yield f"{name}: its URL was changed by hand to {row['url']} since the last switch"


def outcome(
    command: str,
    decision: dict[str, Any],
    clients: dict[str, dict[str, Any]],
    began: float,
    ready_at: float | None,
    evidence_warning: str | None,
) -> dict[str, Any]:
    """Return what is recorded in the end, and the last words.

    Args:
        command: `FAILOVER` or `FAILBACK`.
        decision: of `decide`.
        clients: by name; ``problem`` (or ""), ``put_back`` (None, or the URL), ``switched_at``,
            ``heard`` (None, or ``at``, ``wall_s``, ``audio_s``), ``url``.
        began: when the command was typed, Unix time; and so are all times.
        ready_at: when the standby was seen to be ready.
        evidence_warning: of `evidence`, where the standby speaks now.

    Returns:
        ``status``, ``clients``, ``times`` (in seconds from `began`; None where there is none) and
        ``last_words``.
    """
    clients = {
        name: {**row, "heard": row.get("heard") or decision["settled"].get(name)}
        for name, row in clients.items()
    }
    heard = {name: row for name, row in clients.items() if row["heard"]}
    mute = {name: row for name, row in clients.items() if not row["heard"]}
    switched = [row["switched_at"] for row in clients.values() if row.get("switched_at")]
    fresh = [row["heard"] for row in heard.values() if row["heard"]["at"] >= began]
    first = min(fresh, key=lambda row: row["at"], default=None)
    times = {
        "server_ready_s": round(ready_at - began, 2) if ready_at else None,
        "switched_s": round(max(switched) - began, 2) if switched else None,
        "heard_s": round(first["at"] - began, 2) if first else None,
        "synthesis_s": first["wall_s"] if first else None,
    }
    words = [
        f"{name}: {decision['to']} speaks, heard through {row['url']} "
        f"({row['heard']['audio_s']:.1f} s of audio{_ago(began - row['heard']['at'])})"
        for name, row in heard.items()
    ]
    for name, row in mute.items():
        back = f"; put back to {row['put_back']}" if row.get("put_back") else ""
        words.append(f"{name}: NOT switched: {row['problem'] or 'it was lost meanwhile'}{back}")
    if first:
        steps = (
            ("server ready", times["server_ready_s"]),
            ("clients switched", times["switched_s"]),
            ("first valid audio", times["heard_s"]),
        )
        shown = ", ".join(f"{what} {when:.1f} s" for what, when in steps if when is not None)
        words.append(
            f"time since the command: {shown}, {first['wall_s']:.1f} s of it one synthesis"
        )
    if decision["settled"]:
        words.append(
            "nothing was left to do; to hear them again: "
            f"ansible-playbook {command} -e tts_route_heard_for_s=0"
        )
    words += [f"warning: {text}" for text in [*decision["warnings"], evidence_warning] if text]
    if mute:
        words.append(
            f"next: mend what is said above, then ansible-playbook {command} again: "
            "it finishes the rest"
        )
    elif command == FAILOVER:
        words.append("next: mend the primary; when it speaks again: ansible-playbook failback.yml")
    return {
        "status": "failed" if mute else "ok",
        "times": times,
        "last_words": words,
        "clients": clients,
    }
