"""Which client is switched to which voice server, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from understudy.common.jsonio import read_json
from understudy.common.times import run_began
from understudy.common.urls import normalised, same_server

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
        run_id, verdict = str(found["run_id"]), str(found["verdict"])
        then = run_began(run_id)
    except (ValueError, KeyError, TypeError):
        missing = "no run has a verdict: nobody has shown that the standby sounds like the primary"
        return {**known, "warning": missing}
    age = ((time.time() if now is None else now) - then.timestamp()) / 86400
    wrong: str | None = None
    human = found.get("human") or {}
    state = human.get("state", "stands") if isinstance(human, dict) else "unreadable"
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


def uses(client: dict[str, Any], name: str, standby: dict[str, Any], primary_url: str) -> str:
    """Return how a client uses a standby's server, as far as is known; "" where it does not.

    A client that was not looked at counts as a user, and so does one whose server cannot be told
    from the standby's: a server that somebody may speak to is not stopped.

    Args:
        client: as in `decide`; ``server`` is what answers at the client's URL, as the client sees
            it: ``instance``, ``answers``.
        name: the standby.
        standby: as in `decide`; ``instance`` is its server's own id.
        primary_url: of the primary's server.
    """
    if "url" not in client:
        return f"may use it, since it was not looked at: {client['problem']}"
    url = client["url"]
    if standby.get("url") and same_server(url, standby["url"]):
        return "uses it"
    if client["target"] == name and not client["foreign"]:
        return f"uses it, as {url}"
    server = client.get("server") or {}
    if server.get("instance"):
        return f"uses it, as {url}" if server["instance"] == standby.get("instance") else ""
    if same_server(url, primary_url) or server.get("answers"):
        return ""  # a server of ours that answers tells its instance
    return f"may use it, as {url}, where nothing answers"


def users(
    clients: dict[str, dict[str, Any]], name: str, standby: dict[str, Any], primary_url: str
) -> list[str]:
    """Return who uses a standby's server, or may, each with the reason; see `uses`."""
    found = {who: uses(row, name, standby, primary_url) for who, row in clients.items()}
    if standby.get("service") == "running" and not standby.get("instance"):
        for who, row in clients.items():  # of an earlier version, or too busy to tell
            if not found[who] and not same_server(row["url"], primary_url):
                found[who] = f"may use it, as {row['url']}: its server does not tell its instance"
    return [f"{who} {how}" for who, how in found.items() if how]


def order(standbys: dict[str, dict[str, Any]], to: str = "") -> list[str]:
    """Return the standbys in the order in which they are to be tried.

    Args:
        standbys: as in `decide`.
        to: the one that was asked for comes first; then those that are ready, then those that can
            be reached.

    Raises:
        Refused: there is no standby of that name, or none at all.
    """
    if to and to not in standbys:
        raise Refused(
            f"{to} is not in the group `standby`. Next: ansible-inventory --graph standby"
        )
    if not standbys:
        raise Refused("the group `standby` is empty. Next: put a host into it in the inventory")
    return sorted(
        standbys,
        key=lambda name: (
            name != to,
            not standbys[name].get("ready"),
            not standbys[name].get("reached"),
        ),
    )


