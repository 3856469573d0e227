"""The module `llm_lease`, with what the keeper does shown while it does it.

Bringing an LLM back takes minutes. This action asks in short calls, prints every event of the
keeper as it comes, and waits out a lost connection instead of making the host unreachable: that
would skip everything that is left to do for it.
"""

from __future__ import annotations

import time

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

#: Seconds that one call may wait, and between two tries to reach a host that is lost.
CALL_S, TRY_S = 5.0, 5.0
#: States that take as long as the LLM does.
WAITS = ("settled", "answered", "closed")


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = dict(self._task.args)
        waits = args.get("state") in WAITS
        deadline = time.monotonic() + float(args.get("wait_s", 900))
        shown = set()
        while True:
            asked = args | ({"wait_s": CALL_S} if waits else {})
            result = self._reached(asked, task_vars)
            self._show(result, shown)
            if result.get("failed") or not waits or self._done(args, result):
                return result
            if time.monotonic() >= deadline:
                return result  # what was seen is in the keeper's report
            args["lease"] = args.get("lease") or (result["window"]["lease"] or {}).get("id")

    def _reached(self, args, task_vars):
        """Call the module; try again for `lost_s` seconds where the host cannot be reached."""
        display, host = Display(), task_vars.get("inventory_hostname")
        until = time.monotonic() + float(args.get("lost_s", 60))
        while True:
            try:
                return self._execute_module(
                    module_name="llm_lease", module_args=args, task_vars=task_vars
                )
            except AnsibleConnectionFailure as error:
                if args.get("state") == "armed":
                    raise  # nothing was touched yet
                if time.monotonic() >= until:
                    return {
                        "failed": args.get("state") != "renewed", "changed": False, "lost": True,
                        "msg": f"{host} cannot be reached ({error}); its own lease brings the LLM "
                        "back. Next, when it is back: ansible-playbook restore.yml",
                    }  # fmt: skip
                display.warning(f"{host}: {error}; trying again")
                self._connection.reset()
                time.sleep(TRY_S)

    @staticmethod
    def _done(args, result):
        """Whether the lease that was meant is gone, or the LLM is as far as was asked for."""
        there, meant = result["window"]["lease"] or {}, args.get("lease")
        if not there or (meant and there["id"] != meant):
            return True
        phase = (result.get("report") or {}).get("phase")
        if args["state"] == "settled":
            return result["window"]["state"] == "held" or phase == "silent"
        return args["state"] == "answered" and phase == "answered"

    def _show(self, result, shown):
        """Print what the keeper did since the last call, while there is a window to wait for."""
        if self._task.args.get("state") not in WAITS or not result.get("changed"):
            return
        for row in (result.get("report") or {}).get("events", []):
            key = (row["at"], row["event"], row["detail"])
            if key not in shown:
                shown.add(key)
                detail = f": {row['detail']}" if row["detail"] else ""
                Display().display(f"    {row['at'][11:19]} {row['event']}{detail}")
