"""The program of the maintenance window on the LLM's host.

It lies there beside `lease.py`, `keeper.py`, `clock.py` and `llm.py`::

    python3 ~/.local/share/understudy/window/window.py status
    python3 ~/.local/share/understudy/window/window.py restore
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

try:
    from . import keeper as keepers
    from .lease import Window, WindowError, story
except ImportError:  # as a program
    import keeper as keepers  # type: ignore[import-not-found,no-redef]
    from lease import Window, WindowError, story  # type: ignore[import-not-found,no-redef]


def enter(window: Window, mark: str, command: list[str]) -> None:
    """Become a command that belongs to a window: it ends with it.

    Args:
        window: where the lease is.
        mark: ``UNDERSTUDY_WINDOW=<lease>``, or the pause command's.
        command: what to run.

    Raises:
        WindowError: the lease has ended, so the command must not start.
    """
    name, _, lease_id = mark.partition("=")
    window.require(lease_id)
    os.environ[name] = lease_id
    os.execvp(os.path.expanduser(command[0]), [os.path.expanduser(word) for word in command])


def restore(window: Window, lease: dict[str, Any]) -> None:
    """End a window, and bring the LLM back: the keeper does it, or this process where it cannot.

    Raises:
        WindowError: the LLM is not back in time; the message says what was seen.
    """
    by, service = f"{getpass.getuser()} on this host", lease["service"]
    window.release(by, lease["id"])
    began, shown = time.monotonic(), None
    bound = float(service["ready_timeout_s"]) + float(service.get("stay_s", 10)) + keepers.RESTORE_S
    while (there := window.lease()) and there["id"] == lease["id"]:
        waited = time.monotonic() - began
        if waited >= bound:
            command = " ".join(service["resume_command"])
            raise WindowError(
                f"the LLM is not back after {waited:.0f} s. {story(window.keeper())} "
                f"Next: {command}; the window ends when the LLM answers"
            )
        hangs = keepers.hangs(window, lease, waited)
        if hangs or not window.kept(lease):
            try:  # this process is the keeper
                keepers.keep(window, bound - waited, instead=hangs)
            except BlockingIOError:
                time.sleep(keepers.LOOK_S)  # another one has just begun
        else:
            said = keepers.start_instead(window, lease, service, by, waited)
            if said and said != shown:
                print(said, flush=True)
                shown = said
            time.sleep(keepers.LOOK_S)
    print(story(window.last()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program on the LLM's host."""
    parser = argparse.ArgumentParser(prog="window.py", description="The LLM's window on this host")
    parser.add_argument("what", choices=["status", "restore", "keep", "enter"])
    parser.add_argument("--instead", action="store_true", help="keep: of a keeper that hangs")
    parser.add_argument("--home", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--lease", help="the window a command belongs to, for enter")
    given, command = list(sys.argv[1:] if arguments is None else arguments), []
    if "--" in given:
        given, command = given[: given.index("--")], given[given.index("--") + 1 :]
    asked = parser.parse_args(given)
    window = Window(asked.home)
    try:
        if asked.what == "keep":
            return keepers.keep(window, instead=asked.instead)
        if asked.what == "enter":
            if not asked.lease or not command:
                parser.error("enter needs --lease MARK=ID and a command after --")
            enter(window, asked.lease, command)
        there = window.lease()
        if asked.what == "restore" and there:
            print(window.held_by(there), "Bringing the LLM back…", sep="\n", flush=True)
            restore(window, there)
        lease = window.lease()
        print(window.held_by(lease) if lease else "no window is open")
        print(json.dumps(window.look(), indent=2))
    except WindowError as error:
        print(f"window.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
