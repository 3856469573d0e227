"""The module `tts_route`, with the identity of the play that claims a client.

A claim of this control node whose play is dead is taken over at once: a play that was killed is
finished by running it again. One of another control node counts until it is too old.
"""

from __future__ import annotations

import getpass
import os
import platform
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.vars import merge_hash

from understudy.common.process import start_of


def me() -> dict[str, str]:
    """Return the identity of the play, for a claim."""
    pid, node = os.getppid(), platform.node()
    return {"id": f"{node}/{pid}/{start_of(pid)}", "who": f"{getpass.getuser()}@{node}"}


def is_dead(claim: dict[str, Any]) -> bool:
    """Whether a claim is of this control node, and its play is gone."""
    node, _, rest = str(claim["id"]).partition("/")
    pid, _, start = rest.partition("/")
    return node == platform.node() and pid.isdigit() and start_of(int(pid)) != start


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = {"name": (task_vars or {}).get("inventory_hostname", ""), **self._task.args}
        if args.get("state", "seen") != "seen":
            args["holder"] = merge_hash(me(), args.get("holder") or {})
        else:
            args.pop("holder", None)
        result: dict[str, Any] = self._execute_module("tts_route", args, task_vars=task_vars)
        claim = result.get("claim")
        if args.get("state") == "switched" and result.get("failed") and claim and is_dead(claim):
            args["instead_of"] = claim["id"]
            result = self._execute_module("tts_route", args, task_vars=task_vars)
        return result
