#!/usr/bin/python
"""Arm, renew and end the lease that brings the LLM back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_lease
short_description: Arm, renew and end the lease that brings the LLM back
description:
  - A lease on the LLM's own host, watched by a keeper there, brings the LLM back when it is
    released, when it runs out, or when the host was rebooted; see docs/gemma-window.md.
  - This module only asks. What has to happen happens on the host, whether or not the play lives on.
  - An action plugin of the same name shows what the keeper does meanwhile, and waits out a
    connection that is lost on the way.
options:
  home:
    description: Directory of the window on the LLM's host.
    type: path
    required: true
  state:
    description:
      - V(seen) looks.
      - V(settled) also waits until a window that has ended is closed; one that is held is left.
      - V(installed) writes the keeper's program into O(home).
      - V(armed) writes a lease and returns when a keeper watches it; fails if there is a window, or
        if the keeper would not be able to bring the LLM back.
      - V(renewed) gives O(lease) its whole time to live again; fails if it has ended.
      - V(answered) ends the lease and waits until the LLM has given a completion.
      - V(closed) ends the lease and waits until the keeper has seen the LLM stay up.
    type: str
    choices: [seen, settled, installed, armed, renewed, answered, closed]
    default: seen
  lease:
    description: Id of the lease that is meant; left out, V(answered) and V(closed) take any.
    type: str
  run_id:
    description:
      - The run that has the window, for V(armed).
      - With V(answered) and V(closed), end a window only if it is this run's.
    type: str
  run_dir:
    description:
      - Run directory on the control node. With V(armed), a second process there runs restore.yml
        if the play ends before V(closed) was reached.
    type: path
  holder:
    description:
      - Who has or ends the window, as others will read it.
      - Left out with V(closed), the window is taken as ended before, and only its end is shown.
    type: str
  ttl_s:
    description: How long the lease lasts without being renewed, in seconds; for V(armed).
    type: float
  service:
    description:
      - What the keeper needs, for V(armed).
      - With V(answered) and V(closed), how this session starts the LLM where the keeper cannot.
    type: dict
    suboptions:
      url:
        description: Base of the LLM's OpenAI-style API on this host, without C(/v1).
        type: str
        required: true
      model:
        description: The model to ask for; empty for the first that is listed.
        type: str
        default: ""
      state_command:
        description: The command that prints the state of its service, as a list.
        type: list
        elements: str
        required: true
      running_regex:
        description: What that prints where the service runs.
        type: str
        required: true
      resume_command:
        description: The command that starts it, as a list.
        type: list
        elements: str
        required: true
      identity_command:
        description: Prints what changes whenever the LLM is started, as a list; empty for none.
        type: list
        elements: str
        default: []
      api_key_file:
        description: A file on this host with the LLM's API key, of mode 0600; empty for none.
        type: str
        default: ""
      paused:
        description: Whether this window pauses it; then one that runs inside was started by others.
        type: bool
        default: false
      running:
        description: Whether it was found running; one that was not is not started. For V(armed).
        type: bool
        default: true
      ready_timeout_s:
        description: After how many seconds an LLM that gives no completion is called silent.
        type: float
        required: true
      stay_s:
        description: So long it must stay up after its first completion, in seconds.
        type: float
        required: true
  lingers:
    description: With V(armed), fail unless services of this user run without a login.
    type: bool
    default: false
  waited_s:
    description: How long the end of the window is waited for already, in seconds.
    type: float
    default: 0
  keeper_command:
    description: The command that starts the keeper's service, as a list.
    type: list
    elements: str
    default: []
  wait_s:
    description: How long to wait for the LLM, in seconds.
    type: float
    default: 900
  lost_s:
    description: How long a lost connection is waited out, in seconds.
    type: float
    default: 60
attributes:
  check_mode:
    support: full
    description: It only looks.
  diff_mode:
    support: none
    description: A lease is no setting.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Bring the LLM back, whoever has the window
  llm_lease:
    home: ~/.local/share/understudy/window
    state: closed
    holder: me@control
"""

RETURN = r"""
window:
  description:
    - C(state) (V(none), V(held), V(ending)), C(lease), C(age_s), C(left_s), C(reason), C(alive),
      C(keeper) and C(last), as C(module_utils/understudy/lease.py) describes them.
    - C(lingering) says whether services of the user run without a login.
  returned: always
  type: dict
report:
  description:
    - What the keeper wrote about the lease that was meant, also when it is closed; without
      O(lease) and without a window, about the last one.
  returned: when there is such a record
  type: dict
busy:
  description: The time from the LLM's start to its first completion, as a row of C(busy).
  returned: always
  type: list
story:
  description: The same in sentences.
  returned: always
  type: str
helped:
  description: What this session did or tried where the keeper could not start the LLM.
  returned: for V(answered) and V(closed)
  type: str
said:
  description: What was found and done, in sentences for the operator.
  returned: always
  type: str
"""

