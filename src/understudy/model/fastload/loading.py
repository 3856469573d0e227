"""Upstream's model, loaded in a fraction of the time and with the same bits.

``ChatterboxTTS.from_local`` fills 798 million parameters with random numbers, reads the files
over them, and then moves all of it to the device; and before that, upstream's imports take
longer still. Here the modules are built without random numbers, the files are read straight to
the device by a second thread while the first imports, and what an utterance never needs is not
imported (`lazy_import`). Buffers are computed by upstream's own code and on the CPU, as ever: a
GPU's last bits differ.

All of this knows upstream from within, so it is done for the versions in `KNOWN` only.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from understudy.model.fastload import kernels
from understudy.model.fastload.lazy_import import Later

#: What this was made for, and is tested with: all that is put off or gone round.
KNOWN = {
    "chatterbox-tts": "0.1.7",
    "diffusers": "0.29.0",
    "librosa": "0.11.0",
    "resemble-perth": "1.0.1",
    "s3tokenizer": "0.3.0",
    "transformers": "5.2.0",
}

#: In the order in which they are wanted.
FILES = ("t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors")

#: How long a thread may keep the others waiting, in seconds. At Python's own 5 ms the thread
#: that reads 3,000 tensors would wait for the one that imports 3,000 times.
SWITCH_S = 0.0002

_CHUNK = 8 * 2**20
_ROOTS = ("chatterbox", "diffusers", "perth", "s3tokenizer", "transformers")
_RANDOM = (
    "uniform_",
    "normal_",
    "trunc_normal_",
    "kaiming_uniform_",
    "kaiming_normal_",
    "xavier_uniform_",
    "xavier_normal_",
    "orthogonal_",
)

log = logging.getLogger("understudy.loading")


def known() -> bool:
    """Return whether every version is one that this was made for; say so where not."""
    for name, version in KNOWN.items():
        try:
            there = metadata.version(name)
        except metadata.PackageNotFoundError:
            there = "missing"
        if there != version:
            log.warning(
                "%s is %s, and how to load it fast is known of %s: loading as upstream does",
                *(name, there, version),
            )
            return False
    return True


class Loading:
    """The steps of loading one model; to be entered before torch is imported.

    While it is entered, what can wait is not imported, and no garbage is collected: of a
    million new objects hardly one is.

    Args:
        weights_dir: what ``ChatterboxTTS.from_local`` wants.
        device: a torch device.
        fast: False leaves everything to upstream.
    """

    def __init__(self, weights_dir: Path, device: str, *, fast: bool = True) -> None:
        self._dir, self._device, self._fast = weights_dir, device, fast
        self._reader = _Reader(weights_dir, device) if fast and known() else None
        self._left, self._stand_ins = contextlib.ExitStack(), contextlib.ExitStack()

    def __enter__(self) -> Loading:
        if not self._fast:
            return self
        self._left.callback(gc.enable if gc.isenabled() else gc.disable)
        gc.disable()
        if self._reader:
            self._left.callback(self._reader.stop)
            self._left.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(SWITCH_S)
            self._left.enter_context(self._stand_ins)
            self._stand_ins.enter_context(_distributions_by_name())
            self._stand_ins.enter_context(_upstream())
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()
        if self._fast:
            gc.freeze()  # what is here now stays; there is no need to look through it again

    def import_upstream(self) -> None:
        """Import upstream, after torch."""
        if self._reader:
            self._reader.start()
            try:
                import chatterbox.tts
            except Exception as error:  # of whatever kind: nothing else is known of it
                log.warning("without what can wait: %r; importing all of it", error)
                self._stand_ins.close()
                for name in list(sys.modules):  # half imported, some of it
                    if name.partition(".")[0] in _ROOTS:
                        del sys.modules[name]
        import chatterbox.tts  # noqa: F401

    def model(self) -> Any:
        """Return a ``ChatterboxTTS``, every parameter and buffer as from its ``from_local``.

        Raises:
            FileNotFoundError, RuntimeError: as upstream does, on missing or broken weights.
        """
        from chatterbox import tts

        model = self._reader and _from_local(tts, self._dir, self._device, self._reader)
        return model or tts.ChatterboxTTS.from_local(self._dir, self._device)


def _upstream() -> Later:
    """Return the list of what upstream imports and an utterance does without."""
    llama = "transformers.models.llama"
    return Later(
        modules=(
            "accelerate",
            "librosa",
            "numba",
            "onnx",
            "requests",
            "scipy",
            "sklearn",
            "torch._dynamo",
            "transformers.image_transforms",
            "transformers.model_debugging_utils",
            "transformers.processing_utils",
        ),
        # Both look through the source of every model there is to know where to find what.
        packages=("transformers", "transformers.models"),
        homes={
            "transformers.GenerationMixin": "transformers.generation.utils",
            "transformers.LlamaConfig": f"{llama}.configuration_llama",
            "transformers.LlamaModel": f"{llama}.modeling_llama",
            "transformers.LlamaPreTrainedModel": f"{llama}.modeling_llama",
            "transformers.processing_utils.Unpack": "typing",
        },
        short={
            "librosa.filters.mel": kernels.mel,
            "librosa.resample": kernels.resample,
            "scipy.signal.get_window": kernels.get_window,
            # Marks for torch.compile, which is not used here.
            "torch._dynamo.allow_in_graph": _unmarked,
            "torch._dynamo.disable": _unmarked,
        },
    )


def _unmarked(function: Any = None, *_: Any, **__: Any) -> Any:
    return _unmarked if function is None else function


@contextlib.contextmanager
def _distributions_by_name() -> Iterator[None]:
    """Have transformers find versions without reading the list of files of every package.

    It wants those of a dozen packages whose distributions have their names.
    """
    real = metadata.packages_distributions

    class ByName(dict[str, list[str]]):
        def __missing__(self, package: str) -> list[str]:
            try:
                metadata.version(package)
            except metadata.PackageNotFoundError:
                return list(real()[package])
            return [package.replace("_", "-")]

    metadata.packages_distributions = ByName
    try:
        yield
    finally:
        metadata.packages_distributions = real


class _Reader:
    """A thread that has the weights on the device by the time the modules are built.

    Args:
        weights_dir: what ``ChatterboxTTS.from_local`` wants.
        device: a torch device.
    """

    def __init__(self, weights_dir: Path, device: str) -> None:
        self._dir, self._device = weights_dir, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._tensors: dict[str, Future[dict[str, Any]]] = {}
        self._thread.submit(_begin_context, device)
        self._thread.submit(_read_ahead, [weights_dir / name for name in FILES])

    def start(self) -> None:
        """Read the tensors, now that torch is imported."""
        import safetensors.torch  # noqa: F401 - here, since two threads may not import it at once

        for name in FILES:
            self._tensors[name] = self._thread.submit(_tensors, self._dir / name, self._device)
        self._thread.submit(_wake, self._device)

    def tensors(self, name: str) -> dict[str, Any]:
        """Return what is in a file, on the device; once.

        Raises:
            FileNotFoundError, RuntimeError: as safetensors does.
        """
        return self._tensors.pop(name).result()

    def stop(self) -> None:
        """Wait for what runs and drop the rest."""
        self._thread.shutdown(cancel_futures=True)


def _begin_context(device: str) -> None:
    """Make the CUDA context that torch will use, while torch is still being imported.

    Whatever goes wrong here goes wrong again in torch, which can say so.
    """
    if not device.startswith("cuda"):
        return
    with contextlib.suppress(OSError, AttributeError, ValueError):
        cuda = ctypes.CDLL("libcuda.so.1")
        handle, context = ctypes.c_int(), ctypes.c_void_p()
        index = int(device.partition(":")[2] or 0)
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(handle), index) == 0:
            cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle)


def _read_ahead(paths: list[Path]) -> None:
    """Read the files once, so that the next reader finds them in memory."""
    buffer = bytearray(_CHUNK)
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _tensors(path: Path, device: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    tensors = load_file(path, device=device)
    # On a CPU they are the file itself, mapped; it must be free to be replaced.
    return {k: t.clone() for k, t in tensors.items()} if device == "cpu" else dict(tensors)


def _wake(device: str) -> None:
    """Have the libraries of a GPU initialised before they are needed."""
    if not device.startswith("cuda"):
        return
    import torch

    with torch.inference_mode():
        a = torch.zeros(1, 64, 64, device=device)
        torch.nn.functional.conv1d(a, torch.zeros(64, 64, 3, device=device), padding=1)
        torch.nn.functional.scaled_dot_product_attention(a[None], a[None], a[None])
        torch.stft(a[0], 16, 4, window=torch.hann_window(16, device=device), return_complex=True)
        torch.matmul(a, a).softmax(-1)
        torch.cuda.synchronize(device)


def _from_local(tts: Any, weights_dir: Path, device: str, reader: _Reader) -> Any:
    """Build the modules and give them their tensors; None where a file lacks a parameter."""
    with _no_first_values():
        t3, s3gen, ve = tts.T3(), tts.S3Gen(), tts.VoiceEncoder()
        for name, module in zip(FILES, (t3, s3gen, ve), strict=True):
            # Upstream is strict with all but S3Gen, whose computed buffers may be missing.
            if lacking := _fill(module, reader.tensors(name), strict=module is not s3gen):
                log.warning("%s has no %s: loading as upstream does", name, ", ".join(lacking))
                return None
            module.to(device).eval()
        tokenizer = tts.EnTokenizer(str(weights_dir / "tokenizer.json"))
        conds, default = None, weights_dir / "conds.pt"
        if default.exists():
            place = "cpu" if device in ("cpu", "mps") else None
            conds = tts.Conditionals.load(default, map_location=place).to(device)
        return tts.ChatterboxTTS(t3, s3gen, ve, tokenizer, device, conds=conds)


def _fill(module: Any, tensors: dict[str, Any], *, strict: bool) -> list[str]:
    """Make the tensors a module's own; return which of its parameters are not among them."""
    own = module.state_dict()
    for name in own.keys() & tensors.keys():
        tensors[name] = tensors[name].to(own[name].dtype)
    missing = module.load_state_dict(tensors, strict=strict, assign=True).missing_keys
    parameters = dict(module.named_parameters())
    return [name for name in missing if name in parameters]


@contextlib.contextmanager
def _no_first_values() -> Iterator[None]:
    """Leave memory as it comes where a module would fill it with what the files replace.

    That is random numbers, and norms and products of them where a weight is kept as both.
    """
    import torch

    def leave(tensor: Any, *_: Any, **__: Any) -> Any:
        return tensor

    def norm(tensor: Any, _: int, dim: int) -> Any:
        return tensor.new_empty([n if i == dim else 1 for i, n in enumerate(tensor.shape)])

    others = [(torch, "_weight_norm", leave), (torch, "norm_except_dim", norm)]
    with contextlib.ExitStack() as restored:
        random = itertools.product((torch.nn.init, torch.Tensor), _RANDOM, (leave,))
        for owner, name, instead in [*random, *others]:
            if name in vars(owner):
                restored.callback(setattr, owner, name, getattr(owner, name))
            elif hasattr(owner, name):  # inherited
                restored.callback(delattr, owner, name)
            else:
                continue
            setattr(owner, name, instead)
        yield
