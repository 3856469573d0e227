"""The module: what it writes, when it says changed, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import run_factory as factory
from ansible.module_utils.testing import patch_module_args

from understudy.documents import validate

ROOT = Path(__file__).resolve().parents[3]
SHEET = "utterance,titan,panda\n" + "".join(f"{name},5,4\n" for name in factory.IDS)


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tts_verdict", ROOT / "library/tts_verdict.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def call(module: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the module with the given options and return its result."""

    def run(check: bool = False, **options: Any) -> dict[str, Any]:
        (tmp_path / "remote").mkdir(exist_ok=True)
        internal = {"_ansible_check_mode": check, "_ansible_remote_tmp": str(tmp_path / "remote")}
        with patch_module_args({**options, **internal}), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    path = tmp_path / "ab.csv"
    path.write_text(SHEET)
    return path


def tree(run_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run_dir.glob("*.json")}


def test_check_real_again_check(call: Any, run_dir: Path) -> None:
    before = tree(run_dir)
    first = call(check=True, run_dir=str(run_dir))
    assert first["changed"] is True
    assert tree(run_dir) == before

    second = call(run_dir=str(run_dir))
    assert second["changed"] is True
    assert second["path"] == str(run_dir / "verdict.json")
    assert json.loads((run_dir / "verdict.json").read_text()) == second["verdict"]
    assert second["verdict"]["verdict"] == "awaiting_ab_scores"
    assert second["summary"][0] == "verdict: awaiting_ab_scores (ok)"
    assert second["summary"][1:-2] == second["verdict"]["reasons"]
    assert second["summary"][-2].startswith("time: 600 s; 200 s installing, 20 s loading models,")
    assert second["summary"][-1] == f"report: {run_dir}/report.html"
    assert "awaiting_ab_scores" in second["diff"][0]["after"]

    after = tree(run_dir)
    for check in (False, True):
        third = call(check=check, run_dir=str(run_dir))
        assert (third["changed"], third["diff"]) == (False, [])
        assert third["verdict"] == second["verdict"]
        assert tree(run_dir) == after


def test_only_the_time_of_computation_is_no_change(call: Any, run_dir: Path) -> None:
    call(run_dir=str(run_dir))
    path = run_dir / "verdict.json"
    document = json.loads(path.read_text())
    document["computed_at"] = "2020-01-01T00:00:00Z"
    path.write_text(json.dumps(document))
    assert call(run_dir=str(run_dir))["changed"] is False
    document["reasons"] = ["something else"]
    path.write_text(json.dumps(document))
    assert call(run_dir=str(run_dir))["changed"] is True


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_broken_verdict_is_replaced(call: Any, run_dir: Path, text: str) -> None:
    (run_dir / "verdict.json").write_text(text)
    assert call(run_dir=str(run_dir))["changed"] is True
    assert json.loads((run_dir / "verdict.json").read_text())["ok"] is True


def test_scores_are_taken_in_and_kept(call: Any, run_dir: Path, sheet: Path) -> None:
    checked = call(check=True, run_dir=str(run_dir), ab_scores=str(sheet))
    assert checked["verdict"]["ratings"]["differences"] == {"titan": 1.0}
    assert not (run_dir / "ratings.json").exists()

    result = call(run_dir=str(run_dir), ab_scores=str(sheet))
    assert result["changed"] is True
    assert result["verdict"]["verdict"] == "titan_chatterbox_diverges_from_panda_investigate"
    assert result["summary"][0].endswith("(not ok)")
    ratings = json.loads((run_dir / "ratings.json").read_text())
    source = {"kind": "sheet", "name": "ab.csv", "sha256": factory.sha256(SHEET)}
    assert (ratings["schema_version"], ratings["source"]) == (2, source)
    assert ratings["scores"][9] == {"utterance": "u10", "pass": 1, "titan": 5, "panda": 4}
    assert (ratings["audio"], ratings["listener"]) == ({}, None)
    assert ratings["given_for"] == factory.listened([5] * 10, [5] * 10)["given_for"]
    assert result["verdict"]["human"] == {"state": "stands", "why": []}
    validator = validate.load_schemas()["ratings"]
    assert list(validator.iter_errors(ratings)) == []
    assert {entry["name"]: entry["sha256"] for entry in result["verdict"]["files"]}[
        "ratings.json"
    ] == factory.sha256((run_dir / "ratings.json").read_bytes())

    assert call(run_dir=str(run_dir), ab_scores=str(sheet))["changed"] is False
    assert call(run_dir=str(run_dir))["changed"] is False


