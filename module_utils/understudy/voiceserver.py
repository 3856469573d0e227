"""Looking at a voice server from its own host, and bringing it up or down.

How it is started and stopped is data: commands as lists. Whether it *speaks* is its ``/health``,
which is 200 only after a real synthesis that passed the audio checks.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any

from . import clock
from .command import CommandError, run
from .http_request import NoReply, ask

#: Seconds between two looks, for one look, and for one command.
LOOK_S, HEALTH_S, COMMAND_S = 0.1, 2.0, 90.0
#: The service's own state is asked for this often, in seconds.
STATE_S = 1.0
#: One that says for so long that it cannot speak is not waited for, in seconds.
FAILING_S = 20.0
LOG_CHARACTERS = 1500


class ServerError(Exception):
    """The server did not come up or down; the message says what was seen."""


@dataclass
class VoiceServer:
    """One voice server on this host.

    Attributes:
        health_url: where it says how it is.
        state_command: prints what its service is doing.
        running_regex: what that prints where it runs, or is about to.
        failed_regex: and where it was given up.
        start_command: starts it, and does not wait.
        stop_command: stops it, and keeps a boot from starting it.
        keep_command: has a boot start it, too; empty for none. Where it fails, on a full disk, the
            voice is there all the same.
        reset_command: makes a service that was given up startable again; empty for none.
        log_command: prints its last lines.
        made_of: what it reads when it starts, files and directories of files.
    """

    health_url: str
    state_command: list[str]
    running_regex: str
    failed_regex: str
    start_command: list[str]
    stop_command: list[str]
    keep_command: list[str] = field(default_factory=list)
    reset_command: list[str] = field(default_factory=list)
    log_command: list[str] = field(default_factory=list)
    made_of: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list, init=False)

    def health(self) -> dict[str, Any] | None:
        """Return what the server says of itself; None where nothing of ours answers.

        Another program on that port answers something else.
        """
        try:
            found = json.loads(ask(self.health_url, HEALTH_S).body)
        except (NoReply, ValueError):
            return None
        return found if isinstance(found, dict) and "state" in found else None

    def service(self) -> str:
        """Return what the service says: ``running``, ``failed`` or ``stopped``."""
        output = self._run(self.state_command, check=False)
        if re.search(self.running_regex, output, re.MULTILINE):
            return "running"
        return "failed" if re.search(self.failed_regex, output, re.MULTILINE) else "stopped"

    def look(self) -> dict[str, Any]:
        """Return ``service``, ``health``, ``outdated`` and ``ends_with_login``."""
        service, health = self.service(), self.health()
        return {
            "service": service,
            "health": health,
            "outdated": self._outdated(health),
            "ends_with_login": self._ends_with_login(),
        }

    def _outdated(self, health: dict[str, Any] | None) -> bool:
        """Whether something that it is made of was changed after it had started."""
        try:
            started = clock.unix((health or {})["started_at"])
        except (KeyError, TypeError, ValueError):
            return False
        return max(map(_changed_at, self.made_of), default=0.0) > started + 1  # in whole seconds

    def _ends_with_login(self) -> bool:
        """Whether it is a service of the user's systemd, which ends with the last login."""
        if "--user" not in self.start_command:
            return False
        return not os.path.exists(f"/var/lib/systemd/linger/{getpass.getuser()}")

    def warm(self, timeout_s: float) -> bool:
        """Bring it up and wait until it has spoken; return whether anything was started.

        Raises:
            ServerError: it does not come up; what was seen, and the end of its log.
        """
        service, health = self.service(), self.health()
        started = service != "running"
        if started and health:
            raise ServerError(
                f"{self.health_url} answers although the service is {service}: "
                "something else has its port"
            )
        if service == "failed" and self.reset_command:
            self._run(self.reset_command)
        if started:
            self._run(self.start_command)
        self._keep()  # each time: it may have failed before
        asked = spoke = time.monotonic()
        deadline = asked + timeout_s
        while not (health and health.get("ready")):
            if time.monotonic() - asked >= STATE_S:
                asked, service = time.monotonic(), self.service()
                if service == "failed":
                    raise ServerError(f"its service has given up{self._log()}")
            if not health or health["state"] != "failing":
                spoke = time.monotonic()
            if health and time.monotonic() - spoke >= FAILING_S:
                raise ServerError(f"it runs and cannot speak: {health.get('error')}{self._log()}")
            if time.monotonic() >= deadline:
                seen = (
                    f"it says '{health['state']}': {health.get('error')}"
                    if health
                    else "nothing answers"
                )
                raise ServerError(f"not ready after {timeout_s:.0f} s, {seen}{self._log()}")
            time.sleep(LOOK_S)
            health = self.health()
        return started

    def renewed(self, timeout_s: float) -> bool:
        """As `warm`, with what it is made of now; return whether anything was started."""
        if self._outdated(self.health()):
            self.cold()
        return self.warm(timeout_s)

    def _keep(self) -> None:
        if self.keep_command:
            try:
                run(self.keep_command, COMMAND_S)
            except CommandError as error:
                self.warnings.append(f"a reboot would not start the voice: {error}")

    def cold(self) -> bool:
        """Stop it and wait until it is gone; return whether it ran.

        Raises:
            ServerError: the command fails, or it is still there.
        """
        if self.service() == "stopped":
            return False
        self._run(self.stop_command)
        if self.service() == "running":
            raise ServerError(f"{' '.join(self.stop_command)} ended well, and it still runs")
        return True

    def idle(self, timeout_s: float) -> bool:
        """Wait until it serves no request; return whether that came in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            health = self.health()
            if not health or not (health.get("busy") or health.get("waiting")):
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_S)

    def _run(self, command: list[str], check: bool = True) -> str:
        try:
            return run(command, COMMAND_S, check=check)
        except CommandError as error:
            raise ServerError(f"{error}{self._log() if check else ''}") from error

    def _log(self) -> str:
        if not self.log_command:
            return ""
        try:
            output = self._run(self.log_command, check=False)
        except ServerError:
            return ""
        return f"; the end of its log:\n{output[-LOG_CHARACTERS:]}" if output else ""


def _changed_at(path: str) -> float:
    """Return when a file, a link or what is in a directory was last changed, in Unix seconds."""
    path = os.path.expanduser(path)
    try:
        times = [os.lstat(path).st_mtime]
        if os.path.isdir(path) and not os.path.islink(path):
            times += [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(path)]
    except OSError:
        return 0.0
    return max(times)
