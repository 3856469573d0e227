"""Clients that send nothing, too little, too late or too much, over raw sockets."""

import contextlib
import json
import logging
import resource
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from loopback import FakeVoice, serving, speechlike, voice_app, wait_for
from waiting import until

from understudy.serve import auth, connections
from understudy.serve.config import ConfigError
from understudy.serve.log_limit import PER_MINUTE, LogLimit

TOKEN = "s3cret"
TEXT = "Good morning, how can I help you today?"
HEAD = b"POST /synthesize HTTP/1.1\r\nHost: localhost\r\nX-Internal-Token: s3cret\r\n"


@pytest.fixture
def at(voices, voice):
    with serving(voice_app(voices, voice, TOKEN), limit=20) as url:
        wait_for(url, "ready")
        yield url


@pytest.fixture
def stack():
    with contextlib.ExitStack() as opened:
        yield opened


def connect(stack, at, sent=b"", **options):
    host, port = at.removeprefix("http://").split(":")
    sock = stack.enter_context(socket.create_connection((host, int(port)), 10, **options))
    with contextlib.suppress(ConnectionError):  # closed already, in favour of another one
        sock.sendall(sent)
    return sock


def status(sock):
    """The status of a reply, of which nothing is left to be read; None for a closed connection."""
    line = sock.recv(65_536).split(b"\r\n")[0]
    return int(line.split()[1]) if line else None


def is_closed(sock):
    try:
        while sock.recv(65_536):
            pass
        return True
    except ConnectionResetError:
        return True


def take_the_rest(sock, seconds=0.2):
    """Read a reply's body."""
    time.sleep(seconds)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sock.recv(65_536):
            pass
    sock.settimeout(10)