def test_the_play_ends_with_the_evidence(call: Any, run_dir: Path, sheet: Path) -> None:
    sheet.write_text(SHEET.replace(",5,4", ",2,2"))
    summary = call(run_dir=str(run_dir), ab_scores=str(sheet))["summary"]
    assert summary[2].startswith("evidence: weak. Every score is 2, and no impostor was played")
    assert "10 pairs, one pass: an identical voice passes this rule 4 times in 5" in summary[2]
    assert summary[3].startswith("warning: titan and panda both score below 3 (2.00 and 2.00)")
    assert summary[4].startswith("time: ")

    factory.put(run_dir, "identity.json", factory.identity("diverged", "F0 differs."))
    lines = call(run_dir=str(run_dir))["summary"]
    assert lines[4].startswith(
        "the listener's verdict is contradicted: The listener heard the same"
    )
    assert lines[4].endswith("F0 differs.")
    document = json.loads((run_dir / "bench-titan.json").read_text())
    document["environment"]["driver"] = "590.1"
    factory.put(run_dir, "bench-titan.json", document)
    lines = call(run_dir=str(run_dir))["summary"]
    assert lines[4].startswith("the listener's verdict is stale: titan: the driver was 580.95.05")


@pytest.mark.parametrize(("rated", "imported"), [(False, "False"), (True, "True")])
def test_scipy_is_imported_only_for_scores(run_dir: Path, rated: bool, imported: str) -> None:
    """In a process of its own: it takes a second that a run without scores has no use for."""
    if rated:
        factory.put(run_dir, "ratings.json", factory.ratings())
    code = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests/unit")!r}, {str(ROOT / "tests/support")!r}]
