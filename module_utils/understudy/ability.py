"""Whether a process is able to bring the LLM back: how it sees the service and its commands.

The keeper looks when it starts, in its own environment, and writes down what it saw. Who arms a
lease looks too, in the login's, and refuses where the keeper would not be able to do its work.
"""

from __future__ import annotations

import grp
import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from typing import Any

try:
    from . import command, llm
except ImportError:  # beside the program on the LLM's host
    import command  # type: ignore[import-not-found,no-redef]
    import llm  # type: ignore[import-not-found,no-redef]

#: The longest that one look at the service may take, in seconds.
LOOK_S = 15.0
#: Commands of a service that are checked, the one that starts it first.
COMMANDS = ("resume_command", "state_command", "identity_command")
SHELLS = ("sh", "bash", "dash", "ash", "ksh", "zsh")
#: A shell's option before its script: ``-c``, ``-lc``.
SCRIPT = re.compile(r"-[A-Za-z]*c")
#: Options of `env` that take the next word.
ENV_TAKES = ("-u", "--unset", "-C", "--chdir")
#: Left for a shell that is not there: a variable, a substitution, or a home inside a word.
UNEXPANDED = re.compile(r"\$[A-Za-z_{(]|`|^~|[=:]~(/|$)")
#: What the environment of a login may have that systemd's user manager lacks.
VARIABLES = re.compile(r"(DOCKER|CONTAINER|PODMAN)_\w+|XDG_RUNTIME_DIR")


def look(service: dict[str, Any]) -> dict[str, Any]:
    """Return how this process sees the LLM's service.

    Args:
        service: as a lease has it.

    Returns:
        ``running`` and ``state`` (what the state command printed); ``problem``, a sentence, and
        ``next``, what to type, where a command could not be run from here, else None for both;
        ``groups`` and ``environment`` of the process, for `difference`.
    """
    names = {name: value for name, value in os.environ.items() if VARIABLES.fullmatch(name)}
    groups = sorted(_group(number) for number in {os.getegid(), *os.getgroups()})
    found: dict[str, Any] = {
        "running": False,
        "state": "",
        "problem": None,
        "next": None,
        "groups": [plain(name)[:32] for name in groups[:40]],
        "environment": {name[:40]: plain(names[name]) for name in sorted(names)[:10]},
    }
    for key in COMMANDS:
        if service.get(key) and (wrong := wrong_with(service[key], f"llm_window_{key}")):
            found["problem"], found["next"] = wrong
            return found
    try:
        state = command.run(service["state_command"], LOOK_S, check=False)
        found["running"] = bool(re.search(service["running_regex"], state, re.MULTILINE))
    except command.CommandError as error:
        state = str(error)
    found["state"] = tail(state)
    if found["running"] and service.get("identity_command"):
        try:
            seen = command.run(service["identity_command"], LOOK_S)
        except command.CommandError as error:
            seen = ""
            found["problem"] = f"llm_window_identity_command fails: {error}"
        if not seen:
            found["problem"] = found["problem"] or "llm_window_identity_command prints nothing"
            found["next"] = (
                "correct llm_window_identity_command, whose output has to change when the LLM is "
                "restarted; [] where there is no such command"
            )
    if service.get("api_key_file"):
        try:
            llm.read_key(service["api_key_file"])
        except llm.LlmError as error:
            found["problem"], _, found["next"] = str(error).partition(". Next: ")
    return found


def wrong_with(words: Sequence[str] | str, name: str) -> tuple[str, str] | None:
    """Return what keeps a command from being run as it is, and what to write instead.

    Args:
        words: the command. A string is refused: Ansible makes a list of one word of it.
        name: the inventory's variable.
    """
    listed = [words] if isinstance(words, str) else list(words)
    if not all(isinstance(word, str) and word and "\0" not in word for word in listed or [""]):
        return f"{name} is no list of words", f'write {name}: ["docker", "start", "NAME"]'
    written, listed = listed, command.expanded(listed)
    program = listed[0]
    if isinstance(words, str) or (re.search(r"\s", program) and not os.path.exists(program)):
        text = ",".join(written)
        return (
            f"{name} is text ('{text}'), and a list of words is needed",
            f"write {name}: {json.dumps(split(text))}",
        )
    script = next((at for at, word in enumerate(listed) if SCRIPT.fullmatch(word)), None)
    shell = os.path.basename(program) in SHELLS
    for at, word in enumerate(listed):
        inner = shell and script is not None and at > script  # its shell expands it
        if not inner and "{{" not in word and UNEXPANDED.search(word):  # a Go template has its $
            return (
                f"{name} has '{written[at]}', which no shell expands there",
                f'write the value out, or {name}: ["sh", "-c", {json.dumps(shlex.join(written))}] '
                "with the quotes that you mean",
            )
    for program in _programs(listed):
        if shutil.which(program) is None:
            path = f"PATH there: {os.environ.get('PATH', '')}"
            why = "is not executable" if os.path.exists(program) else f"is not found ({path})"
            return f"{name}: {program} {why}", f"write the program's whole path into {name}"
    file = listed[1] if shell and script is None and len(listed) > 1 else "-"
    if not file.startswith("-") and not os.access(file, os.R_OK):
        return f"{name}: the script {file} cannot be read", f"correct {name}"
    return None


