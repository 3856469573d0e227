"""Make the primary speak a fresh sentence, from the control node, with a limit on connecting.

Action only: it runs on the control node and asks over HTTP; no task touches the primary.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

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
        _result, args = self.validate_argument_spec(ARGUMENTS)
        config, times = args["config"], args["times"]
        pause = args["hold_down_s"] / max(times - 1, 1)
        began, spoke = time.monotonic(), 0
        found: dict[str, Any] = {}
        while spoke < times:
            if spoke:
                time.sleep(max(0.0, began + spoke * pause - time.monotonic()))
            missing = self._missing(config["url"], args["connect_s"])
            found = {"healthy": False, "seen": missing} if missing else self._probe(config)
            if not found["healthy"]:
                break
            spoke += 1
            if times > 1:
                text = f"{config['host']} spoke, {spoke} of {times} ({found['wall_s']:.1f} s)"
                Display().display(f"    {text}")
        if "problems" in found:
            found["seen"] = "; ".join(row["seen"] for row in found["problems"])
        return {
            "changed": False,
            "healthy": found["healthy"],
            "seen": found["seen"],
            "times": spoke,
            "wall_s": time.monotonic() - began,
        }

    @staticmethod
    def _probe(config: dict[str, Any]) -> dict[str, Any]:
        try:
            from understudy.bench.primary import (
                probe,  # not before: a dead primary need not wait for it
            )
        except ImportError as error:
            raise AnsibleActionFail(
                f"control node: {error}. Next: make control, then . .venv/bin/activate"
            ) from error
        return probe(config)

    @staticmethod
    def _missing(url: str, seconds: float) -> str:
        """Return why there is no connection; nothing where one was made."""
        parts = urlsplit(url)
        address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        seen = [f"no connection to {address[0]} port {address[1]} within {seconds:g} s"]

        def connect() -> None:
            try:
                socket.create_connection(address, timeout=seconds).close()
            except OSError as error:
                seen[0] = f"no connection to {address[0]} port {address[1]}: {error}"
            else:
                seen[0] = ""

        # A thread, since a name is looked up without any limit of time.
        thread = threading.Thread(target=connect, daemon=True)
        thread.start()
        thread.join(seconds)
        return seen[0]
