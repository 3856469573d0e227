"""Whatever reads a run directory does so by the bounded readers of `understudy.common`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: Who reads run directories and sheets on the control node.
READERS = [
    *(f"src/understudy/{package}" for package in ("listening", "verdict", "report", "documents")),
    "library/tts_verdict.py",
    "library/run_begin.py",
    "library/run_record.py",
    "src/understudy/common/jsonio.py",
    "src/understudy/audio/pcm.py",
    "src/understudy/audio/speech_check.py",
]

#: Calls that wait for a pipe, follow a link or have no limit.
UNBOUNDED = {
    *("open", "io.open", "os.open", "json.load", "json.loads", "soundfile.read", "wave.open"),
    *(".open", ".read_text", ".read_bytes", "shutil.copy", "shutil.copyfile", "numpy.load"),
}

#: What is opened otherwise, and why that is safe.
ALLOWED = {
    ("src/understudy/common/jsonio.py", "json.loads"): "the one parser",
    ("src/understudy/listening/pack.py", "os.open"): "makes a file that must not exist (O_EXCL)",
    ("src/understudy/documents/validate.py", "wave.open"): "bytes in memory",
}


def unbounded(source: str) -> Iterator[str]:
    """The names of the unbounded calls of a module."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            name = node.func.id
        elif isinstance(node.func, ast.Attribute):
            whole = ast.unparse(node.func)
            name = whole if whole in UNBOUNDED else f".{node.func.attr}"
        else:
            continue
        if name in UNBOUNDED:
            yield name


def test_run_directories_are_read_within_bounds() -> None:
    found = {
        (str(path.relative_to(ROOT)), name)
        for place in READERS
        for path in (sorted((ROOT / place).rglob("*.py")) or [ROOT / place])
        for name in unbounded(path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


def test_what_counts_as_unbounded() -> None:
    source = "open(a)\na.b().read_text()\njson.loads(c)\nread_bytes(d)\nopened(e)\nos.fdopen(f)\n"
    assert sorted(unbounded(source)) == [".read_text", "json.loads", "open"]
