"""Begin, decide and end a failover or failback, and keep its record in ``reports/switches/``.

Action only: an outage has no time for a process per step. The thinking is in
``understudy.failover.decide``. Times count from the moment the command was typed.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.plugins.action import ActionBase

PROJECT = Path(__file__).resolve().parents[1]
if str(PROJECT / "module_utils") not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(str(PROJECT / "module_utils"))

from ansible.module_utils.understudy import record  # noqa: E402

from understudy.common import process  # noqa: E402
from understudy.common.times import new_run_id  # noqa: E402
from understudy.failover import decide  # noqa: E402

#: What the module of this name documents.
ARGUMENTS = {
    "step": {"type": "str", "choices": ["begin", "decide", "end"], "required": True},
    "command": {"type": "str", "required": True},
    "reports_dir": {"type": "path"},
    "evidence_days": {"type": "float", "default": 45},
    "primary": {"type": "dict"},
    "to": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "heard_for_s": {"type": "float", "default": 0},
}
REQUIRED_IF = [("step", "begin", ["reports_dir"]), ("step", "decide", ["primary"])]


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _result, args = self.validate_argument_spec(ARGUMENTS, required_if=REQUIRED_IF)
        own = task_vars["hostvars"]["localhost"].get("tts_route_switch", {})
        step = {"begin": self._begin, "decide": self._decide, "end": self._end}[args["step"]]
        return {"changed": False, **step(args, own, task_vars)}

    def _begin(
        self, args: dict[str, Any], _own: dict[str, Any], _task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        reports, since = Path(args["reports_dir"]).resolve(), process.started_at(os.getppid())
        known = decide.evidence(str(reports), args["evidence_days"])
        facts = {"began": since, "evidence": known, "dir": ""}
        if self._task.check_mode:
            return {"switch": facts}
        run_id = new_run_id()
        path = reports / "switches" / run_id
        document = record.header(run_id, "switch", None) | {
            "command": args["command"],
            "controller": platform.node(),
            "evidence": known,
        }
        try:
            path.mkdir(parents=True)
            record.write(str(path / "switch.json"), document)
        except OSError as error:  # a full disk here must not stop a failover
            warnings = [f"control node: no record is kept: {error}"]
            return {"switch": facts, "warnings": warnings}
        return {"switch": {**facts, "dir": str(path)}}

    def _decide(
        self, args: dict[str, Any], own: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        clients = {
            name: row.get("tts_route_found")
            or {"problem": row.get("tts_route_problem") or "nothing was seen"}
            for name, row in self._hosts("clients", task_vars)
        }
        standbys = {
            name: dict(row.get("tts_server_found") or {})
            for name, row in self._hosts("standby", task_vars)
        }
        try:
            decision = decide.decide(
                args["command"],
                clients,
                standbys,
                args["primary"],
                args["to"] or "",
                args["force"],
                args["heard_for_s"],
            )
        except decide.Refused as error:
            self._record(own, {"status": "failed", "error": str(error), "primary": args["primary"]})
            return {"failed": True, "msg": f"nobody was switched: {error}"}
        loud = [f"{text}." for text in decision["warnings"]]
        if args["command"] == decide.FAILOVER and own["evidence"]["warning"]:
            loud.append(
                f"{own['evidence']['warning']}. It is switched all the same: silence is worse."
            )
        self._record(
            own, {"to": decision["to"], "epoch": decision["epoch"], "primary": args["primary"]}
        )
        return {"switch": {**own, "decision": decision}, "warnings": loud}

    def _end(
        self, args: dict[str, Any], own: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        if self._task.check_mode:
            return {"last_words": []}
        rows = {}
        for name, row in self._hosts("clients", task_vars):
            rows[name] = {
                "url": own["decision"]["urls"].get(name),
                "switched_at": row.get("tts_route_switched_at"),
                "heard": row.get("tts_route_heard"),
                "put_back": row.get("tts_route_put_back"),
                "problem": row.get("tts_route_problem") or "",
            }
        ready = (task_vars["hostvars"].get(own["decision"]["to"]) or {}).get(
            "tts_server_found"
        ) or {}
        warning = own["evidence"]["warning"] if args["command"] == decide.FAILOVER else None
        ready_at = float(ready["ready_at"]) if ready.get("ready") else None
        ended = decide.outcome(
            args["command"], own["decision"], rows, own["began"], ready_at, warning
        )
        words = ended.pop("last_words")
        self._record(own, ended)
        words = ["", *words, *([f"record: {own['dir']}/switch.json"] if own["dir"] else [])]
        return {"last_words": words, "ok": ended["status"] == "ok"}

    @staticmethod
    def _hosts(group: str, task_vars: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        names = task_vars["groups"].get(group, [])
        return [(name, task_vars["hostvars"][name]) for name in names]

    def _record(self, own: dict[str, Any], data: dict[str, Any]) -> None:
        if not own.get("dir") or self._task.check_mode:
            return
        try:
            record.update(own["dir"], "switch.json", "switch", None, data)
        except (OSError, ValueError) as error:
            self._display.warning(f"control node: {own['dir']}/switch.json: {error}")
