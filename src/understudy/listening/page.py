"""The page on which a listener scores a run: its HTML, and the JSON that it reads and posts.

Everything is under a secret path, see `understudy.listening.auth`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict

from understudy.common.files import WAV_BYTES, read_within
from understudy.common.html import environment
from understudy.listening import unblind
from understudy.listening.passes import ListeningTest
from understudy.listening.session import SIDES, ListeningError, RefusedError, Session

#: A window loses the lock after so long without a request.
LOCK_S = 10.0

#: The listener is gone after so long without a request; browsers let a window in the background
#: send one a minute.
LEFT_S = 90.0

#: The same after the window was closed: a reload is faster.
RELOAD_S = 5.0


class PageLock:
    """One window at a time may answer."""

    def __init__(self) -> None:
        self._holder = ""
        self._seen = 0.0

    @property
    def idle_s(self) -> float:
        """Seconds since the last request of the window."""
        return time.monotonic() - self._seen

    @property
    def left(self) -> bool:
        """Whether the listener is gone."""
        return self.idle_s > (LEFT_S if self._holder else RELOAD_S)

    def claim(self, window: str, take: bool) -> bool:
        """Return whether a window has the lock; it gets it if that is free or it takes it."""
        if take or not self._holder or self.idle_s > LOCK_S:
            self._holder = window
        if window == self._holder:
            self._seen = time.monotonic()
        return window == self._holder

    def leave(self, window: str) -> None:
        """Free the lock."""
        if window == self._holder:
            self._holder, self._seen = "", time.monotonic()


class Message(BaseModel):
    """The fields of every request of the page."""

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
        test: the run and its passes.
        tell: called with one line about the progress.
        end: called when the listener is done or stops for today.
    """

    def __init__(
        self, test: ListeningTest, tell: Callable[[str], None], end: Callable[[], None]
    ) -> None:
        self._test, self._tell, self._end = test, tell, end
        self.lock = PageLock()
        self._html = _html(test)

    def app(self) -> FastAPI:
        """Return the application; its paths begin with the token that `auth` has checked."""
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.add_api_route("/{token}/", self.index, methods=["GET"])
        app.add_api_route("/{token}/state", self.state, methods=["GET"])
        app.add_api_route("/{token}/result", self.result, methods=["GET"])
        app.add_api_route("/{token}/stimuli/{name}.wav", self.stimulus, methods=["GET"])
        for path, answer in (
            ("lock", self.claim),
            ("leave", self.leave),
            ("heard", self.heard),
            ("score", self.score),
            ("notice", self.notice),
            ("finish", self.finish),
            ("second-pass", self.second_pass),
            ("end", self.end),
        ):
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
        test = self._test
        one = test.current
        common = {"locked": len(test.locked), "may_repeat": test.may_repeat}
        if one is None:
            return {"phase": "done", **common, "problem": test.problem()}
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
        one = self._test.current
        if one is None or name not in one.plan["stimuli"]:
            raise HTTPException(404, f"there is no recording {name!r}")
        try:
            content = read_within(one.directory, f"stimuli/{name}.wav", WAV_BYTES)
        except OSError as error:
            raise RefusedError(f"the recording {name} cannot be read: {error.strerror}") from error
        return Response(content, media_type="audio/wav")

    async def result(self) -> dict[str, Any]:
        """Return the means, which are known once a pass is locked."""
        test = self._test
        if test.current is not None or not test.locked:
            raise RefusedError("the key is sealed until every answer is locked")
        document = unblind.ratings(test.run, test.locked)
        return {
            "means": unblind.means(document, test.run.hosts),
            "identity_matches": document["identity_matches"],
        }

    # What is answered

    async def claim(self, body: Claim) -> dict[str, Any]:
        """Return whether a window may answer."""
        return {"yours": self.lock.claim(body.window, body.take)}

    async def leave(self, body: Message) -> dict[str, Any]:
        """A window was closed."""
        self.lock.leave(body.window)
        return {}

    async def heard(self, body: Heard) -> dict[str, Any]:
        """A recording was heard to its end."""
        self._open(body.window).heard(body.trial, body.side)
        return {}

    async def score(self, body: Score) -> dict[str, Any]:
        """Take a score for A or B."""
        one = self._open(body.window)
        one.score(body.trial, body.side, body.score, body.replaces)
        return self._count(one, body.trial)

    async def notice(self, body: Notice) -> dict[str, Any]:
        """Take the answer about a call."""
        one = self._open(body.window)
        one.notice(body.trial, body.noticed, body.replaces)
        return self._count(one, body.trial)

    async def finish(self, body: Finish) -> dict[str, Any]:
        """Lock the answers and write ``ratings.json``."""
        number = self._open(body.window).number
        self._test.finish(body.identity_matches)
        self._tell(f"pass {number} is complete: ratings.json is written")
        return {}

    async def second_pass(self, body: Message) -> dict[str, Any]:
        """Begin another pass."""
        self._require_lock(body.window)
        if self._test.current is not None:
            raise RefusedError("the open pass must be locked first")
        if not self._test.may_repeat:
            raise RefusedError("two passes are in; there is no third")
        await run_in_threadpool(self._test.begin)
        self._tell("a second pass was begun")
        return {}

    async def end(self, body: Message) -> dict[str, Any]:
        """Stop: for good, or to go on another time."""
        self._require_lock(body.window)
        self._end()
        return {}

    def _require_lock(self, window: str) -> None:
        if not self.lock.claim(window, take=False):
            raise RefusedError("another window has taken over; reload this one to take it back")

    def _open(self, window: str) -> Session:
        self._require_lock(window)
        one = self._test.current
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


def _html(test: ListeningTest) -> str:
    template = environment("understudy.listening").get_template("listen.html.j2")
    return template.render(run_id=test.run.run_id)
