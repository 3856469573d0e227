"""Imports put off until they are used.

Upstream imports far more than an utterance needs: scikit-learn for one function of assisted
decoding, ONNX for converting checkpoints, numba for a spectrogram. Most of the time from
process start to the first word goes there. While `Later` is entered, such a module is stood
in for: what is imported from it is a name, and whatever is done with the name (calling it,
deriving from it, asking for its attributes) imports the real thing first.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class Later(MetaPathFinder, Loader):
    """Stands in for modules while it is entered; afterwards every import is real again.

    What is already imported stays as it is, and what is not installed is missing as always.

    Args:
        modules: not imported, nor anything under them.
        packages: only their own ``__init__`` is not run; what is under them is imported.
        homes: which other module a name can be had from, by ``module.name``.
        short: functions that answer for one of a module, by ``module.name``; they return
            ``NotImplemented`` for arguments that only the real one can deal with.
    """

    def __init__(
        self,
        modules: Sequence[str] = (),
        packages: Sequence[str] = (),
        homes: Mapping[str, str] | None = None,
        short: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self._modules, self._packages = set(modules), set(packages)
        self._homes, self._short = homes or {}, short or {}
        self._stand_ins: dict[str, _StandIn] = {}

    def __enter__(self) -> Later:
        sys.meta_path.insert(0, self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)
        for name in list(self._stand_ins):
            self._withdraw(name)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Claim a module that is to be put off."""
        root = self._root(fullname)
        if not root or (root != fullname and root not in self._stand_ins):
            return None
        real = PathFinder.find_spec(fullname, path, target)
        if real is None:
            return None
        spec = ModuleSpec(fullname, self, origin=real.origin, is_package=True)
        spec.submodule_search_locations = list(real.submodule_search_locations or [])
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the stand-in."""
        self._stand_ins[spec.name] = _StandIn(spec.name, self)
        return self._stand_ins[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: that is the point."""

    def attribute(self, module: str, name: str) -> Any:
        """Return what a stand-in gives for a name."""
        if module not in self._stand_ins:
            return getattr(importlib.import_module(module), name)
        path = f"{module}.{name}"
        if home := self._homes.get(path):
            return getattr(importlib.import_module(home), name)
        # The import system looks for a submodule only where the package has no such name.
        if module in self._packages and PathFinder.find_spec(path, sys.modules[module].__path__):
            raise AttributeError(name)
        return _Name(self, module, name, self._short.get(path))

    def real(self, module: str) -> ModuleType:
        """Import the real module and drop its placeholders."""
        if root := self._root(module):
            for name in [n for n in self._stand_ins if self._root(n) == root]:
                self._withdraw(name)
            self._packages.discard(root)
            self._modules.discard(root)
        return importlib.import_module(module)

    def _root(self, name: str) -> str | None:
        """Return what was named of all that a module is part of, or None."""
        if name in self._packages:
            return name
        return next((m for m in self._modules if f"{name}.".startswith(f"{m}.")), None)

    def _withdraw(self, name: str) -> None:
        stand_in = self._stand_ins.pop(name)
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        package, _, last = name.rpartition(".")
        if package in sys.modules and vars(sys.modules[package]).get(last) is stand_in:
            delattr(sys.modules[package], last)


class _StandIn(ModuleType):
    """A module whose every attribute is somewhere else."""

    def __init__(self, name: str, later: Later) -> None:
        super().__init__(name)
        self.__dict__["_later"] = later

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":  # which the package's own submodules ask for
            return metadata.version(self.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__dict__["_later"].attribute(self.__name__, name)


class _Name:
    """What was imported from a stand-in; to use it is to use the real thing."""

    def __init__(
        self, later: Later, module: str, name: str, short: Callable[..., Any] | None
    ) -> None:
        self._later, self._module, self._name, self._short = later, module, name, short

    def _real(self) -> Any:
        return getattr(self._later.real(self._module), self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._short(*args, **kwargs) if self._short else NotImplemented
        return self._real()(*args, **kwargs) if answer is NotImplemented else answer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __getitem__(self, key: Any) -> Any:
        return self._real()[key]

    def __or__(self, other: Any) -> Any:
        return self._real() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._real()

    def __mro_entries__(self, _: tuple[type, ...]) -> tuple[type, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._real())