import conftest, importlib.util, pathlib, datetime
spec = importlib.util.spec_from_file_location("m", {str(ROOT / "library/tts_verdict.py")!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
now = datetime.datetime.now(tz=datetime.timezone.utc)
found = module.compute(pathlib.Path({str(run_dir)!r}), now)
print("scipy" in sys.modules, found["evidence"] is not None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [imported, imported], done.stderr


@pytest.mark.parametrize(("shift", "before"), [(-1, True), (1, False)])
def test_whether_the_scores_are_older_than_the_audio(
    call: Any, run_dir: Path, sheet: Path, shift: int, before: bool
) -> None:
    finished = factory.BEGIN + 300  # the bench's finished_at
    os.utime(sheet, (finished + shift, finished + shift))
    call(run_dir=str(run_dir), ab_scores=str(sheet))
    assert json.loads((run_dir / "ratings.json").read_text())["given_before_audio"] is before


def test_a_bad_sheet_changes_nothing(call: Any, run_dir: Path, sheet: Path) -> None:
    call(run_dir=str(run_dir), ab_scores=str(sheet))
    before = tree(run_dir)
    sheet.write_text(SHEET.replace("u03,5,4", "u03,6,4").replace("u07,5,4\n", ""))
    result = call(run_dir=str(run_dir), ab_scores=str(sheet))
    assert result["failed"] is True
    assert "ab.csv: line 4 (u03): titan: saw 6, expected a whole number" in result["msg"]
    assert "ab.csv: u07: its row is missing" in result["msg"]
    assert len(result["problems"]) == 2
    assert tree(run_dir) == before


@pytest.mark.parametrize("kind", ["page", "terminal"])
def test_a_sheet_does_not_replace_a_blind_session(
    call: Any, run_dir: Path, sheet: Path, kind: str
) -> None:
    ratings = factory.listened([5] * 10, [5] * 10)
    ratings["source"]["kind"] = kind
    factory.put(run_dir, "ratings.json", ratings)
    before = tree(run_dir)
    result = call(run_dir=str(run_dir), ab_scores=str(sheet))
    assert result["failed"] is True
    assert f"a blind session ({kind})" in result["msg"]
    moved = f"mv -n {run_dir}/ratings.json ~/ratings-{run_dir.name}.json"
    assert f"Next: {moved}" in result["msg"]
    assert tree(run_dir) == before
    assert call(run_dir=str(run_dir))["verdict"]["ratings"]["n"] == 10


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b'{"source": 3}', b'{"source": {}}'])
def test_a_sheet_replaces_a_broken_file(
    call: Any, run_dir: Path, sheet: Path, content: bytes
) -> None:
    (run_dir / "ratings.json").write_bytes(content)
    assert call(run_dir=str(run_dir), ab_scores=str(sheet))["verdict"]["ratings"]["n"] == 10


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfeu\x000\x001"])
def test_an_unreadable_sheet(call: Any, run_dir: Path, sheet: Path, content: bytes | None) -> None:
    if content is None:
        sheet.unlink()
    else:
        sheet.write_bytes(content)
    result = call(run_dir=str(run_dir), ab_scores=str(sheet))
    assert result["failed"] is True
    assert "ab.csv" in result["msg"]
    assert not (run_dir / "verdict.json").exists()


def test_a_run_that_did_not_begin_gets_its_verdict_all_the_same(
    call: Any, run_dir: Path, sheet: Path
) -> None:
    (run_dir / "run.json").unlink()
    result = call(run_dir=str(run_dir), ab_scores=str(sheet))
    assert result["verdict"]["verdict"] == "invalid_run"
    assert (run_dir / "verdict.json").exists()
    assert not (run_dir / "ratings.json").exists()


def test_only_a_run_is_written_to(call: Any, run_dir: Path, tmp_path: Path) -> None:
    """What `run=..` and its kin lead to: nothing outside the directory of all runs."""
    reports = run_dir.parent
    (reports / "latest").symlink_to(run_dir.name)
    assert call(run_dir=str(reports / "latest"))["path"] == str(run_dir / "verdict.json")
    assert call(run_dir=f"{reports}/./{run_dir.name}/")["changed"] is False

    away = tmp_path / "away" / factory.RUN_ID
    shutil.copytree(run_dir, away)
    (away / "verdict.json").unlink()
    (reports / "20261122-000000Z").symlink_to(away)
    (reports / "circle").symlink_to("circle")
    (reports / "other").mkdir()
    (reports / "file").write_text("")
    before = sorted(path for path in tmp_path.rglob("*"))
    for name in (".", "..", "20261122-000000Z", "circle", "other", "file", "latest/..", "n" * 300):
        result = call(run_dir=f"{reports}/{name}")
        assert result["failed"] is True
        assert "Next: ls -l /" in result["msg"], name
        assert "Traceback" not in str(result)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_files_that_lead_elsewhere_are_neither_read_nor_written(
    call: Any, run_dir: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.json"
    outside.write_bytes((run_dir / "llm.json").read_bytes())
    for name in ("llm.json", "verdict.json"):
        (run_dir / name).unlink(missing_ok=True)
        (run_dir / name).symlink_to(outside)
    os.mkfifo(run_dir / "identity.json")
    before = outside.read_bytes()
    result = call(run_dir=str(run_dir))
    assert outside.read_bytes() == before
    assert not (run_dir / "verdict.json").is_symlink()
    assert "llm.json cannot be used: it cannot be read (it is a link, not a file)" in str(result)


def test_half_a_surrogate_pair_does_not_reach_the_verdict(call: Any, run_dir: Path) -> None:
    path = run_dir / "llm.json"
    path.write_text(path.read_text().replace("titan", "\\ud800", 1))
    result = call(run_dir=str(run_dir))
    assert "llm.json cannot be used: it holds half a surrogate pair" in str(result["verdict"])
    assert json.loads((run_dir / "verdict.json").read_text()) == result["verdict"]


def test_numbers_that_are_no_quantities(call: Any, run_dir: Path) -> None:
    document = json.loads((run_dir / "llm.json").read_text())
    document["busy"] = [{"what": "llm_probe", "start": -1.7e308, "end": 1.7e308}]
    factory.put(run_dir, "llm.json", document)
    assert call(run_dir=str(run_dir))["verdict"]["timing"]["split"]["llm_probe"] == 0


def test_a_crowd_is_no_run(call: Any, run_dir: Path) -> None:
    """What is said once for each host and utterance has to stay short enough to be read."""
    document = json.loads((run_dir / "run.json").read_text())
    document["hosts"]["standby"] = [f"h{n}" for n in range(20_000)]
    factory.put(run_dir, "run.json", document)
    result = call(run_dir=str(run_dir))
    assert "run.json cannot be used: it names 20,000 standby hosts, expected at most 20" in str(
        result["verdict"]["reasons"]
    )
    for n in range(200):
        (run_dir / f"bench-{n}.json").write_text("{}")
    result = call(run_dir=str(run_dir))
    assert "files of phases lie beside it, expected at most 100" in str(result["verdict"])
    assert len(json.dumps(result["verdict"])) < 20_000


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (os.mkfifo, "it cannot be read: it is a pipe, not a file"),
        (os.mkdir, "it cannot be read: Is a directory"),
        (
            lambda path: path.symlink_to("/dev/zero"),
            "it cannot be read: it is a device, not a file",
        ),
        (
            lambda path: path.symlink_to(path),
            "it cannot be read: Too many levels of symbolic links",
        ),
        (lambda path: path.write_bytes(b" " * (1 << 20) + b"1"), "it is larger than 1,048,576"),
        (lambda path: path.write_bytes(b"utterance,titan\0"), "line 1: it holds a NUL character"),
    ],
)
def test_a_sheet_that_is_none(call: Any, run_dir: Path, sheet: Path, make: Any, seen: str) -> None:
    sheet.unlink()
    make(sheet)
    result = call(run_dir=str(run_dir), ab_scores=str(sheet))
    assert f"The scores were refused and nothing was written.\nab.csv: {seen}" in result["msg"]
    assert not (run_dir / "ratings.json").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_the_encodings_of_spreadsheets(
    call: Any, run_dir: Path, sheet: Path, encoding: str
) -> None:
    text = SHEET.replace(",", "\t").replace("\n", "\r\n")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    sheet.write_bytes((mark + text).encode(encoding))
    assert call(run_dir=str(run_dir), ab_scores=str(sheet))["verdict"]["ratings"]["n"] == 10


