"""A real environment, built by pip from wheels made here; the failures around it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.understudy import venv

PYTHON = os.path.realpath(sys.executable)

LEAKS = ("PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE")
REQUIRES = [
    "numpy<2.0.0,>=1.24.0; python_version == '3.1'",
    "librosa==0.11.0",
    "torch==2.6.0; python_version < '3.14'",
    "torch>=2.9.0; python_version >= '3.14'",
    "s3tokenizer==1.0",
    "resemble-perth>=1.0.0",
]

BACKEND = """
import base64, hashlib, zipfile

def build_wheel(directory, config_settings=None, metadata_directory=None):
    name = "s3tokenizer-1.0-py3-none-any.whl"
    info = "s3tokenizer-1.0.dist-info/"
    with zipfile.ZipFile(directory + "/" + name, "w") as wheel:
        wheel.writestr("s3tokenizer.py", "")
        for file, text in (
            ("METADATA", "Metadata-Version: 2.1;Name: s3tokenizer;Version: 1.0;"),
            ("WHEEL", "Wheel-Version: 1.0;Root-Is-Purelib: true;Tag: py3-none-any;"),
        ):
            wheel.writestr(info + file, text.replace(";", chr(10)))
        wheel.writestr(info + "RECORD", "")
    return name
"""


def wheel(directory: Path, name: str, version: str, requires: Any = (), **files: str) -> Path:
    """Write a wheel by hand; `files` are modules by name, with ``__`` for a slash."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    content = {path.replace("__", "/"): text for path, text in files.items()}
    content |= {
        f"{name}_module.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in content.items():
            archive.writestr(file, text)
            value = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            rows.append(f"{file},sha256={value.decode().rstrip('=')},{len(text)}")
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return path


def sdist(directory: Path) -> Path:
    """Write a source distribution that builds itself, without a build requirement."""
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "pyproject.toml": project,
        "backend.py": BACKEND,
        "PKG-INFO": "Metadata-Version: 2.1\nName: s3tokenizer\nVersion: 1.0\n",
    }
    path = directory / "s3tokenizer-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"s3tokenizer-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def lock_line(path: Path, name: str, version: str) -> str:
    return f"{name}=={version} --hash=sha256:{venv.digest(str(path))}\n"


def installer(lock: Path, **changes: Any) -> venv.Installer:
    return venv.Installer(
        **{
            "python": PYTHON,
            "lock": str(lock),
            "torch_requirement": "torch==9.9",
            "torch_args": [],
            "torchaudio_native": False,
            "system_site_packages": False,
            "budget_s": 300,
            **changes,
        }
    )


class House:
    """Packages, a lock, and one environment built of them over a broken one."""

    def __init__(self, directory: Path):
        self.packages = directory / "packages"
        self.packages.mkdir()
        self.venvs = directory / "venvs"
        extension = {"torchaudio__lib__libtorchaudio.so": "", "torchaudio__lib__keep.txt": ""}
        wheel(self.packages, "torch", "9.9+cpu")
        self.lock = directory / "lock.txt"
        self.lock.write_text(
            lock_line(
                wheel(self.packages, "chatterbox_tts", "0.1.7", REQUIRES), "chatterbox-tts", "0.1.7"
            )
            + lock_line(wheel(self.packages, "torchaudio", "9.9", **extension), "torchaudio", "9.9")
            + lock_line(sdist(self.packages), "s3tokenizer", "1.0")
        )

    def build(self) -> None:
        self.installer = installer(self.lock)
        self.path = self.venvs / self.installer.name
        (self.path / "bin").mkdir(parents=True)
        (self.path / "bin" / "python").symlink_to(PYTHON)
        (self.path / "stale").write_text("of a build that died")
        self.before = venv.read(str(self.path))
        self.markers: list[bool] = []
        self._watch()

    def _watch(self) -> None:
        """Build, and note at each step whether the marker was there already."""
        run = self.installer._run

        def watched(command: list[str], doing: str) -> str:
            result = run(command, doing)
            self.markers.append((self.path / venv.MARKER).exists())
            return result

        self.installer._run = watched  # type: ignore[method-assign]
        self.facts = self.installer.build(str(self.path))
        self.installer._run = run  # type: ignore[method-assign]

    def python(self, code: str) -> str:
        command = [str(self.path / "bin" / "python"), "-c", code]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        return done.stdout.strip()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("house")
    house = House(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(house.packages))
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_NO_COMPILE", "1")
        # A user's settings for other environments must not leak into this one.
        for name in ("PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET", *LEAKS):
            patch.setenv(name, f"{directory}/leak")
        for name in ("PIP_DRY_RUN", "PIP_USER"):
            patch.setenv(name, "1")
        house.build()
        yield house
    assert not (directory / "leak").exists()


