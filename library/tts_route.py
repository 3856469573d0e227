#!/usr/bin/python
"""Point a client of the voice at another voice server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tts_route
short_description: Point a client of the voice at another voice server
description:
  - Edits one line of the client's environment file, whole or not at all, and has the client
    reload it.
  - Every switch has a number, the same on all clients; what a switch left half-done is finished by
    the next one. A claim keeps two operators from switching at the same time.
  - An action plugin of the same name takes over a claim of this control node whose play is dead.
options:
  file:
    description: The client's environment file; C(~) is the remote user's home.
    type: str
    required: true
  key:
    description: The key in it that holds the voice server's URL; it must be there.
    type: str
    required: true
  home:
    description: Directory for what is kept about the switches.
    type: str
    required: true
  state:
    description:
      - V(seen) looks.
      - V(claimed) keeps others from switching; fails if somebody else does.
      - V(switched) points the client at O(url) and reloads it; needs the claim.
      - V(released) gives the claim back.
    type: str
    choices: [seen, claimed, switched, released]
    default: seen
  holder:
    description: Who switches, with C(id), C(who) and C(command); the action plugin fills it in.
    type: dict
  instead_of:
    description: Id of a claim whose holder is dead; the action plugin fills it in.
    type: str
  claim_ttl_s:
    description: Age in seconds at which somebody else's claim counts no more.
    type: float
    default: 300
  heard:
    description: What was heard through the client's URL, kept with the switch, for V(released).
    type: dict
  epoch:
    description: The number of the switch, for V(switched).
    type: int
  target:
    description: The host that is to speak, for V(switched).
    type: str
  url:
    description: Of its voice server, for V(switched).
    type: str
  reload_command:
    description: The command that makes the client read its file, as a list; empty for none.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: It looks, and says what would be written.
  diff_mode:
    support: full
    description: The environment file before and after.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Where does the client's voice come from?
  tts_route:
    file: ~/voice-agent.env
    key: CHATTERBOX_URL
    home: ~/.local/share/understudy/route
"""

RETURN = r"""
route:
  description:
    - C(url), C(epoch), C(target), C(previous), C(finished), C(foreign), C(by), C(at), C(heard) and
      C(claim) as they were when the module came.
    - C(module_utils/understudy/route.py) describes them.
  returned: success
  type: dict
reloaded:
  description: Whether the client was made to read its file again.
  returned: for V(switched)
  type: bool
kind:
  description: What a failure is about, V(file), V(claimed), V(reload) or V(state).
  returned: failure
  type: str
"""

import difflib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy.route import Route, RouteError, put


def only_the_line(before: str, after: str) -> dict[str, str]:
    """Return the diff of an environment file without its other lines: they may be secrets."""
    changed = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return {
        "before": "".join(line[2:] + "\n" for line in changed if line.startswith("- ")),
        "after": "".join(line[2:] + "\n" for line in changed if line.startswith("+ ")),
    }


def run(module: AnsibleModule, route: Route) -> dict[str, Any]:
    p = module.params
    seen = {"route": route.look()}
    if p["state"] == "seen":
        return seen
    if p["state"] == "claimed":
        if not module.check_mode:
            route.claim(p["holder"], p["claim_ttl_s"], p["instead_of"])
        return seen  # a claim is given back: nothing is changed by it
    if p["state"] == "released":
        if not module.check_mode:
            route.release(p["holder"]["id"], p["heard"])
        return seen
    if module.check_mode:
        before = f"{route.key}={seen['route']['url']}\n"
        done = {"before": before, "after": put(before, route.key, p["url"]), "reloaded": False}
        done["changed"] = done["before"] != done["after"] or not seen["route"]["finished"]
    else:
        done = route.switch(p["epoch"], p["target"], p["url"], p["holder"], p["reload_command"])
    diff = only_the_line(done["before"], done["after"])
    header = {"before_header": route.file, "after_header": route.file}
    return {
        **seen,
        "changed": done["changed"],
        "reloaded": done["reloaded"],
        "diff": {**diff, **header},
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "file": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "home": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "default": "seen",
                "choices": ["seen", "claimed", "switched", "released"],
            },
            "holder": {"type": "dict"},
            "instead_of": {"type": "str"},
            "claim_ttl_s": {"type": "float", "default": 300},
            "heard": {"type": "dict"},
            "epoch": {"type": "int"},
            "target": {"type": "str"},
            "url": {"type": "str"},
            "reload_command": {"type": "list", "elements": "str", "default": []},
        },
        required_if=[
            ("state", "claimed", ["holder"]),
            ("state", "released", ["holder"]),
            ("state", "switched", ["holder", "epoch", "target", "url"]),
        ],
        supports_check_mode=True,
    )
    route = Route(module.params["home"], module.params["file"], module.params["key"])
    try:
        result = run(module, route)
    except RouteError as error:
        claim = None
        if error.kind == "claimed":
            claim = route.look()["claim"]
        module.fail_json(msg=str(error), kind=error.kind, claim=claim)
    module.exit_json(**{"changed": False, **result})


if __name__ == "__main__":
    main()
