"""The lab, as it is after `make lab-up`: what looks at it and runs plays against it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from functools import partial

import played
from played import ROOT
from waiting import comes, until

LAB = ROOT / ".lab"
INVENTORY = ["-i", "inventory/hosts.yml", "-i", "inventory/lab"]
TITAN, PANDA = "10.83.72.11", "10.83.72.12"

start_play = partial(played.start_play, INVENTORY)
play = partial(played.play, INVENTORY)
wait = partial(until, seconds=90, every=0.3)


def lab(*arguments: str, timeout: float = 300) -> str:
    """Call scripts/lab, which must succeed, and return its output."""
    done = subprocess.run(
        ["scripts/lab", *arguments],
        cwd=ROOT,
        text=True,
        check=False,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"scripts/lab {' '.join(arguments)}: {done.stdout}"
    return done.stdout.strip()


def inside(host: str, script: str) -> str:
    """Run a script as root inside a host, whatever its network does."""
    return lab("exec", host, "bash", "-c", script)


def ssh(host: str, script: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a script as the operator, over SSH."""
    options = ["-F", str(LAB / "ssh/config"), "-o", "ConnectTimeout=5", "-o", "BatchMode=yes"]
    return subprocess.run(
        ["ssh", *options, host, script],
        text=True,
        check=False,
        timeout=timeout,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


def fill_home() -> None:
    """Leave no byte on titan's /home, in ~op/filler."""
    free = "df --output=avail --block-size=1 ~ | tail -n 1"
    ssh("titan", f"fallocate -l $({free}) ~/filler; head -c 100M /dev/zero >>~/filler", 120)
    assert "100%" in inside("titan", "df /home")


def gemma_state() -> str:
    return inside("titan", "docker inspect --format '{{.State.Status}}' vllm-gemma4")


def llm_answers(wait_s: float = 60) -> bool:
    """Whether Gemma gives a real completion within that time."""
    body = {
        "model": "/opt/lab/made/llm",
        "messages": [{"role": "user", "content": f"{time.time()} hello"}],
        "max_tokens": 4,
    }
    return _asked(f"http://{TITAN}:8003/v1/chat/completions", body, {}, wait_s, b'"choices"')


def panda_speaks(wait_s: float = 60) -> bool:
    """Whether panda returns speech within that time."""
    token = (LAB / "ssh/panda/token").read_text().strip()
    body = {"text": f"It is {time.strftime('%H:%M:%S')} in the lab."}
    return _asked(f"http://{PANDA}:8772/synthesize", body, {"X-Internal-Token": token}, wait_s)


def _asked(url: str, body: dict, headers: dict, wait_s: float, expected: bytes = b"") -> bool:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )

    def answered() -> bool:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(request, timeout=max(1, wait_s)) as answer:
                said = answer.read()
            return bool(said) and expected in said
        return False

    return bool(comes(answered, wait_s, every=0.3))


#: How long Gemma took to come back, by what had happened.
TIMES: dict[str, float] = {}


def note_time(what: str, seconds: float) -> None:
    """Keep a time for the table at the end of the tests."""
    TIMES.setdefault(what, seconds)