def test_what_the_lock_names_is_installed(house: House) -> None:
    code = "import torch_module, chatterbox_tts_module, s3tokenizer; print(torch_module.VERSION)"
    assert house.python(code) == "9.9+cpu"
    assert "understudy" not in house.python("import sys; print(sys.path)").split("venvs")[0]


def test_every_package_is_a_wheel_or_was_built_here(house: House) -> None:
    assert sorted(house.facts["packages"], key=lambda row: row["name"]) == [
        {
            "name": "chatterbox-tts",
            "version": "0.1.7",
            "kind": "wheel",
            "file": "chatterbox_tts-0.1.7-py3-none-any.whl",
        },
        {
            "name": "s3tokenizer",
            "version": "1.0",
            "kind": "source",
            "file": "s3tokenizer-1.0.tar.gz",
        },
        {
            "name": "torch",
            "version": "9.9+cpu",
            "kind": "wheel",
            "file": "torch-9.9+cpu-py3-none-any.whl",
        },
        {
            "name": "torchaudio",
            "version": "9.9",
            "kind": "wheel",
            "file": "torchaudio-9.9-py3-none-any.whl",
        },
    ]
    assert house.facts["built_from_source"] == ["s3tokenizer"]


def test_upstreams_exact_pins_and_what_became_of_them(house: House) -> None:
    assert house.facts["pins"] == [
        {"name": "librosa", "declared": "==0.11.0", "installed": None, "overridden": False},
        {"name": "s3tokenizer", "declared": "==1.0", "installed": "1.0", "overridden": False},
        {"name": "torch", "declared": "==2.6.0", "installed": "9.9+cpu", "overridden": True},
    ]


def test_a_local_version_is_no_override(house: House) -> None:
    rows = {row["name"]: row for row in venv.pins(str(house.path), {"torch": "2.6.0+cpu"})}
    assert rows["torch"]["overridden"] is False


def test_an_environment_without_upstream_has_no_pins(tmp_path: Path) -> None:
    assert venv.pins(str(tmp_path), {}) == []


def test_the_facts_are_the_contracts(house: House) -> None:
    facts = house.facts
    assert (facts["path"], facts["base"], facts["created"]) == (str(house.path), "venv", True)
    assert (facts["lock"], facts["lock_sha256"]) == ("lock.txt", venv.digest(str(house.lock)))
    assert facts["python"] == sys.version.split()[0]
    assert 0 < facts["install_s"] < 300


def test_the_marker_is_written_last_and_read_back(house: House) -> None:
    assert house.markers == [False, False, False]  # venv, torch, lock
    assert json.loads((house.path / "install.json").read_text()) == house.facts
    assert venv.read(str(house.path)) == house.facts


def test_a_broken_build_is_made_anew(house: House) -> None:
    assert house.before is None
    assert not (house.path / "stale").exists()


def test_the_extension_that_does_not_load_is_gone(house: House) -> None:
    [library] = house.path.glob("lib/python*/site-packages/torchaudio/lib")
    assert [path.name for path in library.iterdir()] == ["keep.txt"]


