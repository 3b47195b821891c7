"""What an engine's own message says about the GPU: has it gone, is its memory full?

CUDA libraries report through their own exceptions and logs, but all of them quote the driver's
texts. After some of these the GPU is of no more use to the process; whoever sweeps a plan must
know, so that the rest of the plan is not marked as failed one by one.
"""

from __future__ import annotations

from latlut.errors import DeviceLostError, EngineError

#: Texts after which every further call in this process fails, too.
#: Source: CUDA runtime API, cudaError_t ("leaves the process in an inconsistent state and any
#: further CUDA work will return the same error"), the driver's texts for them; NVML.
_LOST = (
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "unspecified launch failure",
    "uncorrectable ecc error",
    "the launch timed out and was terminated",
    "hardware stack error",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "context is destroyed",
    "no cuda-capable device is detected",
    "cuda-capable device(s) is/are busy or unavailable",
    "gpu is lost",
    "gpu has fallen off the bus",
    "device lost",
)
_OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "cuda_error_out_of_memory",
    "cudaerrormemoryallocation",
    "requested size was",  # TensorRT: "Requested size was N bytes", after a failed allocation
)


def is_device_lost(message: str) -> bool:
    """Whether the message is of those after which the process cannot use the GPU any more."""
    lowered = message.lower()
    return any(text in lowered for text in _LOST)


def is_out_of_memory(message: str) -> bool:
    """Whether the message says that the device's memory did not suffice."""
    lowered = message.lower()
    return any(text in lowered for text in _OUT_OF_MEMORY)


def engine_error(message: str) -> EngineError:
    """The exception for an engine's message, with what can be done about it.

    Args:
        message: names the engine and the workload, and quotes what the engine says.

    Returns:
        A DeviceLostError where the GPU is of no more use, else an EngineError.
    """
    if is_device_lost(message):
        return DeviceLostError(
            f"{message}\nthe GPU can no longer be used by this process; what was measured is "
            "stored: check it with nvidia-smi, then run the same command again"
        )
    if is_out_of_memory(message):
        return EngineError(
            f"{message}\nthe GPU's memory does not suffice: end other programs on it "
            "(nvidia-smi lists them), or measure a smaller input or batch"
        )
    return EngineError(message)
