"""The module that arms, renews and ends a lease, and the action that shows what happens meanwhile.

The LLM's service and the keeper are the programs of llm_service.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible.module_utils.testing import patch_module_args
from ansible.module_utils.understudy import keeper as keeper_module
from ansible.module_utils.understudy import lease as leases
from llm_service import (
    AFTER_FAILED_STARTS,
    HOLDER,
    MARK,
    PROGRAM,
    QUICK,
    RUN,
    SOURCE,
    Service,
    end_all,
    events,
    install,
)
from loopback import free_port
from waiting import until

ROOT = Path(__file__).resolve().parents[3]
SELF = "the run itself"


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.replace("/", "_")[:-3], ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name, value in QUICK.items():
        monkeypatch.setattr(keeper_module, name, value)
    monkeypatch.setenv(MARK, str(tmp_path))
    yield
    end_all(str(tmp_path))


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load("library/llm_lease.py")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "window"
    install(path)
    return path


@pytest.fixture
def window(home: Path) -> leases.Window:
    return leases.Window(str(home))


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "service")


Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(
    module: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    home: Path,
) -> Call:
    """Run the module with the given options and return its result."""
    hasty = SimpleNamespace(monotonic=time.monotonic, sleep=lambda s: time.sleep(s / 10))
    monkeypatch.setattr(module, "time", hasty)
    (tmp_path / "remote").mkdir()
    internal = {"_ansible_remote_tmp": str(tmp_path / "remote")}

    def run(state: str | None = None, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {"home": str(home), "keeper_command": keeper_command(home), **options}
        given |= {"state": state} if state else {}
        internal["_ansible_check_mode"] = check
        with patch_module_args({**given, **internal}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def impatient(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that does not appear is not waited for."""
    monkeypatch.setattr(module, "KEEPER_S", 0.2)


def keeper_command(home: Path) -> list[str]:
    """What starts the keeper and does not wait for it, as a service manager does."""
    return ["sh", "-c", f"{sys.executable} -S {home}/window.py keep >/dev/null 2>&1 &"]


def armed(llm: Service, **changes: Any) -> dict[str, Any]:
    return {"run_id": RUN, "holder": HOLDER, "ttl_s": 60, "service": llm.described()} | changes


def keepers(home: Path) -> list[int]:
    """Pids of the programs that keep this window."""
    command = [str(home / "window.py"), "keep"]
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[-3:-1] == command and entry.name.isdigit():
            found.append(int(entry.name))
    return found


def kill(home: Path) -> None:
    """Kill the keepers. The kernel empties a dying process's command line before its locks go."""
    for pid in keepers(home):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not keepers(home) and not leases.Window(str(home)).look()["alive"])


def left(home: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}


# Installing


def test_installed_brings_what_the_keeper_consists_of(call: Call, tmp_path: Path) -> None:
    home = tmp_path / "new/window"
    assert call("installed", home=str(home), check=True)["changed"] is True
    assert not home.exists()
    assert call("installed", home=str(home))["changed"] is True
    assert left(home) == {name: (SOURCE / name).read_bytes() for name in PROGRAM}
    assert home.stat().st_mode & 0o777 == 0o700
    assert call("installed", home=str(home))["changed"] is False
    (home / "lease.py").write_text("an older version\n")
    (home / "keeper.json").write_text("{}\n")
    assert call("installed", home=str(home))["changed"] is True
    assert left(home) == {name: (SOURCE / name).read_bytes() for name in PROGRAM} | {
        "keeper.json": b"{}\n"
    }


# Arming


def test_armed_means_that_a_keeper_watches(call: Call, home: Path, service: Service) -> None:
    words = service.described(running="yes", ready_timeout_s="30")  # as -e gives them
    result = call("armed", **armed(service, ttl_s="60", service=words))
    assert result["changed"] is True
    found = result["window"]
    assert (found["state"], found["alive"]) == ("held", True)
    left_out = {"identity_command": [], "api_key_file": "", "paused": False}
    assert found["lease"]["service"] == service.described(ready_timeout_s=30.0) | left_out
    assert (found["lease"]["ttl_s"], found["lease"]["holder"]) == (60, HOLDER)
    assert isinstance(found["lingering"], bool)
    assert found["user"]
    assert result["report"]["id"] == found["lease"]["id"]
    assert result["said"].startswith(f"{HOLDER} has the LLM's window for run {RUN}, opened ")
    assert keepers(home)


