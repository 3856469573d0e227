"""The keeper: watches one lease to its end and brings the LLM back.

When the lease is over it stops what was started inside the window, starts the LLM until it answers
a real completion, sees it stay, and removes the lease.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

try:
    from . import clock, llm
    from . import lease as leases
except ImportError:  # beside the program on the LLM's host
    import clock  # type: ignore[import-not-found,no-redef]
    import lease as leases  # type: ignore[import-not-found,no-redef]
    import llm  # type: ignore[import-not-found,no-redef]

#: Set for everything that runs inside a window, to the lease's id; the pause command has its own.
INSIDE, PAUSING = "UNDERSTUDY_WINDOW", "UNDERSTUDY_WINDOW_PAUSE"
#: Seconds between two looks of the keeper.
LOOK_S = 1.0
#: Between two tries to start it, growing; and the longest that one command may take.
RETRY_S, RETRY_MAX_S, COMMAND_S = 1.0, 15.0, 180.0
#: Seconds between SIGTERM and SIGKILL, and how long a pause that is under way is waited for.
TERM_S, PAUSE_S = 10.0, 60.0


class _Gone(Exception):
    """The lease was removed by hand, to make the keeper give up."""


def keep(window: leases.Window) -> int:
    """Be the keeper of the lease that is there, if any. Returns the exit status."""
    if window.lease() is None:
        return 0
    with window.keeping():
        lease = window.lease()
        if lease is not None:
            Keeper(window, lease).run()
    return 0


class Keeper:
    """Watches one lease to its end and brings the LLM back.

    Args:
        window: where the lease is.
        lease: the lease.
        out: where a line per event goes: the service's journal.
    """

    def __init__(self, window: leases.Window, lease: dict[str, Any], out: Any = sys.stdout) -> None:
        self.window, self.lease, self.out = window, lease, out
        self.service: dict[str, Any] = lease["service"]
        self.report: dict[str, Any] = {
            "id": lease["id"],
            "run_id": lease["run_id"],
            "ttl_s": lease["ttl_s"],
            "boot": clock.boot_id(),
            "phase": leases.WATCHING,
            "reason": None,
            "by": None,
            "over_at": None,
            "evicted": 0,
            "attempts": 0,
            "answered_at": None,
            "back_after_s": None,
            "seen": None,
            "events": [],
        }
        before = window.keeper()
        if before.get("id") == lease["id"]:  # this service was restarted, or the host
            self._recall(before)
        self._event("keeper", f"watches the lease, process {os.getpid()}")

    def _recall(self, before: dict[str, Any]) -> None:
        """Take over what an earlier process wrote, as far as it is whole."""
        for key in ("reason", "by", "over_at", "answered_at"):
            if isinstance(before.get(key), str):
                self.report[key] = before[key]
        for key in ("evicted", "attempts", "back_after_s"):
            if isinstance(before.get(key), (int, float)):
                self.report[key] = before[key]
        if isinstance(before.get("events"), list):
            rows = [row for row in before["events"] if isinstance(row, dict)]
            self.report["events"] = [row for row in rows if {"at", "event", "detail"} <= set(row)]

    def run(self) -> bool:
        """Watch, then bring the LLM back. Returns False if the lease went away meanwhile."""
        try:
            self._over(self._watch())
            self._evict()
            if self.service["running"]:
                while not (self._start() and self._stays()):
                    pass
        except _Gone:
            return False
        self._phase(leases.CLOSED)
        self._event("closed", "the LLM is as it was found; the lease is removed")
        self.window.close(self.lease)
        return True

    def _watch(self) -> str:
        while True:
            if self.window.over(self.lease):
                with self.window.locked():  # a renewal that is under way counts
                    reason = self.window.over(self.lease)
                if reason:
                    return reason
            self._pause(LOOK_S)

    def _over(self, reason: str) -> None:
        if self.report["reason"] is None:
            _, by = self.window.deadline(self.lease)
            self.report.update(
                reason=reason, by=by if reason == "released" else None, over_at=clock.utc_now()
            )
            self._event(reason, f"by {by}" if reason == "released" else None)

    # -- what runs inside the window -------------------------------------------------------------

    def _evict(self) -> None:
        """End everything that was started inside the window, so that it does not fight the LLM."""
        self._phase(leases.EVICTING)
        waited = time.monotonic() + PAUSE_S
        while leased_processes(self.lease["id"], PAUSING) and time.monotonic() < waited:
            self._pause(0.2)  # a stop that is under way would hit the LLM after it was started
        found = leased_processes(self.lease["id"], INSIDE, PAUSING)
        evicted, signalled = found, set()
        term_until = time.monotonic() + TERM_S
        while found and time.monotonic() < term_until + TERM_S:
            late = time.monotonic() >= term_until
            for pid, _ in found:
                if late or pid not in signalled:  # a second SIGTERM would disturb a clean-up
                    signalled.add(pid)
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            self._pause(0.2)
            found = leased_processes(self.lease["id"], INSIDE, PAUSING)
        if evicted:
            self.report["evicted"] += len(evicted)
            self._event("evicted", ", ".join(f"{name} ({pid})" for pid, name in evicted))
        if found:  # one that hangs in a driver: the LLM is started all the same
            self._event("not_evicted", ", ".join(f"{name} ({pid})" for pid, name in found))

    # -- the LLM ---------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Start the LLM until it answers; True when it did, however long that took."""
        self._phase(leases.STARTING)
        wait, began = RETRY_S, time.monotonic()
        while True:
            running, state = self.running()
            if not running:
                self.report["attempts"] += 1
                ended = run(self.service["resume_command"])
                if ended.returncode == 0:
                    self._event("started", f"attempt {self.report['attempts']}, it was '{state}'")
                else:
                    self._note("start_failed", _tail(ended.stdout))
            try:
                name = self.service["model"] or llm.first_model(self.service["url"], 10)
                llm.complete(self.service["url"], name, 8, 30)
            except llm.LlmError as error:
                self.report["seen"] = leases.short(f"{error} (its service says '{state}')")
                self._write()
            else:
                self.report["seen"] = None
                self.report["answered_at"] = clock.utc_now()
                self.report["back_after_s"] = round(time.monotonic() - began, 2)
                self._phase(leases.ANSWERED)
                self._event("answered", f"a completion, after {self.report['back_after_s']:.1f} s")
                return True
            if time.monotonic() - began > self.service["ready_timeout_s"]:
                self._phase(leases.SILENT)
                self._note("silent", self.report["seen"])
            # A running engine that loads is asked often, a start that fails less and less.
            self._pause(RETRY_S if running else wait)
            wait = RETRY_S if running else min(wait * 1.5, RETRY_MAX_S)

    def _stays(self) -> bool:
        """See that the LLM stays up: a stop that was under way may still hit it."""
        until = time.monotonic() + self.service.get("stay_s", 10.0)  # older leases lack it
        while time.monotonic() < until:
            self._pause(LOOK_S)
            running, state = self.running()
            if not running:
                self._event("stopped_again", f"its service says '{state}'")
                return False
        return True

    def running(self) -> tuple[bool, str]:
        """Return whether the service runs, and what it says."""
        ended = run(self.service["state_command"])
        state = _tail(ended.stdout)
        return bool(re.search(self.service["running_regex"], ended.stdout, re.MULTILINE)), state

    # -- the record ------------------------------------------------------------------------------

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        there = self.window.lease()
        if there is None or there["id"] != self.lease["id"]:
            self._print("the lease is gone")
            raise _Gone

    def _phase(self, phase: str) -> None:
        self.report["phase"] = phase
        self._write()

    def _note(self, event: str, detail: str | None) -> None:
        """Record an event that may come again and again; the same detail is kept once."""
        recent = [(row["event"], row["detail"]) for row in self.report["events"][-3:]]
        if (event, leases.short(detail)) not in recent:
            self._event(event, detail)

    def _event(self, event: str, detail: str | None = None) -> None:
        events = self.report["events"]
        events.append({"at": clock.utc_now(), "event": event, "detail": leases.short(detail)})
        if len(events) > 20:  # the beginning says why, the end how it went
            del events[8]
        self._print(f"{event}: {detail}" if detail else event)
        self._write()

    def _write(self) -> None:
        try:
            self.window.overwrite("keeper.json", self.report, leases.KEEPER_BYTES)
        except (OSError, ValueError) as error:  # what matters is the LLM, not the record
            self._print(f"keeper.json cannot be written: {error}")

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a journal on a full disk, say
            print(line, file=self.out, flush=True)


def leased_processes(lease_id: str, *marks: str) -> list[tuple[int, str]]:
    """Return pid and name of every process of this user that runs under a mark of a lease.

    The mark is in the environment of a process and of all its descendants. A process that is just
    about to become one has the lease's id in its command line.
    """
    wanted = {f"{mark}={lease_id}".encode() for mark in marks}
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            # In this order: a process that is replaced in between is found by its environment.
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                inside = not wanted.isdisjoint(file.read().split(b"\0"))
            with open(f"/proc/{entry}/environ", "rb") as file:
                inside = inside or not wanted.isdisjoint(file.read().split(b"\0"))
            with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
        except OSError:
            continue  # gone, or another user's
        if inside:
            found.append((int(entry), name))
    return found


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the inventory; what it says is in ``stdout``, whatever goes wrong."""
    try:
        return subprocess.run(
            [os.path.expanduser(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=COMMAND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, f"{error}\n")


def _tail(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""
