"""Who shall speak to whom, and what is said of it in the end."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from understudy.failover import decide as s

PANDA, TITAN = "http://panda:8772", "http://titan:8772"
UP = {"url": TITAN, "reached": True, "ready": True}
MUTE = {"host": "panda", "speaks": False, "seen": "no connection", "wall_s": 1.5, "url": PANDA}
SPEAKS = {**MUTE, "speaks": True, "seen": ""}


def client(**changes: Any) -> dict[str, Any]:
    return {
        "url": PANDA,
        "epoch": 0,
        "target": None,
        "previous": None,
        "finished": True,
        "foreign": False,
        **changes,
    }


def away(**changes: Any) -> dict[str, Any]:
    row = client(url=TITAN, epoch=1, target="titan", previous={"target": None, "url": PANDA})
    return row | changes


def failover(
    clients: dict[str, Any], primary: Any = MUTE, standbys: Any = None, **more: Any
) -> Any:
    return s.decide(s.FAILOVER, clients, standbys or {"titan": UP}, primary, **more)


def failback(clients: dict[str, Any], standbys: Any = None) -> Any:
    return s.decide(s.FAILBACK, clients, standbys or {"titan": UP}, SPEAKS)


def test_failover_and_again() -> None:
    first = failover({"a": client(), "b": client()})
    assert first == {
        "to": "titan",
        "urls": {"a": TITAN, "b": TITAN},
        "epoch": 1,
        "already_switched": False,
        "settled": {},
        "warnings": [],
    }
    again = failover({"a": away(), "b": away()})
    assert (again["epoch"], again["already_switched"], again["settled"]) == (1, True, {})


HEARD = {"at": 1000.0, "wall_s": 0.8, "audio_s": 3.1}


def test_who_was_just_heard_has_nothing_left_to_do() -> None:
    both = {"a": away(heard=HEARD), "b": away(heard=HEARD)}
    soon: dict[str, Any] = {"heard_for_s": 600, "now": 1599}
    assert failover(both, **soon)["settled"] == {"a": HEARD, "b": HEARD}
    assert failover(both, now=1599)["settled"] == {}
    for other_time in (1601, 999):  # a clock that was set
        assert failover(both, heard_for_s=600, now=other_time)["settled"] == {}
    starting = {"titan": {**UP, "ready": False}}
    assert failover(both, standbys=starting, **soon)["settled"] == {}
    for other in (
        client(),
        away(),
        away(heard=HEARD, finished=False),
        away(heard=HEARD, url="http://by-hand"),
    ):
        assert failover({**both, "b": other}, **soon)["settled"] == {}


def test_who_went_back_and_was_heard_there() -> None:
    home = {
        "a": client(
            epoch=2, target="panda", previous={"target": "titan", "url": TITAN}, heard=HEARD
        )
    }
    for speaks, settled in ((True, {"a": HEARD}), (False, {})):
        primary = {**SPEAKS, "speaks": speaks}
        found = s.decide(s.FAILBACK, home, {"titan": UP}, primary, heard_for_s=600, now=1100)
        assert found["settled"] == settled


def test_a_primary_that_speaks_is_left_alone() -> None:
    with pytest.raises(s.Refused, match=r"panda is healthy and speaks .* -e force=true"):
        failover({"a": client()}, SPEAKS)
    assert failover({"a": client()}, SPEAKS, force=True)["urls"] == {"a": TITAN}
    assert failover({"a": away()}, SPEAKS)["already_switched"]  # it came back: that is failback's


def test_a_switch_that_reached_half_is_finished_with_its_number() -> None:
    decision = failover({"a": away(), "b": client()})
    assert decision["epoch"] == 1
    assert decision["warnings"] == ["switch 1 was left half-done on b; it is finished now"]
    decision = failover({"a": away(), "b": away(finished=False)})
    assert not decision["already_switched"]
    assert decision["warnings"] == ["switch 1 was left half-done on b; it is finished now"]


def test_two_that_disagree_get_a_new_number() -> None:
    back = client(epoch=1, target="what it was")
    assert failover({"a": away(), "b": back})["epoch"] == 2


def test_a_client_that_is_not_there_is_left_out() -> None:
    decision = failover({"a": client(), "b": {"problem": "it cannot be reached"}})
    assert decision["urls"] == {"a": TITAN}


def test_nobody_to_tell() -> None:
    with pytest.raises(s.Refused, match=r"no client can be told\. a: gone"):
        failover({"a": {"problem": "gone"}})
    with pytest.raises(s.Refused, match="The group `clients` is empty"):
        failover({})


def test_which_standby() -> None:
    other = {"url": "http://t2:8772", "reached": True, "ready": False}
    lost = {"url": TITAN, "reached": False, "ready": False}
    assert failover({"a": client()}, standbys={"titan": lost, "t2": other})["to"] == "t2"
    assert failover({"a": client()}, standbys={"t2": other, "titan": UP})["to"] == "titan"
    assert failover({"a": client()}, standbys={"t2": other, "titan": UP}, to="t2")["to"] == "t2"
    with pytest.raises(s.Refused, match="titan cannot be reached, and nobody else can speak"):
        failover({"a": client()}, standbys={"titan": lost})
    with pytest.raises(s.Refused, match="t3 is not in the group"):
        failover({"a": client()}, to="t3")


def test_failback_goes_where_the_voice_came_from() -> None:
    own = away(previous={"target": None, "url": "http://127.0.0.1:8772"})
    decision = failback({"a": own, "b": away(), "c": client(url="http://cloud", epoch=0)})
    assert decision["urls"] == {"a": "http://127.0.0.1:8772", "b": PANDA, "c": "http://cloud"}
    assert (decision["to"], decision["epoch"]) == ("panda", 2)
    home = client(epoch=2, target="panda", previous={"target": "titan", "url": TITAN})
    again = failback({"a": home})
    assert (again["already_switched"], again["epoch"]) == (True, 2)


def test_failback_of_a_client_that_remembers_nothing_or_another_standby() -> None:
    lost = client(url=TITAN)
    assert failback({"a": lost})["urls"] == {"a": PANDA}
    chained = away(previous={"target": "titan", "url": TITAN})
    assert failback({"a": chained})["urls"] == {"a": PANDA}
    # the standby is dead and says no URL any more
    assert failback({"a": away()}, {"titan": {}})["urls"] == {"a": PANDA}


def test_a_change_by_hand_is_said() -> None:
    changed = away(foreign=True) | {"url": "http://cloud"}
    assert (
        "a: its URL was changed by hand to http://cloud" in failover({"a": changed})["warnings"][0]
    )


# --- what is known ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "days_ago", "warning"),
    [
        ("titan_chatterbox_redundancy_validated", 1, None),
        ("titan_chatterbox_redundancy_validated", 46, "46 days old"),
        ("awaiting_ab_scores", 1, "the last verdict is awaiting_ab_scores"),
    ],
)
def test_evidence(tmp_path: Path, verdict: str, days_ago: int, warning: str | None) -> None:
    then = time.gmtime(time.time() - days_ago * 86400)
    (tmp_path / "latest").mkdir()
    document = {"run_id": time.strftime("%Y%m%d-%H%M%SZ", then), "verdict": verdict}
    (tmp_path / "latest/verdict.json").write_text(json.dumps(document))
    known = s.evidence(str(tmp_path), 45)
    assert known["verdict"] == verdict
    assert known["age_days"] == pytest.approx(days_ago, abs=0.01)
    assert known["warning"] is None if warning is None else warning in known["warning"]


@pytest.mark.parametrize(
    ("more", "warning"),
    [
        ({"rehearsal": True}, "the newest run is a rehearsal"),
        ({"human": {"state": "stale"}}, "the last verdict is stale"),
        ({"human": {"state": "contradicted"}}, "the last verdict is contradicted"),
        ({"ok": False}, "the last verdict has a check that failed"),
    ],
)
def test_a_validated_voice_that_is_doubted_all_the_same(
    tmp_path: Path, more: dict[str, Any], warning: str
) -> None:
    (tmp_path / "latest").mkdir()
    run_id = time.strftime("%Y%m%d-%H%M%SZ", time.gmtime())
    verdict = {"run_id": run_id, "verdict": "x_validated", "human": {"state": "stands"}}
    (tmp_path / "latest/verdict.json").write_text(json.dumps(verdict))
    assert s.evidence(str(tmp_path), 45)["warning"] is None
    (tmp_path / "latest/verdict.json").write_text(json.dumps(verdict | more))
    assert s.evidence(str(tmp_path), 45)["warning"].startswith(warning)


@pytest.mark.parametrize("text", ["", "[]", '{"run_id": 4, "verdict": "x"}'])
def test_no_evidence(tmp_path: Path, text: str) -> None:
    assert "nobody has shown" in s.evidence(str(tmp_path), 45)["warning"]
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest/verdict.json").write_text(text)
    assert "nobody has shown" in s.evidence(str(tmp_path), 45)["warning"]


# --- the last words --------------------------------------------------------------------------


def test_outcome() -> None:
    decision = {"to": "titan", "warnings": ["look"], "settled": {}}
    heard = {"at": 105.0, "wall_s": 0.8, "audio_s": 3.1}
    rows = {
        "a": {"url": TITAN, "switched_at": 103.5, "heard": heard, "put_back": None, "problem": ""},
        "b": {
            "url": TITAN,
            "switched_at": 103.6,
            "heard": None,
            "put_back": PANDA,
            "problem": "status 401",
        },
    }
    ended = s.outcome(s.FAILOVER, decision, rows, 100.0, 102.25, "stale")
    assert ended["status"] == "failed"
    assert ended["times"] == {
        "server_ready_s": 2.25,
        "switched_s": 3.6,
        "heard_s": 5.0,
        "synthesis_s": 0.8,
    }
    assert ended["last_words"] == [
        f"a: titan speaks, heard through {TITAN} (3.1 s of audio)",
        f"b: NOT switched: status 401; put back to {PANDA}",
        "time since the command: server ready 2.2 s, clients switched 3.6 s, "
        "first valid audio 5.0 s, 0.8 s of it one synthesis",
        "warning: look",
        "warning: stale",
        "next: mend what is said above, then ansible-playbook failover.yml again: "
        "it finishes the rest",
    ]
    del rows["b"]
    ended = s.outcome(s.FAILBACK, decision, rows, 100.0, None, None)
    assert ended["status"] == "ok"
    assert not any(line.startswith("next") for line in ended["last_words"])


def test_outcome_of_a_second_run() -> None:
    heard = {"at": 66.0, "wall_s": 0.8, "audio_s": 3.1}
    decision = {"to": "titan", "warnings": [], "settled": {"a": heard}}
    rows = {"a": {"url": TITAN, "switched_at": None, "heard": None, "problem": ""}}
    ended = s.outcome(s.FAILOVER, decision, rows, 100.0, 102.0, None)
    assert ended["status"] == "ok"
    assert ended["clients"]["a"]["heard"] == heard
    assert ended["times"]["heard_s"] is None
    assert ended["last_words"][:2] == [
        f"a: titan speaks, heard through {TITAN} (3.1 s of audio, 34 s before this command)",
        "nothing was left to do; to hear them again: "
        "ansible-playbook failover.yml -e tts_route_heard_for_s=0",
    ]