def decide(
    command: str,
    clients: dict[str, dict[str, Any]],
    standbys: dict[str, dict[str, Any]],
    primary: dict[str, Any],
    to: str = "",
    force: bool = False,
    heard_for_s: float = 0,
    now: float | None = None,
    may_start: bool = False,
) -> dict[str, Any]:
    """Say which client is switched to which server.

    Args:
        command: `FAILOVER` or `FAILBACK`.
        clients: by name; ``url``, ``epoch``, ``target``, ``previous``, ``finished``, ``foreign``,
            ``heard``, ``server`` as `route.Route.look` and the module have them, or ``problem``
            alone where nothing could be seen.
        standbys: by name, in the inventory's order; ``url``, ``reached``, ``ready``, ``problem``.
        primary: ``host``, ``speaks``, ``seen``, ``wall_s``; ``url`` for clients that remember none.
        to: the standby that was asked for.
        force: fail over although the primary speaks.
        heard_for_s: how long what was heard through a client's URL stands, in seconds.
        now: Unix time.
        may_start: a standby that can be reached will do; whether one can be started is not known
            yet.

    Returns:
        ``to``; ``urls`` by client; ``epoch``; ``already_switched`` (every client that
        can be switched is there); ``settled`` (where all of them also were heard there not long ago
        and the server is well, so nothing is left to do: what was heard, by client; else empty);
        ``mute`` (clients whose present server is known not to speak); ``unknown`` (clients whose
        new URL is not known to be that of ``to``); ``warnings``.

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
    warnings: list[str] = []
    if command == FAILOVER:
        asked, to = to, _first(standbys, to, may_start)
        if asked and to != asked:
            why = standbys[asked].get("problem") or "it cannot be reached"
            warnings.append(f"{asked}, which was asked for, cannot speak ({why}); {to} is used")
        urls = dict.fromkeys(seen, normalised(standbys[to]["url"]))
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
        "mute": [name for name, row in seen.items() if _mute(row["url"], standbys, primary)],
        "unknown": [
            name
            for name, url in urls.items()
            if command == FAILBACK and not same_server(url, primary["url"])
        ],
        "warnings": [*warnings, *_warnings(seen, last)],
    }


def _first(standbys: dict[str, dict[str, Any]], to: str, may_start: bool) -> str:
    """Return the first standby that is ready, or can be reached where it may be started."""
    names = order(standbys, to)
    for name in names:
        if standbys[name].get("ready") or (may_start and standbys[name].get("reached")):
            return name
    seen = "; ".join(
        f"{name}: {standbys[name].get('problem') or 'it cannot be reached'}" for name in names
    )
    lost = [name for name in names if not standbys[name].get("reached")]
    step = f"ssh {lost[0]} true" if lost else "mend that, then ansible-playbook failover.yml again"
    raise Refused(f"no standby can speak. {seen}. Next: {step}")


def _home(row: dict[str, Any], standbys: dict[str, dict[str, Any]], primary_url: str) -> str:
    """Return where a client's voice came from before any standby."""
    if (row["foreign"] or row["target"] not in standbys) and not any(
        uses(row, name, standby, primary_url) for name, standby in standbys.items()
    ):
        return str(row["url"])
    previous = row["previous"] or {}
    url, instance = previous.get("url"), (row.get("previous_server") or {}).get("instance")
    if url and not any(
        previous.get("target") == name
        or same_server(url, standby.get("url") or "")
        or (instance and instance == standby.get("instance"))
        for name, standby in standbys.items()
    ):
        return str(url)
    return normalised(primary_url)


def _mute(url: str, standbys: dict[str, dict[str, Any]], primary: dict[str, Any]) -> bool:
    """Whether the server at a URL is known not to speak."""
    if same_server(url, primary["url"]):
        return not primary["speaks"]
    return any(
        row.get("reached") and not row.get("ready")
        for row in standbys.values()
        if row.get("url") and same_server(url, row["url"])
    )


def _ago(seconds: float) -> str:
    """Return how long before the command something was heard; nothing where it was not."""
    return f", {seconds:.0f} s before this command" if seconds > 0 else ""


def _warnings(seen: dict[str, dict[str, Any]], last: int) -> Iterator[str]:
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
    losses: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what is recorded in the end, and the last words.

    Args:
        command: `FAILOVER` or `FAILBACK`.
        decision: of `decide`.
        clients: by name; ``problem`` (or ""), ``put_back`` (None, or the URL),
            ``not_put_back`` (or ""), ``switched_at``, ``heard`` (None, or ``at``, ``wall_s``,
            ``audio_s``), ``url``.
        began: when the command was typed, Unix time; and so are all times.
        ready_at: when the standby was seen to be ready.
        evidence_warning: of `evidence`, where the standby speaks now.
        losses: what else went wrong, on the standbys.

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
    words = [*_losses(mute), *losses]
    for name, row in heard.items():
        who = f"a server that is not {decision['to']}'s as the inventory has it"
        who = who if name in decision["unknown"] else decision["to"]
        words.append(
            f"{name}: {who} speaks, heard through {row['url']} "
            f"({row['heard']['audio_s']:.1f} s of audio{_ago(began - row['heard']['at'])})"
        )
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
    failed = bool(mute or losses)
    if failed:
        words.append(
            f"next: mend what is said above, then ansible-playbook {command} again: "
            "it finishes the rest"
        )
    elif command == FAILOVER:
        words.append("next: mend the primary; when it speaks again: ansible-playbook failback.yml")
    return {
        "status": "failed" if failed else "ok",
        "times": times,
        "last_words": words,
        "clients": clients,
    }


def _losses(mute: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Describe the clients that were not heard, the worst first."""
    for name, row in mute.items():
        if row.get("not_put_back"):
            yield (
                f"{name}: NOT PUT BACK, its callers may hear nothing: {row['not_put_back']}; "
                f"before that: {row['problem']}"
            )
    for name, row in mute.items():
        problem = row["problem"] or "it was lost meanwhile"
        if row.get("not_put_back"):
            continue
        if row.get("put_back"):
            yield f"{name}: NOT switched: {problem}; put back to {row['put_back']}, which speaks"
        elif row.get("switched_at"):
            yield f"{name}: NOT heard: {problem}; it stays with {row['url']}"
        else:
            yield f"{name}: NOT switched: {problem}"
