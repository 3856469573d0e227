"""The command: where the config comes from, where the result goes, and the exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import speechlike

from understudy import cli
from understudy.audio import pcm

ROOT = Path(__file__).resolve().parents[2]

#: A library that prints in every way there is, and brings no files.
LOUD = """
import ctypes, os, subprocess, sys

def snapshot_download(*arguments, **options):
    print("Fetching 5 files")
    sys.stdout.write("without a newline")
    os.write(1, b"straight to the descriptor\\n")
    ctypes.CDLL(None).printf(b"from C, buffered\\n")
    subprocess.run(["echo", "from a child"])
    print("to standard error", file=sys.stderr)
"""


def understudy(
    *arguments: object, stdin: str = "", path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
    if path:
        environment["PYTHONPATH"] += f":{path}"
    return subprocess.run(
        [sys.executable, "-m", "understudy", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config of `weights` whose directory is empty."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"weights_dir": str(tmp_path / "none"), "source": "local"}))
    return path


def test_a_config_from_a_file_and_a_result_on_standard_output(config: Path) -> None:
    done = understudy("weights", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["error"].count("missing") == 5


def test_a_config_from_standard_input_and_a_result_in_a_file(config: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    done = understudy("weights", "--config", "-", "--result", result, stdin=config.read_text())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(result.read_text())["weights"] is None


def test_a_library_that_prints_does_not_spoil_the_result(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text(LOUD)
    config = json.dumps({"weights_dir": str(tmp_path / "none"), "source": "hub"})
    done = understudy("weights", "--config", "-", stdin=config, path=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert "missing" in json.loads(done.stdout)["error"]
    for said in ("Fetching", "without a newline", "straight", "from C", "from a child", "error"):
        assert said in done.stderr


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("{", "the config - is not JSON: Expecting property name"),
        ("", "the config - is not JSON: Expecting value"),
        ("[]", "the config - is not a JSON object"),
        ("{}", "the config has no 'weights_dir'"),
    ],
)
def test_a_bad_config_is_one_line_and_status_1(text: str, seen: str) -> None:
    done = understudy("weights", "--config", "-", stdin=text)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"understudy weights: {seen}")


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main([str(argument) for argument in arguments])
    return (status, *capsys.readouterr())


def test_a_config_that_is_not_there(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "none.json"
    status, out, err = in_process(capsys, "inputs", "--config", path)
    assert (status, out) == (1, "")
    assert err == f"understudy inputs: [Errno 2] No such file or directory: '{path}'\n"


@pytest.mark.parametrize("command", ["inputs", "weights", "probe", "baseline", "bench", "compare"])
@pytest.mark.parametrize("value", [7, [], {}, None, "x\0"])
def test_a_config_of_another_form_is_one_line(
    tmp_path: Path, capsys: Any, command: str, value: Any
) -> None:
    keys = "host url path voice utterances tuning weights_dir source primary calibration run_dir"
    path = tmp_path / "config.json"
    path.write_text(json.dumps(dict.fromkeys(keys.split(), value) | {"out_dir": str(tmp_path)}))
    status, _, err = in_process(capsys, command, "--config", path, "--result", tmp_path / "result")
    assert status in (0, 1)
    if status:
        [line] = err.splitlines()
        assert line.startswith(f"understudy {command}: ")


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (("validate", "nowhere"), "nowhere does not exist. Next: ls"),
        (("report", "nowhere"), "nowhere is no directory. Next: ls -l"),
        (("report", ".."), "is no run: its name is not like 20261122-031500Z"),
        (("listen", "..", "--reference", "x"), "is no run: its name is not like"),
    ],
)
def test_paths_that_lead_to_no_run(capsys: Any, arguments: tuple[str, ...], seen: str) -> None:
    status, out, err = in_process(capsys, *arguments)
    assert (status, out) == (1, "")
    assert seen in err


def test_a_result_that_cannot_be_written(config: Path, tmp_path: Path, capsys: Any) -> None:
    result = tmp_path / "no" / "result.json"
    status, _, err = in_process(capsys, "weights", "--config", config, "--result", result)
    assert status == 1
    assert err.count("\n") == 1
    assert str(tmp_path / "no") in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["weights"],
        ["weights", "--config"],
        ["guard-probe"],
        ["report"],
        ["bench", "--config", "x", "--loud"],
    ],
)
def test_bad_arguments_are_status_2(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: understudy" in capsys.readouterr().err


def test_good_inputs(tmp_path: Path, capsys: Any) -> None:
    pcm.write_wav(tmp_path / "voice.wav", speechlike(4.0))
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {"utterances": str(ROOT / "files/utterances.yml"), "voice": str(tmp_path / "voice.wav")}
        )
    )
    status, out, _ = in_process(capsys, "inputs", "--config", config)
    found = json.loads(out)
    assert (status, found["problems"], len(found["utterances"])) == (0, [], 10)


def test_a_run_directory_that_is_not_valid_is_status_1(
    tmp_path: Path, run_dir: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the schemas come with the package
    status, out, _ = in_process(capsys, "validate", run_dir)
    assert (status, json.loads(out)) == (0, {"problems": []})
    (tmp_path / "empty").mkdir()
    status, out, _ = in_process(capsys, "validate", tmp_path / "empty")
    assert status == 1
    assert json.loads(out)["problems"][0].startswith("run.json: there is none")


def test_a_guard_whose_probe_died_could_not_be_carried_out(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'Bus error' >&2\nexit 135\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"device": "cuda", "stft_patch": "auto"}))
    status, out, err = in_process(capsys, "guard", "--config", config)
    assert (status, out) == (1, "")
    assert err == "understudy guard: the probe on cuda died with status 135: Bus error\n"


def test_a_benchmark_that_fails_is_carried_out(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from understudy.bench import standby

    def load(*_: object, **__: object) -> None:
        raise RuntimeError("no such model")

    monkeypatch.setattr(standby.Voice, "load", load)
    out_dir, progress = tmp_path / "runs" / "one", tmp_path / "progress.jsonl"
    config = {
        "run_id": "20261122-031500Z",
        "host": "titan",
        "weights_dir": str(tmp_path),
        "voice": "none.wav",
        "device": "cpu",
        "stft_patch": False,
        "token_cap": None,
        "threads": None,
        "utterances": [],
        "warmup": 0,
        "out_dir": str(out_dir),
        "tuning": {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6},
        "wav_dir": "titan_native",
        "lock_sha256": None,
        "git_commit": None,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    status, out, _ = in_process(capsys, "bench", "--config", path, "--progress", progress)
    assert (status, out) == (0, "")
    found = json.loads((out_dir / "bench-titan.json").read_text())
    assert (found["status"], found["error"]["seen"]) == ("failed", "RuntimeError: no such model")
    assert json.loads((out_dir / "config.json").read_text()) == config
    last = json.loads(progress.read_text().splitlines()[-1])
    assert last["phase"] == "done"
    assert last["text"] == "titan  bench done  failed: RuntimeError: no such model"


def test_listening_to_what_is_no_run(tmp_path: Path) -> None:
    done = understudy("listen", tmp_path / "none", "--reference", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"understudy listen: {tmp_path}/none is no directory. Next: ls")