def test_what_is_no_environment_is_not_read(tmp_path: Path) -> None:
    assert venv.read(str(tmp_path / "none")) is None
    (tmp_path / "install.json").write_text("{}")
    assert venv.read(str(tmp_path)) is None  # its Python is missing
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(PYTHON)
    assert venv.read(str(tmp_path)) == {}
    (tmp_path / "install.json").write_text('{"path": ')
    assert venv.read(str(tmp_path)) is None


def test_the_own_package_is_installed_once(house: House, tmp_path: Path) -> None:
    first = wheel(tmp_path, "own", "1.0", own_first__py="")  # another test may have been here
    assert house.installer.install_package(str(house.path), str(first)) is True
    assert house.python("import own_module; print(own_module.VERSION)") == "1.0"
    assert house.installer.install_package(str(house.path), str(first)) is False

    changed = wheel(tmp_path, "own", "1.0", own_extra__py="").rename(first)
    with zipfile.ZipFile(changed, "a") as archive:
        archive.writestr("another.py", "")
    assert house.installer.install_package(str(house.path), str(changed)) is True
    assert house.python("import another; print('here')") == "here"


def test_a_package_that_cannot_be_installed_is_not_taken_for_installed(
    house: House, tmp_path: Path
) -> None:
    house.installer.install_package(str(house.path), str(wheel(tmp_path, "own", "1.0")))
    bad = tmp_path / "own-2.0-py3-none-any.whl"
    bad.write_bytes(b"not a zip")
    marker = (house.path / venv.PACKAGE_MARKER).read_text()
    with pytest.raises(venv.VenvError, match=r"installing understudy: (.|\n)*own-2\.0"):
        house.installer.install_package(str(house.path), str(bad))
    assert (house.path / venv.PACKAGE_MARKER).read_text() == marker


# The failures: an interpreter whose new environments run the pip of the one above


@pytest.fixture
def shortcut(house: House, tmp_path: Path) -> str:
    path = tmp_path / "python"
    path.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = -m ] && [ "$2" = venv ]; then mkdir -p "$3/bin"; '
        # No link: through it a Python whose distribution forbids pip would find itself.
        f'printf "#!/bin/sh\\nexec {sys.executable} \\"\\$@\\"\\n" >"$3/bin/python"\n'
        'chmod +x "$3/bin/python"\n'
        f'else exec "{PYTHON}" "$@"; fi\n'
    )
    path.chmod(0o755)
    return str(path)


def failed(shortcut: str, lock: Path, where: Path, **changes: Any) -> venv.VenvError:
    build = installer(lock, python=shortcut, **changes)
    with pytest.raises(venv.VenvError) as raised:
        build.build(str(where / build.name))
    assert venv.read(str(where / build.name)) is None
    return raised.value


