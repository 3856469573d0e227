"""Answers are saved as they are given, locked at the end, and mapped through the key."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_factory
from listening_run import answer, make

from understudy.listening import session, unblind
from understudy.listening.passes import ListeningTest
from understudy.listening.session import ListeningError, RefusedError, Session, only_one


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with a pass that nobody has begun."""
    made = make(tmp_path_factory.mktemp("made"))
    ListeningTest(*made)
    return made


@pytest.fixture
def made(template: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    run_dir = tmp_path / template[0].name
    shutil.copytree(template[0], run_dir)
    return run_dir, shutil.copy(template[1], tmp_path / "voice.wav")


@pytest.fixture
def one(made: tuple[Path, Path]) -> Session:
    return Session(made[0] / "listening/pass-1")


def key_of(one: Session) -> dict[str, Any]:
    return json.loads((one.directory / "key.json").read_text())["pairs"]


def typed(one: Session, titan: int, panda: int, impostor: int = 1) -> dict[str, dict[str, int]]:
    """What somebody types who hears the hosts so; the repeat gets one less on titan."""
    by_host = {"titan": titan, "panda": panda, "impostor": impostor}
    scores = {
        name: {side: by_host[pair[side]] for side in ("a", "b")}
        for name, pair in key_of(one).items()
        if pair["kind"] != "telephone"
    }
    for name, pair in key_of(one).items():
        if pair["kind"] == "repeat":
            scores[name]["a" if pair["a"] == "titan" else "b"] -= 1
    return scores


# --- answers ---------------------------------------------------------------------------------


def test_every_answer_is_there_after_a_crash(made: tuple[Path, Path], one: Session) -> None:
    order = [row["id"] for row in one.plan["pairs"]]
    for side in ("r", "a", "b"):
        one.heard("t01", side)
    one.score("t01", "b", 3)
    again = ListeningTest(*made).current
    assert again
    assert again.answers["t01"] == {"heard": ["r", "a", "b"], "a": None, "b": 3}
    assert [row["id"] for row in again.plan["pairs"]] == order
    assert again.plan == one.plan
    assert (again.given, again.total) == (1, 36)


def test_nothing_is_scored_that_was_not_heard(one: Session) -> None:
    with pytest.raises(RefusedError, match="the reference must be heard"):
        one.score("t01", "a", 3)
    one.heard("t01", "r")
    with pytest.raises(RefusedError, match="A must be heard"):
        one.score("t01", "a", 3)
    one.heard("c01", "a")
    with pytest.raises(RefusedError, match="B must be heard"):
        one.notice("c01", True)
    assert one.given == 0


@pytest.mark.parametrize("score", [0, 6, -1, "4", "4.5", 4.5, 4.0, True, None, [4], {"a": 1}])
def test_what_is_no_score_changes_nothing(one: Session, score: Any) -> None:
    for side in ("r", "a"):
        one.heard("t01", side)
    before = one.path.read_bytes()
    with pytest.raises(RefusedError, match="expected a whole number from 1 to 5") as raised:
        one.score("t01", "a", score)
    assert raised.value.status == 422
    assert one.path.read_bytes() == before


def test_a_second_score_says_what_it_replaces(one: Session) -> None:
    for side in ("r", "a"):
        one.heard("t01", side)
    one.score("t01", "a", 4)
    for replaces in (None, 3, True, "4"):
        with pytest.raises(RefusedError, match="the answer is 4 already"):
            one.score("t01", "a", 5, replaces)
    one.score("t01", "a", 5, 4)
    assert one.answers["t01"]["a"] == 5
    with pytest.raises(RefusedError, match="there is no answer 2 yet"):
        one.score("t01", "b", 5, 2) if one.heard("t01", "b") is None else None


@pytest.mark.parametrize(
    ("trial", "side"), [("t14", "a"), ("c01", "a"), ("t01", "r"), ("t01", "c")]
)
def test_what_cannot_be_scored(one: Session, trial: str, side: str) -> None:
    with pytest.raises(RefusedError) as raised:
        one.score(trial, side, 3)
    assert raised.value.status == 404


def test_an_answer_that_cannot_be_saved_was_not_given(
    one: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in ("r", "a"):
        one.heard("t01", side)
    before = one.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        one.score("t01", "a", 4)
    monkeypatch.undo()
    assert one.answers["t01"]["a"] is None
    assert one.path.read_bytes() == before
    assert not list(one.directory.glob(".session*"))


def test_it_is_not_finished_before_everything_is_answered(one: Session) -> None:
    with pytest.raises(RefusedError, match="36 of 36 answers are missing"):
        one.finish(True)
    answer(one, {})
    with pytest.raises(RefusedError, match='identity_matches: saw "yes"'):
        one.finish("yes")
    assert not one.locked


def test_what_is_locked_stays(one: Session) -> None:
    answer(one, {})
    one.finish(True)
    for change in (
        lambda: one.heard("t01", "a"),
        lambda: one.score("t01", "a", 5, 4),
        lambda: one.notice("c01", True, False),
        lambda: one.finish(False),
    ):
        with pytest.raises(RefusedError, match="locked"):
            change()


# --- damage ----------------------------------------------------------------------------------


def edited(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2) + "\n")


@pytest.mark.parametrize("keep", [0, 1, 100, -2])
def test_a_session_that_was_cut_short(made: tuple[Path, Path], keep: int) -> None:
    path = made[0] / "listening/pass-1/session.json"
    path.write_bytes(path.read_bytes()[:keep])
    before = path.read_bytes()
    with pytest.raises(ListeningError, match=r"session\.json: line .*Next: .*mv -T -n .*/pass-1 "):
        ListeningTest(*made)
    assert path.read_bytes() == before
    assert not (made[0] / "ratings.json").exists()


@pytest.mark.parametrize(
    ("name", "change", "seen"),
    [
        ("session", lambda d: d["answers"]["t01"].update(a=5), "edited or damaged"),
        ("session", lambda d: d.pop("seal"), "edited or damaged"),
        ("plan", lambda d: d["pairs"].reverse(), "not the one that was begun"),
    ],
)
def test_what_was_edited_by_hand(
    made: tuple[Path, Path], name: str, change: Any, seen: str
) -> None:
    path = made[0] / f"listening/pass-1/{name}.json"
    edited(path, change)
    before = path.read_bytes()
    with pytest.raises(ListeningError, match=seen):
        ListeningTest(*made)
    assert path.read_bytes() == before


def test_a_stimulus_that_is_gone(made: tuple[Path, Path], one: Session) -> None:
    one.stimulus(one.plan["pairs"][0]["a"]).unlink()
    with pytest.raises(ListeningError, match=r"stimuli: \w{10}\.wav changed or gone"):
        ListeningTest(*made)


def test_recordings_that_are_others_now(made: tuple[Path, Path]) -> None:
    found = json.loads((made[0] / "bench-titan.json").read_text())
    wav = made[0] / "titan_native/u01.wav"
    shutil.copy(made[0] / "titan_native/u02.wav", wav)
    found["utterances"][0]["wav_sha256"] = run_factory.sha256(wav.read_bytes())
    run_factory.put(made[0], "bench-titan.json", found)
    with pytest.raises(ListeningError, match="about other recordings"):
        ListeningTest(*made)


def test_a_key_that_is_not_the_sealed_one(made: tuple[Path, Path], one: Session) -> None:
    def swap(key: dict[str, Any]) -> None:
        pair = next(pair for pair in key["pairs"].values() if pair["kind"] == "pair")
        pair["a"], pair["b"] = pair["b"], pair["a"]

    answer(one, {})
    edited(one.directory / "key.json", swap)
    test = ListeningTest(*made)
    with pytest.raises(ListeningError, match="not the key that was sealed"):
        test.finish(True)
    assert not (made[0] / "ratings.json").exists()


# --- ratings ---------------------------------------------------------------------------------

ROW = {"utterance", "pass", "titan", "panda"}


def check_shape(document: dict[str, Any], passes: int) -> None:
    """The shape that the verdict is promised."""
    assert list(document) == [
        "schema_version",
        "run_id",
        "source",
        "given_before_audio",
        "identity_matches",
        "given_for",
        "audio",
        "scores",
        "listener",
    ]
    assert document["schema_version"] == 2
    assert set(document["source"]) == {"kind", "name", "sha256"}
    assert document["source"]["kind"] == "page"
    assert document["given_before_audio"] is False
    assert isinstance(document["identity_matches"], bool)
    assert set(document["given_for"]["titan"]) == {
        "weights_sha256",
        "voice_sha256",
        "lock_sha256",
        "driver",
    }
    assert len(document["audio"]) == 20
    assert [(row["pass"], row["utterance"]) for row in document["scores"]] == [
        (number, name) for number in range(1, passes + 1) for name in run_factory.IDS
    ]
    for row in document["scores"]:
        assert set(row) == ROW
        assert all(type(row[host]) is int and 1 <= row[host] <= 5 for host in ("titan", "panda"))
    listener = document["listener"]
    assert listener["started_at"] <= listener["finished_at"]
    for name, keys, n in (
        ("repeats", {"pass", "utterance", "host", "first", "second"}, 2 * passes),
        ("same_host", {"pass", "utterance", "host", "a", "b"}, passes),
        ("impostor", {"pass", "utterance", "score"}, passes),
        ("telephone", {"pass", "utterance", "noticed"}, 10 * passes),
    ):
        assert [set(row) for row in listener[name]] == [keys] * n


def test_the_ratings_are_what_was_typed(made: tuple[Path, Path], one: Session) -> None:
    answer(one, typed(one, titan=4, panda=5), noticed=True)
    document = ListeningTest(*made).finish(True)
    assert document == json.loads((made[0] / "ratings.json").read_text())
    check_shape(document, 1)
    assert [(row["titan"], row["panda"]) for row in document["scores"]] == [(4, 5)] * 10
    assert document["source"]["kind"] == "page"
    assert document["source"]["name"] == "listening/pass-1/session.json"
    assert document["source"]["sha256"] == session.digest(one.path)
    listener = document["listener"]
    assert {(r["host"], r["first"], r["second"]) for r in listener["repeats"]} == {
        ("titan", 4, 3),
        ("panda", 5, 5),
    }
    [same] = listener["same_host"]
    assert (same["host"], same["a"], same["b"]) == ("panda", 5, 5)
    assert [row["score"] for row in listener["impostor"]] == [1]
    assert all(row["noticed"] for row in listener["telephone"])
    assert unblind.means(document, ["titan", "panda"]) == {"titan": 4.0, "panda": 5.0}
    for name, expected in document["audio"].items():
        assert session.digest(made[0] / name) == expected


def test_single_scores_reach_their_utterance(made: tuple[Path, Path], one: Session) -> None:
    """Every score of the ten pairs is another, as far as five will do."""
    wanted = {name: (1 + n % 5, 5 - n % 3) for n, name in enumerate(run_factory.IDS)}
    scores = {}
    for name, pair in key_of(one).items():
        if pair["kind"] == "pair":
            titan, panda = wanted[pair["utterance"]]
            a_is_titan = pair["a"] == "titan"
            scores[name] = {
                "a": titan if a_is_titan else panda,
                "b": panda if a_is_titan else titan,
            }
    answer(one, scores)
    document = ListeningTest(*made).finish(False)
    assert {r["utterance"]: (r["titan"], r["panda"]) for r in document["scores"]} == wanted
    assert document["identity_matches"] is False


def test_an_unfinished_session_gives_no_ratings(made: tuple[Path, Path], one: Session) -> None:
    answer(one, {})
    test = ListeningTest(*made)
    assert test.result() | {"run_id": 0} == {
        "run_id": 0,
        "status": "unfinished",
        "passes": 0,
        "given": 36,
        "of": 36,
        "ratings": None,
    }
    with pytest.raises(ListeningError, match="its key stays sealed"):
        unblind.ratings(test.run, test.passes)
    assert not (made[0] / "ratings.json").exists()


def test_a_process_that_died_between_lock_and_ratings(
    made: tuple[Path, Path], one: Session
) -> None:
    answer(one, {})
    one.finish(True)
    assert not (made[0] / "ratings.json").exists()
    test = ListeningTest(*made)
    assert test.current is None
    check_shape(json.loads((made[0] / "ratings.json").read_text()), 1)


def test_a_second_pass_is_added(made: tuple[Path, Path], one: Session) -> None:
    answer(one, typed(one, 5, 5))
    ListeningTest(*made).finish(True)
    first = (made[0] / "ratings.json").read_bytes()
    test = ListeningTest(*made, second_pass=True)
    two = test.current
    assert two
    assert two.number == 2
    names = [set(each.plan["stimuli"]) for each in (one, two)]
    assert not names[0] & names[1]
    assert [p["utterance"] for p in key_of(one).values()] != [
        p["utterance"] for p in key_of(two).values()
    ]
    assert (made[0] / "ratings.json").read_bytes() == first
    answer(two, typed(two, 3, 4))
    document = ListeningTest(*made, second_pass=True).finish(False)
    check_shape(document, 2)
    assert [(r["titan"], r["panda"]) for r in document["scores"]] == [(5, 5)] * 10 + [(3, 4)] * 10
    assert document["identity_matches"] is False  # once it was not the same
    done = ListeningTest(*made, second_pass=True)
    assert done.current is None
    assert not done.may_repeat
    assert len(done.passes) == 2


def test_a_second_pass_that_was_left(made: tuple[Path, Path], one: Session) -> None:
    answer(one, {})
    ListeningTest(*made).finish(True)
    two = ListeningTest(*made, second_pass=True).current
    assert two
    two.heard("t01", "r")
    left = ListeningTest(*made)
    assert left.current is None
    assert left.result()["status"] == "finished"
    check_shape(json.loads((made[0] / "ratings.json").read_text()), 1)
    again = ListeningTest(*made, second_pass=True).current
    assert again
    assert again.answers["t01"]["heard"] == ["r"]


def test_a_first_pass_that_was_changed_after_the_second_began(
    made: tuple[Path, Path], one: Session
) -> None:
    answer(one, {})
    ListeningTest(*made).finish(True)
    ListeningTest(*made, second_pass=True)
    one.document["answers"]["t01"]["a"] = 5
    session._write(one.path, one.document)
    with pytest.raises(ListeningError, match="does not follow"):
        ListeningTest(*made)


SHEET = run_factory.ratings()


@pytest.mark.parametrize(
    ("there", "seen"),
    [
        (SHEET, r"comes from the sheet ab\.csv"),
        (
            SHEET | {"schema_version": 2, "source": {"kind": "sheet", "name": "x.csv"}},
            r"comes from the sheet x\.csv",
        ),
        (
            SHEET | {"source": {"kind": "page", "name": "listening/pass-1/session.json"}},
            "comes from listening/pass-1/session.json, which is not there",
        ),
        (None, "comes from the sheet an unknown source"),
    ],
)
def test_ratings_that_are_there_already(
    template: tuple[Path, Path], tmp_path: Path, there: Any, seen: str
) -> None:
    run_dir = tmp_path / template[0].name
    shutil.copytree(template[0], run_dir, ignore=shutil.ignore_patterns("listening"))
    text = json.dumps(there) if there else "{"
    (run_dir / "ratings.json").write_text(text)
    with pytest.raises(ListeningError, match=seen) as raised:
        ListeningTest(run_dir, template[1])
    assert f"mv -n {run_dir}/ratings.json" in str(raised.value)
    assert (run_dir / "ratings.json").read_text() == text
    assert not (run_dir / "listening").exists()


def test_ratings_that_were_edited(made: tuple[Path, Path], one: Session) -> None:
    answer(one, {})
    ListeningTest(*made).finish(True)
    edited(made[0] / "ratings.json", lambda d: d["scores"][0].update(titan=5))
    with pytest.raises(ListeningError, match="is of other audio or was edited"):
        ListeningTest(*made)


def test_a_sheet_that_came_meanwhile_is_kept(made: tuple[Path, Path], one: Session) -> None:
    answer(one, {})
    test = ListeningTest(*made)
    run_factory.put(made[0], "ratings.json", SHEET)
    with pytest.raises(ListeningError, match="comes from the sheet"):
        test.finish(True)
    assert json.loads((made[0] / "ratings.json").read_text()) == SHEET
    assert test.locked
    assert "comes from the sheet" in str(test.problem())
    (made[0] / "ratings.json").rename(made[0] / "before.json")
    ListeningTest(*made)
    check_shape(json.loads((made[0] / "ratings.json").read_text()), 1)


# --- one at a time ---------------------------------------------------------------------------


def _hold(run_dir: Path, held: Any) -> None:
    with only_one(run_dir, {"pid": os.getpid()}) as say:
        say({"url": "http://127.0.0.1:1/secret/"})
        held.set()
        time.sleep(60)


def test_a_second_process_is_told_of_the_first(tmp_path: Path) -> None:
    held = multiprocessing.Event()
    other = multiprocessing.Process(target=_hold, args=(tmp_path, held))
    other.start()
    try:
        assert held.wait(20)
        with pytest.raises(ListeningError) as raised, only_one(tmp_path, {"pid": 1}):
            pass
        assert f"process {other.pid} at http://127.0.0.1:1/secret/" in str(raised.value)
    finally:
        os.kill(other.pid or 0, signal.SIGKILL)
        other.join()
    with only_one(tmp_path, {"pid": 1}):  # the lock died with it
        pass
    assert (tmp_path / "listening/lock").stat().st_mode & 0o777 == 0o600


def test_a_pass_that_an_older_version_took_in_a_terminal(
    made: tuple[Path, Path], one: Session
) -> None:
    answer(one, {})
    one.finish(True)
    session._write(one.path, {**one.document, "finished_with": "terminal"})
    ListeningTest(*made)
    document = json.loads((made[0] / "ratings.json").read_text())
    assert document["source"]["kind"] == "terminal"


@pytest.mark.parametrize("kind", ["link", "other_name", "pipe", "directory", "linked_home"])
def test_a_lock_that_is_something_else(tmp_path: Path, kind: str) -> None:
    """Nothing is emptied, and the secret is written nowhere else."""
    run_dir, outside = tmp_path / "run", tmp_path / "outside"
    home = run_dir / "listening"
    home.mkdir(parents=True)
    outside.write_text("precious")
    outside.chmod(0o644)
    if kind == "link":
        (home / "lock").symlink_to(outside)
    elif kind == "other_name":
        (home / "lock").hardlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(home / "lock")
    elif kind == "directory":
        (home / "lock").mkdir()
    else:
        home.rmdir()
        (tmp_path / "elsewhere").mkdir()
        home.symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(ListeningError, match=r"cannot be the lock: .*Next: ls -ld"),
        only_one(run_dir, {"pid": 1}),
    ):
        pass
    assert (outside.read_text(), outside.stat().st_mode & 0o777) == ("precious", 0o644)
    assert not (tmp_path / "elsewhere/lock").exists()