def split(text: str) -> list[str]:
    """Return the words of a command that was written as text."""
    if re.search(r"[$&|;<>*?`()~]", text):
        return ["sh", "-c", text]
    try:
        return shlex.split(text)
    except ValueError:
        return ["sh", "-c", text]


def _programs(words: list[str]) -> list[str]:
    """Return the program of a command, and of what `env` starts the one behind it, too."""
    program, rest = words[0], words[1:]
    if os.path.basename(program) != "env":
        return [program]
    own = [word for at, word in enumerate(rest) if not at or rest[at - 1] not in ENV_TAKES]
    inner = next((word for word in own if "=" not in word and not word.startswith("-")), None)
    return [program, inner] if inner else [program]


def difference(
    service: dict[str, Any], mine: dict[str, Any], keepers: dict[str, Any] | None
) -> str | None:
    """Return why the keeper would not be able to bring the LLM back, and what to type; or None.

    Args:
        service: as the lease has it.
        mine: what `look` returned in this login.
        keepers: what it returned to the keeper; None for one that reported nothing.
    """
    if not service["running"]:
        return None  # what was not running is not started
    if not keepers:
        return "the keeper did not report how it sees the LLM's service. Next: run again"
    if keepers["problem"]:
        following = keepers["next"]
        key = str(keepers["problem"]).partition(":")[0].replace("llm_window_", "")
        if key in COMMANDS and not mine["problem"]:
            found = [shutil.which(program) for program in _programs(command.expanded(service[key]))]
            following = f"write {found[-1]}, which this login finds, into llm_window_{key}"
        return f"the keeper could not bring the LLM back: {keepers['problem']}. Next: {following}"
    if keepers["running"]:
        return None
    shown = shlex.join(service["state_command"])
    if not mine["running"]:
        if mine["state"] == keepers["state"] and "did not end within" not in mine["state"]:
            return None  # both can look, and it was stopped meanwhile
        return (
            f"the LLM was seen to run, and now {shown} says '{mine['state']}' to this login and "
            f"'{keepers['state']}' to the keeper. Next: {shown}; then run again"
        )
    seen = (
        f"the keeper does not see the LLM run: to it, {shown} says '{keepers['state']}', "
        f"to this login '{mine['state']}'"
    )
    lacking = sorted(set(mine["groups"]) - set(keepers["groups"]))
    if lacking:
        return (
            f"{seen}. The user's service manager, which starts the keeper, is older than the "
            f"membership in the group {', '.join(lacking)}. Next: sudo systemctl restart "
            f"user@{os.getuid()} (it ends the user's services and sessions), or reboot; then again"
        )
    names = {**mine["environment"], **keepers["environment"]}
    other = [
        name
        for name in sorted(names)
        if name != "XDG_RUNTIME_DIR"
        and mine["environment"].get(name) != keepers["environment"].get(name)
    ]
    if other:
        here = [f"{name}={mine['environment'].get(name, '')}" for name in other]
        words = json.dumps(["env", *here, *service["state_command"]])
        return (
            f"{seen}. This login has {' '.join(here)}, the keeper has not. Next: write it into "
            f"each of the LLM's commands, llm_window_state_command: {words}, or: "
            "mkdir -p ~/.config/environment.d; "
            f"printf '%s\\n' {shlex.join(here)} >~/.config/environment.d/understudy.conf; "
            "systemctl --user daemon-reload; then again"
        )
    return f"{seen}. Next, to see what it sees: systemd-run --user --pipe --wait {shown}"


def tail(text: str) -> str:
    """Return the last line of an output, as far as a record keeps it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""


def plain(text: str) -> str:
    """Cut a text down to what surely fits into a record of a fixed size."""
    return re.sub(r"[^ -~]", "?", text)[:200]


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
