"""The window: who may have it, what ends it, and that the LLM comes back whatever happens.

The LLM is a small program with the commands of a service; the keeper runs in a thread with its
times made short, or as the program that it is on the host.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy import clock
from ansible.module_utils.understudy import keeper as keeper_module
from ansible.module_utils.understudy import lease as leases
from ansible.module_utils.understudy import window as window_module
from ansible.module_utils.understudy.keeper import INSIDE, PAUSING, leased_processes
from ansible.module_utils.understudy.lease import Window
from llm_service import (
    HOLDER,
    MARK,
    PROGRAM,
    QUICK,
    ROOT,
    RUN,
    SOURCE,
    Service,
    end_all,
    environment,
    events,
    install,
)
from waiting import until

#: What `program` started in this test.
STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Short times, and an end of everything that a test started."""
    for name, value in QUICK.items():
        assert hasattr(keeper_module, name)
        monkeypatch.setattr(keeper_module, name, value)
    monkeypatch.setenv(MARK, str(tmp_path))
    yield
    end_all(str(tmp_path))
    while STARTED:
        with STARTED.pop():  # waits, and closes the pipes
            pass


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "window"


@pytest.fixture
def window(home: Path) -> Window:
    return Window(str(home))


@pytest.fixture
def service(tmp_path: Path, quick: None) -> Service:
    return Service(tmp_path / "service")


Keep = Callable[[], "Future[int]"]


@pytest.fixture
def keep(window: Window, quick: None) -> Iterator[Keep]:
    """Start a keeper in a thread; it gives up when the test is over."""
    keepers: list[Future[int]] = []
    with ThreadPoolExecutor() as pool:

        def start() -> Future[int]:
            keepers.append(pool.submit(keeper_module.keep, window))
            return keepers[-1]

        yield start
        Path(window.home, "lease.json").unlink(missing_ok=True)
    assert all(keeper.done() for keeper in keepers)


def arm(window: Window, service: Service | None, ttl_s: float = 60, **changes: Any) -> Any:
    return window.arm(RUN, HOLDER, ttl_s, service.described(**changes) if service else {})


def watched(window: Window) -> None:
    until(lambda: window.look()["alive"])


