"""How long until the first word: as upstream does it, as ours does, and the whole server.

    python tests/tools/start_time.py DIRECTORY                     # full-size weights, on a GPU
    python tests/tools/start_time.py DIRECTORY --device cpu --small -n 3

Every run is a process of its own, with files cached: the first of each kind is not counted.
Weights (3.2 GB) and a made-up voice are made in the directory if they are not there. Printed
is one line per run as it ends, the modules that take longest to import, and last of all one
JSON object: medians in seconds, one kind beside the other, and whether both said the same.
Needs no pytest; the server is left out where fastapi and uvicorn are not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src"
sys.path.insert(0, str(SOURCES))

TEXT = "Good morning, how can I help you today?"
SEED = 3
TOKEN_CAP = 250  # 10 s; the random weights end by themselves after about 3 s
TUNING = {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6}
PUT_OFF = (
    "accelerate",
    "librosa",
    "numba",
    "onnx",
    "requests",
    "scipy",
    "sklearn",
    "torch._dynamo",
    "torchvision",
    "pandas",
    "jax",
)
#: No new run is begun after so many seconds, so that the figures are printed in any case.
BUDGET_S = 520
TIMEOUT_S = 180


class Marks:
    """Seconds since the process was asked for, by what had been done by then."""

    def __init__(self, asked):
        self._asked, self.seconds = asked, {}
        self("interpreter")

    def __call__(self, what):
        self.seconds[what] = time.time() - self._asked


def child(kind, directory, device, asked):
    """Be one run: speak once, then print what it took."""
    marks = Marks(asked)
    logging.basicConfig(stream=sys.stderr)
    weights, reference = directory / "weights", directory / "voices/rehearsal.wav"
    out = sys.stdout
    sys.stdout = sys.stderr  # upstream prints
    heard = []
    speak = {"shipped": _shipped, "ours": _ours}[kind]
    samples = speak(weights, reference, device, marks, heard)
    assert samples.size > 12_000, "that is no speech"
    assert abs(samples).max() > 0.001, "that is silence"
    import numpy as np
    import torch

    np.save(directory / f"{kind}.npy", samples)
    cuda = device.startswith("cuda")
    print(
        json.dumps(
            {
                "seconds": marks.seconds,
                "tokens": heard[0],
                "audio_s": samples.size / 24_000,
                "torch_peak_gb": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
                "modules": len(sys.modules),
                "imported": [name for name in PUT_OFF if name in sys.modules],
            }
        ),
        file=out,
    )


def _shipped(weights, reference, device, marks, heard):
    """Do what upstream's README does, and nothing else; the steps one after the other."""
    import torch

    marks("torch")
    from chatterbox.tts import ChatterboxTTS

    marks("imports")
    if device.startswith("cuda"):
        torch.zeros(1, device=device)
        torch.cuda.synchronize()
    marks("context")
    _shrink(weights)
    model = ChatterboxTTS.from_local(weights, device)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    marks("load")
    model.prepare_conditionals(str(reference), exaggeration=TUNING["exaggeration"])
    marks("reference")
    sampler = model.t3.inference

    def inference(**kwargs):
        tokens = sampler(**(kwargs | {"max_new_tokens": TOKEN_CAP}))
        heard.append(tokens[0].tolist())
        return tokens

    model.t3.inference = inference
    torch.manual_seed(SEED)
    samples = model.generate(TEXT, **TUNING).squeeze(0).numpy()
    marks("first synthesis")
    return samples


def _ours(weights, reference, device, marks, heard):
    """Do what the server does between its start and its first word."""
    from understudy.model.types import Tuning
    from understudy.model.voice import Voice

    voice = Voice.load(weights, device, token_cap=TOKEN_CAP)
    loaded = time.time() - marks._asked
    marks.seconds["imports"] = loaded - voice.info["model_s"]
    marks.seconds["load"] = loaded
    voice.use_reference(reference, TUNING["exaggeration"])
    marks("reference")
    sampler = voice._model.t3.inference

    def inference(**kwargs):
        tokens = sampler(**kwargs)
        heard.append(tokens[0].tolist())
        return tokens

    voice._model.t3.inference = inference
    samples = voice.speak(TEXT, seed=SEED, tuning=Tuning(**TUNING)).samples
    marks("first synthesis")
    return samples


def _shrink(weights):
    from understudy.model import small

    if architecture := small.read_marker(weights):
        small.shrink(architecture)


