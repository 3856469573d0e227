"""Prints what a play has to say in the end, whatever stdout callback is in use."""

from __future__ import annotations

from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: last_words
type: aggregate
short_description: Prints a play's last words
description:
  - A play may end with C(set_stats) and a list of lines named C(last_words); they are printed
    after the recap.
  - They go to stderr where another callback than the project's own writes to stdout, which may be
    a document.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "last_words"

    def v2_playbook_on_stats(self, stats: Any) -> None:
        foreign = constants.DEFAULT_STDOUT_CALLBACK != "understudy"
        for line in stats.custom.get("_run", {}).get("last_words", []):
            self._display.display(line, stderr=foreign)