def test_a_lock_that_others_could_read_is_closed_first(tmp_path: Path) -> None:
    (tmp_path / "listening").mkdir()
    path = tmp_path / "listening/lock"
    path.write_text("")
    path.chmod(0o644)
    with only_one(tmp_path, {"pid": 1}) as say:
        say({"url": "secret"})
        assert path.stat().st_mode & 0o777 == 0o600
        assert "secret" in path.read_text()


@pytest.mark.parametrize(
    "content",
    ["[" * 5000, '{"pid": "1; rm -rf ~"}', '{"pid": 1, "url": "\\u001b[2J"}', "[]", "9" * 5000],
)
def test_what_a_foreign_lock_says_is_not_passed_on(tmp_path: Path, content: str) -> None:
    held = multiprocessing.Event()
    other = multiprocessing.Process(target=_hold, args=(tmp_path, held))
    other.start()
    try:
        assert held.wait(20)
        (tmp_path / "listening/lock").write_text(content)
        with pytest.raises(ListeningError) as raised, only_one(tmp_path, {"pid": 1}):
            pass
        assert "is already being listened to by" in str(raised.value)
        assert "rm" not in str(raised.value)
        assert str(raised.value).isprintable()
    finally:
        other.kill()
        other.join()


def _resealed(path: Path, change: Callable[[Any], object]) -> None:
    """Change the plan as somebody who knows the program would."""
    plan = json.loads((path / "plan.json").read_text())
    change(plan)
    (path / "plan.json").write_text(json.dumps(plan))
    document = json.loads((path / "session.json").read_text())
    del document["seal"]
    document["plan_sha256"] = session.digest(path / "plan.json")
    session._write(path / "session.json", document)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: plan["stimuli"].update({"../../../secret": "0" * 64}),
        lambda plan: plan.update(reference="../../voice"),
        lambda plan: plan.update(pairs=[]),
        lambda plan: plan.update(pairs=3),
        lambda plan: plan["pairs"][0].update(id="<b>"),
        lambda plan: plan["pairs"][0].pop("a"),
        lambda plan: plan["pairs"].pop(),
        lambda plan: plan["calls"].append(plan["calls"][0]),
        lambda plan: plan.update({"pass": "1"}),
        lambda plan: plan.pop("audio"),
        lambda plan: plan.pop("stimuli"),
    ],
)
def test_a_plan_that_somebody_made(
    made: tuple[Path, Path], change: Callable[[Any], object]
) -> None:
    _resealed(made[0] / "listening/pass-1", change)
    with pytest.raises(ListeningError, match=r"pass-1/(plan|session)\.json: .*Next: bring it back"):
        ListeningTest(*made)


