"""Which errors a process survives."""

import pytest

from understudy.model.device_errors import is_device_lost, is_out_of_memory


class AcceleratorError(RuntimeError):
    """As torch's: with the code of the CUDA error."""

    def __init__(self, code, words="CUDA error"):
        super().__init__(words)
        self.error_code = code


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def caused(error, by):
    error.__cause__ = by
    return error


LOST = [
    RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: misaligned address"),
    RuntimeError("CUDA error: hardware stack error"),
    RuntimeError("CUDA error: an illegal instruction was encountered"),
    RuntimeError("CUDA error: the launch timed out and was terminated"),
    RuntimeError("CUDA error: invalid program counter"),
    RuntimeError("CUDA error: operation not supported on global/shared address space"),
    RuntimeError("CUDA error: unknown error"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
    RuntimeError("CUDA driver error: unspecified launch failure"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"),
    RuntimeError("cudaErrorECCUncorrectable"),
    RuntimeError("NVRM: Xid 79, GPU has fallen off the bus"),
    AcceleratorError(700),
    AcceleratorError(214, "any words"),
    caused(ValueError("no tokens"), AcceleratorError(710)),
    caused(OutOfMemoryError("CUDA out of memory"), AcceleratorError(719)),
]

SURVIVED = [
    OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ..."),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    AcceleratorError(2, "CUDA error: out of memory"),
    MemoryError(),
]

OTHER = [
    AcceleratorError(1, "CUDA error: invalid argument, unlike an illegal memory access"),
    RuntimeError("CUDA error: invalid argument"),
    RuntimeError("the text says: illegal memory access"),
    IndexError("index out of range in self"),
    RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"),
]


@pytest.mark.parametrize("error", LOST, ids=repr)
def test_what_a_context_does_not_survive(error):
    assert is_device_lost(error)


@pytest.mark.parametrize("error", SURVIVED, ids=repr)
def test_memory_comes_back(error):
    assert (is_device_lost(error), is_out_of_memory(error)) == (False, True)


@pytest.mark.parametrize("error", OTHER, ids=repr)
def test_other_errors(error):
    assert (is_device_lost(error), is_out_of_memory(error)) == (False, False)


def test_a_circle_of_causes_ends():
    error = RuntimeError("one")
    error.__cause__ = caused(RuntimeError("two"), error)
    assert not is_device_lost(error)
