"""What the page's server lets in, gives out and takes, over real HTTP on loopback."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import run_factory
from listening_run import answer, make

from understudy.common.sockets import ListenError
from understudy.listening import auth, server
from understudy.listening import page as listening_page
from understudy.listening.passes import ListeningTest
from understudy.listening.session import Session


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with a pass that nobody has begun."""
    made = make(tmp_path_factory.mktemp("made"))
    ListeningTest(*made)
    return made


class Served:
    """A page that is served in a thread, and a browser without a screen."""

    def __init__(self, test: ListeningTest, **options: Any) -> None:
        self.test, self.told = test, []
        ready, self.url = threading.Event(), ""

        def opened(url: str) -> None:
            self.url = url
            ready.set()

        self._thread = threading.Thread(
            target=server.run,
            args=(test,),
            kwargs={
                "bind": "127.0.0.1",
                "port": 0,
                "owner": None,
                "tell": self.told.append,
                "ready": opened,
            }
            | options,
            daemon=True,
        )
        self._thread.start()
        assert ready.wait(60)
        self.origin = self.url.rsplit("/", 2)[0]
        self.client = httpx.Client(base_url=self.url, trust_env=False)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, said: Any, window: str = "one", **headers: str) -> httpx.Response:
        headers = {"Origin": self.origin} | headers
        return self.client.post(path, json={"window": window} | said, headers=headers)

    @property
    def open(self) -> bool:
        return self._thread.is_alive()

    def wait_end(self, seconds: float = 60.0) -> bool:
        self._thread.join(seconds)
        return not self.open

    def close(self) -> None:
        if self.open:
            self.post("lock", {"take": True}, window="closing")
            self.post("end", {}, window="closing")
        assert self.wait_end()
        self.client.close()


@pytest.fixture
def made(template: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    run_dir = tmp_path / template[0].name
    shutil.copytree(template[0], run_dir)
    return run_dir, template[1]


@pytest.fixture
def page(made: tuple[Path, Path]) -> Iterator[Served]:
    served = Served(ListeningTest(*made))
    yield served
    served.close()


def session(page: Served) -> Session:
    return page.test.passes[0]


def hear(page: Served, trial: str, *sides: str) -> None:
    for side in sides:
        assert page.post("heard", {"trial": trial, "side": side}).status_code == 200


# --- who is let in ---------------------------------------------------------------------------


def test_the_secret_is_needed_for_everything(page: Served) -> None:
    for path in ("/", "/state", "/wrong/", "/wrong/state", f"/{page.url.split('/')[3]}x/state"):
        reply = httpx.get(page.origin + path, trust_env=False)
        assert reply.status_code == 404
        assert "secret part" in reply.json()["detail"]
    reply = httpx.post(f"{page.origin}/wrong/finish", json={"window": "one"}, trust_env=False)
    assert reply.status_code == 404


def test_another_name_for_this_machine_is_not_served(page: Served) -> None:
    """As when somebody's site lets its own name point to 127.0.0.1."""
    port = page.origin.rsplit(":", 1)[1]
    for host in (f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""):
        assert page.get("state", headers={"Host": host}).status_code == 421
    assert page.get("state", headers={"Host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_no_other_site_can_post(page: Served, headers: dict[str, str], status: int) -> None:
    reply = page.post("heard", {"trial": "t01", "side": "r"}, **headers)
    assert reply.status_code == status
    assert session(page).answers["t01"]["heard"] == []


def test_a_large_body_is_not_read(page: Served) -> None:
    reply = page.post("heard", {"trial": "t" * 5000, "side": "r"})
    assert reply.status_code == 413


def raw(page: Served, request: str, body: bytes = b"", wait_s: float = 20.0) -> bytes:
    """Send bytes as they are, and return all that comes back."""
    host = page.origin.removeprefix("http://")
    filled = request.format(host=host, origin=page.origin, secret=page.url.split("/")[3])
    with socket.create_connection(host.split(":"), timeout=wait_s) as sock:
        sock.sendall(filled.encode("latin-1") + body)
        return b"".join(iter(lambda: sock.recv(65536), b""))


POST = "POST /{secret}/heard HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n"
POST += "Content-Type: application/json\r\n"
HEARD = b'{"window": "w", "trial": "t01", "side": "r"}'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HEARD), HEARD)
LARGE = b"%x\r\n%s\r\n0\r\n\r\n" % (1 << 16, b" " * (1 << 16))


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (f"Content-Length: {len(HEARD)}\r\nTransfer-Encoding: chunked\r\n", CHUNKED, 411),
        ("Transfer-Encoding: chunked\r\nContent-Length: 10\r\n", LARGE, 411),
        ("Transfer-Encoding: chunked\r\n", CHUNKED, 411),
        ("Transfer-Encoding: gzip, chunked\r\n", CHUNKED, 400),
        ("Transfer-Encoding: identity\r\n", HEARD, 400),
        (f"Content-Length: {len(HEARD)}\r\nContent-Length: 5\r\n", HEARD, 400),
        ("Content-Length: +44\r\n", HEARD, 400),
        ("Content-Length: -1\r\n", HEARD, 400),
        ("Content-Length: 0x2c\r\n", HEARD, 400),
        ("Content-Length: \xb2\r\n", HEARD, 400),
        ("Content-Length: 4097\r\n", b" " * 4097, 413),
        ("Content-Length: 99999999999999999999\r\n", HEARD, 413),
        ("", HEARD, 413),
        ("Content-Length: 0\r\n", b"", 422),
        ("Expect: 100-continue\r\nContent-Length: 5000\r\n", b"", 413),
        (f"Origin: http://evil.example\r\nContent-Length: {len(HEARD)}\r\n", HEARD, 403),
        (f"Content-Type: text/plain\r\nContent-Length: {len(HEARD)}\r\n", HEARD, 415),
        (f"Host: {{host}}\r\nContent-Length: {len(HEARD)}\r\n", HEARD, 400),
    ],
)
def test_a_body_of_doubtful_length(page: Served, headers: str, body: bytes, status: int) -> None:
    replies = raw(page, POST + headers + "\r\n", body)
    assert replies.startswith(b"HTTP/1.1 %d " % status), replies[:200]
    assert replies.count(b"HTTP/1.1 ") == 1
    assert session(page).answers["t01"]["heard"] == []


