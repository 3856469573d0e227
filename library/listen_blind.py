#!/usr/bin/python
"""Have a listener score a run blind, and show how far they are.

Documentation only: the action plugin of the same name does it.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: listen_blind
short_description: Have a listener score a run blind
description:
  - Serves the listening page on the control node and returns when the listener has finished.
options:
  command:
    description: How the project's Python half is called.
    type: list
    elements: str
    required: true
  run_dir:
    description: The run that is listened to.
    type: path
    required: true
  reference:
    description: The voice reference that the run was made with.
    type: path
    required: true
  address:
    description: Where the page is served.
    type: str
    default: 127.0.0.1
  port:
    description: On which port; V(0) takes a free one.
    type: int
    default: 0
  second_pass:
    description: Listen once more, or go on with that.
    type: bool
    default: false
  impostor:
    description: Recordings of somebody else; empty for an altered voice of the primary.
    type: str
    default: ""
attributes:
  check_mode:
    support: none
    description: A listener cannot pretend.
  diff_mode:
    support: none
    description: There is nothing to compare.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Listen to the run
  listen_blind:
    command: [python3, -m, understudy]
    run_dir: reports/20261122-031500Z
    reference: files/voices/samantha.wav
"""

RETURN = r"""
listened:
  description: What C(understudy listen) returned.
  returned: success
  type: dict
rc:
  description: Exit status of the command.
  returned: failure
  type: int
"""
