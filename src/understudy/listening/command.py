"""``understudy listen``: serve the page on which a run is scored blind."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from understudy.common.progress import Progress
from understudy.common.sockets import is_loopback
from understudy.listening import server, unblind
from understudy.listening.passes import ListeningTest
from understudy.listening.session import only_one
from understudy.verdict.run_directory import locate


def run(
    run_dir: Path,
    reference: Path,
    *,
    bind: str = "127.0.0.1",
    port: int = 0,
    second_pass: bool = False,
    impostor_dir: Path | None = None,
    owner: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Have a listener score a run.

    Args:
        run_dir: the run directory, or a link to it.
        reference: the WAV that the voice was cloned from.
        bind: address of the page.
        port: of the page; 0 takes a free one.
        second_pass: begin a second pass, or go on with it.
        impostor_dir: recordings of somebody else, see `listening.prepare`.
        owner: process with which the page ends.
        progress: gets the lines that standard error gets.

    Returns:
        ``run_id``, ``status`` (``finished`` or ``unfinished``), ``passes`` that are complete,
        ``given`` answers ``of`` so many in the open pass, and ``ratings``: the file, or None.

    Raises:
        RunDirectoryError: there is no such run.
        ListeningError: this run cannot be listened to; nothing was changed.
        ListenError: the address or port cannot be had.
        OSError: the run directory cannot be written.
    """
    progress = progress or Progress(None)

    def tell(text: str, phase: str = "listening") -> None:
        with contextlib.suppress(BrokenPipeError):  # the play that showed it was ended
            print(text, file=sys.stderr, flush=True)
        progress.write(host="localhost", phase=phase, text=text)

    run_dir = locate(run_dir)
    with only_one(run_dir, {"pid": os.getpid()}) as say:
        test = ListeningTest(run_dir, reference, impostor_dir=impostor_dir, second_pass=second_pass)
        one = test.current
        if one is not None:

            def ready(url: str) -> None:
                say({"url": url})
                begun = f" ({one.given} of {one.total} answers are in)" if one.given else ""
                where = "" if is_loopback(bind) else " on the other machine"
                tell(f"open{where}: {url}{begun}", "ready")

            server.run(test, bind=bind, port=port, owner=owner, tell=tell, ready=ready)
        if test.locked:
            unblind.write(test.run, test.locked)
        result = test.result()
        tell(_summary(result, test), "done")
        return result


def _summary(result: dict[str, Any], test: ListeningTest) -> str:
    if result["status"] == "unfinished":
        return (
            f"stopped with {result['given']} of {result['of']} answers, all of them saved; "
            "the same command goes on from there"
        )
    passes = "one pass is" if result["passes"] == 1 else f"{result['passes']} passes are"
    if not test.may_repeat:
        return f"{passes} complete: {result['ratings']}"
    begun = " has begun and" if test.passes != test.locked else ""
    return f"{passes} complete: {result['ratings']}; a second one{begun} would tell more"
