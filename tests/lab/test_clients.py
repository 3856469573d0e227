"""Environment files that are mounted, owned by root or reached through an ACL, on real hosts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_lab import INVENTORY, inside
from played import ROOT

HOME = "/home/op/lab-clients"
FILE = f"{HOME}/agent.env"
PANDA, TITAN = "http://panda:8772", "http://titan:8772"
WRITTEN = f"CHATTERBOX_URL={PANDA} # panda"
RELOADED = f"{HOME}/reloaded"
#: The ACL of a file that the user 1000 may read and write, and nobody else but its owner.
ACL = "0200000001000600ffffffff02000600e803000004000000ffffffff10000600ffffffff20000000ffffffff"


def route(host: str, state: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
    """Run tts_route on a host, over SSH, and return its result."""
    given = {"file": FILE, "key": "CHATTERBOX_URL", "home": "~/lab-clients/route", "state": state}
    given |= {"holder": {"id": "lab", "command": "test_clients.py"}, **options}
    command = [str(Path(sys.executable).parent / "ansible"), *INVENTORY, host, "-m", "tts_route"]
    settings = {
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    done = subprocess.run(
        [*command, "-a", json.dumps(given), *(["--check"] if check else [])],
        cwd=ROOT,
        text=True,
        check=False,
        capture_output=True,
        timeout=120,
        env={**os.environ, **settings},
    )
    found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
    assert found, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(found[1])
    return {**result, "failed": "FAILED!" in done.stdout}


def switch(host: str, **options: Any) -> None:
    """A switch succeeds, and the client's file is the same one as before, with another line."""
    inode = inside(host, f"stat -c %i,%u,%a {FILE}")
    there = route(host, "switched", epoch=1, target="titan", url=TITAN, **options)
    assert not there["failed"], there
    assert inside(host, f"cat {FILE}") == f"CHATTERBOX_URL={TITAN}"
    assert inside(host, f"stat -c %i,%u,%a {FILE}") == inode


def back(host: str, **options: Any) -> None:
    """The way back succeeds, and the line is as it was."""
    result = route(host, "restored", epoch=2, **options)
    assert not result["failed"], result
    assert inside(host, f"cat {FILE}") == WRITTEN


@pytest.fixture(params=["phone1"])
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """A host with an environment file of its own for the test, which nothing else reads."""
    name: str = request.param
    inside(
        name,
        f"install -d -o op -g op {HOME}; echo '{WRITTEN}' >{FILE}; chown op:op {FILE}; "
        f"chmod 600 {FILE}",
    )
    yield name
    inside(
        name,
        "docker rm --force lab-agent >/dev/null 2>&1; "
        f"umount {FILE} 2>/dev/null; pkill -F {HOME}/child 2>/dev/null; rm -rf {HOME}",
    )


def test_a_file_that_is_a_mount_point(host: str) -> None:
    inside(host, f"mount --bind {FILE} {FILE}")
    switch(host)
    back(host)


@pytest.mark.parametrize("host", ["titan"], indirect=True)
def test_a_file_that_is_mounted_into_a_container(host: str) -> None:
    image = inside(host, "docker inspect --format '{{.Image}}' vllm-gemma4")
    mounts = f"--volume /usr:/usr:ro --volume {FILE}:/agent.env"  # the image is empty
    inside(host, f"docker run --detach --name lab-agent {mounts} {image} /usr/bin/sleep 600")
    switch(host, reload_command=["docker", "kill", "--signal=CONT", "lab-agent"])
    read = "docker exec lab-agent /usr/bin/cat /agent.env"
    assert inside(host, read) == f"CHATTERBOX_URL={TITAN}"
    back(host)
    assert inside(host, read) == WRITTEN


def test_a_file_of_root(host: str) -> None:
    inside(host, f"chown root:root {FILE}; chmod 644 {FILE}")
    seen = route(host, "seen")
    assert seen["route"]["url"] == PANDA
    for check in (True, False):
        refused = route(host, "switched", check=check, epoch=1, target="titan", url=TITAN)
        assert (refused["failed"], refused["kind"]) == (True, "file")
        assert refused["msg"] == (
            f"{FILE} cannot be written by op: Permission denied. "
            f"Next, on this host: sudo chown op {FILE}"
        )
        assert refused["msg"] == seen["route"]["write_error"]
    assert inside(host, f"cat {FILE}") == WRITTEN
    inside(host, f"chown op {FILE}")  # as it says
    switch(host)


def test_a_file_of_root_that_an_acl_lets_be_written(host: str) -> None:
    inside(host, f"chown root:root {FILE}; chmod 600 {FILE}")
    attribute = f"os.{{}}xattr('{FILE}', 'system.posix_acl_access'"
    setting = f"{attribute.format('set')}, bytes.fromhex('{ACL}'))"
    inside(host, f'python3 -c "import os; {setting}"')
    switch(host)
    getting = f"{attribute.format('get')}).hex()"
    assert inside(host, f'python3 -c "import os; print({getting})"') == ACL
    back(host)


def test_a_reload_whose_child_keeps_the_output_open(host: str) -> None:
    script = f"#!/bin/sh\nsleep 600 &\necho $! >{HOME}/child\nprintf '\\377'\ntouch {RELOADED}\n"
    inside(host, f"cat >{HOME}/reload <<'END'\n{script}END\nchmod 755 {HOME}/reload")
    began = time.monotonic()
    switch(host, reload_command=["~/lab-clients/reload"])
    assert time.monotonic() - began < 50  # the reload may take 60 s
    assert inside(host, f"ls {RELOADED}; ps -o comm= -p $(cat {HOME}/child)").split() == [
        RELOADED,
        "sleep",
    ]
    failed = route(host, "restored", epoch=2, reload_command=["sh", "-c", "printf '\\377'; exit 3"])
    assert (failed["failed"], failed["kind"]) == (True, "reload")
    assert (failed["route"]["url"], failed["now"]["url"]) == (TITAN, PANDA)
    assert f"{FILE} names {PANDA} now, and the reload failed" in failed["msg"]
    assert inside(host, f"cat {FILE}") == WRITTEN
