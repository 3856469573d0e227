"""Show the progress of a job that runs in the background, and wait for it.

Ansible cannot show a task's output while it runs. The job writes JSON lines
(``text`` is what to show); this action reads them as they come and prints them.
"""

from __future__ import annotations

import json
import shlex
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

#: What the module of this name documents.
ARGUMENTS = {
    "job": {"type": "str", "required": True},
    "progress": {"type": "str", "required": True},
    "until_phase": {"type": "str"},
    "timeout_s": {"type": "float", "default": 3600},
    "for_s": {"type": "float", "default": 0},
    "offset": {"type": "int", "default": 0},
}
#: Seconds between two looks at the progress file, and between two at the job itself.
LOOK_S, ASK_S = 1.0, 5.0
#: So many times in a row a job without a result must be without a process to be gone.
MISSED = 2


class ActionModule(ActionBase):
    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _result, args = self.validate_argument_spec(ARGUMENTS)
        path = None
        display, began = Display(), time.monotonic()
        offset, asked, ended, missed = args["offset"], began, False, 0
        while True:
            try:
                path = path or self._remote_expand_user(args["progress"])
                lines, offset = self._new_lines(path, offset)
                self._show(lines, display)
                phases = {line.get("phase") for line in lines}
                if args["until_phase"] and args["until_phase"] in phases:
                    return {"changed": False, "finished": False, "offset": offset}
                # "done" is written a moment before the process ends.
                ended = ended or "done" in phases
                if ended or time.monotonic() - asked >= ASK_S:
                    asked = time.monotonic()
                    job = self._ask(args["job"], task_vars)
                    if job.get("finished"):
                        lines, offset = self._new_lines(path, offset)  # its last words
                        self._show(lines, display)
                        return self._judge(job) | {"offset": offset}
                    missed = 0 if self._is_alive(args["job"]) else missed + 1
                    if missed >= MISSED:
                        return {
                            "failed": True,
                            "changed": False,
                            "offset": offset,
                            "msg": "the job is gone and left no result: the host was rebooted, "
                            "its disk is full, or the job was killed",
                        }
            except AnsibleConnectionFailure as error:
                # The job goes on without us. An unreachable host would skip every `always`.
                display.warning(f"{task_vars.get('inventory_hostname')}: {error}; trying again")
                self._connection.reset()
                time.sleep(ASK_S)
            if args["for_s"] and time.monotonic() - began >= args["for_s"]:
                return {"changed": False, "finished": False, "offset": offset}
            if time.monotonic() - began >= args["timeout_s"]:
                raise AnsibleActionFail(
                    f"the job {args['job']} was still running after {args['timeout_s']:.0f} s"
                )
            time.sleep(LOOK_S)

    @staticmethod
    def _show(lines: list[dict[str, Any]], display: Display) -> None:
        for line in lines:
            display.display(f"    {line.get('text', '')}")

    def _new_lines(self, path: str, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Return what was written since `offset`, as whole lines, and the new offset."""
        command = f"tail -c +{offset + 1} {shlex.quote(path)} 2>/dev/null || true"
        text: str = self._low_level_execute_command(command, sudoable=False)["stdout"]
        whole = text[: text.rfind("\n") + 1]
        lines = []
        for row in whole.splitlines():
            try:
                lines.append(json.loads(row))
            except ValueError:
                continue  # a login banner, say
        return lines, offset + len(whole.encode())

    def _is_alive(self, job: str) -> bool:
        """Whether a process has the job's name in its command line, or none could be looked for.

        The brackets hide our own.
        """
        name = job.partition(".")[0]
        pattern = shlex.quote(f"[{name[0]}]{name[1:]}")
        # Not pgrep: a bare Debian has none.
        command = f"grep -ls -- {pattern} /proc/[0-9]*/cmdline"
        looked = self._low_level_execute_command(command, sudoable=False)
        return bool(looked["stdout"].strip()) or looked["rc"] not in (0, 1, 2)  # no grep, say

    def _ask(self, job: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="ansible.legacy.async_status",
            module_args={
                "jid": job,
                "mode": "status",
                "_async_dir": self.get_shell_option("async_dir", default="~/.ansible_async"),
            },
            task_vars=task_vars,
        )
        return result

    @staticmethod
    def _judge(job: dict[str, Any]) -> dict[str, Any]:
        code = job.get("rc", 0)
        if job.get("failed") or code:
            seen = (job.get("stderr") or job.get("msg") or job.get("stdout") or "").strip()
            return {
                "failed": True,
                "changed": False,
                "rc": code,
                "msg": f"the job ended with status {code}: {seen[-1500:]}",
            }
        return {"changed": False, "finished": True, "rc": code}
