"""What of the fast loading needs no torch; the rest is in tests/rehearsal/test_loading.py."""

from __future__ import annotations

import gc
import sys
from importlib import metadata

import pytest

from understudy.model.fastload import loading


@pytest.fixture
def installed(monkeypatch):
    versions = dict(loading.KNOWN)

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(loading.metadata, "version", version)
    return versions


def test_the_versions_it_was_made_for(installed, caplog):
    assert loading.known()
    assert not caplog.text


@pytest.mark.parametrize("there", ["0.1.8", None])
def test_another_version_is_loaded_as_upstream_does(installed, caplog, there):
    installed["chatterbox-tts"] = there
    if there is None:
        del installed["chatterbox-tts"]
    assert not loading.known()
    assert f"chatterbox-tts is {there or 'missing'}" in caplog.text
    assert "loading as upstream does" in caplog.text


def test_without_fast_load_everything_is_left_to_upstream(installed, monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "_Reader", lambda *_: pytest.fail("read ahead"))
    finders, interval = list(sys.meta_path), sys.getswitchinterval()
    frozen = gc.get_freeze_count()
    with loading.Loading(tmp_path, "cpu", fast=False):
        assert sys.meta_path == finders
        assert sys.getswitchinterval() == interval
        assert gc.isenabled()
    assert gc.get_freeze_count() == frozen


def test_distributions_are_found_by_their_name(installed, monkeypatch):
    asked = []
    monkeypatch.setattr(
        metadata, "packages_distributions", lambda: asked.append(1) or {"yaml": ["PyYAML"]}
    )
    with loading._distributions_by_name():
        found = metadata.packages_distributions()
        assert found["transformers"] == ["transformers"]
        assert not asked
        assert found["yaml"] == ["PyYAML"]
        with pytest.raises(KeyError):
            found["absent"]
    assert asked
    assert metadata.packages_distributions() == {"yaml": ["PyYAML"]}


def test_the_locks_have_the_versions_it_was_made_for(request):
    locks = request.config.rootpath / "files/locks"
    for lock in ("chatterbox-aarch64-cuda13.txt", "rehearsal-cpu.txt"):
        lines = (locks / lock).read_text().splitlines()
        for name, version in loading.KNOWN.items():
            assert any(line.startswith(f"{name}=={version} ") for line in lines), f"{lock}: {name}"
