"""How long after the command the listening page can be used.

    python tests/tools/page_ready.py [--play] [--times 5] [--seconds 5]

Makes a run of ten utterances on each side, has `understudy listen` (or, with ``--play``,
`ansible-playbook score.yml`) make its pack from nothing, and stops the time when the page
answers with its first pair. Loopback only; nothing is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/support")]

import httpx  # noqa: E402
import listening_run  # noqa: E402


def once(command: list[str], run_dir: Path) -> float:
    """Return the seconds from the command to the page, in use."""
    shutil.rmtree(run_dir / "listening", ignore_errors=True)
    lock = run_dir / "listening/lock"
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            assert process.poll() is None, f"ended with status {process.returncode}: {command}"
            try:
                url = json.loads(lock.read_text())["url"]
                state = httpx.get(f"{url}state", trust_env=False).json()
                reply = httpx.get(f"{url}stimuli/{state['reference']}.wav", trust_env=False)
                assert reply.status_code == 200
                return time.monotonic() - began
            except (OSError, ValueError, KeyError, httpx.TransportError):
                time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        for _ in range(100):  # a play ends before its page does
            if not lock.exists() or not lock.read_text():
                break
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--play", action="store_true")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        run_dir, reference = listening_run.make(Path(parent), arguments.seconds)
        command = [sys.executable, "-m", "understudy", "listen", str(run_dir)]
        command += ["--reference", str(reference)]
        if arguments.play:
            command = [str(Path(sys.executable).with_name("ansible-playbook")), "score.yml"]
            command += ["-e", f"run_reports_dir={parent}", "-e", f"run={run_dir.name}"]
            command += ["-e", f"run_voice={reference}"]
        times = sorted(once(command, run_dir) for _ in range(arguments.times))
    print(
        f"page ready after {statistics.median(times):.1f} s (median of {len(times)}; "
        f"{times[0]:.1f} to {times[-1]:.1f} s; load {os.getloadavg()[0]:.1f} "
        f"on {os.cpu_count()} cores)"
    )


if __name__ == "__main__":
    main()
