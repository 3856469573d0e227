"""Modules that run on the control node only take arguments, call the package, and return."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[3] / "library"
CODE_LINES = 100
BLANK = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """The lines that hold code after DOCUMENTATION, EXAMPLES and RETURN."""
    end = max(
        node.end_lineno or 0
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", "") in {"DOCUMENTATION", "EXAMPLES", "RETURN"}
    )
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {
        line
        for token in tokens
        if token.type not in BLANK
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len([line for line in lines if line > end])


@pytest.mark.parametrize("name", ["preflight_report", "run_begin", "run_record", "tts_verdict"])
def test_it_is_thin(name: str) -> None:
    assert code_lines((LIBRARY / f"{name}.py").read_text("utf-8")) <= CODE_LINES
