"""The lease: who may have the window, what ends it, and what its files are worth when damaged."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy import clock
from ansible.module_utils.understudy import keeper as keeper_module
from ansible.module_utils.understudy import lease as leases
from ansible.module_utils.understudy.lease import Window
from llm_service import HOLDER, ROOT, RUN, Service
from llm_window import Keep, arm, change, fill, program, watched
from waiting import until

pytestmark = pytest.mark.usefixtures("quick")


# Arming


def test_a_lease_says_who_has_the_window(window: Window, service: Service) -> None:
    before = clock.boottime()
    lease = arm(window, service, 60)
    assert (lease["run_id"], lease["holder"], lease["ttl_s"]) == (RUN, HOLDER, 60)
    assert lease["service"] == service.described()
    assert window.lease() == lease
    found = window.look()
    assert (found["state"], found["alive"], found["reason"]) == ("held", False, None)
    assert 0 <= found["age_s"] <= clock.boottime() - before
    assert 59 < found["left_s"] <= 60
    assert (found["keeper"], found["last"]) == ({}, {})


def test_no_window(window: Window, home: Path) -> None:
    found = window.look()
    assert (found["state"], found["lease"], found["alive"]) == ("none", None, False)
    assert window.release("someone") is False
    window.withdraw("any")
    assert keeper_module.keep(window) == 0
    assert not (home / "keeper.json").exists()


def test_who_is_refused_reads_who_has_it_for_which_run_and_how_long(
    window: Window, home: Path
) -> None:
    lease = arm(window, None, 3600)
    change(home, "lease.json", opened=lease["opened"] - 12 * 60)
    with pytest.raises(leases.Held) as raised:
        window.arm("another run", "you@elsewhere", 60, {})
    assert str(raised.value) == (
        f"{HOLDER} has the LLM's window for run {RUN}, opened 12 min ago ({lease['opened_at']})"
    )
    assert window.lease()["id"] == lease["id"]


def test_a_window_that_has_ended_is_held_until_it_is_closed(window: Window) -> None:
    arm(window, None)
    window.release("a hand")
    with pytest.raises(leases.Held, match=r"; it has ended and the LLM is being brought back"):
        arm(window, None)


def test_a_lease_of_another_boot_has_no_age(window: Window, home: Path) -> None:
    arm(window, None)
    change(home, "lease.json", boot="another")
    with pytest.raises(leases.Held, match=r"opened before the last boot .* it has ended"):
        arm(window, None)
    assert (window.look()["age_s"], window.look()["left_s"]) == (None, 0.0)


RACER = """
import os, sys, time
from understudy import lease as leases
home, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
open(f"{home}/ready-{name}", "w").close()
while not os.path.exists(f"{home}/go"):
    time.sleep(0.0005)
for number in range(rounds):
    try:
        lease = leases.Window(f"{home}/{number}").arm("run", name, 60, {})
    except leases.Held:
        continue
    print(number, lease["id"], flush=True)
