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
from collections.abc import Sequence

try:
    from .keeper import keep
    from .lease import Window, WindowError, story
except ImportError:  # as a program
    from keeper import keep  # type: ignore[import-not-found,no-redef]
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program on the LLM's host."""
    parser = argparse.ArgumentParser(prog="window.py", description="The LLM's window on this host")
    parser.add_argument("what", choices=["status", "restore", "keep", "enter"])
    parser.add_argument("--home", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--lease", help="the window a command belongs to, for enter")
    given, command = list(sys.argv[1:] if arguments is None else arguments), []
    if "--" in given:
        given, command = given[: given.index("--")], given[given.index("--") + 1 :]
    asked = parser.parse_args(given)
    window = Window(asked.home)
    try:
        if asked.what == "keep":
            return keep(window)
        if asked.what == "enter":
            if not asked.lease or not command:
                parser.error("enter needs --lease MARK=ID and a command after --")
            enter(window, asked.lease, command)
        there = window.lease()
        if asked.what == "restore" and there:
            print(window.held_by(there), "Bringing the LLM back…", sep="\n", flush=True)
            window.release(f"{getpass.getuser()} on this host", there["id"])
            keep(window)  # waits for a keeper that is at it already
            print(story(window.last()))
        lease = window.lease()
        print(window.held_by(lease) if lease else "no window is open")
        print(json.dumps(window.look(), indent=2))
    except WindowError as error:
        print(f"window.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
