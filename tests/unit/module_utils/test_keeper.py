"""The keeper: whatever ends the window, and whatever happens meanwhile, the LLM comes back.

The LLM is a small program with the commands of a service; the keeper runs in a thread with its
times made short, or as the program that it is on the host.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy import clock
from ansible.module_utils.understudy import keeper as keeper_module
from ansible.module_utils.understudy import lease as leases
from ansible.module_utils.understudy.keeper import INSIDE, PAUSING, leased_processes
from ansible.module_utils.understudy.lease import Window
from llm_service import (
    AFTER_FAILED_STARTS,
    QUICK,
    RUN,
    SOURCE,
    Service,
    environment,
    events,
    install,
)
from llm_window import Keep, arm, fill, inside, program, watched
from waiting import until

pytestmark = pytest.mark.usefixtures("quick")


def detail(report: dict[str, Any], event: str) -> str:
    return next(row["detail"] for row in report["events"] if row["event"] == event)


# The end


def test_a_lease_that_runs_out_brings_the_llm_back(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    lease = arm(window, service, 0.4)
    assert keep().result(10) == 0
    assert service.running
    assert service.starts[0] >= lease["opened"] + 0.4
    assert window.lease() is None
    last = json.loads((home / "last.json").read_text())
    assert events(last) == ["keeper", "expired", "started", "answered", "closed"]
    assert (last["id"], last["run_id"], last["ttl_s"]) == (lease["id"], RUN, 0.4)
    assert (last["reason"], last["by"], last["phase"]) == ("expired", None, "closed")
    assert (last["attempts"], last["evicted"], last["seen"]) == (1, 0, None)
    assert detail(last, "started") == "attempt 1, it was 'exited'"
    assert last["over_at"] <= last["answered_at"]
    assert 0 < last["back_after_s"] < 5
    assert sorted(path.name for path in home.iterdir()) == ["keeping", "last.json", "lock"]


def test_released_by_another_hand(window: Window, service: Service, keep: Keep) -> None:
    lease = arm(window, service)
    keeper = keep()
    watched(window)
    assert window.release("ann@desk", "0" * 32) is False
    assert window.look()["state"] == "held"
    assert window.release("ann@desk", lease["id"]) is True
    assert window.release("bob@late") is True  # there is a window, and it has ended already
    assert keeper.result(10) == 0
    last = window.last()
    assert (last["reason"], last["by"]) == ("released", "ann@desk")
    assert detail(last, "released") == "by ann@desk"
    assert service.running


def test_a_renewal_at_the_last_moment_counts_for_the_keeper_too(
    window: Window, service: Service, keep: Keep
) -> None:
    service.do("start")
    lease = arm(window, service, 0.4)
    keeper = keep()
    watched(window)
    with window.locked():  # as `renew` has it, while it looks and writes
        assert window.over(lease) is None
        time.sleep(0.4)
        window._set_deadline(lease, clock.boottime() + 60, "")
    time.sleep(0.2)
    assert not keeper.done()
    assert window.keeper()["phase"] == "watching"


def test_a_reboot_ends_the_window_at_once(
    window: Window, service: Service, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm(window, service)
    keeper = keep()
    watched(window)
    monkeypatch.setattr(clock, "boot_id", lambda: "another/1")
    assert not window.look()["alive"]
    assert keeper.result(10) == 0
    assert window.last()["reason"] == "rebooted"
    assert service.running


def test_a_boot_after_the_llm_answered_begins_anew(
    window: Window, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = arm(window, service)
    keeper = keeper_module.Keeper(window, lease, io.StringIO())
    keeper._over("released")
    keeper._phase(leases.ANSWERED)
    monkeypatch.setattr(clock, "boot_id", lambda: "another/1")
    again = keeper_module.Keeper(window, lease, io.StringIO())
    assert window.keeper()["phase"] == "watching"  # nobody may take the LLM for answering
    assert again.run()
    assert window.last()["reason"] == "released"
    assert service.running


def test_a_keeper_that_was_killed_goes_on_where_it_was(
    window: Window, service: Service, home: Path
) -> None:
    lease = arm(window, service, 1.2)
    deadline = (home / "deadline").read_bytes()
    first = program(home, "keep")
    watched(window)
    first.kill()
    first.communicate(timeout=10)
    assert window.look()["alive"] is False
    assert window.look()["state"] == "held"

    second = program(home, "keep")
    watched(window)
    assert (home / "deadline").read_bytes() == deadline
    assert second.wait(10) == 0
    assert lease["opened"] + 1.2 <= service.starts[0] < lease["opened"] + 3
    assert events(window.last()) == ["keeper", "keeper", "expired", "started", "answered", "closed"]
    pids = [row["detail"].split()[-1] for row in window.last()["events"][:2]]
    assert pids == [str(first.pid), str(second.pid)]


def test_killed_while_it_starts_the_llm(window: Window, service: Service, home: Path) -> None:
    service.set("silent")
    arm(window, service)
    window.release("ann@desk")
    first = program(home, "keep")
    until(lambda: window.keeper().get("seen"))
    first.kill()
    first.communicate(timeout=10)
    service.unset("silent")
    assert program(home, "keep").wait(10) == 0
    last = window.last()
    assert (last["reason"], last["by"], last["attempts"]) == ("released", "ann@desk", 1)
    assert [event for event in events(last) if event != "keeper"] == [
        "released",
        "started",
        "answered",
        "closed",
    ]
    assert len(service.starts) == 1


def test_of_two_keepers_one_starts_the_llm(window: Window, service: Service, home: Path) -> None:
    arm(window, service, 0.5)
    keepers = [program(home, "keep") for _ in range(2)]
    assert [keeper.wait(10) for keeper in keepers] == [0, 0]
    assert len(service.starts) == 1
    assert service.log.count("serve") == 1
    assert events(window.last()).count("keeper") == 1


def test_a_keeper_that_waited_takes_over(window: Window, service: Service, home: Path) -> None:
    arm(window, service)
    first = program(home, "keep")
    watched(window)
    second = program(home, "keep")
    time.sleep(0.2)
    first.kill()
    until(lambda: len(window.keeper().get("events", [])) == 2)
    assert window.look()["alive"]
    window.release("ann@desk")
    assert second.wait(10) == 0
    assert service.running
    first.communicate(timeout=10)


def test_a_lease_removed_by_hand_makes_the_keeper_give_up(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    arm(window, service)
    keeper = keep()
    watched(window)
    (home / "lease.json").unlink()
    assert keeper.result(10) == 0
    assert service.log == []
    assert window.last() == {}
    again = arm(window, service, 60)
    keep()
    watched(window)
    assert window.keeper()["id"] == again["id"]


def test_removed_by_hand_while_the_llm_does_not_come_back(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    service.set("fail_starts", "1000")
    arm(window, service)
    window.release("ann@desk")
    keeper = keep()
    until(lambda: len(service.starts) > 1)
    (home / "lease.json").unlink()
    assert keeper.result(10) == 0
    count = len(service.starts)
    time.sleep(0.2)
    assert len(service.starts) == count


class Shifted(datetime):
    """A wall clock that somebody set."""

    by = timedelta()

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) + cls.by


def test_a_clock_that_is_set_changes_nothing(
    window: Window, service: Service, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = arm(window, service, 0.9)
    keeper = keep()
    watched(window)
    before, real = datetime.now().astimezone(), time.time
    monkeypatch.setattr(clock, "datetime", Shifted)
    monkeypatch.setattr(time, "time", lambda: real() + Shifted.by.total_seconds())
    for hours in (1, -1):
        monkeypatch.setattr(Shifted, "by", timedelta(hours=hours))
        time.sleep(0.15)
        assert window.look()["state"] == "held"
        assert 0.15 < window.look()["age_s"] < 5
        assert window.renew(lease["id"]) == 0.9
        renewed = clock.boottime()
    assert keeper.result(10) == 0
    assert renewed + 0.85 < service.starts[0] < renewed + 3
    assert window.last()["reason"] == "expired"
    over = datetime.fromisoformat(window.last()["over_at"])
    assert abs(over - before - timedelta(hours=hours)) < timedelta(seconds=10)


# What runs inside


def marked(lease: dict[str, Any], count: int, *marks: str) -> list[int]:
    """Wait for so many processes under a lease; returns their pids."""
    wanted = [f"{mark}={lease['id']}".encode() for mark in marks or (INSIDE,)]

    def there() -> list[int]:
        pids = [pid for pid, _ in leased_processes(lease["id"], *(marks or (INSIDE,)))]
        return [pid for pid in pids if any(row in environment(pid).split(b"\0") for row in wanted)]

    until(lambda: len(there()) == count)
    return there()


def test_what_was_started_inside_is_ended_before_the_llm_is_started(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    lease = arm(window, service)
    keeper = keep()
    # A shell, its child, its child in a session of its own, and that one's child.
    script = "sleep 61 & setsid sh -c 'sleep 62; :' & wait; :"
    tenant = inside(home, "inside", lease, "sh", "-c", script)
    outside = subprocess.Popen(["sleep", "63"])
    pids = marked(lease, 4)
    service.set("tenants", " ".join(map(str, pids)))
    assert sorted(name for _, name in leased_processes(lease["id"], INSIDE)) == [
        "sh",
        "sh",
        "sleep",
        "sleep",
    ]
    assert leased_processes(lease["id"], PAUSING) == leased_processes("0" * 32, INSIDE) == []

    window.release("ann@desk")
    assert keeper.result(10) == 0
    assert service.log[0] == "start beside 0"
    assert tenant.wait(10) == -signal.SIGTERM
    assert window.last()["evicted"] == 4
    for pid in pids:
        assert f"({pid})" in detail(window.last(), "evicted")
    assert outside.poll() is None
    outside.kill()
    outside.wait(10)


def test_who_ignores_sigterm_is_killed(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    lease = arm(window, service)
    keeper = keep()
    tenant = inside(home, "inside", lease, "sh", "-c", "trap '' TERM; sleep 61; :")
    service.set("tenants", " ".join(map(str, marked(lease, 2))))
    window.release("ann@desk")
    released = time.monotonic()
    assert keeper.result(10) == 0
    assert tenant.wait(10) == -signal.SIGKILL
    assert time.monotonic() - released > keeper_module.TERM_S
    assert service.log[0] == "start beside 0"


TIDY = """
import signal, sys, time
def tidy(*_):
    print("told", flush=True)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        time.sleep(0.05)
    print("tidy", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, tidy)