def test_an_answer_whose_length_is_plain_is_taken(page: Served) -> None:
    headers = f"Connection: close\r\nExpect: 100-continue\r\nContent-Length: {len(HEARD)}\r\n\r\n"
    assert b"HTTP/1.1 200 OK" in raw(page, POST + headers, HEARD)
    assert session(page).answers["t01"]["heard"] == ["r"]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("HEAD /{secret}/state", 405),
        ("OPTIONS /{secret}/state", 405),
        ("TRACE /{secret}/state", 405),
        ("X" * 5000 + " /{secret}/state", 405),
        ("GET /{secret}/state?" + "a=1&" * 2000, 200),
        ("GET /{secret}/%2e%2e/state", 404),
        ("GET //{secret}/state", 404),
        ("GET http://{host}/{secret}/state", 404),
        ("GET /%ff%fe/state", 404),
        ("GET /{secret}/stimuli/%00.wav", 404),
        ("GET /{secret}/state\r\nContent-Length: 3", 400),
        ("GET *", 404),
    ],
)
def test_requests_of_all_sorts(page: Served, request_line: str, status: int) -> None:
    lines = f"{request_line} HTTP/1.1\r\nHost: {{host}}\r\nConnection: close\r\n\r\n"
    assert raw(page, lines).startswith(b"HTTP/1.1 %d " % status)


def test_a_question_with_a_body(page: Served) -> None:
    lines = "GET /{secret}/state HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\n\r\n"
    assert raw(page, lines, b"abc").startswith(b"HTTP/1.1 413 ")


def test_a_part_of_a_recording_is_not_given_out(page: Served) -> None:
    name = page.get("state").json()["reference"]
    whole = page.get(f"stimuli/{name}.wav").content
    for wanted in ("bytes=0-3", "bytes=-1", "bytes=5-2", "bytes=0-1,2-3", "bytes=a"):
        reply = page.get(f"stimuli/{name}.wav", headers={"Range": wanted})
        assert (reply.status_code, reply.content) == (200, whole)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 4000,
        b'{"window": NaN}',
        b'{"window": "\\ud800", "trial": "t01", "side": "r"}',
        b'{"\\ud800": 1}',
        b'{"window": "w", "window": "v", "trial": "t01", "side": "r"}',
        b'{"window": ' + b"1" * 4000 + b"}",
        b"\xff",
        b"",
        b"[]",
        b'"w"',
        b'{"window": ' + b"[" * 45 + b"]" * 45 + b"}",
    ],
)
def test_a_body_that_is_no_answer(page: Served, body: bytes) -> None:
    reply = page.client.post(
        "heard", content=body, headers={"Origin": page.origin, "Content-Type": "application/json"}
    )
    assert reply.status_code == 422
    assert reply.json()["detail"]


