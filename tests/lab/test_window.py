"""Gemma comes back: on real systemd, sshd and Docker, whatever happens to whom.

Every test ends with the same question (`comes_back`): does Gemma answer a completion in time, is
the lease gone, is nothing of the benchmark left, and does the verdict say what happened?
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from in_lab import (
    fill_home,
    gemma_state,
    inside,
    lab,
    llm_answers,
    note_time,
    play,
    ssh,
    start_play,
    wait,
)
from played import ROOT, Played

pytestmark = pytest.mark.timeout(900)

#: Long enough for every step between two renewals on two busy cores.
TTL = 30
#: What Gemma needs to start here, and the keeper to see it stay.
START_S = 30
HOME = "/home/op/.local/share/understudy/window"
WINDOW = f"python3 {HOME}/window.py"
OPTIONS = [
    word
    for option in (
        "gemma_mode=pause",
        "llm_window_lost_s=20",
        "llm_window_warmup=0",
        "llm_window_stay_s=3",
        "preflight_llm_requests=5",
        "preflight_llm_warmup=0",
        "tts_bench_timeout_s=200",
        "tts_baseline_total_timeout_s=5",
    )
    for word in ("-e", option)
]
#: The whole bench, and its window alone with nothing before and beside it.
BENCH = ["bench.yml", *OPTIONS, "-e", "llm_window_ttl=300"]
ALONE = ["tests/lab/window.yml", *OPTIONS, "-e", f"llm_window_ttl={TTL}"]
ALONE += ["--limit", "titan,localhost"]
#: Ends the benchmark while it loads: a failure inside the window.
DIES = ["-e", "tts_bench_timeout_s=3"]
#: A `docker stop` that takes long enough to be hit.
SLOW_STOP = [
    "-e",
    "llm_window_stay_s=10",  # what the stop may hit
    "-e",
    json.dumps(
        {"llm_window_pause_command": ["sh", "-c", "sleep 3; docker stop vllm-gemma4; sleep 3"]}
    ),
]
#: How to be in a phase: arguments, the words that announce it, and seconds after them.
PHASES = {
    "pausing": (SLOW_STOP, "Stop the LLM", 2.0),
    "benching": ([], "Follow the job", 5.0),
    "restoring": (DIES, "Give the lease back", 3.0),
}

REBOOT = pytest.mark.long(reason="power-cycle covers it")
STOPPED = pytest.mark.long(reason="pause covers it, and the rehearsal has a stopped LLM")
OTHER_PAIR = pytest.mark.long(reason="FIRST has each signal and each phase once")
FIRST = (("SIGINT", "benching"), ("SIGTERM", "restoring"), ("SIGKILL", "pausing"))


class Bench:
    """A bench that runs, with what it has said so far."""

    def __init__(self, reports: Path, *arguments: str, play: list[str] = ALONE) -> None:
        self.reports, self.output = reports, ""
        self.process = start_play(reports, *play, *arguments)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        with self.process.stdout:
            for line in self.process.stdout:
                self.output += line

    def reach(self, words: str, then_s: float = 0.0, within: float = 240) -> None:
        """Wait until the bench has said something."""
        deadline = time.monotonic() + within
        while words not in self.output:
            assert self.process.poll() is None, f"ended before '{words}': {self.output[-3000:]}"
            assert time.monotonic() < deadline, f"no '{words}': {self.output[-3000:]}"
            time.sleep(0.1)
        time.sleep(then_s)

    def control_node_dies(self) -> None:
        """End all of it on this machine at once, as a power loss would."""
        own = psutil.Process(self.process.pid)
        family = [own, *own.children(recursive=True)]
        for process in psutil.process_iter(["cmdline"]):
            words = " ".join(process.info["cmdline"] or [])
            if str(self.reports) in words or "/.lab/ssh/control/" in words:
                family.append(process)
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()

    def end(self, within: float = 300) -> Played:
        """Wait for its end."""
        status = self.process.wait(within)
        self._reader.join(10)
        return Played(status, self.output, self.reports)


def status() -> dict[str, Any]:
    """What the window on titan says of itself, whatever the network does."""
    found = inside("titan", f"runuser -u op -- {WINDOW} status || true")
    return json.loads(found[found.index("{") :])


def answers_on_titan() -> bool:
    """Whether Gemma answers a completion on its own host."""
    ask = "import llm; llm.complete('http://127.0.0.1:8003', '/opt/lab/made/llm', 4, 20)"
    return "ok" in inside("titan", f'cd {HOME}; python3 -Bc "{ask}" 2>&1 && echo ok || true')


def comes_back(what: str, since: float, within: float, played: Path | None = None) -> dict:
    """Wait until Gemma answers and the window is over; check what is left, and note the time.

    Args:
        what: for the table of times.
        since: Unix time of the event.
        within: seconds from it in which Gemma has to answer.
        played: the reports, if the run must have a verdict that says what happened.

    Returns:
        What the keeper wrote down.
    """
    deadline = since + within + START_S
    while (found := status())["state"] != "none":
        assert time.time() < deadline, f"{what}: still {found}"
        time.sleep(0.5)
    assert answers_on_titan(), what
    last = found["last"]
    took = datetime.fromisoformat(last["answered_at"]).timestamp() - since
    note_time(what, max(took, 0.0))
    assert took <= within, f"{what}: {took:.0f} s, {last}"
    assert inside("titan", "pgrep -u op -af 'understudy (bench|smoke|guard)' || true") == ""
    keeper = "systemctl --user is-active understudy-window || true"
    inactive = inside("titan", f"runuser -u op -- env XDG_RUNTIME_DIR=/run/user/1000 {keeper}")
    assert inactive == "inactive"
    if played:
        verdict = json.loads((played / "latest/verdict.json").read_text())
        assert (verdict["verdict"], verdict["ok"]) == ("invalid_run", False)
        llm = json.loads((played / "latest/llm.json").read_text())
        assert llm["hosts"]["titan"]["closed"], llm
        assert {row["event"] for row in llm["hosts"]["titan"]["timeline"]} >= {"armed", "closed"}
    return last


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Install voice and keeper, unless they are there; the bench itself is another test's."""
    files = ["ability.py", "command.py", "llm.py", "lease.py", "keeper.py", "window.py"]
    keeper = "".join((ROOT / "module_utils/understudy" / name).read_text() for name in files)
    there = "test -x ~op/.local/share/understudy/current/bin/understudy"
    if inside("titan", f"{there} && cd {HOME} && cat {' '.join(files)} || true") == keeper.strip():
        return
    reports = tmp_path_factory.mktemp("installed")
    # Whoever tried the failovers before has just made titan speak.
    played = Bench(reports, *DIES, "-e", "force=true", play=BENCH).end(600)
    assert played.document("install-titan.json")["status"] == "ok", played.output[-3000:]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leaves titan as a test should find it."""
    yield
    lab("mend", "titan")
    inside("titan", "systemctl start docker; rm -f /home/op/filler; systemctl stop thief || true")
    inside("titan", "docker unpause vllm-gemma4 2>/dev/null; docker start vllm-gemma4")
    wait(lambda: status()["state"] == "none", what="the window is over", seconds=TTL + START_S + 30)
    assert llm_answers()


# --- who dies --------------------------------------------------------------------------------


def test_a_failure_inside_the_window(reports: Path) -> None:
    bench = Bench(reports, *DIES)
    bench.reach("Give the lease back")
    since = time.time()
    played = bench.end()
    assert played.status != 0
    last = comes_back("a task fails inside the window", since, START_S, reports)
    assert last["reason"] == "released"
    assert "bench-titan.json" in " ".join(played.verdict["reasons"])


#: Each signal and each phase once is quick enough for every change.
ENDS = [
    pytest.param(how, phase, marks=[] if (how, phase) in FIRST else [OTHER_PAIR])
    for how in ("SIGINT", "SIGTERM", "SIGKILL")
    for phase in PHASES
]


@pytest.mark.parametrize(("how", "phase"), ENDS)
def test_the_controller_is_ended(reports: Path, how: str, phase: str) -> None:
    """The control node lives, so it is not the lease that has to run out."""
    arguments, words, then_s = PHASES[phase]
    bench = Bench(reports, *arguments)
    bench.reach(words, then_s)
    since = time.time()
    os.kill(bench.process.pid, getattr(signal, how))
    bench.process.wait(30)
    last = comes_back(f"controller gets {how} while {phase}", since, START_S + 15)
    assert last["reason"] == "released"
    marker = reports / "latest/.window-titan"
    wait(lambda: not marker.exists(), what="restore.yml has finished the record", seconds=60)
    comes_back(f"controller gets {how} while {phase}", since, START_S + 15, reports)


def test_the_control_node_is_gone(reports: Path) -> None:
    phase = "pausing"
    arguments, words, then_s = PHASES[phase]
    bench = Bench(reports, *arguments)
    bench.reach(words, then_s)
    since = time.time()
    bench.control_node_dies()
    within = TTL + 30
    last = comes_back(f"control node dies while {phase}", since, within)
    assert last["reason"] == "expired"
    early = json.loads((reports / "latest/verdict.json").read_text())
    assert "inside the LLM's window" in " ".join(early["reasons"])
    restored = play(reports, "restore.yml")
    assert restored.status == 0, restored.output[-2000:]
    comes_back(f"control node dies while {phase}", since, within, reports)


@pytest.mark.long(reason="the network that is gone for longer has a lease run out under a play")
def test_the_controller_sleeps_longer_than_its_lease(reports: Path) -> None:
    """A closed lid: it wakes up in a window that has ended."""
    bench = Bench(reports)
    bench.reach("the voice is ready")
    family = [psutil.Process(bench.process.pid), *psutil.Process(bench.process.pid).children(True)]
    since = time.time()
    for process in family:
        process.suspend()
    comes_back("controller is suspended", since, TTL + 30)
    for process in family:
        process.resume()
    played = bench.end()
    assert played.status != 0
    comes_back("controller is suspended", since, TTL + 30, reports)
    assert "ran out" in " ".join(played.verdict["reasons"])


# --- the network -----------------------------------------------------------------------------


def test_the_network_is_gone_for_longer_than_the_lease(reports: Path) -> None:
    phase = "benching"
    arguments, words, then_s = PHASES[phase]
    bench = Bench(reports, *arguments)
    bench.reach(words, then_s)
    since = time.time()
    lab("cut", "titan")
    last = comes_back(f"network is lost while {phase}", since, TTL + 30)
    assert last["reason"] == "expired"
    lab("mend", "titan")
    played = bench.end()
    assert played.status != 0
    comes_back(f"network is lost while {phase}", since, TTL + 30, reports)
    assert "titan" in " ".join(played.verdict["reasons"])


@pytest.mark.long(reason="test_the_network_is_gone_for_longer_than_the_lease covers a lost network")
def test_a_short_loss_of_the_network_costs_nothing(reports: Path) -> None:
    bench = Bench(reports, "-e", "tts_bench_timeout_s=40")
    bench.reach("the voice is ready")
    lab("cut", "titan")
    time.sleep(8)
    lab("mend", "titan")
    bench.reach("Give the lease back")
    since = time.time()
    bench.end()
    last = comes_back("network is lost for 8 s", since, START_S, reports)
    assert last["reason"] == "released"


# --- the host --------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [pytest.param("reboot", marks=REBOOT), "power-cycle"])
def test_the_host_is_rebooted_inside_the_window(reports: Path, how: str) -> None:
    bench = Bench(reports)
    bench.reach("the voice is ready")
    lab(how, "titan")
    since = time.time()
    last = comes_back(f"titan: {how} while benching", since, TTL + 30)
    assert last["reason"] == "rebooted"
    played = bench.end()
    assert played.status != 0
    comes_back(f"titan: {how} while benching", since, TTL + 30, reports)
    assert "reboot" in " ".join(played.verdict["reasons"])


def test_docker_is_restarted_inside_the_window_and_down_at_its_end(reports: Path) -> None:
    bench = Bench(reports, "-e", "tts_bench_timeout_s=25")
    bench.reach("the voice is ready")
    inside("titan", "systemctl restart docker")
    assert gemma_state() == "exited"  # Docker does not start what was stopped by hand
    inside("titan", "systemctl stop docker docker.socket")
    bench.reach("Give the lease back")
    time.sleep(10)
    since = time.time()
    inside("titan", "systemctl start docker.socket docker")
    bench.end()
    last = comes_back("Docker is down when the window ends", since, START_S, reports)
    assert last["attempts"] > 1


def test_the_start_fails_at_first(reports: Path) -> None:
    bench = Bench(reports, *DIES)
    bench.reach("Start the benchmark")
    inside("titan", "systemd-run --unit=thief python3 -m http.server 8003")
    bench.reach("start_failed")
    inside("titan", "systemctl stop thief")
    since = time.time()
    bench.end()
    last = comes_back("docker start fails at first", since, START_S, reports)
    assert last["attempts"] > 1
    assert any(row["event"] == "start_failed" for row in last["events"])


def test_a_gemma_that_starts_and_never_answers(reports: Path) -> None:
    wall = "OUTPUT -p tcp -d 172.16.0.0/12 --dport 8000 -j DROP"
    bench = Bench(reports, *DIES, "-e", "llm_window_ready_timeout_s=15")
    bench.reach("Start the benchmark")
    inside("titan", f"iptables -I {wall}")
    try:
        played = bench.end()
        assert played.status != 0
        llm = played.document("llm.json")
        assert llm["error"]["kind"] == "llm"
        assert "does not answer" in llm["error"]["seen"], llm["error"]
        assert not llm["hosts"]["titan"]["closed"]
        assert "does not answer" in " ".join(played.verdict["reasons"])
        assert status()["state"] == "ending"  # it is not given up
        refused = play(reports.parent / "second", *BENCH)
        assert refused.status != 0
        assert "does not answer" in refused.text
    finally:
        inside("titan", f"iptables -D {wall}")
    since = time.time()
    comes_back("Gemma does not answer for a while", since, START_S)
    restored = play(reports, "restore.yml")  # finishes the record
    assert restored.status == 0, restored.output[-2000:]
    comes_back("Gemma does not answer for a while", since, START_S, reports)


def test_a_full_disk(reports: Path) -> None:
    bench = Bench(reports, "-e", "tts_bench_timeout_s=30")
    bench.reach("the voice is ready")
    fill_home()
    renewed = bench.output.count("Renew the lease")
    bench.reach("Give the lease back", within=300)
    assert bench.output.count("Renew the lease") > renewed
    since = time.time()
    bench.end()
    comes_back("the disk fills up while benching", since, START_S, None)
    refused = play(reports.parent / "second", *BENCH, "-e", "preflight_disk_gib=0")
    assert refused.status != 0
    assert gemma_state() == "running"
    assert status()["state"] == "none"


#: For every Python of the operator's on titan (all that the window does is Python's) the time of
#: day is the one in a file. The machine's own clock is everybody's.
CLOCK = """
import datetime, time
real = time.time
def moved():
    with open("/tmp/clock") as file:
        return real() + float(file.read())
class Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(moved(), tz)
    @classmethod
    def utcnow(cls):
        return cls.utcfromtimestamp(moved())
time.time, datetime.datetime = moved, Moved
"""


@pytest.mark.long(reason="unit tests of the window cover it: its time is CLOCK_BOOTTIME")
def test_the_clock_is_moved_by_an_hour_either_way(reports: Path) -> None:
    site = "/home/op/.local/lib/python3.11/site-packages"
    inside(
        "titan",
        f"echo 0 >/tmp/clock; mkdir -p {site}; "
        f"cat >{site}/usercustomize.py <<'END'\n{CLOCK}\nEND\n"
        "chown -R op:op /home/op/.local/lib",
    )
    try:
        bench = Bench(reports)
        bench.reach(*PHASES["benching"][1:])
        clock = "python3 -c 'import time; print(time.time())'"
        for moved in (3600, -3600):
            inside("titan", f"echo {moved} >/tmp/clock")
            time.sleep(3)
            off = float(ssh("titan", clock).stdout) - time.time()
            assert off == pytest.approx(moved, abs=60)
            assert status()["state"] == "held"
        since = time.time()
        bench.control_node_dies()
        time.sleep(TTL / 3)
        assert status()["state"] == "held"
        wait(lambda: status()["state"] == "none", what="Gemma is back", seconds=TTL + 30 + START_S)
        assert answers_on_titan()
        note_time("the clock is moved, the control node dies (lease gone)", time.time() - since)
        assert status()["last"]["reason"] == "expired"
    finally:
        inside("titan", f"rm -f {site}/usercustomize.py /tmp/clock")


def test_the_keeper_is_killed(reports: Path) -> None:
    bench = Bench(reports)
    bench.reach("the voice is ready")
    inside("titan", "pkill -KILL -f 'window.py keep'")
    since = time.time()
    bench.control_node_dies()
    last = comes_back("keeper and control node are killed", since, TTL + 30)
    assert [row["event"] for row in last["events"]].count("keeper") == 2


# --- who else ----------------------------------------------------------------------------------


@pytest.mark.long(reason="test_the_keeper_is_killed, and unit tests of settled, cover it")
def test_a_stale_lease_is_finished_by_the_next_bench(reports: Path) -> None:
    """A lease whose keeper somebody has stopped, so that it ran out and nothing happened."""
    bench = Bench(reports)
    bench.reach("the voice is ready")
    ssh("titan", "systemctl --user stop understudy-window")
    bench.control_node_dies()
    wait(lambda: status()["state"] == "ending", what="it has run out", seconds=TTL + 10)
    assert gemma_state() == "exited"
    since = time.time()
    following = Bench(reports.parent / "second", *DIES, play=BENCH)
    following.reach("Measure the LLM before")
    note_time("a stale lease is finished by the next bench", time.time() - since)
    following.end()
    comes_back("the bench after a stale lease", time.time(), START_S)


@pytest.mark.parametrize(
    ("command", "state"), [pytest.param("stop", "exited", marks=STOPPED), ("pause", "paused")]
)
def test_what_was_not_running_is_not_started(reports: Path, command: str, state: str) -> None:
    inside("titan", f"docker {command} vllm-gemma4")
    played = play(reports, *BENCH, "-e", "preflight_llm_requests=1")
    assert played.status != 0
    assert gemma_state() == state
    assert status()["state"] == "none"
    assert state in " ".join(played.verdict["reasons"])


def test_a_second_bench_and_restore(reports: Path) -> None:
    """One window for both: a second bench is refused, then restore.yml ends the first one."""
    idle = play(reports, "restore.yml")
    assert idle.status == 0
    assert idle.recap("titan")["changed"] == 0
    assert "titan: No window was open. The LLM answers." in idle.text
    bench = Bench(reports)
    bench.reach("the voice is ready")

    second = play(reports.parent / "second", *BENCH)
    assert second.status != 0
    who = f"{os.environ.get('USER', 'root')}@{os.uname().nodename}"
    run_id = (reports / "latest").resolve().name
    opened = rf"{who} has the LLM's window for run {run_id}, opened \d+ (s|min) ago"
    assert re.search(opened, second.text), second.text[-2000:]
    assert "restore.yml" in second.text
    assert status()["state"] == "held"

    looked = play(reports, "restore.yml", "--check")
    assert looked.status == 0
    assert "has the LLM's window for run" in looked.text
    assert gemma_state() == "exited"
    since = time.time()
    restored = play(reports, "restore.yml")
    assert restored.status == 0, restored.output[-2000:]
    assert "released by restore.yml" in restored.text
    assert restored.text.rstrip().endswith("The LLM answers.")
    last = comes_back("restore.yml while benching", since, START_S)
    assert last["evicted"] > 0
    played = bench.end()
    assert played.status != 0
    assert "released by restore.yml" in " ".join(played.verdict["reasons"])


def test_parallel_mode_ends_the_bench_with_its_window(reports: Path) -> None:
    bench = Bench(reports, "-e", "gemma_mode=parallel")
    bench.reach("Ask the LLM for completions until the bench has ended", 3.0)
    assert gemma_state() == "running"
    since = time.time()
    bench.control_node_dies()
    last = comes_back("mode parallel, control node dies", since, TTL + 30)
    assert last["evicted"] > 0
    assert last["attempts"] == 0


# --- who starts it -----------------------------------------------------------------------------


def started_at() -> str:
    return inside("titan", "docker inspect --format '{{.State.StartedAt}}' vllm-gemma4")


def refused(reports: Path, *arguments: str) -> str:
    """Begin a window that must not be opened; returns what was said. Gemma is not touched."""
    before = started_at()
    played = play(reports, *ALONE, *arguments)
    assert played.status != 0
    assert "the LLM was not touched" in played.text or "it was not touched" in played.text
    assert (gemma_state(), started_at()) == ("running", before)
    assert status()["state"] == "none"
    assert "Next" in " ".join(played.verdict["reasons"])
    return played.text


def without_docker_group() -> None:
    """Make the user's service manager older than the membership in the group docker."""
    restart = "gpasswd -d op docker && systemctl restart user@1000; gpasswd -a op docker"
    inside("titan", restart)