"""


def test_of_processes_that_arm_at_once_one_has_it(tmp_path: Path) -> None:
    racers, rounds = 3, 30
    started = [
        subprocess.Popen(
            [sys.executable, "-S", "-c", RACER, str(tmp_path), str(number), str(rounds)],
            env=os.environ | {"PYTHONPATH": str(ROOT / "module_utils")},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(racers)
    ]
    until(lambda: len(list(tmp_path.glob("ready-*"))) == racers)
    (tmp_path / "go").touch()
    won = [
        line.split() for racer in started for line in racer.communicate(timeout=30)[0].split("\n")
    ]
    had = dict(row for row in won if row)
    assert sum(bool(row) for row in won) == rounds
    assert had == {str(n): Window(str(tmp_path / str(n))).lease()["id"] for n in range(rounds)}


def test_withdrawn_before_anything_was_done(window: Window, home: Path) -> None:
    lease = arm(window, None)
    window.withdraw("another")
    assert window.lease() == lease
    window.withdraw(lease["id"])
    assert window.lease() is None
    assert [path.name for path in home.iterdir()] == ["lock"]
    assert arm(window, None)["id"] != lease["id"]


# Renewing


def test_renewing_gives_the_lease_its_whole_time_again(
    window: Window, service: Service, keep: Keep
) -> None:
    service.do("start")
    lease = arm(window, service, 0.8)
    keeper = keep()
    for _ in range(4):
        time.sleep(0.25)
        assert window.renew(lease["id"]) == 0.8
    assert window.look()["state"] == "held"
    assert window.look()["age_s"] >= 1
    assert not keeper.done()


@pytest.mark.parametrize(
    ("end", "seen"),
    [
        (lambda window: window.release("ann@desk"), r"has ended \(released by ann@desk\); the LLM"),
        (lambda window: time.sleep(0.31), r"has ended \(expired\); the LLM is being brought back"),
        (lambda window: change(Path(window.home), "lease.json", boot="b"), r"ended \(rebooted\)"),
        (lambda window: window.withdraw(window.lease()["id"]), "is gone$"),
    ],
)
def test_a_lease_that_has_ended_is_not_renewed(
    window: Window, end: Callable[[Window], Any], seen: str
) -> None:
    lease = arm(window, None, 0.3)
    end(window)
    for _ in range(2):
        with pytest.raises(leases.WindowError, match=seen):
            window.renew(lease["id"])


def test_the_lease_of_another_is_not_renewed(window: Window) -> None:
    lease = arm(window, None, 60)
    before = window.deadline(lease)
    with pytest.raises(leases.WindowError, match=f"is gone; {HOLDER} has the LLM's window for run"):
        window.renew("0" * 32)
    assert window.deadline(lease) == before


@pytest.mark.parametrize(
    ("ttl_s", "by", "seen"),
    [
        (60, "ann@desk", r"it was released by ann@desk, at "),
        (0.2, None, r"it ran out: for 0 s nobody renewed it, at "),
    ],
)
def test_renewing_after_the_end_says_what_ended_it_when_and_by_whom(
    window: Window, service: Service, keep: Keep, ttl_s: float, by: str | None, seen: str
) -> None:
    service.do("start")
    lease = arm(window, service, ttl_s)
    keeper = keep()
    if by:
        window.release(by)
    assert keeper.result(10) == 0
    with pytest.raises(leases.WindowError, match=f"is gone: {seen}{window.last()['over_at']}$"):
        window.renew(lease["id"])
    arm(window, service)
    with pytest.raises(
        leases.WindowError, match=f"is gone: {seen}.*; {HOLDER} has the LLM's window"
    ):
        window.renew(lease["id"])


# The end


def test_released_after_it_ran_out_it_still_ran_out(
    window: Window, service: Service, keep: Keep
) -> None:
    service.do("start")
    arm(window, service, 0.1)
    time.sleep(0.11)
    assert window.release("ann@desk") is True
    assert window.look()["state"] == "ending"
    assert keep().result(10) == 0
    assert (window.last()["reason"], window.last()["by"]) == ("expired", None)


def test_kept_is_only_what_a_living_keeper_watches(
    window: Window, service: Service, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = arm(window, service)
    assert not window.kept(lease)
    with window.keeping():  # of another lease
        assert not window.kept(lease)
    keeper = program(home, "keep")
    watched(window)
    assert window.kept(lease)
    assert not window.kept(lease | {"id": "0" * 32})
    with monkeypatch.context() as patch:
        patch.setattr(clock, "boot_id", lambda: "another/1")
        assert not window.kept(lease)
    keeper.kill()
    keeper.communicate(timeout=10)
    # A child that it was just starting may hold its lock for a moment.
    until(lambda: not window.kept(lease))


def test_two_who_look_at_once_do_not_take_each_other_for_a_keeper(
    window: Window, service: Service
) -> None:
    lease = arm(window, service)
    keeper_module.Keeper(window, lease, io.StringIO())  # wrote its record and is gone
    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(lambda: [window.kept(lease) for _ in range(150)]) for _ in range(4)]
    assert not any(any(look.result()) for look in looks)


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (None, "No keeper's record"),
        ({"phase": "watching"}, "The lease has not ended."),
        ({"reason": "rebooted", "over_at": "T"}, "ended with a reboot of the host, at T."),
        ({"reason": "released"}, "The lease was released by its holder."),
        ({"reason": "expired", "ttl_s": 720}, "ran out: for 12 min nobody renewed it."),
        ({"evicted": 2}, "2 processes were still at work inside and were ended."),
        ({"phase": "evicting"}, "What was started inside is being ended."),
        ({"phase": "starting"}, "The LLM does not answer: nothing was seen yet."),
        (
            {"phase": "answered", "answered_at": "T", "back_after_s": 3.2, "attempts": 2},
            "The LLM was started (2x) and answered 3 s after that began, at T. The keeper is",
        ),
    ],
)
def test_a_window_in_sentences(report: dict[str, Any] | None, told: str) -> None:
    assert told in leases.story(report)


# The disk


@pytest.mark.parametrize("pages", [0, 1])
def test_on_a_full_disk_no_lease_is_armed_and_nothing_is_left(disk: Path, pages: int) -> None:
    window = Window(str(disk / "window"))
    fill(disk, pages)
    with pytest.raises(OSError, match="No space left"):
        window.arm(RUN, HOLDER, 60, {"padding": "x" * 1000})
    assert [path.name for path in (disk / "window").iterdir()] == ["lock"]
    assert window.look()["state"] == "none"
    (disk / "full").unlink()
    assert arm(window, None)["holder"] == HOLDER


def test_on_a_disk_that_takes_no_more_files_no_lease_is_armed(disk: Path) -> None:
    window = Window(str(disk / "window"))
    for number in range(16):
        (disk / str(number)).touch()
    with pytest.raises(OSError, match="No space left"):
        arm(window, None)
    assert window.look()["state"] == "none"
    assert {path.name for path in (disk / "window").iterdir()} <= {"lock"}


# Damage


@pytest.mark.parametrize("damage", ["", '{"id": "5', "[1]", '{"id": "5"}', "\x00" * 900])
def test_a_lease_that_cannot_be_read_is_an_error_with_the_next_command(
    window: Window, service: Service, home: Path, damage: str
) -> None:
    lease = arm(window, service)
    path = home / "lease.json"
    path.write_text(damage)
    message = rf"the lease {path} cannot be read \(.+\)\. Next: see .* then rm {path}$"
    for act in (
        window.lease,
        window.look,
        lambda: arm(window, service),
        lambda: window.release("me"),
        lambda: window.renew(lease["id"]),
        lambda: window.withdraw(lease["id"]),
        lambda: keeper_module.keep(window),
    ):
        with pytest.raises(leases.WindowError, match=message):
            act()
    assert path.read_text() == damage
    assert not (home / "keeper.json").exists()


@pytest.mark.parametrize("key", ["run_id", "holder", "opened_at", "service"])
def test_half_a_lease_is_none(window: Window, home: Path, key: str) -> None:
    lease = arm(window, None)
    del lease[key]
    (home / "lease.json").write_text(json.dumps(lease))
    with pytest.raises(leases.WindowError, match="it is no lease"):
        window.look()


DAMAGE = [b"", b"{", b"[1]", b"7", b"\xff\xfe\x00", b'{"id": "5"}', bytes(1024)]


@pytest.mark.parametrize("damage", [*DAMAGE, b'{"id": "LEASE", "deadline": "soon", "by": 7}'])
def test_without_its_deadline_a_lease_lasts_as_long_as_it_was_armed_for(
    window: Window, home: Path, damage: bytes
) -> None:
    lease = arm(window, None, 60)
    (home / "deadline").write_bytes(damage.replace(b"LEASE", lease["id"].encode()))
    assert window.deadline(lease) == (lease["opened"] + 60, "")
    assert window.look()["state"] == "held"
    window.renew(lease["id"])
    assert window.deadline(lease)[0] > lease["opened"] + 60
    window.release("ann@desk")
    assert window.deadline(lease) == (0, "ann@desk")
    (home / "deadline").unlink()
    change(home, "lease.json", opened=lease["opened"] - 61)
    assert window.look()["reason"] == "expired"


def test_a_record_that_does_not_fit_leaves_what_was_there(window: Window, home: Path) -> None:
    home.mkdir()
    window.overwrite("x.json", {"a": 1}, 64)
    with pytest.raises(ValueError, match=r"x\.json: 10[0-9] bytes, at most 64 are kept"):
        window.overwrite("x.json", {"a": "b" * 90}, 64)
    assert json.loads((home / "x.json").read_text()) == {"a": 1}
    assert (home / "x.json").stat().st_size == 64
