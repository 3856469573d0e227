"""Refuses an invocation that would leave out a part of a play, before anything is done.

Ansible skips what an option leaves out and ends with status 0, also where nothing is left. Only
what stands outside the plays can see that, whatever stdout callback is in use.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: invocation
type: aggregate
short_description: Refuses to run half a play
description:
  - Ends Ansible with status 1 where it has not read the project's settings, where an option would
    leave tasks out, and where a play has no host or lacks hosts that it needs.
  - Only the project's own playbooks are looked at, not those of a test.
  - In a playbook of several plays one play uses what another found, so all of their hosts are
    needed. In a playbook of one play each host stands for itself, and C(--limit) may choose.
"""

ROOT = Path(__file__).resolve().parents[1]


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "invocation"

    def v2_playbook_on_start(self, playbook: Any) -> None:
        path = Path(playbook._file_name).resolve()
        ours = path.parent in (ROOT, ROOT / "playbooks")
        problem = next(problems(playbook), None) if ours else None
        if problem:
            text = f"{path.name}: {problem}"
            self._display.display(text, color=constants.COLOR_ERROR, stderr=True)
            raise SystemExit(1)


def problems(playbook: Any) -> Iterator[str]:
    """Yield why this playbook is not run, the worst first."""
    options = context.CLIARGS
    if ROOT / "roles" not in [Path(path).resolve() for path in constants.DEFAULT_ROLES_PATH or ()]:
        typed = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        yield (
            f"Ansible has not read {ROOT}/ansible.cfg: it looks for one in the directory that it "
            "is called from, unless everybody may write there. Nothing was done. Next: "
            f"ANSIBLE_CONFIG={shlex.quote(f'{ROOT}/ansible.cfg')} {typed}"
        )
    given = {
        "--tags": "all" not in options["tags"],
        "--skip-tags": options["skip_tags"],
        "--start-at-task": options["start_at_task"],
    }
    for option in filter(given.get, given):
        yield (
            f"{option} would leave tasks out, and later ones use what earlier ones find. "
            f"Nothing was done. Next: type it again without {option}"
        )
    plays = playbook.get_plays()
    for play in plays:
        inventory = play.get_variable_manager()._inventory
        needed = [host.name for host in inventory.get_hosts(play.hosts, ignore_limits=True)]
        chosen = [host.name for host in inventory.get_hosts(play.hosts)]
        missing = [name for name in needed if name not in chosen]
        if not needed:
            yield (
                f"the inventory has no host in '{play.hosts}', needed to '{play.get_name()}'. "
                "Nothing was done. Next: ansible-inventory --graph; see -i"
            )
        elif missing and (len(plays) > 1 or not chosen):
            yield (
                f"--limit {options['subset']} leaves out {', '.join(missing)}, needed to "
                f"'{play.get_name()}'. Nothing was done. Next: type it again without --limit"
            )
