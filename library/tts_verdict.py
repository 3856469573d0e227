#!/usr/bin/python
# SPDX-License-Identifier: MIT

from __future__ import annotations

DOCUMENTATION = r"""
module: tts_verdict
short_description: Computes the verdict of a run directory
version_added: "0.1.0"
description:
  - Reads the files that the phases of a run left in its directory and writes C(verdict.json)
    beside them.
  - The verdict depends on the directory only. A run that died anywhere still gets one.
  - With O(ab_scores) the sheet is first checked and kept as C(ratings.json). A sheet that is
    incomplete or out of range is refused with every wrong row named, and nothing is written.
    So is one for a run that was scored blind.
  - Beside the rule stand statistics, where there are scores and the module's own Python has the
    package C(understudy); without it a note says so. They never change the verdict.
options:
  run_dir:
    description: The run directory, or a link to it such as C(reports/latest).
    type: path
    required: true
  ab_scores:
    description:
      - A listener's sheet, JSON or CSV with the header C(utterance,<host>,<host>), one row per
        utterance, whole numbers from 1 to 5.
      - Without it a C(ratings.json) that is already there is used.
      - It is left aside with a warning if the run has no usable C(run.json) to hold it against.
    type: path
attributes:
  check_mode:
    support: full
    description: Computes and returns everything, and writes nothing.
  diff_mode:
    support: full
    description: Shows what changes in C(ratings.json) and C(verdict.json).
  idempotency:
    support: full
    description: C(verdict.json) is left alone when only the time of its computation would change.
author:
  - The understudy maintainers (@understudy)
"""

EXAMPLES = r"""
- name: Compute the verdict of the newest run
  tts_verdict:
    run_dir: reports/latest

- name: Take the listener's scores into it
  tts_verdict:
    run_dir: reports/latest
    ab_scores: scores.csv
"""

RETURN = r"""
verdict:
  description: The verdict, as C(src/understudy/documents/schemas/verdict.schema.json) describes it.
  returned: success
  type: dict
  sample: {verdict: awaiting_ab_scores, ok: true}
path:
  description: Where the verdict is.
  returned: success
  type: path
  sample: /home/me/understudy/reports/20261122-031500Z/verdict.json
summary:
  description: What a play ends with, namely the verdict, its reasons and the path of the report.
  returned: success
  type: list
  elements: str
  sample: ["verdict: awaiting_ab_scores (ok)"]
problems:
  description: What is wrong with the sheet, one sentence each.
  returned: when the sheet is refused
  type: list
  elements: str
"""

import hashlib
import json
import os
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from understudy.verdict.ratings import RatingsError, parse
from understudy.verdict.rules import compute
from understudy.verdict.run_directory import judge, read, seconds
from understudy.verdict.validity import given_for


def render(document: dict[str, Any]) -> str:
    """Return a document as it stands in a run directory."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def present(path: Path) -> str:
    """Return a file's text, or nothing where there is none or none that can be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def audio_finished(run_dir: Path, documents: dict[str, Any]) -> float | None:
    """Return when the first bench had all its audio, in Unix seconds; None without one."""
    times = []
    for name, document in documents.items():
        if not name.startswith("bench-"):
            continue
        finished = seconds(document.get("finished_at"))
        host = name[len("bench-") : -len(".json")]
        waves = [path.stat().st_mtime for path in run_dir.glob(f"{host}_native/*.wav")]
        times += [finished] if finished is not None else waves
    return min(times, default=None)


