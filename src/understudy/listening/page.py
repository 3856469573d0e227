"""The page on which a listener scores a run, and the small server that serves it.

Everything is under a secret path. The server answers to the names it was given only, and
takes answers from its own page only, so that no other site can read or post anything.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from types import FrameType
from typing import Any

import jinja2
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict

from understudy.common.process import start_of
from understudy.common.sockets import ListenError, is_loopback, listen
from understudy.listening import unblind
from understudy.listening.passes import Sitting
from understudy.listening.session import SIDES, ListeningError, RefusedError, Session

MAX_BODY_BYTES = 4096

SEAT_S = 10.0
"""A window that was not heard of for so long has lost its seat."""

LEFT_S = 90.0
"""After so long without a sign of a window, a finished listener is not coming back; browsers
let a window in the background say something once a minute."""

RELOAD_S = 5.0
"""And after so long, if the window was closed and not only reloaded."""

TICK_S = 0.5

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Door:
    """Lets in who has the secret and comes from the page itself (ASGI).

    Args:
        app: what is behind it.
        token: the first part of every path.
        hosts: what may stand in ``Host``; another name that leads here is somebody's trick.
    """

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], token: str, hosts: set[str]
    ) -> None:
        self._app, self._token, self._hosts = app, token.encode(), hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        if refused:
            status, sentence = refused
            await JSONResponse({"detail": sentence}, status)(scope, receive, send)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"host", "") not in self._hosts:
            return 421, f"the host {headers.get(b'host', '')!r} is not served here"
        first = scope["path"].removeprefix("/").partition("/")[0]
        if not hmac.compare_digest(first.encode(), self._token):
            return 404, "there is nothing here: the address has a secret part, given in full"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if headers.get(b"origin") not in {f"http://{host}" for host in self._hosts}:
            return 403, f"answers are taken from this page, not from {headers.get(b'origin')!r}"
        if headers.get(b"content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "an answer is application/json"
        length = headers.get(b"content-length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, f"an answer has at most {MAX_BODY_BYTES} bytes, and says how many"
        return None


def _with_headers(send: Send) -> Send:
    extra = [
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]

    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *extra]
        await send(message)

    return wrapped


class Seat:
    """One window at a time may answer."""

    def __init__(self) -> None:
        self._holder = ""
        self._seen = 0.0

    @property
    def idle_s(self) -> float:
        """How long ago the window was heard of."""
        return time.monotonic() - self._seen

    @property
    def left(self) -> bool:
        """Whether nobody is coming back."""
        return self.idle_s > (LEFT_S if self._holder else RELOAD_S)

    def claim(self, window: str, take: bool) -> bool:
        """Return whether a window has the seat; it gets it if that is free or it takes it."""
        if take or not self._holder or self.idle_s > SEAT_S:
            self._holder = window
        if window == self._holder:
            self._seen = time.monotonic()
        return window == self._holder

    def leave(self, window: str) -> None:
        """Free the seat."""
        if window == self._holder:
            self._holder, self._seen = "", time.monotonic()


class Message(BaseModel):
    """What every request of the page says."""

    model_config = ConfigDict(extra="forbid")
    window: str


class Claim(Message):
    """A window that wants to answer."""

    take: bool = False


class Heard(Message):
    """A recording was played to its end."""

    trial: str
    side: str


class Score(Heard):
    """A score; its values are judged by the session."""

    score: Any
    replaces: Any = None


class Notice(Message):
    """The answer about a call."""

    trial: str
    noticed: Any
    replaces: Any = None


class Finish(Message):
    """The last answer, which locks all of them."""

    identity_matches: Any


class Page:
    """What the page can ask for.

    Args:
        sitting: the run and its passes.
        tell: told in one line how far the listener is.
        end: called when the listener is done or stops for today.
    """

    def __init__(
        self, sitting: Sitting, tell: Callable[[str], None], end: Callable[[], None]
    ) -> None:
        self._sitting, self._tell, self._end = sitting, tell, end
        self.seat = Seat()
        self._html = _html(sitting)

    def app(self) -> FastAPI:
        """Return the application; its paths begin with the token, which `Door` has checked."""
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.add_api_route("/{token}/", self.index, methods=["GET"])
        app.add_api_route("/{token}/state", self.state, methods=["GET"])
        app.add_api_route("/{token}/result", self.result, methods=["GET"])
        app.add_api_route("/{token}/stimuli/{name}.wav", self.stimulus, methods=["GET"])
        for path, answer in (
            ("seat", self.sit), ("leave", self.leave), ("heard", self.heard),
            ("score", self.score), ("notice", self.notice), ("finish", self.finish),
            ("second-pass", self.second_pass), ("end", self.end),
        ):  # fmt: skip
            app.add_api_route(f"/{{token}}/{path}", answer, methods=["POST"])
        app.add_exception_handler(RefusedError, _refused)
        app.add_exception_handler(ListeningError, _refused)
        app.add_exception_handler(OSError, _not_saved)
        app.add_exception_handler(RequestValidationError, _invalid)
        return app

    # What is shown

    async def index(self) -> Response:
        """Return the page."""
        nonce = secrets.token_urlsafe(12)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(
            self._html.replace("NONCE", nonce), headers={"Content-Security-Policy": policy}
        )

    async def state(self) -> dict[str, Any]:
        """Return what there is to hear, and what was answered."""
        sitting = self._sitting
        one = sitting.current
        common = {"locked": len(sitting.locked), "may_repeat": sitting.may_repeat}
        if one is None:
            return {"phase": "done", **common, "problem": sitting.problem()}
        plan = one.plan
        return {
            "phase": "answer",
            **common,
            "pass": one.number,
            "given": one.given,
            "total": one.total,
            "reference": plan["reference"],
            "whole_reference": plan["whole_reference"],
            "trials": [
                trial | _answered(one.answers[trial["id"]])
                for trial in plan["pairs"] + plan["calls"]
            ],
        }

    async def stimulus(self, name: str) -> Response:
        """Return a recording of the open pass."""
        one = self._sitting.current
        if one is None or name not in one.plan["stimuli"]:
            raise HTTPException(404, f"there is no recording {name!r}")
        return Response(one.stimulus(name).read_bytes(), media_type="audio/wav")

    async def result(self) -> dict[str, Any]:
        """Return the means, which are known once a pass is locked."""
        sitting = self._sitting
        if sitting.current is not None or not sitting.locked:
            raise RefusedError("the key is sealed until every answer is locked")
        document = unblind.ratings(sitting.run, sitting.locked)
        return {
            "means": unblind.means(document, sitting.run.hosts),
            "identity_matches": document["identity_matches"],
        }

    # What is answered

    async def sit(self, said: Claim) -> dict[str, Any]:
        """Say whether a window may answer."""
        return {"yours": self.seat.claim(said.window, said.take)}

    async def leave(self, said: Message) -> dict[str, Any]:
        """A window was closed."""
        self.seat.leave(said.window)
        return {}

    async def heard(self, said: Heard) -> dict[str, Any]:
        """A recording was heard to its end."""
        self._open(said.window).heard(said.trial, said.side)
        return {}

    async def score(self, said: Score) -> dict[str, Any]:
        """Take a score for A or B."""
        one = self._open(said.window)
        one.score(said.trial, said.side, said.score, said.replaces)
        return self._count(one, said.trial)

    async def notice(self, said: Notice) -> dict[str, Any]:
        """Take the answer about a call."""
        one = self._open(said.window)
        one.notice(said.trial, said.noticed, said.replaces)
        return self._count(one, said.trial)

    async def finish(self, said: Finish) -> dict[str, Any]:
        """Lock the answers and write ``ratings.json``."""
        number = self._open(said.window).number
        self._sitting.finish(said.identity_matches, "page")
        self._tell(f"pass {number} is complete: ratings.json is written")
        return {}

    async def second_pass(self, said: Message) -> dict[str, Any]:
        """Begin another pass."""
        self._seated(said.window)
        if self._sitting.current is not None:
            raise RefusedError("the open pass must be locked first")
        if not self._sitting.may_repeat:
            raise RefusedError("two passes are in; there is no third")
        await run_in_threadpool(self._sitting.begin)
        self._tell("a second pass was begun")
        return {}

    async def end(self, said: Message) -> dict[str, Any]:
        """Stop: for good, or to go on another time."""
        self._seated(said.window)
        self._end()
        return {}

    def _seated(self, window: str) -> None:
        if not self.seat.claim(window, take=False):
            raise RefusedError("another window has taken over; reload this one to take it back")

    def _open(self, window: str) -> Session:
        self._seated(window)
        one = self._sitting.current
        if one is None:
            raise RefusedError("the ratings are locked and cannot be changed any more")
        return one

    def _count(self, one: Session, trial: str) -> dict[str, Any]:
        """Tell of a pair that is complete, and return how many answers there are."""
        if None not in one.answers[trial].values():
            again = f"pass {one.number}, " if one.number > 1 else ""
            self._tell(f"{again}{one.given} of {one.total} answers")
        return {"given": one.given}


def _answered(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer for the page, in which A and B are the names of recordings."""
    if "noticed" in answer:
        return answer
    return {"heard": answer["heard"], "scores": {side: answer[side] for side in SIDES}}


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, getattr(error, "status", 409))


