"""``understudy listen``: score a run blind, on a page or in a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from understudy.common.progress import Progress
from understudy.common.sockets import is_loopback
from understudy.listening import page, unblind
from understudy.listening import terminal as listening_terminal
from understudy.listening.passes import Sitting
from understudy.listening.session import only_one


def run(
    run_dir: Path,
    reference: Path,
    *,
    bind: str = "127.0.0.1",
    port: int = 0,
    second_pass: bool = False,
    impostor_dir: Path | None = None,
    terminal: bool = False,
    player: str | None = None,
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
        terminal: ask here instead of on a page.
        player: what plays a WAV there.
        owner: process with which the page ends.
        progress: told how far the listener is; so is standard error.

    Returns:
        ``run_id``, ``status`` (``finished`` or ``unfinished``), ``passes`` that are complete,
        ``given`` answers ``of`` so many in the open pass, and ``ratings``: the file, or None.

    Raises:
        ListeningError: this run cannot be listened to; nothing was changed.
        ListenError: the address or port cannot be had.
        OSError: the run directory cannot be written.
    """
    progress = progress or Progress(None)

    def tell(text: str, phase: str = "listening") -> None:
        with contextlib.suppress(BrokenPipeError):  # the play that showed it was ended
            print(text, file=sys.stderr, flush=True)
        progress.write(host="localhost", phase=phase, text=text)

    if not run_dir.is_dir():
        raise ValueError(f"{run_dir} is no directory. Next: ls {run_dir.parent}")
    run_dir = run_dir.resolve()
    with only_one(run_dir, {"pid": os.getpid()}) as say:
        play = listening_terminal.player(player) if terminal else None
        sitting = Sitting(run_dir, reference, impostor_dir=impostor_dir, second_pass=second_pass)
        one = sitting.current
        if one is not None and play:
            listening_terminal.run(sitting, play, input, lambda text: print(text, file=sys.stderr))
        elif one is not None:

            def ready(url: str) -> None:
                say({"url": url})
                begun = f" ({one.given} of {one.total} answers are in)" if one.given else ""
                where = "" if is_loopback(bind) else " on the other machine"
                tell(f"open{where}: {url}{begun}", "ready")

            page.run(sitting, bind=bind, port=port, owner=owner, tell=tell, ready=ready)
        if sitting.locked:
            unblind.write(sitting.run, sitting.locked)
        result = sitting.result()
        tell(_last_words(result, sitting), "done")
        return result


def _last_words(result: dict[str, Any], sitting: Sitting) -> str:
    if result["status"] == "unfinished":
        return (
            f"stopped with {result['given']} of {result['of']} answers, all of them saved; "
            "the same command goes on from there"
        )
    passes = "one pass is" if result["passes"] == 1 else f"{result['passes']} passes are"
    if not sitting.may_repeat:
        return f"{passes} complete: {result['ratings']}"
    begun = " has begun and" if sitting.passes != sitting.locked else ""
    return f"{passes} complete: {result['ratings']}; a second one{begun} would tell more"
