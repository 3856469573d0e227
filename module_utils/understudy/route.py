"""Which voice server a client speaks to: one line of its environment file, and who changed it.

A switch has a number, its *epoch*, the same on every client. A client keeps the number, what it
was switched to, from what, and whether its reload is done, so that a switch that reached only some
of the clients is seen by the next one and finished.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from . import clock, record
from .command import CommandError, run
from .envfile import Assignment, EnvFileError, find, mixed, public, why_not_writable, write

STATE, LOCK, CLAIM, COPY = "route.json", "lock", "claim.json", "file-before"
#: How long a reload may take, in seconds.
RELOAD_S = 60.0


class RouteError(Exception):
    """The client cannot be looked at or switched; the message says what was seen.

    Attributes:
        kind: ``file`` (the environment file), ``claimed`` (somebody else's switch), ``reload``,
            or ``state`` (what the client keeps).
    """

    def __init__(self, kind: str, seen: str) -> None:
        super().__init__(seen)
        self.kind = kind


class Route:
    """The route of one client.

    Args:
        home: directory for what is kept about all clients of this host and user.
        file: the client's environment file.
        key: the key in it that holds the URL.
        name: of the client; several of one host differ in it, and may have one file.
    """

    def __init__(self, home: str, file: str, key: str, name: str = "") -> None:
        self.shared = os.path.expanduser(home)
        self.home = os.path.join(self.shared, quote(name, safe="")) if name else self.shared
        self.file = os.path.realpath(os.path.expanduser(file))  # a link stays a link
        self.key = key

    def look(self) -> dict[str, Any]:
        """Return what the client is set to, what it keeps, and who has it claimed.

        Every URL is in one spelling, without user, password and query.

        Returns:
            ``url`` of the environment file; ``epoch`` (0: never switched), ``target``, ``previous``
            (``target``, ``url``) and ``finished`` of the last switch; ``claim`` (None, or who);
            ``foreign``: the URL was changed by hand since; ``heard``: None, or what `release` was
            told of the last switch; ``write_error``: None, or why it cannot be switched.

        Raises:
            RouteError: the file cannot be read, or has no such key.
        """
        line = self._line(self._read())
        url = line.url()
        own, last = self._switches(line)
        claim = self.claimed()
        if claim:
            claim["age_s"] = max(0.0, time.time() - claim["at"])
        return {
            "url": url,
            "epoch": own.get("epoch", 0),
            "target": last.get("target"),
            "previous": last.get("previous"),
            "finished": own.get("finished", True) and last.get("url") == own.get("url"),
            "foreign": bool(last.get("finished")) and last["url"] != url,
            "by": last.get("by"),
            "at": last.get("at"),
            "heard": own.get("heard"),
            "claim": claim,
            "write_error": self._write_error(),
        }

    def claim(self, holder: dict[str, Any], ttl_s: float, instead_of: str | None = None) -> None:
        """Take the client for one switch, so that two operators do not mix theirs.

        Args:
            holder: ``id``, ``who``, ``command``; the same id may claim again, which renews it.
            ttl_s: a claim that is older is nobody's any more.
            instead_of: id of a claim known to be dead.

        Raises:
            RouteError: somebody else has it.
        """
        with self._locked():
            there = self.claimed()
            if there and there["id"] not in (holder["id"], instead_of):
                age = time.time() - there["at"]
                if 0 <= age < ttl_s:
                    raise RouteError(
                        "claimed",
                        f"{there['who']} is switching the clients with {there['command']}, "
                        f"since {age:.0f} s",
                    )
            self._keep(CLAIM, {**holder, "at": time.time()})
            if self.home != self.shared:
                with suppress(FileNotFoundError):  # of an earlier version, and taken over
                    os.unlink(os.path.join(self.shared, CLAIM))

    def release(self, holder_id: str, heard: dict[str, Any] | None = None) -> bool:
        """Give the claim back; return whether it was ours.

        Args:
            holder_id: who claimed the client.
            heard: what was heard through the client's URL since; kept with the switch.
        """
        with self._locked():
            there = self.claimed()
            if not there or there["id"] != holder_id:
                return False
            try:
                kept = self._kept(STATE)
                if kept and kept.get("heard") != (heard or None):
                    self._keep(STATE, {**kept, "heard": heard or None})
            finally:  # nobody waits for a claim that a full disk has kept
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.home, CLAIM))
            return True

    def claimed(self) -> dict[str, Any] | None:
        """Return who has the client; an earlier version kept it for all clients of a host."""
        claim = self._kept(CLAIM) or self._kept(CLAIM, self.shared)
        return claim if claim and {"id", "who", "command", "at"} <= claim.keys() else None

    def plan(self, url: str) -> dict[str, Any]:
        """Return what a switch to a URL would do, as `switch` does.

        Raises:
            RouteError: it would fail.
        """
        seen = self.look()
        if seen["write_error"]:
            raise RouteError("file", seen["write_error"])
        before = self._read()
        after = self._changed(before, url, self._switches(self._line(before))[1])
        changed = seen["url"] != public(url) or not seen["finished"]
        return {**self._shown(before, after), "changed": changed, "reloaded": False}

    def switch(
        self, epoch: int, target: str, url: str, holder: dict[str, Any], reload_command: list[str]
    ) -> dict[str, Any]:
        """Point the client at a URL and have it reload.

        A line that stood in the file for that URL before comes back as it was, byte for byte.
        Killed at any place, the switch is finished by calling it again: what is to come is written
        down before the file is changed, and that it is done after the reload.

        Args:
            epoch: the number of this switch.
            target: the host that will speak, for people.
            url: of its voice server.
            holder: who claimed the client.
            reload_command: makes the client read its file again; empty for none.

        Returns:
            ``changed`` (whether the client was told anything), ``before`` and ``after`` (the line
            in the environment file, for people), ``reloaded``.

        Raises:
            RouteError: a newer switch is known, the claim is gone, or a step failed. Of kind
                ``reload``: the file is changed, and the client may not know.
        """
        with self._locked():
            claim = self.claimed()
            if not claim or claim["id"] != holder["id"]:
                whose = f"{claim['who']} has it" if claim else "it was given back"
                raise RouteError("claimed", f"the claim was lost: {whose}")
            before = self._read()
            line = self._line(before)
            found, (own, last) = line.url(), self._switches(line)
            if own.get("epoch", 0) > epoch:
                raise RouteError(
                    "claimed", f"switch {own['epoch']} by {own['by']} is newer than this, {epoch}"
                )
            after = self._changed(before, url, last)
            finished = own.get("finished", True) and last.get("url") == own.get("url")
            settled = finished and found == public(url)
            done = {**self._shown(before, after), "reloaded": False}
            wrong = self._write_error() if after != before else None
            if wrong:  # else the next run would find a switch that was left half-done
                raise RouteError("file", wrong)
            if settled and own.get("epoch") == epoch and own.get("target") == target:
                return {**done, "changed": False}
            previous, lines = last.get("previous"), dict(last.get("lines", {}))
            if found != public(url):
                known = last.get("target") if last.get("url") == found else None
                previous = {"target": known, "url": found}
                lines.pop(found, None)
                if line.body != line.leading_to(found):  # else it is ours, or as we would write it
                    lines[found] = line.body.decode("latin-1")  # bytes, in JSON
            state = {
                "schema_version": 2,
                "file": self.file,
                "key": self.key,
                "serial": last.get("serial", 0) + 1,
                "epoch": epoch,
                "target": target,
                "url": public(url),
                "previous": previous,
                "lines": lines,
                "by": holder["who"],
                "at": clock.utc_now(),
                "finished": settled,
            }
            self._keep(STATE, state)
            if not settled:
                self._write(before, after)
        if not settled:  # else only the number is new
            self._reload(reload_command, public(url))  # others of this host do not wait for it
            with self._locked():
                if self._kept(STATE) == state:  # else somebody else has taken over
                    self._keep(STATE, {**state, "finished": True})
            done["reloaded"] = bool(reload_command)
        return {**done, "changed": True}

    def restore(
        self, epoch: int, holder: dict[str, Any], reload_command: list[str]
    ) -> dict[str, Any]:
        """Put the line back that the last switch replaced, and have the client reload.

        Args:
            epoch: the number of the switch that is undone.
            holder: who claimed the client.
            reload_command: makes the client read its file again; empty for none.

        Returns:
            The same as `switch`.

        Raises:
            RouteError: nothing is known of a line before, the file was changed by hand since, or
                the same as `switch`.
        """
        previous = self.before()
        for home, other in self._others():
            if other.get("epoch") == epoch and other.get("heard"):
                who = os.path.basename(home)
                raise RouteError("state", f"{who}, which has the same file, was heard with it")
        target = previous["target"] or "what it was"
        return self.switch(epoch, target, previous["url"], holder, reload_command)

    def before(self) -> dict[str, Any]:
        """Return ``target`` (None if it is not known) and ``url`` of before the last switch.

        Raises:
            RouteError: nothing is known of it, or the file was changed by hand since.
        """
        seen = self.look()
        if seen["foreign"]:
            raise RouteError(
                "file", f"{self.file} was changed by hand to {seen['url']}; it was left so"
            )
        if not seen["previous"]:
            raise RouteError("state", f"{self.home}/{STATE} knows of no URL before {seen['url']}")
        previous: dict[str, Any] = seen["previous"]
        return previous

    def _reload(self, command: list[str], url: str) -> None:
        if not command:
            return
        try:
            run(command, RELOAD_S)
        except CommandError as error:
            raise RouteError(
                "reload", f"{self.file} names {url or 'no URL'} now, and the reload failed: {error}"
            ) from error

    # The environment file

    def _read(self) -> bytes:
        """Return the environment file, as it was before a write that a crash has cut off."""
        try:
            with open(self.file, "rb") as file:
                now = file.read()
        except OSError as error:
            raise self._file_error(error) from error
        kept = self._kept(STATE)
        with suppress(OSError):
            with open(os.path.join(self.home, COPY), "rb") as file:
                old = file.read()
            if kept and mixed(now, old, self._changed(old, kept["url"], kept)):
                return old
        return now

    def _line(self, data: bytes) -> Assignment:
        """Return the line that sets the key, with a URL that is certain."""
        line = find(data, self.key)
        if not line:
            raise RouteError("file", f"{self.file} has no line {self.key}=…")
        try:
            line.url()
            return line
        except EnvFileError as error:
            raise RouteError("file", f"{self.file}, {error}") from error

    def _changed(self, data: bytes, url: str, known: dict[str, Any]) -> bytes:
        """Return the file with a line for a URL: the one that is known, or ours."""
        line, url = self._line(data), public(url)
        if line.url() == url:
            return data
        kept = known.get("lines", {}).get(url)
        if not url and kept is None:
            raise RouteError("file", "what is to be written is no URL of a voice server")
        body = line.leading_to(url) if kept is None else kept.encode("latin-1")
        return data[: line.start] + body + data[line.start + len(line.body) :]

    def _shown(self, before: bytes, after: bytes) -> dict[str, str]:
        """Return the line before and after, without what may be secret in it."""
        shown = {}
        for name, data in (("before", before), ("after", after)):
            line = self._line(data)
            more = "" if line.body == line.leading_to(line.url()) else " …"
            shown[name] = f"{self.key}={line.url()}{more}\n"
        return shown

    def _write(self, before: bytes, after: bytes) -> None:
        try:
            with open(self.file, "rb") as file:
                now = file.read()
            copy = os.path.join(self.home, COPY)
            if now != after:
                write(self.file, before, after, copy)
            elif os.path.exists(copy):  # killed after the last byte
                os.unlink(copy)
        except OSError as error:
            raise self._file_error(error, " cannot be written") from error

    def _write_error(self) -> str | None:
        """Return why this client cannot be switched, with the next command; None where it can."""
        path, seen = self.file, why_not_writable(self.file)
        if not seen:
            path = self.home
            while not os.path.exists(path):
                path = os.path.dirname(path)
            if os.access(path, os.W_OK | os.X_OK, effective_ids=True):
                return None
            seen = "Permission denied"
        who = user()
        denied = f"sudo chown {who} {path}"
        step = denied if seen == "Permission denied" else f"findmnt --target {path}; lsattr {path}"
        return f"{path} cannot be written by {who}: {seen}. Next, on this host: {step}"

    def _file_error(self, error: OSError, what: str = "") -> RouteError:
        return RouteError("file", f"{self.file}{what}: {error.strerror}")

    # What is kept

    def _switches(self, line: Assignment) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the last switch of this client, and that of its file; both empty where none is.

        They differ where another client of this host has the same file.
        """
        own = self._kept(STATE)
        if own is None and self.home != self.shared:
            own = adopted(self._kept(STATE, self.shared) or {}, line)
        last = own = own or {}
        for _, other in self._others():
            if other["serial"] > last.get("serial", 0):
                last = other
        return own, last

    def _others(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield home and state of the other clients of this host that have the same file."""
        for path in glob.glob(os.path.join(glob.escape(self.shared), "*", STATE)):
            home = os.path.dirname(path)
            other = self._kept(STATE, home) if home != self.home else None
            if other and (other.get("file"), other.get("key")) == (self.file, self.key):
                yield home, other

    def _kept(self, name: str, home: str = "") -> dict[str, Any] | None:
        """Return one of our own files; None where there is none, or nothing of use in it."""
        path = os.path.join(home or self.home, name)
        try:
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            if name == CLAIM or home:
                return None
            raise RouteError(
                "state", f"{path} cannot be read ({error}); remove it and run again"
            ) from error
        return kept if isinstance(kept, dict) else None

    def _keep(self, name: str, document: dict[str, Any]) -> None:
        try:
            record.write(os.path.join(self.home, name), document, mode=0o600)
        except OSError as error:
            raise RouteError(
                "state", f"{self.home}/{name} cannot be written: {error.strerror}"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change what is kept about the clients of this host."""
        try:
            os.makedirs(self.home, mode=0o700, exist_ok=True)
            lock = open(os.path.join(self.shared, LOCK), "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise RouteError("state", f"{error.filename}: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def adopted(old: dict[str, Any], line: Assignment) -> dict[str, Any]:
    """Return the state that an earlier version kept; empty where it tells of another client.

    That version kept one state for all clients of a host, and replaced in the line just the value.
    """
    if not old or (old["finished"] and public(old["url"]) != line.url()):
        return {}
    old = {**old, "url": public(old["url"])}
    if not old.get("previous"):
        return old
    body = line.leading_to(old["previous"]["url"])
    before = find(body, line.key)
    try:
        url = before.url() if before else ""
    except EnvFileError:
        return {**old, "previous": None}
    lines = {url: body.decode("latin-1")}
    return {**old, "previous": {**old["previous"], "url": url}, "lines": lines}


def user() -> str:
    """Return the name of this process's user."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
