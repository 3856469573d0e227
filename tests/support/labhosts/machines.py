"""The hosts: started as machines that boot, and what each of them has to answer."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from .common import BRIDGE, HOSTS, LAB, NETWORK, SUBNET, container, docker, quiet, run, wait
from .engine import share_processors

HOME_SIZE = "6G"


def network() -> None:
    """Make the hosts' network."""
    if not quiet("docker", "network", "inspect", "--format", "{{.Id}}", NETWORK):
        bridge = f"--opt=com.docker.network.bridge.name={BRIDGE}"
        docker("make the hosts' network", "network", "create", "--subnet", SUBNET, bridge, NETWORK)


def mount_home() -> None:
    """Give titan's /home a disk of its own, which a test can fill up."""
    disk, home = LAB / "titan/home.ext4", LAB / "titan/home"
    if os.path.ismount(home):
        return
    home.mkdir(parents=True, exist_ok=True)
    if not disk.exists():
        part = disk.with_suffix(".part")
        run("make titan's disk", ["truncate", "--size", HOME_SIZE, part])
        run("make titan's disk", ["mkfs.ext4", "-q", "-F", "-m", "0", part])
        part.rename(disk)
    run("mount titan's disk", ["mount", "-o", "loop,discard", disk, home])
    op = home / "op"
    op.mkdir(mode=0o700, exist_ok=True)
    os.chown(op, 1000, 1000)


def bring_up(host: str, image: str, changed: bool) -> None:
    """Start a host, made anew if its image is another one now, and wait until it answers.

    Args:
        host: its name.
        image: what it is made of.
        changed: whether /opt/lab is another one now, so that its services must start again.
    """
    name, doing = container(host), f"start {host}"
    facts = quiet("docker", "inspect", "--format", "{{.Config.Image}} {{.State.Running}}", name)
    if facts.split()[:1] != [image]:
        quiet("docker", "rm", "--force", "--volumes", name)
        begin = ["run", "--pull=never", "--detach", "--name", name, *options(host)]
        docker(doing, *begin, image, "/usr/local/sbin/lab-boot")
    elif changed or facts != f"{image} true":
        docker(doing, "restart", "--time", "60", name)
    share_processors()
    booted(host)
    look = f"scripts/lab exec {host}"
    if host == "titan":
        docker("start Gemma", "exec", name, "/usr/local/sbin/lab-gemma")
        wait("titan: Gemma", gemma_answers, 120, f"{look} docker logs vllm-gemma4")
    elif host == "panda":
        wait("panda: the voice", panda_speaks, 120, f"{look} journalctl -u voice -n 50")
    wait(f"{host}: ssh", lambda: ssh_answers(host), 30, f"{look} journalctl -u ssh -n 50")


def options(host: str) -> list[str]:
    """Return the options of `docker run` that make a container boot like a machine.

    With cgroup v1 systemd needs the machine's hierarchies; with v2 a container has its own.
    """
    v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    v1 = ["--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    cgroup = ["--cgroupns=private"] if v2 else v1
    token = f"--volume={LAB}/ssh/panda/token:/etc/voice.token:ro"
    disks = {
        "titan": [
            f"--volume={LAB}/titan/home:/home",
            "--volume=/var/lib/docker",
            f"--volume={LAB}/wheels:/opt/wheels:ro",
            "--sysctl=net.ipv4.ip_forward=1",
        ],
        "panda": [token],
    }
    phone = [token, f"--env=LAB_VOICE=http://{HOSTS['panda']}:8772"]
    allowed = ["--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN"]
    allowed += ["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]
    return [
        f"--hostname={host}",
        f"--network={NETWORK}",
        f"--ip={HOSTS[host]}",
        *allowed,
        "--tmpfs=/run",
        "--tmpfs=/run/lock",
        *cgroup,
        *disks.get(host, phone),
        f"--volume={LAB}/opt:/opt/lab:ro",
        f"--volume={LAB}/ssh/{host}:/etc/ssh/lab:ro",
        "--env=container=docker",
        "--stop-signal=SIGRTMIN+3",
        "--stop-timeout=60",
    ]


def booted(host: str) -> None:
    """Wait until systemd says that it has started everything."""

    def state() -> str:
        said = quiet("docker", "exec", container(host), "systemctl", "is-system-running")
        return "" if said.strip() == "running" else f"systemd is {said.strip() or 'not there yet'}"

    wait(f"{host}: booting", state, 90, f"scripts/lab exec {host} systemctl --failed")


def ssh_answers(host: str) -> str:
    """Log in as the operator."""
    command = ["ssh", "-F", str(LAB / "ssh/config"), "-o", "ConnectTimeout=5", host, "true"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stderr.strip()


def gemma_answers() -> str:
    """Ask Gemma for a completion."""
    body = {
        "model": "/opt/lab/made/llm",
        "messages": [{"role": "user", "content": f"hello, it is {time.time()}"}],
        "max_tokens": 4,
    }
    return post(f"http://{HOSTS['titan']}:8003/v1/chat/completions", body, {}, b'"choices"')


def panda_speaks() -> str:
    """Ask panda for a sentence, when it says that it is ready."""
    try:
        token = (LAB / "ssh/panda/token").read_text().strip()
        health = f"http://{HOSTS['panda']}:8772/health"
        with urllib.request.urlopen(health, timeout=10) as answer:
            answer.read()
    except OSError as error:
        return str(error)
    body = {"text": "Good morning, this is the lab."}
    headers = {"X-Internal-Token": token}
    return post(f"http://{HOSTS['panda']}:8772/synthesize", body, headers)


def post(
    url: str, body: Mapping[str, object], headers: dict[str, str], expected: bytes = b""
) -> str:
    """Send JSON; return what is wrong with the answer."""
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = answer.read()
    except OSError as error:
        return f"{url}: {error}"
    return "" if said and expected in said else f"{url}: {said[:200]!r}"