def request(text=TEXT):
    body = json.dumps({"text": text}).encode()
    return (
        HEAD
        + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def speak(client, at):
    return client.post(
        f"{at}/synthesize", json={"text": TEXT}, headers={"X-Internal-Token": TOKEN}
    ).status_code


# how many


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HTTP/1.1\r\nHost: local",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        HEAD + b"Content-Length: 500\r\n\r\n{",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["silent", "half a head", "health without its body", "half a body", "served and silent"],
)
def test_strangers_that_stay_keep_nobody_out(at, stack, sent):
    with httpx.Client(trust_env=False, timeout=5) as good:
        assert speak(good, at) == 200
        for _ in range(60):
            connect(stack, at, sent)
        assert httpx.get(f"{at}/health", trust_env=False, timeout=5).status_code == 200
        assert speak(good, at) == 200


def test_who_was_served_stays_and_who_never_asked_goes(at, stack):
    """Of one address; the connection of a client that was served is not closed under it."""
    served = connect(stack, at, request())
    assert status(served) == 200
    take_the_rest(served)
    for _ in range(60):
        connect(stack, at)
    time.sleep(0.2)
    served.sendall(request())
    assert status(served) == 200


def test_the_address_that_has_most_gives_way(at, stack):
    quiet = connect(stack, at, source_address=("127.0.0.2", 0))
    for _ in range(60):
        connect(stack, at, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.2)
    quiet.sendall(request())
    assert status(quiet) == 200


@pytest.mark.parametrize("paused", [False, True])
def test_who_does_not_take_its_answer_is_waited_for(paused):
    """So that it can give way; what its system buffers for it, it takes."""
    answering = SimpleNamespace(response_complete=False, more_body=False)
    one = SimpleNamespace(cycle=answering, flow=SimpleNamespace(write_paused=paused))
    assert connections.HttpProtocol.waits_for_client.fget(one) is paused


def test_what_is_no_chunk_after_the_answer_has_begun(at, stack, caplog):
    sock = connect(
        stack,
        at,
        b"POST /synthesize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    assert status(sock) == 401
    with contextlib.suppress(ConnectionError):
        sock.sendall(b"zz\r\n")
        assert is_closed(sock)
    assert "Traceback" not in caplog.text
    assert "Fatal error" not in caplog.text


def test_an_address_takes_no_place_of_one_that_has_fewer(voices, voice, stack):
    """Although the only connection that waits for its client is the other one's."""
    with serving(voice_app(voices, voice, TOKEN), limit=3) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        quiet = connect(stack, at, source_address=("127.0.0.2", 0))
        busy = [connect(stack, at, request()) for _ in range(2)]
        until(lambda: voice.at_once)
        time.sleep(0.2)
        assert status(connect(stack, at)) == 503
        voice.may_speak.set()
        assert [status(one) for one in busy] == [200, 200]
        quiet.sendall(request())
        assert status(quiet) == 200


def test_work_is_never_closed_for_a_new_connection(voices, voice, stack):
    with serving(voice_app(voices, voice, TOKEN), limit=2) as at:
        wait_for(at, "ready")
        voice.may_speak.clear()
        busy = [connect(stack, at, request()) for _ in range(2)]
        until(lambda: voice.at_once)
        time.sleep(0.2)
        late = connect(stack, at)
        assert status(late) == 503
        assert is_closed(late)
        voice.may_speak.set()
        assert [status(one) for one in busy] == [200, 200]


def test_the_limit_on_open_files_bounds_the_connections(caplog):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = connections.RESERVED_FILES
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reserved + 10, hard))
        assert connections.possible(20) == 20
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == reserved + 20
        assert connections.possible(hard) == hard - reserved
        assert "connections instead of" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_no_room_for_one_connection(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(ConfigError, match="LimitNOFILE"):
        connections.possible(512)


# for how long


@pytest.mark.parametrize("before", [b"", request()], ids=["at first", "after a request"])
def test_a_head_that_never_ends(at, stack, monkeypatch, before):
    monkeypatch.setattr(connections, "HEAD_S", 0.4)
    sock = connect(stack, at, before)
    if before:
        assert status(sock) == 200
        take_the_rest(sock)
    began = time.monotonic()
    sock.sendall(b"GET /health HTTP/1.1\r\n")
    sock.settimeout(0.05)
    reply = b""
    while not reply and time.monotonic() - began < 5:
        with contextlib.suppress(TimeoutError):
            sock.sendall(b"X-More: more\r\n")
            reply = sock.recv(1000)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert 0.3 < time.monotonic() - began < 3
    assert is_closed(sock)


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_that_says_nothing(at, stack, monkeypatch, sent):
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    sock = connect(stack, at, sent)
    if sent:
        assert status(sock) in (400, 408)
    assert is_closed(sock)


def test_a_head_of_100_kilobytes(at, stack):
    sock = connect(stack, at, b"GET /health HTTP/1.1\r\n" + b"X-More: more\r\n" * 7_000)
    assert status(sock) == 400
    assert is_closed(sock)


def test_a_good_client_may_rest_between_two_requests(at, stack, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_S", 0.2)
    assert connections.KEEP_ALIVE_S > 60
    sock = connect(stack, at, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for _ in range(2):
        assert status(sock) == 200
        take_the_rest(sock, 0.6)
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert status(sock) == 200


def test_an_answer_that_nobody_takes(voices, stack, monkeypatch):
    monkeypatch.setattr(connections, "TAKE_S", 1)
    voice = FakeVoice({1: speechlike(20.0)})
    app = voice_app(voices, voice, TOKEN)
    with serving(app) as at:
        wait_for(at, "ready")
        sock = connect(stack, at)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.sendall(request("word " * 12))
        until(lambda: httpx.get(f"{at}/health", trust_env=False).json()["served"] == 1)
        server = _servers_end(sock)
        until(lambda: server not in _established(), 30, "the connection is gone")


def _servers_end(sock):
    return sock.getpeername()[1], sock.getsockname()[1]


def _established():
    """Pairs of local and remote port of this machine's open connections over IPv4."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        (int(row[1].split(":")[1], 16), int(row[2].split(":")[1], 16))
        for row in rows
        if row[3] in ("01", "08")  # ESTABLISHED, CLOSE_WAIT
    }


# after a refusal


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (HEAD.replace(b"s3cret", b"wrong") + b"Content-Length: 5\r\n\r\nhello", 401),
        (HEAD.replace(b"s3cret", b"wrong") + b"Content-Length: 500000\r\n\r\nhello", 401),
        (HEAD + b"Content-Length: 500000\r\n\r\n", 413),
        (
            HEAD
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 80,
            413,
        ),
        (HEAD + b"Content-Length: 500\r\n\r\nhello", 408),
    ],
)
def test_whoever_is_refused_loses_the_connection(at, stack, monkeypatch, sent, expected):
    monkeypatch.setattr(auth, "BODY_S", 0.3)
    monkeypatch.setattr(auth, "LINGER_S", 0.2)
    sock = connect(stack, at, sent)
    reply = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65_536):
            reply += part
    assert reply.startswith(b"HTTP/1.1 %d " % expected)
    assert b"\r\nconnection: close\r\n" in reply.lower()
    assert json.loads(reply.split(b"\r\n\r\n")[1])["detail"]


def test_a_client_that_still_sends_gets_its_refusal(at):
    """Not a reset connection."""
    for token, expected in ((TOKEN, 413), ("wrong", 401)):
        for _ in range(5):
            reply = httpx.post(
                f"{at}/synthesize",
                content=(b"x" * 10_000 for _ in range(300)),
                headers={"X-Internal-Token": token},
                trust_env=False,
            )
            assert reply.status_code == expected


# by which name


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", 200),
        ("LOCALHOST:8772", 200),
        ("127.0.0.1:8772", 200),
        ("127.1.2.3", 200),
        ("[::1]:8772", 200),
        ("titan.example:8772", 200),
        ("Titan.Example.", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8772", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.1.5:8772", 421),
        ("[fe80::1]", 421),
        ("\u00e9vil", 421),
    ],
)
@pytest.mark.parametrize("path", ["/health", "/synthesize"])
def test_without_a_token_the_host_must_be_known(voices, voice, host, expected, path):
    app = voice_app(voices, voice, allowed_hosts=["Titan.example"])
    with serving(app) as at:
        wait_for(at, "ready")
        headers = {"Host": host.encode()}
        ask = httpx.Client(trust_env=False, base_url=at, headers=headers, timeout=5)
        with ask:
            reply = ask.get(path) if path == "/health" else ask.post(path, json={"text": TEXT})
    assert reply.status_code == expected
    if expected == 421:
        assert "is not served here" in reply.json()["detail"]


def test_with_a_token_any_name_will_do(at):
    reply = httpx.get(f"{at}/health", headers={"Host": "evil.example"}, trust_env=False)
    assert reply.status_code == 200


# the log


def test_one_place_writes_few_warnings_a_minute(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    logger = logging.getLogger("flood")
    logger.addFilter(LogLimit())

    def flood(numbers):
        for number in numbers:
            logger.warning("invalid request %d", number)
            logger.info("spoken %d", number)
            now[0] += 0.1

    with caplog.at_level(logging.INFO, "flood"):
        flood(range(500))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == PER_MINUTE
    assert sum(record.levelname == "INFO" for record in caplog.records) == 500
    now[0] += 60
    caplog.clear()
    flood((500, 501))
    assert [record.getMessage() for record in caplog.records] == [
        "invalid request 500 (490 more like this were left out before it)",
        "invalid request 501",
    ]
