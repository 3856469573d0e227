"""The lease of a maintenance window on the LLM's host: its files, and who may change them.

A window is opened by writing a *lease* (`Window.arm`). From then on a *keeper* (`keeper.py`), a
service of the operator's own account on that host, watches the lease. When it is released, when it
runs out or when the host was rebooted, the keeper brings the LLM back and removes the lease.
Nothing depends on the holder's being there to close the window.

Time is CLOCK_BOOTTIME, which no one can set and which goes on in suspend; a boot has its own id.
Nothing that has to be written inside a window needs free space on the disk: `deadline` and
`keeper.json` are overwritten in place.

Ansible's modules import this file; on the LLM's host it lies beside the program `window.py`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator
from typing import Any

try:
    from . import clock
except ImportError:  # beside the program on the LLM's host
    import clock  # type: ignore[import-not-found,no-redef]

#: What every lease has.
LEASE = {"id", "run_id", "holder", "ttl_s", "opened_at", "opened", "boot", "service"}
#: Bytes of the files that are overwritten in place, so that a full disk does not matter.
DEADLINE_BYTES, KEEPER_BYTES = 1024, 24576

#: What the keeper is doing, in order; the window is over when there is no lease any more.
WATCHING, EVICTING, STARTING = "watching", "evicting", "starting"
SILENT, ANSWERED, CLOSED = "silent", "answered", "closed"

#: Who starts the LLM where nobody else has to.
KEEPER = "the keeper"


class WindowError(RuntimeError):
    """The request cannot be met; the message says why and what to type."""


class Held(WindowError):
    """The window is held already."""


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
    def locked(self) -> Iterator[None]:
        """Let one process at a time look and change."""
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
        record = self._read("deadline")
        if record.get("id") == lease["id"] and isinstance(record.get("deadline"), (int, float)):
            return float(record["deadline"]), str(record.get("by") or "")
        return float(lease["opened"]) + float(lease["ttl_s"]), ""

    def starter(self, lease: dict[str, Any]) -> str | None:
        """Return who started the LLM in the keeper's place, if anybody said so."""
        record = self._read("deadline")
        by = record.get("started_by") if record.get("id") == lease["id"] else None
        return by if isinstance(by, str) else None

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
            "state": "none",
            "lease": lease,
            "age_s": None,
            "left_s": None,
            "reason": None,
            "alive": False,
            "keeper": keeper,
            "last": self.last(),
        }
        if lease is None:
            return found
        found["alive"] = self.kept(lease)
        reason = self.over(lease)
        deadline, _ = self.deadline(lease)
        same_boot = lease["boot"] == clock.boot_id()
        found.update(
            state="ending" if reason else "held",
            reason=reason,
            age_s=clock.boottime() - lease["opened"] if same_boot else None,
            left_s=max(deadline - clock.boottime(), 0.0) if same_boot else 0.0,
        )
        return found

    def kept(self, lease: dict[str, Any]) -> bool:
        """Tell whether a living keeper watches this lease."""
        keeper = self.keeper()
        if keeper.get("id") != lease["id"] or keeper.get("boot") != clock.boot_id():
            return False
        with open(self._path("keeping"), "a", encoding="ascii") as lock:
            try:  # shared lock, so that concurrent readers are not taken for the keeper
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    @contextlib.contextmanager
    def keeping(self, wait: bool = True) -> Iterator[None]:
        """Be the only keeper: two would start the LLM twice.

        Args:
            wait: for one that is there.

        Raises:
            BlockingIOError: one is there, and it is not to be waited for.
        """
        with open(self._path("keeping"), "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield

    def over(self, lease: dict[str, Any]) -> str | None:
        """Return why a lease has ended: ``rebooted``, ``released`` or ``expired``; else None."""
        if lease["boot"] != clock.boot_id():
            return "rebooted"
        deadline, _ = self.deadline(lease)
        if deadline <= 0:
            return "released"
        return "expired" if clock.boottime() >= deadline else None

    # -- changing --------------------------------------------------------------------------------

    def arm(
        self, run_id: str, holder: str, ttl_s: float, service: dict[str, Any]
    ) -> dict[str, Any]:
        """Write a lease; from here on a keeper that is started brings the LLM back.

        Args:
            run_id: the run that has the window.
            holder: shown to others who are refused: ``user@control node``.
            ttl_s: how long the lease lasts without being renewed, in seconds.
            service: ``url``, ``model``, ``state_command``, ``running_regex``, ``resume_command``,
                ``running`` (as it was found), ``ready_timeout_s`` and ``stay_s``; and where there
                are such ``identity_command``, ``api_key_file`` and ``paused`` (it will be).

        Returns:
            The lease.

        Raises:
            Held: a window is open.
            OSError: the directory cannot be written.
        """
        with self.locked():
            there = self.lease()
            if there is not None:
                raise Held(self.held_by(there))
            now = clock.boottime()
            lease = {
                "id": uuid.uuid4().hex,
                "run_id": run_id,
                "holder": holder,
                "ttl_s": ttl_s,
                "opened_at": clock.utc_now(),
                "opened": now,
                "boot": clock.boot_id(),
                "service": service,
            }
            try:
                self._set_deadline(lease, now + ttl_s, holder)
                self.write_whole("lease.json", json.dumps(lease, indent=2) + "\n")
            except OSError:
                for name in ("lease.json", "deadline"):
                    with contextlib.suppress(OSError):
                        os.unlink(self._path(name))
                raise
        return lease

    def held_by(self, lease: dict[str, Any]) -> str:
        """Return a sentence that names the holder of the window."""
        since = clock.boottime() - lease["opened"]
        ago = (
            f"{clock.lasting(since)} ago"
            if lease["boot"] == clock.boot_id()
            else "before the last boot"
        )
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
        with self.locked():
            lease = self.require(lease_id)
            _, by = self.deadline(lease)
            self._set_deadline(lease, clock.boottime() + float(lease["ttl_s"]), by)
            return float(lease["ttl_s"])

    def release(self, by: str, lease_id: str | None = None) -> bool:
        """End the lease now; the keeper does the rest.

        Args:
            by: who asks, for the record.
            lease_id: the lease that is meant; None for whatever there is.

        Returns:
            Whether there was a lease to end.
        """
        with self.locked():
            lease = self.lease()
            if lease is None or lease_id not in (None, lease["id"]):
                return False
            if not self.over(lease):
                self._set_deadline(lease, 0, by)
            return True

    def started(self, lease_id: str, by: str | None) -> None:
        """Note who starts the LLM in the keeper's place; a full disk does not matter."""
        with self.locked():
            lease = self.lease()
            if lease is not None and lease["id"] == lease_id:
                deadline, released_by = self.deadline(lease)
                with contextlib.suppress(OSError, ValueError):
                    self._set_deadline(lease, deadline, released_by, by)

    def withdraw(self, lease_id: str) -> None:
        """Remove a lease under which nothing was done yet."""
        with self.locked():
            lease = self.lease()
            if lease is not None and lease["id"] == lease_id:
                self._remove_lease()

    def require(self, lease_id: str) -> dict[str, Any]:
        """Return the lease with this id.

        Raises:
            WindowError: it is not there, is another one, or has ended.
        """
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

    def _set_deadline(
        self, lease: dict[str, Any], deadline: float, by: str, started_by: str | None = None
    ) -> None:
        record = {"id": lease["id"], "deadline": deadline, "by": short(by)}
        record |= {"started_by": short(started_by)} if started_by else {}
        self.overwrite("deadline", record, DEADLINE_BYTES)

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

    def write_whole(self, name: str, text: str) -> None:
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
        with self.locked():
            with contextlib.suppress(OSError):
                os.replace(self._path("keeper.json"), self._path("last.json"))
            there = self.lease()
            if there is not None and there["id"] == lease["id"]:
                self._remove_lease()


def _ended(report: dict[str, Any]) -> str:
    lasted = clock.lasting(float(report.get("ttl_s") or 0))
    what = {
        "released": f"was released by {report.get('by') or 'its holder'}",
        "expired": f"ran out: for {lasted} nobody renewed it",
        "rebooted": "ended with a reboot of the host",
    }.get(str(report.get("reason")), "has not ended")
    return f"{what}, at {report.get('over_at')}" if report.get("over_at") else what


def story(report: dict[str, Any] | None) -> str:
    """Return what became of a window, in sentences, from what its keeper wrote."""
    if not report:
        return "No keeper's record of this window is left on the host."
    sentences = [f"The lease {_ended(report)}."]
    if report.get("evicted"):
        sentences.append(f"{report['evicted']} processes were still at work inside and were ended.")
    phase, attempts = report.get("phase"), report.get("attempts") or 0
    if report.get("answered_at"):
        how = f"was started ({attempts}x) and " if attempts else ""
        if attempts and report.get("started_by") not in (None, KEEPER):
            failed = [row for row in report.get("events", []) if row["event"] == "start_failed"]
            why = f" ({failed[-1]['detail']})" if failed else ""
            how = f"was started by {report['started_by']}, as the keeper could not{why}, and "
        sentences.append(
            f"The LLM {how}answered {report['back_after_s']:.0f} s after that began, "
            f"at {report['answered_at']}."
        )
    elif phase in (STARTING, SILENT):
        sentences.append(
            f"The LLM does not answer: {report.get('seen') or 'nothing was seen yet'}. "
            "The keeper goes on trying."
        )
    elif phase == EVICTING:
        sentences.append("What was started inside is being ended.")
    if phase == ANSWERED:
        sentences.append("The keeper is seeing it stay up.")
    return " ".join(sentences)


def short(text: str | None) -> str | None:
    """Cut a text down to what surely fits into a file of a fixed size."""
    return re.sub(r"[^ -~]", "?", text or "")[:200] or None