def test_a_file_that_is_not_the_locked_one(house: House, shortcut: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(f"torchaudio==9.9 --hash=sha256:{'0' * 64}\n")
    error = failed(shortcut, lock, tmp_path, torch_requirement=None)
    assert error.kind == "install"
    assert str(error).startswith("installing lock.txt: ")
    assert "0" * 64 in str(error)


def test_a_lock_without_hashes_is_refused(house: House, shortcut: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("torchaudio==9.9\n")
    error = failed(shortcut, lock, tmp_path, torch_requirement=None)
    assert "--require-hashes" in str(error)


def test_a_torch_that_no_index_has(house: House, shortcut: str, tmp_path: Path) -> None:
    error = failed(shortcut, house.lock, tmp_path, torch_requirement="torch==1.2.3")
    assert str(error).startswith("installing torch==1.2.3: ")
    assert "No matching distribution found for torch==1.2.3" in str(error)
    assert str(error).endswith(venv.TORCH_HINT)


def test_versions_that_exclude_each_other(house: House, shortcut: str, tmp_path: Path) -> None:
    constraint = tmp_path / "constraint.txt"
    constraint.write_text("torch<9\n")
    arguments = ["--constraint", str(constraint)]
    error = failed(shortcut, house.lock, tmp_path, torch_args=arguments)
    assert "ResolutionImpossible" in str(error)
    hint = venv.CONFLICT_HINT.format(conflict="torch==9.9", python=shortcut)
    assert str(error).endswith(f"\n{hint}")


def test_arguments_for_torch_reach_pip(house: House, shortcut: str, tmp_path: Path) -> None:
    error = failed(shortcut, house.lock, tmp_path, torch_args=["--no-such-option"])
    assert "no such option: --no-such-option" in str(error)


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ("[install]\ntarget = {}/elsewhere\n", "reported success, and chatterbox-tts, "),
        ("[global]\nuser = true\ntarget = {}/elsewhere\n", "reported success, and chatterbox-tts"),
        ("no section\n", "File contains no section headers"),
        ("[global]\ntimeout = soon\n", "invalid floating-point value: 'soon'"),
        ("[global]\nuser = maybe\n", "maybe is not a valid value for user option"),
    ],
)
def test_settings_of_pip_that_are_in_the_way(
    house: House,
    shortcut: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: str,
    seen: str,
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(settings.format(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    error = failed(shortcut, house.lock, tmp_path, torch_requirement=None)
    assert seen in str(error)
    assert str(error).endswith(f"env | grep ^PIP_; {shortcut} -m pip config debug")


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_a_budget_that_is_used_up_ends_everything(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("")
    child = f"(sleep 0.8; touch {tmp_path}/late) & sleep 30"
    slow = script(tmp_path / "python", f'[ "$2" = venv ] && {{ {child}; }}\nexec {PYTHON} "$@"')
    build = installer(tmp_path / "lock.txt", python=slow, budget_s=0.4)
    began = time.monotonic()
    with pytest.raises(venv.VenvError, match="making the environment: the budget of") as raised:
        build.build(str(tmp_path / "venv"))
    assert raised.value.kind == "budget_exceeded"
    assert time.monotonic() - began < 5
    assert venv.read(str(tmp_path / "venv")) is None
    time.sleep(0.9)  # the interpreter's own child is gone too
    assert not (tmp_path / "late").exists()


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "lock.txt").write_text("")
    with pytest.raises(venv.VenvError, match=r"asking: /no/python3 .*No such file"):
        installer(tmp_path / "lock.txt", python="/no/python3")


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        installer(tmp_path / "none.txt")


# The name, and the link


def test_the_name_is_of_everything_that_decides_the_content(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("a==1\n")
    same = {installer(lock).name for _ in range(2)}
    assert len(same) == 1
    assert len(next(iter(same))) == 12
    names = same | {
        installer(lock, torch_requirement=None).name,
        installer(lock, torchaudio_native=True).name,
        installer(lock, system_site_packages=True).name,
    }
    lock.write_text("a==2\n")
    names.add(installer(lock).name)
    assert len(names) == 5
    assert venv.name_of({"a": 1, "b": 2}) == venv.name_of({"b": 2, "a": 1})


def test_the_switch_is_made_once(tmp_path: Path) -> None:
    link, old, new = tmp_path / "current", tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    assert venv.switch(str(link), str(old)) is True
    assert venv.switch(str(link), str(old)) is False
    assert venv.switch(str(link), str(new)) is True
    assert link.readlink() == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "new", "old"]


def test_what_a_switch_left_that_died_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "current.new").symlink_to("/nowhere")
    assert venv.switch(str(tmp_path / "current"), str(tmp_path)) is True
    assert not os.path.lexists(tmp_path / "current.new")


def test_the_link_is_there_all_the_time(tmp_path: Path) -> None:
    link = tmp_path / "current"
    targets = [tmp_path / "a", tmp_path / "b"]
    for target in targets:
        target.mkdir()
    venv.switch(str(link), str(targets[0]))
    gone, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            if not link.is_dir():
                gone.append(1)

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(300):
        venv.switch(str(link), str(targets[number % 2]))
    done.set()
    thread.join()
    assert gone == []


def test_a_directory_in_the_links_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(IsADirectoryError):
        venv.switch(str(tmp_path / "current"), str(tmp_path))
    assert (tmp_path / "current").is_dir()
