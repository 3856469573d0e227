#!/usr/bin/python
"""Ask the LLM for completions and measure their latency."""

from __future__ import annotations

DOCUMENTATION = r"""
module: llm_probe
short_description: Ask an OpenAI-style LLM for real completions and measure them
description:
  - Waits until a completion comes back, then measures the latency of more of them.
  - Every prompt starts with a nonce, so no prefix cache answers; temperature is 0.
  - Runs where the LLM runs, so the LAN is not part of the figure.
options:
  url:
    description: Base of the API, without C(/v1).
    type: str
    required: true
  model:
    description: Model to ask for; the first that C(/v1/models) lists if left out.
    type: str
  api_key_file:
    description: A file on this host with the API key, of mode 0600; empty for none.
    type: str
    default: ""
  requests:
    description: Requests that are measured; the largest number when O(until) is given.
    type: int
    default: 20
  warmup:
    description: Requests before, not counted; more until latency has settled. V(0) for none.
    type: int
    default: 5
  max_tokens:
    description: Length of every answer, in tokens.
    type: int
    default: 8
  wait_s:
    description: How long the first completion may take to come, in seconds, over all tries.
    type: float
    default: 0
  timeout_s:
    description: Of one request, in seconds.
    type: float
    default: 30
  until:
    description: Measure until this file exists.
    type: path
  pause_s:
    description: Seconds between two requests.
    type: float
    default: 0
attributes:
  check_mode:
    support: full
    description: Completions change nothing.
  diff_mode:
    support: none
    description: Completions change nothing.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Wait for the LLM and measure it
  llm_probe:
    url: http://127.0.0.1:8003
    wait_s: 600
"""

RETURN = r"""
healthy:
  description: Whether a completion came back.
  returned: always
  type: bool
seen:
  description: What was seen instead of a completion.
  returned: when not healthy
  type: str
model:
  description: The model that answered.
  returned: when healthy
  type: str
ready_after_s:
  description: Seconds until the first completion was back.
  returned: when healthy
  type: float
latency:
  description: The latency object that docs/run-directory.md describes.
  returned: when healthy
  type: dict
busy:
  description: When the probing took place, for the split of the run's time.
  returned: always
  type: list
  elements: dict
"""

import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import llm


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "model": {"type": "str"},
            "api_key_file": {"type": "str", "default": "", "no_log": False},
            "requests": {"type": "int", "default": 20},
            "warmup": {"type": "int", "default": 5},
            "max_tokens": {"type": "int", "default": 8, "no_log": False},
            "wait_s": {"type": "float", "default": 0},
            "timeout_s": {"type": "float", "default": 30},
            "until": {"type": "path"},
            "pause_s": {"type": "float", "default": 0},
        },
        supports_check_mode=True,
    )
    p = module.params
    began = time.time()
    result = {"changed": False, "url": p["url"], "healthy": False}
    try:
        model = llm.wait_until_ready(
            p["url"],
            p["model"] or None,
            p["max_tokens"],
            p["wait_s"],
            p["timeout_s"],
            p["api_key_file"],
        )
        result.update(model=model, ready_after_s=time.time() - began)

        def ask() -> float:
            wall_s: float = llm.complete(
                p["url"], model, p["max_tokens"], p["timeout_s"], p["api_key_file"]
            )
            return wall_s

        result["latency"] = llm.measure(ask, p["requests"], p["warmup"], p["until"], p["pause_s"])
        n, failures = result["latency"]["n"], result["latency"]["failures"]
        # While the standby speaks a refused request is a finding; otherwise it is a fault.
        result["healthy"] = n > 0 and (bool(p["until"]) or failures == 0)
        if not result["healthy"]:
            result["seen"] = f"{p['url']} failed {failures} of {n + failures} requests"
    except llm.LlmError as error:
        result["seen"] = str(error)
    result["busy"] = [{"what": "llm_probe", "start": began, "end": time.time()}]
    if p["until"] and os.path.exists(p["until"]):
        os.unlink(p["until"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
