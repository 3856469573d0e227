"""A host is reached at whichever of its addresses answers, and nobody is waited for longer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from loopback import Scripted, pcm_answer, speechlike

from understudy.common import sockets
from understudy.model.types import Tuning
from understudy.serve.client import VoiceClient, VoiceServerError

SILENT = "127.0.0.2"


@contextlib.contextmanager
def silent(port: int) -> Iterator[None]:
    """An address that answers nothing: its queue of connections is full, so the kernel drops."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind((SILENT, port))
        sock.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((SILENT, port))
        yield


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Addresses by name, in place of the resolver's."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        found = known.get(host, [host])
        return [row for address in found for row in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return known


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_a_dead_first_address_costs_no_timeout(names: dict[str, list[str]], listening: int) -> None:
    names["panda"] = [SILENT, "127.0.0.3", "127.0.0.1"]
    began = time.monotonic()
    with silent(listening), sockets.connect("panda", listening, 5) as sock:
        assert sock.getpeername() == ("127.0.0.1", listening)
        sock.sendall(b"it blocks as usual")
    assert time.monotonic() - began < 2


def test_each_address_says_what_was_seen(names: dict[str, list[str]], listening: int) -> None:
    names["panda"] = [SILENT, "127.0.0.3"]
    with silent(listening), pytest.raises(OSError, match="no answer") as caught:
        sockets.connect("panda", listening, 0.5)
    text = f"{SILENT}: no answer within 0.5 s; 127.0.0.3: Connection refused"
    assert str(caught.value) == text
    with pytest.raises(OSError, match=r"^Connection refused$"):
        sockets.connect("127.0.0.3", listening, 0.5)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "two words", "fd00::7::"])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(OSError, match=r"\w"):
        sockets.connect(host, 8772, 5)


def test_a_lookup_is_not_waited_for_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    over, looked_up = threading.Event(), threading.Event()

    def hangs(*_: Any, **__: Any) -> None:
        over.wait(30)
        looked_up.set()
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"the name was not looked up within 0\.3 s"):
        sockets.connect("panda", 8772, 0.3)
    assert time.monotonic() - began < 1
    over.set()
    assert looked_up.wait(30)  # the thread is still in the patched function before that


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_all_addresses_are_those_of_ipv4_too() -> None:
    with sockets.listen("::", 0) as sock:
        for host in ("127.0.0.1", "::1"):
            sockets.connect(host, sock.getsockname()[1], 5).close()


def test_a_zone_belongs_to_an_address() -> None:
    assert sockets.numeric(("fe80::1", 8772, 0, 2)) == "fe80::1%2"
    assert sockets.numeric(("fd00::7", 8772, 0, 0)) == "fd00::7"
    assert sockets.numeric(("10.0.0.7", 8772)) == "10.0.0.7"


def test_speech_comes_from_the_address_that_answers(names: dict[str, list[str]]) -> None:
    names["panda"] = [SILENT, "127.0.0.1"]
    with Scripted(pcm_answer(speechlike(1.0))) as fake:
        port = int(fake.url.rpartition(":")[2])
        with silent(port), VoiceClient(f"http://Panda:{port}", timeout_s=10) as server:
            began = time.monotonic()
            for _ in range(2):
                server.speak("Hello there.", "samantha.wav", Tuning(0.3, 0.3, 0.6))
            assert time.monotonic() - began < 2
    assert {request.headers["host"] for request in fake.requests} == {f"panda:{port}"}


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_asked() -> None:
    with sockets.listen("::1", 0) as sock:
        asked: list[bytes] = []

        def answer() -> None:
            peer, _ = sock.accept()
            with peer:
                asked.append(peer.recv(65536))
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        with VoiceClient(f"http://[::1]:{sock.getsockname()[1]}", timeout_s=10) as server:
            assert server.health() == {}
        thread.join()
    assert b"\r\nHost: [::1]:" in asked[0]


def test_no_address_answers(names: dict[str, list[str]], listening: int) -> None:
    names["panda"] = ["127.0.0.3", "127.0.0.4"]
    server = VoiceClient(f"http://panda:{listening}")
    with server, pytest.raises(VoiceServerError) as caught:
        server.speak("Hello there.", "samantha.wav", Tuning(0.3, 0.3, 0.6))
    refused = "127.0.0.3: Connection refused; 127.0.0.4: Connection refused"
    assert caught.value.seen == f"no connection: {refused}"
    assert not caught.value.reached
