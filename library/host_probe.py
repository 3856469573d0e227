#!/usr/bin/python
"""Read what a host is and has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_probe
short_description: Read a host's memory, disk, Python, driver and GPUs
description:
  - One call instead of ten commands; changes nothing.
options:
  disk_path:
    description: Where things will be installed; its nearest existing parent is looked at.
    type: path
    required: true
  commands:
    description:
      - Programs that the inventory names for the host's services, by name or path. They are looked
        for beside those that the plays themselves start.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Look at the host
  host_probe:
    disk_path: ~/.local/share/understudy
"""

RETURN = r"""
host:
  description: The object that docs/run-directory.md describes under C(preflight.json).
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import hostinfo


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "disk_path": {"type": "path", "required": True},
            "commands": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    p = module.params
    module.exit_json(changed=False, host=hostinfo.collect(p["disk_path"], p["commands"]))


if __name__ == "__main__":
    main()
