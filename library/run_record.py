#!/usr/bin/python
"""Lay what is known over a phase's file in the run directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Record what a phase found in the run directory
description:
  - Merges O(data) into C(<run_dir>/<file>) under a lock, in one rename; a missing file
    begins with the header that docs/run-directory.md describes.
  - Measuring is no change of a system, so the task is never C(changed).
  - Runs on the control node.
options:
  run_dir:
    description: The run directory; its name is the run id.
    type: path
    required: true
  file:
    description: Name of the file.
    type: str
    required: true
  phase:
    description: Name of the phase, for the header.
    type: str
    required: true
  host:
    description: Host the file is about, for the header; leave out where it is about several.
    type: str
  data:
    description:
      - What is known; dictionaries are merged key by key, other values replaced.
      - A final V(status) (V(ok), V(failed), V(skipped)) also sets C(finished_at).
    type: dict
    required: true
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: none
    description: The files are results, not settings.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Record that the install failed
  run_record:
    run_dir: "{{ run_dir }}"
    file: install-{{ inventory_hostname }}.json
    phase: chatterbox
    host: "{{ inventory_hostname }}"
    data:
      status: failed
  delegate_to: localhost
"""

RETURN = r"""
document:
  description: The file's content.
  returned: when not in check mode
  type: dict
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import record

from understudy.common.files import JSON_BYTES, read_bytes
from understudy.common.jsonio import read_json


def check(run_dir: Path, name: str) -> None:
    """Make sure that a file of the run is written, and nothing that has its name.

    Raises:
        OSError: the file or the lock beside it is no file.
        ValueError: the name is not one of a file here, or the file is no JSON object.
    """
    if Path(name).name != name or name.startswith(".") or not name.endswith(".json"):
        raise ValueError(f"{name!r} is not the name of a file of a run")
    if os.path.lexists(run_dir / ".lock"):
        read_bytes(run_dir / ".lock", JSON_BYTES)
    if os.path.lexists(run_dir / name):
        read_json(run_dir / name, links=False)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "file": {"type": "str", "required": True},
            "phase": {"type": "str", "required": True},
            "host": {"type": "str"},
            "data": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    p = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    try:
        check(Path(p["run_dir"]), p["file"])
        document = record.update(p["run_dir"], p["file"], p["phase"], p["host"], p["data"])
    except (OSError, ValueError) as error:
        module.fail_json(
            msg=f"control node: {p['run_dir']}/{p['file']} cannot be written: {error}. "
            f"Next: ls -l {p['run_dir']}; df -h {p['run_dir']}"
        )
    module.exit_json(changed=False, document=document)


if __name__ == "__main__":
    main()
