"""Which module imports which: downwards only, and never in a circle."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: Packages and top modules of `understudy`, the highest first; those of one line may import each
#: other, but not in a circle.
LAYERS = (
    ("__main__", "cli"),
    ("rehearsal",),
    ("bench", "serve", "similarity", "listening", "failover"),
    ("model", "verdict", "report"),
    ("documents", "audio", "common", "__init__"),
)
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}

#: What lies outside the package, and which imports it must not have.
FORBIDDEN = {"src": ("ansible", "library", "action_plugins"), "module_utils": ("understudy",)}


class Import(NamedTuple):
    """A file, the module that it imports, and the names that it takes from it."""

    file: Path
    module: str
    names: str


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file, those inside functions too; a relative one begins with a dot."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(path, name.name, name.name)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for name in node.names:
                yield Import(path, module, name.name)


def graph(source: Path) -> dict[str, dict[str, Import]]:
    """Of the modules below a directory: module -> the modules that it imports, and how."""
    paths = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: dict[str, dict[str, Import]] = {module: {} for module in paths}
    for module, path in paths.items():
        for one in imports(path):
            assert one.module[0] != ".", f"{path} has a relative import: {one}"
            inner = f"{one.module}.{one.names}"
            target = inner if inner in paths else one.module
            if target in paths and target != module:
                known = found[module].get(target)
                names = f"{known.names}, {one.names}" if known else one.names
                found[module][target] = Import(path, target, names)
    return found


def circles(edges: dict[str, dict[str, Import]]) -> list[str]:
    """One sentence for each circle that a depth-first search meets."""
    problems, done = [], set()

    def visit(node: str, path: list[str]) -> None:
        if node in path:
            ring = [*path[path.index(node) :], node]
            steps = [edges[a][b] for a, b in itertools.pairwise(ring)]
            problems.append("; ".join(f"{s.file} takes {s.names} of {s.module}" for s in steps))
        elif node not in done:
            for target in edges.get(node, {}):
                visit(target, [*path, node])
            done.add(node)

    for start in edges:
        visit(start, [])
    return problems


def package(module: str) -> str:
    """The part below `understudy`; `__init__` for the package itself."""
    return ".".join(module.split(".")[1:2]) or "__init__"


def problems(source: Path) -> list[str]:
    """What is wrong with the imports of the package below a directory."""
    modules = graph(source)
    packages: dict[str, dict[str, Import]] = {}
    found = circles(modules)
    for module, targets in modules.items():
        for target, one in targets.items():
            here, there = package(module), package(target)
            if LEVEL[here] > LEVEL[there]:
                found.append(f"{one.file} takes {one.names} of {target}, which lies above")
            elif here != there:
                packages.setdefault(here, {}).setdefault(there, one)
    return found + circles(packages)


def write(source: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = source / "understudy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return source


def test_the_package() -> None:
    assert problems(ROOT / "src") == []


@pytest.mark.parametrize("directory", FORBIDDEN)
def test_what_a_directory_must_not_import(directory: str) -> None:
    wrong = [
        f"{one.file}: {one.module}"
        for path in (ROOT / directory).rglob("*.py")
        for one in imports(path)
        if one.module.split(".")[0] in FORBIDDEN[directory]
    ]
    assert wrong == []


def test_a_circle_of_modules(tmp_path: Path) -> None:
    a, b = "from understudy.audio import b\n", "def f():\n    from understudy.audio.a import x\n"
    [seen] = problems(write(tmp_path, {"audio/a.py": a, "audio/b.py": b}))
    here = tmp_path / "understudy/audio"
    assert f"{here}/a.py takes b of understudy.audio.b" in seen
    assert f"{here}/b.py takes x of understudy.audio.a" in seen


def test_an_arrow_upwards(tmp_path: Path) -> None:
    a = "from understudy.bench.b import x, y\n"
    [seen] = problems(write(tmp_path, {"model/a.py": a, "bench/b.py": ""}))
    path = tmp_path / "understudy/model/a.py"
    assert seen == f"{path} takes x, y of understudy.bench.b, which lies above"


def test_a_circle_of_packages_of_one_layer(tmp_path: Path) -> None:
    """No module is in a circle here, but the packages are."""
    files = {
        "bench/a.py": "import understudy.serve.b\n",
        "serve/b.py": "",
        "serve/c.py": "from understudy.bench import d\n",
        "bench/d.py": "",
    }
    [seen] = problems(write(tmp_path, files))
    assert "bench/a.py takes understudy.serve.b of understudy.serve.b" in seen
    assert "serve/c.py takes d of understudy.bench.d" in seen


def test_imports_downwards(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "cli.py": "from understudy.bench import a\n",
        "bench/a.py": "from understudy.serve.b import x\nfrom understudy import __version__\n",
        "serve/b.py": "import json\n",
    }
    assert problems(write(tmp_path, files)) == []
