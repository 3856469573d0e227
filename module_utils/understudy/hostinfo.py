"""What a host is and has: read, never changed."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

#: What plays and actions start on a host, and the package of Debian and Ubuntu that has it.
COMMANDS = {
    "env": "coreutils",
    "flock": "util-linux",
    "grep": "grep",
    "tail": "coreutils",
    "tar": "tar",
    "timeout": "coreutils",
}
#: The same for programs that an inventory may name for its services.
SERVICE_COMMANDS = {"docker": "docker.io", "journalctl": "systemd", "systemctl": "systemd"}
GPU_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")


def collect(disk_path: str, commands: Sequence[str] = ()) -> dict[str, Any]:
    """Return the contract's ``preflight.hosts`` object of this host.

    Args:
        disk_path: where things will be installed; its nearest existing parent is looked at.
        commands: programs that are started beside those of `COMMANDS`.
    """
    missing = missing_commands(commands)
    path = existing_parent(os.path.expanduser(disk_path))
    memory = meminfo()
    return {
        "reachable": True,
        "arch": platform.machine(),
        "os": os_name(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "missing_commands": missing,
        "missing_packages": packages_of(missing),
        "cpus": len(os.sched_getaffinity(0)),
        "mem_total_bytes": memory.get("MemTotal"),
        "mem_available_bytes": memory.get("MemAvailable"),
        "disk_path": path,
        "disk_free_bytes": shutil.disk_usage(path).free,
        **gpus(),
    }


def missing_commands(more: Sequence[str] = ()) -> list[str]:
    """Return the programs of `COMMANDS`, and of `more`, that cannot be started."""
    wanted = dict.fromkeys([*COMMANDS, *more])
    return [name for name in wanted if shutil.which(os.path.expanduser(name)) is None]


def packages_of(commands: Sequence[str]) -> list[str]:
    """Return the packages of Debian and Ubuntu that have programs, without those not known."""
    known = {**COMMANDS, **SERVICE_COMMANDS}
    return sorted({known[name] for name in commands if name in known})


def existing_parent(path: str) -> str:
    """Return the path, or its nearest parent that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path.rstrip("/")) or "/"
    return path


def meminfo(path: str = "/proc/meminfo") -> dict[str, int]:
    """Return /proc/meminfo in bytes."""
    with open(path, encoding="ascii") as file:
        rows = (line.split() for line in file)
        return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[-1] == "kB"}


def os_name() -> str:
    """Return the distribution's own name for itself."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.split("=", 1)[1].strip().strip('"')
    except OSError:
        pass
    return platform.system()


def gpus() -> dict[str, Any]:
    """Ask nvidia-smi for driver, CUDA version and GPUs; a note says why there are none."""
    facts: dict[str, Any] = {"driver": None, "cuda": None, "gpus": [], "gpu_note": ""}
    query = ["nvidia-smi", "--query-gpu=" + ",".join(GPU_FIELDS), "--format=csv,noheader,nounits"]
    try:
        rows = _run(query)
        banner = _run(["nvidia-smi"])
    except FileNotFoundError:
        facts["gpu_note"] = "nvidia-smi is not installed"
        return facts
    except (OSError, subprocess.SubprocessError) as error:
        seen = getattr(error, "output", None) or str(error)
        facts["gpu_note"] = "nvidia-smi: " + " ".join(str(seen).split())[:300]
        return facts
    return facts | parse_gpus(rows, banner)


def parse_gpus(rows: str, banner: str) -> dict[str, Any]:
    """Read the two outputs of nvidia-smi.

    Args:
        rows: of the query for `GPU_FIELDS`; memory in MiB, or N/A or Not Supported on a
            GPU that shares the host's memory.
        banner: of the plain command, which alone names the CUDA version.
    """
    driver, found, strange = None, [], []
    for row in filter(None, (line.strip() for line in rows.splitlines())):
        if row.count(",") < len(GPU_FIELDS) - 1:  # a warning, or that there is no device
            strange.append(row)
            continue
        name, capability, memory, driver = (cell.strip() for cell in row.split(",", 3))
        known = memory.isdigit()
        found.append(
            {
                "name": name,
                "compute_capability": capability,
                "memory_total_bytes": int(memory) * 1024**2 if known else None,
                "memory_note": "" if known else f"nvidia-smi says {memory}: shared with the host",
            }
        )
    note = "nvidia-smi: " + " ".join(strange)[:300] if strange else ""
    cuda = None
    if "CUDA Version:" in banner:
        cuda = banner.split("CUDA Version:", 1)[1].split("|", maxsplit=1)[0].strip()
    return {"driver": driver, "cuda": cuda, "gpus": found, "gpu_note": note}


def _run(command: list[str]) -> str:
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=30,
        check=True,
    ).stdout
