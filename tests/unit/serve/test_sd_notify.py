import os
import socket

import pytest

from understudy.serve.sd_notify import notify, watchdog_s


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path, monkeypatch):
    address = str(tmp_path / "notify") if request.param == "path" else f"\0understudy-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        yield sock


def test_one_datagram_with_one_line_each(manager):
    assert notify("READY=1", "STATUS=it\nspeaks \u2013 well")
    assert manager.recv(1000).decode() == "READY=1\nSTATUS=it speaks \u2013 well"


def test_nobody_listens(tmp_path, monkeypatch):
    for address in ("", "relative", "vsock:2:1", str(tmp_path / "none")):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        (None, None, None),
        ("30000000", None, 30.0),
        ("0", None, None),
        ("soon", None, None),
        ("500000", "own", 0.5),
        ("500000", "1", None),
        ("500000", "", 0.5),
    ],
)
def test_the_watchdog(monkeypatch, usec, pid, seconds):
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    assert watchdog_s() == seconds
