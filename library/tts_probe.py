#!/usr/bin/python
"""Make a voice server speak a fresh sentence, once or for a while.

Documentation only: the action plugin of the same name does it.
"""

from __future__ import annotations

DOCUMENTATION = r"""
module: tts_probe
short_description: Make a voice server speak, once or for a while
description:
  - What it answers must be speech, and another recording for each sentence. Asked once, it has to
    speak two sentences, the second only after a good answer to the first.
  - Asks from the control node over HTTP; no task touches the primary. A dead one is never waited
    for longer than O(connect_s).
options:
  config:
    description:
      - What C(understudy probe) takes, C(host), C(url), C(synthesis_path), C(health_path),
        C(token_file), C(reference_audio), C(tuning), C(timeout_s).
    type: dict
    required: true
  connect_s:
    description: After so many seconds without a connection, name lookup included, nobody is there.
    type: float
    default: 1.5
  times:
    description: How often it must speak; the first time that it does not ends it.
    type: int
    default: 1
  hold_down_s:
    description: Over how many seconds the times are spread.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: A sentence changes nothing.
  diff_mode:
    support: none
    description: There is nothing to compare.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Find out whether the primary speaks
  tts_probe:
    config:
      host: panda
      url: http://panda:8772
      synthesis_path: /synthesize
      health_path: /health
      reference_audio: samantha.wav
      tuning: {cfg_weight: 0.3, exaggeration: 0.3, temperature: 0.6}
"""

RETURN = r"""
healthy:
  description: Whether it spoke each time.
  returned: always
  type: bool
seen:
  description: What was seen instead of speech; empty when healthy.
  returned: always
  type: str
times:
  description: How often it spoke.
  returned: always
  type: int
rehearsal:
  description: Whether it says that its weights are a rehearsal's, so that it need not be speech.
  returned: always
  type: bool
wall_s:
  description: How long it all took, in seconds.
  returned: always
  type: float
"""
