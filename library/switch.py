#!/usr/bin/python
"""Begin, decide and end a failover or failback.

Documentation only: the action plugin of the same name does it.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: switch
short_description: Begin, decide and end a failover or failback
description:
  - What the roles C(tts_route) and C(tts_server) found and did is read from the facts that they
    left on the hosts of the groups C(clients) and C(standby).
options:
  step:
    description:
      - V(begin) makes the record and says what is known of the standby's voice.
      - V(first) says which standby is tried first.
      - V(decide) says which client is switched to which server.
      - V(refuse) notes that nobody is switched.
      - V(users) says who uses the standby that the task runs for, or may.
      - V(end) finishes the record, and says whether all clients were switched and heard.
    type: str
    choices: [begin, first, decide, refuse, users, end]
    required: true
  command:
    description: V(failover.yml), V(failback.yml), or V(standby.yml) for V(users).
    type: str
    required: true
  reports_dir:
    description: Directory of all runs, for V(begin).
    type: path
  evidence_days:
    description: A verdict older than so many days is stale, for V(begin).
    type: float
    default: 45
  primary:
    description: What C(tts_route) heard of the primary, and its C(url), for V(first) and V(decide).
    type: dict
  primary_url:
    description: URL of the primary's server, for V(users).
    type: str
  to:
    description: The standby that was asked for, for V(first) and V(decide).
    type: str
  force:
    description: Fail over although the primary speaks.
    type: bool
    default: false
  heard_for_s:
    description: How long what was heard through a client's URL stands, in seconds, for V(decide).
    type: float
    default: 0
  reason:
    description: Why nobody is switched, and the next command, for V(refuse).
    type: str
attributes:
  check_mode:
    support: full
    description: No record is kept.
  diff_mode:
    support: none
    description: There is nothing to compare.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Decide which client uses which voice server
  switch:
    step: decide
    command: failover.yml
    primary: {host: panda, url: "http://panda:8772", speaks: false, seen: gone, wall_s: 1.5}
"""

RETURN = r"""
switch:
  description:
    - The state that the play keeps in C(tts_route_switch), C(began), C(evidence), C(dir), then
      C(first), then C(decision), as C(src/understudy/failover/decide.py) describes it, or
      C(refused), why nobody is switched.
  returned: for all but V(users) and V(end)
  type: dict
users:
  description: Who uses the standby, or may, each with the reason.
  returned: for V(users)
  type: list
  elements: str
last_words:
  description: The lines to print at the end.
  returned: for V(end)
  type: list
  elements: str
ok:
  description: Whether every client was switched and heard, and the standby's voice will last.
  returned: for V(end)
  type: bool
"""
