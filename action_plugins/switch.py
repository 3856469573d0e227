"""Begin, decide and end a failover or failback, and keep its record in ``reports/switches/``.

Action only: an outage has no time for a process per step. The thinking is in
``understudy.failover.decide``. Times count from the moment the command was typed.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.errors import AnsibleActionFail
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
    "step": {
        "type": "str",
        "choices": ["begin", "first", "decide", "refuse", "users", "end"],
        "required": True,
    },
    "command": {"type": "str", "required": True},
    "reports_dir": {"type": "path"},
    "evidence_days": {"type": "float", "default": 45},
    "primary": {"type": "dict"},
    "primary_url": {"type": "str"},
    "to": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "heard_for_s": {"type": "float", "default": 0},
    "reason": {"type": "str"},
}
REQUIRED_IF = [
    ("step", "begin", ["reports_dir"]),
    ("step", "first", ["primary"]),
    ("step", "decide", ["primary"]),
    ("step", "refuse", ["reason"]),
    ("step", "users", ["primary_url"]),
]
#: The groups without which there is nothing to decide.
GROUPS = ("primary", "standby", "clients")


NOT_OK = "not every client is switched and heard: the last lines below say which, and why"
#: What Ansible and SSH put before the text that tells something.
PREAMBLE = re.compile(
    r"(Task failed: |Failed to connect to the host via ssh: |mux_client_\S+: .*\n|ssh: )"
)


def short(text: str | None) -> str:
    """Return what was seen without what is the same each time."""
    return PREAMBLE.sub("", text or "").strip()


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _result, args = self.validate_argument_spec(ARGUMENTS, required_if=REQUIRED_IF)
        own = dict(task_vars["hostvars"]["localhost"].get("tts_route_switch") or {})
        step = getattr(self, f"_{args['step']}")
        return {"changed": False, **step(args, own, task_vars)}

    def _begin(
        self, args: dict[str, Any], _own: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        empty = [group for group in GROUPS if not task_vars["groups"].get(group)]
        if empty:
            raise AnsibleActionFail(
                f"nobody was switched: the inventory has no host in the group `{empty[0]}`. "
                "Next: ansible-inventory --graph, and put it in"
            )
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

    def _first(
        self, args: dict[str, Any], own: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Say which standby is tried first; none where nobody is to be switched."""
        try:
            decision = self._decision(args, task_vars, may_start=True)
            return {"switch": {**own, "first": decision["to"]}}
        except decide.Refused as error:
            return self._refused(own, str(error), args["primary"])

    def _decide(
        self, args: dict[str, Any], own: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        if own.get("refused"):
            return {"switch": own}
        try:
            decision = self._decision(args, task_vars)
        except decide.Refused as error:
            return self._refused(own, str(error), args["primary"])
        loud = [f"{text}." for text in decision["warnings"]]
        if args["command"] == decide.FAILOVER and own["evidence"]["warning"]:
            loud.append(
                f"{own['evidence']['warning']}. It is switched all the same: silence is worse."
            )
        self._record(
            own, {"to": decision["to"], "epoch": decision["epoch"], "primary": args["primary"]}
        )
        return {"switch": {**own, "decision": decision}, "warnings": loud}

    def _decision(
        self, args: dict[str, Any], task_vars: dict[str, Any], *, may_start: bool = False
    ) -> dict[str, Any]:
        return decide.decide(
            args["command"],
            self._clients(task_vars),
            self._standbys(task_vars),
            args["primary"],
            args["to"] or "",
            args["force"],
            args["heard_for_s"],
            may_start=may_start,
        )

    def _refuse(
        self, args: dict[str, Any], own: dict[str, Any], _task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        return self._refused(own, args["reason"])

    def _refused(
        self, own: dict[str, Any], reason: str, primary: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Note that nobody is switched; the last step fails with it.

        Not at once: a play in which all hosts failed would be the last one, and the record would
        stay as it is.
        """
        data = {"primary": primary} if primary else {}
        self._record(own, {"status": "failed", "error": reason, **data})
        return {"switch": {**own, "refused": f"nobody was switched: {reason}", "decision": None}}

    def _users(
        self, args: dict[str, Any], own: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Say who uses this standby's server, or may."""
        name = task_vars["inventory_hostname"]
        rows = self._clients(task_vars)
        for client in [one for one in rows if self._moved(own, one, task_vars)]:
            seen = rows.pop(client)
            if client in own["decision"]["unknown"]:  # whose server that is has to be asked
                url = own["decision"]["urls"][client]
                asked = seen.get("server" if url == seen["url"] else "previous_server")
                changed = {"url": url, "target": None, "foreign": False, "server": asked}
                rows[client] = {**seen, **changed}
        found = decide.users(rows, name, self._standbys(task_vars)[name], args["primary_url"])
        return {"users": found}

    @staticmethod
    def _moved(own: dict[str, Any], client: str, task_vars: dict[str, Any]) -> bool:
        """Whether a client was heard elsewhere in the course of this play."""
        decision = own.get("decision") or {}
        row = task_vars["hostvars"][client]
        return bool(row.get("tts_route_heard") or client in (decision.get("settled") or {}))

    def _end(
        self, args: dict[str, Any], own: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        if own.get("refused"):
            return {"last_words": [own["refused"]], "ok": False, "msg": own["refused"]}
        if not own.get("decision"):
            skipped = (
                f"nobody was switched: {args['command']} came to its end without a decision. "
                f"Next: ansible-playbook {args['command']}, without --tags and --start-at-task"
            )
            return {"last_words": [skipped], "ok": False, "msg": skipped}
        if self._task.check_mode:
            wrong = [
                f"{name}: NOT switchable: {short(row.get('tts_route_problem')) or 'it was lost'}"
                for name, row in self._hosts("clients", task_vars)
                if row.get("tts_route_problem") or name not in own["decision"]["urls"]
            ]
            return {"last_words": wrong, "ok": not wrong, "msg": NOT_OK}
        rows = {}
        for name, row in self._hosts("clients", task_vars):
            rows[name] = {
                "url": own["decision"]["urls"].get(name),
                "switched_at": row.get("tts_route_switched_at"),
                "heard": row.get("tts_route_heard"),
                "put_back": row.get("tts_route_put_back"),
                "not_put_back": short(row.get("tts_route_not_put_back")),
                "problem": short(row.get("tts_route_problem")),
            }
        standbys, to = self._standbys(task_vars), own["decision"]["to"]
        if args["command"] == decide.FAILOVER:
            warning, found = own["evidence"]["warning"], standbys[to]
            ready_at = float(found["ready_at"]) if found.get("ready") else None
            losses = [f"{to}: {found['ends_with']}"] if found.get("ends_with") else []
        else:
            ready_at = None
            unseen = [name for name, row in standbys.items() if not row.get("reached")]
            lost = f"{', '.join(unseen)} was not looked at, and is not in its idle state"
            warning = lost if unseen else None
            failures = (
                (name, short(row.get("tts_server_not_idle")))
                for name, row in self._hosts("standby", task_vars)
            )
            losses = [f"{name}: not in its idle state: {text}" for name, text in failures if text]
        ended = decide.outcome(
            args["command"], own["decision"], rows, own["began"], ready_at, warning, losses
        )
        words = ended.pop("last_words")
        self._record(own, ended)
        words += [f"record: {own['dir']}/switch.json"] if own["dir"] else []
        return {"last_words": ["", *words], "ok": ended["status"] == "ok", "msg": NOT_OK}

    def _clients(self, task_vars: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {
            name: row.get("tts_route_found")
            or {"problem": short(row.get("tts_route_problem")) or "it was not looked at"}
            for name, row in self._hosts("clients", task_vars)
        }

    def _standbys(self, task_vars: dict[str, Any]) -> dict[str, dict[str, Any]]:
        found = {}
        for name, row in self._hosts("standby", task_vars):
            seen = row.get("tts_server_found") or {}
            found[name] = {**seen, "problem": short(seen.get("problem"))}
        return found

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
