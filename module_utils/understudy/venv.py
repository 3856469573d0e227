"""A Python environment named by everything that makes it what it is.

``<dir>/<12 hex digits>/`` with ``install.json`` written last: a directory without it
is a build that died and is made anew. The environment in use is a symbolic link,
switched in one rename; the one before stays as the way back.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
from importlib.metadata import distributions
from typing import Any

from .clock import utc_now
from .record import write

MARKER = "install.json"
PACKAGE_MARKER = "understudy.sha256"

TORCH_HINT = (
    "Your pip knows no such build of torch. Next: name the index that has CPU builds (PyTorch's "
    "own 'Get started' page shows it) in chatterbox_torch_args; for a rehearsal: "
    "make rehearse REHEARSAL_TORCH_ARGS='--index-url URL'"
)


CONFLICT_HINT = (
    "pip was asked for versions that exclude each other: {conflict}. The lock agrees with itself, "
    "so look for versions that this host demands, next: "
    "env | grep ^PIP_; {python} -m pip config list"
)

CONFIG_HINT = (
    "This host's own settings for pip are in the way; next, on the host: "
    "env | grep ^PIP_; {python} -m pip config debug"
)

#: Settings for another Python, and those of pip that decide where it installs, and whether it does.
FOREIGN = re.compile("PYTHON|PIP_(DRY_RUN|PREFIX|PYTHON|ROOT|TARGET|USER)$")


class VenvError(RuntimeError):
    """The environment could not be made; `kind` is the contract's kind of error."""

    def __init__(self, message: str, kind: str = "install") -> None:
        super().__init__(message)
        self.kind = kind


def digest(path: str) -> str:
    """Return the sha256 of a file."""
    value = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            value.update(block)
    return value.hexdigest()


def name_of(parts: dict[str, Any]) -> str:
    """Return the environment's name: 12 hex digits of everything that decides its content."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


class Installer:
    """Builds one environment within a deadline.

    Args:
        python: interpreter the environment is made of.
        lock: requirements file with hashes, complete.
        torch_requirement: installed apart and without hashes where the lock leaves torch out.
        torch_args: more arguments to pip for it, such as an index.
        torchaudio_native: False removes torchaudio's extension, which does not load beside a
            CPU build of torch; it then uses its own Python code.
        system_site_packages: for an environment on top of a container's own torch.
        budget_s: for all of it.
    """

    def __init__(
        self,
        *,
        python: str,
        lock: str,
        torch_requirement: str | None,
        torch_args: list[str],
        torchaudio_native: bool,
        system_site_packages: bool,
        budget_s: float,
    ) -> None:
        self.lock = lock
        self.torch_requirement = torch_requirement
        self.torch_args = torch_args
        self.torchaudio_native = torchaudio_native
        self.system_site_packages = system_site_packages
        self.budget_s = budget_s
        self.python = python
        self._deadline = time.monotonic() + budget_s
        self.version = self._run([python, "-c", "import sys; print(sys.version)"], "asking").strip()
        self.parts = {
            "lock": digest(lock),
            "torch": torch_requirement,
            "torchaudio_native": torchaudio_native,
            "system_site_packages": system_site_packages,
            "python": self.version,
        }

    @property
    def name(self) -> str:
        """Of the environment's directory."""
        return name_of(self.parts)

    def build(self, path: str) -> dict[str, Any]:
        """Make the environment and return the contract's ``venv`` object.

        Raises:
            VenvError: with the exact text that pip gave.
        """
        began = time.monotonic()
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        options = ["--system-site-packages"] if self.system_site_packages else []
        self._run([self.python, "-m", "venv", *options, path], "making the environment")
        reports = []
        if self.torch_requirement:
            reports.append(os.path.join(path, "report-torch.json"))
            self._pip(
                path,
                "--report",
                reports[-1],
                *self.torch_args,
                self.torch_requirement,
                what=self.torch_requirement,
            )
        reports.append(os.path.join(path, "report-lock.json"))
        self._pip(
            path,
            "--require-hashes",
            "--report",
            reports[-1],
            "-r",
            self.lock,
            what=os.path.basename(self.lock),
        )
        rows = [row for report in reports for row in packages(report)]
        self._check_landed(path, [row["name"] for row in rows])
        if not self.torchaudio_native:
            for file in glob.glob(
                os.path.join(path, "lib/python*/site-packages/torchaudio/lib/*.so")
            ):
                os.unlink(file)
        facts = {
            "path": path,
            "base": "container" if self.system_site_packages else "venv",
            "lock": os.path.basename(self.lock),
            "lock_sha256": self.parts["lock"],
            "torch_requirement": self.torch_requirement,
            "python": self.version.split()[0],
            "created": True,
            "installed_at": utc_now(),
            "install_s": round(time.monotonic() - began, 1),
            "packages": rows,
            "built_from_source": [row["name"] for row in rows if row["kind"] == "source"],
            "pins": pins(path, {row["name"]: row["version"] for row in rows}),
        }
        write(os.path.join(path, MARKER), facts)
        return facts

    def install_package(self, path: str, wheel: str) -> bool:
        """Install the project's own wheel, unless this very one is installed; say if it was."""
        marker = os.path.join(path, PACKAGE_MARKER)
        wanted = digest(wheel)
        if os.path.exists(marker):
            with open(marker, encoding="ascii") as file:
                if file.read().strip() == wanted:
                    return False
        self._pip(path, "--no-index", "--force-reinstall", wheel, what="understudy")
        self._check_landed(path, [os.path.basename(wheel).split("-")[0]])
        with open(marker, "w", encoding="ascii") as file:
            file.write(wanted + "\n")
        return True

    def _pip(self, path: str, *arguments: str, what: str) -> None:
        """Install into an environment just what the arguments name."""
        pip = [os.path.join(path, "bin", "python"), "-m", "pip", "--disable-pip-version-check"]
        options = ["--quiet", "--no-input", "--no-deps", "--no-user"]
        self._run([*pip, "install", *options, *arguments], f"installing {what}")

    def _check_landed(self, path: str, names: list[str]) -> None:
        """Check that packages are in the environment: pip's configuration can put them elsewhere.

        Raises:
            VenvError: some are not.
        """
        where = glob.glob(os.path.join(path, "lib/python*/site-packages"))
        there = {normal(found.metadata["Name"] or "") for found in distributions(path=where)}
        missing = [name for name in names if normal(name) not in there]
        if missing:
            raise VenvError(
                f"pip reported success, and {', '.join(missing)} is not in {path}. "
                + CONFIG_HINT.format(python=self.python)
            )

    def _run(self, command: list[str], doing: str) -> str:
        left = self._deadline - time.monotonic()
        environment = {k: v for k, v in os.environ.items() if not FOREIGN.match(k)}
        try:
            with subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,
            ) as process:
                try:
                    out, err = process.communicate(timeout=max(left, 0.1))
                except subprocess.TimeoutExpired:
                    # pip's own children too: nothing may go on writing into the environment.
                    os.killpg(process.pid, signal.SIGKILL)
                    raise VenvError(
                        f"{doing}: the budget of {self.budget_s:.0f} s is used up",
                        "budget_exceeded",
                    ) from None
        except OSError as error:
            raise VenvError(f"{doing}: {' '.join(command[:4])}: {error}") from None
        if process.returncode:
            seen = (err.strip() or out.strip())[-3000:]
            raise VenvError(f"{doing}: {seen}{self._hint(seen)}")
        return out

    def _hint(self, seen: str) -> str:
        """Return what to add to an error of pip, such as the next command."""
        if f"No matching distribution found for {self.torch_requirement}" in seen:
            return f"\n{TORCH_HINT}"
        if "ResolutionImpossible" in seen:
            found = re.search(r"Cannot install (.+?) because these package versions", seen)
            conflict = found[1] if found else "see above"
            return "\n" + CONFLICT_HINT.format(conflict=conflict, python=self.python)
        if re.search("^Configuration file|during configuration:|not a valid value for", seen, re.M):
            return "\n" + CONFIG_HINT.format(python=self.python)
        return ""


