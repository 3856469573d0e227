"""The machine's commands and the Docker engine that the lab's hosts run in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from .common import LAB, LabError, remove, run, say, unmount_below, wait

#: The cgroup of our own engine's containers.
CGROUP = "understudy-lab"


def need_commands() -> None:
    """Install what is missing, or say what to do."""
    wanted = {
        "debootstrap": "debootstrap",
        "ip": "iproute2",
        "mkfs.ext4": "e2fsprogs",
        "ssh-keygen": "openssh-client",
    }
    if not engine_answers():
        wanted |= {"docker": "docker.io", "dockerd": "docker.io", "iptables": "iptables"}
    if os.geteuid() != 0:
        raise LabError("the lab mounts disks and builds an image, as root; next: sudo make lab-up")
    if len(str(LAB)) > 60:
        raise LabError(f"{LAB} is too long a path for the sockets in it; next: use a shorter one")
    missing = sorted({package for name, package in wanted.items() if not shutil.which(name)})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise LabError(
            f"this machine lacks {', '.join(missing)} and is no Debian or Ubuntu, where they would "
            "be installed now; next: install them, start Docker, and make lab-up"
        )
    say(f"installing {', '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    if "debootstrap" in missing:
        missing.append("debian-archive-keyring")
    for command in (["update"], ["install", "--yes", *missing]):
        run("install what is missing", ["apt-get", "--quiet", *command], env=environment)


def engine_answers() -> bool:
    """Whether there is a Docker engine: ours if it runs, else the machine's."""
    if engine_pid():
        os.environ["DOCKER_HOST"] = f"unix://{LAB}/docker.sock"
    return bool(shutil.which("docker")) and (
        subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0
    )


def engine_pid() -> int | None:
    """Return the process id of our own engine, if it runs."""
    try:
        pid = int((LAB / "docker.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a dead child
    except (OSError, ValueError):
        return None
    return pid if command.startswith(b"dockerd\0") else None


def need_engine() -> None:
    """Stop here if there is no lab."""
    if not engine_answers():
        raise LabError("no Docker engine answers, so there is no lab; next: make lab-up")


def start_engine() -> None:
    """Start an engine of our own, unless there is one.

    It leaves the machine's firewall and routing alone: the hosts reach each other and this machine,
    and nothing beyond.
    """
    if engine_answers():
        return
    say("starting a Docker engine of the lab's own")
    remove(LAB / "docker.pid")
    (LAB / "running").touch()
    os.environ["DOCKER_HOST"] = f"unix://{LAB}/docker.sock"
    directories = [f"--data-root={LAB}/docker", f"--exec-root={LAB}/exec"]
    directories += [f"--pidfile={LAB}/docker.pid", f"--host={os.environ['DOCKER_HOST']}"]
    alone = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    alone += ["--ip-masq=false"]
    cgroup = ["--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent={CGROUP}"]
    command = ["dockerd", *directories, *alone, *cgroup]
    with (LAB / "dockerd.log").open("w") as log:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    look = f"tail {LAB}/dockerd.log"
    wait("the Docker engine", lambda: "" if engine_answers() else "no answer", 60, look)


def share_processors() -> None:
    """Let the hosts have their share: to the kernel all of them together count as one process."""
    for name, value in (("cpu/{}/cpu.shares", "8192"), ("{}/cpu.weight", "800")):  # v1 and v2
        file = Path("/sys/fs/cgroup") / name.format(CGROUP)
        if file.exists():
            file.write_text(value)


def stop_engine() -> None:
    """Stop our own engine and remove what it leaves in the cgroup hierarchies."""
    pid = engine_pid()
    if pid:
        os.kill(pid, signal.SIGTERM)
        look = f"tail {LAB}/dockerd.log"
        wait("the end of our Docker engine", lambda: "there" if engine_pid() else "", 60, look)
        for group in sorted(Path("/sys/fs/cgroup").glob(f"**/{CGROUP}"), reverse=True):
            group.rmdir()
    unmount_below(LAB)
    for rest in ("docker.pid", "docker.sock", "exec"):
        remove(LAB / rest)
    os.environ.pop("DOCKER_HOST", None)
