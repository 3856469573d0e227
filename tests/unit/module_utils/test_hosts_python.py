"""What runs on a managed host's own Python needs the standard library of Python 3.9 only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
OURS = ROOT / "module_utils/understudy"
#: Lines of `module_utils/` in all, and of one module.
LINES, MODULE_LINES = 3500, 500
#: Given to the interpreter of a host on which nothing is installed; torch is used if it is there.
PIPED = ROOT / "src/understudy/model/environment.py"

#: Modules that run on the control node only.
CONTROL_NODE = {"tts_verdict", "preflight_report", "run_begin", "run_record"}
FILES = [
    *sorted(OURS.glob("*.py")),
    *(path for path in sorted((ROOT / "library").glob("*.py")) if path.stem not in CONTROL_NODE),
    PIPED,
]
#: Beside the standard library: what a module of Ansible may import, and modules of one another.
SIBLINGS = {path.stem for path in OURS.glob("*.py")}
ALLOWED = {"ansible.module_utils.basic", "ansible.module_utils.understudy"}
#: Names of the standard library that came after Python 3.9, as they are imported or used.
NEWER = {
    "contextlib.aclosing",
    "contextlib.chdir",
    "dataclasses.KW_ONLY",
    "datetime.UTC",
    "enum.StrEnum",
    "hashlib.file_digest",
    "inspect.get_annotations",
    "itertools.batched",
    "itertools.pairwise",
    "operator.call",
    "statistics.correlation",
    "sys.orig_argv",
    "sys.stdlib_module_names",
    "tomllib",
    "types.EllipsisType",
    "types.NoneType",
    "types.UnionType",
    "typing.Concatenate",
    "typing.Never",
    "typing.NotRequired",
    "typing.ParamSpec",
    "typing.Required",
    "typing.Self",
    "typing.TypeAlias",
    "typing.TypeGuard",
    "typing.override",
    "typing.assert_never",
    "warnings.deprecated",
}
#: Built-in names and methods that came later, and arguments of what was there before.
NEWER_BUILTINS = {"aiter", "anext", "ExceptionGroup", "BaseExceptionGroup", "EncodingWarning"}
NEWER_METHODS = {"bit_count", "add_note", "hardlink_to", "walk"}
NEWER_ARGUMENTS = {
    ("zip", "strict"),
    ("dataclass", "slots"),
    ("dataclass", "kw_only"),
    ("field", "kw_only"),
    ("TemporaryDirectory", "delete"),
    ("bisect", "key"),
    ("insort", "key"),
}


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, anywhere; a relative import begins with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def newer(tree: ast.AST) -> Iterator[str]:
    """What a file uses that Python 3.9 does not have, as far as its text shows."""
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield from ({f"{node.module}.{alias.name}" for alias in node.names} & NEWER)
        elif isinstance(node, ast.Import):
            yield from ({alias.name for alias in node.names} & NEWER)
        elif isinstance(node, ast.Attribute):
            name = f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else ""
            yield from ({name} & NEWER)
            yield from ({node.attr} & NEWER_METHODS if name != "os.walk" else set())
        elif isinstance(node, ast.Name):
            yield from ({node.id} & NEWER_BUILTINS)
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for keyword in node.keywords:
                if (called, keyword.arg) in NEWER_ARGUMENTS:
                    yield f"{called}({keyword.arg}=)"
            if called in {"isinstance", "issubclass"} and isinstance(node.args[1], ast.BinOp):
                yield f"{called}(…, X | Y)"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = (node.left, node.right)
            none = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
            if none and id(node) not in annotations:
                yield "X | None outside of an annotation"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_it_is_python_3_9(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
    assert not list(newer(tree))
    functions = any(isinstance(node, ast.FunctionDef) for node in ast.walk(tree))
    assert not functions or "__future__" in imports(tree), "annotations would be evaluated"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_it_needs_the_standard_library_only(path: Path) -> None:
    for name in imports(ast.parse(path.read_text("utf-8"))):
        top = name.partition(".")[0]
        fine = top in sys.stdlib_module_names
        if path.parent == OURS:
            fine |= name in {".", *("." + sibling for sibling in SIBLINGS)} or name in SIBLINGS
        elif path.parent.name == "library":
            fine |= name in ALLOWED or name.rpartition(".")[0] in ALLOWED
        elif path == PIPED:
            fine |= name == "torch"
        assert fine, name


def test_it_is_small() -> None:
    sizes = {path.name: len(path.read_text("utf-8").splitlines()) for path in OURS.glob("*.py")}
    assert {name: size for name, size in sizes.items() if size > MODULE_LINES} == {}
    assert sum(sizes.values()) <= LINES


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("from datetime import UTC", "datetime.UTC"),
        ("import datetime\ndatetime.UTC", "datetime.UTC"),
        ("import tomllib", "tomllib"),
        ("zip(a, b, strict=True)", "zip(strict=)"),
        ("isinstance(a, int | str)", "isinstance(…, X | Y)"),
        ("Text = str | None", "X | None outside of an annotation"),
        ("n.bit_count()", "bit_count"),
        ("raise ExceptionGroup('x', [])", "ExceptionGroup"),
    ],
)
def test_what_is_newer_is_seen(text: str, seen: str) -> None:
    assert seen in list(newer(ast.parse(text)))


def test_syntax_that_is_newer_is_seen() -> None:
    with pytest.raises(SyntaxError, match=r"3\.10"):
        ast.parse("match a:\n    case 1:\n        pass\n", feature_version=(3, 9))
