"""What the documents tell a person to type or to open is there."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from understudy import cli

ROOT = Path(__file__).resolve().parents[2]
LISTED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
).stdout.split()
DOCUMENTS = [ROOT / name for name in LISTED if name != "CHANGELOG.md"]
SOURCES = "\n".join(
    path.read_text("utf-8")
    for pattern in (
        "roles/*/meta/argument_specs.yml",
        "roles/*/vars/main.yml",
        "playbooks/**/*.yml",
    )
    for path in sorted(ROOT.glob(pattern))
)
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
OF_LAB = set(
    re.findall(r"^([\w-]+)(?: HOST| COMMAND…)* {2,}", (ROOT / "scripts/lab").read_text(), re.M)
)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def typed(path: Path) -> Iterator[str]:
    """Every command line of a document: code spans, fenced and indented blocks."""
    text = path.read_text("utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", text)
    for block in (*fenced, *indented, *spans):
        for line in block.splitlines():
            yield from re.split(r"\s+#\s|&&|;", line)


def words_after(command: str, path: Path) -> list[str]:
    """The words after a command, wherever the document shows it."""
    found = []
    for line in typed(path):
        found += re.findall(rf"(?:^|[\s/]){command} (.*)", line.strip())
    return found


def subcommands() -> set[str]:
    [action] = [
        action
        for action in cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return set(action.choices)


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_commands_are_there(path: Path) -> None:
    for rest in words_after("make", path):
        [target, *_] = [word for word in rest.split() if not word.startswith("-")] or [""]
        assert re.fullmatch(r"[a-z-]+", target) is None or target in TARGETS, f"make {rest}"
    for rest in words_after("ansible-playbook", path):
        for play in re.findall(r"(?:^|\s)([\w/.-]+\.yml)\b", re.sub(r"-i \S+", "", rest)):
            assert (ROOT / play).is_file(), f"ansible-playbook {rest}"
    for rest in words_after("understudy", path):
        [word, *_] = rest.split()
        assert re.fullmatch(r"[a-z-]+", word) is None or word in subcommands(), rest
    for rest in words_after("scripts/lab", path):
        assert rest.split()[0] in OF_LAB, f"scripts/lab {rest}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_names_that_are_typed_are_those_of_a_play(path: Path) -> None:
    for line in typed(path):
        if "ansible-playbook" in line or "make " in line or line.startswith("-e "):
            for name in re.findall(r"-e ['\"{]*(\w+)['\"]?[=:]", line):
                assert re.search(rf"\b{name}\b", SOURCES), line


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", path.read_text("utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", row.lower()).replace(" ", "-") for row in headings}
            assert anchor in anchors, link


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_files_of_the_project_that_are_named_are_there(path: Path) -> None:
    rooms = "docs|files|inventory|library|module_utils|playbooks|roles|scripts|src|tests"
    for span in re.findall(r"`([^`\n]+)`", path.read_text("utf-8")):
        for name in re.findall(rf"(?:^|\s)((?:{rooms})/[\w./-]*\w)(?=$|[\s:,])", span):
            made = ("files/voices", "reports/")  # by the operator, or by a run
            assert (ROOT / name).exists() or name.startswith(made), span


def test_the_workflow_is_yaml_and_calls_what_ci_calls() -> None:
    [workflow] = (ROOT / ".github/workflows").glob("*.y*ml")
    steps = yaml.safe_load(workflow.read_text("utf-8"))["jobs"].values()
    assert any(".ci/run" in str(step.get("run")) for job in steps for step in job["steps"])
