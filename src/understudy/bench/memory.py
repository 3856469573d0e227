"""Memory of the host and the process, and what the NVIDIA driver says of both.

Three figures that are easily mixed up and never are here: what torch's allocator
took, what the driver charges the process with, and how low the host's available
memory went. On unified memory (DGX Spark) NVML reports no totals at all.
"""

from __future__ import annotations

import os
import resource
import statistics
import threading
from pathlib import Path
from types import TracebackType
from typing import Any


def available_bytes() -> int:
    """Return MemAvailable of ``/proc/meminfo``: what can be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


def peak_rss_bytes() -> int:
    """Return the largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class LowWater:
    """Watch MemAvailable, the driver's figure for this process and the GPU while a block runs."""

    def __init__(self, interval_s: float = 0.25) -> None:
        self.start_bytes = self.low_bytes = available_bytes()
        self.driver_bytes: int | None = None
        self.driver_note = ""
        self._sm_mhz: list[int] = []
        self._reasons: list[str] | None = None
        self._interval = interval_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> LowWater:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            self._look()

    def gpu(self) -> dict[str, Any]:
        """Return `gpu_environment` over the whole block, not of the idle GPU after it.

        The clock of the multiprocessors is the median; the reasons for throttling are all that
        were seen.
        """
        facts = gpu_environment() | {"throttling": self._reasons}
        if facts["clocks"] and self._sm_mhz:
            facts["clocks"]["sm_mhz"] = statistics.median_low(self._sm_mhz)
        return facts

    def _look(self) -> None:
        self.low_bytes = min(self.low_bytes, available_bytes())
        gpu = gpu_environment()
        if gpu["clocks"] and gpu["clocks"]["sm_mhz"] is not None:
            self._sm_mhz.append(gpu["clocks"]["sm_mhz"])
        if gpu["throttling"] is not None:
            self._reasons = sorted({*(self._reasons or []), *gpu["throttling"]})
        seen, self.driver_note = process_driver_bytes()
        if seen is not None:
            self.driver_bytes = max(seen, self.driver_bytes or 0)


def _nvml() -> Any:
    """Return the initialised NVML binding, or a sentence that says why there is none."""
    try:
        import pynvml
    except ImportError:
        return "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"NVML: {error}"
    return pynvml


def process_driver_bytes(pid: int | None = None) -> tuple[int | None, str]:
    """Return the GPU memory that the driver charges a process with.

    Args:
        pid: None is this process.

    Returns:
        Bytes or None, and a note that says why it is None.
    """
    nvml = _nvml()
    if isinstance(nvml, str):
        return None, nvml
    total, found = 0, False
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == (pid or os.getpid()):
                    if process.usedGpuMemory is None:
                        return None, "NVML lists the process without its memory (N/A)"
                    total, found = total + int(process.usedGpuMemory), True
    except nvml.NVMLError as error:
        return None, f"NVML: {error}"
    if not found:
        return None, "NVML does not list this process (none on a GPU, or another PID namespace)"
    return total, ""


def gpu_environment(index: int = 0) -> dict[str, Any]:
    """Return driver, clocks and reasons for throttling; null where NVML does not tell."""
    facts: dict[str, Any] = {"driver": None, "clocks": None, "throttling": None, "nvml_note": ""}
    nvml = _nvml()
    if isinstance(nvml, str):
        return facts | {"nvml_note": nvml}
    notes: list[str] = []

    def ask(question: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, question)(*arguments)
        except nvml.NVMLError as error:
            notes.append(f"{question}: {error}")
            return None

    facts["driver"] = ask("nvmlSystemGetDriverVersion")
    handle = ask("nvmlDeviceGetHandleByIndex", index)
    if handle is not None:
        facts["clocks"] = {
            "sm_mhz": ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            "sm_max_mhz": ask("nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM),
            "memory_mhz": ask("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
        }
        mask = ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        facts["throttling"] = None if mask is None else _reasons(nvml, mask)
    facts["nvml_note"] = "; ".join(notes)
    return facts


def _reasons(nvml: Any, mask: int) -> list[str]:
    """Name the bits that mean a real slow-down; an idle GPU is not throttled."""
    names = {
        "SwPowerCap": "power cap",
        "SwThermalSlowdown": "thermal (software)",
        "HwThermalSlowdown": "thermal (hardware)",
        "HwPowerBrakeSlowdown": "power brake",
    }
    found = []
    for name, label in names.items():
        bit = getattr(nvml, f"nvmlClocksEventReason{name}", 0)
        if mask & (bit or getattr(nvml, f"nvmlClocksThrottleReason{name}", 0)):
            found.append(label)
    return found