def rate(run_dir: Path, sheet: Path) -> str | None:
    """Check a sheet against its run.

    Returns:
        The text of ``ratings.json``; None if no run.json says what was to be rated.

    Raises:
        RatingsError: if the sheet cannot be used.
    """
    documents, faults, _ = read(run_dir)
    run = judge(documents, faults, run_dir.name)
    hosts = [*run.hosts["standby"], *run.hosts["primary"]]
    utterances = [row["id"] for row in run.utterances]
    if not utterances:
        return None
    try:
        content = sheet.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise RatingsError(str(sheet), [f"it cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise RatingsError(sheet.name, [f"it is not UTF-8 (byte {error.start})"]) from error
    parsed = parse(text, sheet.name, utterances=utterances, hosts=hosts, run_id=run.run_id)
    heard = audio_finished(run_dir, run.documents)
    return render(
        {
            "schema_version": 2,
            "run_id": run.run_id,
            "source": {
                "kind": "sheet",
                "name": sheet.name,
                "sha256": hashlib.sha256(content).hexdigest(),
            },
            "given_before_audio": heard is None or sheet.stat().st_mtime < heard,
            "identity_matches": parsed["identity_matches"],
            "given_for": given_for(run),
            "audio": {},
            "scores": parsed["scores"],
            "listener": None,
        }
    )


def blind(run_dir: Path) -> str | None:
    """Return how the scores that are there were given, if that was blind; a sheet is not."""
    try:
        kind = json.loads(present(run_dir / "ratings.json"))["source"]["kind"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return kind if kind in ("page", "terminal") else None


def unchanged(before: str, verdict: dict[str, Any]) -> bool:
    """Tell whether a verdict's text says the same as the new one, whenever it was computed."""
    try:
        document = json.loads(before)
    except ValueError:
        return False
    return isinstance(document, dict) and {**document, "computed_at": None} == {
        **verdict,
        "computed_at": None,
    }


def weigh(
    given: dict[str, Any], standbys: list[str], primary: str
) -> tuple[dict[str, Any], list[str]]:
    """Weigh scores with the Python half, which is imported only when there are some."""
    from understudy.verdict.evidence import weigh as weighed

    return weighed(given, standbys, primary)


def summarise(verdict: dict[str, Any], run_dir: Path) -> list[str]:
    """Return the lines that a play ends with."""
    evidence, human = verdict["evidence"], verdict["human"]
    lines = (
        [f"evidence: {evidence['level']}. {' '.join(evidence['reasons'][:2])}"] if evidence else []
    )
    lines += [f"warning: {warning}" for warning in verdict["warnings"]]
    if human and human["state"] != "stands":
        lines.append(f"the listener's verdict is {human['state']}: {' '.join(human['why'])}")
    return [
        f"verdict: {verdict['verdict']} ({'ok' if verdict['ok'] else 'not ok'})",
        *verdict["reasons"],
        *lines,
        *split(verdict["timing"]),
        f"report: {run_dir / 'report.html'}",
    ]


def split(timing: dict[str, Any]) -> list[str]:
    """Return the line that says where the run's time went, if that is known."""
    if not timing.get("total_s") or not timing.get("ratio"):
        return []
    parts = timing["split"]
    shares = [
        f"{parts[key]:.0f} s {text}"
        for key, text in (
            ("install", "installing"),
            ("model_load", "loading models"),
            ("synthesis", "speaking"),
            ("llm_probe", "asking the LLM"),
        )
        if parts.get(key)
    ]
    return [
        f"time: {timing['total_s']:.0f} s; {', '.join(shares)} (some at once); "
        f"{parts['other']:.0f} s Ansible and the rest ({timing['ratio']:.2f} x)"
    ]


def write(module: AnsibleModule, path: Path, text: str) -> None:
    """Replace a file in one step."""
    handle, name = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    module.atomic_move(name, str(path))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "run_dir": {"type": "path", "required": True},
            "ab_scores": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = Path(module.params["run_dir"])
    run_dir = given.resolve()
    if not run_dir.is_dir():
        module.fail_json(msg=f"run_dir: {given} is no directory. Next: ls {given.parent}")

    texts: dict[str, str] = {}
    path = run_dir / "ratings.json"
    if module.params["ab_scores"] and blind(run_dir):
        module.fail_json(
            msg=f"The scores were refused and nothing was written.\n{path} holds those of a blind "
            f"session ({blind(run_dir)}), which a sheet does not replace.\n"
            f"Next: mv -n {path} ~/ratings-{run_dir.name}.json, then give the sheet again."
        )
    if module.params["ab_scores"]:
        try:
            rated = rate(run_dir, Path(module.params["ab_scores"]))
            if rated:
                texts["ratings.json"] = rated
            else:
                module.warn("ab_scores was left aside: run.json does not say what was to be rated")
        except RatingsError as error:
            module.fail_json(
                msg=f"The scores were refused and nothing was written.\n{error}\n"
                f"Next: correct {module.params['ab_scores']} and give it again.",
                problems=error.problems,
            )
    ratings = texts["ratings.json"].encode() if texts else None
    try:
        now = datetime.now(tz=timezone.utc)  # noqa: UP017
        verdict = compute(run_dir, now, ratings, weigh)
    except OSError as error:
        module.fail_json(msg=f"{run_dir} cannot be read: {error.strerror}. Next: ls -ld {run_dir}")

    path = run_dir / "verdict.json"
    if unchanged(present(path), verdict):
        verdict = json.loads(present(path))
    else:
        texts["verdict.json"] = render(verdict)
    before = {name: present(run_dir / name) for name in texts}
    texts = {name: text for name, text in texts.items() if text != before[name]}
    if not module.check_mode:
        for name, text in texts.items():
            write(module, run_dir / name, text)
    module.exit_json(
        changed=bool(texts),
        verdict=verdict,
        path=str(path),
        summary=summarise(verdict, run_dir),
        diff=[
            {
                "before": before[name],
                "after": text,
                "before_header": str(run_dir / name),
                "after_header": str(run_dir / name),
            }
            for name, text in texts.items()
        ],
    )


if __name__ == "__main__":
    main()