@pytest.mark.parametrize("name", ["pass-1", "pass-1/plan.json", "pass-1/session.json"])
def test_a_pass_that_lies_elsewhere(made: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    path = made[0] / "listening" / name
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(ListeningError, match=r"it is a link|is a link, expected"):
        ListeningTest(*made)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.clear(),
        lambda key: key.update(a=float("nan")),
        lambda key: key.update(pairs=[]),
        lambda key: key["pairs"].pop("t01"),
        lambda key: key["pairs"]["t01"].update(utterance="u99"),
        lambda key: [pair.update(kind="repeat") for pair in key["pairs"].values()],
    ],
)
def test_a_key_that_somebody_made(
    made: tuple[Path, Path], one: Session, change: Callable[[Any], object]
) -> None:
    answer(one, typed(one, 4, 4))
    one.finish(True)
    path = made[0] / "listening/pass-1"
    key = json.loads((path / "key.json").read_text())
    change(key)
    (path / "key.json").write_text(json.dumps(key))
    _resealed(path, lambda plan: plan.update(key_sha256=session.digest(path / "key.json")))
    with pytest.raises(ListeningError, match="Next: bring them back"):
        ListeningTest(*made)


@pytest.mark.parametrize(
    ("path", "value", "seen"),
    [
        ("hosts.standby.0", "../../etc", "its hosts have no names"),
        ("hosts.standby.0", 7, "not of the expected form"),
        ("hosts", [], "names no host as standby"),
        ("run_id", "x; rm -rf ~", "its run_id is not"),
        ("utterances.0.id", "u02", "has 9 utterances"),
        ("voice", [3], "not of the expected form"),
        ("voice.sha256", [3], "is not the voice of this run"),
    ],
)
def test_a_run_that_somebody_made(
    template: tuple[Path, Path], tmp_path: Path, path: str, value: Any, seen: str
) -> None:
    run_dir = tmp_path / template[0].name
    shutil.copytree(template[0], run_dir, ignore=shutil.ignore_patterns("listening"))
    document = json.loads((run_dir / "run.json").read_text())
    run_factory.change(document, path, value)
    run_factory.put(run_dir, "run.json", document)
    with pytest.raises(ListeningError, match=seen) as raised:
        ListeningTest(run_dir, template[1])
    assert "rm -rf" not in str(raised.value)
