"""The files of a run directory: merged, whole, and written by several at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from ansible.module_utils.understudy import record

ROOT = Path(__file__).resolve().parents[3]

WRITER = """
import sys
from understudy import record
run_dir, host = sys.argv[1:]
for number in range(25):
    record.update(run_dir, "llm.json", "llm_window", None, {
        "hosts": {host: {f"k{number}": number}},
        "busy": [{"what": "llm_probe", "host": host, "start": number, "end": number + 1}],
    })
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "20261122-031500Z"
    path.mkdir()
    return path


def update(directory: Path, **data: object) -> dict[str, object]:
    return record.update(str(directory), "llm.json", "llm_window", None, data)


def test_the_first_write_has_the_header(directory: Path) -> None:
    written = update(directory)
    assert written.pop("started_at").endswith("Z")
    assert written == {
        "schema_version": 1,
        "run_id": "20261122-031500Z",
        "phase": "llm_window",
        "host": None,
        "status": "running",
        "finished_at": None,
        "error": None,
    }


def test_the_run_id_is_the_directory_also_with_a_slash_at_the_end(directory: Path) -> None:
    found = record.update(f"{directory}/", "bench-titan.json", "tts_bench", "titan", {})
    assert (found["run_id"], found["host"]) == (directory.name, "titan")


def test_later_writes_keep_what_was_known(directory: Path) -> None:
    first = update(directory, hosts={"titan": {"mode": "pause", "before": {"n": 20}}})
    second = update(directory, hosts={"titan": {"after": {"n": 20}}, "other": {}}, drift=1.0)
    assert second["hosts"] == {
        "titan": {"mode": "pause", "before": {"n": 20}, "after": {"n": 20}},
        "other": {},
    }
    assert second["started_at"] == first["started_at"]
    assert json.loads((directory / "llm.json").read_text()) == second


def test_busy_is_appended_and_other_lists_are_replaced(directory: Path) -> None:
    row, other = {"what": "install", "start": 1, "end": 2}, {"what": "install", "start": 3}
    update(directory, busy=[row], checks=[1, 2])
    found = update(directory, busy=[row, other], checks=[3])
    assert found["busy"] == [row, other]
    assert found["checks"] == [3]


def test_busy_of_a_host_is_appended_too() -> None:
    assert record.merge({"a": {"busy": [1]}}, {"a": {"busy": [2]}}) == {"a": {"busy": [1, 2]}}


def test_merging_leaves_its_arguments_alone() -> None:
    old, new = {"a": {"b": 1}, "busy": [1]}, {"a": {"c": 2}, "busy": [2]}
    assert record.merge(old, new) == {"a": {"b": 1, "c": 2}, "busy": [1, 2]}
    assert (old, new) == ({"a": {"b": 1}, "busy": [1]}, {"a": {"c": 2}, "busy": [2]})


@pytest.mark.parametrize("status", ["ok", "failed", "skipped"])
def test_a_final_status_has_a_time(directory: Path, status: str) -> None:
    assert update(directory, status="running")["finished_at"] is None
    assert update(directory, status=status)["finished_at"].endswith("Z")


def test_what_comes_after_the_end_does_not_move_it(directory: Path) -> None:
    update(directory, status="ok")
    path = directory / "llm.json"
    document = json.loads(path.read_text()) | {"finished_at": "2026-11-22T03:15:00Z"}
    path.write_text(json.dumps(document))
    assert update(directory, more=1)["finished_at"] == "2026-11-22T03:15:00Z"


def test_writers_at_the_same_time_lose_nothing_and_readers_see_whole_files(directory: Path) -> None:
    update(directory)
    path, seen, done = directory / "llm.json", [], threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                json.loads(path.read_text())
            except ValueError as error:
                seen.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    hosts = [f"host{number}" for number in range(4)]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), host],
            env=os.environ | {"PYTHONPATH": str(ROOT / "module_utils")},
        )
        for host in hosts
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    done.set()
    reader.join()

    assert seen == []
    document = json.loads(path.read_text())
    expected = {f"k{number}": number for number in range(25)}
    assert document["hosts"] == dict.fromkeys(hosts, expected)
    assert len(document["busy"]) == 4 * 25
    assert sorted(entry.name for entry in directory.iterdir()) == [".lock", "llm.json"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(directory: Path) -> None:
    path = directory / "llm.json"
    update(directory, drift=1.0)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        record.write(str(path), {"good": 1, "bad": object()})
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in directory.iterdir()) == [".lock", "llm.json"]


def test_everybody_may_read_what_was_written(directory: Path) -> None:
    record.write(str(directory / "x.json"), {"text": "Zürich"})
    assert (directory / "x.json").stat().st_mode & 0o777 == 0o644
    assert "Zürich" in (directory / "x.json").read_text(encoding="utf-8")


def test_where_nothing_can_be_written_the_error_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "missing", tmp_path / "file", Path("/proc")):
        with pytest.raises(OSError, match=str(place)):
            update(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_an_error(directory: Path) -> None:
    directory.chmod(0o555)
    with pytest.raises(PermissionError, match="lock"):
        update(directory)


def test_a_file_that_is_not_json_is_not_overwritten(directory: Path) -> None:
    (directory / "llm.json").write_text('{"status": "runn')
    with pytest.raises(ValueError, match="line 1"):
        update(directory, drift=1.0)
    assert (directory / "llm.json").read_text() == '{"status": "runn'


def test_an_error_has_the_contracts_five_fields() -> None:
    assert record.error("llm", "titan", "asking", "silence", "docker ps") == {
        "kind": "llm",
        "host": "titan",
        "trying": "asking",
        "seen": "silence",
        "next": "docker ps",
    }


def test_a_failure_that_was_recorded_stays(directory: Path) -> None:
    error = record.error("llm", "titan", "renewing", "it has ended", "restore.yml")
    update(directory, status="failed", error=error)
    document = update(directory, status="ok", hosts={"titan": {"closed": True}})
    assert (document["status"], document["error"]) == ("failed", error)
    assert document["hosts"] == {"titan": {"closed": True}}
