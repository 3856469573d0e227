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
  - Where there are scores, statistics stand beside the rule. They never change the verdict.
options:
  run_dir:
    description:
      - The run directory, or a link to it such as C(reports/latest).
      - A link that leads out of its own directory is refused, and so is a directory without the
        name of a run.
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

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from understudy.common.files import JSON_BYTES, read_bytes
from understudy.common.jsonio import json_text, parse_json
from understudy.verdict import scoring
from understudy.verdict.ratings import RatingsError
from understudy.verdict.rules import compute
from understudy.verdict.run_directory import RunDirectoryError, locate
from understudy.verdict.summary import summarise


def present(path: Path) -> str:
    """Return a file's text, or nothing where there is none or none that can be read."""
    try:
        return read_bytes(path, JSON_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""


def unchanged(before: str, verdict: dict[str, Any]) -> bool:
    """Tell whether a verdict's text says the same as the new one, whenever it was computed."""
    try:
        document = parse_json(before.encode())
    except ValueError:
        return False
    return isinstance(document, dict) and {**document, "computed_at": None} == {
        **verdict,
        "computed_at": None,
    }


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
    try:
        run_dir = locate(Path(module.params["run_dir"]))
    except RunDirectoryError as error:
        module.fail_json(msg=f"run_dir: {error}")

    texts: dict[str, str] = {}
    path = run_dir / "ratings.json"
    blind = scoring.blind(run_dir)
    if module.params["ab_scores"] and blind:
        module.fail_json(
            msg=f"The scores were refused and nothing was written.\n{path} holds those of a blind "
            f"session ({blind}), which a sheet does not replace.\n"
            f"Next: mv -n {path} ~/ratings-{run_dir.name}.json, then give the sheet again."
        )
    try:
        if module.params["ab_scores"]:
            rated = scoring.take(run_dir, Path(module.params["ab_scores"]))
            if rated:
                texts["ratings.json"] = json_text(rated)
            else:
                module.warn("ab_scores was left aside: run.json does not say what was to be rated")
        ratings = texts["ratings.json"].encode() if texts else None
        verdict = compute(run_dir, datetime.now(UTC), ratings)
    except RatingsError as error:
        module.fail_json(
            msg=f"The scores were refused and nothing was written.\n{error}\n"
            f"Next: correct {module.params['ab_scores']} and give it again.",
            problems=error.problems,
        )
    except OSError as error:
        module.fail_json(msg=f"{run_dir} cannot be read: {error.strerror}. Next: ls -ld {run_dir}")

    path = run_dir / "verdict.json"
    if unchanged(present(path), verdict):
        verdict = parse_json(present(path).encode())
    else:
        texts["verdict.json"] = json_text(verdict)
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
