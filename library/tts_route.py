#!/usr/bin/python
"""Point a client of the voice at another voice server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tts_route
short_description: Point a client of the voice at another voice server
description:
  - Edits one line of the client's environment file in place, and has the client reload it.
  - The line that stood there for a URL before comes back as it was, byte for byte.
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
    description: Directory for what is kept about the switches of all clients of a host.
    type: str
    required: true
  name:
    description:
      - The client, as one of several on its host. What an earlier version kept without it is
        taken over.
      - The action plugin fills in the name in the inventory.
    type: str
    default: ""
  state:
    description:
      - V(seen) looks.
      - V(switched) claims the client, so that nobody else switches it meanwhile, points it at
        O(url) and reloads it; fails if somebody else has it.
      - V(restored) puts the line back that the last switch replaced, and reloads the client; needs
        the claim. Fails if the file was changed by hand since.
      - V(released) gives the claim back.
    type: str
    choices: [seen, switched, restored, released]
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
    description: The number of the switch, for V(switched) and V(restored).
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
  identify_s:
    description:
      - Longest time in seconds to ask C(/health) of the client's URL, from the client's host, which
        process serves it. It is sent no token; 0 asks nobody.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: It looks, and says what would be written, or why that would fail.
  diff_mode:
    support: full
    description: The environment file before and after.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Look up the client's voice server
  tts_route:
    file: ~/voice-agent.env
    key: CHATTERBOX_URL
    home: ~/.local/share/understudy/route
"""

RETURN = r"""
route:
  description:
    - C(url), C(epoch), C(target), C(previous), C(finished), C(foreign), C(by), C(at), C(heard),
      C(claim) and C(write_error) as they were when the module came.
    - C(module_utils/understudy/route.py) describes them.
    - With O(identify_s), C(server) with C(instance), which the server at C(url) reports (null where
      it reports none), and C(seen), for people.
  returned: when the file and what is kept can be read, in failures, too
  type: dict
now:
  description: The same after the switch; it says what the file contains where a reload failed.
  returned: for V(switched) and V(restored), in failures, too
  type: dict
reloaded:
  description: Whether the client was made to read its file again.
  returned: for V(switched) and V(restored)
  type: bool
kind:
  description: What a failure is about, V(file), V(claimed), V(reload) or V(state).
  returned: failure
  type: str
claim:
  description: Who has the client; null where nobody has.
  returned: failure of kind V(claimed)
  type: dict
"""

from contextlib import suppress
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy.http_request import identify
from ansible.module_utils.understudy.route import Route, RouteError


def act(p: dict[str, Any], route: Any, check: bool) -> Any:
    """Do what is asked for, after a look, and return what it has done."""
    state, holder = p["state"], p["holder"]
    if state in ("switched", "restored") and check:
        return route.plan(p["url"] if state == "switched" else route.before()["url"])
    if state == "switched":
        route.claim(holder, p["claim_ttl_s"], p["instead_of"])
        return route.switch(p["epoch"], p["target"], p["url"], holder, p["reload_command"])
    if state == "restored":
        return route.restore(p["epoch"], holder, p["reload_command"])
    if state == "released" and not check:
        route.release(holder["id"], p["heard"])
    return {}  # a claim is given back: nothing is changed by it


def run(module: AnsibleModule, route: Route) -> None:
    p = module.params
    result: dict[str, Any] = {"changed": False}
    try:
        result["route"] = found = route.look()
        if p["identify_s"] > 0:
            found["server"] = identify(found["url"], p["identify_s"])
            if (found["previous"] or {}).get("url"):  # where a failback would take it
                found["previous_server"] = identify(found["previous"]["url"], p["identify_s"])
        done = act(p, route, module.check_mode)
        if done:
            lines = {"before": done.pop("before"), "after": done.pop("after")}
            header = {"before_header": route.file, "after_header": route.file}
            result.update(done, diff={**lines, **header}, now=route.look())
    except RouteError as error:
        if error.kind == "claimed":
            result["claim"] = route.claimed()
        if p["state"] in ("switched", "restored"):
            with suppress(RouteError):
                result["now"] = now = route.look()
                result["changed"] = (now["url"], now["epoch"]) != (found["url"], found["epoch"])
        module.fail_json(msg=str(error), kind=error.kind, **result)
    module.exit_json(**result)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "file": {"type": "str", "required": True},
            "key": {"type": "str", "required": True, "no_log": False},
            "home": {"type": "str", "required": True},
            "name": {"type": "str", "default": ""},
            "state": {
                "type": "str",
                "default": "seen",
                "choices": ["seen", "switched", "restored", "released"],
            },
            "holder": {"type": "dict"},
            "instead_of": {"type": "str"},
            "claim_ttl_s": {"type": "float", "default": 300},
            "heard": {"type": "dict"},
            "epoch": {"type": "int"},
            "target": {"type": "str"},
            "url": {"type": "str"},
            "reload_command": {"type": "list", "elements": "str", "default": []},
            "identify_s": {"type": "float", "default": 0},
        },
        required_if=[
            ("state", "released", ["holder"]),
            ("state", "switched", ["holder", "epoch", "target", "url"]),
            ("state", "restored", ["holder", "epoch"]),
        ],
        supports_check_mode=True,
    )
    p = module.params
    run(module, Route(p["home"], p["file"], p["key"], p["name"]))


if __name__ == "__main__":
    main()
