"""Make the primary speak a fresh sentence, from the control node, with a limit on connecting.

Action only: it runs on the control node and asks over HTTP; no task touches the primary.
"""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

try:
    from understudy.common.sockets import connect
    from understudy.common.urls import endpoint
except ImportError as error:
    missing: ImportError | None = error
else:
    missing = None

#: What the module of this name documents.
ARGUMENTS = {
    "config": {"type": "dict", "required": True},
    "connect_s": {"type": "float", "default": 1.5},
    "times": {"type": "int", "default": 1},
    "hold_down_s": {"type": "float", "default": 0},
}


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        if missing:
            raise AnsibleActionFail(
                f"control node: {missing}. Next: make control, then . .venv/bin/activate"
            )
        _result, args = self.validate_argument_spec(ARGUMENTS)
        config, times = args["config"], args["times"]
        pause = args["hold_down_s"] / max(times - 1, 1)
        began, spoke = time.monotonic(), 0
        found: dict[str, Any] = {}
        earlier: list[Any] | None = None if times == 1 else []  # each reply is compared with them
        while spoke < times:
            if spoke:
                time.sleep(max(0.0, began + spoke * pause - time.monotonic()))
            gone = self._missing(config["url"], args["connect_s"])
            found = {"healthy": False, "seen": gone} if gone else self._probe(config, earlier)
            if not found["healthy"]:
                break
            spoke += 1
            if times > 1:
                text = f"{config['host']} spoke, {spoke} of {times} ({found['wall_s']:.1f} s)"
                Display().display(f"    {text}")
        if found.get("rehearsal"):
            text = f"{config['host']} speaks with a rehearsal's weights: not judged as speech"
            Display().display(f"    {text}")
        if "problems" in found:
            found["seen"] = "; ".join(row["seen"] for row in found["problems"])
        return {
            "changed": False,
            "healthy": found["healthy"],
            "seen": found["seen"],
            "times": spoke,
            "rehearsal": found.get("rehearsal", False),
            "wall_s": time.monotonic() - began,
        }

    @staticmethod
    def _probe(config: dict[str, Any], earlier: list[Any] | None) -> dict[str, Any]:
        from understudy.bench.primary import probe  # a dead primary need not wait for it

        return probe(config, earlier)

    @staticmethod
    def _missing(url: str, seconds: float) -> str:
        """Return why there is no connection; nothing where one was made."""
        try:
            host, port = endpoint(url)
        except ValueError as error:
            return str(error)
        try:
            connect(host, port, seconds).close()
        except OSError as error:
            return f"no connection to {host} port {port}: {error}"
        return ""
