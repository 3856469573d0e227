"""A made-up LLM service, for tests of the maintenance window and its keeper."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from loopback import free_port

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "module_utils/understudy"
#: What the role brings to the LLM's host; the last one is the program.
PROGRAM = ["clock.py", "command.py", "llm.py", "ability.py", "lease.py", "keeper.py", "window.py"]
RUN, HOLDER = "20261122-031500Z", "me@control"
#: In the environment of everything that a test starts, so that it can be ended after it.
MARK = "UNDERSTUDY_TEST"
#: The keeper's times, for tests.
QUICK = {
    "LOOK_S": 0.03,
    "INSIDE_S": 0.03,
    "RETRY_S": 0.03,
    "RETRY_MAX_S": 0.1,
    "COMMAND_S": 10.0,
    "TERM_S": 0.2,
    "PAUSE_S": 5.0,
    "HELP_S": 2.0,
    "HANGS_S": {"watching": 0.5, "evicting": 20.0},
    "RESTORE_S": 0.5,
}
#: The events of a window that was released, and whose LLM only started after it had failed to.
AFTER_FAILED_STARTS = ["keeper", "released", "start_failed", "started", "answered", "closed"]

SERVICE = '''
"""A service manager and the LLM behind it; files beside it are switches, `log` says what it did."""
import fcntl, json, os, signal, socket, sys, time

os.chdir(os.path.dirname(os.path.abspath(__file__)))


def switch(name, take=False):
    try:
        with open(name, encoding="utf-8") as file:
            found = file.read()
    except FileNotFoundError:
        return ""
    if take:
        os.unlink(name)
    return found


def log(text):
    with open("log", "a", encoding="utf-8") as file:
        file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.3f} {text}\\n")


def running():
    with open("serving", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def alive(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return bool(file.read())
    except OSError:
        return False


def start():
    log(f"start beside {sum(alive(pid) for pid in switch('tenants').split())}")
    failures = int(switch("fail_starts", take=True) or 0)
    if failures:
        with open("fail_starts", "w") as file:
            file.write(str(failures - 1) if failures > 1 else "")
        print("starting ...\\n" + (switch("says") or "Error: no such device"))
        sys.exit(1)
    if running():
        return
    if not os.fork():
        os.setsid()
        if not switch("loud"):
            quiet = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(quiet, number)
        serve()
    while not running():
        time.sleep(0.01)


def stop():
    log("stop")
    time.sleep(float(switch("slow_stop") or 0))
    if running():
        os.kill(int(switch("pid")), 9)
    while running():
        time.sleep(0.01)
    log("stopped")


def serve():
    listening = socket.create_server(("127.0.0.1", int(switch("port"))))
    lock = open("serving", "a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    log("serve")
    signal.setitimer(signal.ITIMER_REAL, float(switch("down_after", take=True) or 0))
    while True:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as asked:
            first, length, key = asked.readline(), 0, ""
            while (line := asked.readline()).strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
                if line.lower().startswith(b"authorization: bearer "):
                    key = line.split()[2].decode()
            asked.read(length)
            status, document = 200, {"data": [{"id": "gemma"}]}
            if first.startswith(b"POST /v1/chat/completions "):
                message = {"role": "assistant", "content": "Hello!"}
                document = {"choices": [{"message": message, "finish_reason": "stop"}]}
                if os.path.exists("silent"):
                    status, document = 503, {"detail": "the engine is loading"}
            if key != switch("key"):
                status, document = 401, {"error": "the key is not " + key}
            body = json.dumps(document).encode()
            head = f"HTTP/1.1 {status} So\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
            connection.sendall(head.encode() + body)


{"start": start, "stop": stop}[sys.argv[1]]()
'''


class Service:
    """The LLM's service: a real program that starts and stops a real server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "service.py").write_text(SERVICE)
        port = free_port()
        self.set("port", str(port))
        self.url = f"http://127.0.0.1:{port}"

    def set(self, name: str, text: str = "1") -> None:
        (self.directory / name).write_text(text)

    def unset(self, name: str) -> None:
        (self.directory / name).unlink()

    def command(self, what: str) -> list[str]:
        if what == "state":  # asked often
            script = f"flock -sn {self.directory}/serving true && echo exited || echo running"
            return ["sh", "-c", script]
        return [sys.executable, "-S", str(self.directory / "service.py"), what]

    def do(self, what: str) -> str:
        ended = subprocess.run(self.command(what), text=True, check=True, stdout=subprocess.PIPE)
        return ended.stdout.strip()

    @property
    def running(self) -> bool:
        return self.do("state") == "running"

    @property
    def log(self) -> list[str]:
        """What it did, without the times."""
        return [line.partition(" ")[2] for line in self._lines()]

    @property
    def starts(self) -> list[float]:
        """When it was told to start, in boot time."""
        return [float(line.split()[0]) for line in self._lines() if line.split()[1] == "start"]

    def _lines(self) -> list[str]:
        path = self.directory / "log"
        return path.read_text().splitlines() if path.exists() else []

    def described(self, **changes: Any) -> dict[str, Any]:
        return {
            "url": self.url,
            "model": "",
            "state_command": self.command("state"),
            "running_regex": "^running$",
            "resume_command": self.command("start"),
            "running": True,
            "ready_timeout_s": 30,
            "stay_s": 0.1,
        } | changes


def install(home: Path, **times: float) -> Path:
    """Bring the program to a host, as the role does; only its times are shorter."""
    home.mkdir(exist_ok=True)
    for name in PROGRAM:
        shutil.copy(SOURCE / name, home)
    with (home / "keeper.py").open("a") as file:
        file.write(f"\n\nglobals().update({QUICK | times!r})\n")
    return home / "window.py"


def environment(pid: int | str) -> bytes:
    """A process's environment; nothing for one that has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def end_all(mark: str) -> None:
    """End every process with a mark of the tests in its environment."""
    wanted = f"{MARK}={mark}".encode()
    while pids := [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and wanted in environment(entry.name).split(b"\0")
    ]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def events(report: dict[str, Any]) -> list[str]:
    return [row["event"] for row in report.get("events", [])]
