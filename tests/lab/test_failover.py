"""The voice comes back: what callers hear when panda dies, and when everything else does, too."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_lab import (
    LAB,
    PANDA,
    TITAN,
    fill_home,
    inside,
    lab,
    panda_speaks,
    play,
    ssh,
    start_play,
    wait,
)
from loopback import speechlike
from played import ROOT, Played

from understudy.audio.pcm import float_to_pcm16
from understudy.documents.validate import load_schemas

pytestmark = pytest.mark.timeout(600)

PHONES = ("phone1", "phone2")
FROM_PANDA, FROM_TITAN = f"http://{PANDA}:8772", f"http://{TITAN}:8772"
SHARE = "/home/op/.local/share/understudy"
SERVER = f"{SHARE}/server"
#: The hold-down of the tests: two sentences at once.
QUICK_BACK = ["failback.yml", "-e", "failback_hold_down=0", "-e", "tts_route_hold_down_times=2"]
#: Left out by CI, and what covers it.
OTHER_STEP = pytest.mark.long(reason="the kill after Claim the client and switch it covers it")
#: A primary that is up, says that it is well, and returns the same samples for each sentence.
IMPOSTOR = """
import http.server, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def send(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.send("application/json", b'{"status": "ok"}')
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send("application/octet-stream", pathlib.Path("/run/samples").read_bytes())
http.server.ThreadingHTTPServer(("0.0.0.0", 8772), Handler).serve_forever()
"""


def as_op(host: str, command: str) -> str:
    """Run a command as the operator inside a host, with his own systemd."""
    environment = "XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/op"
    return inside(host, f"cd /home/op; runuser -u op -- env {environment} {command}")


def call(phone: str, text: str = "Good morning, how can I help you?") -> dict[str, Any]:
    """Have a phone's agent speak a sentence, as in a call."""
    asked = f"curl --silent --max-time 160 --data {json.dumps(text)} http://127.0.0.1:9000/"
    said: dict[str, Any] = json.loads(inside(phone, asked))
    return said


def hears(phone: str, url: str, text: str = "Good morning, how can I help you?") -> None:
    """A call is spoken whole, by that server."""
    said = call(phone, text)
    assert (said["url"], said["status"]) == (url, 200), said
    assert said["bytes"] == pytest.approx(said["promised_s"] * 48000, abs=96)
    assert said["bytes"] > 10_000


def environment(phone: str) -> str:
    return inside(phone, "cat /home/op/voice-agent.env")


def route(phone: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inside(phone, f"cat {SHARE}/route/{phone}/route.json"))
    return found


def claims() -> list[str]:
    look = f"ls {SHARE}/route {SHARE}/route/* 2>/dev/null || true"
    return [phone for phone in PHONES if "claim.json" in inside(phone, look)]


def health() -> dict[str, Any]:
    said = inside("titan", "curl --silent http://127.0.0.1:8772/health || true")
    return json.loads(said) if said else {"state": "gone"}


def service() -> str:
    return as_op("titan", "systemctl --user is-active understudy-tts || true")


def warm() -> None:
    as_op("titan", "systemctl --user reset-failed understudy-tts || true")
    as_op("titan", "systemctl --user start --no-block understudy-tts")
    wait(lambda: health().get("ready"), what="titan is warm", seconds=60)


def cold() -> None:
    as_op("titan", "systemctl --user disable --quiet --now understudy-tts")
    as_op("titan", "systemctl --user reset-failed understudy-tts || true")


def switch(played: Played) -> dict[str, Any]:
    """The record of a failover or failback."""
    newest = max((played.reports / "switches").iterdir())
    found: dict[str, Any] = json.loads((newest / "switch.json").read_text())
    assert not list(load_schemas()["switch"].iter_errors(found)), found
    return found


def fails_over(reports: Path, *arguments: str) -> Played:
    played = play(reports, "failover.yml", *arguments)
    assert played.status == 0, played.output[-4000:]
    assert [phone for phone in PHONES if FROM_TITAN in environment(phone)] == list(PHONES)
    hears("phone1", FROM_TITAN)  # the play has heard both
    assert not claims()
    return played


@pytest.fixture(scope="module", autouse=True)
def standby(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Installs the standby's voice as the operator does."""
    played = play(tmp_path_factory.mktemp("standby"), "standby.yml")
    assert played.status == 0, played.output[-4000:]
    assert health()["ready"]


@pytest.fixture(scope="module")
def original() -> dict[str, str]:
    """The phones' files as they are when panda speaks."""
    for phone in PHONES:
        inside(
            phone,
            f"sed -i 's|^CHATTERBOX_URL=.*|CHATTERBOX_URL={FROM_PANDA}|' "
            f"/home/op/voice-agent.env; rm -rf {SHARE}/route",
        )
        as_op(phone, "systemctl --user reload voice-agent")
    return {phone: environment(phone) for phone in PHONES}


def mend(original: dict[str, str] | None) -> None:
    """Repair what a test may have left.

    Args:
        original: the phones' files when panda speaks; None leaves the phones as they are.
    """
    for host in ("panda", *PHONES):
        lab("mend", host)
    inside("panda", "systemctl stop mute 2>/dev/null; systemctl start voice")
    inside("titan", "rm -f /home/op/filler; systemctl stop thief 2>/dev/null || true")
    for phone, text in (original or {}).items():
        inside(phone, f"rm -rf {SHARE}/route; cat >/home/op/voice-agent.env <<'END'\n{text}\nEND\n")
        as_op(phone, "systemctl --user reload voice-agent")


def panda_is_ready() -> bool:
    return '"ready":true' in inside("panda", "curl --silent http://127.0.0.1:8772/health || true")


@pytest.fixture(scope="module", autouse=True)
def as_found(original: dict[str, str]) -> Iterator[None]:
    """Leaves panda speaking, titan warm and the phones with panda, whatever the tests did."""
    yield
    mend(original)
    warm()
    wait(panda_is_ready, what="panda speaks", seconds=60)


@pytest.fixture(autouse=True)
def begin(request: pytest.FixtureRequest, original: dict[str, str]) -> None:
    """Begin with panda speaking, titan warm and the phones with panda, or with what a test names.

    Only what a test needs is waited for: `switched`, `cold_standby`, `dead` and `stopped` say that
    the phones, titan's server or panda's are to be in another state.
    """
    named = set(request.fixturenames)
    mend(None if "switched" in named else original)
    if "cold_standby" not in named:
        warm()
    if not named & {"dead", "stopped"}:
        wait(panda_is_ready, what="panda speaks", seconds=60)


@pytest.fixture
def switched(begin: None, original: dict[str, str], reports: Path) -> None:
    """The phones speak with titan; the switch of the test before serves, if it is whole."""
    if claims() or any(FROM_TITAN not in environment(phone) for phone in PHONES):
        mend(original)
        fails_over(reports, "-e", "force=true")


@pytest.fixture
def cold_standby(begin: None) -> None:
    """Titan's server does not run."""
    cold()


@pytest.fixture
def dead(begin: None) -> None:
    """Panda's host is gone: no TCP at all."""
    lab("cut", "panda")


@pytest.fixture
def stopped(begin: None) -> None:
    """Panda's host is up, and its voice is not."""
    inside("panda", "systemctl stop voice")


# --- the path that matters -------------------------------------------------------------------


def test_a_standby_that_stands_is_left_alone(reports: Path) -> None:
    again = play(reports, "standby.yml")
    assert again.status == 0, again.output[-3000:]
    assert again.recap("titan")["changed"] == 0
    unit = as_op("titan", "systemctl --user show understudy-tts -p Type,WatchdogUSec,Restart")
    assert set(unit.split()) == {"Type=notify", "WatchdogUSec=1min", "Restart=on-failure"}
    for phone in PHONES:
        hears(phone, FROM_PANDA)


@pytest.mark.long(reason="a unit test runs the contract against the same server")
@pytest.mark.parametrize("url", [FROM_PANDA, FROM_TITAN])
def test_both_servers_keep_one_contract(url: str) -> None:
    asked = [
        "--server",
        url,
        "--token-file",
        LAB / "ssh/panda/token",
        "--reference",
        "rehearsal.wav",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "tests/contract", *asked],
        cwd=ROOT,
        text=True,
        check=False,
        capture_output=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"\n\d+ passed in", done.stdout), done.stdout[-300:]  # none was skipped


def test_there_and_back(reports: Path, original: dict[str, str], dead: None) -> None:
    played = fails_over(reports)
    record = switch(played)
    assert (record["status"], record["to"], record["epoch"]) == ("ok", "titan", 1)
    times = record["times"]
    assert times["heard_s"] - times["synthesis_s"] <= 6.0 + 4.0, times  # shared cores
    assert times["switched_s"] < times["heard_s"]
    for phone in PHONES:
        assert f"{phone}: titan speaks, heard through {FROM_TITAN}" in played.text
        assert environment(phone) == original[phone].replace(FROM_PANDA, FROM_TITAN)
        assert (
            max((reports / "switches").iterdir()) / f"heard-{phone}.wav"
        ).stat().st_size > 10_000
    assert "WARNING" in played.text
    assert "nobody has shown that the standby sounds like the primary" in played.text
    again = play(reports, "failover.yml")
    assert again.status == 0
    assert [again.recap(host)["changed"] for host in ("localhost", "titan", *PHONES)] == [0] * 4
    assert re.search(r"phone2: titan speaks, heard .* s before this command", again.text)
    assert "Verify the voice" not in again.text
    again = play(reports, "failover.yml", "-e", "tts_route_heard_for_s=0")
    assert again.status == 0
    assert switch(again)["times"]["heard_s"]
    assert [again.recap(host)["changed"] for host in ("localhost", "titan", *PHONES)] == [0] * 4

    lab("mend", "panda")
    assert panda_speaks()
    back = play(reports, *QUICK_BACK)
    assert back.status == 0, back.output[-4000:]
    assert "panda spoke, 2 of 2" in back.text
    assert switch(back)["epoch"] == 2
    for phone in PHONES:
        assert environment(phone) == original[phone]
        hears(phone, FROM_PANDA)
        assert route(phone)["previous"]["url"] == FROM_TITAN
    assert health()["ready"]  # standby_state: warm
    again = play(reports, *QUICK_BACK)
    assert again.status == 0
    assert [again.recap(host)["changed"] for host in ("localhost", "titan", *PHONES)] == [0] * 4
    assert "spoke, 1 of 2" not in again.text


# --- the primary; the first switch serves the tests after it ---------------------------------


def test_a_primary_that_speaks_is_not_left(reports: Path, original: dict[str, str]) -> None:
    refused = play(reports, "failover.yml")
    assert refused.status != 0
    assert "panda is healthy and speaks" in refused.text
    assert "-e force=true" in refused.text
    assert {phone: environment(phone) for phone in PHONES} == original
    assert [refused.recap(host)["changed"] for host in ("titan", *PHONES)] == [0, 0, 0]
    assert switch(refused)["status"] == "failed"
    fails_over(reports, "-e", "force=true")


def test_a_primary_that_flaps_is_not_trusted(reports: Path, switched: None) -> None:
    back = ["failback.yml", "-e", "failback_hold_down=12", "-e", "tts_route_hold_down_times=4"]
    process = start_play(reports, *back)
    assert process.stdout
    text = ""
    with process.stdout:
        for line in process.stdout:
            text += line
            if "spoke, 2 of 4" in line:
                inside("panda", "systemctl kill --signal=KILL voice; systemctl stop voice")
    flapped = Played(process.wait(), text, reports)
    assert flapped.status != 0
    said = flapped.text
    assert re.search("panda spoke 2 of 4 times, then: .*(no connection|broke off)", said), said
    for phone in PHONES:
        hears(phone, FROM_TITAN)


def test_a_server_killed_in_mid_synthesis_comes_back(
    reports: Path, dead: None, switched: None
) -> None:
    with ThreadPoolExecutor(1) as pool:
        said: Future = pool.submit(call, "phone1", "This is one more sentence. " * 12)
        wait(lambda: health().get("busy"), what="it speaks", seconds=20)
        inside("titan", "pkill -KILL -f 'understudy serve'")
        since = time.time()
        assert said.result()["status"] != 200
    wait(lambda: health().get("ready"), what="it speaks again", seconds=60)
    assert time.time() - since < 60
    hears("phone1", FROM_TITAN)


def test_a_call_is_not_cut_off_by_the_way_back(reports: Path, switched: None) -> None:
    ended, said = threading.Event(), []

    def calls() -> None:
        while not ended.is_set():
            said.append(call("phone1", "One sentence. And another one of the same call."))

    talker = threading.Thread(target=calls)
    talker.start()
    try:
        back = play(reports, *QUICK_BACK, "-e", "standby_state=cold")
    finally:
        ended.set()
        talker.join()
    assert back.status == 0, back.output[-3000:]
    assert {row["status"] for row in said} == {200}, said
    for row in said:
        assert row["bytes"] == pytest.approx(row["promised_s"] * 48000, abs=96)
    assert said[0]["url"] == FROM_TITAN
    assert said[-1]["url"] == FROM_PANDA


SECONDS = np.arange(4 * 24_000) / 24_000
OTHER_IMPOSTOR = pytest.mark.long(reason="silence, and unit tests of what is no speech, cover it")


@pytest.mark.parametrize(
    ("samples", "seen"),
    [
        pytest.param(0 * SECONDS, "silent", id="silence"),
        pytest.param(
            0.3 * np.sin(2 * np.pi * 440 * SECONDS), "not speech", marks=OTHER_IMPOSTOR, id="tone"
        ),
        pytest.param(
            np.random.default_rng(1).normal(0, 0.1, len(SECONDS)),
            "not speech",
            marks=OTHER_IMPOSTOR,
            id="noise",
        ),
        pytest.param(speechlike(4.0), "the same recording", marks=OTHER_IMPOSTOR, id="recording"),
    ],
)
def test_a_primary_that_is_up_and_does_not_speak_is_left(
    reports: Path, stopped: None, samples: Any, seen: str
) -> None:
    body = base64.b64encode(float_to_pcm16(samples.astype(np.float32))).decode()
    for part in range(0, len(body), 60_000):  # an argument has a limit
        ssh("panda", f"echo '{body[part : part + 60_000]}' >>/tmp/samples.64")
    inside(
        "panda",
        "base64 -d /tmp/samples.64 >/run/samples; rm /tmp/samples.64; "
        f"cat >/run/mute.py <<'END'\n{IMPOSTOR}\nEND\n"
        "systemd-run --quiet --unit=mute python3 /run/mute.py",
    )
    wait(
        lambda: "ok" in inside("panda", "curl -s http://127.0.0.1:8772/health || true"),
        what="it is up",
    )
    played = fails_over(reports)
    assert seen in switch(played)["primary"]["seen"]
    refused = play(reports, *QUICK_BACK)
    assert refused.status != 0
    assert re.search(rf"panda spoke [01] of 2 times, then: .*{seen}", refused.text)
    for phone in PHONES:
        hears(phone, FROM_TITAN)


@pytest.mark.long(reason="test_there_and_back fails over from a dead host")
def test_a_dead_host_does_not_hold_it_up(reports: Path, dead: None) -> None:
    played = fails_over(reports)
    primary = switch(played)["primary"]
    assert not primary["speaks"]
    assert primary["wall_s"] <= 2.0
    assert "no connection" in primary["seen"]


@pytest.mark.long(reason="the tests of a primary that speaks and that flaps cover it")
def test_a_primary_that_comes_back_meanwhile(reports: Path, dead: None) -> None:
    process = start_play(reports, "failover.yml")
    assert process.stdout
    with process.stdout:
        for line in process.stdout:
            if "Claim the client" in line:
                lab("mend", "panda")
                break
        rest = process.stdout.read()
    assert Played(process.wait(), rest, reports).status == 0
    for phone in PHONES:
        hears(phone, FROM_TITAN)
    assert panda_speaks()
    again = play(reports, "failover.yml")  # it stands: no reason to refuse
    assert again.status == 0
    assert again.recap("phone1")["changed"] == 0


# --- the standby -----------------------------------------------------------------------------


@pytest.fixture
def no_way_out() -> Iterator[None]:
    """No host has a route to an index or a hub; the LAN is there."""
    kept = {host: inside(host, "ip route show default").strip() for host in ("titan", *PHONES)}
    assert all(kept.values())
    for host in kept:
        inside(host, "ip route del default")
    yield
    for host, line in kept.items():
        inside(host, f"ip route add {line}")


def test_from_cold_and_to_cold(
    reports: Path, dead: None, no_way_out: None, cold_standby: None
) -> None:
    assert service() == "inactive"
    record = switch(fails_over(reports))
    assert record["times"]["server_ready_s"] > 0
    lab("mend", "panda")
    assert panda_speaks()
    back = play(reports, *QUICK_BACK, "-e", "standby_state=cold")
    assert back.status == 0, back.output[-4000:]
    assert service() == "inactive"
    for phone in PHONES:
        hears(phone, FROM_PANDA)
    again = play(reports, *QUICK_BACK, "-e", "standby_state=cold")
    assert again.recap("titan")["changed"] == 0


def test_check_tells_what_would_happen(
    reports: Path, original: dict[str, str], dead: None, cold_standby: None
) -> None:
    looked = play(reports, "failover.yml", "--check", "--diff")
    assert looked.status == 0, looked.output[-3000:]
    assert f"-CHATTERBOX_URL={FROM_PANDA}" in looked.output
    assert f"+CHATTERBOX_URL={FROM_TITAN}" in looked.output
    assert "CHATTERBOX_TOKEN" not in looked.output
    assert [looked.recap(host)["changed"] for host in ("titan", *PHONES)] == [1, 1, 1]
    assert service() == "inactive"
    assert {phone: environment(phone) for phone in PHONES} == original
    assert not reports.exists()


def is_refused(reports: Path, original: dict[str, str], *words: str) -> None:
    """The standby cannot speak: nobody is switched, and it is said soon and why."""
    began = time.monotonic()
    refused = play(reports, "failover.yml")
    assert refused.status != 0
    assert time.monotonic() - began < 60
    for word in words:
        assert word in refused.text, refused.output[-3000:]
    assert {phone: environment(phone) for phone in PHONES} == original
    assert not claims()


def test_somebody_else_has_the_port(
    reports: Path, original: dict[str, str], dead: None, cold_standby: None
) -> None:
    inside("titan", "systemd-run --quiet --unit=thief python3 -m http.server 8772")
    wait(lambda: ":8772" in inside("titan", "ss -ltn"), what="the thief listens")
    is_refused(reports, original, "port 8772", "is already taken")
    inside("titan", "systemctl stop thief")


def test_weights_that_are_cut_short(
    reports: Path, original: dict[str, str], dead: None, cold_standby: None
) -> None:
    inside(
        "titan",
        f"cp -r /opt/lab/made/weights {SHARE}/cut; "
        f"truncate -s 1M {SHARE}/cut/t3_cfg.safetensors; "
        f"chown -R op {SHARE}/cut; cp {SERVER}/serve.json /run/serve.json; "
        f"sed -i 's|/opt/lab/made/weights|{SHARE}/cut|' {SERVER}/serve.json",
    )
    try:
        is_refused(reports, original, "t3_cfg.safetensors")
        inside("titan", f"rm {SHARE}/cut/t3_cfg.safetensors")
        is_refused(reports, original, "t3_cfg.safetensors")
    finally:
        inside("titan", f"cat /run/serve.json >{SERVER}/serve.json; rm -r {SHARE}/cut")


@pytest.mark.long(reason="test_weights_that_are_cut_short covers a missing file")
def test_a_voice_that_is_missing(
    reports: Path, original: dict[str, str], dead: None, cold_standby: None
) -> None:
    inside("titan", f"mv {SERVER}/voices/rehearsal.wav /home/op/away.wav")
    try:
        is_refused(reports, original, "rehearsal.wav")
    finally:
        inside("titan", f"mv /home/op/away.wav {SERVER}/voices/rehearsal.wav")


def test_a_full_disk_on_the_standby(reports: Path, dead: None, cold_standby: None) -> None:
    """It speaks all the same; and what kept it from speaking in the tests before is gone."""
    fill_home()
    fails_over(reports)


@pytest.mark.long(reason="a server that is killed, and the boots of test_lab.py, cover it")
def test_a_host_that_boots_while_clients_speak_to_it(
    reports: Path, dead: None, cold_standby: None
) -> None:
    fails_over(reports)  # which starts the server, as every boot does from then on
    lab("reboot", "titan")
    wait(lambda: health().get("ready"), what="it speaks again", seconds=90)
    hears("phone2", FROM_TITAN)


# --- the clients -----------------------------------------------------------------------------


def test_a_client_that_cannot_be_reached_is_finished_by_the_next_run(
    reports: Path, stopped: None
) -> None:
    lab("cut", "phone2")
    half = play(reports, "failover.yml")
    assert half.status != 0
    hears("phone1", FROM_TITAN)
    assert "phone2: NOT switched: it cannot be reached" in half.text
    assert "ansible-playbook failover.yml again" in half.text
    lab("mend", "phone2")
    assert f"URL={FROM_PANDA}" in environment("phone2")
    whole = fails_over(reports)
    assert "switch 1 was left half-done on phone2" in whole.text
    assert [route(phone)["epoch"] for phone in PHONES] == [1, 1]
    assert whole.recap("phone1")["changed"] == 0


def test_a_client_with_another_token_is_not_put_back_to_a_mute_panda(
    reports: Path, original: dict[str, str], stopped: None
) -> None:
    inside(
        "phone2", "sed -i 's/^CHATTERBOX_TOKEN=.*/CHATTERBOX_TOKEN=wrong/' /home/op/voice-agent.env"
    )
    half = play(reports, "failover.yml")
    assert half.status != 0
    hears("phone1", FROM_TITAN)
    assert re.search(
        f"phone2: NOT heard: .*401, the token .*; it stays with {FROM_TITAN}", half.text
    )
    assert f"URL={FROM_TITAN}" in environment("phone2")
    assert not claims()
    token = re.search("CHATTERBOX_TOKEN=(.*)", original["phone2"])
    assert token
    assert token[1] not in half.output
    inside("phone2", f"sed -i 's/^CHATTERBOX_TOKEN=.*/{token[0]}/' /home/op/voice-agent.env")
    fails_over(reports)


@pytest.mark.long(reason="a client with another token covers a voice that is not heard")
def test_a_client_is_put_back_to_a_panda_that_speaks(
    reports: Path, original: dict[str, str]
) -> None:
    """Its network lets it through to panda alone."""
    inside("phone2", f"ip route add prohibit {TITAN}")
    try:
        half = play(reports, "failover.yml", "-e", "force=true", "-e", "tts_route_wait_s=1")
    finally:
        inside("phone2", f"ip route del prohibit {TITAN}")
    assert half.status != 0
    hears("phone1", FROM_TITAN)
    assert re.search(f"phone2: NOT switched: .*; put back to {FROM_PANDA}, which", half.text)
    assert environment("phone2") == original["phone2"]
    hears("phone2", FROM_PANDA)


@pytest.fixture(
    params=[
        "frozen",
        pytest.param("full", marks=pytest.mark.long(reason="a frozen phone holds nobody up")),
    ]
)
def broken_phone(request: pytest.FixtureRequest, begin: None) -> Iterator[str]:
    """What is said of phone2, which is frozen behind a live SSH master, or has a full disk."""
    if request.param == "frozen":
        master = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60s"]
        path = f"ControlPath={LAB}/ssh/control/lan-%C"
        subprocess.run(
            ["ssh", "-F", LAB / "ssh/config", *master, "-o", path, "phone2", "true"], check=True
        )
        lab("freeze", "phone2")
        yield "it cannot be reached"
    else:
        state = f"{SHARE}/route"
        inside(
            "phone2",
            f"mkdir -p {state}; mount -t tmpfs -o size=4k,uid=1000 none {state}; "
            f"head -c 4096 /dev/zero >{state}/filler",
        )
        yield "cannot be written: No space left on device"
        inside("phone2", f"umount {state}")


def test_a_broken_phone_holds_nobody_up(reports: Path, dead: None, broken_phone: str) -> None:
    half = play(reports, "failover.yml")
    assert half.status != 0
    assert re.search(f"phone2: NOT switched: [^:]*{broken_phone}", half.text)
    record = switch(half)
    assert record["status"] == "failed"
    assert record["clients"]["phone1"]["heard"]
    assert not record["clients"]["phone2"]["heard"]
    times = record["times"]
    assert times["heard_s"] - times["synthesis_s"] <= 6.0 + 5.0, times  # shared cores
    hears("phone1", FROM_TITAN)


@pytest.mark.long(reason="a phone that is frozen before the look covers a lost one")
def test_a_phone_that_is_lost_after_the_look(reports: Path, dead: None) -> None:
    process = start_play(reports, "failover.yml")
    assert process.stdout
    text, cut = "", 0.0
    with process.stdout:
        for line in process.stdout:
            text += line
            if "Decide which client uses" in line:
                lab("cut", "phone2")
                cut = time.time()
    half = Played(process.wait(), text, reports)
    assert half.status != 0
    assert "phone2: NOT switched: it was lost meanwhile" in half.text
    heard = switch(half)["clients"]["phone1"]["heard"]
    assert heard["at"] - heard["wall_s"] - cut < 6.0
    hears("phone1", FROM_TITAN)


def test_a_voice_that_ends_with_the_login_is_no_success(reports: Path, dead: None) -> None:
    inside("titan", "loginctl disable-linger op")
    try:
        warned = play(reports, "failover.yml")
        staged = play(reports, "standby.yml")
    finally:
        inside("titan", "loginctl enable-linger op")
    for phone in PHONES:  # it is better than silence
        hears(phone, FROM_TITAN)
    assert warned.status != 0
    assert "titan: its voice ENDS WHEN YOUR LAST LOGIN THERE DOES" in warned.text
    assert 'ssh titan sudo loginctl enable-linger "$USER"' in warned.text
    assert staged.status != 0
    assert "sudo loginctl enable-linger" in staged.text
    assert staged.recap("titan")["changed"] == 0
    fails_over(reports)


@pytest.mark.parametrize(
    "to", ["spare", pytest.param("ghost", marks=pytest.mark.long(reason="the spare covers it"))]
)
def test_a_standby_that_cannot_speak_gives_way(
    reports: Path, tmp_path: Path, dead: None, to: str
) -> None:
    """One has no server installed, one does not exist."""
    hosts = {"spare": "10.83.72.12", "ghost": "10.83.72.99"}
    lines = [
        f"    {name}: {{ansible_host: {host}, tts_server_url: 'http://{host}:8772'}}"
        for name, host in hosts.items()
    ]
    inventory = tmp_path / "more.yml"
    text = "\n".join(["lab:", "  hosts:", *lines, "standby:", "  hosts:", *lines])
    inventory.write_text(f"{text}\n")
    if to == "spare":  # its network is there, its voice is not
        lab("mend", "panda")
        inside("panda", "systemctl stop voice")
    played = play(reports, "-i", str(inventory), "failover.yml", "-e", f"to={to}")
    assert played.status == 0, played.output[-3000:]
    assert f"{to}, which was asked for, cannot speak" in played.text
    for phone in PHONES:
        assert f"{phone}: titan speaks, heard through {FROM_TITAN}" in played.text


def spell(phone: str, url: str) -> None:
    """Set a phone's URL by hand."""
    inside(phone, f"sed -i 's|^CHATTERBOX_URL=.*|CHATTERBOX_URL={url}|' /home/op/voice-agent.env")
    as_op(phone, "systemctl --user reload voice-agent")


def test_one_server_in_two_spellings(reports: Path, original: dict[str, str]) -> None:
    inside("phone2", f"echo '{TITAN} voice.lab' >>/etc/hosts")
    spell("phone1", f"{FROM_TITAN}/")
    spell("phone2", "http://voice.lab:8772")
    try:
        staged = play(reports, "standby.yml", "-e", "standby_state=cold")
        assert staged.status == 0, staged.output[-3000:]
        assert "phone2 uses it, as http://voice.lab:8772" in staged.text
        assert service() == "active"
        back = play(reports, *QUICK_BACK, "-e", "standby_state=cold")
    finally:
        inside("phone2", "sed '/voice.lab/d' /etc/hosts >/run/hosts; cat /run/hosts >/etc/hosts")
    assert back.status == 0, back.output[-3000:]
    assert "panda spoke, 2 of 2" in back.text
    assert {phone: environment(phone) for phone in PHONES} == original
    assert service() == "inactive"


@pytest.mark.long(reason="two spellings of one server cover who uses the standby")
def test_a_client_that_is_not_looked_at_keeps_the_standby(reports: Path, switched: None) -> None:
    lab("cut", "phone2")
    back = play(reports, *QUICK_BACK, "-e", "standby_state=cold")
    assert back.status != 0
    assert "phone2: NOT switched: it cannot be reached" in back.text
    assert "phone2 may use it, since it was not looked at" in back.text
    assert service() == "active"
    started = health()["started_at"]
    new = ["standby.yml", "-e", '{"tts_server_settings": {"deadline_s": 119}}']
    staged = play(reports, *new)
    assert staged.status == 0, staged.output[-3000:]
    assert health()["started_at"] == started
    lab("mend", "phone2")
    hears("phone2", FROM_TITAN)
    back = play(reports, *QUICK_BACK)  # nobody uses it, and it starts with the new settings
    assert back.status == 0, back.output[-3000:]
    assert health()["started_at"] > started
    assert play(reports, *new).recap("titan")["changed"] == 0
    assert play(reports, "standby.yml").status == 0


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("Bring the standby", marks=OTHER_STEP),
        "Claim the client and switch it",
        pytest.param("Verify the voice", marks=OTHER_STEP),
        pytest.param("Give the claim back", marks=OTHER_STEP),
    ],
)
def test_killed_between_two_steps_it_is_finished_by_the_next_run(
    reports: Path, dead: None, words: str, cold_standby: None
) -> None:
    process = start_play(reports, "failover.yml")
    assert process.stdout
    for line in process.stdout:
        if words in line:
            break
    else:
        pytest.fail(f"no {words}")
    threading.Event().wait(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for phone in PHONES:  # whatever happened, a file is whole
        assert re.search(r"CHATTERBOX_URL=http://10\.83\.72\.1[12]:8772\n", environment(phone))
    fails_over(reports)
    assert len({route(phone)["epoch"] for phone in PHONES}) == 1


def test_two_operators(reports: Path, original: dict[str, str], dead: None) -> None:
    """The other's client is left to him; a control node that died there holds nobody else up."""
    claim = {"id": "other/1/2", "who": "alice@other", "command": "failback.yml", "at": time.time()}
    inside(
        "phone2",
        f"mkdir -p {SHARE}/route; "
        f"echo '{json.dumps(claim)}' >{SHARE}/route/claim.json; "
        "chown -R op:op /home/op/.local",
    )
    half = play(reports, "failover.yml")
    assert half.status != 0
    assert "phone2: NOT switched: alice@other is switching the clients with failback" in half.text
    assert environment("phone2") == original["phone2"]
    hears("phone1", FROM_TITAN)
    assert claims() == ["phone2"]
    fails_over(reports, "-e", "tts_route_claim_ttl_s=5")
