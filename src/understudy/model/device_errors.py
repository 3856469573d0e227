"""What an error of the GPU means: whether the process can go on, and whether memory was short."""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Codes (``cudaError_t``) of errors that stay: every later call in the process raises them again.
LOST_CODES = frozenset(
    {
        3,  # initialization error
        4,  # driver shutting down
        46,  # devices unavailable
        100,  # no device
        101,  # invalid device
        201,  # invalid context
        214,  # uncorrectable ECC error
        220,  # uncorrectable NVLink error
        226,  # contained error
        700,  # illegal memory access
        702,  # launch timed out
        709,  # context is destroyed
        710,  # device-side assert
        714,  # hardware stack error
        715,  # illegal instruction
        716,  # misaligned address
        717,  # invalid address space
        718,  # invalid program counter
        719,  # unspecified launch failure
        721,  # tensor memory leak
        803,  # driver was replaced under the process
        806,  # MPS server lost
        810,  # MPS client terminated
        912,  # error on an external device
        999,  # unknown
    }
)
_OUT_OF_MEMORY_CODE = 2

#: The same in words, for what raises a plain RuntimeError.
_LOST = re.compile(
    r"illegal memory access|device-side assert|unspecified launch failure|launch failed"
    r"|uncorrectable (ecc|nvlink)|misaligned address|hardware stack error|illegal instruction"
    r"|invalid program counter|global/shared address space|launch timed out|context is destroyed"
    r"|driver shutting down|no cuda-capable device|devices?(\(s\))? is/are busy or unavailable"
    r"|fallen off the bus|gpu is lost|\bxid\b|cuda error: unknown error|invalid device context"
    r"|cuda(Error|_ERROR_)_?(illegal|assert|launch_?(failure|failed|timeout)|ecc|misaligned"
    r"|hardware|invalid_?(pc|addressspace|address_space)|nvlink)"
    r"|(cudnn_status|cublas_status)_(execution_failed|mapping_error)|cufft_exec_failed",
    re.IGNORECASE,
)
_DEVICE = re.compile(r"cuda|cudnn|cublas|cufft|nvrtc|nvml|nvrm|triton|\bgpu\b", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory"
    r"|alloc_failed|std::bad_alloc",
    re.IGNORECASE,
)


def is_device_lost(error: BaseException) -> bool:
    """Return whether a CUDA context does not survive an error, so that only a new process helps."""
    return any(_lost(one) for one in _chain(error))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was short, on the GPU or the host: it may be there again later."""
    return any(_no_memory(one) for one in _chain(error))


def _lost(error: BaseException) -> bool:
    if (code := _code(error)) is not None:
        return code in LOST_CODES
    text = str(error)
    return not _no_memory(error) and bool(_DEVICE.search(text) and _LOST.search(text))


def _no_memory(error: BaseException) -> bool:
    if (code := _code(error)) is not None:
        return code == _OUT_OF_MEMORY_CODE
    if isinstance(error, MemoryError) or "OutOfMemoryError" in _types(error):
        return True
    return isinstance(error, RuntimeError | OSError) and bool(_OUT_OF_MEMORY.search(str(error)))


def _code(error: BaseException) -> int | None:
    """Return the ``cudaError_t`` in a ``torch.AcceleratorError`` (torch 2.8 and later)."""
    code = getattr(error, "error_code", None) if "AcceleratorError" in _types(error) else None
    return code if isinstance(code, int) else None


def _types(error: BaseException) -> set[str]:
    """Return the names of an error's classes, so that torch need not be imported."""
    return {one.__name__ for one in type(error).__mro__}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
