"""Print a run's verdict after the recap, so that it is the last thing on the screen."""

from __future__ import annotations

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: last_words
type: aggregate
short_description: Print the lines that a play left in the statistic C(last_words)
description:
  - A play ends with C(set_stats) and a list of lines; they are printed after the recap.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "last_words"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_stats(self, stats):
        for line in stats.custom.get("_run", {}).get("last_words", []):
            self._display.display(line)