def program(home: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the program on the host; its interpreter sees nothing but the standard library."""
    path = home / "window.py"
    started = subprocess.Popen(
        [sys.executable, "-S", str(path if path.exists() else install(home)), *arguments],
        text=True,
        stdin=subprocess.DEVNULL,
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )
    STARTED.append(started)
    return started


def detail(report: dict[str, Any], event: str) -> str:
    return next(row["detail"] for row in report["events"] if row["event"] == event)


def change(home: Path, name: str, **changes: Any) -> None:
    path = home / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


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


def test_the_program_after_a_boot(window: Window, service: Service, home: Path) -> None:
    arm(window, service)
    assert clock.boot_id() == clock.boot_id()
    change(home, "lease.json", boot=f"{clock.boot_id()}0", opened=1e9)
    keeper = program(home, "keep")
    output, errors = keeper.communicate(timeout=10)
    assert (keeper.returncode, errors) == (0, "")
    assert output.splitlines()[1] == "rebooted"
    assert (window.lease(), window.last()["reason"], service.running) == (None, "rebooted", True)


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
    assert not window.kept(lease)


def test_two_who_look_at_once_do_not_take_each_other_for_a_keeper(
    window: Window, service: Service
) -> None:
    lease = arm(window, service)
    keeper_module.Keeper(window, lease, io.StringIO())  # wrote its record and is gone
    with ThreadPoolExecutor(4) as pool:
        looks = [pool.submit(lambda: [window.kept(lease) for _ in range(150)]) for _ in range(4)]
    assert not any(any(look.result()) for look in looks)


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


def inside(home: Path, mark: str, lease: dict[str, Any], *command: str) -> subprocess.Popen[str]:
    """Start a command inside a window, as the play does."""
    name = {"inside": INSIDE, "pause": PAUSING}[mark]
    return program(home, "enter", "--lease", f"{name}={lease['id']}", "--", *command)


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


def test_a_pause_that_is_under_way_is_waited_for(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    service.do("start")
    service.set("slow_stop", "0.6")
    lease = arm(window, service)
    keeper = keep()
    pause = inside(home, "pause", lease, *service.command("stop"))
    until(lambda: "stop" in service.log)
    window.release("ann@desk")
    assert keeper.result(10) == 0
    assert pause.wait(10) == 0
    assert service.log[2:] == ["stop", "stopped", "start beside 0", "serve"]
    assert (window.last()["evicted"], window.last()["attempts"]) == (0, 1)
    assert service.running


def test_a_pause_that_hangs_is_ended(
    window: Window, service: Service, keep: Keep, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "PAUSE_S", 0.3)
    service.do("start")
    service.set("slow_stop", "60")
    lease = arm(window, service)
    keeper = keep()
    pause = inside(home, "pause", lease, *service.command("stop"))
    until(lambda: "stop" in service.log)
    window.release("ann@desk")
    assert keeper.result(10) == 0
    assert pause.wait(10) == -signal.SIGTERM
    assert "stopped" not in service.log
    assert (window.last()["evicted"], window.last()["attempts"]) == (1, 0)


def test_who_enters_is_marked_and_so_are_its_children(
    window: Window, service: Service, home: Path
) -> None:
    lease = arm(window, service)
    for mark, name in (("inside", INSIDE), ("pause", PAUSING)):
        entered = inside(home, mark, lease, "sh", "-c", f"sh -c 'echo ${name}'; exit 3")
        assert entered.communicate(timeout=10) == (f"{lease['id']}\n", "")
        assert entered.returncode == 3


def test_nobody_enters_after_the_end(window: Window, service: Service, home: Path) -> None:
    lease, other = arm(window, service), {"id": "0" * 32}
    window.release("ann@desk")
    for which, seen in ((lease, "has ended (released by ann@desk)"), (other, "is gone; me@")):
        late = inside(home, "inside", which, "touch", str(home / "entered"))
        output, errors = late.communicate(timeout=10)
        assert (late.returncode, output) == (1, "")
        assert errors.startswith("window.py: the lease of this window ")
        assert seen in errors
    assert not (home / "entered").exists()


def test_who_is_about_to_enter_is_seen_by_its_command_line() -> None:
    lease = {"id": "5" * 32}
    command = [sys.executable, "-S", "-c", "import time; time.sleep(60)", "--lease"]
    with subprocess.Popen([*command, f"{INSIDE}={lease['id']}"]) as entering:
        until(lambda: leased_processes(lease["id"], INSIDE))
        assert [pid for pid, _ in leased_processes(lease["id"], INSIDE, PAUSING)] == [entering.pid]
        assert leased_processes(lease["id"], PAUSING) == []
        entering.kill()


@pytest.mark.parametrize("arguments", [["enter"], ["enter", "--lease", "A=b"], ["else"], []])
def test_what_the_program_does_not_understand(window: Window, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        window_module.main([*arguments, "--home", window.home] if arguments else [])
    assert raised.value.code == 2


# The LLM


def test_a_start_that_fails_is_tried_again(window: Window, service: Service, keep: Keep) -> None:
    service.set("fail_starts", "3")
    arm(window, service)
    window.release("ann@desk")
    assert keep().result(10) == 0
    last = window.last()
    assert (last["attempts"], len(service.starts)) == (4, 4)
    assert events(last) == ["keeper", "released", "start_failed", "started", "answered", "closed"]
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
    assert "timed out" in detail(window.last(), "start_failed")
    assert (window.last()["attempts"], service.running) == (1, True)


def test_a_start_command_that_hangs(
    window: Window, service: Service, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "COMMAND_S", 0.2)
    arm(window, service, resume_command=["sleep", "60"])
    window.release("ann@desk")
    keeper = keep()
    until(lambda: window.keeper().get("attempts", 0) > 1)
    assert "timed out after 0.2" in detail(window.keeper(), "start_failed")
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


# The disk


def fill(directory: Path, pages: int = 0) -> None:
    """Fill a disk up to so many pages."""
    if pages:
        (directory / "kept").write_bytes(bytes(4096 * pages))
    with (directory / "full").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    (directory / "kept").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path, quick: None) -> Iterator[Path]:
    """A disk of 32 pages and 15 files."""
    path = tmp_path / "disk"
    path.mkdir()
    options = "size=128k,nr_inodes=15,mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root may mount")
    yield path
    end_all(str(tmp_path))
    subprocess.run(["umount", "--lazy", str(path)], check=True)


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
    for number in range(11):
        (disk / str(number)).touch()
    with pytest.raises(OSError, match="No space left"):
        arm(window, None)
    assert window.look()["state"] == "none"
    assert {path.name for path in (disk / "window").iterdir()} <= {"lock"}


def test_a_keeper_without_room_for_its_record_does_not_count(disk: Path, service: Service) -> None:
    window = Window(str(disk / "window"))
    lease = arm(window, service)
    fill(disk, 3)  # it would take four
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
    assert events(window.last()) == [
        "keeper",
        "released",
        "start_failed",
        "started",
        "answered",
        "closed",
    ]
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


def test_the_program_does_nothing_with_a_lease_that_cannot_be_read(
    window: Window, service: Service, home: Path
) -> None:
    lease = arm(window, service)
    text = (home / "lease.json").read_text()
    cut, nothing = text[: len(text) // 2], json.dumps(lease | {"service": None})
    for damage, what in ((cut, "keep"), (nothing, "keep"), (cut, "status"), (cut, "restore")):
        (home / "lease.json").write_text(damage)
        asked = program(home, what)
        output, errors = asked.communicate(timeout=10)
        assert (asked.returncode, output) == (1, "")
        assert errors.startswith(f"window.py: the lease {home}/lease.json cannot be read")
        assert errors.endswith(f"rm {home}/lease.json\n")
    assert service.log == []


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
def test_the_keepers_record_always_fits(window: Window, home: Path, text: str) -> None:
    lease = window.arm(RUN, text, 60, {"running": True})
    keeper = keeper_module.Keeper(window, lease, io.StringIO())
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


def test_a_record_that_does_not_fit_leaves_what_was_there(window: Window, home: Path) -> None:
    home.mkdir()
    window.overwrite("x.json", {"a": 1}, 64)
    with pytest.raises(ValueError, match=r"x\.json: 10[0-9] bytes, at most 64 are kept"):
        window.overwrite("x.json", {"a": "b" * 90}, 64)
    assert json.loads((home / "x.json").read_text()) == {"a": 1}
    assert (home / "x.json").stat().st_size == 64


# The program, for a person


def test_status_without_a_window(home: Path) -> None:
    asked = program(home, "status")
    first, _, rest = asked.communicate(timeout=10)[0].partition("\n")
    assert (asked.returncode, first) == (0, "no window is open")
    assert json.loads(rest)["state"] == "none"
    assert sorted(path.name for path in home.iterdir()) == sorted(PROGRAM)


def test_status_says_who_has_the_window_and_changes_nothing(
    window: Window, service: Service, home: Path
) -> None:
    lease = arm(window, service)
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    asked = program(home, "status")
    first, _, rest = asked.communicate(timeout=10)[0].partition("\n")
    assert asked.returncode == 0
    assert first.startswith(f"{HOLDER} has the LLM's window for run {RUN}, opened ")
    found = json.loads(rest)
    assert (found["state"], found["lease"], found["alive"]) == ("held", lease, False)
    assert (
        before.items()
        <= {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}.items()
    )


def test_restore_without_a_keeper_is_the_keeper(
    window: Window, service: Service, home: Path
) -> None:
    arm(window, service)
    asked = program(home, "restore")
    output, errors = asked.communicate(timeout=10)
    assert (asked.returncode, errors) == (0, "")
    lines = output.splitlines()
    me = f"{getpass.getuser()} on this host"
    assert "has the LLM's window for run" in lines[0]
    assert lines[3] == f"released: by {me}"
    assert [line.split(":")[0] for line in lines[4:7]] == ["started", "answered", "closed"]
    assert lines[7].startswith(f"The lease was released by {me}, at ")
    assert lines[lines.index("{") - 1] == "no window is open"
    assert service.running
    again = program(home, "restore")
    assert again.communicate(timeout=10)[0].startswith("no window is open\n{")
    assert again.returncode == 0


def test_restore_beside_a_keeper_waits_for_it(
    window: Window, service: Service, keep: Keep, home: Path
) -> None:
    arm(window, service)
    keeper = keep()
    watched(window)
    asked = program(home, "restore")
    output, _ = asked.communicate(timeout=10)
    assert asked.returncode == 0
    assert output.splitlines()[2].startswith("The lease was released by")
    assert output.splitlines()[3] == "no window is open"
    assert keeper.result(10) == 0
    assert window.last()["by"] == f"{getpass.getuser()} on this host"
    assert len(service.starts) == 1


def test_the_programs_own_times_are_those_of_the_module() -> None:
    text = (SOURCE / "keeper.py").read_text()
    assert [name for name in QUICK if name not in text] == []


# Small things


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (45, "45 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (12 * 60 + 20, "12 min"),
        (119 * 60, "119 min"),
        (2 * 3600, "2 h 0 min"),
        (3 * 3600 + 300, "3 h 5 min"),
        (26 * 3600, "26 h 0 min"),
    ],
)
def test_a_duration_for_a_person(seconds: float, said: str) -> None:
    assert clock.lasting(seconds) == said


def test_what_a_command_said_whatever_went_wrong(tmp_path: Path) -> None:
    both = keeper_module.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (both.returncode, both.stdout) == (3, "out\nerr\n")
    assert "No such file" in keeper_module.run([str(tmp_path / "none")]).stdout
    assert keeper_module.run([str(tmp_path)]).returncode == 127
    assert keeper_module.run(["echo", "~/x"]).stdout == f"{Path.home()}/x\n"
    assert keeper_module.run(["printf", r"\377"]).stdout == "\ufffd"


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