print("ready", flush=True)
time.sleep(60)
"""


def test_who_tidies_up_is_told_once_and_left_to_it(
    window: Window, service: Service, keep: Keep, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "TERM_S", 5.0)
    lease = arm(window, service)
    keeper = keep()
    tenant = inside(home, "inside", lease, sys.executable, "-S", "-c", TIDY)
    assert tenant.stdout
    assert tenant.stdout.readline() == "ready\n"
    window.release("ann@desk")
    assert keeper.result(10) == 0
    assert tenant.communicate(timeout=10)[0] == "told\ntidy\n"
    assert tenant.returncode == 0


def test_who_cannot_be_ended_does_not_keep_the_llm_down(
    window: Window, service: Service, keep: Keep, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = arm(window, service)
    keeper = keep()
    tenant = inside(home, "inside", lease, "sleep", "61")
    marked(lease, 1)
    with monkeypatch.context() as patch:  # one that hangs in a driver gets no signal
        patch.setattr(os, "kill", lambda pid, number: None)
        window.release("ann@desk")
        assert keeper.result(10) == 0
    assert service.running
    assert f"sleep ({tenant.pid})" in detail(window.last(), "not_evicted")
    tenant.kill()
    tenant.wait(10)


def released_in_a_pause(
    window: Window, service: Service, keep: Keep, stop_s: str
) -> subprocess.Popen[str]:
    """Release the lease while the pause command is stopping the LLM, and await the keeper's end.

    Args:
        stop_s: how long the stop takes, in seconds.

    Returns:
        The pause command.
    """
    service.do("start")
    service.set("slow_stop", stop_s)
    lease = arm(window, service)
    keeper = keep()
    pause = inside(Path(window.home), "pause", lease, *service.command("stop"))
    until(lambda: "stop" in service.log)
    window.release("ann@desk")
    assert keeper.result(10) == 0
    return pause


def test_a_pause_that_is_under_way_is_waited_for(
    window: Window, service: Service, keep: Keep
) -> None:
    pause = released_in_a_pause(window, service, keep, "0.6")
    assert pause.wait(10) == 0
    assert service.log[2:] == ["stop", "stopped", "start beside 0", "serve"]
    assert (window.last()["evicted"], window.last()["attempts"]) == (0, 1)
    assert service.running


def test_a_pause_that_hangs_is_ended(
    window: Window, service: Service, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "PAUSE_S", 0.3)
    pause = released_in_a_pause(window, service, keep, "60")
    assert pause.wait(10) == -signal.SIGTERM
    assert "stopped" not in service.log
    assert (window.last()["evicted"], window.last()["attempts"]) == (1, 0)


def test_who_is_about_to_enter_is_seen_by_its_command_line() -> None:
    lease = {"id": "5" * 32}
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)", "--lease"]
    with subprocess.Popen([*command, f"{INSIDE}={lease['id']}"]) as entering:
        until(lambda: leased_processes(lease["id"], INSIDE))
        assert [pid for pid, _ in leased_processes(lease["id"], INSIDE, PAUSING)] == [entering.pid]
        assert leased_processes(lease["id"], PAUSING) == []
        entering.kill()


# The LLM


def test_a_start_that_fails_is_tried_again(window: Window, service: Service, keep: Keep) -> None:
    service.set("fail_starts", "3")
    arm(window, service)
    window.release("ann@desk")
    assert keep().result(10) == 0
    last = window.last()
    assert (last["attempts"], len(service.starts)) == (4, 4)
    assert events(last) == AFTER_FAILED_STARTS
    assert detail(last, "start_failed") == "Error: no such device"
    assert detail(last, "started") == "attempt 4, it was 'exited'"
    gaps = [
        after - before for before, after in zip(service.starts, service.starts[1:], strict=False)
    ]
    assert gaps[0] > keeper_module.RETRY_S
    assert service.running


def test_a_start_command_that_is_not_there_is_tried_again(
    window: Window, service: Service, keep: Keep, tmp_path: Path
) -> None:
    start = tmp_path / "bin/start"
    arm(window, service, resume_command=[str(start)])
    window.release("ann@desk")
    keeper = keep()
    until(lambda: "start_failed" in events(window.keeper()))
    assert "No such file" in detail(window.keeper(), "start_failed")
    start.parent.mkdir()
    whole = tmp_path / "whole"
    whole.write_text(f"#!/bin/sh\nexec {' '.join(service.command('start'))}\n")
    whole.chmod(0o755)
    whole.rename(start)
    assert keeper.result(10) == 0
    assert service.running


def test_a_start_command_whose_server_keeps_its_output_open(
    window: Window, service: Service, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "COMMAND_S", 0.4)
    service.set("loud")
    arm(window, service)
    window.release("ann@desk")
    assert keep().result(10) == 0
    assert (window.last()["attempts"], service.running) == (1, True)


def test_a_start_command_that_hangs(
    window: Window, service: Service, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "COMMAND_S", 0.2)
    arm(window, service, resume_command=["sleep", "60"])
    window.release("ann@desk")
    keeper = keep()
    until(lambda: window.keeper().get("attempts", 0) > 1)
    assert "did not end within" in detail(window.keeper(), "start_failed")
    service.do("start")  # by hand
    assert keeper.result(10) == 0


def test_an_llm_that_never_answers_is_named_and_not_given_up(
    window: Window, service: Service, keep: Keep
) -> None:
    service.set("silent")
    arm(window, service, ready_timeout_s=0.3)
    window.release("ann@desk")
    keeper = keep()
    until(lambda: window.keeper().get("phase") == "silent")
    until(lambda: "'running'" in window.keeper()["seen"])
    time.sleep(0.1)
    report = window.keeper()
    assert (report["phase"], report["answered_at"]) == ("silent", None)
    assert "answered 503" in report["seen"]
    assert "the engine is loading" in report["seen"]
    assert "(its service says 'running')" in report["seen"]
    assert events(report)[:4] == ["keeper", "released", "started", "silent"]
    assert set(events(report)[4:]) <= {"silent"}  # again, where something else was seen
    assert window.look()["state"] == "ending"
    assert window.look()["alive"]
    assert len(service.starts) == 1
    assert "The LLM does not answer: http://127.0.0.1:" in leases.story(report)
    assert "The keeper goes on trying." in leases.story(report)

    service.unset("silent")
    assert keeper.result(10) == 0
    assert events(window.last())[-2:] == ["answered", "closed"]
    assert window.last()["seen"] is None
    assert window.last()["back_after_s"] > 0.3


def test_an_llm_that_goes_down_again_is_started_again(
    window: Window, service: Service, keep: Keep
) -> None:
    service.set("down_after", "0.4")
    arm(window, service, stay_s=0.5)
    window.release("ann@desk")
    assert keep().result(10) == 0
    last = window.last()
    assert events(last) == [
        "keeper",
        "released",
        "started",
        "answered",
        "stopped_again",
        "started",
        "answered",
        "closed",
    ]
    assert detail(last, "stopped_again") == "its service says 'exited'"
    assert last["attempts"] == 2
    assert service.running


def test_an_llm_that_was_found_down_is_not_started(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    lease = arm(window, service, running=False)
    keeper = keep()
    tenant = inside(home, "inside", lease, "sleep", "61")
    marked(lease, 1)
    window.release("ann@desk")
    assert keeper.result(10) == 0
    assert tenant.wait(10) == -signal.SIGTERM
    assert service.log == []
    assert events(window.last()) == ["keeper", "released", "evicted", "closed"]
    assert window.last()["attempts"] == 0


def test_an_llm_that_was_never_stopped_is_only_asked(
    window: Window, service: Service, keep: Keep
) -> None:
    service.do("start")
    arm(window, service, model="gemma")
    window.release("ann@desk")
    assert keep().result(10) == 0
    assert len(service.starts) == 1
    assert events(window.last()) == ["keeper", "released", "answered", "closed"]


def test_an_llm_that_is_restarted_while_it_has_to_stay_is_seen_again(
    window: Window, service: Service, keep: Keep, tmp_path: Path
) -> None:
    """It crashed, and its service manager had it up again before the keeper looked."""
    started = tmp_path / "started_at"
    started.write_text("10:00:00 0\n")
    arm(window, service, identity_command=["cat", str(started)], stay_s=0.5)
    window.release("ann@desk")
    keeper = keep()
    until(lambda: window.keeper().get("phase") == "answered")
    started.write_text("10:00:09 1\n")
    assert keeper.result(10) == 0
    told = events(window.last())
    assert told == ["keeper", "released", "started", "answered", "restarted", "answered", "closed"]
    assert detail(window.last(), "restarted") == "'10:00:00 0' became '10:00:09 1'"


def test_an_llm_that_answers_no_more_does_not_count_as_one_that_stayed(
    window: Window, service: Service, keep: Keep
) -> None:
    """Without an identity, and with a state that says running all the time."""
    arm(window, service, stay_s=0.4)
    window.release("ann@desk")
    keeper = keep()
    until(lambda: window.keeper().get("phase") == "answered")
    service.set("silent")
    until(lambda: "stopped_again" in events(window.keeper()))
    assert "it answers no more: http://" in detail(window.keeper(), "stopped_again")
    service.unset("silent")
    assert keeper.result(10) == 0
    assert events(window.last())[-2:] == ["answered", "closed"]


def test_an_llm_that_answers_ends_the_window_of_a_keeper_that_sees_nothing(
    window: Window, service: Service, keep: Keep
) -> None:
    """A keeper that may not use Docker; somebody starts the LLM by hand."""
    denied = ["sh", "-c", "echo permission denied; exit 1"]
    arm(window, service, state_command=denied, resume_command=denied, identity_command=denied)
    window.release("ann@desk")
    keeper = keep()
    until(lambda: "start_failed" in events(window.keeper()))
    service.do("start")
    assert keeper.result(10) == 0
    assert "stopped_again" not in events(window.last())
    assert window.last()["started_by"] == "somebody else"
    story = leases.story(window.last())
    why = "(sh ended with status 1: permission denied)"
    assert f"was started by somebody else, as the keeper could not {why}" in story


def test_the_keeper_reports_what_it_sees_before_it_has_to_start_anything(
    window: Window, service: Service, keep: Keep
) -> None:
    service.do("start")
    arm(window, service, resume_command=["no-such-program"])
    keep()
    until(lambda: window.keeper().get("able"))
    able = window.keeper()["able"]
    assert (able["running"], able["state"]) == (False, None)
    assert "llm_window_resume_command: no-such-program is not found" in able["problem"]
    assert able["next"] == "write the program's whole path into llm_window_resume_command"


@pytest.mark.parametrize("identified", [True, False])
def test_an_llm_that_others_start_inside_the_window_is_noticed(
    window: Window, service: Service, keep: Keep, identified: bool
) -> None:
    service.do("start")
    identity = ["cat", str(service.directory / "pid")] if identified else []
    arm(window, service, paused=True, identity_command=identity)
    keep()
    until(lambda: window.keeper().get("able"))
    service.do("stop")
    if not identified:
        until(lambda: window.keeper()["down"] is not None)
    time.sleep(0.2)
    assert events(window.keeper()) == ["keeper"]
    service.do("start")
    until(lambda: "started_inside" in events(window.keeper()))
    assert detail(window.keeper(), "started_inside").startswith("not by this run; its service says")
    time.sleep(0.2)
    assert events(window.keeper()).count("started_inside") == 1


def test_an_llm_that_was_up_between_two_looks_is_noticed(
    window: Window, service: Service, keep: Keep, tmp_path: Path
) -> None:
    started = tmp_path / "started_at"
    started.write_text("10:00\n")
    arm(window, service, paused=True, identity_command=["cat", str(started)])
    keep()
    until(lambda: window.keeper().get("down"))
    started.write_text("10:05\n")
    until(lambda: "started_inside" in events(window.keeper()))
    assert detail(window.keeper(), "started_inside").endswith("its service says 'exited' again")


def test_an_llm_that_is_not_paused_may_be_restarted(
    window: Window, service: Service, keep: Keep
) -> None:
    service.do("start")
    arm(window, service, identity_command=["cat", str(service.directory / "pid")])
    keep()
    until(lambda: window.keeper().get("able"))
    service.do("stop")
    service.do("start")
    time.sleep(0.3)
    assert events(window.keeper()) == ["keeper"]


def test_a_key_is_sent_and_written_nowhere(
    window: Window, service: Service, home: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    key.chmod(0o600)
    service.set("key", "sk-secret")
    arm(window, service, api_key_file=str(key))
    window.release("ann@desk")
    keeper = program(home, "keep")
    output, errors = keeper.communicate(timeout=10)
    assert (keeper.returncode, errors, window.lease()) == (0, "", None)
    assert "sk-secret" not in output
    assert all("sk-secret" not in path.read_text() for path in home.glob("*.json"))


# The disk


def test_a_keeper_without_room_for_its_record_does_not_count(disk: Path, service: Service) -> None:
    window = Window(str(disk / "window"))
    lease = arm(window, service)
    fill(disk, 5)  # it would take six
    with ThreadPoolExecutor() as pool:
        keeper = pool.submit(keeper_module.keep, window)
        time.sleep(0.3)
        assert not keeper.done()
        assert not window.kept(lease)  # so who armed withdraws
        window.release("ann@desk")
        assert keeper.result(10) == 0
    assert service.running
    assert window.lease() is None


def test_a_disk_that_fills_up_inside_the_window_changes_nothing(
    disk: Path, service: Service
) -> None:
    home = disk / "window"
    install(home)
    window = Window(str(home))
    lease = arm(window, service, 1.5)
    with (disk / "log").open("w") as journal:
        keeper = program(home, "keep", stdout=journal, stderr=journal)
        watched(window)
        fill(disk)
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(bytes(4096))
        service.set("fail_starts", "2")
        service.set("says", "x" * 5000)
        assert window.renew(lease["id"]) == 1.5
        window.release("ann@desk", lease["id"])
        assert keeper.wait(10) == 0
    assert service.running
    assert window.lease() is None
    assert events(window.last()) == AFTER_FAILED_STARTS
    assert not (home / "deadline").exists()


def test_a_journal_that_takes_nothing_does_not_stop_the_keeper(
    window: Window, service: Service, home: Path
) -> None:
    arm(window, service)
    window.release("ann@desk")
    with Path("/dev/full").open("w") as full:
        program(home, "keep", stdout=full, stderr=full).wait(10)
    assert (window.lease(), service.running) == (None, True)
    assert events(window.last())[-1] == "closed"


# Damage


WRONG = {
    "events": None,
    "evicted": "many",
    "attempts": None,
    "ttl_s": [],
    "phase": 7,
    "reason": 7,
    "by": 7,
    "answered_at": "x",
    "back_after_s": None,
}


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1]", bytes(9000), b'{"id": "LEASE", "events": [7]}', json.dumps(WRONG)]
)
def test_records_that_are_damaged_do_not_keep_the_llm_down(
    window: Window, service: Service, keep: Keep, home: Path, damage: bytes | str
) -> None:
    service.do("start")
    lease = arm(window, service)
    if isinstance(damage, str):
        damage = json.dumps(json.loads(damage) | {"id": lease["id"]}).encode()
    damage = damage.replace(b"LEASE", lease["id"].encode())
    for name in ("keeper.json", "last.json"):
        (home / name).write_bytes(damage)
    window.look()
    with pytest.raises(leases.WindowError, match="is gone"):
        window.renew("5")
    keeper = keep()
    watched(window)
    (home / "keeper.json").write_bytes(damage)
    window.release("ann@desk")
    assert keeper.result(10) == 0
    assert (window.last()["reason"], window.last()["phase"]) == ("released", "closed")
    assert events(window.last())[-3:] == ["released", "answered", "closed"]
    (home / "last.json").write_bytes(damage)
    with pytest.raises(leases.WindowError, match="the lease of this window is gone"):
        window.renew(lease["id"])


@pytest.mark.parametrize(
    "text", ["ü" * 5000, "\x1b[31m" * 900, '"\\' * 400, "\x00\n\t" * 300, "𝄞" * 300]
)
def test_the_keepers_record_always_fits(
    window: Window, home: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        monkeypatch.setenv(f"DOCKER_{number}", text.replace("\x00", "\x01"))
    lease = window.arm(
        RUN, text, 60, {"running": True, "running_regex": "x", "state_command": ["echo", text[1:]]}
    )
    keeper = keeper_module.Keeper(window, lease, io.StringIO())
    keeper._look()
    for number in range(60):
        keeper._event(f"event{number}", f"{number} {text}")
        keeper._note("again", text)
        assert (home / "keeper.json").stat().st_size == leases.KEEPER_BYTES
        assert window.keeper()["events"] == keeper.report["events"]
    told = window.keeper()["events"]
    assert len(told) == 20
    assert told[0]["event"] == "keeper"
    assert told[-1]["event"] == "event59"
    assert "again" in {row["event"] for row in told}
    assert all(len(row["detail"]) <= 200 and row["detail"].isprintable() for row in told)
    window.release(text)
    assert (home / "deadline").stat().st_size == leases.DEADLINE_BYTES
    assert window.look()["reason"] == "released"


# Small things


def test_what_a_command_said_whatever_went_wrong(tmp_path: Path) -> None:
    done, said = keeper_module.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done, said.splitlines()[-1]) == (False, "err")
    done, said = keeper_module.run([str(tmp_path / "none")])
    assert not done
    assert "No such file" in said
    assert keeper_module.run([str(tmp_path)])[0] is False
    assert keeper_module.run(["echo", "~/x"]) == (True, f"{Path.home()}/x")


def test_the_programs_own_times_are_those_of_the_module() -> None:
    text = (SOURCE / "keeper.py").read_text()
    assert [name for name in QUICK if name not in text] == []