def test_armed_where_there_is_a_window(call: Call, home: Path, service: Service) -> None:
    lease = call("armed", **armed(service))["window"]["lease"]
    again = call("armed", **armed(service, holder="you@elsewhere"))
    assert (again["failed"], again["held"]) == (True, True)
    assert again["msg"].startswith(f"{HOLDER} has the LLM's window for run {RUN}, opened ")
    assert leases.Window(str(home)).lease() == lease


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        (["sh", "-c", "echo Unit keeper.service not found.; exit 5"], "Unit keeper.service not"),
        (["true"], "no keeper appeared"),
        (["a-command-that-is-not-there", "now"], "No such file or directory"),
    ],
)
def test_without_a_keeper_nothing_is_armed(
    call: Call, home: Path, service: Service, impatient: None, command: list[str], seen: str
) -> None:
    result = call("armed", **armed(service), keeper_command=command)
    assert (result["failed"], result["held"]) == (True, False)
    assert result["msg"].startswith("no keeper watches the lease, so the LLM was not touched: ")
    assert seen in result["msg"]
    assert result["msg"].endswith(f"Next: {' '.join(command)}")
    assert sorted(left(home)) == sorted([*PROGRAM, "lock"])
    assert service.log == []


#: What a login may do and a keeper with this in its environment may not.
LACKS = {"LACKS": "docker"}


def apart(service: Service) -> dict[str, Any]:
    """The service, whose commands work in no process that has LACKS in its environment."""
    only = 'test -z "$LACKS" || { echo permission denied; exit 1; }; exec "$@"'
    return service.described(
        state_command=["sh", "-c", only, "sh", *service.command("state")],
        resume_command=["sh", "-c", only, "sh", *service.command("start")],
    )


def lacking_keeper(home: Path) -> list[str]:
    return ["env", "LACKS=docker", *keeper_command(home)]


def test_a_keeper_that_sees_less_than_this_login_is_refused(
    call: Call, home: Path, window: leases.Window, service: Service
) -> None:
    service.do("start")
    result = call(
        "armed", **armed(service, service=apart(service)), keeper_command=lacking_keeper(home)
    )
    assert result["failed"] is True
    assert result["msg"].startswith(
        "the LLM was not touched: the keeper does not see the LLM run: to it, "
    )
    assert "says 'permission denied', to this login 'running'" in result["msg"]
    assert "Next" in result["msg"]
    assert window.lease() is None
    assert (service.running, len(service.starts)) == (True, 1)
    until(lambda: not keepers(home))


