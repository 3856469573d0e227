"""A run and its listener: which passes there are, which is open, and what comes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from understudy.listening import pack, unblind
from understudy.listening.recordings import Recordings, recordings
from understudy.listening.session import HOME, ListeningError, Session, digest

MOST_PASSES = 2
"""More would mean listening until the result pleases."""


class ListeningTest:
    """The passes of a run.

    Args:
        run_dir: the run directory, or a link to it.
        reference: the WAV of the voice; needed when a pass is begun.
        impostor_dir: see `listening.prepare`.
        second_pass: begin a second pass, or go on with it.

    Attributes:
        run: what is heard.
        passes: all there are, in their order.

    Raises:
        ListeningError: the recordings, the answers or a ``ratings.json`` that is there cannot
            be worked with; nothing was changed.
        OSError: the run directory cannot be written.
    """

    def __init__(
        self,
        run_dir: Path,
        reference: Path,
        *,
        impostor_dir: Path | None = None,
        second_pass: bool = False,
    ) -> None:
        self._reference, self._impostor_dir = reference, impostor_dir
        self.run: Recordings = recordings(run_dir.resolve())
        self.passes: list[Session] = []
        home = self.run.run_dir / HOME
        while (home / f"pass-{len(self.passes) + 1}").exists():
            self._take(home / f"pass-{len(self.passes) + 1}")
        unblind.check(self.run, self.locked)
        if self.locked:
            unblind.write(self.run, self.locked)  # should the last process not have come to it
        self._wanted = not self.locked or second_pass
        if self._wanted and self.locked == self.passes and self.may_repeat:
            self.begin()

    def _take(self, directory: Path) -> None:
        """Read a pass that was begun before."""
        one = Session(directory)
        if one.plan["audio"] != self.run.sha256:
            raise ListeningError(
                [
                    f"{directory} is about other recordings than those that {self.run.run_dir} has "
                    f"now. Next: bring them back, or begin anew: mv -T -n {directory.parent} "
                    f"~/listening-{self.run.run_id}"
                ]
            )
        before = self.passes[-1] if self.passes else None
        if one.document["previous_sha256"] != (digest(before.path) if before else None):
            raise ListeningError(
                [
                    f"{directory} does not follow {before.path if before else 'the first pass'}: "
                    f"one of them was changed. Next: bring it back, or begin anew: mv -T -n "
                    f"{directory.parent} ~/listening-{self.run.run_id}"
                ]
            )
        self.passes.append(one)

    @property
    def locked(self) -> list[Session]:
        """The passes that were handed in."""
        return [one for one in self.passes if one.locked]

    @property
    def current(self) -> Session | None:
        """The pass that is being answered; None if there is nothing to do."""
        last = self.passes[-1] if self.passes else None
        return last if last and not last.locked and self._wanted else None

    @property
    def may_repeat(self) -> bool:
        """Whether another pass may be begun."""
        return len(self.locked) < MOST_PASSES

    def begin(self) -> Session:
        """Begin another pass, or go on with one that was left."""
        self._wanted = True
        if self.locked == self.passes:
            before = self.passes[-1].path if self.passes else None
            self.passes.append(
                Session(
                    pack.prepare(
                        self.run,
                        self._reference,
                        len(self.passes) + 1,
                        impostor_dir=self._impostor_dir,
                        previous_sha256=digest(before) if before else None,
                    )
                )
            )
        return self.passes[-1]

    def finish(self, identity_matches: object) -> dict[str, Any]:
        """Lock the pass, open its key and write ``ratings.json``.

        Args:
            identity_matches: is it, all in all, the same voice?

        Returns:
            The ratings.

        Raises:
            RefusedError: an answer is missing; nothing was changed.
            ListeningError: the answers are locked and safe, but ``ratings.json`` could not be
                written over what is there.
        """
        self.passes[-1].finish(identity_matches)
        return unblind.write(self.run, self.locked)

    def problem(self) -> str | None:
        """Return why the locked answers are not in ``ratings.json``; None if they are."""
        try:
            unblind.write(self.run, self.locked)
        except (ListeningError, OSError) as error:
            return str(error)
        return None

    def result(self) -> dict[str, Any]:
        """Return what the command has to say at its end."""
        one = self.current
        ratings = self.run.run_dir / unblind.NAME
        return {
            "run_id": self.run.run_id,
            "status": "unfinished" if one else "finished",
            "passes": len(self.locked),
            "given": one.given if one else 0,
            "of": one.total if one else 0,
            "ratings": str(ratings) if self.locked and ratings.exists() else None,
        }
