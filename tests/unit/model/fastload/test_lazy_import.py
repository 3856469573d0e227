"""Imports that are put off: names that wait, and everything real once it is used."""

from __future__ import annotations

import importlib
import sys
import textwrap
import types
from pathlib import Path

import pytest

from understudy.model.fastload.lazy_import import Later

FILES = {
    "heavy/__init__.py": "from .parts import Part; ran = True",
    "heavy/parts.py": """
        class Part:
            level = 3
            def name(self): return "part"
        def double(x): return 2 * x
        """,
    "package/__init__.py": "raise RuntimeError('the whole package was started')",
    "package/inner.py": "from package import Known, sub\nfrom . import __version__ as version",
    "package/sub.py": "here = True",
    "home.py": "class Known: pass",
    "user.py": """
        import heavy
        from heavy.parts import Part, double
        """,
}
OURS = ("heavy", "package", "home", "user")


def named(*roots):
    return {name for name in sys.modules if name.partition(".")[0] in roots}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield
    for name in named(*OURS):
        del sys.modules[name]


def test_a_module_is_imported_when_it_is_used():
    with Later(modules=["heavy"]):
        user = importlib.import_module("user")
        assert not hasattr(sys.modules["heavy"], "__file__")
    assert not named("heavy")
    assert user.double(4) == 8
    assert sys.modules["heavy"].ran
    assert user.heavy.ran
    assert user.Part().name() == "part"


@pytest.mark.parametrize(
    "use",
    [
        lambda Part: Part.level == 3,
        lambda Part: Part().name() == "part",
        lambda Part: types.new_class("Mine", (Part,))().name() == "part",
        lambda Part: not isinstance(4, Part),
        lambda Part: not issubclass(int, Part),
        lambda Part: Part | None,
        lambda Part: None | Part,
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_any_use_is_one(use, inside):
    with Later(modules=["heavy"]):
        user = importlib.import_module("user")
        if inside:
            assert use(user.Part)
            assert sys.modules["heavy"].ran, "it is still stood in for"
    assert use(user.Part)


def test_what_has_been_imported_stays():
    import heavy

    with Later(modules=["heavy"]):
        user = importlib.import_module("user")
        assert user.heavy is heavy
        assert isinstance(user.Part, type)
    assert sys.modules["heavy"] is heavy


def test_what_is_not_installed_is_missing():
    with Later(modules=["absent", "heavy"]):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("absent")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("heavy.absent")


def test_a_name_that_is_not_there_is_missed_when_it_is_used():
    with Later(modules=["heavy"]):
        importlib.import_module("heavy")
        nothing = sys.modules["heavy"].nothing
    with pytest.raises(AttributeError, match="nothing"):
        nothing()


def test_a_short_answer_or_the_real_one():
    short = {"heavy.parts.double": lambda x: -1 if x == 4 else NotImplemented}
    with Later(modules=["heavy"], short=short):
        user = importlib.import_module("user")
        assert user.double(4) == -1
        assert not hasattr(sys.modules["heavy"], "__file__")
    assert user.double(4) == -1
    assert user.double(5) == 10
    assert importlib.import_module("heavy.parts").double(4) == 8


def test_only_the_start_of_a_package_is_left_out(monkeypatch):
    monkeypatch.setattr(
        "understudy.model.fastload.lazy_import.metadata.version", lambda name: f"{name} 1.0"
    )
    with Later(packages=["package"], homes={"package.Known": "home"}):
        inner = importlib.import_module("package.inner")
    assert inner.Known is sys.modules["home"].Known
    assert inner.sub.here
    assert inner.version == "package 1.0"
    assert "package" not in sys.modules
    with pytest.raises(RuntimeError, match="whole package"):
        importlib.import_module("package")


def test_a_real_parent_forgets_the_stand_in():
    import heavy

    with Later(modules=["heavy.more"]):
        (Path(heavy.__file__).parent / "more.py").write_text("real = True")
        importlib.invalidate_caches()
        importlib.import_module("heavy.more")
        assert "more" in vars(heavy)
    assert "more" not in vars(heavy)
    assert importlib.import_module("heavy.more").real
