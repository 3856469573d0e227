"""What a host says of itself, and what nvidia-smi says of its GPUs."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest
from ansible.module_utils.understudy import hostinfo

BANNER = """\
Sun Nov 22 03:15:00 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 580.95.05              Driver Version: 580.95.05      CUDA Version: 13.0     |
|-----------------------------------------+------------------------+----------------------+
"""
SPARK = "NVIDIA GB10, 12.1, [N/A], 580.95.05\n"
H100 = "NVIDIA H100 80GB HBM3, 9.0, 81559, 580.95.05\n"


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH; empty."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


def smi(bin_dir: Path, script: str) -> None:
    path = bin_dir / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_gpu_with_memory_of_its_own() -> None:
    assert hostinfo.parse_gpus(H100, BANNER) == {
        "driver": "580.95.05",
        "cuda": "13.0",
        "gpus": [
            {
                "name": "NVIDIA H100 80GB HBM3",
                "compute_capability": "9.0",
                "memory_total_bytes": 81559 * 1024**2,
                "memory_note": "",
            }
        ],
        "gpu_note": "",
    }


@pytest.mark.parametrize("word", ["[N/A]", "Not Supported", "[Not Supported]"])
def test_a_gpu_that_shares_the_hosts_memory(word: str) -> None:
    [gpu] = hostinfo.parse_gpus(SPARK.replace("[N/A]", word), BANNER)["gpus"]
    assert gpu["memory_total_bytes"] is None
    assert gpu["memory_note"] == f"nvidia-smi says {word}: shared with the host"
    assert (gpu["name"], gpu["compute_capability"]) == ("NVIDIA GB10", "12.1")


def test_two_gpus() -> None:
    found = hostinfo.parse_gpus(H100 + "\n" + SPARK, BANNER)
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA H100 80GB HBM3", "NVIDIA GB10"]


def test_no_gpu_and_no_banner() -> None:
    found = hostinfo.parse_gpus("", "")
    assert found == {"driver": None, "cuda": None, "gpus": [], "gpu_note": ""}


@pytest.mark.parametrize("line", ["No devices were found", "WARNING: infoROM is corrupted"])
def test_a_line_that_is_no_gpu_is_told(line: str) -> None:
    found = hostinfo.parse_gpus(f"{line}\n", BANNER)
    assert (found["gpus"], found["gpu_note"]) == ([], f"nvidia-smi: {line}")
    assert len(hostinfo.parse_gpus(f"{H100}{line}\n", BANNER)["gpus"]) == 1


def test_nvidia_smi_is_not_installed(bin_dir: Path) -> None:
    assert hostinfo.gpus() == {
        "driver": None,
        "cuda": None,
        "gpus": [],
        "gpu_note": "nvidia-smi is not installed",
    }


def test_nvidia_smi_is_asked(bin_dir: Path) -> None:
    smi(
        bin_dir,
        'if [ -z "$1" ]; then echo "| CUDA Version: 13.0 |"; exit; fi\n'
        '[ "$1" = --query-gpu=name,compute_cap,memory.total,driver_version ] || exit 9\n'
        '[ "$2" = --format=csv,noheader,nounits ] || exit 9\n'
        f'echo "{SPARK.strip()}"',
    )
    found = hostinfo.gpus()
    assert (found["driver"], found["cuda"], found["gpu_note"]) == ("580.95.05", "13.0", "")
    assert found["gpus"][0]["compute_capability"] == "12.1"


def test_a_driver_that_does_not_answer(bin_dir: Path) -> None:
    smi(bin_dir, "echo 'NVIDIA-SMI has failed because it could not'; echo 'reach it' >&2; exit 9")
    found = hostinfo.gpus()
    assert found["gpus"] == []
    assert found["gpu_note"] == ("nvidia-smi: NVIDIA-SMI has failed because it could not reach it")


def test_an_nvidia_smi_that_may_not_be_run(bin_dir: Path) -> None:
    (bin_dir / "nvidia-smi").write_text("")
    assert "Permission denied" in hostinfo.gpus()["gpu_note"]


def test_memory_is_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  125506260 kB\nMemAvailable:   1024 kB\nHugePages_Total:    3\n")
    assert hostinfo.meminfo(str(path)) == {
        "MemTotal": 125506260 * 1024,
        "MemAvailable": 1024 * 1024,
    }


def test_the_nearest_parent_that_exists(tmp_path: Path) -> None:
    assert hostinfo.existing_parent(str(tmp_path)) == str(tmp_path)
    assert hostinfo.existing_parent(f"{tmp_path}/a/b/c/") == str(tmp_path)
    assert hostinfo.existing_parent("/no/such/place") == "/"


def test_this_host(tmp_path: Path, bin_dir: Path) -> None:
    found = hostinfo.collect(f"{tmp_path}/venvs")
    assert json.loads(json.dumps(found)) == found
    assert found["reachable"] is True
    assert (found["arch"], found["kernel"]) == (platform.machine(), platform.release())
    assert found["python"] == platform.python_version()
    assert found["disk_path"] == str(tmp_path)
    statistics = os.statvfs(tmp_path)
    total = statistics.f_blocks * statistics.f_frsize
    assert 0 < found["disk_free_bytes"] <= total
    assert 0 < found["mem_available_bytes"] <= found["mem_total_bytes"]
    assert 1 <= found["cpus"] <= (os.cpu_count() or 1)
    assert found["os"]


def test_programs_that_a_host_lacks(bin_dir: Path) -> None:
    assert hostinfo.missing_commands() == list(hostinfo.COMMANDS)
    (bin_dir / "grep").write_text("#!/bin/sh\n")
    (bin_dir / "grep").chmod(0o755)
    missing = set(hostinfo.COMMANDS) - {"grep"}
    found = hostinfo.collect("/", ["docker", "grep", "/opt/own/tool"])
    assert set(found["missing_commands"]) == {*missing, "docker", "/opt/own/tool"}
    assert found["missing_packages"] == ["coreutils", "docker.io", "tar", "util-linux"]


def test_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bin_dir: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hostinfo.collect("~/.local/share/understudy")["disk_path"] == str(tmp_path)
