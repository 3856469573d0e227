#!/usr/bin/python
"""Make the Python environment of a voice host from a lock."""

from __future__ import annotations

DOCUMENTATION = r"""
module: voice_venv
short_description: Make a Python environment from a hashed lock and switch to it
description:
  - The environment is named by everything that decides its content, so another lock is another
    directory and the old one is the way back. The link is switched in one rename, at the end.
  - Records for every package whether a wheel came or was built from source, and how upstream's
    pins were overridden.
options:
  venvs_dir:
    description: Directory of the environments.
    type: path
    required: true
  link:
    description: Symbolic link to the one in use.
    type: path
    required: true
  lock:
    description: Requirements file with hashes, complete, on the host.
    type: path
    required: true
  wheel:
    description: The project's own wheel, on the host.
    type: path
    required: true
  python:
    description: Interpreter to make it of; the one that runs the module if left out.
    type: path
  torch_requirement:
    description: Installed apart, without hashes, where the lock leaves torch out.
    type: str
  torch_args:
    description: More arguments to pip for it.
    type: list
    elements: str
    default: []
  torchaudio_native:
    description: V(false) removes torchaudio's extension, which does not load beside a CPU torch.
    type: bool
    default: true
  system_site_packages:
    description: Build on the packages of the interpreter, as in a container with its own torch.
    type: bool
    default: false
  budget_s:
    description: Seconds for all of it.
    type: float
    default: 3600
attributes:
  check_mode:
    support: full
    description: Says whether an environment would be made.
  diff_mode:
    support: full
    description: Shows where the link pointed and would point.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Make the environment
  voice_venv:
    venvs_dir: ~/.local/share/understudy/venvs
    link: ~/.local/share/understudy/current
    lock: ~/.local/share/understudy/packages/chatterbox-aarch64-cuda13.txt
    wheel: ~/.local/share/understudy/packages/understudy-0.1.0-py3-none-any.whl
"""

RETURN = r"""
venv:
  description: The object that docs/run-directory.md describes under C(install-<host>.json).
  returned: success
  type: dict
kind:
  description: V(install) or V(budget_exceeded).
  returned: failure
  type: str
spent_s:
  description: Seconds that this call took.
  returned: always
  type: float
busy:
  description: When packages were installed, for the split of the run's time.
  returned: always
  type: list
  elements: dict
"""

import fcntl
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import venv


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "venvs_dir": {"type": "path", "required": True},
            "link": {"type": "path", "required": True},
            "lock": {"type": "path", "required": True},
            "wheel": {"type": "path", "required": True},
            "python": {"type": "path"},
            "torch_requirement": {"type": "str"},
            "torch_args": {"type": "list", "elements": "str", "default": []},
            "torchaudio_native": {"type": "bool", "default": True},
            "system_site_packages": {"type": "bool", "default": False},
            "budget_s": {"type": "float", "default": 3600},
        },
        supports_check_mode=True,
    )
    p = module.params
    began, clock = time.time(), time.monotonic()
    result = {"changed": False, "busy": []}
    try:
        if module.check_mode and not os.path.exists(p["lock"]):
            module.exit_json(changed=True, msg="the lock is not on the host yet")
        installer = venv.Installer(
            python=p["python"] or venv.default_python(),
            lock=p["lock"],
            torch_requirement=p["torch_requirement"] or None,
            torch_args=p["torch_args"],
            torchaudio_native=p["torchaudio_native"],
            system_site_packages=p["system_site_packages"],
            budget_s=p["budget_s"],
        )
        path = os.path.join(p["venvs_dir"], installer.name)
        facts = venv.read(path)
        before = os.readlink(p["link"]) if os.path.islink(p["link"]) else ""
        result["diff"] = {"before": before + "\n", "after": path + "\n"}
        if module.check_mode:
            module.exit_json(changed=facts is None or before != path, diff=result["diff"])
        os.makedirs(p["venvs_dir"], exist_ok=True)
        with open(os.path.join(p["venvs_dir"], ".lock"), "a", encoding="ascii") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            facts = venv.read(path)  # another run may have made it meanwhile
            if facts is None:
                facts = installer.build(path)
                result["changed"] = True
                result["busy"] = [{"what": "install", "start": began, "end": time.time()}]
            else:
                facts["created"] = False
            result["changed"] |= installer.install_package(path, p["wheel"])
            result["changed"] |= venv.switch(p["link"], path)
        result["venv"] = facts
    except venv.VenvError as error:
        module.fail_json(msg=str(error), kind=error.kind, spent_s=time.monotonic() - clock)
    except OSError as error:
        module.fail_json(msg=str(error), kind="install", spent_s=time.monotonic() - clock)
    module.exit_json(spent_s=round(time.monotonic() - clock, 1), **result)


if __name__ == "__main__":
    main()