import getpass
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import ability, clock, command, llm, window
from ansible.module_utils.understudy import keeper as keepers
from ansible.module_utils.understudy import lease as leases

#: What the keeper consists of on the LLM's host; the last one is the program.
PROGRAM = (clock, command, llm, ability, leases, keepers, window)
#: How long a keeper may take to be there, in seconds.
KEEPER_S = 20.0


def lingering() -> bool:
    """Return whether services of this user go on without a login."""
    user = getpass.getuser()
    try:
        asked = ["loginctl", "show-user", user, "--property=Linger"]
        return "Linger=yes" in command.run(asked, 10)
    except command.CommandError:  # it is not there, or does not know a user without a session
        return os.path.exists(f"/var/lib/systemd/linger/{user}")


class LeaseModule:
    """What the module does; the window's own code is in module_utils."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.p = module.params
        self.window = leases.Window(self.p["home"])
        self.helped: str | None = None
        self.instead = False

    def install(self) -> bool:
        """Write the keeper's program, as this module was sent; return whether it changed."""
        home, changed = Path(self.window.home), False
        if not home.is_dir():
            changed = True
            if not self.module.check_mode:
                home.mkdir(mode=0o700, parents=True)
        for part in PROGRAM:
            file = home / f"{part.__name__.rpartition('.')[2]}.py"
            source = part.__loader__.get_source(part.__name__)
            if not file.exists() or file.read_text(encoding="utf-8") != source:
                changed = True
                if not self.module.check_mode:
                    self.window.write_whole(file.name, source)
        return changed

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = self.window.look()
        found["lingering"] = lingering()
        found["user"] = getpass.getuser()
        return found

    def start_keeper(self, lease: dict[str, Any], *, by_hand: bool) -> str:
        """See that a keeper watches the lease; return what was seen if none does.

        Args:
            lease: the lease.
            by_hand: without its service, start the keeper itself: better than none.
        """
        deadline = time.monotonic() + KEEPER_S
        seen, detached = "", False
        while not self.window.kept(lease):
            if self.window.lease() is None:
                return ""
            if time.monotonic() >= deadline:
                if not by_hand:
                    return seen or "no keeper appeared"
                self._detach()
                return ""
            done, said = True, ""
            if self.p["keeper_command"]:
                done, said = keepers.run(self.p["keeper_command"])
            if not done:
                seen = said[-500:]
                if by_hand and not detached:
                    self._detach()
                    detached = True
            for _ in range(8):
                if self.window.kept(lease):
                    break
                time.sleep(0.25)
        return ""

    def _detach(self, *options: str) -> None:
        """Start the keeper as a process of its own, which outlives this one."""
        program = os.path.join(self.window.home, "window.py")
        subprocess.Popen(
            [sys.executable, program, "keep", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def arm(self) -> dict[str, Any]:
        p = self.p
        if p["lingers"] and not lingering():
            raise leases.WindowError(
                f"services of {getpass.getuser()} end with the last login, so no keeper would "
                "bring the LLM back; it was not touched. "
                f"Next: sudo loginctl enable-linger {getpass.getuser()}"
            )
        lease: dict[str, Any] = self.window.arm(p["run_id"], p["holder"], p["ttl_s"], p["service"])
        seen = self.start_keeper(lease, by_hand=False)
        if seen:
            why = f"no keeper watches the lease, so the LLM was not touched: {seen}. "
            why += f"Next: {' '.join(p['keeper_command'])}"
        else:
            unable = ability.difference(p["service"], ability.look(p["service"]), self._able(lease))
            why = f"the LLM was not touched: {unable}" if unable else ""
        if why:
            self.window.withdraw(lease["id"])
            raise leases.WindowError(why)
        return lease

    def _able(self, lease: dict[str, Any]) -> dict[str, Any] | None:
        """Return how the keeper of a lease sees the LLM's service, when it has looked."""
        deadline = time.monotonic() + 2 * ability.LOOK_S + KEEPER_S
        while self.window.kept(lease) and time.monotonic() < deadline:
            able = self.window.keeper().get("able")
            if isinstance(able, dict):
                return able
            time.sleep(0.25)
        return None

    def end(self) -> bool:
        """Wait for the keeper; returns whether there was anything to end."""
        state, began = self.p["state"], time.monotonic()
        deadline = began + self.p["wait_s"]
        before = self.window.lease()
        meant = {"id": self.p["lease"], "run_id": self.p["run_id"]}
        if before is None or any(want and before.get(key) != want for key, want in meant.items()):
            return False
        if state != "settled":
            self.window.release(self.p["holder"] or "unknown holder", before["id"])
        elif not self.window.over(before):
            return False
        while True:
            there = self.window.lease()
            if there is None or there["id"] != before["id"]:
                return True
            self.start_keeper(there, by_hand=True)
            if state != "settled":
                self._help(there, self.p["waited_s"] + time.monotonic() - began)
            phase = self.window.keeper().get("phase") if self.window.kept(there) else None
            if (state == "answered" and phase == leases.ANSWERED) or time.monotonic() >= deadline:
                return True
            time.sleep(0.25)

    def _help(self, lease: dict[str, Any], waited_s: float) -> None:
        """Do what the keeper cannot: it may hang, or not be able to start the LLM."""
        if keepers.hangs(self.window, lease, waited_s):
            if not self.instead:
                self._detach("--instead")
            self.instead = True
        elif self.p["service"]:
            by = f"{self.p['holder'] or 'this session'}, from a session of its own"
            service = self.p["service"]
            said = keepers.start_instead(self.window, lease, service, by, waited_s)
            self.helped = said or self.helped


def loading(report: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the time that the LLM loaded its model, in Unix seconds; empty if it was up."""
    if not report or not report.get("attempts"):
        return []
    try:
        end = clock.unix(report["answered_at"])
        return [{"what": "model_load", "start": end - report["back_after_s"], "end": end}]
    except (KeyError, TypeError, ValueError):  # not answered yet, or a damaged record
        return []


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "home": {"type": "path", "required": True},
            "state": {
                "type": "str",
                "default": "seen",
                "choices": [
                    "seen",
                    "settled",
                    "installed",
                    "armed",
                    "renewed",
                    "answered",
                    "closed",
                ],
            },
            "lease": {"type": "str"},
            "run_id": {"type": "str"},
            "run_dir": {"type": "path"},
            "holder": {"type": "str"},
            "ttl_s": {"type": "float"},
            "service": {
                "type": "dict",
                "options": {
                    "url": {"type": "str", "required": True},
                    "model": {"type": "str", "default": ""},
                    "state_command": {"type": "list", "elements": "str", "required": True},
                    "running_regex": {"type": "str", "required": True},
                    "resume_command": {"type": "list", "elements": "str", "required": True},
                    "identity_command": {"type": "list", "elements": "str", "default": []},
                    "api_key_file": {"type": "str", "default": "", "no_log": False},
                    "paused": {"type": "bool", "default": False},
                    "running": {"type": "bool", "default": True},
                    "ready_timeout_s": {"type": "float", "required": True},
                    "stay_s": {"type": "float", "required": True},
                },
            },
            "lingers": {"type": "bool", "default": False},
            "waited_s": {"type": "float", "default": 0},
            "keeper_command": {"type": "list", "elements": "str", "default": []},
            "wait_s": {"type": "float", "default": 900},
            "lost_s": {"type": "float", "default": 60},
        },
        required_if=[
            ("state", "armed", ("run_id", "holder", "ttl_s", "service")),
            ("state", "renewed", ("lease",)),
        ],
        supports_check_mode=True,
    )
    asked = LeaseModule(module)
    state, changed, lease_id = module.params["state"], False, module.params["lease"]
    try:
        if state == "installed":
            changed = asked.install()
        elif state != "seen" and not module.check_mode:
            if state == "armed":
                lease_id, changed = asked.arm()["id"], True
            elif state == "renewed":
                asked.window.renew(lease_id)
                # Without its service, a keeper that is started by hand is better than none.
                asked.start_keeper(asked.window.lease() or {"id": lease_id}, by_hand=True)
            else:
                before = asked.window.lease()
                changed = asked.end()
                lease_id = lease_id or (before["id"] if before and changed else None)
        found = asked.look()
    except (leases.WindowError, OSError) as error:
        module.fail_json(msg=str(error), held=isinstance(error, leases.Held))
    records = [found["keeper"], found["last"]]
    report = next((row for row in records if lease_id and row.get("id") == lease_id), None)
    if not lease_id and module.params["run_id"] in (None, found["last"].get("run_id")):
        report = found["last"] or None
    story, there = leases.story(report), found["lease"]
    if there:
        said = f"{asked.window.held_by(there)}."
        if found["state"] == "ending" and found["keeper"].get("id") == there["id"]:
            said += f" {leases.story(found['keeper'])}"
    else:
        said = story if changed else "No window was open."
    if there and asked.helped:
        said += f" {asked.helped}."
    module.exit_json(
        changed=changed,
        window=found,
        report=report,
        busy=loading(report),
        story=story,
        helped=asked.helped,
        said=said,
    )


if __name__ == "__main__":
    main()