def normal(name: str) -> str:
    """Return a package's name in the one spelling that all its spellings share."""
    return re.sub("[-_.]+", "-", name).lower()


def packages(report: str) -> list[dict[str, Any]]:
    """Read pip's installation report: what came as a wheel and what was built here."""
    with open(report, encoding="utf-8") as file:
        rows = json.load(file)["install"]
    result = []
    for row in rows:
        file_name = urllib.parse.unquote(row["download_info"]["url"].rsplit("/", 1)[-1])
        result.append(
            {
                "name": normal(row["metadata"]["name"]),
                "version": row["metadata"]["version"],
                "kind": "wheel" if file_name.endswith(".whl") else "source",
                "file": file_name,
            }
        )
    return sorted(result, key=lambda row: row["name"])


def pins(path: str, installed: dict[str, str]) -> list[dict[str, Any]]:
    """Compare upstream's exact pins with what is installed.

    Args:
        path: of the environment.
        installed: versions by name.
    """
    found = glob.glob(
        os.path.join(path, "lib/python*/site-packages/chatterbox_tts-*.dist-info/METADATA")
    )
    if not found:
        return []
    rows: dict[str, dict[str, Any]] = {}
    with open(found[0], encoding="utf-8") as file:
        for line in file:
            requirement = line.partition(":")[2].split(";")[0]
            if not line.startswith("Requires-Dist:") or "==" not in requirement:
                continue
            name, _, version = requirement.replace("(", "").replace(")", "").partition("==")
            name, version = name.strip().lower(), version.strip()
            have = installed.get(name)
            rows[name] = {
                "name": name,
                "declared": "==" + version,
                "installed": have,
                "overridden": have is not None and have.split("+")[0] != version,
            }
    return sorted(rows.values(), key=lambda row: row["name"])


def switch(link: str, target: str) -> bool:
    """Point a symbolic link at a directory in one rename, and say if it changed."""
    if os.path.islink(link) and os.readlink(link) == target:
        return False
    part = link + ".new"
    if os.path.lexists(part):
        os.unlink(part)
    os.symlink(target, part)
    os.replace(part, link)
    return True


def read(path: str) -> dict[str, Any] | None:
    """Return what was recorded when the environment was made, or None for none or a broken one."""
    try:
        with open(os.path.join(path, MARKER), encoding="utf-8") as file:
            facts: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    if not os.access(os.path.join(path, "bin", "python"), os.X_OK):
        return None
    return facts


def default_python() -> str:
    """Return the interpreter that runs this module, or its base if that is an environment."""
    return os.path.realpath(sys.executable)
