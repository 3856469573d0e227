"""Bringing a server up and down: a real process, started and looked at by commands."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.understudy import voiceserver as v

#: Answers /health with what a file says, so that a test decides how it is.
SERVER = """
import http.server, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = pathlib.Path(sys.argv[2]).read_bytes()
        self.send_response(200 if b'"ready": true' in body else 503)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
#: A service manager of one service: start, stop, state.
MANAGER = """
dir=$1; pid=$(cat $dir/pid 2>/dev/null)
case $2 in
  start) [ -e $dir/refuses ] && { echo no such unit; exit 5; }
         $3 $dir/server.py $4 $dir/health >/dev/null 2>&1 & echo $! >$dir/pid ;;
  stop) kill $pid; rm -f $dir/pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done ;;
  keep) [ -e $dir/full ] && { echo no space left; exit 1; }; touch $dir/kept ;;
  reset) rm -f $dir/failed ;;
  log) echo the last line ;;
  state) if [ -e $dir/failed ]; then echo failed
         elif kill -0 $pid 2>/dev/null; then echo active; else echo inactive; fi ;;
esac
"""
READY = {"state": "ready", "ready": True, "error": None, "busy": False, "waiting": 0}


class Service:
    """One such service."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (home / "server.py").write_text(SERVER)
        (home / "manager").write_text(MANAGER)
        self.says(READY)
        ask = ["sh", str(home / "manager"), str(home)]
        self.server = v.VoiceServer(
            f"http://127.0.0.1:{self.port}/health",
            [*ask, "state"],
            "^active$",
            "^failed$",
            [*ask, "start", sys.executable, str(self.port)],
            [*ask, "stop"],
            [*ask, "keep"],
            [*ask, "reset"],
            [*ask, "log"],
        )

    def says(self, health: dict) -> None:
        part = self.home / "health.part"
        part.write_text(json.dumps(health))
        part.replace(self.home / "health")

    def kill(self) -> None:
        if (self.home / "pid").exists():
            os.kill(int((self.home / "pid").read_text()), signal.SIGKILL)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.kill()


def test_up_and_down(service: Service) -> None:
    seen = {"outdated": False, "ends_with_login": False}
    assert service.server.look() == {"service": "stopped", "health": None, **seen}
    assert service.server.warm(20) is True
    assert (service.home / "kept").exists()
    assert service.server.look() == {"service": "running", "health": READY, **seen}
    assert service.server.warm(20) is False
    assert service.server.cold() is True
    assert service.server.cold() is False
    assert service.server.health() is None


def test_what_was_changed_since_it_started_is_brought_in(service: Service) -> None:
    home, pid = service.home, service.home / "pid"
    settings, weights = home / "serve.json", home / "weights"
    settings.touch()
    weights.mkdir()
    (home / "code").symlink_to(home / "old")
    service.server.made_of = [str(settings), str(weights), str(home / "code"), str(home / "none")]
    started = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
    service.says({**READY, "started_at": stamp})
    assert service.server.renewed(20) is True
    first = pid.read_text()
    assert service.server.renewed(20) is False
    assert pid.read_text() == first

    def later(path: Path) -> None:
        os.utime(path, (started + 5, started + 5), follow_symlinks=False)

    (weights / "t3").touch()
    for changed in (settings, weights / "t3", home / "code"):
        before = os.lstat(changed).st_mtime
        later(changed)
        assert service.server.look()["outdated"], changed
        assert service.server.warm(20) is False  # a failover does not wait for it
        os.utime(changed, (before, before), follow_symlinks=False)
    later(settings)
    assert service.server.renewed(20) is True
    assert pid.read_text() != first


def test_a_service_of_the_user_ends_with_the_login(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.server.start_command = ["systemctl", "--user", "start", "understudy-tts"]
    monkeypatch.setattr(v.getpass, "getuser", lambda: "nobody-lingers")
    assert service.server.look()["ends_with_login"]


def test_one_that_was_given_up_is_started_all_the_same(service: Service) -> None:
    (service.home / "failed").touch()
    assert service.server.service() == "failed"
    assert service.server.warm(20) is True


def test_where_a_boot_cannot_be_told_it_speaks_all_the_same(service: Service) -> None:
    (service.home / "full").touch()
    assert service.server.warm(20) is True
    (warning,) = service.server.warnings
    assert warning.startswith("a reboot would not start the voice: sh ")
    assert warning.endswith("keep ended with status 1: no space left")


def test_one_that_is_given_up_meanwhile_is_not_waited_for(service: Service) -> None:
    service.says({"state": "starting", "ready": False, "error": None})
    service.server.start_command = ["sh", "-c", f"touch {service.home}/failed"]
    began = time.monotonic()
    with pytest.raises(
        v.ServerError, match=r"its service has given up; the end of its log:\nthe last line"
    ):
        service.server.warm(60)
    assert time.monotonic() - began < 10


def test_one_that_never_speaks_is_given_up_early(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v, "FAILING_S", 1.0)
    service.says({"state": "failing", "ready": False, "error": "silent"})
    with pytest.raises(v.ServerError, match="it runs and cannot speak: silent"):
        service.server.warm(60)


def test_one_that_takes_too_long_says_what_it_said(service: Service) -> None:
    service.says({"state": "starting", "ready": False, "error": None})
    with pytest.raises(v.ServerError, match="not ready after 1 s, it says 'starting'"):
        service.server.warm(1)


def test_a_start_that_fails_is_shown(service: Service) -> None:
    (service.home / "refuses").touch()
    with pytest.raises(v.ServerError, match=r"start .* ended with status 5: no such unit"):
        service.server.warm(20)
    service.server.start_command = ["/no/such/command"]
    with pytest.raises(v.ServerError, match="/no/such/command: No such file"):
        service.server.warm(20)


def test_somebody_else_has_the_port(service: Service) -> None:
    other = Service(service.home / "other") if (service.home / "other").mkdir() is None else None
    assert other
    service.server.health_url = other.server.health_url
    other.server.warm(20)
    try:
        with pytest.raises(v.ServerError, match="something else has its port"):
            service.server.warm(20)
    finally:
        other.kill()


def test_idle(service: Service) -> None:
    assert service.server.idle(0.1) is True  # one that is not there speaks to nobody
    service.server.warm(20)
    assert service.server.idle(0.1) is True
    service.says({**READY, "busy": True})
    assert service.server.idle(0.3) is False
    service.says({**READY, "waiting": 1})
    assert service.server.idle(0.3) is False


def test_what_answers_something_else_is_not_ours(service: Service) -> None:
    service.server.warm(20)
    (service.home / "health").write_text("[]")
    assert service.server.health() is None
    (service.home / "health").write_text("<html>")
    assert service.server.health() is None
