"""The lab is what it claims to be: two hosts that boot, die and come back like the real pair."""

from __future__ import annotations

import subprocess

import pytest
from in_lab import LAB, gemma_state, inside, lab, llm_answers, panda_speaks, ssh, wait

HOSTS = ("titan", "panda")
POWER = pytest.mark.long(reason="reboot covers it, and the power cycle inside a window")
PANDA = pytest.mark.long(reason="titan covers it: the same image and the same boot")


@pytest.mark.parametrize("host", HOSTS)
def test_systemd_has_started_everything(host: str) -> None:
    assert inside(host, "systemctl is-system-running; cat /proc/1/comm").split() == [
        "running",
        "systemd",
    ]


@pytest.mark.parametrize("host", HOSTS)
def test_the_operator_is_no_administrator_and_lingers(host: str) -> None:
    asked = [
        "id -un; id -u",
        "sudo -n true || echo no sudo",
        "cat /etc/shadow || echo no root",
        "loginctl show-user op --property Linger",
        "systemctl --user is-system-running",
    ]
    seen = ssh(host, "; ".join(asked)).stdout.splitlines()
    assert seen == ["op", "1000", "no sudo", "no root", "Linger=yes", "running"]


def test_a_host_with_another_key_is_not_believed() -> None:
    assert ssh("titan", "true").returncode == 0
    wrong = f"UserKnownHostsFile={LAB}/ssh/panda/host_ed25519.pub"
    refused = subprocess.run(
        ["ssh", "-F", LAB / "ssh/config", "-o", wrong, "-o", "BatchMode=yes", "titan", "true"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_gemma_is_a_container_with_the_real_policy_and_a_published_port() -> None:
    policy = "{{.HostConfig.RestartPolicy.Name}} {{json .HostConfig.PortBindings}}"
    seen = ssh("titan", f"docker inspect --format '{policy}' vllm-gemma4; docker info").stdout
    assert seen.startswith('unless-stopped {"8000/tcp":[{"HostIp":"","HostPort":"8003"}]}')
    assert "Storage Driver: overlay2" in seen
    assert llm_answers()


def test_panda_has_no_engine_and_speaks() -> None:
    assert ssh("panda", "docker info").returncode != 0
    assert panda_speaks()


def test_the_operator_can_start_what_survives_his_session() -> None:
    ssh("titan", "systemd-run --user --unit=lingers sleep 60")
    assert ssh("titan", "systemctl --user is-active lingers").stdout == "active\n"
    ssh("titan", "systemctl --user stop lingers")


def test_an_occupied_port_keeps_gemma_from_starting(mended: None) -> None:
    inside("titan", "docker stop vllm-gemma4; systemd-run --unit=thief python3 -m http.server 8003")
    wait(lambda: ":8003" in inside("titan", "ss -ltn"), what="the thief listens")
    assert ssh("titan", "docker start vllm-gemma4").returncode != 0
    inside("titan", "systemctl stop thief")
    assert ssh("titan", "docker start vllm-gemma4").returncode == 0
    assert llm_answers()


def test_a_full_home_is_really_full_and_empties_again() -> None:
    take = "fallocate -l $(df --output=avail --block-size=1 ~ | tail -n 1) ~/filler"
    full = ssh("titan", f"{take}; head -c 100M /dev/zero >~/more", timeout=120)
    try:
        assert full.returncode != 0
        assert "No space left on device" in full.stderr
        assert ssh("titan", "echo more >~/other").returncode != 0
        assert inside("titan", "docker ps --quiet")  # the engine has a disk of its own
    finally:
        ssh("titan", "rm -f ~/filler ~/more ~/other")
    assert ssh("titan", "echo more >~/more && rm ~/more").returncode == 0


def test_a_cut_host_is_gone_and_comes_back_with_address_and_routes(mended: None) -> None:
    before = inside("titan", "ip -4 -brief address show eth0; ip route")
    lab("cut", "titan")
    assert ssh("titan", "true").returncode != 0
    assert gemma_state() == "running"  # the way in for tests is another one
    lab("mend", "titan")
    wait(lambda: ssh("titan", "true").returncode == 0, what="titan is back", seconds=30)
    assert inside("titan", "ip -4 -brief address show eth0; ip route") == before
    assert llm_answers()


@pytest.mark.parametrize("how", ["reboot", pytest.param("power-cycle", marks=POWER)])
@pytest.mark.parametrize("host", ["titan", pytest.param("panda", marks=PANDA)])
def test_everything_enabled_comes_back(host: str, how: str) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = inside(host, boot)
    ssh(host, "echo kept >~/kept")
    lab(how, host)
    wait(lambda: ssh(host, "true").returncode == 0, what="ssh", seconds=30)
    assert inside(host, boot) != before
    # A standby's voice that is kept warm takes a while to speak.
    state = "systemctl --user is-system-running"
    wait(lambda: ssh(host, state).stdout == "running\n", what="the operator's services")
    assert ssh(host, "cat ~/kept").stdout == "kept\n"
    assert llm_answers() if host == "titan" else panda_speaks()


@pytest.mark.parametrize("how", ["reboot", pytest.param("power-cycle", marks=POWER)])
def test_gemma_stopped_by_hand_stays_stopped(how: str, mended: None) -> None:
    ssh("titan", "docker stop vllm-gemma4")
    lab(how, "titan")
    wait(lambda: "exited" in gemma_state(), what="Docker", seconds=30)
    assert not llm_answers(wait_s=5)
