"""What torch raises where an error destroys a CUDA context, and that the server ends with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

#: Each raises in a process of its own, whose context it destroys, or does not.
ERRORS = {
    "device-side assert": (True, "torch.zeros(1, device=d)[torch.tensor([5], device=d)].item()"),
    "illegal memory access": (
        True,
        'write = torch.cuda._compile_kernel(\'extern "C" __global__ void f(float* p) '
        "{ p[1ull << 45] = 1; }', 'f'); write((1, 1, 1), (1, 1, 1), (torch.zeros(1, device=d),)); "
        "torch.cuda.synchronize()",
    ),
    "out of memory": (False, "torch.empty(1 << 50, device=d)"),
}
CLASSIFY = """
import sys, torch
from understudy.model.device_errors import is_device_lost, is_out_of_memory
d = "cuda"
try:
    exec(sys.argv[1])
except Exception as error:
    print(type(error).__name__, getattr(error, "error_code", None), is_device_lost(error),
          is_out_of_memory(error))
try:
    torch.ones(2, device=d).sum().item()
    print("goes on")
except Exception as error:
    print("is lost", is_device_lost(error))
"""
#: The server, whose device is lost in the middle of the third utterance.
SERVER = """
import sys, torch
from understudy import cli
from understudy.model.voice import Voice
speak, said = Voice.speak, []
def speaks(self, *arguments, **more):
    said.append(1)
    if len(said) == 3:
        torch.zeros(1, device="cuda")[torch.tensor([5], device="cuda")]
    return speak(self, *arguments, **more)
Voice.speak = speaks
sys.exit(cli.main(["serve", "--config", sys.argv[1]]))
"""


@pytest.mark.parametrize("words", ERRORS)
def test_what_a_context_does_not_survive(words: str) -> None:
    lost, code = ERRORS[words]
    done = subprocess.run(
        [sys.executable, "-c", CLASSIFY, code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    raised, after = done.stdout.splitlines()
    assert raised.split()[-2:] == [str(lost), str(not lost)], done.stdout + done.stderr[-2000:]
    assert after == ("is lost True" if lost else "goes on")


def test_a_server_whose_device_is_lost_ends(tmp_path: Path, figures) -> None:
    from understudy import rehearsal

    voices = tmp_path / "voices"
    voices.mkdir()
    rehearsal.make_voice(voices / "rehearsal.wav")
    rehearsal.make_weights(tmp_path / "weights")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "bind": "127.0.0.1",
        "port": port,
        "weights_dir": str(tmp_path / "weights"),
        "voices_dir": str(voices),
        "default_voice": "rehearsal.wav",
        "device": "cuda",
    }
    (tmp_path / "serve.json").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path / "serve.json")],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ,
        )
    try:
        statuses = [_ask(url, server) for _ in range(3)]
        asked = time.monotonic()
        status = server.wait(60)
        figures["lost_device_ended_after_s"] = round(time.monotonic() - asked, 2)
    finally:
        server.kill()
        server.wait()
    assert 503 in statuses, (statuses, log.read_text()[-3000:])
    assert status == 1
    assert "the device is lost" in log.read_text()


def _ask(url: str, server: subprocess.Popen[bytes]) -> int:
    """Return the status of a synthesis once the server is ready; 0 where nothing answers."""
    body = json.dumps(
        {"text": "This is a sentence for the server.", "reference_audio": "rehearsal.wav"}
    )
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                break
        except OSError:
            if server.poll() is not None:
                return 0
            time.sleep(0.2)
    request = urllib.request.Request(
        f"{url}/synthesize", body.encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