@pytest.fixture
def whole_manager() -> Iterator[None]:
    yield
    inside("titan", "id -nG op | grep -qw docker || gpasswd -a op docker")
    inside("titan", "systemctl restart user@1000")


def test_a_user_manager_older_than_the_docker_group(reports: Path, whole_manager: None) -> None:
    without_docker_group()
    assert "docker" in ssh("titan", "id -nG").stdout.split()
    said = refused(reports)
    assert "older than the membership in the group docker" in said
    assert "sudo systemctl restart user@1000" in said


WAYS = [
    "restore.yml",
    pytest.param("window.py", marks=pytest.mark.long(reason="restore.yml is it")),
]


@pytest.mark.parametrize("how", WAYS)
def test_a_keeper_that_cannot_start_it_is_helped(
    reports: Path, whole_manager: None, how: str
) -> None:
    bench = Bench(reports)
    bench.reach("the voice is ready")
    without_docker_group()  # the service manager starts the keeper again, which may no longer
    bench.control_node_dies()
    since = time.time()
    if how == "restore.yml":
        restored = play(reports, how)
        done, said = restored.status, restored.text
    else:
        asked = ssh("titan", f"{WINDOW} restore", 120)
        done, said = asked.returncode, asked.stdout
    assert done == 0, said[-3000:]
    assert "as the keeper could not" in said
    last = comes_back(f"{how} helps a keeper that cannot", since, START_S + 15)
    assert last["reason"] == "released"
    assert "session of its own" in last["started_by"] or "on this host" in last["started_by"]
    assert "stopped_again" not in [row["event"] for row in last["events"]]


