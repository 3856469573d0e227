#!/usr/bin/python
"""Begin a run: its directory, run.json, and the link to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_begin
short_description: Begin a run and write its C(run.json)
description:
  - Makes C(<reports_dir>/<run_id>/), writes C(run.json) and points C(<reports_dir>/latest) at it.
  - Runs on the control node.
options:
  reports_dir:
    description: Directory of all runs; made if it is missing.
    type: path
    required: true
  document:
    description: What C(run.json) holds beside what the module knows itself.
    type: dict
    required: true
  project_dir:
    description: Where the project's git commit is read.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Nothing is written; the run id that would be used is returned.
  diff_mode:
    support: none
    description: A run is always new.
author:
  - understudy
"""

EXAMPLES = r"""
- name: Begin the run
  run_begin:
    reports_dir: "{{ run_reports_dir }}"
    project_dir: "{{ playbook_dir | dirname }}"
    document:
      gemma_mode: pause
  delegate_to: localhost
"""

RETURN = r"""
run_id:
  description: Name of the run, the UTC time it began.
  returned: always
  type: str
run_dir:
  description: Its directory.
  returned: always
  type: path
git_commit:
  description: Commit of the project, with C(-dirty) for uncommitted changes; null outside git.
  returned: always
  type: str
"""

import errno
import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.understudy import record

from understudy.common.times import new_run_id, utc_now


def git_commit(module: AnsibleModule, project_dir: str) -> str | None:
    code, out, _error = module.run_command(
        ["git", "-C", project_dir, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        handle_exceptions=False,
    )
    return out.strip() if code == 0 else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "reports_dir": {"type": "path", "required": True},
            "document": {"type": "dict", "required": True},
            "project_dir": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    if not module.params["reports_dir"].strip():
        module.fail_json(msg="reports_dir is empty. Next: -e run_reports_dir=DIRECTORY")
    reports_dir = os.path.abspath(module.params["reports_dir"])
    run_id = new_run_id()
    run_dir = os.path.join(reports_dir, run_id)
    try:
        commit = git_commit(module, module.params["project_dir"])
    except OSError:
        commit = None
    known = {
        "schema_version": record.SCHEMA_VERSION,
        "run_id": run_id,
        "started_at": utc_now(),
        "finished_at": None,
        "git_commit": commit,
    }
    document = {**known, **module.params["document"], **known}  # in this order, and ours count
    if not isinstance(document.setdefault("controller", {}), dict):
        module.fail_json(msg="document: controller is no object")
    document["controller"]["host"] = platform.node()
    if not module.check_mode:
        try:
            os.makedirs(reports_dir, exist_ok=True)
            latest = os.path.join(reports_dir, "latest")
            if os.path.lexists(latest) and not os.path.islink(latest):
                raise FileExistsError(errno.EEXIST, f"{latest} is no link")
            os.mkdir(run_dir)
            record.write(os.path.join(run_dir, "run.json"), document)
            link = os.path.join(reports_dir, ".latest.new")
            if os.path.lexists(link):
                os.unlink(link)
            os.symlink(run_id, link)
            os.replace(link, latest)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            seen = getattr(error, "strerror", None) or error
            module.fail_json(
                msg=f"control node: the run directory {run_dir} cannot be made: {seen}. "
                f"Next: ls -ld {reports_dir}; or choose another place with "
                "-e run_reports_dir=DIRECTORY"
            )
    module.exit_json(changed=False, run_id=run_id, run_dir=run_dir, git_commit=commit)


if __name__ == "__main__":
    main()
