"""The NVIDIA driver's library, through nvidia-ml-py."""

from __future__ import annotations

from typing import Any


def open_nvml() -> tuple[Any, str]:
    """The module ``pynvml`` with the library open, or None and the reason.

    Whoever gets the module closes the library with its ``nvmlShutdown``.
    """
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    failures: tuple[type[Exception], ...] = (*nvml_errors(pynvml), OSError)
    try:
        pynvml.nvmlInit()
    except failures as error:
        return None, f"the NVIDIA driver's library does not answer: {error}"
    return pynvml, ""


def nvml_errors(pynvml: Any) -> tuple[type[Exception], ...]:
    """What a call of ``pynvml`` raises, for an ``except``.

    Where the driver is older than the binding and lacks a function, the binding raises
    ``NVMLError_FunctionNotFound`` or ``NVMLLibraryMismatchError``, by its version; the second is
    no ``NVMLError``.
    """
    names = ("NVMLError", "NVMLLibraryMismatchError", "NVMLError_FunctionNotFound")
    found = (getattr(pynvml, name, None) for name in names)
    return tuple(kind for kind in found if isinstance(kind, type))


def first_answer(pynvml: Any, names: tuple[str, ...], *arguments: object) -> Any:
    """The answer of the first of these functions that the binding and the driver both have.

    Newest first: the binding's plain name calls the newest version that it knows, which an older
    driver lacks although it answers the version before. None where no version answers.

    Raises:
        NVMLError: the driver says that the GPU is lost.
    """
    for name in names:
        function = getattr(pynvml, name, None)
        if function is None:
            continue
        try:
            return function(*arguments)
        except nvml_errors(pynvml) as error:
            if is_lost(pynvml, error):
                raise
    return None


def is_lost(pynvml: Any, error: Exception) -> bool:
    """Whether the error of a call says that the GPU has gone."""
    lost = getattr(pynvml, "NVML_ERROR_GPU_IS_LOST", None)
    return lost is not None and getattr(error, "value", None) == lost
