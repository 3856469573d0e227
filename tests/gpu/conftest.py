"""Full-size random weights, a GPU, and an NVRTC that refuses it.

Everything is made once per session. The figures that the tests note are printed at the
end as one JSON object, and written to ``$UNDERSTUDY_GPU_OUT`` where that is set.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
sys.path.insert(0, str(SOURCES))

#: For this process too, before CUDA is initialised: a kept kernel hides the fault.
os.environ |= {
    "USE_PYTORCH_KERNEL_CACHE": "0",
    "TQDM_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")])),
}

DEVICE = "cuda"
TOKEN_CAP = 250  # 10 s
TUNING = {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6}
COMMAND_LIMIT_S = 300
TEST_LIMIT_S = 600  # the first one makes the weights

FIGURES = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config):
    config.stash[FIGURES] = {}


def pytest_collection_modifyitems(items):
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    why = _no_gpu()
    for item in ours:
        item.add_marker(pytest.mark.timeout(TEST_LIMIT_S))
        if why:
            item.add_marker(pytest.mark.skip(reason=why))


def pytest_terminal_summary(terminalreporter, config):
    figures = config.stash[FIGURES]
    if not figures:
        return
    terminalreporter.section("figures")
    terminalreporter.write_line(json.dumps(figures))
    if out := os.environ.get("UNDERSTUDY_GPU_OUT"):
        Path(out).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _no_gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "torch sees no NVIDIA GPU"


@dataclass(frozen=True)
class Stage:
    """What the tests speak with.

    Attributes:
        weights: directory of the full-size random weights, ``conds.pt`` among them.
        reference: WAV of the made-up voice.
        utterances: the ten of ``files/utterances.yml``, as the bench wants them.
        voice: the model, loaded in this process on a healthy NVRTC.
    """

    weights: Path
    reference: Path
    utterances: list[dict[str, Any]]
    voice: Any


@pytest.fixture(scope="session")
def figures(request) -> dict[str, Any]:
    """Receives what is worth reporting."""
    return request.config.stash[FIGURES]


@pytest.fixture(scope="session")
def stage(tmp_path_factory, figures) -> Iterator[Stage]:
    from understudy import rehearsal
    from understudy.bench import inputs
    from understudy.model import weights
    from understudy.model.voice import Voice

    directory = tmp_path_factory.mktemp("stage")
    reference = directory / "rehearsal.wav"
    rehearsal.make_voice(reference)
    began = time.monotonic()
    rehearsal.make_weights(directory / "weights", small=False)
    figures["weights_made_s"] = round(time.monotonic() - began, 1)
    voice = Voice.load(directory / "weights", DEVICE, token_cap=TOKEN_CAP)
    voice.use_reference(reference, TUNING["exaggeration"])
    voice.save_default(directory / "weights" / "conds.pt")
    weights.ensure({"weights_dir": str(directory / "weights"), "source": "local"})
    utterances, problems = inputs.read_utterances(ROOT / "files/utterances.yml")
    assert not problems
    yield Stage(directory / "weights", reference, utterances, voice)
    shutil.rmtree(directory / "weights")  # pytest would keep 3.2 GB of its last three sessions


@pytest.fixture(scope="session")
def refusing(tmp_path_factory) -> dict[str, str]:
    """Environment of a process whose NVRTC refuses every architecture."""
    import torch

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("no C compiler: cc or gcc builds the NVRTC that refuses")
    major, minor = str(torch.version.cuda).split(".")[:2]
    library = tmp_path_factory.mktemp("nvrtc") / f"libnvrtc.so.{major}"
    versions = [f"-DVERSION_MAJOR={major}", f"-DVERSION_MINOR={minor}"]
    source = Path(__file__).with_name("nvrtc_refuses.c")
    subprocess.run(
        [
            compiler,
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            *versions,
            f"-Wl,-soname,{library.name}",
            "-o",
            library,
            source,
        ],
        check=True,
    )
    return {"LD_PRELOAD": str(library)}


Command = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def understudy() -> Command:
    """Runs a subcommand in a process of its own and returns the JSON it prints."""

    def run(*arguments: str, config: dict[str, Any] | None = None, **environment: str) -> Any:
        given = ["--config", "-"] if config else []
        done = subprocess.run(
            [sys.executable, "-m", "understudy", *arguments, *given],
            input=json.dumps(config),
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout) if done.stdout.strip() else {}

    return run


@pytest.fixture(scope="session")
def bench(stage, understudy, tmp_path_factory) -> Command:
    """Runs the benchmark in a process of its own and returns its result file, with ``dir``."""

    def run(*, utterances: int, warmup: int, patched: bool, **environment: str) -> dict[str, Any]:
        out_dir = tmp_path_factory.mktemp("bench")
        config = {
            "run_id": "20260101-000000Z",
            "host": "gpu",
            "weights_dir": str(stage.weights),
            "voice": str(stage.reference),
            "device": DEVICE,
            "stft_patch": patched,
            "token_cap": TOKEN_CAP,
            "threads": None,
            "tuning": TUNING,
            "utterances": stage.utterances[:utterances],
            "warmup": warmup,
            "out_dir": str(out_dir),
            "wav_dir": "gpu_native",
            "lock_sha256": None,
            "git_commit": None,
        }
        understudy("bench", config=config, **environment)
        result = json.loads((out_dir / "bench-gpu.json").read_text("utf-8"))
        return result | {"dir": out_dir}

    return run


@pytest.fixture(scope="session")
def healthy_bench(bench) -> dict[str, Any]:
    """The benchmark as an operator runs it: ten warm-ups, ten timed, no patch."""
    return bench(utterances=10, warmup=10, patched=False)