@pytest.mark.long(reason="unit tests of the keeper cover it")
def test_a_crash_within_the_time_in_which_it_has_to_stay(reports: Path) -> None:
    """Docker restarts it at once, so its state is "running" whenever the keeper looks."""
    bench = Bench(reports, *DIES, "-e", "llm_window_stay_s=10")
    bench.reach("answered: a completion")
    inside("titan", "kill -9 $(docker inspect --format '{{.State.Pid}}' vllm-gemma4)")
    since = time.time()
    bench.end()
    last = comes_back("it crashes while it has to stay", since, START_S + 15)
    events = [row["event"] for row in last["events"]]
    assert {"restarted", "stopped_again"} & set(events), events
    assert events.count("answered") == 2


@pytest.mark.long(reason="unit tests of the keeper and of the verdict cover it")
def test_somebody_starts_it_inside_the_window(reports: Path) -> None:
    bench = Bench(reports, "-e", "tts_bench_timeout_s=25")
    bench.reach("the voice is ready")
    inside("titan", "docker start vllm-gemma4")
    wait(lambda: "started_inside" in json.dumps(status()), what="it is noticed", seconds=15)
    played = bench.end()
    assert "the LLM was started inside its window" in played.text
    assert any(row["name"] == "paused.titan" for row in played.verdict["checks"])
    assert "Next: find what starts it" in " ".join(played.verdict["reasons"])


@pytest.mark.long(reason="unit tests of the module and of what it checks cover it")
def test_a_start_command_that_is_text(reports: Path) -> None:
    text = {"llm_window_resume_command": "docker start vllm-gemma4"}
    said = refused(reports, "-e", json.dumps(text))
    assert 'llm_window_resume_command: ["docker", "start", "vllm-gemma4"]' in said


@pytest.mark.long(reason="unit tests of the module cover it")
def test_lingering_is_asked_for(reports: Path) -> None:
    inside("titan", "loginctl disable-linger op")
    try:
        assert "sudo loginctl enable-linger op" in refused(reports)
    finally:
        inside("titan", "loginctl enable-linger op")
