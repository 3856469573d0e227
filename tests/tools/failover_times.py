"""Measures failovers in the lab, each from phones that use panda to phones that hear titan.

    make lab-up; . .venv/bin/activate
    ansible-playbook -i inventory/hosts.yml -i inventory/lab standby.yml
    python tests/tools/failover_times.py [--times 5] [SCENARIO ...]

Prints a row a scenario: the medians of the record's times, and all of "first valid audio".
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from in_lab import INVENTORY, LAB, PANDA, TITAN, inside, lab, play, ssh, wait
from played import ROOT

STATE = "/home/op/.local/share/understudy/route"


def as_found() -> None:
    """Both phones use panda, nothing is known of a switch, and titan is warm and idle."""
    for phone in ("phone1", "phone2"):
        lab("mend", phone)
        inside(
            phone,
            f"rm -rf {STATE}; cd /home/op; "
            f"sed -i 's|^CHATTERBOX_URL=.*|CHATTERBOX_URL=http://{PANDA}:8772|' voice-agent.env; "
            "runuser -u op -- env XDG_RUNTIME_DIR=/run/user/1000 "
            "systemctl --user reload voice-agent",
        )

    def ready() -> bool:
        health = inside("titan", "curl --silent http://127.0.0.1:8772/health || true")
        return bool(health) and (found := json.loads(health))["ready"] and not found["busy"]

    wait(ready, what="titan is warm")


@contextmanager
def well() -> Iterator[None]:
    yield


@contextmanager
def frozen() -> Iterator[None]:
    """phone2 is frozen, behind a live SSH master of the longer plays, too."""
    ping = ["ansible", *INVENTORY, "phone2", "--module-name", "ansible.builtin.ping"]
    subprocess.run(ping, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lab("freeze", "phone2")
    yield


@contextmanager
def unreachable() -> Iterator[None]:
    lab("cut", "phone2")
    yield


@contextmanager
def full() -> Iterator[None]:
    """phone2 has no byte left for what it keeps."""
    inside(
        "phone2",
        f"mkdir -p {STATE}; mount -t tmpfs -o size=4k,uid=1000 none {STATE}; "
        f"head -c 4096 /dev/zero >{STATE}/filler",
    )
    yield
    inside("phone2", f"umount {STATE}")


@contextmanager
def callers(count: int = 8) -> Iterator[None]:
    """So many callers ask titan for one sentence after the other."""
    over = threading.Event()
    token = (LAB / "ssh/panda/token").read_text().strip()
    body = json.dumps({"text": "One sentence of a caller who is on the line."})
    curl = (
        f"curl --silent --max-time 120 --output /dev/null -H 'X-Internal-Token: {token}' "
        f"-H 'Content-Type: application/json' --data '{body}' http://{TITAN}:8772/synthesize"
    )

    def call() -> None:
        while not over.is_set():
            ssh("phone1", curl, 150)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


SCENARIOS: dict[str, Callable[[], Any]] = {
    "well": well,
    "frozen": frozen,
    "unreachable": unreachable,
    "full": full,
    "callers": callers,
}


def once(scenario: Callable[[], Any]) -> dict[str, Any]:
    """Return the record of one failover."""
    as_found()
    with tempfile.TemporaryDirectory() as reports, scenario():
        play(Path(reports), "failover.yml")
        (record,) = Path(reports).glob("switches/*/switch.json")
        found: dict[str, Any] = json.loads(record.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("scenarios", nargs="*", choices=[*SCENARIOS, []], default=[])
    options = parser.parse_args()
    lab("cut", "panda")
    try:
        for name in options.scenarios or SCENARIOS:
            records = [once(SCENARIOS[name]) for _ in range(options.times)]
            times = [record["times"] for record in records]
            heard = [f"{one['heard_s']:.1f}" if one["heard_s"] else "-" for one in times]
            bare = [one["heard_s"] - one["synthesis_s"] for one in times if one["heard_s"]]
            medians = {
                key: statistics.median(one[key] for one in times if one[key] is not None)
                for key in ("server_ready_s", "switched_s", "heard_s", "synthesis_s")
            }
            clients = [
                sum(bool(row["heard"]) for row in record["clients"].values()) for record in records
            ]
            print(
                f"{name}: {medians}, without the synthesis {statistics.median(bare):.1f}; "
                f"heard_s {', '.join(heard)}; clients heard {clients}"
            )
    finally:
        lab("mend", "panda")
        as_found()


if __name__ == "__main__":
    main()