def test_a_variable_that_only_the_login_has_is_named(
    call: Call, home: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/user/1000/docker.sock")
    needs = ["sh", "-c", 'test -n "$DOCKER_HOST" && echo running || echo Cannot connect']
    words = service.described(state_command=needs)
    unaware = ["env", "-u", "DOCKER_HOST", *keeper_command(home)]
    result = call("armed", **armed(service, service=words), keeper_command=unaware)
    assert result["failed"] is True
    assert "to it, sh -c" in result["msg"]
    assert "says 'Cannot connect'" in result["msg"]
    assert '["env", "DOCKER_HOST=unix:///run/user/1000/docker.sock", "sh", ' in result["msg"]
    assert "~/.config/environment.d" in result["msg"]


@pytest.mark.parametrize(
    ("command", "seen", "following"),
    [
        ("docker start gemma", "is text ('docker start gemma')", '["docker", "start", "gemma"]'),
        (["echo", "$GEMMA"], "'$GEMMA', which no shell expands", "write the value"),
        (["no-such-program", "up"], "no-such-program is not found", "whole path"),
    ],
)
def test_a_start_command_that_the_keeper_cannot_run_is_refused(
    call: Call, home: Path, service: Service, command: Any, seen: str, following: str
) -> None:
    service.do("start")
    words = service.described(resume_command=command)
    result = call("armed", **armed(service, service=words))
    assert result["failed"] is True
    assert seen in result["msg"]
    assert following in result["msg"].partition("Next: ")[2]
    assert service.running
    assert sorted(left(home)) == sorted([*PROGRAM, "keeper.json", "keeping", "lock"])


def test_without_lingering_nothing_is_armed(
    call: Call, module: ModuleType, home: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "lingering", lambda: False)
    result = call("armed", **armed(service, lingers=True))
    assert result["failed"] is True
    assert "Next: sudo loginctl enable-linger" in result["msg"]
    assert sorted(left(home)) == sorted(PROGRAM)
    assert call("armed", **armed(service))["window"]["alive"]  # not a service of systemd


@pytest.mark.parametrize(
    ("says", "status", "lingers"),
    [("Linger=yes", 0, True), ("Linger=no", 0, False), ("?", 1, False)],
)
def test_lingering_is_what_logind_says(
    module: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    says: str,
    status: int,
    lingers: bool,
) -> None:
    loginctl = tmp_path / "loginctl"
    loginctl.write_text(f"#!/bin/sh\necho {says}\nexit {status}\n")
    loginctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(module.getpass, "getuser", lambda: "nobody-of-this-name")
    assert module.lingering() is lingers


def test_a_directory_that_cannot_be_written(call: Call, service: Service, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = call("armed", **armed(service), home=str(tmp_path / "file/window"))
    assert result["failed"] is True
    assert f"{tmp_path}/file/window" in result["msg"]


# Renewing


def test_renewed_gives_the_lease_its_time_again(call: Call, home: Path, service: Service) -> None:
    lease = call("armed", **armed(service))["window"]["lease"]
    before = leases.Window(str(home)).deadline(lease)[0]
    result = call("renewed", lease=lease["id"])
    assert result["changed"] is False
    assert (result["window"]["state"], result["window"]["alive"]) == ("held", True)
    assert leases.Window(str(home)).deadline(lease)[0] > before
    assert events(result["report"]) == ["keeper"]


def test_renewed_starts_a_keeper_that_died(
    call: Call, home: Path, window: leases.Window, service: Service
) -> None:
    lease = call("armed", **armed(service))["window"]["lease"]
    kill(home)
    assert call("seen")["window"]["alive"] is False
    result = call("renewed", lease=lease["id"])
    assert result["window"]["alive"] is True
    until(lambda: events(window.keeper()) == ["keeper", "keeper"])


def test_renewed_starts_a_keeper_by_hand_where_its_service_cannot(
    call: Call, home: Path, window: leases.Window, service: Service
) -> None:
    lease = window.arm(RUN, HOLDER, 60, service.described())
    result = call("renewed", lease=lease["id"], keeper_command=["sh", "-c", "echo no; exit 1"])
    assert not result.get("failed")
    until(lambda: window.kept(lease))
    assert len(keepers(home)) == 1
    window.release(HOLDER)
    until(lambda: window.lease() is None)


def test_renewed_fails_after_the_end(call: Call, service: Service) -> None:
    lease = call("armed", **armed(service))["window"]["lease"]
    assert call("closed", holder="ann@desk")["window"]["state"] == "none"
    result = call("renewed", lease=lease["id"])
    assert (result["failed"], result["held"]) == (True, False)
    assert "is gone: it was released by ann@desk, at " in result["msg"]


# Ending


def test_answered_does_not_wait_for_the_llm_to_stay(
    call: Call, home: Path, service: Service
) -> None:
    lease = call("armed", **armed(service, service=service.described(stay_s=60)))["window"]["lease"]
    result = call("answered", lease=lease["id"], holder=SELF)
    assert result["changed"] is True
    assert (result["window"]["state"], result["report"]["phase"]) == ("ending", "answered")
    assert (result["report"]["reason"], result["report"]["by"]) == ("released", SELF)
    assert result["said"].endswith(result["story"])
    assert "The LLM was started (1x) and answered " in result["said"]
    [row] = result["busy"]
    assert row["what"] == "model_load"
    assert row["end"] - row["start"] == pytest.approx(result["report"]["back_after_s"])
    assert abs(time.time() - row["end"]) < 30
    assert result["said"].endswith("The keeper is seeing it stay up.")
    assert service.running


@pytest.mark.parametrize("answered_at", [None, "soon", 7])
def test_a_damaged_record_has_no_time_of_loading(
    call: Call, home: Path, answered_at: object
) -> None:
    record = {"run_id": RUN, "attempts": 1, "answered_at": answered_at, "back_after_s": 4.5}
    (home / "last.json").write_text(json.dumps(record))
    assert call("seen")["busy"] == []


def test_closed_waits_until_the_lease_is_gone(call: Call, home: Path, service: Service) -> None:
    lease = call("armed", **armed(service))["window"]["lease"]
    result = call("closed", lease=lease["id"], holder=SELF)
    assert result["changed"] is True
    assert (result["window"]["state"], result["window"]["lease"]) == ("none", None)
    assert (result["report"]["id"], result["report"]["phase"]) == (lease["id"], "closed")
    assert result["said"].startswith(f"The lease was released by {SELF}, at ")
    assert service.running

    for options in ({"lease": lease["id"]}, {}, {"run_id": RUN}):
        again = call("closed", **options)
        assert (again["changed"], again["said"]) == (False, "No window was open.")
        assert again["report"]["id"] == lease["id"]


def test_closed_takes_any_window_and_names_the_hand(call: Call, service: Service) -> None:
    call("armed", **armed(service))
    result = call("closed", holder="restore.yml, ann@desk")
    assert (result["changed"], result["report"]["by"]) == (True, "restore.yml, ann@desk")


@pytest.mark.parametrize("meant", [{"lease": "0" * 32}, {"run_id": "20261122-040000Z"}])
def test_the_window_of_another_is_left_alone(
    call: Call, home: Path, service: Service, meant: dict[str, str]
) -> None:
    lease = call("armed", **armed(service))["window"]["lease"]
    before = left(home)
    for state in ("answered", "closed"):
        result = call(state, holder=SELF, **meant)
        assert (result["changed"], result["report"]) == (False, None)
        assert result["window"]["lease"] == lease
    assert left(home) == before


@pytest.mark.parametrize(("state", "command"), [("answered", ["false"]), ("closed", [])])
def test_without_a_service_manager_the_keeper_is_started_by_hand(
    call: Call,
    home: Path,
    window: leases.Window,
    service: Service,
    impatient: None,
    state: str,
    command: list[str],
) -> None:
    lease = window.arm(RUN, HOLDER, 60, service.described())
    result = call(state, lease=lease["id"], holder=SELF, keeper_command=command, wait_s=20)
    assert result["changed"] is True
    assert result["report"]["phase"] in ("answered", "closed")
    assert service.running
    until(lambda: window.lease() is None)
    assert len(service.starts) == 1
    until(lambda: not keepers(home))


def test_the_session_starts_the_llm_where_the_keeper_cannot(
    call: Call, home: Path, window: leases.Window, service: Service
) -> None:
    window.arm(RUN, HOLDER, 60, apart(service))
    result = call(
        "closed",
        holder="restore.yml, ann@desk",
        keeper_command=lacking_keeper(home),
        service=service.described(),  # the inventory's, which may have been corrected meanwhile
        wait_s=20,
    )
    assert (result["changed"], result["window"]["state"]) == (True, "none")
    assert "so it was started from this session: " in result["helped"]
    by = "restore.yml, ann@desk, from a session of its own"
    assert window.last()["started_by"] == by
    assert (
        f"started by {by}, as the keeper could not (sh ended with status 1: permission denied)"
        in result["said"]
    )
    assert len(service.starts) == 1


def test_a_session_that_cannot_start_it_either_says_so(
    call: Call, window: leases.Window, home: Path, service: Service
) -> None:
    window.arm(RUN, HOLDER, 60, apart(service))
    broken = service.described(resume_command=["sh", "-c", "echo no such container; exit 1"])
    result = call(
        "closed", keeper_command=lacking_keeper(home), service=broken, wait_s=2, holder=SELF
    )
    assert result["window"]["state"] == "ending"
    assert "failed, too: " in result["said"]
    assert "no such container" in result["said"]


def test_an_llm_that_does_not_answer_is_told(
    call: Call, window: leases.Window, service: Service
) -> None:
    service.set("silent")
    words = service.described(ready_timeout_s=0.1)
    call("armed", **armed(service, service=words))
    call("closed", holder=SELF, wait_s=0)
    until(lambda: window.keeper()["phase"] == "silent")
    result = call("closed", wait_s=0.1)
    assert result["changed"] is True
    assert (result["window"]["state"], result["window"]["alive"]) == ("ending", True)
    assert result["report"]["phase"] == "silent"
    assert "The LLM does not answer: http://127.0.0.1:" in result["said"]
    service.unset("silent")
    assert call("settled")["report"]["phase"] == "closed"


def test_settled_leaves_a_window_that_is_held(call: Call, home: Path, service: Service) -> None:
    call("armed", **armed(service))
    kill(home)
    before = left(home)
    result = call("settled")
    assert (result["changed"], result["window"]["state"]) == (False, "held")
    assert left(home) == before
    assert keepers(home) == []


@pytest.mark.parametrize("end", ["expired", "rebooted"])
def test_settled_finishes_a_window_that_has_ended(
    call: Call, home: Path, window: leases.Window, service: Service, end: str
) -> None:
    lease = window.arm(RUN, HOLDER, 0.05 if end == "expired" else 60, service.described())
    if end == "rebooted":
        (home / "lease.json").write_text(json.dumps(lease | {"boot": "another"}))
    time.sleep(0.06)
    result = call("settled")
    assert (result["changed"], result["window"]["state"]) == (True, "none")
    assert (result["report"]["reason"], result["report"]["phase"]) == (end, "closed")
    assert service.running


def test_settled_without_a_window(call: Call, home: Path) -> None:
    before = left(home)
    result = call("settled")
    assert (result["changed"], result["window"]["state"], result["report"]) == (False, "none", None)
    assert result["said"] == "No window was open."
    assert left(home) == before


# What changes nothing


def test_looking(call: Call, home: Path, service: Service) -> None:
    before = left(home)
    assert call()["window"]["state"] == "none"
    assert left(home) == before
    lease = call("armed", **armed(service))["window"]["lease"]
    before = left(home)
    result = call("seen", lease=lease["id"])
    assert (result["changed"], result["window"]["alive"]) == (False, True)
    assert result["report"]["phase"] == "watching"
    assert result["story"] == "The lease has not ended."
    assert left(home) == before


@pytest.mark.parametrize("open_", [True, False])
def test_in_check_mode_it_only_looks(
    call: Call, home: Path, window: leases.Window, service: Service, open_: bool
) -> None:
    lease = window.arm(RUN, HOLDER, 60, service.described()) if open_ else {"id": "5"}
    before = left(home)
    for state in ("seen", "settled", "renewed", "answered", "closed", "armed"):
        result = call(state, check=True, **armed(service), lease=lease["id"])
        assert result["changed"] is False
        assert result["window"]["state"] == ("held" if open_ else "none")
        assert left(home) == before
    assert keepers(home) == []
    assert service.log == []


def test_a_lease_that_cannot_be_read(call: Call, home: Path, service: Service) -> None:
    path = home / "lease.json"
    path.write_text("{")
    before = left(home)
    for state in ("seen", "settled", "renewed", "answered", "closed", "armed"):
        result = call(state, **armed(service), lease="5")
        assert (result["failed"], result["held"]) == (True, False)
        assert result["msg"].endswith(f"Next: see that the LLM runs, then rm {path}")
    assert {name: text for name, text in left(home).items() if name != "lock"} == before


@pytest.mark.parametrize("damage", ["{", "[1]", '{"phase": "closed"}', '{"id": 7, "events": 7}'])
def test_a_last_record_that_is_damaged(
    call: Call, home: Path, window: leases.Window, service: Service, damage: str
) -> None:
    (home / "last.json").write_text(damage)
    assert call("closed")["said"] == "No window was open."
    window.arm(RUN, HOLDER, 60, service.described())
    assert call("seen")["said"].startswith(HOLDER)


BAD = [
    ({"state": "opened"}, "value of state must be one of: seen, settled, installed, armed"),
    ({"state": "armed"}, "state is armed but all of the following are missing: run_id, holder, "),
    ({"state": "renewed"}, "state is renewed but all of the following are missing: lease"),
    ({"state": "seen", "ttl_s": "long"}, "'ttl_s' is of type str and we were unable to convert"),
    ({"state": "seen", "homes": "x"}, "Unsupported parameters"),
]


@pytest.mark.parametrize(("options", "seen"), BAD)
def test_parameters_that_make_no_sense(call: Call, options: dict[str, Any], seen: str) -> None:
    result = call(**options)
    assert result["failed"] is True
    assert seen in result["msg"]


@pytest.mark.parametrize(
    ("key", "value", "seen"),
    [
        ("running", "perhaps", "unable to convert to bool"),
        ("ready_timeout_s", "soon", "unable to convert to float"),
        ("resume_command", None, "missing required arguments: resume_command found in service"),
        ("url", None, "missing required arguments: url found in service"),
        ("color", "blue", "Unsupported parameters"),
    ],
)
def test_a_service_that_the_keeper_could_not_start_is_refused(
    call: Call, home: Path, service: Service, key: str, value: str | None, seen: str
) -> None:
    words = service.described(**{key: value})
    if value is None:
        del words[key]
    before = left(home)
    result = call("armed", **armed(service, service=words))
    assert result["failed"] is True
    assert seen in result["msg"]
    assert left(home) == before


# The action


class Shown:
    """Ansible's display, written down."""

    lines: list[str]
    warnings: list[str]

    def display(self, line: str) -> None:
        self.lines.append(line)

    def warning(self, line: str) -> None:
        self.warnings.append(line)


class Act:
    """The action with the module behind it, and a connection that can be lost."""

    def __init__(self, action: ModuleType, call: Call) -> None:
        self.action, self.call = action, call
        self.asked: list[dict[str, Any]] = []
        self.lost: dict[int, int] = {}  #: which calls find no host, and how often
        self.resets = 0

    def __call__(self, check: bool = False, **args: Any) -> dict[str, Any]:
        task = SimpleNamespace(args=args, check_mode=check, async_val=0, diff=False)
        connection = SimpleNamespace(reset=self._reset, _shell=SimpleNamespace(tmpdir=None))
        act = self.action.ActionModule(task, connection, None, None, None, None)
        act._execute_module = lambda **given: self._execute(check, **given)
        result: dict[str, Any] = act.run(task_vars={"inventory_hostname": "titan"})
        return result

    def _reset(self) -> None:
        self.resets += 1

    def _execute(self, check: bool, module_name: str, module_args: Any, task_vars: Any) -> Any:
        assert module_name == "llm_lease"
        left = self.lost.get(len(self.asked), 0)
        if left:
            self.lost[len(self.asked)] = left - 1
            raise AnsibleConnectionFailure("Connection timed out")
        self.asked.append(module_args)
        return self.call(check=check, **module_args)


@pytest.fixture
def act(call: Call, monkeypatch: pytest.MonkeyPatch) -> Act:
    action = load("action_plugins/llm_lease.py")
    monkeypatch.setattr(action, "CALL_S", 0.2)
    monkeypatch.setattr(action, "TRY_S", 0.05)
    monkeypatch.setattr(action, "Display", Shown)
    monkeypatch.setattr(Shown, "lines", [], raising=False)
    monkeypatch.setattr(Shown, "warnings", [], raising=False)
    return Act(action, call)


def as_shown(report: dict[str, Any]) -> list[str]:
    return [
        f"    {row['at'][11:19]} {row['event']}{': ' + row['detail'] if row['detail'] else ''}"
        for row in report["events"]
    ]


def test_every_event_is_shown_once_and_when_it_comes(
    act: Act, window: leases.Window, service: Service
) -> None:
    service.set("fail_starts", "5")
    lease = act(state="armed", **armed(service))["window"]["lease"]
    assert Shown.lines == []
    result = act(state="closed", lease=lease["id"], holder=SELF, wait_s=20)
    assert (result["changed"], result["window"]["state"]) == (True, "none")
    assert len(act.asked) > 3
    assert {args.get("wait_s") for args in act.asked[1:]} == {0.2}
    assert Shown.lines == as_shown(window.last())
    assert [line.split()[1].rstrip(":") for line in Shown.lines] == AFTER_FAILED_STARTS


def test_after_its_time_it_tells_what_was_seen(
    act: Act, window: leases.Window, service: Service
) -> None:
    service.set("silent")
    act(state="armed", **armed(service))
    act(state="closed", wait_s=0)
    until(lambda: window.keeper()["seen"])
    began = time.monotonic()
    result = act(state="answered", wait_s=0.3)
    assert 0.3 <= time.monotonic() - began < 4
    assert (result["changed"], result["window"]["state"]) == (True, "ending")
    assert "503" in result["report"]["seen"]


def test_settled_does_not_wait_for_an_llm_that_is_silent(
    act: Act, window: leases.Window, service: Service
) -> None:
    service.set("silent")
    act(state="armed", **armed(service, service=service.described(ready_timeout_s=0.1)))
    assert act(state="settled")["window"]["state"] == "held"
    act(state="closed", wait_s=0)
    until(lambda: window.keeper()["phase"] == "silent")
    began = time.monotonic()
    result = act(state="settled", wait_s=60)
    assert time.monotonic() - began < 5
    assert result["report"]["phase"] == "silent"


def test_in_check_mode_the_action_returns_at_once(act: Act, service: Service) -> None:
    act(state="armed", **armed(service))
    for state in ("settled", "answered", "closed"):
        act.asked.clear()
        assert act(check=True, state=state, wait_s=60)["window"]["state"] == "held"
        assert len(act.asked) == 1
    assert Shown.lines == []


def test_a_window_that_is_closed_between_two_calls_is_still_told(
    act: Act, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    act(state="armed", **armed(service))
    monkeypatch.setattr(act.action, "CALL_S", 0)  # no call waits, so none sees the end itself
    result = act(state="closed", holder="restore.yml, ann@desk", wait_s=20)
    assert (result["changed"], result["window"]["state"]) == (True, "none")
    assert "released by restore.yml, ann@desk" in result["said"]
    assert result["said"] == result["story"]


def test_a_connection_that_is_lost_for_a_while(act: Act, service: Service) -> None:
    service.set("fail_starts", "5")
    lease = act(state="armed", **armed(service))["window"]["lease"]
    act.lost = {1: 2, 2: 1}
    result = act(state="closed", holder=SELF, wait_s=20, lost_s=5)
    assert [args.get("lease") for args in act.asked[1:3]] == [None, lease["id"]]
    assert (result["changed"], result["window"]["state"]) == (True, "none")
    assert "unreachable" not in result
    assert act.resets == 3
    assert Shown.warnings == ["titan: Connection timed out; trying again"] * 3
    assert Shown.lines == as_shown(result["report"])


def test_a_play_is_warned_of_an_llm_that_others_started(
    act: Act, window: leases.Window, service: Service
) -> None:
    service.do("start")
    words = service.described(paused=True, identity_command=["cat", f"{service.directory}/pid"])
    lease = act(state="armed", **armed(service, service=words))["window"]["lease"]
    act(state="renewed", lease=lease["id"])
    assert Shown.warnings == []
    service.do("stop")
    service.do("start")
    until(lambda: "started_inside" in events(window.keeper()))
    act(state="renewed", lease=lease["id"])
    [warning] = Shown.warnings
    assert warning.startswith("titan: the LLM was started inside its window at ")
    assert "Next: find what starts it" in warning


@pytest.mark.parametrize(
    ("state", "failed"), [("closed", True), ("answered", True), ("seen", True), ("renewed", False)]
)
def test_a_host_that_does_not_come_back(act: Act, state: str, failed: bool) -> None:
    act.lost = {0: 1000}
    began = time.monotonic()
    result = act(state=state, lease="5", lost_s=0.2)
    assert 0.2 <= time.monotonic() - began < 2
    assert (result["failed"], result["changed"], result["lost"]) == (failed, False, True)
    assert "unreachable" not in result
    assert result["msg"] == (
        "titan cannot be reached (Connection timed out); its own lease brings the LLM back. "
        "Next, when it is back: ansible-playbook restore.yml"
    )


@pytest.mark.parametrize("state", ["installed", "armed"])
def test_nothing_is_begun_on_a_host_that_is_lost(act: Act, service: Service, state: str) -> None:
    """There is no lease yet that would bring the LLM back."""
    act.lost = {0: 1000}
    with pytest.raises(AnsibleConnectionFailure):
        act(state=state, **armed(service), lost_s=5)
    assert act.resets == 0


def test_what_the_module_refuses_is_not_tried_again(act: Act, service: Service) -> None:
    for state in ("closed", "renewed", "armed"):
        act.asked.clear()
        assert act(state=state, ttl_s="long", lease="5")["failed"] is True
        assert len(act.asked) == 1


def test_in_a_play(home: Path, window: leases.Window, service: Service, tmp_path: Path) -> None:
    """Over real connections: one that works, and one to a port on which nobody listens."""
    hosts = {
        "titan": {"ansible_connection": "local"},
        "away": {"ansible_host": "127.0.0.1", "ansible_port": free_port()},
    }
    named = {"home": str(home), "keeper_command": keeper_command(home)}
    mine = {"lease": "{{ armed.window.lease.id }}"}
    titan = [
        {"llm_lease": named | {"state": "armed"} | armed(service), "register": "armed"},
        {"llm_lease": named | {"state": "closed", "wait_s": 30, "holder": "me"} | mine},
    ]
    lost = [
        {"llm_lease": {"home": str(home), "state": "renewed", "lease": "5", "lost_s": 0}},
        {"llm_lease": {"home": str(home), "state": "closed", "lost_s": 0}, "ignore_errors": True},
        {"llm_lease": named | {"state": "armed"} | armed(service)},
    ]
    plays = [
        {"hosts": host, "gather_facts": False, "tasks": tasks}
        for host, tasks in (("titan", titan), ("away", lost))
    ]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(plays))
    variables = {"ansible_python_interpreter": sys.executable}
    inventory = {"all": {"hosts": hosts, "vars": variables}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    played = subprocess.run(
        ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml")],
        cwd=ROOT,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ
        | {
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_STDOUT_CALLBACK": "default",
            "ANSIBLE_SSH_RETRIES": "0",
            "ANSIBLE_SSH_ARGS": "-F none -o ControlMaster=no",
        },
    )
    assert played.returncode == 4, played.stdout[-3000:]
    recap = {
        line.split()[0]: dict(word.split("=") for word in line.split()[2:])
        for line in played.stdout.splitlines()
        if ": ok=" in line
    }
    assert (recap["titan"]["ok"], recap["titan"]["changed"]) == ("2", "2"), played.stdout
    # It was called lost, the play went on, and only what was still to be armed was not.
    assert (recap["away"]["ok"], recap["away"]["ignored"]) == ("2", "1"), played.stdout
    assert recap["away"]["unreachable"] == "1"
    assert "its own lease brings the LLM back" in " ".join(played.stdout.split())
    told = as_shown(window.last())
    assert len(told) == 5
    assert [line for line in played.stdout.splitlines() if line in told] == told
    assert service.running
