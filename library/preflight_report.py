#!/usr/bin/python
"""Judge everything pre-flight found, at once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_report
short_description: Judge what pre-flight found and write C(preflight.json)
description:
  - Fails with every problem at once, each with the host, what was seen and the next command.
  - Runs on the control node.
options:
  run_dir:
    description: The run directory.
    type: path
    required: true
  gemma_mode:
    description: How the run treats the LLM.
    type: str
    required: true
  hosts:
    description:
      - For every host of the run C(facts) (of M(host_probe), or C(reachable) false and C(seen)),
        C(needs) (what is asked of it), C(rated) (whether a listener hears it), and where it has
        one C(callers) (C(users), C(asked_age_s)), C(llm) (of M(llm_probe), with
        C(state) and C(next)) and C(primary) (of C(understudy probe)).
    type: dict
    required: true
  problems:
    description: Problems of the operator's own files, each with C(id), C(seen) and C(next).
    type: list
    elements: dict
    required: true
  force:
    description: Begin although callers speak with the standby's voice.
    type: bool
    default: false
  ab_scores:
    description: A listener's sheet, read now so that a bad one is refused before anything starts.
    type: path
attributes:
  check_mode:
    support: full
    description: Judges without writing.
  diff_mode:
    support: none
    description: The file is a result.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Judge
  preflight_report:
    run_dir: "{{ run_dir }}"
    gemma_mode: pause
    hosts: "{{ __preflight_hosts }}"
    problems: []
"""

RETURN = r"""
checks:
  description: Every check, as in C(preflight.json).
  returned: always
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import record

from understudy.verdict import preflight


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "gemma_mode": {"type": "str", "required": True},
            "hosts": {"type": "dict", "required": True},
            "problems": {"type": "list", "elements": "dict", "required": True},
            "force": {"type": "bool", "default": False},
            "ab_scores": {"type": "path"},
        },
        supports_check_mode=True,
    )
    p = module.params
    problems = list(p["problems"])
    if p["ab_scores"]:
        rated = [name for name, found in p["hosts"].items() if found["rated"]]
        problems += preflight.sheet_problems(p["ab_scores"], p["run_dir"], rated)
    document = preflight.judge(p["hosts"], problems, p["gemma_mode"], force=p["force"])
    for row in document["checks"]:
        if row["id"] == "callers" and row["value"]:
            module.warn(f"{row['host']}: {row['detail']}")
    message = preflight.message(document["checks"])
    document["status"] = "failed" if message else "ok"
    if message:
        first = next(row for row in document["checks"] if not row["ok"])
        document["error"] = record.error(
            "unreachable" if first["id"] == "reachable" else "preflight",
            first["host"],
            f"pre-flight: {first['id']}",
            first["detail"],
            first["next"],
        )
    if not module.check_mode:
        try:
            record.update(p["run_dir"], "preflight.json", "preflight", None, document)
        except (OSError, ValueError) as error:
            module.fail_json(msg=f"control node: preflight.json cannot be written: {error}")
    if message:
        module.fail_json(msg=message, checks=document["checks"])
    module.exit_json(changed=False, checks=document["checks"])


if __name__ == "__main__":
    main()
