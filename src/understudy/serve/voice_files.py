"""The files of voices that a request can name."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from understudy.audio.speech_check import reference_fault


class VoiceFiles:
    """The voices of one directory.

    Args:
        voices_dir: the one directory voices come from.
        default_name: name of the default voice.

    Attributes:
        default: path of the default voice, once it was found.
    """

    def __init__(self, voices_dir: Path, default_name: str) -> None:
        self._dir, self._default_name = voices_dir, default_name
        self.default: Path | None = None
        self._judged: dict[Path, tuple[tuple[int, ...], str | None]] = {}

    def find(self, name: str) -> Path:
        """Return the file of a voice; see `find_voice`.

        The default voice's path is returned even after its file has gone.
        """
        is_default = name == self._default_name
        try:
            path = find_voice(self._dir, name)
        except LookupError:
            if is_default and self.default:
                return self.default
            raise
        if is_default:
            self.default = path
        return path

    def fault(self, path: Path) -> str | None:
        """Return why a voice's file cannot be cloned from; judged once per state of the file.

        Raises:
            OSError: there is no such file.
        """
        status = path.stat()
        seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        known, fault = self._judged.get(path, ((), None))
        if known != seen:
            fault = reference_fault(path)
            fault = fault and fault.replace(str(path), path.name)
            self._judged[path] = seen, fault
        return fault


def find_voice(voices_dir: Path, name: str) -> Path:
    """Return the file of a voice.

    Args:
        voices_dir: the one directory voices come from.
        name: of a file directly in it, links out of it excluded. Accents may be composed
            otherwise than in the file's name (Unicode's NFC and NFD).

    Raises:
        ValueError: the name is not a bare file name.
        LookupError: there is no such file; the message lists those there are.
    """
    if name in ("", ".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        raise ValueError(f"voice {name!r}: expected the bare name of a file")
    home = voices_dir.resolve()
    for spelt in (name, *_otherwise(home, name)):
        try:
            path = (home / spelt).resolve()
            if path.parent == home and path.is_file():
                return path
        except (OSError, RuntimeError):  # a name too long for the file system, a loop of links
            pass
    names = [p.name for p in home.glob("[!.]*") if p.is_file()] if home.is_dir() else []
    there = sorted(name for name in names if name.isprintable())  # others cannot be asked for
    raise LookupError(f"no voice {name!r}; there are: {', '.join(there) or 'none'}")


def _otherwise(home: Path, name: str) -> list[str]:
    """Return the names in a directory that look like this one and are not the same."""
    if name.isascii() or not home.is_dir():
        return []
    plain = unicodedata.normalize("NFC", name)
    names = sorted(path.name for path in home.iterdir())
    return [one for one in names if one != name and unicodedata.normalize("NFC", one) == plain]
