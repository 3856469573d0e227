"""The same pass, in a terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listening_run import make

from understudy.listening import terminal
from understudy.listening.passes import Sitting
from understudy.listening.session import ListeningError, Session
from understudy.listening.terminal import player

ROOT = Path(__file__).resolve().parents[3]

#: Plays nothing, and notes what it was given.
PLAYER = """#!/bin/sh
for last; do :; done
[ -s "$last" ] || exit 3
echo "$last" >> "$PLAYED"
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with a pass that nobody has begun."""
    made = make(tmp_path_factory.mktemp("made"))
    Sitting(*made)
    return made


@pytest.fixture
def made(template: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    run_dir = tmp_path / template[0].name
    shutil.copytree(template[0], run_dir)
    return run_dir, template[1]


def typing(*lines: str) -> tuple[Callable[[str], str], list[str]]:
    """Somebody who types these lines and then goes away, and what was asked."""
    left: Iterator[str] = iter(lines)
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    return ask, asked


def sit(made: tuple[Path, Path], *lines: str) -> tuple[Sitting, list[str], list[str], list[Path]]:
    sitting, played, said = Sitting(*made), [], []
    ask, asked = typing(*lines)
    terminal.run(sitting, played.append, ask, said.append)
    return sitting, asked, said, played


def test_a_whole_pass(made: tuple[Path, Path]) -> None:
    lines = ["", "4", "5"] * 13 + ["", "n"] * 10 + ["perhaps", "y"]
    sitting, asked, said, played = sit(made, *lines)
    assert asked[0] == "pair 1 of 13, Enter plays: "
    assert asked[1:3] == ["pair 1 of 13, A: 1 to 5: ", "pair 1 of 13, B: 1 to 5: "]
    assert asked[39:41] == ["call 1 of 10, Enter plays: ", "call 1 of 10, noticeable? y or n: "]
    one = sitting.passes[0]
    assert all(
        (row["a"], row["b"]) == (4, 5) for name, row in one.answers.items() if name[0] == "t"
    )
    plan = one.plan
    wanted = [name for p in plan["pairs"] for name in (plan["reference"], p["a"], p["b"])]
    wanted += [name for c in plan["calls"] for name in (c["a"], c["b"])]
    assert [path.stem for path in played] == wanted
    ratings = json.loads((made[0] / "ratings.json").read_text())
    assert ratings["source"]["kind"] == "terminal"
    assert ratings["identity_matches"] is True
    assert len(ratings["scores"]) == 10
    assert "locked" in said[-1]


def test_it_goes_on_where_it_was_left(made: tuple[Path, Path]) -> None:
    _, _, said, _ = sit(made, "", "4", "5", "", "3")  # and away
    assert said[-1].startswith("Stopped with 3 of 36 answers")
    assert not (made[0] / "ratings.json").exists()
    _, asked, said, _ = sit(made, "2", "q")
    assert asked[0] == "pair 2 of 13, B: 1 to 5: "
    assert said[-1].startswith("Stopped with 4 of 36 answers")


@pytest.mark.parametrize("typed", ["0", "6", "4.5", "44", "x", "y"])
def test_what_is_no_answer_is_asked_again(made: tuple[Path, Path], typed: str) -> None:
    sitting, asked, said, _ = sit(made, "", typed, "4")
    assert sitting.passes[0].given == 1
    assert any("1 to 5" in line for line in said[1:])
    assert asked[1] == asked[2]


def test_nothing_is_scored_unheard(made: tuple[Path, Path]) -> None:
    sitting, _, said, _ = sit(made, "4", "a", "4")
    assert sitting.passes[0].given == 0
    assert "the reference must be heard" in " ".join(said)


def test_going_back_and_correcting(made: tuple[Path, Path]) -> None:
    sitting, asked, _, _ = sit(made, "", "4", "5", "u", "2", "b3", "u", "a1", "u", "", "q")
    assert asked[4].startswith("pair 1 of 13, Enter goes on; a1 to b5 corrects")
    assert asked[5].startswith("pair 1 of 13")  # a 2 of what?
    assert asked[6].startswith("pair 2 of 13")
    assert asked[10].startswith("pair 2 of 13")  # Enter went on, and changed nothing
    assert sitting.passes[0].answers["t01"] == {"heard": ["r", "a", "b"], "a": 1, "b": 3}


def test_the_first_player_that_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ListeningError, match=r"no player was found: aplay, paplay, .*--player"):
        player()
    with pytest.raises(ListeningError, match="no player was found: vlc"):
        player("vlc")
    for name, said in (("ffplay", "no sound card"), ("afplay", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{said}' >&2\n[ -z '{said}' ]\n")
        (tmp_path / name).chmod(0o755)
    player()(tmp_path / "x.wav")
    with pytest.raises(ListeningError, match=r"ffplay could not play .*no sound card"):
        player("ffplay")(tmp_path / "x.wav")


def test_the_command(made: tuple[Path, Path], tmp_path: Path) -> None:
    """With a player that is found by its name, and answers from a pipe."""
    (tmp_path / "aplay").write_text(PLAYER)
    (tmp_path / "aplay").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PLAYED": str(tmp_path / "played"),
        "PYTHONPATH": str(ROOT / "src"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "listen", str(made[0]), "--reference", str(made[1]),
         "--terminal"],
        input="\n4\n5\n\n3\n", capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "run_id": made[0].name, "status": "unfinished", "passes": 0, "given": 3, "of": 36,
        "ratings": None,
    }  # fmt: skip
    assert "all of them saved" in done.stderr
    assert len((tmp_path / "played").read_text().splitlines()) == 6
    assert Session(made[0] / "listening/pass-1").given == 3


def test_the_command_on_what_is_no_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "listen", str(tmp_path / "none"), "--reference", "x"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"understudy listen: {tmp_path}/none is no directory. Next: ls")
