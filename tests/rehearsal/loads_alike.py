"""Does the fast way of loading give what upstream's own gives? For the rehearsal's Python.

    python loads_alike.py upstream|ours|unknown WEIGHTS RECORDING FILE.json
    python loads_alike.py bare WEIGHTS DIRECTORY

One way per process, since loading changes the process. Written is one digest per parameter,
buffer and other tensor of every module, with what it is made of, and of the audio of one
utterance with the default voice and one with the recording's. `unknown` is ours where it does
not know a version; `bare` makes weights without the buffers that upstream computes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}

TUNING = {"cfg_weight": 0.3, "exaggeration": 0.3, "temperature": 0.6}
TEXT = "Good morning, how can I help you today?"


def digest(tensor):
    import torch

    if not isinstance(tensor, torch.Tensor):
        return repr(tensor)
    plain = tensor.detach().cpu()
    made_of = f"{tensor.dtype} {list(tensor.shape)} {tensor.stride()} {tensor.device}"
    kind = f"{type(tensor).__name__} {tensor.requires_grad}"
    data = plain.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return f"{kind} {made_of} {hashlib.sha256(data).hexdigest()}"


def everything(model):
    """Every tensor that a module holds, persistent or not, registered or not."""
    import torch

    found = {}
    parts = {
        "t3": model.t3,
        "s3gen": model.s3gen,
        "ve": model.ve,
        "watermarker": model.watermarker.perth_net,
    }
    for part, root in parts.items():
        found[f"{part} state"] = sorted(root.state_dict())
        for name, module in root.named_modules():
            held = (
                {k: v for k, v in vars(module).items() if isinstance(v, torch.Tensor)}
                | module._parameters
                | module._buffers
            )
            found |= {f"{part}.{name}.{key}": digest(value) for key, value in held.items()}
            found[f"{part}.{name} mode"] = f"{type(module).__qualname__} {module.training}"
    return found | conditionals(model.conds, "default")


def conditionals(conds, title):
    named = vars(conds.t3) | conds.gen
    return {f"{title} {key}": digest(value) for key, value in named.items()}


def loaded(way, weights):
    import torch

    from understudy.model import small
    from understudy.model.fastload import loading
    from understudy.model.voice import Voice

    if way != "upstream":
        if way == "unknown":
            loading.KNOWN["transformers"] = "another"
        return Voice.load(weights, "cpu", token_cap=60, threads=1)
    torch.set_num_threads(1)
    from chatterbox.tts import ChatterboxTTS

    small.shrink(small.read_marker(weights))
    return Voice(ChatterboxTTS.from_local(weights, "cpu"), "cpu", 60, {})


def bare(weights, directory):
    from safetensors.torch import load_file, save_file

    directory.mkdir()
    for file in weights.iterdir():
        if file.name == "s3gen.safetensors":
            tensors = load_file(file)
            for name in ("tokenizer._mel_filters", "tokenizer.window"):
                del tensors[name]
            save_file(tensors, directory / file.name)
        else:
            (directory / file.name).symlink_to(file)


def compare(way, weights, recording, out):
    import torch

    from understudy.model.types import Tuning

    def audio(seed):
        said = voice.speak(TEXT, seed=seed, tuning=Tuning(**TUNING))
        return digest(torch.from_numpy(said.samples))

    voice = loaded(way, weights)
    found = everything(voice._model)
    found["default audio"] = audio(3)
    voice.use_reference(recording, TUNING["exaggeration"])
    found |= conditionals(voice._model.conds, "recording")
    found["recording audio"] = audio(4)
    imported = sorted({name.partition(".")[0] for name in sys.modules})
    out.write_text(json.dumps({"tensors": found, "imported": imported}))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    command, *paths = sys.argv[1:]
    if command == "bare":
        bare(*map(Path, paths))
    else:
        compare(command, *map(Path, paths))
