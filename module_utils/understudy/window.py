"""The LLM's window: a lease on the LLM's own host, and the keeper that brings the LLM back.

A window is opened by writing a *lease* (`Window.arm`). From then on a *keeper*, a service of the
operator's own account on that host, watches the lease. When it is released, when it runs out or
when the host was rebooted, the keeper does the same thing: it stops what was started inside the
window, starts the LLM until it answers a real completion, sees it stay, and removes the lease.
Who opened the window only ever asks for that; nothing depends on his being there.

Time is CLOCK_BOOTTIME, which no one can set and which goes on in suspend; a boot has its own id.
Nothing that has to be written inside a window needs free space on the disk: `deadline` and
`keeper.json` are overwritten in place.

Ansible's modules import this file; on the LLM's host it is also a program, beside `llm.py`::

    python3 ~/.local/share/understudy/window/window.py status
    python3 ~/.local/share/understudy/window/window.py restore
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import getpass
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

try:
    from . import llm
except ImportError:  # as a program
    import llm  # type: ignore[import-not-found,no-redef]

#: Set for everything that runs inside a window, to the lease's id; the pause command has its own.
INSIDE, PAUSING = "UNDERSTUDY_WINDOW", "UNDERSTUDY_WINDOW_PAUSE"
#: What every lease has.
LEASE = {"id", "run_id", "holder", "ttl_s", "opened_at", "opened", "boot", "service"}
#: Bytes of the files that are overwritten in place, so that a full disk does not matter.
DEADLINE_BYTES, KEEPER_BYTES = 1024, 16384
#: Seconds between two looks of the keeper.
LOOK_S = 1.0
#: The LLM must stay up for so long after its first answer: a stop that was under way takes 10 s.
STAY_S = 10.0
#: Between two tries to start it, growing; and the longest that one command may take.
RETRY_S, RETRY_MAX_S, COMMAND_S = 1.0, 15.0, 180.0
#: Seconds between SIGTERM and SIGKILL, and how long a pause that is under way is waited for.
TERM_S, PAUSE_S = 10.0, 60.0

#: What the keeper is doing, in order; the window is over when there is no lease any more.
WATCHING, EVICTING, STARTING, SILENT, ANSWERED, CLOSED = (
    "watching", "evicting", "starting", "silent", "answered", "closed",
)  # fmt: skip


class WindowError(RuntimeError):
    """What was asked for cannot be had; the message says why and what to type."""


class Held(WindowError):
    """Somebody else has the window."""


class _Gone(Exception):
    """The lease was taken away from under the keeper: by hand, to make it give up."""


def boottime() -> float:
    """Return seconds since the host's boot, suspend included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return the id of this boot of the host."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    # In a container the kernel's boot is not the host's: process 1 has another start then.
    with open("/proc/1/stat", encoding="ascii") as file:
        return f"{kernel}/{file.read().rpartition(')')[2].split()[19]}"


def utc_now() -> str:
    """Return the time as every file of the project has it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def lasting(seconds: float) -> str:
    """Return a duration for a person: ``45 s``, ``12 min``, ``3 h 5 min``."""
    seconds = max(seconds, 0)
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def lingering(user: str | None = None) -> bool:
    """Tell whether a user's services go on without a login."""
    return os.path.exists(f"/var/lib/systemd/linger/{user or getpass.getuser()}")


