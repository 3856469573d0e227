"""A job's progress, as JSON lines that somebody else follows and shows."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


class Progress:
    """Appends one line per step to a file; to nowhere when there is no path.

    Args:
        path: the progress file; its directory must exist.
    """

    def __init__(self, path: Path | str | None) -> None:
        self.path = Path(path) if path is not None else None

    def write(
        self,
        *,
        host: str,
        phase: str,
        text: str,
        index: int | None = None,
        n: int | None = None,
        rtf: float | None = None,
    ) -> None:
        """Append a step, in one write, so that a follower never sees two mixed.

        Args:
            host: whom it is about, as the inventory names it.
            phase: what is going on, one word.
            text: the line to show, such as ``panda  baseline 3/10  RTF 0.52``.
            index: of the step, from 1; None for what is not counted.
            n: number of steps of the phase.
            rtf: wall time / seconds of audio.

        Raises:
            OSError: the file cannot be written.
        """
        if self.path is None:
            return
        line = {"at": round(time.time(), 3), "host": host, "phase": phase}
        line |= {"index": index, "n": n, "rtf": rtf, "text": text}
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        # For the owner alone: a line may show the listening page's address with its secret.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
