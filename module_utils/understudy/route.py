"""Which voice server a client speaks to: one line of its environment file, and who changed it.

A switch has a number, its *epoch*, the same on every client. A client keeps the number, what it
was switched to, from what, and whether its reload is done, so that a switch that reached only some
of the clients is seen by the next one and finished.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import clock, record
from .command import CommandError, run

STATE, LOCK, CLAIM = "route.json", "lock", "claim.json"
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


# The environment file


def assignment(key: str) -> re.Pattern[str]:
    """Return the pattern of a line that sets a key, for systemd, Docker and shells alike."""
    return re.compile(rf"^(?P<head>\s*(?:export\s+)?{re.escape(key)}=)(?P<value>.*?)(?P<end>\s*)$")


def get(text: str, key: str) -> str | None:
    """Return the value of a key in an environment file, unquoted; the last one counts."""
    pattern = assignment(key)
    found = [match["value"] for match in map(pattern.match, text.splitlines()) if match]
    if not found:
        return None
    value = found[-1]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def put(text: str, key: str, value: str) -> str:
    """Return the file with the key set; every other byte stays, quotes and `export` too.

    Args:
        text: the environment file.
        key: it must be in there.
        value: a URL, with nothing in it that a shell would expand.

    Raises:
        RouteError: the key is not there, or the value is no such URL.
    """
    if not re.fullmatch(r"https?://[\w.:/\[\]%~-]+", value):
        raise RouteError("file", f"{value!r} is no URL of a voice server")
    pattern, lines, last = assignment(key), text.splitlines(keepends=True), -1
    for index, line in enumerate(lines):
        if pattern.match(line.rstrip("\r\n")):
            last = index
    if last < 0:
        raise RouteError("file", f"there is no line {key}=… in it")
    body = lines[last].rstrip("\r\n")
    match = pattern.match(body)
    assert match
    old = match["value"]
    quote = old[0] if len(old) > 1 and old[0] == old[-1] and old[0] in "'\"" else ""
    lines[last] = f"{match['head']}{quote}{value}{quote}{match['end']}{lines[last][len(body) :]}"
    return "".join(lines)


class Route:
    """The route of one client.

    Args:
        home: directory for what is kept about it.
        file: its environment file.
        key: the key in it that holds the URL.
    """

    def __init__(self, home: str, file: str, key: str) -> None:
        self.home = os.path.expanduser(home)
        self.file = os.path.realpath(os.path.expanduser(file))  # a link stays a link
        self.key = key

    def look(self) -> dict[str, Any]:
        """Return what the client is set to, what it keeps, and who has it claimed.

        Returns:
            ``url`` of the environment file; ``epoch`` (0: never switched), ``target``, ``previous``
            (``target``, ``url``) and ``finished`` of the last switch; ``claim`` (None, or who);
            ``foreign``: the URL was changed by hand since; ``heard``: None, or what `release` was
            told of the last switch.

        Raises:
            RouteError: the file cannot be read, or has no such key.
        """
        url = get(self._read(), self.key)
        if url is None:
            raise RouteError("file", f"{self.file} has no line {self.key}=…")
        kept = self._kept(STATE) or {}
        claim = self._kept(CLAIM)
        if claim:
            claim["age_s"] = max(0.0, time.time() - claim["at"])
        return {
            "url": url,
            "epoch": kept.get("epoch", 0),
            "target": kept.get("target"),
            "previous": kept.get("previous"),
            "finished": kept.get("finished", True),
            "foreign": bool(kept.get("finished")) and kept["url"] != url,
            "by": kept.get("by"),
            "at": kept.get("at"),
            "heard": kept.get("heard"),
            "claim": claim,
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
            there = self._kept(CLAIM)
            if there and there["id"] not in (holder["id"], instead_of):
                age = time.time() - there["at"]
                if 0 <= age < ttl_s:
                    raise RouteError(
                        "claimed",
                        f"{there['who']} is switching the clients with {there['command']}, "
                        f"since {age:.0f} s",
                    )
            self._keep(CLAIM, {**holder, "at": time.time()})

    def release(self, holder_id: str, heard: dict[str, Any] | None = None) -> bool:
        """Give the claim back; return whether it was ours.

        Args:
            holder_id: who claimed the client.
            heard: what was heard through the client's URL since; kept with the switch.
        """
        with self._locked():
            there = self._kept(CLAIM)
            if not there or there["id"] != holder_id:
                return False
            kept = self._kept(STATE)
            if kept and kept.get("heard") != (heard or None):
                self._keep(STATE, {**kept, "heard": heard or None})
            os.unlink(os.path.join(self.home, CLAIM))
            return True

    def switch(
        self, epoch: int, target: str, url: str, holder: dict[str, Any], reload_command: list[str]
    ) -> dict[str, Any]:
        """Point the client at a URL and have it reload.

        Killed at any place, it is finished by calling it again: what is to come is written down
        before the file is changed, and that it is done after the reload.

        Args:
            epoch: the number of this switch.
            target: the host that will speak, for people.
            url: of its voice server.
            holder: who claimed the client.
            reload_command: makes the client read its file again; empty for none.

        Returns:
            ``changed`` (whether the client was told anything), ``before`` and ``after`` (the
            environment file), ``reloaded``.

        Raises:
            RouteError: a newer switch is known, the claim is gone, or a step failed.
        """
        with self._locked():
            claim = self._kept(CLAIM)
            if not claim or claim["id"] != holder["id"]:
                whose = f"{claim['who']} has it" if claim else "it was given back"
                raise RouteError("claimed", f"the claim was lost: {whose}")
            kept = self._kept(STATE) or {}
            if kept.get("epoch", 0) > epoch:
                raise RouteError(
                    "claimed", f"switch {kept['epoch']} by {kept['by']} is newer than this, {epoch}"
                )
            before = self._read()
            found = get(before, self.key)
            after = put(before, self.key, url)
            settled = found == url and kept.get("finished", True)
            if settled and kept.get("epoch") == epoch and kept.get("target") == target:
                return {"changed": False, "before": before, "after": before, "reloaded": False}
            previous = kept.get("previous")
            if found != url:
                known = kept.get("target") if kept.get("url") == found else None
                previous = {"target": known, "url": found}
            state = {
                "schema_version": 1,
                "epoch": epoch,
                "target": target,
                "url": url,
                "previous": previous,
                "by": holder["who"],
                "at": clock.utc_now(),
                "finished": settled,
            }
            self._keep(STATE, state)
            if settled:  # only the number is new
                return {"changed": True, "before": before, "after": before, "reloaded": False}
            if after != before:
                self._write(after)
            self._reload(reload_command)
            self._keep(STATE, {**state, "finished": True})
            return {
                "changed": True,
                "before": before,
                "after": after,
                "reloaded": bool(reload_command),
            }

    @staticmethod
    def _reload(command: list[str]) -> None:
        if not command:
            return
        try:
            run(command, RELOAD_S)
        except CommandError as error:
            raise RouteError("reload", str(error)) from error

    def _read(self) -> str:
        try:
            with open(self.file, encoding="utf-8", newline="") as file:
                return file.read()
        except OSError as error:
            raise RouteError("file", f"{self.file}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise RouteError("file", f"{self.file} is no text file") from None

    def _write(self, text: str) -> None:
        """Replace the environment file in one step; mode and owner stay."""
        part = f"{self.file}.understudy"
        try:
            there = os.stat(self.file)
            with open(part, "w", encoding="utf-8", newline="") as file:
                os.fchmod(file.fileno(), there.st_mode & 0o7777)
                if (there.st_uid, there.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(file.fileno(), there.st_uid, there.st_gid)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self.file)
        except OSError as error:
            if os.path.exists(part):
                os.unlink(part)
            raise RouteError("file", f"{self.file} cannot be written: {error.strerror}") from error

    def _kept(self, name: str) -> dict[str, Any] | None:
        """Return one of our own files; None where there is none, or nothing of use in it."""
        try:
            with open(os.path.join(self.home, name), encoding="utf-8") as file:
                kept = json.load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if name == CLAIM:
                return None
            raise RouteError(
                "state", f"{self.home}/{name} cannot be read ({error}); remove it and run again"
            ) from error
        return kept if isinstance(kept, dict) else None

    def _keep(self, name: str, document: dict[str, Any]) -> None:
        try:
            record.write(os.path.join(self.home, name), document)
        except OSError as error:
            raise RouteError(
                "state", f"{self.home}/{name} cannot be written: {error.strerror}"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time change what is kept."""
        try:
            os.makedirs(self.home, mode=0o700, exist_ok=True)
            lock = open(os.path.join(self.home, LOCK), "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise RouteError("state", f"{self.home}: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
