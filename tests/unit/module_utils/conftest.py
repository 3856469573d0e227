"""What the tests of the lease, the keeper and the program share: a window and an LLM's service."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible.module_utils.understudy import keeper as keeper_module
from ansible.module_utils.understudy.lease import Window
from llm_service import MARK, QUICK, Service, end_all
from llm_window import Keep, close_started


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Short times, and an end of everything that a test started."""
    for name, value in QUICK.items():
        assert hasattr(keeper_module, name)
        monkeypatch.setattr(keeper_module, name, value)
    monkeypatch.setenv(MARK, str(tmp_path))
    yield
    end_all(str(tmp_path))
    close_started()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "window"


@pytest.fixture
def window(home: Path) -> Window:
    return Window(str(home))


@pytest.fixture
def service(tmp_path: Path, quick: None) -> Service:
    return Service(tmp_path / "service")


@pytest.fixture
def keep(window: Window, quick: None) -> Iterator[Keep]:
    """Start a keeper in a thread; it gives up when the test is over."""
    keepers: list[Future[int]] = []
    with ThreadPoolExecutor() as pool:

        def start() -> Future[int]:
            keepers.append(pool.submit(keeper_module.keep, window))
            return keepers[-1]

        yield start
        Path(window.home, "lease.json").unlink(missing_ok=True)
    assert all(keeper.done() for keeper in keepers)


@pytest.fixture
def disk(tmp_path: Path, quick: None) -> Iterator[Path]:
    """A disk of 48 pages and 20 files."""
    path = tmp_path / "disk"
    path.mkdir()
    options = "size=192k,nr_inodes=20,mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("only root may mount")
    yield path
    end_all(str(tmp_path))
    subprocess.run(["umount", "--lazy", str(path)], check=True)
