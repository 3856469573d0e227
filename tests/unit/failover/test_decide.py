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


#: A server that is none of ours, which says no instance.
OTHER = {"instance": None, "answers": True}


def client(**changes: Any) -> dict[str, Any]:
    return {
        "url": PANDA,
        "server": OTHER,
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
        "mute": ["a", "b"],
        "unknown": [],
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
    assert failover(both, standbys=starting, may_start=True, **soon)["settled"] == {}
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
    both = {"t2": other, "titan": UP}
    assert failover({"a": client()}, standbys=both)["to"] == "titan"
    assert failover({"a": client()}, standbys=both, to="t2", may_start=True)["to"] == "t2"
    up = {"t2": {**other, "ready": True}, "titan": UP}
    assert failover({"a": client()}, standbys=up)["to"] == "t2"  # the inventory's order
    assert failover({"a": client()}, standbys=up, to="titan")["to"] == "titan"
    with pytest.raises(s.Refused, match="t3 is not in the group"):
        failover({"a": client()}, to="t3")


def test_a_standby_that_cannot_speak_gives_way_to_the_next_one() -> None:
    t2 = {"url": "http://t2:8772", "reached": True, "ready": False, "problem": "no weights"}
    lost = {"url": TITAN, "reached": False, "ready": False, "problem": "it cannot be reached: gone"}
    found = failover({"a": client()}, standbys={"t2": t2, "titan": UP}, to="t2")
    assert found["to"] == "titan"
    assert found["warnings"] == [
        "t2, which was asked for, cannot speak (no weights); titan is used"
    ]
    tried = {"standbys": {"titan": lost, "t2": t2}, "may_start": True}
    assert failover({"a": client()}, **tried)["to"] == "t2"
    with pytest.raises(
        s.Refused,
        match=r"no standby can speak\. t2: no weights; titan: it cannot be reached: gone\. "
        "Next: ssh titan true",
    ):
        failover({"a": client()}, standbys={"titan": lost, "t2": t2})
    with pytest.raises(s.Refused, match="the group `standby` is empty"):
        s.order({})


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


# --- who uses a standby ----------------------------------------------------------------------

OURS = {"url": TITAN, "instance": "a1", "reached": True, "ready": True}


@pytest.mark.parametrize(
    ("row", "how"),
    [
        (client(url="http://TITAN:8772/"), "uses it"),
        (client(url="http://titan.lan:8772", server={"instance": "a1"}), "uses it, as"),
        (client(url="http://10.0.0.7:8772", target="titan", epoch=1), "uses it, as"),
        (client(url="http://10.0.0.7:8772"), ""),  # another server, which answers
        (client(url="http://10.0.0.7:8772", server={"instance": "b2"}), ""),
        (client(url="http://10.0.0.7:8772", server={"instance": None}), "may use it, as"),
        (client(url="http://10.0.0.7:8772", server=None), "may use it, as"),
        (client(url="http://Panda:8772/", server={"instance": None}), ""),  # mute, and not titan
        ({"problem": "it is frozen"}, "may use it, since it was not looked at: it is frozen"),
    ],
)
def test_who_uses_a_standby(row: dict[str, Any], how: str) -> None:
    found = s.users({"a": row}, "titan", OURS, PANDA)
    assert (found[0] if found else "").startswith(f"a {how}" if how else "")
    assert bool(found) == bool(how)


def test_failback_knows_a_standby_by_its_instance() -> None:
    by_hand = client(url="http://titan.lan:8772", server={"instance": "a1"})
    decision = failback({"a": by_hand}, {"titan": OURS})
    assert decision["urls"] == {"a": PANDA}
    assert not decision["already_switched"]
    slash = failback({"a": client(url=f"{TITAN}/")})
    assert slash["urls"] == {"a": PANDA}
    chained = away(previous={"target": None, "url": "http://TITAN:8772/"})
    assert failback({"a": chained})["urls"] == {"a": PANDA}


def test_failback_does_not_return_to_a_standby_under_another_name() -> None:
    """The URL that was typed by hand before failover.yml wrote the inventory's."""
    typed = {"target": None, "url": "http://titan.lan:8772"}
    row = away(previous=typed, previous_server={"instance": "a1"})
    assert failback({"a": row}, {"titan": OURS})["urls"] == {"a": PANDA}
    other = away(previous=typed, previous_server={"instance": None})
    assert failback({"a": other}, {"titan": OURS})["urls"] == {"a": "http://titan.lan:8772"}


def test_failback_leaves_what_was_set_by_hand_after_the_switch() -> None:
    spare = away(url="http://spare", foreign=True)
    assert failback({"a": spare})["urls"] == {"a": "http://spare"}


def test_a_standby_that_tells_no_instance_may_have_any_user() -> None:
    old = {**UP, "service": "running", "instance": None}
    rows = {"a": client(), "b": client(url="http://titan.lan:8772")}
    assert s.users(rows, "titan", old, PANDA) == [
        "b may use it, as http://titan.lan:8772: its server does not tell its instance"
    ]
    assert s.users(rows, "titan", {**old, "service": "stopped"}, PANDA) == []


def test_urls_are_written_in_one_spelling() -> None:
    odd = {"titan": {**UP, "url": "http://TITAN:8772/"}}
    decision = failover({"a": away()}, standbys=odd)
    assert decision["urls"] == {"a": TITAN}
    assert decision["already_switched"]


def test_what_is_heard_through_another_url_is_not_called_the_primary() -> None:
    decision = failback({"a": client(url="http://cloud"), "b": client(url="http://PANDA:8772/")})
    assert decision["unknown"] == ["a"]
    heard = {"at": 105.0, "wall_s": 0.8, "audio_s": 3.1}
    rows = {name: {"url": url, "heard": heard} for name, url in decision["urls"].items()}
    words = s.outcome(s.FAILBACK, decision, rows, 100.0, None, None)["last_words"]
    assert words[0].startswith("a: a server that is not panda's as the inventory has it speaks")
    assert words[1].startswith("b: panda speaks, heard through http://PANDA:8772/")


def test_nobody_goes_back_to_a_voice_that_is_known_to_be_mute() -> None:
    rows = {"a": client(), "b": client(url="http://cloud")}
    assert failover(rows)["mute"] == ["a"]
    assert failover(rows, SPEAKS, force=True)["mute"] == []
    down = {"titan": {**UP, "ready": False}}
    assert failback({"a": away()}, down)["mute"] == ["a"]
    unseen = {"titan": {**UP, "reached": False, "ready": False}}
    assert failback({"a": away()}, unseen)["mute"] == []  # asked before anybody goes back


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


@pytest.mark.parametrize("found", [{"verdict": None}, {"human": "gone"}, {"verdict": ["x"]}])
def test_a_verdict_of_another_shape_is_doubted(tmp_path: Path, found: dict[str, Any]) -> None:
    (tmp_path / "latest").mkdir()
    run_id = time.strftime("%Y%m%d-%H%M%SZ", time.gmtime())
    document = {"run_id": run_id, "verdict": "x_validated", **found}
    (tmp_path / "latest/verdict.json").write_text(json.dumps(document))
    assert "the last verdict" in s.evidence(str(tmp_path), 45)["warning"]


@pytest.mark.parametrize("text", ["", "[]", '{"run_id": 4, "verdict": "x"}'])
def test_no_evidence(tmp_path: Path, text: str) -> None:
    assert "nobody has shown" in s.evidence(str(tmp_path), 45)["warning"]
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest/verdict.json").write_text(text)
    assert "nobody has shown" in s.evidence(str(tmp_path), 45)["warning"]


# --- the last words --------------------------------------------------------------------------


DECISION: dict[str, Any] = {"to": "titan", "warnings": ["look"], "settled": {}, "unknown": []}


def row(**changes: Any) -> dict[str, Any]:
    return {"url": TITAN, "switched_at": 103.6, "heard": None, "problem": "status 401", **changes}


def test_outcome() -> None:
    heard = {"at": 105.0, "wall_s": 0.8, "audio_s": 3.1}
    rows = {
        "a": row(switched_at=103.5, heard=heard, problem=""),
        "b": row(),
        "c": row(switched_at=None, problem="it cannot be reached"),
        "d": row(put_back="http://cloud"),
        "e": row(not_put_back="disk full"),
    }
    ended = s.outcome(s.FAILOVER, DECISION, rows, 100.0, 102.25, "stale")
    assert ended["status"] == "failed"
    assert ended["times"] == {
        "server_ready_s": 2.25,
        "switched_s": 3.6,
        "heard_s": 5.0,
        "synthesis_s": 0.8,
    }
    assert ended["last_words"] == [
        "e: NOT PUT BACK, its callers may hear nothing: disk full; before that: status 401",
        f"b: NOT heard: status 401; it stays with {TITAN}",
        "c: NOT switched: it cannot be reached",
        "d: NOT switched: status 401; put back to http://cloud, which speaks",
        f"a: titan speaks, heard through {TITAN} (3.1 s of audio)",
        "time since the command: server ready 2.2 s, clients switched 3.6 s, "
        "first valid audio 5.0 s, 0.8 s of it one synthesis",
        "warning: look",
        "warning: stale",
        "next: mend what is said above, then ansible-playbook failover.yml again: "
        "it finishes the rest",
    ]
    ended = s.outcome(s.FAILBACK, DECISION, {"a": rows["a"]}, 100.0, None, None)
    assert ended["status"] == "ok"
    assert not any(line.startswith("next") for line in ended["last_words"])


def test_a_voice_that_will_not_last_is_no_success() -> None:
    rows = {"a": row(heard={"at": 105.0, "wall_s": 0.8, "audio_s": 3.1}, problem="")}
    losses = ["titan: its voice ends with your login"]
    ended = s.outcome(s.FAILOVER, DECISION, rows, 100.0, 102.0, None, losses)
    assert ended["status"] == "failed"
    assert ended["last_words"][0] == "titan: its voice ends with your login"


def test_outcome_of_a_second_run() -> None:
    heard = {"at": 66.0, "wall_s": 0.8, "audio_s": 3.1}
    decision = {**DECISION, "warnings": [], "settled": {"a": heard}}
    rows = {"a": row(switched_at=None, problem="")}
    ended = s.outcome(s.FAILOVER, decision, rows, 100.0, 102.0, None)
    assert ended["status"] == "ok"
    assert ended["clients"]["a"]["heard"] == heard
    assert ended["times"]["heard_s"] is None
    assert ended["last_words"][:2] == [
        f"a: titan speaks, heard through {TITAN} (3.1 s of audio, 34 s before this command)",
        "nothing was left to do; to hear them again: "
        "ansible-playbook failover.yml -e tts_route_heard_for_s=0",
    ]
