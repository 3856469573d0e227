"""The module `llm_lease`, with what the keeper does shown while it does it.

Bringing an LLM back takes minutes. This action asks in short calls, prints every event of the
keeper as it comes, and waits out a lost connection instead of making the host unreachable: that
would skip everything that is left to do for it.

While a window is open a second process on the control node waits for the end of the play. If that
comes before the window is closed (Ctrl-C, a closed terminal, a crash), it runs restore.yml for the
run at once. It is given an inventory of its own, in memory, with the host's connection and the
role's variables as they are now: so it needs neither the play's command line nor a password that a
person typed. It is a convenience: the guarantee is the lease on the host.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

PROJECT = Path(__file__).resolve().parents[1]
#: Seconds that one call may wait, and between two tries to reach a host that is lost.
CALL_S, TRY_S = 5.0, 5.0
#: States that take as long as the LLM does.
WAITS = ("settled", "answered", "closed")
#: Nobody is there to answer a prompt, and there is nothing encrypted to read: a password is asked
#: for nowhere, and any file will do for a vault's.
ASKS_NOTHING = {
    "ANSIBLE_ASK_PASS": "False",
    "ANSIBLE_BECOME_ASK_PASS": "False",
    "ANSIBLE_ASK_VAULT_PASS": "False",
    "ANSIBLE_VAULT_IDENTITY_LIST": f"none@{PROJECT}/ansible.cfg",
    "ANSIBLE_VAULT_PASSWORD_FILE": f"{PROJECT}/ansible.cfg",
}


class Plain(str):
    """A text that Ansible does not take for a template."""


yaml.SafeDumper.add_representer(
    Plain, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text))
)


def plain(value: Any) -> Any:
    """Return a value of a play as plain data, every text in it as one that is no template."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    number = next((kind for kind in (int, float) if isinstance(value, kind)), None)
    return number(value) if number else Plain(value)  # Ansible's own types are no plain ones


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        args = dict(self._task.args)
        marker = (
            Path(args["run_dir"], f".window-{task_vars['inventory_hostname']}")
            if args.get("run_dir")
            else None
        )
        waits = args.get("state") in WAITS
        began = time.monotonic()
        deadline = began + float(args.get("wait_s", 900))
        shown: set[tuple[str, str, str]] = set()
        changed, helped = False, None
        while True:
            waited = {"wait_s": CALL_S, "waited_s": time.monotonic() - began}
            asked = args | (waited if waits else {})
            result = self._call(asked, task_vars)
            if result.get("failed"):
                return result
            ending = waits and result["changed"]  # there was a window to end
            changed = result["changed"] = changed or result["changed"]
            if result.get("helped") not in (None, helped):
                helped = result["helped"]
                Display().warning(f"{task_vars.get('inventory_hostname')}: {helped}")
            result["helped"] = helped
            if args.get("state") == "renewed":
                self._warn(result, task_vars)
            if waits and changed:
                self._show(result, shown, args)
                if not result["window"]["lease"]:  # closed by now, maybe between two calls
                    result["said"] = result["story"]
            if marker:
                try:
                    self._watch_play(marker, args, result, task_vars)
                except Exception as error:  # the lease is armed, and that is what counts
                    Display().warning(f"nothing follows this play but the lease: {error}")
            if not ending or self._done(args, result) or time.monotonic() >= deadline:
                return result  # what was seen is in the keeper's report
            args["lease"] = result["report"]["id"] if result["report"] else args.get("lease")

    def _watch_play(
        self, marker: Path, args: dict[str, Any], result: dict[str, Any], task_vars: dict[str, Any]
    ) -> None:
        """Have a second process close the window if the play should not; until it is closed."""
        if args["state"] == "armed" and result["changed"]:
            inventory = self._inventory(marker, task_vars).encode()
            marker.touch()
            program = PROJECT / "roles/llm_window/files/after_play.py"
            command = [sys.executable, "-m", "ansible", "playbook", str(PROJECT / "restore.yml")]
            watcher = subprocess.Popen(
                [
                    *(sys.executable, str(program), str(os.getppid()), str(marker)),
                    *(*command, "-e", f"run={args['run_id']}"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=os.environ | ASKS_NOTHING,
                start_new_session=True,
            )
            with watcher.stdin:  # type: ignore[union-attr]
                watcher.stdin.write(inventory)  # type: ignore[union-attr]
        elif args["state"] == "closed" and self._done(args, result):
            marker.unlink(missing_ok=True)

    def _inventory(self, marker: Path, task_vars: dict[str, Any]) -> str:
        """Return an inventory of this host alone, in YAML, in which nothing is left to look up."""
        names = [name for name in task_vars if name.startswith("llm_window_")]
        known = {name: self._templar.template(task_vars[name]) for name in sorted(names)}
        known["llm_window_reports_dir"] = str(marker.parent.parent)
        plugin = self._connection.ansible_name.rpartition(".")[2]
        known["ansible_connection"] = plugin
        options = constants.config.get_configuration_definitions("connection", plugin)
        for option, described in options.items():
            value = self._connection.get_option(option)
            if value is not None and described.get("vars"):
                known[described["vars"][-1]["name"]] = value
        python = task_vars.get("ansible_python_interpreter")
        if python is not None:
            known["ansible_python_interpreter"] = self._templar.template(python)
        group = {"hosts": {str(task_vars["inventory_hostname"]): plain(known)}}
        return yaml.safe_dump({"all": {"children": {"llm": group}}})

    @staticmethod
    def _warn(result: dict[str, Any], task_vars: dict[str, Any]) -> None:
        """Tell of an LLM that somebody else has started inside the window."""
        for row in (result.get("report") or {}).get("events", []):
            if row["event"] == "started_inside":
                Display().warning(
                    f"{task_vars.get('inventory_hostname')}: the LLM was started inside its window "
                    f"at {row['at']}, {row['detail']}; the voice is measured beside it. "
                    "Next: find what starts it (autoheal, a person), then run again"
                )

    def _call(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Call the module; try again for `lost_s` seconds where the host cannot be reached."""
        display, host = Display(), task_vars.get("inventory_hostname")
        until = time.monotonic() + float(args.get("lost_s", 60))
        while True:
            try:
                result: dict[str, Any] = self._execute_module(
                    module_name="llm_lease", module_args=args, task_vars=task_vars
                )
                return result
            except AnsibleConnectionFailure as error:
                if args.get("state") in ("installed", "armed"):
                    raise  # nothing was touched yet
                if time.monotonic() >= until:
                    return {
                        "failed": args.get("state") != "renewed",
                        "changed": False,
                        "lost": True,
                        "msg": f"{host} cannot be reached ({error}); its own lease brings the LLM "
                        "back. Next, when it is back: ansible-playbook restore.yml",
                    }
                display.warning(f"{host}: {error}; trying again")
                self._connection.reset()
                time.sleep(TRY_S)

    @staticmethod
    def _done(args: dict[str, Any], result: dict[str, Any]) -> bool:
        """Whether the lease that was meant is gone, or the LLM is as far as was asked for."""
        there, meant = result["window"]["lease"] or {}, args.get("lease")
        if not there or (meant and there["id"] != meant):
            return True
        phase = (result.get("report") or {}).get("phase")
        if args["state"] == "settled":
            return result["window"]["state"] == "held" or phase == "silent"
        return args["state"] == "answered" and phase == "answered"

    def _show(
        self, result: dict[str, Any], shown: set[tuple[str, str, str]], args: dict[str, Any]
    ) -> None:
        """Print what the keeper did since the last call."""
        for row in (result.get("report") or {}).get("events", []):
            key = (row["at"], row["event"], row["detail"])
            # Without a holder the window was ended before, and the rest was shown then.
            if key not in shown and (args.get("holder") or row["event"] == "closed"):
                shown.add(key)
                detail = f": {row['detail']}" if row["detail"] else ""
                Display().display(f"    {row['at'][11:19]} {row['event']}{detail}")