async def _not_saved(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": f"this could not be saved: {error}"}, 507)


async def _invalid(_: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part) for part in first.get("loc", ())[1:]) or "the body"
    seen = json.dumps(first.get("input"), default=str)[:80]
    return JSONResponse({"detail": f"{where}: saw {seen}: {first.get('msg')}"}, 422)


def _html(sitting: Sitting) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("understudy.listening"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("listen.html.j2").render(run_id=sitting.run.run_id)


# The server


class _Server(uvicorn.Server):
    """uvicorn, which says when it is ready, and ends with the play that started it.

    Args:
        config: uvicorn's.
        page: whose windows are watched.
        finished: returns whether there is nothing more to answer.
        owner: a process; the server ends when that has ended. None for nobody's.
        ready: called once connections are answered.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        page: Page,
        finished: Callable[[], bool],
        owner: int | None,
        ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._page, self._finished, self._owner, self._ready = page, finished, owner, ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End; a second interrupt ends at once. uvicorn's own would raise the signal again."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        self._ready()

    async def serve(self, sockets: list[Any] | None = None) -> None:
        """Serve, with an eye on the owner and the windows."""
        watch = asyncio.create_task(self._watch())
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            orphaned = self._owner is not None and not start_of(self._owner)
            if orphaned or (self._finished() and self._page.seat.left):
                self.should_exit = True


def run(
    sitting: Sitting,
    *,
    bind: str,
    port: int,
    owner: int | None,
    tell: Callable[[str], None],
    ready: Callable[[str], None],
) -> None:
    """Serve the page until the listener is done, stops, or the owner ends.

    Args:
        sitting: the run and its passes.
        bind: the address; any but loopback is reached by other machines, too.
        port: 0 takes a free one.
        owner: process id; None for nobody's.
        tell: told in one line how far the listener is.
        ready: told the address when it can be opened.

    Raises:
        ListenError: the address or port cannot be had.
    """
    if bind in ("", "0.0.0.0", "::"):
        raise ListenError(
            f"{bind or 'nothing'} is no address that somebody could open; name the one that the "
            "other machine reaches this one by; see: ip -brief address"
        )
    with listen(bind, port) as sock:
        port = sock.getsockname()[1]
        token = secrets.token_urlsafe(24)
        bind = bind.lower()  # as a browser sends it
        names = {bind, "localhost", "127.0.0.1", "[::1]"} if is_loopback(bind) else {bind}
        hosts = {f"[{name}]" if ":" in name and name[0] != "[" else name for name in names}
        shown = f"[{bind}]" if ":" in bind else bind
        hosts = {f"{host}:{port}" for host in hosts} | (hosts if port == 80 else set())
        servers: list[_Server] = []

        def end() -> None:
            servers[0].should_exit = True

        page = Page(sitting, tell, end)
        config = uvicorn.Config(
            Door(page.app(), token, hosts),
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
        servers.append(
            _Server(
                config,
                page,
                lambda: sitting.current is None,
                owner,
                lambda: ready(f"http://{shown}:{port}/{token}/"),
            )
        )
        servers[0].run(sockets=[sock])
