"""Can everyone take part? All problems at once, each with the next command to type."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from understudy.common.jsonio import JsonError, read_json
from understudy.verdict import ratings, scoring

GIB = 1024**3
#: What the plays start on the control node, and the package of Debian and Ubuntu that has it.
CONTROL_COMMANDS = {"grep": "grep", "tail": "coreutils", "tar": "tar", "timeout": "coreutils"}
#: A voice server that was asked so recently speaks to callers, in seconds.
CALLERS_S = 300


def check(
    id_: str,
    host: str | None,
    ok: bool,
    detail: str,
    next_step: str,
    *,
    value: Any = None,
    threshold: Any = None,
    unit: str | None = None,
) -> dict[str, Any]:
    """Return one row of the contract's ``checks``."""
    return {
        "id": id_,
        "host": host,
        "ok": ok,
        "value": value,
        "threshold": threshold,
        "unit": unit,
        "detail": detail,
        "next": None if ok else next_step,
    }


def host_checks(host: str, facts: dict[str, Any], needs: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge one host.

    Args:
        host: as the inventory names it.
        facts: of `hostinfo.collect`, or ``{reachable: False, seen: text}``.
        needs: ``ssh`` (the command that shows the trouble), and for hosts that install something
            ``disk_bytes``, ``mem_available_bytes``, ``python`` ([major, minor]) and ``gpu`` (bool).
    """
    if not facts.get("reachable"):
        seen = facts.get("seen") or "no answer"
        if "interpreter" in seen:  # Ansible reached the host, and found no Python there
            then = f"ssh {host} sudo apt install python3; or correct ansible_python_interpreter"
            return [check("python", host, False, seen, then)]
        return [check("reachable", host, False, seen, needs["ssh"])]
    rows = [check("reachable", host, True, f"{facts['os']}, {facts['arch']}", "")]
    if "missing_commands" in facts:
        missing = facts["missing_commands"]
        packages = facts.get("missing_packages")
        rows.append(
            check(
                "commands",
                host,
                not missing,
                f"missing: {', '.join(missing)}" if missing else "every program is there",
                f"ssh {host} sudo apt install {' '.join(packages)}"
                if packages
                else f"install it on {host}, or correct the command in the inventory",
            )
        )
    if "disk_bytes" in needs:
        rows.append(
            _enough(
                "disk",
                host,
                facts["disk_free_bytes"],
                needs["disk_bytes"],
                f"free at {facts['disk_path']}",
                f"ssh {host} df -h {facts['disk_path']}",
            )
        )
    if "mem_available_bytes" in needs:
        rows.append(
            _enough(
                "memory",
                host,
                facts["mem_available_bytes"],
                needs["mem_available_bytes"],
                "MemAvailable",
                f"ssh {host} free -h; free some of it",
            )
        )
    if "python" in needs:
        wanted = tuple(needs["python"])
        seen = tuple(int(x) for x in facts["python"].split(".")[:2])
        rows.append(
            check(
                "python",
                host,
                seen >= wanted,
                f"Python {facts['python']}, {wanted[0]}.{wanted[1]} or newer is needed",
                f"on {host}: install a newer Python and set ansible_python_interpreter",
                value=facts["python"],
                threshold=f"{wanted[0]}.{wanted[1]}",
            )
        )
        rows.append(
            check(
                "venv",
                host,
                facts["venv"],
                "python3 can make environments"
                if facts["venv"]
                else "python3 cannot make environments (ensurepip is missing)",
                f"ssh {host} sudo apt install python3-venv",
            )
        )
    if needs.get("gpu"):
        found = ", ".join(
            f"{g['name']} (sm_{g['compute_capability'].replace('.', '')})" for g in facts["gpus"]
        )
        rows.append(
            check(
                "gpu",
                host,
                bool(facts["gpus"]),
                f"{found}, driver {facts['driver']}" if found else f"no GPU: {facts['gpu_note']}",
                f"ssh {host} nvidia-smi; without a GPU set chatterbox_device: cpu",
            )
        )
    return rows


def _enough(
    id_: str, host: str, have: int | None, need: int, what: str, next_step: str
) -> dict[str, Any]:
    have = have or 0
    detail = f"{have / GIB:.1f} GiB {what}, {need / GIB:.1f} GiB are needed"
    return check(
        id_, host, have >= need, detail, next_step, value=have, threshold=need, unit="bytes"
    )


def llm_check(
    host: str, facts: dict[str, Any], *, mode: str, next_step: str
) -> list[dict[str, Any]]:
    """Judge the LLM: it runs and it answered a real completion."""
    if facts.get("healthy"):
        latency = facts["latency"]
        detail = f"{facts['model']} at {facts['url']} answers, p50 {latency['p50_ms']:.0f} ms"
        return [check("llm", host, True, detail, "", value=latency["p50_ms"], unit="ms")]
    seen = facts.get("seen") or "no completion"
    detail = f"the LLM is not healthy before a run in mode {mode}: {seen}"
    if facts.get("state"):
        detail += f" (its service says: {facts['state']})"
    return [check("llm", host, False, detail, next_step)]


def window_checks(host: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge whether the LLM's window can be opened: nobody has it, and a keeper can be there.

    Args:
        host: as the inventory names it.
        facts: ``window`` (what the module `llm_lease` returned; empty if it could not), its
            sentence ``window_said``, ``running`` (whether the LLM's service is seen to run; with
            ``state``, what it said, and ``next``) and ``unit``, the keeper's (empty: no systemd).
    """
    window, said = facts.get("window") or {}, facts.get("window_said") or "no answer"
    if not window:
        return [check("window", host, False, said, f"ssh {host} ls -la ~/.local/share/understudy")]
    free = window["state"] == "none"
    rows = [
        check(
            "window",
            host,
            free,
            "no window is open" if free else said,
            "wait until it is over, or end it: ansible-playbook restore.yml",
        )
    ]
    if free and facts.get("running") is False:
        state = facts.get("state") or "no answer"
        rows.append(
            check(
                "service",
                host,
                False,
                f"the LLM's service is not seen to run, so it could not be brought back: {state}",
                facts.get("next") or "",
            )
        )
    if facts.get("unit"):
        user = window["user"]
        rows.append(
            check(
                "lingering",
                host,
                window["lingering"],
                f"services of {user} run without a login"
                if window["lingering"]
                else f"services of {user} end with the last login, so no keeper would bring the "
                "LLM back after a lost connection or a reboot",
                f"on {host}: sudo loginctl enable-linger {user}",
            )
        )
    return rows


def command_checks(host: str, commands: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge the LLM's commands: text where a list of words is needed is refused."""
    rows = []
    for name, words in commands.items():
        if isinstance(words, str):
            seen = f"{name} is text ('{words}'), and a list of words is needed"
            try:
                listed = shlex.split(words)
            except ValueError:
                listed = ["sh", "-c", words]
            rows.append(check("command", host, False, seen, f"write {name}: {json.dumps(listed)}"))
    return rows


def callers_check(
    host: str, facts: dict[str, Any], *, mode: str, force: bool
) -> list[dict[str, Any]]:
    """Judge whether callers speak with a standby's voice, which a bench would disturb.

    Args:
        host: the standby.
        facts: ``users`` (who uses its server, or may, in sentences) and ``asked_age_s`` (seconds
            since its last request; None for none).
        mode: how the run treats the LLM; in mode ``parallel`` callers are a warning.
        force: begin all the same.
    """
    seen, age = list(facts.get("users") or []), facts.get("asked_age_s")
    if isinstance(age, (int, float)) and age < CALLERS_S:
        seen.append(f"its voice server was asked to speak {age:.0f} s ago")
    ok = not seen or force or mode != "pause"
    detail = "nobody speaks with its voice"
    if seen:
        detail = f"callers may speak with its voice, which a bench disturbs: {'; '.join(seen)}"
    following = (
        "ansible-playbook failback.yml, and wait 5 minutes; or in spite of it: "
        f"ansible-playbook bench.yml -e gemma_mode={mode} -e force=true"
    )
    return [check("callers", host, ok, detail, following, value=len(seen), threshold=0)]


def primary_check(host: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Judge the primary: it spoke a sentence that was not asked before."""
    if facts.get("spoke") and not facts.get("problems"):
        audio = facts["audio"]
        detail = f"spoke {audio['duration_s']:.1f} s in {facts['wall_s']:.1f} s at {facts['url']}"
        if facts.get("rehearsal"):
            detail += ", with a rehearsal's weights: not judged as speech"
        return [check("primary", host, True, detail, "", value=facts["wall_s"], unit="s")]
    problems = facts.get("problems") or [
        {"seen": facts.get("seen") or "it did not speak", "next": f"curl {facts.get('url')}"}
    ]
    return [check("primary", host, False, p["seen"], p["next"]) for p in problems]


def input_checks(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn problems of what the operator provided (``id``, ``seen``, ``next``) into rows."""
    rows = [check(p["id"], None, False, p["seen"], p["next"]) for p in problems]
    bad = {row["id"] for row in rows}
    good = {"utterances": "ten utterances", "voice": "the voice reference is usable"}
    return rows + [check(key, None, True, text, "") for key, text in good.items() if key not in bad]


def control_node_checks(hosts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Judge the control node: its programs, and the ssh client where hosts are not reached.

    Args:
        hosts: by name ``facts``; see `host_checks`.
    """
    rows = []
    missing = [name for name in CONTROL_COMMANDS if not shutil.which(name)]
    if missing:
        packages = " ".join(sorted({CONTROL_COMMANDS[name] for name in missing}))
        seen = f"missing: {', '.join(missing)}"
        rows.append(check("commands", None, False, seen, f"sudo apt install {packages}"))
    reached = all(found["facts"].get("reachable") for found in hosts.values())
    if not reached and not shutil.which("ssh"):
        seen = "the ssh client is missing, and not every host was reached"
        rows.append(check("ssh", None, False, seen, "sudo apt install openssh-client"))
    return rows


def sheet_problems(path: str, run_dir: str, hosts: list[str]) -> list[dict[str, Any]]:
    """Read a sheet as the verdict will, against the utterances and hosts of this run."""
    try:
        ids = [row["id"] for row in read_json(Path(run_dir, "run.json"))["utterances"]]
        sheet = scoring.read_sheet(Path(path))
        if ids:
            ratings.parse(sheet.text, sheet.name, utterances=ids, hosts=hosts)
    except (JsonError, ratings.RatingsError) as error:
        return [{"id": "ab_scores", "seen": str(error), "next": f"correct {path}"}]
    return []


def judge(
    hosts: dict[str, dict[str, Any]],
    problems: list[dict[str, Any]],
    mode: str,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Judge what was found on every host.

    Args:
        hosts: by name ``facts``, ``needs``, and where there is one ``callers``, ``llm`` and
            ``primary``.
        problems: see `input_checks`.
        mode: how the run treats the LLM.
        force: begin although callers speak with a standby's voice.

    Returns:
        ``checks``, ``hosts``, ``llm``, ``primary`` and ``busy`` of preflight.json.
    """
    document: dict[str, Any] = {
        "checks": [*input_checks(problems), *control_node_checks(hosts)],
        "hosts": {},
        "llm": {},
        "primary": {},
        "busy": [],
    }
    for name, found in hosts.items():
        facts = found["facts"]
        document["hosts"][name] = facts
        document["checks"] += host_checks(name, facts, found["needs"])
        if found.get("callers"):
            document["checks"] += callers_check(name, found["callers"], mode=mode, force=force)
        if found.get("llm"):
            llm = found["llm"]
            document["checks"] += command_checks(name, llm.get("commands") or {})
            document["llm"][name] = {"healthy": bool(llm.get("healthy"))} | {
                key: llm.get(key) for key in ("url", "state", "model", "latency")
            }
            document["busy"] += llm.get("busy", [])
            window = window_checks(name, llm)
            document["checks"] += window
            if window[0]["ok"]:  # otherwise it was not asked
                document["checks"] += llm_check(name, llm, mode=mode, next_step=llm.get("next", ""))
        if found.get("primary"):
            primary = found["primary"]
            document["primary"][name] = {
                key: primary.get(key)
                for key in ("url", "healthy", "health", "spoke", "wall_s", "audio")
            }
            document["busy"] += primary.get("busy", [])
            document["checks"] += primary_check(name, primary)
    return document


def message(checks: list[dict[str, Any]]) -> str:
    """Return every problem and what to type, or an empty string."""
    bad = [row for row in checks if not row["ok"]]
    if not bad:
        return ""
    count = "1 problem" if len(bad) == 1 else f"{len(bad)} problems"
    lines = [f"{count}; nothing was started and nothing was changed."]
    for row in bad:
        lines.append(f"{row['host'] or 'control node'}: {row['detail']}")
        lines.append(f"    next: {row['next']}")
    return "\n".join(lines)