class Window:
    """The window's files in one directory.

    Args:
        home: the directory; one per LLM.
    """

    def __init__(self, home: str) -> None:
        self.home = os.path.expanduser(home)

    def _path(self, name: str) -> str:
        return os.path.join(self.home, name)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        with open(self._path("lock"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # -- reading ---------------------------------------------------------------------------------

    def lease(self) -> dict[str, Any] | None:
        """Return the lease, or None where no window is open.

        Raises:
            WindowError: a lease is there and cannot be read.
        """
        path = self._path("lease.json")
        try:
            with open(path, encoding="utf-8") as file:
                lease: dict[str, Any] = json.load(file)
            whole = isinstance(lease, dict) and set(lease) >= LEASE
            if not whole or not isinstance(lease["service"], dict):
                raise ValueError("it is no lease")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise WindowError(
                f"the lease {path} cannot be read ({error}). "
                f"Next: see that the LLM runs, then rm {path}"
            ) from None
        return lease

    def deadline(self, lease: dict[str, Any]) -> tuple[float, str]:
        """Return when the lease runs out (boot time; 0: released) and who set that."""
        said = self._read("deadline")
        if said.get("id") == lease["id"] and isinstance(said.get("deadline"), (int, float)):
            return float(said["deadline"]), str(said.get("by") or "")
        return float(lease["opened"]) + float(lease["ttl_s"]), ""

    def keeper(self) -> dict[str, Any]:
        """Return what the keeper last wrote; nothing for a keeper that never ran."""
        return self._read("keeper.json")

    def last(self) -> dict[str, Any]:
        """Return how the last window ended."""
        return self._read("last.json")

    def _read(self, name: str) -> dict[str, Any]:
        try:
            with open(self._path(name), encoding="utf-8") as file:
                found = json.load(file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def look(self) -> dict[str, Any]:
        """Return all there is to know, for a module, a person or a test.

        Returns:
            ``state``: ``none``, ``held`` (someone has the window), ``ending`` (the keeper has to
            bring the LLM back or is about it); the lease; ``age_s``, ``left_s``; ``alive``
            (whether a keeper watches this lease); ``keeper`` and ``last``.
        """
        lease, keeper = self.lease(), self.keeper()
        found: dict[str, Any] = {
            "state": "none", "lease": lease, "age_s": None, "left_s": None, "reason": None,
            "alive": False, "keeper": keeper, "last": self.last(),
        }  # fmt: skip
        if lease is None:
            return found
        found["alive"] = self.kept(lease)
        reason = self.over(lease)
        deadline, _ = self.deadline(lease)
        same_boot = lease["boot"] == boot_id()
        found.update(
            state="ending" if reason else "held", reason=reason,
            age_s=boottime() - lease["opened"] if same_boot else None,
            left_s=max(deadline - boottime(), 0.0) if same_boot else 0.0,
        )  # fmt: skip
        return found

    def kept(self, lease: dict[str, Any]) -> bool:
        """Tell whether a living keeper watches this lease."""
        keeper = self.keeper()
        if keeper.get("id") != lease["id"] or keeper.get("boot") != boot_id():
            return False
        with open(self._path("keeping"), "a", encoding="ascii") as lock:
            try:  # shared: two who look at once are no keeper to each other
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def keeping(self) -> Iterator[None]:
        """Be the only keeper: two would start the LLM twice. Waits for one that is there."""
        with open(self._path("keeping"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def over(self, lease: dict[str, Any]) -> str | None:
        """Return why a lease has ended: ``rebooted``, ``released`` or ``expired``; else None."""
        if lease["boot"] != boot_id():
            return "rebooted"
        deadline, _ = self.deadline(lease)
        if deadline <= 0:
            return "released"
        return "expired" if boottime() >= deadline else None

    # -- changing --------------------------------------------------------------------------------

    def arm(
        self, run_id: str, holder: str, ttl_s: float, service: dict[str, Any]
    ) -> dict[str, Any]:
        """Write a lease; from here on a keeper that is started brings the LLM back.

        Args:
            run_id: the run that has the window.
            holder: who it is, for another who is refused: ``user@control node``.
            ttl_s: how long the lease lasts without being renewed, in seconds.
            service: ``url``, ``model``, ``state_command``, ``running_regex``, ``resume_command``,
                ``running`` (as it was found) and ``ready_timeout_s``.

        Returns:
            The lease.

        Raises:
            Held: a window is open.
            OSError: the directory cannot be written.
        """
        with self._locked():
            there = self.lease()
            if there is not None:
                raise Held(self.held_by(there))
            now = boottime()
            lease = {
                "id": uuid.uuid4().hex, "run_id": run_id, "holder": holder, "ttl_s": ttl_s,
                "opened_at": utc_now(), "opened": now, "boot": boot_id(), "service": service,
            }  # fmt: skip
            try:
                self._set_deadline(lease, now + ttl_s, holder)
                self._whole("lease.json", json.dumps(lease, indent=2) + "\n")
            except OSError:
                for name in ("lease.json", "deadline"):
                    with contextlib.suppress(OSError):
                        os.unlink(self._path(name))
                raise
        return lease

    def held_by(self, lease: dict[str, Any]) -> str:
        """Return a sentence about who has the window."""
        since = boottime() - lease["opened"]
        ago = f"{lasting(since)} ago" if lease["boot"] == boot_id() else "before the last boot"
        reason = self.over(lease)
        ending = "; it has ended and the LLM is being brought back" if reason else ""
        return (
            f"{lease['holder']} has the LLM's window for run {lease['run_id']}, opened {ago} "
            f"({lease['opened_at']}){ending}"
        )

    def renew(self, lease_id: str) -> float:
        """Give the lease its whole time to live again.

        Returns:
            The seconds that it lasts now.

        Raises:
            WindowError: the lease is not there, is another one, or has ended.
        """
        with self._locked():
            lease = self._mine(lease_id)
            _, by = self.deadline(lease)
            self._set_deadline(lease, boottime() + float(lease["ttl_s"]), by)
            return float(lease["ttl_s"])

    def release(self, by: str, lease_id: str | None = None) -> bool:
        """End the lease now; the keeper does the rest.

        Args:
            by: who asks, for the record.
            lease_id: the lease that is meant; None for whatever there is.

        Returns:
            Whether there was a lease to end.
        """
        with self._locked():
            lease = self.lease()
            if lease is None or lease_id not in (None, lease["id"]):
                return False
            if not self.over(lease):
                self._set_deadline(lease, 0, by)
            return True

    def withdraw(self, lease_id: str) -> None:
        """Remove a lease under which nothing was done yet."""
        with self._locked():
            lease = self.lease()
            if lease is not None and lease["id"] == lease_id:
                self._remove_lease()

    def _mine(self, lease_id: str) -> dict[str, Any]:
        lease = self.lease()
        if lease is None or lease["id"] != lease_id:
            last = self.last()
            why = f": it {_ended(last)}" if last.get("id") == lease_id else ""
            other = f"; {self.held_by(lease)}" if lease else ""
            raise WindowError(f"the lease of this window is gone{why}{other}")
        reason = self.over(lease)
        if reason:
            by = self.deadline(lease)[1] if reason == "released" else ""
            raise WindowError(
                f"the lease of this window has ended ({reason}{' by ' + by if by else ''}); "
                "the LLM is being brought back"
            )
        return lease

    def _set_deadline(self, lease: dict[str, Any], deadline: float, by: str) -> None:
        said = {"id": lease["id"], "deadline": deadline, "by": _short(by)}
        self.overwrite("deadline", said, DEADLINE_BYTES)

    def overwrite(self, name: str, document: dict[str, Any], size: int) -> None:
        """Write JSON over a file of a fixed size, in one call and without needing new blocks.

        Raises:
            ValueError: it does not fit.
            OSError: it cannot be written.
        """
        data = json.dumps(document).ljust(size - 1).encode("ascii") + b"\n"
        if len(data) != size:
            raise ValueError(f"{name}: {len(data)} bytes, at most {size} are kept")
        handle = os.open(self._path(name), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            if os.pwrite(handle, data, 0) < size:  # the disk is full: half a file counts as none
                os.ftruncate(handle, 0)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        finally:
            os.close(handle)

    def _whole(self, name: str, text: str) -> None:
        """Write a file whole or not at all, and see it to the disk: a power loss must find it."""
        part = self._path(f".{name}.part")
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self._path(name))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
        self._sync()

    def _sync(self) -> None:
        handle = os.open(self.home, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _remove_lease(self) -> None:
        for name in ("lease.json", "deadline"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(name))
        self._sync()

    def close(self, lease: dict[str, Any]) -> None:
        """Remove the lease, and keep how the window ended in ``last.json``."""
        with self._locked():
            with contextlib.suppress(OSError):
                os.replace(self._path("keeper.json"), self._path("last.json"))
            there = self.lease()
            if there is not None and there["id"] == lease["id"]:
                self._remove_lease()


def _ended(report: dict[str, Any]) -> str:
    what = {
        "released": f"was released by {report.get('by') or 'its holder'}",
        "expired": f"ran out: for {lasting(float(report.get('ttl_s') or 0))} nobody renewed it",
        "rebooted": "ended with a reboot of the host",
    }.get(str(report.get("reason")), "has not ended")
    return f"{what}, at {report.get('over_at')}" if report.get("over_at") else what


def story(report: dict[str, Any] | None) -> str:
    """Return what became of a window, in sentences, from what its keeper wrote."""
    if not report:
        return "No keeper's record of this window is left on the host."
    told = [f"The lease {_ended(report)}."]
    if report.get("evicted"):
        told.append(f"{report['evicted']} processes were still at work inside and were ended.")
    phase, attempts = report.get("phase"), report.get("attempts") or 0
    if report.get("answered_at"):
        how = f"was started ({attempts}x) and " if attempts else ""
        told.append(
            f"The LLM {how}answered {report['back_after_s']:.0f} s after that began, "
            f"at {report['answered_at']}."
        )
    elif phase in (STARTING, SILENT):
        told.append(
            f"The LLM does not answer: {report.get('seen') or 'nothing was seen yet'}. "
            "The keeper goes on trying."
        )
    elif phase == EVICTING:
        told.append("What was started inside is being ended.")
    if phase == ANSWERED:
        told.append("The keeper is seeing it stay up.")
    return " ".join(told)


class Keeper:
    """Watches one lease to its end and brings the LLM back.

    Args:
        window: where the lease is.
        lease: the lease.
        out: where a line per event goes: the service's journal.
    """

    def __init__(self, window: Window, lease: dict[str, Any], out: Any = sys.stdout) -> None:
        self.window, self.lease, self.out = window, lease, out
        self.service: dict[str, Any] = lease["service"]
        self.said: dict[str, Any] = {
            "id": lease["id"], "run_id": lease["run_id"], "ttl_s": lease["ttl_s"],
            "boot": boot_id(), "phase": WATCHING, "reason": None, "by": None, "over_at": None,
            "evicted": 0, "attempts": 0, "answered_at": None, "back_after_s": None, "seen": None,
            "events": [],
        }  # fmt: skip
        before = window.keeper()
        if before.get("id") == lease["id"]:  # this service was restarted, or the host
            self._recall(before)
        self._event("keeper", f"watches the lease, process {os.getpid()}")

    def _recall(self, before: dict[str, Any]) -> None:
        """Take over what an earlier process wrote, as far as it is whole."""
        for key in ("reason", "by", "over_at", "answered_at"):
            if isinstance(before.get(key), str):
                self.said[key] = before[key]
        for key in ("evicted", "attempts", "back_after_s"):
            if isinstance(before.get(key), (int, float)):
                self.said[key] = before[key]
        if isinstance(before.get("events"), list):
            rows = [row for row in before["events"] if isinstance(row, dict)]
            self.said["events"] = [row for row in rows if {"at", "event", "detail"} <= set(row)]

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
        self._phase(CLOSED)
        self._event("closed", "the LLM is as it was found; the lease is removed")
        self.window.close(self.lease)
        return True

    def _watch(self) -> str:
        while True:
            if self.window.over(self.lease):
                with self.window._locked():  # a renewal that is under way counts
                    reason = self.window.over(self.lease)
                if reason:
                    return reason
            self._pause(LOOK_S)

    def _over(self, reason: str) -> None:
        if self.said["reason"] is None:
            _, by = self.window.deadline(self.lease)
            self.said.update(
                reason=reason, by=by if reason == "released" else None, over_at=utc_now()
            )
            self._event(reason, f"by {by}" if reason == "released" else None)

    # -- what runs inside the window -------------------------------------------------------------

    def _evict(self) -> None:
        """End everything that was started inside the window, so that it does not fight the LLM."""
        self._phase(EVICTING)
        waited = time.monotonic() + PAUSE_S
        while tenants(self.lease["id"], PAUSING) and time.monotonic() < waited:
            self._pause(0.2)  # a stop that is under way would hit the LLM after it was started
        found = tenants(self.lease["id"], INSIDE, PAUSING)
        evicted, told = found, set()
        term_until = time.monotonic() + TERM_S
        while found and time.monotonic() < term_until + TERM_S:
            late = time.monotonic() >= term_until
            for pid, _ in found:
                if late or pid not in told:  # a second SIGTERM would disturb who tidies up
                    told.add(pid)
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            self._pause(0.2)
            found = tenants(self.lease["id"], INSIDE, PAUSING)
        if evicted:
            self.said["evicted"] += len(evicted)
            self._event("evicted", ", ".join(f"{name} ({pid})" for pid, name in evicted))
        if found:  # one that hangs in a driver: the LLM is started all the same
            self._event("not_evicted", ", ".join(f"{name} ({pid})" for pid, name in found))

    # -- the LLM ---------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Start the LLM until it answers; True when it did, however long that took."""
        self._phase(STARTING)
        wait, began = RETRY_S, time.monotonic()
        while True:
            running, state = self.running()
            if not running:
                self.said["attempts"] += 1
                ended = run(self.service["resume_command"])
                if ended.returncode == 0:
                    self._event("started", f"attempt {self.said['attempts']}, it was '{state}'")
                else:
                    self._note("start_failed", _tail(ended.stdout))
            try:
                name = self.service["model"] or llm.first_model(self.service["url"], 10)
                llm.complete(self.service["url"], name, 8, 30)
            except llm.LlmError as error:
                self.said["seen"] = _short(f"{error} (its service says '{state}')")
                self._write()
            else:
                self.said["seen"] = None
                self.said["answered_at"] = utc_now()
                self.said["back_after_s"] = round(time.monotonic() - began, 2)
                self._phase(ANSWERED)
                self._event("answered", f"a completion, after {self.said['back_after_s']:.1f} s")
                return True
            if time.monotonic() - began > self.service["ready_timeout_s"]:
                self._phase(SILENT)
                self._note("silent", self.said["seen"])
            # A running engine that loads is asked often, a start that fails less and less.
            self._pause(RETRY_S if running else wait)
            wait = RETRY_S if running else min(wait * 1.5, RETRY_MAX_S)

    def _stays(self) -> bool:
        """See that the LLM stays up: a stop that was under way may still hit it."""
        until = time.monotonic() + STAY_S
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
        self.said["phase"] = phase
        self._write()

    def _note(self, event: str, detail: str | None) -> None:
        """Record an event that may come again and again; the same detail is kept once."""
        said = [(row["event"], row["detail"]) for row in self.said["events"][-3:]]
        if (event, _short(detail)) not in said:
            self._event(event, detail)

    def _event(self, event: str, detail: str | None = None) -> None:
        events = self.said["events"]
        events.append({"at": utc_now(), "event": event, "detail": _short(detail)})
        if len(events) > 20:  # the beginning says why, the end how it went
            del events[8]
        self._print(f"{event}: {detail}" if detail else event)
        self._write()

    def _write(self) -> None:
        try:
            self.window.overwrite("keeper.json", self.said, KEEPER_BYTES)
        except (OSError, ValueError) as error:  # what matters is the LLM, not the record
            self._print(f"keeper.json cannot be written: {error}")

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a journal on a full disk, say
            print(line, file=self.out, flush=True)


def tenants(lease_id: str, *marks: str) -> list[tuple[int, str]]:
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
            # In this order: who becomes one in between is found by its environment.
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
            [os.path.expanduser(word) for word in command], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            timeout=COMMAND_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, f"{error}\n")


def _short(text: str | None) -> str | None:
    """Cut a text down to what surely fits into a file of a fixed size."""
    return re.sub(r"[^ -~]", "?", text or "")[:200] or None


def _tail(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""


def keep(window: Window) -> int:
    """Be the keeper of the lease that is there, if any. Returns the exit status."""
    if window.lease() is None:
        return 0
    with window.keeping():
        lease = window.lease()
        if lease is not None:
            Keeper(window, lease).run()
    return 0


def enter(window: Window, mark: str, command: list[str]) -> None:
    """Become a command that belongs to a window: it ends with it.

    Args:
        window: where the lease is.
        mark: ``UNDERSTUDY_WINDOW=<lease>``, or the pause command's.
        command: what to run.

    Raises:
        WindowError: the lease has ended, so the command must not start.
    """
    name, _, lease_id = mark.partition("=")
    window._mine(lease_id)
    os.environ[name] = lease_id
    os.execvp(os.path.expanduser(command[0]), [os.path.expanduser(word) for word in command])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program on the LLM's host."""
    parser = argparse.ArgumentParser(prog="window.py", description="The LLM's window on this host")
    parser.add_argument("what", choices=["status", "restore", "keep", "enter"])
    parser.add_argument("--home", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--lease", help="the window a command belongs to, for enter")
    given, command = list(sys.argv[1:] if arguments is None else arguments), []
    if "--" in given:
        given, command = given[: given.index("--")], given[given.index("--") + 1 :]
    asked = parser.parse_args(given)
    window = Window(asked.home)
    try:
        if asked.what == "keep":
            return keep(window)
        if asked.what == "enter":
            if not asked.lease or not command:
                parser.error("enter needs --lease MARK=ID and a command after --")
            enter(window, asked.lease, command)
        there = window.lease()
        if asked.what == "restore" and there:
            print(window.held_by(there), "Bringing the LLM back…", sep="\n", flush=True)
            window.release(f"{getpass.getuser()} on this host", there["id"])
            keep(window)  # waits for a keeper that is at it already
            print(story(window.last()))
        lease = window.lease()
        print(window.held_by(lease) if lease else "no window is open")
        print(json.dumps(window.look(), indent=2))
    except WindowError as error:
        print(f"window.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