def test_the_name_of_a_sheet_is_kept_as_text(call: Any, run_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "a\nb.csv"
    path.write_text(SHEET)
    call(run_dir=str(run_dir), ab_scores=str(path))
    ratings = json.loads((run_dir / "ratings.json").read_text())
    assert ratings["source"]["name"] == r"'a\nb.csv'"


def test_no_run_directory(call: Any, tmp_path: Path) -> None:
    result = call(run_dir=str(tmp_path / "nowhere"))
    assert result["failed"] is True
    assert "nowhere is no directory" in result["msg"]


def test_ansible_itself_runs_it(run_dir: Path, sheet: Path) -> None:
    """Once through the real machinery: the wrapped module finds its module_utils."""
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-m", "tts_verdict"]
    command += ["-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    command += ["-a", f"run_dir={run_dir} ab_scores={sheet}"]
    environment = {
        **os.environ,
        "ANSIBLE_LIBRARY": str(ROOT / "library"),
        "ANSIBLE_MODULE_UTILS": str(ROOT / "module_utils"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_NOCOLOR": "1",
    }
    for changed in ("true", "false"):
        done = subprocess.run(
            command, env=environment, cwd=run_dir, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f'"changed": {changed}' in done.stdout
    written = json.loads((run_dir / "verdict.json").read_text())
    assert written["ratings"]["n"] == 10
    assert written["evidence"]["level"] == "moderate"
