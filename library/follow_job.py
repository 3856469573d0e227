#!/usr/bin/python
"""Show a background job's progress and wait for its end.

Documentation only: the action plugin of the same name does it.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: follow_job
short_description: Show a background job's progress and wait for its end
description:
  - Reads the JSON lines that the job appends to its progress file and prints their C(text) as they
    come. An action plugin does it; the job runs on the task's host.
  - A connection that is lost is waited for, and the job goes on meanwhile.
options:
  job:
    description: "The C(ansible_job_id) of a task that was started with C(poll: 0)."
    type: str
    required: true
  progress:
    description: The progress file, on the same host; C(~) is the remote user's home.
    type: str
    required: true
  until_phase:
    description: Return as soon as a line of this phase was seen; the job goes on.
    type: str
  timeout_s:
    description: Give up waiting after so many seconds.
    type: float
    default: 3600
  for_s:
    description: Return after so many seconds; the job goes on. V(0) waits for its end.
    type: float
    default: 0
  offset:
    description: Where in the progress file to go on, in bytes; the last call returned it.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    description: It only looks.
  diff_mode:
    support: none
    description: There is nothing to compare.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Follow the job
  follow_job:
    job: "{{ started.ansible_job_id }}"
    progress: ~/.local/share/understudy/runs/20261122-031500Z/progress.jsonl
"""

RETURN = r"""
finished:
  description: Whether the job has ended; false if O(until_phase) or O(for_s) came first.
  returned: success
  type: bool
offset:
  description: Where in the progress file the next call goes on, in bytes.
  returned: always
  type: int
rc:
  description: The job's exit status.
  returned: when the job has ended with a result
  type: int
"""