@pytest.mark.parametrize(
    "request_",
    [
        "POST /wrong/heard HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /wrong HTTP/1.1\r\nHost: {host}\r\n\r\nnonsense\r\n\r\n",
        "GET /wrong HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "nonsense\r\n\r\n",
    ],
)
def test_a_stranger_writes_nothing_to_the_terminal(
    page: Served, request_: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert raw(page, request_).startswith(b"HTTP/1.1 4")
    assert page.get("state").status_code == 200
    assert capfd.readouterr().err == ""


def test_idle_strangers_keep_nobody_out(page: Served) -> None:
    """More connections than a process may have files open, half of them in mid-sentence."""
    host, port = page.origin.removeprefix("http://").split(":")
    strangers = []
    try:
        for n in range(400):
            sock = socket.create_connection((host, int(port)), timeout=10)
            if n % 2:
                sock.sendall(b"GET /state HTTP/1.1\r\nHost: ")
            strangers.append(sock)
        began = time.monotonic()
        assert httpx.get(page.url + "state", trust_env=False).status_code == 200
        assert time.monotonic() - began < 3
    finally:
        for sock in strangers:
            sock.close()


def test_who_is_slow_has_to_go(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.3)
    monkeypatch.setattr(auth, "BODY_S", 0.3)
    body = raw(page, POST + "Content-Length: 44\r\n\r\n", b'{"window"')
    assert body.startswith(b"HTTP/1.1 408 ")
    for begun in ("", "GET /st", "GET /state HTTP/1.1\r\nHost: {host}\r\n"):
        began = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert raw(page, begun) == b""
        assert time.monotonic() - began < 3


# --- what is given out -----------------------------------------------------------------------

HOSTS = ["titan", "panda", "native", "baseline", "impostor", "same_host", *run_factory.IDS]


def test_the_page_and_its_state_tell_nothing(page: Served) -> None:
    for path, telling in (("", HOSTS), ("state", [*HOSTS, "seed", "key", "kind"])):
        reply = page.get(path)
        assert reply.status_code == 200
        assert reply.headers["cache-control"] == "no-store"
        for word in telling:
            assert word not in reply.text, word
    state = page.get("state").json()
    assert [set(trial) for trial in state["trials"]] == [
        {"id", "a", "b", "heard", "scores"}
    ] * 13 + [{"id", "a", "b", "heard", "noticed"}] * 10
    assert [list(trial) for trial in state["trials"][:13]] == [list(state["trials"][0])] * 13


def test_the_page_asks_for_nothing_outside(page: Served) -> None:
    reply = page.get("")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "http://" not in reply.text
    assert "https://" not in reply.text


def test_only_recordings_of_the_plan_are_served(page: Served) -> None:
    for name in (
        "key.json",
        "../key.json",
        "..%2fkey.json",
        "%2e%2e/key.json",
        "key",
        "session",
        "stimuli/../../key.json",
        "stimuli/key.wav",
        "stimuli/..%2fplan.wav",
        "plan.json",
        "session.json",
        "stimuli/",
        "listening/pass-1/key.json",
    ):
        reply = page.get(name)
        assert reply.status_code == 404, name
        assert "seed" not in reply.text


def test_the_replies_of_a_pair_differ_in_their_sound_only(page: Served) -> None:
    for trial in page.get("state").json()["trials"]:
        a, b = (page.get(f"stimuli/{trial[side]}.wav") for side in ("a", "b"))
        headers = [{k: v for k, v in reply.headers.items() if k != "date"} for reply in (a, b)]
        assert headers[0] == headers[1]
        assert set(headers[0]) == {
            "content-length",
            "content-type",
            "cache-control",
            "x-content-type-options",
            "referrer-policy",
            "cross-origin-resource-policy",
        }
        assert a.content[:44] == b.content[:44]


def test_the_result_is_sealed_until_the_end(page: Served) -> None:
    reply = page.get("result")
    assert reply.status_code == 409
    assert "sealed" in reply.json()["detail"]


# --- what is taken ---------------------------------------------------------------------------


def test_answers_are_saved_as_they_are_given(page: Served) -> None:
    hear(page, "t01", "r", "a", "b")
    reply = page.post("score", {"trial": "t01", "side": "a", "score": 4})
    assert (reply.status_code, reply.json()) == (200, {"given": 1})
    assert Session(session(page).directory).answers["t01"]["a"] == 4
    hear(page, "c01", "a", "b")
    assert page.post("notice", {"trial": "c01", "noticed": False}).json() == {"given": 2}
    assert Session(session(page).directory).answers["c01"]["noticed"] is False
    assert page.told == ["2 of 36 answers"]  # when a pair is complete


@pytest.mark.parametrize("score", [0, 6, "4.5", "4", 4.5, True, None])
def test_a_bad_score_is_a_sentence_and_changes_nothing(page: Served, score: Any) -> None:
    hear(page, "t01", "r", "a")
    before = session(page).path.read_bytes()
    reply = page.post("score", {"trial": "t01", "side": "a", "score": score})
    assert reply.status_code == 422
    expected = f"score: saw {json.dumps(score)}, expected a whole number from 1 to 5"
    assert reply.json()["detail"] == expected
    assert session(page).path.read_bytes() == before


def test_a_score_is_not_taken_twice(page: Served) -> None:
    hear(page, "t01", "r", "a")
    said = {"trial": "t01", "side": "a", "score": 4}
    assert page.post("score", said).status_code == 200
    before = session(page).path.read_bytes()
    for again in (said, said | {"score": 2}):
        reply = page.post("score", again)
        assert reply.status_code == 409
        assert "already" in reply.json()["detail"]
    assert session(page).path.read_bytes() == before
    assert page.post("score", said | {"score": 2, "replaces": 4}).status_code == 200
    assert session(page).answers["t01"]["a"] == 2


@pytest.mark.parametrize(
    ("path", "said", "status", "seen"),
    [
        ("score", {"trial": "t01", "side": "a", "score": 4}, 409, "must be heard to its end"),
        ("score", {"trial": "t99", "side": "a", "score": 4}, 404, "no pair 't99'"),
        ("score", {"trial": "t01", "side": "a"}, 422, "score"),
        ("score", {"trial": 1, "side": "a", "score": 4}, 422, "trial: saw 1"),
        ("score", {"trial": "t01", "side": "a", "score": 4, "x": 1}, 422, "x: saw 1"),
        ("notice", {"trial": "c01", "noticed": "yes"}, 422, 'noticed: saw "yes"'),
        ("notice", {"trial": "t01", "noticed": True}, 404, "t01 is no call"),
        ("heard", {"trial": "t01", "side": "w"}, 404, "no recording 'w'"),
        ("finish", {"identity_matches": True}, 409, "36 of 36 answers are missing"),
        ("finish", {"identity_matches": 1}, 422, "identity_matches: saw 1"),
        ("second-pass", {}, 409, "locked first"),
    ],
)
def test_what_is_refused(page: Served, path: str, said: Any, status: int, seen: str) -> None:
    before = session(page).path.read_bytes()
    reply = page.post(path, said)
    assert (reply.status_code, seen in reply.json()["detail"]) == (status, True), reply.text
    assert session(page).path.read_bytes() == before


def test_what_is_no_json(page: Served) -> None:
    headers = {"Origin": page.origin, "Content-Type": "application/json"}
    for body in (b"{", b"[]", b"", b"\xff"):
        reply = page.client.post("score", content=body, headers=headers)
        assert reply.status_code in (400, 422)
        assert reply.json()["detail"]


def test_a_disk_that_is_full_is_said(page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("understudy.listening.session._write", full)
    reply = page.post("heard", {"trial": "t01", "side": "r"})
    assert reply.status_code == 507
    assert "No space left" in reply.json()["detail"]
    assert session(page).answers["t01"]["heard"] == []


# --- two windows -----------------------------------------------------------------------------


def test_one_window_at_a_time(page: Served) -> None:
    assert page.post("lock", {}, window="one").json() == {"yours": True}
    assert page.post("lock", {}, window="two").json() == {"yours": False}
    reply = page.post("heard", {"trial": "t01", "side": "r"}, window="two")
    assert reply.status_code == 409
    assert "another window" in reply.json()["detail"]
    assert session(page).answers["t01"]["heard"] == []
    assert page.post("lock", {"take": True}, window="two").json() == {"yours": True}
    assert page.post("lock", {}, window="one").json() == {"yours": False}
    assert page.post("heard", {"trial": "t01", "side": "r"}, window="one").status_code == 409
    assert page.post("leave", {}, window="two").status_code == 200
    assert page.post("lock", {}, window="one").json() == {"yours": True}


def test_a_window_that_vanished_loses_the_lock(
    page: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_page, "LOCK_S", 0.2)
    assert page.post("lock", {}, window="one").json() == {"yours": True}
    time.sleep(0.3)
    assert page.post("lock", {}, window="two").json() == {"yours": True}


# --- the end ---------------------------------------------------------------------------------


def test_a_pass_ends_in_ratings_and_may_be_followed_by_another(page: Served) -> None:
    answer(session(page), {})
    assert page.post("finish", {"identity_matches": True}).status_code == 200
    assert page.get("state").json() == {
        "phase": "done",
        "locked": 1,
        "may_repeat": True,
        "problem": None,
    }
    assert page.get("result").json() == {
        "means": {"titan": 4.0, "panda": 4.0},
        "identity_matches": True,
    }
    ratings = page.test.run.run_dir / "ratings.json"
    assert len(json.loads(ratings.read_text())["scores"]) == 10
    assert page.post("score", {"trial": "t01", "side": "a", "score": 1}).status_code == 409
    assert page.post("second-pass", {}).status_code == 200
    state = page.get("state").json()
    assert (state["phase"], state["pass"], state["given"]) == ("answer", 2, 0)
    assert page.get("result").status_code == 409  # not while the second is open
    answer(page.test.passes[1], {})
    assert page.post("finish", {"identity_matches": True}).status_code == 200
    assert len(json.loads(ratings.read_text())["scores"]) == 20
    reply = page.post("second-pass", {})
    assert (reply.status_code, reply.json()["detail"]) == (
        409,
        "two passes are in; there is no third",
    )


def test_ratings_in_the_way_are_shown_and_kept(page: Served) -> None:
    ratings = page.test.run.run_dir / "ratings.json"
    run_factory.put(ratings.parent, "ratings.json", run_factory.ratings())
    before = ratings.read_bytes()
    answer(session(page), {})
    reply = page.post("finish", {"identity_matches": True})
    assert reply.status_code == 409
    assert "It is not overwritten" in reply.json()["detail"]
    assert "It is not overwritten" in page.get("state").json()["problem"]
    assert ratings.read_bytes() == before
    assert session(page).locked


def test_stopping_for_today_ends_the_server(made: tuple[Path, Path]) -> None:
    served = Served(ListeningTest(*made))
    assert served.post("end", {}).status_code == 200
    assert served.wait_end()


def test_the_server_ends_when_the_last_window_of_a_finished_listener_was_closed(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening_page, "RELOAD_S", 0.3)
    served = Served(ListeningTest(*made))
    served.post("lock", {})
    served.post("leave", {})
    time.sleep(1.2)
    assert served.open  # not finished: a window may come back tomorrow
    answer(session(served), {})
    assert served.post("finish", {"identity_matches": True}).status_code == 200
    time.sleep(1.2)
    assert served.open  # it is being looked at
    served.post("leave", {})
    assert served.wait_end()


def test_the_server_ends_with_its_owner(made: tuple[Path, Path]) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    served = Served(ListeningTest(*made), owner=owner.pid)
    time.sleep(1.0)
    assert served.open
    owner.kill()
    owner.wait()
    assert served.wait_end()


# --- the address -----------------------------------------------------------------------------


def opened(made: tuple[Path, Path], bind: str, port: int) -> None:
    server.run(
        ListeningTest(*made), bind=bind, port=port, owner=None, tell=print, ready=lambda url: None
    )


def test_a_port_that_is_taken(made: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"port {port} on 127.0.0.1 is already taken; .*ss "):
            opened(made, "127.0.0.1", port)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", ""])
def test_an_address_that_nobody_could_open(made: tuple[Path, Path], bind: str) -> None:
    with pytest.raises(ListenError, match="ip -brief address"):
        opened(made, bind, 0)


def test_an_address_that_is_not_ours(made: tuple[Path, Path]) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1"):
        opened(made, "192.0.2.1", 0)


@pytest.mark.parametrize("port", [-1, 65_536, 99_999_999, 10**30])
def test_a_number_that_is_no_port(made: tuple[Path, Path], port: int) -> None:
    with pytest.raises(ListenError, match=f"{port} is no port; expected one from 0 to 65535"):
        server.run(
            ListeningTest(*made), bind="127.0.0.1", port=port, owner=None, tell=print, ready=print
        )
