"""The program on the LLM's host, and what a person reads from it."""

from __future__ import annotations

import getpass
import json
import os
import signal
from pathlib import Path

import pytest
from ansible.module_utils.understudy import clock
from ansible.module_utils.understudy import window as window_module
from ansible.module_utils.understudy.keeper import INSIDE, PAUSING
from ansible.module_utils.understudy.lease import Window
from llm_service import HOLDER, PROGRAM, RUN, Service
from llm_window import Keep, arm, change, inside, program, watched

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("arguments", [["enter"], ["enter", "--lease", "A=b"], ["else"], []])
def test_what_the_program_does_not_understand(window: Window, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        window_module.main([*arguments, "--home", window.home] if arguments else [])
    assert raised.value.code == 2


def test_the_program_after_a_boot(window: Window, service: Service, home: Path) -> None:
    arm(window, service)
    assert clock.boot_id() == clock.boot_id()
    change(home, "lease.json", boot=f"{clock.boot_id()}0", opened=1e9)
    keeper = program(home, "keep")
    output, errors = keeper.communicate(timeout=10)
    assert (keeper.returncode, errors) == (0, "")
    assert output.splitlines()[1] == "rebooted"
    assert (window.lease(), window.last()["reason"], service.running) == (None, "rebooted", True)


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


# Entering


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


# For a person


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


#: What a login may do and the keeper may not, as with a group that its user manager lacks.
ONLY_HERE = 'test -z "$LACKS" || { echo permission denied; exit 1; }; '


def apart(service: Service) -> dict[str, list[str]]:
    """The service's commands, which work in no process that has LACKS in its environment."""
    made = {}
    for name, what in (("state_command", "state"), ("resume_command", "start")):
        words = service.command(what)
        made[name] = ["sh", "-c", f'{ONLY_HERE}exec "$@"', "sh", *words]
    return made


def test_restore_starts_the_llm_where_the_keeper_cannot(
    window: Window, service: Service, home: Path
) -> None:
    arm(window, service, **apart(service))
    keeper = program(home, "keep", env=os.environ | {"LACKS": "docker"})
    watched(window)
    asked = program(home, "restore")
    output, errors = asked.communicate(timeout=20)
    assert (asked.returncode, errors) == (0, "")
    why = "(sh ended with status 1: permission denied)"
    assert f"could not start the LLM {why}, so it was started from this session" in output
    me = f"{getpass.getuser()} on this host"
    assert f"The LLM was started by {me}, as the keeper could not {why}" in output
    assert keeper.wait(10) == 0
    assert len(service.starts) == 1
    assert window.last()["started_by"] == me


def test_restore_does_not_hang_where_nobody_can(
    window: Window, service: Service, home: Path
) -> None:
    denied = ["sh", "-c", "echo permission denied; exit 1"]
    for kept in (True, False):
        arm(window, service, ready_timeout_s=1, resume_command=denied)
        keeper = program(home, "keep") if kept else None
        if keeper:
            watched(window)
        asked = program(home, "restore")
        output, errors = asked.communicate(timeout=20)
        assert asked.returncode == 1
        assert "the LLM is not back after " in errors
        assert errors.rstrip().endswith("the window ends when the LLM answers")
        assert ("from this session sh -c" in output) is kept
        service.do("start")  # by hand: whoever starts it, that ends the window
        assert (keeper or program(home, "restore")).wait(10) == 0
        assert window.lease() is None
        service.do("stop")


def test_restore_takes_the_place_of_a_keeper_that_hangs(
    window: Window, service: Service, home: Path
) -> None:
    arm(window, service)
    keeper = program(home, "keep")
    watched(window)
    keeper.send_signal(signal.SIGSTOP)
    asked = program(home, "restore")
    output, _ = asked.communicate(timeout=20)
    assert asked.returncode == 0, output
    assert "The LLM was started (1x) and answered" in output
    assert (window.lease(), service.running) == (None, True)
    keeper.send_signal(signal.SIGCONT)
    assert keeper.wait(10) == 0
    assert len(service.starts) == 1
