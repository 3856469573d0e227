"""Ansible's own output, made for a run that is watched."""

from __future__ import annotations

import sys
from typing import Any

from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = r"""
name: understudy
type: stdout
short_description: Ansible's default output without what was left out
description:
  - A task's name stands above what it does while it does it, not after it.
  - Skipped hosts, included files and tries of a loop that waits are not listed.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""


#: Actions that only prepare the next one; nobody watches them.
QUIET = (
    "include_tasks",
    "include_role",
    "set_fact",
    "assert",
    "set_stats",
    "validate_argument_spec",
)


def quiet(task: Any) -> bool:
    name: str = task.action
    return name.rpartition(".")[2] in QUIET


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "understudy"

    def __init__(self) -> None:
        super().__init__()
        # What an action shows while it works is seen at once, through a pipe to tee as well.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(line_buffering=True)

    def v2_runner_on_skipped(self, result: Any) -> None:
        pass

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        pass

    def v2_playbook_on_include(self, included_file: Any) -> None:
        pass

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if not quiet(task):
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_runner_on_ok(self, result: Any) -> None:
        if not quiet(result.task):
            super().v2_runner_on_ok(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if not quiet(result.task):
            super().v2_runner_item_on_ok(result)

    def v2_runner_retry(self, result: Any) -> None:
        # A loop that waits is no failure; the last try is shown as what it is.
        if self._display.verbosity:
            super().v2_runner_retry(result)
