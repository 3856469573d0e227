"""What is found out about the commands that bring the LLM back, before it is stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy import ability
from ansible.module_utils.understudy.ability import difference, look, wrong_with

NAME = "llm_window_resume_command"


@pytest.mark.parametrize(
    "words",
    [
        ["sh"],
        ["env", "DOCKER_HOST=unix:///run/docker.sock", "sh", "start"],
        ["sh", "-c", 'cd "$HOME" && `start`'],
        ["echo", "a~b", "5$", "{{.State.Status}}", "^running$"],
        ["~/bin/start", "now"],
        ["$HOME/bin/start", "now"],
        ["sh", "~/bin/start"],
    ],
)
def test_a_command_that_can_be_run(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/start").touch(0o755)
    assert wrong_with(words, NAME) is None


WRONG: list[tuple[Any, str, str]] = [
    ("docker start gemma", "is text ('docker start gemma')", ': ["docker", "start", "gemma"]'),
    (["docker start gemma"], "is text ('docker start gemma')", ': ["docker", "start", "gemma"]'),
    (["docker start a", "b"], "is text ('docker start a,b')", ': ["docker", "start", "a,b"]'),
    ("cd $HOME && up", "is text", ': ["sh", "-c", "cd $HOME && up"]'),
    (["sh", "--file=$HOME/start"], "'--file=$HOME/start', which no shell expands", "value out"),
    (["echo", "${GEMMA}"], "'${GEMMA}', which no shell expands", "write the value out"),
    (["echo", "$(id -un)"], "which no shell expands", "write the value out"),
    (["echo", "--file=~/x"], "'--file=~/x', which no shell expands", "write the value out"),
    (["echo", "~nobody-of-this-name/x"], "which no shell expands", "write the value out"),
    (["$HOMES/start"], "'$HOMES/start', which no shell expands", "write the value out"),
    (["no-such-program", "start"], "no-such-program is not found (PATH there: ", "whole path"),
    (["env", "A=b", "no-such-program"], "no-such-program is not found", "whole path"),
    (["sh", "/no/such/script"], "the script /no/such/script cannot be read", "correct"),
    ([], "no list of words", "write"),
    (["sh", ""], "no list of words", "write"),
]


@pytest.mark.parametrize(("words", "problem", "following"), WRONG)
def test_a_command_that_cannot_be_run(words: Any, problem: str, following: str) -> None:
    found = wrong_with(words, NAME)
    assert found is not None
    assert found[0].startswith(NAME)
    assert problem in found[0]
    assert following in found[1]


def test_a_program_that_is_not_executable(tmp_path: Path) -> None:
    (tmp_path / "start").touch(0o644)
    found = wrong_with([str(tmp_path / "start")], NAME)
    assert found is not None
    assert found[0] == f"{NAME}: {tmp_path}/start is not executable"


def service(**changes: Any) -> dict[str, Any]:
    return {
        "running": True,
        "state_command": ["sh", "-c", "echo running"],
        "running_regex": "^running$",
        "resume_command": ["true"],
    } | changes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"identity_command": []}, None),
        ({"identity_command": ["echo", "2026"]}, None),
        ({"identity_command": ["true"]}, "llm_window_identity_command prints nothing"),
        ({"identity_command": ["false"]}, "llm_window_identity_command fails: false ended with"),
        ({"api_key_file": "/no/such/key"}, "the API key /no/such/key cannot be read"),
        ({"resume_command": ["true now"]}, "llm_window_resume_command is text ('true now')"),
        ({"state_command": ["nothing-like-it"]}, "llm_window_state_command: nothing-like-it is"),
    ],
)
def test_what_a_process_sees(changes: dict[str, Any], problem: str | None) -> None:
    found = look(service(**changes))
    if problem is None:
        assert (found["problem"], found["next"]) == (None, None)
        assert (found["running"], found["state"]) == (True, "running")
    else:
        assert found["problem"].startswith(problem)
        assert found["next"]
    assert found["groups"]


def test_a_state_that_is_not_running_is_no_problem_of_the_commands() -> None:
    """What the keeper may not do shows in the state first, and that has its own message."""
    words = ["sh", "-c", "echo exited; exit 3"]
    found = look(service(state_command=words, identity_command=words))
    assert (found["running"], found["state"], found["problem"]) == (False, "exited", None)


MINE = {
    "running": True,
    "state": "running",
    "problem": None,
    "next": None,
    "groups": ["op", "docker"],
    "environment": {"XDG_RUNTIME_DIR": "/run/user/1000"},
}
THEIRS = MINE | {"running": False, "state": "permission denied", "environment": {}}


def test_a_keeper_that_sees_what_the_login_sees() -> None:
    assert difference(service(), MINE, MINE) is None
    assert difference(service(running=False), MINE, THEIRS) is None


def test_what_neither_sees_run_any_more_is_not_paused() -> None:
    mine = MINE | {"running": False, "state": "sh did not end within 15 s"}
    said = difference(service(), mine, THEIRS)
    assert said is not None
    assert "says 'sh did not end within 15 s' to this login" in said
    assert said.endswith("then run again")


@pytest.mark.parametrize(
    "words",
    [
        ["bash", "-lc", "echo $(cat ~/gemma.id)"],
        ["sh", "-xc", "echo $HOME"],
        ["env", "-u", "DOCKER_HOST", "sh", "-c", "echo"],
        ["env", "-C", "/tmp", "true"],
        ["echo", "{{range $i, $m := .Mounts}}{{$i}}{{end}}"],
    ],
)
def test_commands_that_work_are_not_refused(words: list[str]) -> None:
    assert wrong_with(words, "llm_window_state_command") is None


@pytest.mark.parametrize(
    ("mine", "theirs", "seen", "following"),
    [
        (MINE, None, "did not report", "run again"),
        (MINE, THEIRS | {"groups": ["op"]}, "'permission denied'", "systemctl restart user@"),
        (
            MINE | {"environment": {"DOCKER_HOST": "tcp://[::1]:2375"}},
            THEIRS,
            "This login has DOCKER_HOST=tcp://[::1]:2375, the keeper has not",
            '["env", "DOCKER_HOST=tcp://[::1]:2375", "sh", "-c", "echo running"]',
        ),
        (
            MINE,
            THEIRS | {"environment": {"DOCKER_CONTEXT": "other"}},
            "This login has DOCKER_CONTEXT=,",
            "environment.d",
        ),
        (MINE, THEIRS, "to this login 'running'", "systemd-run --user --pipe --wait sh -c"),
        (
            MINE,
            THEIRS | {"problem": "llm_window_api_key_file is not there", "next": "write it"},
            "could not bring the LLM back: llm_window_api_key_file is not there",
            "write it",
        ),
        (
            MINE,
            THEIRS | {"problem": "llm_window_resume_command: true is not found", "next": "-"},
            "could not bring the LLM back: llm_window_resume_command: true is not found",
            "/true, which this login finds, into llm_window_resume_command",
        ),
    ],
)
def test_why_a_keeper_could_not(
    mine: dict[str, Any], theirs: dict[str, Any] | None, seen: str, following: str
) -> None:
    why = difference(service(), mine, theirs)
    assert why is not None
    assert seen in why
    assert following in why.partition("Next")[2]


def test_only_what_tells_where_docker_is_is_kept_of_an_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    kept = look(service())["environment"]
    assert kept["DOCKER_HOST"] == "unix:///run/user/1000/docker.sock"
    assert "OPENAI_API_KEY" not in kept
    assert ability.tail("a\n b \n\n") == "b"