def run(kind, directory, device, *options):
    """Start one run and return what it printed."""
    command = [sys.executable, *options, __file__, str(directory), "--device", device]
    done = subprocess.run(
        [*command, "--child", kind, "--asked", repr(time.time())],
        text=True,
        check=False,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        sys.exit(f"{kind} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"log": done.stderr}


def serve(directory, device):
    """Start the server and return seconds until it is ready: it has spoken, and been heard."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    config = {
        "bind": "127.0.0.1",
        "port": port,
        "voices_dir": str(directory / "voices"),
        "default_voice": "rehearsal.wav",
        "weights_dir": str(directory / "weights"),
        "device": device,
        "token_cap": TOKEN_CAP,
        "tuning": TUNING,
    }
    file = directory / "serve.json"
    file.write_text(json.dumps(config))
    log = directory / "serve.log"
    asked = time.time()
    command = [sys.executable, "-m", "understudy", "serve", "--config", str(file)]
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as server:
        try:
            while time.time() - asked < TIMEOUT_S and server.poll() is None:
                with contextlib.suppress(OSError):  # not yet: refused, or 503
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                    return {"seconds": {"ready": time.time() - asked}}
                time.sleep(0.02)
        finally:
            server.terminate()
    sys.exit(f"the server was never ready:\n{log.read_text()[-4000:]}")


def slowest_imports(directory, device, kind, count=25):
    """Print the modules that take longest, what they import included."""
    log = run(kind, directory, device, "-X", "importtime")["log"]
    rows = []
    for line in log.splitlines():
        if line.startswith("import time:") and "cumulative" not in line:
            _, total, name = line.removeprefix("import time:").split("|")
            rows.append((int(total), name.rstrip()))
    print(f"slowest imports, {kind}, with a profiler's overhead ({len(rows)} modules):")
    for total, name in sorted(rows, reverse=True)[:count]:
        print(f"  {total / 1e6:6.2f} s {name}")


def steps(runs):
    """Return the medians: of every step, and of the whole."""
    median = {
        what: statistics.median(run["seconds"][what] for run in runs) for what in runs[0]["seconds"]
    }
    lengths, before = {}, 0.0
    for what, at in median.items():
        lengths[what], before = round(at - before, 3), at
    totals = [max(run["seconds"].values()) for run in runs]
    return {
        "n": len(runs),
        "steps_s": lengths,
        "total_s": round(statistics.median(totals), 3),
        "worst_s": round(max(totals), 3),
        **{
            name: runs[-1][name]
            for name in ("torch_peak_gb", "modules", "imported", "audio_s")
            if name in runs[-1]
        },
    }


def prepare(directory, small):
    """Make the weights and the voice where they are missing."""
    from understudy import rehearsal
    from understudy.model import small, weights

    (directory / "voices").mkdir(parents=True, exist_ok=True)
    if not (directory / "voices/rehearsal.wav").exists():
        rehearsal.make_voice(directory / "voices/rehearsal.wav")
    if not (directory / "weights/manifest.json").exists():
        rehearsal.make_weights(directory / "weights", small=small)
        from chatterbox.tts import ChatterboxTTS

        _shrink(directory / "weights")
        model = ChatterboxTTS.from_local(directory / "weights", "cpu")
        model.prepare_conditionals(str(directory / "voices/rehearsal.wav"))
        model.conds.save(directory / "weights/conds.pt")
        weights.ensure({"weights_dir": str(directory / "weights"), "source": "local"})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the rehearsal's weights")
    parser.add_argument("-n", type=int, default=5, help="runs of each kind")
    parser.add_argument("--no-imports", action="store_true", help="leave the import times out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--asked", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    directory, device = arguments.directory, arguments.device
    os.environ |= {
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(SOURCES), os.environ.get("PYTHONPATH")])),
    }
    if arguments.child:
        child(arguments.child, directory, device, arguments.asked)
        return
    began = time.monotonic()
    if arguments.child is None and not (directory / "weights/manifest.json").exists():
        made = f"start_time.Path({str(directory)!r}), {arguments.small}"
        code = f"import start_time; start_time.prepare({made})"
        subprocess.run(
            [sys.executable, "-c", code], check=True, cwd=Path(__file__).parent, stdout=sys.stderr
        )
        print(f"weights made in {time.monotonic() - began:.1f} s", flush=True)
    kinds = {
        "ours": lambda: run("ours", directory, device),
        "shipped": lambda: run("shipped", directory, device),
    }
    if all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn")):
        kinds["serve"] = lambda: serve(directory, device)
    runs = {kind: [] for kind in kinds}
    first = {}
    for index in range(arguments.n + 1):
        for kind, start in kinds.items():
            if time.monotonic() - began > BUDGET_S and all(runs.values()):
                continue
            done = start()
            seconds = {what: round(at, 2) for what, at in done["seconds"].items()}
            print(f"{kind} {index or 'first, not counted'}: {json.dumps(seconds)}", flush=True)
            if index:
                runs[kind].append(done)
            else:
                first[kind] = round(max(seconds.values()), 2)
    if not arguments.no_imports and time.monotonic() - began < BUDGET_S:
        for kind in ("shipped", "ours"):
            slowest_imports(directory, device, kind)
    report(directory, device, runs, first)


def report(directory, device, runs, first):
    import numpy as np

    shipped, ours = (np.load(directory / f"{kind}.npy") for kind in ("shipped", "ours"))
    same = {json.dumps(done["tokens"]) for kind in ("shipped", "ours") for done in runs[kind]}
    difference = None
    if shipped.shape == ours.shape:
        difference = float(np.abs(shipped.astype(float) - ours).max())
    figures = {
        "device": device,
        "first_not_counted_s": first,
        **{kind: steps(done) for kind, done in runs.items()},
        "tokens_equal": len(same) == 1,
        "audio_max_abs_difference": difference,
    }
    if device.startswith("cuda"):
        import torch

        figures |= {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(json.dumps(figures))
    assert len(same) == 1, "shipped and ours said different things for the same seed"
    if device == "cpu":
        assert difference == 0.0, "on a CPU the audio must be the same to the last bit"


if __name__ == "__main__":
    main()
