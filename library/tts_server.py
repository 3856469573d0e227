#!/usr/bin/python
"""Bring a standby's voice server up or down."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tts_server
short_description: Bring a standby's voice server up or down
description:
  - Up means that it has spoken, not that a process runs; down means that its service is stopped.
options:
  state:
    description:
      - V(seen) looks.
      - V(warm) starts the server unless it runs, and waits until it has spoken.
      - V(renewed) does that, too, and starts a server anew if what it is made of has changed.
      - V(cold) stops it.
      - V(idle) waits for a moment in which it speaks to nobody.
    type: str
    choices: [seen, warm, renewed, cold, idle]
    default: seen
  service:
    description: Where it is, and the commands for it.
    type: dict
    required: true
    suboptions:
      health_url:
        description: Where the server says how it is, as its own host sees it.
        type: str
        required: true
      state_command:
        description: The command that prints what its service is doing, as a list.
        type: list
        elements: str
        required: true
      running_regex:
        description: What that prints where the service runs or is about to.
        type: str
        required: true
      failed_regex:
        description: What that prints where the service was given up.
        type: str
        required: true
      start_command:
        description: The command that starts it, as a list.
        type: list
        elements: str
        required: true
      stop_command:
        description: The command that stops it, and keeps a boot from starting it, as a list.
        type: list
        elements: str
        required: true
      keep_command:
        description:
          - The command that has a boot start it, too, as a list.
          - That it fails, on a full disk, is a warning.
        type: list
        elements: str
        default: []
      reset_command:
        description: The command that makes a service that was given up startable again, as a list.
        type: list
        elements: str
        default: []
      log_command:
        description: The command that prints the end of its log, as a list.
        type: list
        elements: str
        default: []
      made_of:
        description: Files, links and directories of files that it reads when it starts.
        type: list
        elements: str
        default: []
  wait_s:
    description: How long to wait, in seconds, for V(warm) and V(idle).
    type: float
    default: 120
attributes:
  check_mode:
    support: full
    description: It looks, and says whether it would be started or stopped.
  diff_mode:
    support: none
    description: A service has no text.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Is the standby's voice up?
  tts_server:
    service:
      health_url: http://127.0.0.1:8772/health
      state_command: [systemctl, --user, is-active, understudy-tts]
      running_regex: ^(active|activating)$
      failed_regex: ^failed$
      start_command: [systemctl, --user, start, --no-block, understudy-tts]
      stop_command: [systemctl, --user, stop, understudy-tts]
"""

RETURN = r"""
service:
  description: V(running), V(failed) or V(stopped).
  returned: always
  type: str
health:
  description: What the server says of itself; null where none of ours answers.
  returned: always
  type: dict
outdated:
  description: Whether it runs with something that was changed since it started.
  returned: always
  type: bool
ends_with_login:
  description: Whether it ends when the user's last login does, since the user does not linger.
  returned: always
  type: bool
idle:
  description: Whether there was a moment in which it spoke to nobody.
  returned: for V(idle)
  type: bool
wall_s:
  description: How long it took.
  returned: success
  type: float
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy.voiceserver import ServerError, VoiceServer

#: The commands that a service has, and may have.
MUST, MAY = ("state", "start", "stop"), ("keep", "reset", "log")


def run(module: AnsibleModule, server: VoiceServer) -> dict[str, Any]:
    state, wait_s = module.params["state"], module.params["wait_s"]
    if state == "seen" or module.check_mode:
        seen = server.look()
        ready = bool(seen["health"] and seen["health"].get("ready"))
        changed = {
            "warm": not ready,
            "renewed": not ready or seen["outdated"],
            "cold": seen["service"] == "running",
        }
        return {**seen, "changed": changed.get(state, False)}
    if state == "idle":
        return {"idle": server.idle(wait_s), **server.look()}
    up = {"warm": server.warm, "renewed": server.renewed}
    changed = up[state](wait_s) if state in up else server.cold()
    return {**server.look(), "changed": changed}


def warn(module: AnsibleModule, server: VoiceServer) -> None:
    for text in server.warnings:
        module.warn(text)


def main() -> None:
    required = {"type": "str", "required": True}
    command = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "default": "seen",
                "choices": ["seen", "warm", "renewed", "cold", "idle"],
            },
            "service": {
                "type": "dict",
                "required": True,
                "options": {
                    "health_url": required,
                    "running_regex": required,
                    "failed_regex": required,
                    **{f"{name}_command": {**command, "required": True} for name in MUST},
                    **{f"{name}_command": {**command, "default": []} for name in MAY},
                    "made_of": {**command, "default": []},
                },
            },
            "wait_s": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
    )
    began = time.monotonic()
    server = VoiceServer(**module.params["service"])
    try:
        result = run(module, server)
    except ServerError as error:
        seen = {"service": None, "health": server.health()}
        warn(module, server)
        module.fail_json(msg=str(error), wall_s=time.monotonic() - began, **seen)
    warn(module, server)
    module.exit_json(**{"changed": False, "wall_s": time.monotonic() - began, **result})


if __name__ == "__main__":
    main()
