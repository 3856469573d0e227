"""The keeper: watches one lease to its end and brings the LLM back.

When the lease is over it stops what was started inside the window, starts the LLM until it answers
a real completion, sees it stay, and removes the lease.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

try:
    from . import ability, clock, command, llm
    from . import lease as leases
except ImportError:  # beside the program on the LLM's host
    import ability  # type: ignore[import-not-found,no-redef]
    import clock  # type: ignore[import-not-found,no-redef]
    import command  # type: ignore[import-not-found,no-redef]
    import lease as leases  # type: ignore[import-not-found,no-redef]
    import llm  # type: ignore[import-not-found,no-redef]

#: Set for everything that runs inside a window, to the lease's id; the pause command has its own.
INSIDE, PAUSING = "UNDERSTUDY_WINDOW", "UNDERSTUDY_WINDOW_PAUSE"
#: Seconds between two looks of the keeper, and between two at an LLM that is to stay paused.
LOOK_S, INSIDE_S = 1.0, 5.0
#: Between two tries to start it, growing; and the longest that one command may take.
RETRY_S, RETRY_MAX_S, COMMAND_S = 1.0, 15.0, 180.0
#: Seconds between SIGTERM and SIGKILL, and how long a pause that is under way is waited for.
TERM_S, PAUSE_S = 10.0, 60.0
#: When a keeper counts as one that hangs, in seconds since the end of the lease, by its phase; and
#: when its tries to start the LLM are no longer waited for.
HANGS_S = {leases.WATCHING: 60.0, leases.EVICTING: 160.0}  # above a look at a slow Docker
HELP_S = 20.0
#: What a restoration may take beside the LLM's start: ending what runs inside, for the most part.
RESTORE_S = 120.0


class _Gone(Exception):
    """The lease was removed by hand, to make the keeper give up, or its time is over."""


def keep(window: leases.Window, within_s: float | None = None, *, instead: bool = False) -> int:
    """Be the keeper of the lease that is there, if any. Returns the exit status.

    Args:
        window: where the lease is.
        within_s: give up after so many seconds, and at once where there is a keeper; None: never.
        instead: do not wait for the keeper that is there: it hangs.

    Raises:
        BlockingIOError: another keeper is there.
    """
    if window.lease() is None:
        return 0
    with contextlib.nullcontext() if instead else window.keeping(within_s is None):
        lease = window.lease()
        if lease is not None:
            Keeper(window, lease, within_s=within_s).run()
    return 0


def hangs(window: leases.Window, lease: dict[str, Any], waited_s: float) -> bool:
    """Tell whether the keeper of a lease that has ended does nothing about it any more."""
    phase = window.keeper().get("phase") if window.kept(lease) else None
    return waited_s > HANGS_S.get(str(phase), float("inf"))


def start_instead(
    window: leases.Window, lease: dict[str, Any], service: dict[str, Any], by: str, waited_s: float
) -> str | None:
    """Start the LLM from this process where the keeper has tried, and could not.

    Args:
        window: where the lease is.
        lease: the lease; it has ended.
        service: ``state_command``, ``running_regex`` and ``resume_command``, as they are now.
        by: for the record.
        waited_s: how long the keeper has had time for it, in seconds.

    Returns:
        What was done and seen, as a sentence; None where nothing was to do.
    """
    report = window.keeper()
    if not lease["service"]["running"] or report.get("id") != lease["id"]:
        return None
    if report.get("phase") not in (leases.STARTING, leases.SILENT):
        return None  # what runs inside is ended first
    failed = [row for row in report["events"] if row["event"] == "start_failed"]
    if not failed and waited_s < HELP_S:
        return None
    running, state = seen_by(service)
    if running:
        return None
    shown = " ".join(service["resume_command"])
    why = f"the keeper could not start the LLM ({failed[-1]['detail'] if failed else state})"
    wrong = ability.wrong_with(service["resume_command"], "llm_window_resume_command")
    if wrong:
        return f"{why}, and this session cannot: {wrong[0]}. Next: {wrong[1]}"
    window.started(lease["id"], by)  # before it answers, and the keeper closes the window
    done, said = run(service["resume_command"])
    if not done:
        window.started(lease["id"], None)
        return f"{why}, and from this session {shown} failed, too: {ability.tail(said)}"
    return f"{why}, so it was started from this session: {shown}"


class Keeper:
    """Watches one lease to its end and brings the LLM back.

    Args:
        window: where the lease is.
        lease: the lease.
        out: where a line per event goes: the service's journal.
        within_s: give up after so many seconds; None: never.
    """

    def __init__(
        self,
        window: leases.Window,
        lease: dict[str, Any],
        out: Any = sys.stdout,
        within_s: float | None = None,
    ) -> None:
        self.window, self.lease, self.out = window, lease, out
        self.until = None if within_s is None else time.monotonic() + within_s
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
            "started_by": None,
            "identity": None,
            "down": None,
            "seen": None,
            "able": None,
            "events": [],
        }
        before = window.keeper()
        if before.get("id") == lease["id"]:  # this service was restarted, or the host
            self._recall(before)
        self._event("keeper", f"watches the lease, process {os.getpid()}")

    def _recall(self, before: dict[str, Any]) -> None:
        """Take over what an earlier process wrote, as far as it is whole."""
        for key in ("reason", "by", "over_at", "answered_at", "started_by", "identity", "down"):
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
            if not self.window.over(self.lease):
                self._look()
            self._over(self._watch())
            self._evict()
            if self.service["running"]:
                while not self._stays(self._start()):
                    pass
        except _Gone:
            return False
        self._phase(leases.CLOSED)
        self._event("closed", "the LLM is as it was found; the lease is removed")
        self.window.close(self.lease)
        return True

    def _look(self) -> None:
        """Report whether this process is able to bring the LLM back, before it has to."""
        able = ability.look(self.service)
        if able["running"] and self.report["identity"] is None:
            self.report["identity"] = self.identity() or None
        for key in ("state", "problem", "next"):
            able[key] = leases.short(able[key])
        self.report["able"] = able
        self._write()

    def _watch(self) -> str:
        looked = time.monotonic()
        while True:
            if self.service.get("paused") and time.monotonic() - looked >= INSIDE_S:
                self._look_inside()
                looked = time.monotonic()
            if self.window.over(self.lease):
                with self.window.locked():  # a renewal that is under way counts
                    reason = self.window.over(self.lease)
                if reason:
                    return reason
            self._pause(LOOK_S)

    def _look_inside(self) -> None:
        """Notice that somebody starts the LLM inside a window that has paused it.

        One that is seen running is another than before if its identity is another; without an
        identity, if it was seen down in between.
        """
        running, state = self.running(ability.LOOK_S)
        identity, known = self.identity(ability.LOOK_S), self.report["identity"]
        down = self.report["down"]
        if running:
            if identity != known if identity and known else down is not None:
                self._event("started_inside", f"not by this run; its service says '{state}'")
                self.report.update(identity=identity or None, down=None)
        elif down is None:
            self.report["down"] = identity
            self._write()
        elif identity and down and identity != down:
            self._event("started_inside", f"not by this run; its service says '{state}' again")
            self.report.update(identity=identity, down=identity)

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

    def _start(self) -> str:
        """Start the LLM until it answers, however long that takes; return its identity then."""
        self._phase(leases.STARTING)
        wait, began = RETRY_S, time.monotonic()
        while True:
            running, state = self.running()
            if not running:
                self.report["attempts"] += 1
                done, said = run(self.service["resume_command"])
                if done:
                    self.report["started_by"] = leases.KEEPER
                    self._event("started", f"attempt {self.report['attempts']}, it was '{state}'")
                else:
                    self._note("start_failed", ability.tail(said)[-200:])
            identity = self.identity()  # before it answers: a restart afterwards is another
            seen = self._asked()
            if seen:
                self.report["seen"] = leases.short(f"{seen} (its service says '{state}')")
                self._write()
            else:
                self._answered(time.monotonic() - began)
                return identity
            if time.monotonic() - began > self.service["ready_timeout_s"]:
                self._phase(leases.SILENT)
                self._note("silent", self.report["seen"])
            # A running engine that loads is asked often, a start that fails less and less.
            self._pause(RETRY_S if running else wait)
            wait = RETRY_S if running else min(wait * 1.5, RETRY_MAX_S)

    def _answered(self, after_s: float) -> None:
        """Record the first completion, and who had started the LLM."""
        by = self.window.starter(self.lease)
        if by is None and self.report["attempts"] and not self.report["started_by"]:
            by = "somebody else"
        if by and by != self.report["started_by"]:
            self.report["started_by"] = by
            self._event("started_by", by)
        self.report.update(seen=None, answered_at=clock.utc_now(), back_after_s=round(after_s, 2))
        self._phase(leases.ANSWERED)
        self._event("answered", f"a completion, after {self.report['back_after_s']:.1f} s")

    def _stays(self, identity: str) -> bool:
        """See that the LLM stays up: a stop that was under way may still hit it.

        One that crashed and was restarted is another, and running all the same. Where this process
        cannot see the service, what counts is that it answers.

        Args:
            identity: of the one that answered.
        """
        until = time.monotonic() + self.service.get("stay_s", 10.0)  # older leases lack it
        while time.monotonic() < until:
            self._pause(LOOK_S)
            running, state = self.running()
            if not running and self._asked():
                self._event("stopped_again", f"its service says '{state}'")
                return False
            now = self.identity()
            if identity and now and now != identity:
                self._event("restarted", f"'{identity}' became '{now}'")
                return False
        seen = self._asked()
        if seen:
            self._event("stopped_again", f"it answers no more: {seen}")
        return not seen

    def _asked(self) -> str:
        """Ask for a completion; return what was seen instead, or nothing."""
        url, key = self.service["url"], self.service.get("api_key_file", "")
        try:
            name = self.service["model"] or llm.first_model(url, 10, key)
            llm.complete(url, name, 8, 30, key)
        except llm.LlmError as error:
            return str(error)
        return ""

    def running(self, within_s: float | None = None) -> tuple[bool, str]:
        """Return whether the service runs, and what it says."""
        return seen_by(self.service, within_s)

    def identity(self, within_s: float | None = None) -> str:
        """Return what changes when the LLM is started again; nothing where that is not known."""
        words = self.service.get("identity_command")
        known, said = run(words, within_s) if words else (False, "")
        return ability.tail(said) if known else ""

    # -- the record ------------------------------------------------------------------------------

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        there = self.window.lease()
        if there is None or there["id"] != self.lease["id"]:
            self._print("the lease is gone")
            raise _Gone
        if self.until is not None and time.monotonic() >= self.until:
            self._print("its time is over, and the LLM is not back")
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
            with self.window.locked():
                there = self.window.lease()
                if there and there["id"] == self.lease["id"]:  # else another keeper has closed it
                    self.window.overwrite("keeper.json", self.report, leases.KEEPER_BYTES)
        except (
            OSError,
            ValueError,
            leases.WindowError,
        ) as error:  # what matters is the LLM, not the record
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


def seen_by(service: dict[str, Any], within_s: float | None = None) -> tuple[bool, str]:
    """Return whether the LLM's service runs, and what it says, as this process sees it."""
    try:
        said = command.run(service["state_command"], within_s or COMMAND_S, check=False)
    except command.CommandError as error:
        return False, ability.tail(str(error))
    running = re.search(service["running_regex"], said, re.MULTILINE)
    return bool(running), ability.tail(said)


def run(words: Sequence[str], within_s: float | None = None) -> tuple[bool, str]:
    """Run a command of the inventory; return whether it ended well, and what it or its end says."""
    try:
        return True, command.run(words, within_s or COMMAND_S)
    except command.CommandError as error:  # a record has no room for a long command
        return False, str(error).replace(" ".join(words), words[0], 1)
