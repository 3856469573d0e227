"""run_begin and run_record, called by themselves: what they refuse, and that it is a sentence."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a module with the given options and return its result."""

    def run(name: str, **options: Any) -> dict[str, Any]:
        spec = importlib.util.spec_from_file_location(name, ROOT / f"library/{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with patch_module_args(options), pytest.raises(SystemExit):
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def begin(call: Any, reports: Path | str, **document: Any) -> dict[str, Any]:
    given = {"controller": {}} | document
    result: dict[str, Any] = call(
        "run_begin", reports_dir=str(reports), document=given, project_dir=str(ROOT)
    )
    return result


def test_a_run_keeps_its_own_name(call: Any, tmp_path: Path) -> None:
    """A document that names another run would make a directory that no reader takes."""
    result = begin(call, tmp_path / "reports", run_id="../x", schema_version=9, gemma_mode="pause")
    document = json.loads(Path(result["run_dir"], "run.json").read_text())
    assert document["run_id"] == result["run_id"] == Path(result["run_dir"]).name
    assert (document["schema_version"], document["gemma_mode"]) == (1, "pause")
    assert (tmp_path / "reports/latest").readlink() == Path(result["run_id"])


@pytest.mark.parametrize("reports", ["", " ", "a\0b", "/dev/null/reports", "/proc/reports"])
def test_places_where_no_run_can_be(call: Any, reports: str) -> None:
    result = begin(call, reports)
    assert result["failed"] is True
    assert "Next: " in result["msg"]


def test_nothing_is_made_beside_a_directory_named_latest(call: Any, tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    result = begin(call, tmp_path)
    assert f"{tmp_path}/latest is no link" in result["msg"]
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]


@pytest.mark.parametrize("controller", [None, [], "x"])
def test_a_controller_that_is_none(call: Any, tmp_path: Path, controller: Any) -> None:
    assert begin(call, tmp_path, controller=controller)["failed"] is True


def record(call: Any, run_dir: Path, name: str = "llm.json") -> dict[str, Any]:
    result: dict[str, Any] = call(
        "run_record", run_dir=str(run_dir), file=name, phase="llm", data={"status": "ok"}
    )
    return result


@pytest.mark.parametrize(
    "name", ["../llm.json", "/tmp/llm.json", "a/llm.json", ".lock", "", "..", "llm.txt", ".json"]
)
def test_only_a_file_of_the_run_is_written(call: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    result = record(call, tmp_path / "run", name)
    assert result["failed"] is True
    assert "is not the name of a file of a run" in result["msg"]
    assert list(tmp_path.rglob("*")) == [tmp_path / "run"]


@pytest.mark.parametrize("name", ["llm.json", ".lock"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file(call: Any, tmp_path: Path, name: str, kind: str) -> None:
    run_dir, outside = tmp_path / "run", tmp_path / "outside"
    run_dir.mkdir()
    outside.write_text("{}")
    if kind == "link":
        (run_dir / name).symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(run_dir / name)
    else:
        (run_dir / name).mkdir()
    result = record(call, run_dir)
    assert result["failed"] is True
    assert "cannot be written: " in result["msg"]
    assert outside.read_text() == "{}"


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, "{", "1" * 5000, ""])
def test_what_is_no_document(call: Any, tmp_path: Path, content: str) -> None:
    (tmp_path / "llm.json").write_text(content)
    result = record(call, tmp_path)
    assert result["failed"] is True
    assert (tmp_path / "llm.json").read_text() == content
