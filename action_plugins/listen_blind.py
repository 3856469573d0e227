"""Have a listener score a run on the control node, and show the progress.

The page is not a background job: a listener waits for it, and a job costs two seconds before
it begins. It runs beside this action, which shows what it says as it says it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import deque
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

#: What the module of this name documents.
ARGUMENTS = {
    "command": {"type": "list", "elements": "str", "required": True},
    "run_dir": {"type": "path", "required": True},
    "reference": {"type": "path", "required": True},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 0},
    "second_pass": {"type": "bool", "default": False},
    "impostor": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = False  # a listener cannot pretend

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _result, args = self.validate_argument_spec(ARGUMENTS)
        argv = [
            *args["command"],
            "listen",
            args["run_dir"],
            "--reference",
            args["reference"],
            "--listen",
            args["address"],
            "--port",
            str(args["port"]),
            # It ends with ansible-playbook, also after a Ctrl-C; nothing is lost.
            "--owner",
            str(os.getppid()),
        ]
        argv += ["--second-pass"] if args["second_pass"] else []
        argv += ["--impostor", args["impostor"]] if args["impostor"] else []
        display = Display()
        lines: deque[str] = deque(maxlen=25)
        try:
            page = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            return {"failed": True, "changed": False, "msg": f"{argv[0]}: {error.strerror}"}
        assert page.stdout
        assert page.stderr
        with page:
            for line in page.stderr:
                lines.append(line.rstrip())
                if not line.startswith("understudy listen:"):  # an error is the task's own
                    display.display(f"    {line.rstrip()}")
            out = page.stdout.read()
        if page.returncode:
            return {
                "failed": True,
                "changed": False,
                "rc": page.returncode,
                "msg": "\n".join(lines) or f"it ended with status {page.returncode}",
            }
        try:
            return {"changed": False, "listened": json.loads(out)}
        except ValueError:
            msg = f"{argv[0]} ended well and reported no result, but {out[:200]!r}"
            return {"failed": True, "changed": False, "msg": msg}
