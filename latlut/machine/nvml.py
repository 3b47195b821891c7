"""The NVIDIA driver's library, through nvidia-ml-py."""

from __future__ import annotations

from typing import Any


def nvml_errors(pynvml: Any) -> tuple[type[Exception], ...]:
    """What calls of the library raise.

    A call that the driver's library does not have, as the third version of those for processes
    before driver 510, is a ``NVMLLibraryMismatchError``, which is no ``NVMLError``.
    """
    mismatch = getattr(pynvml, "NVMLLibraryMismatchError", None)
    return (pynvml.NVMLError,) if mismatch is None else (pynvml.NVMLError, mismatch)


def open_nvml() -> tuple[Any, str]:
    """The module ``pynvml`` with the library open, or None and the reason.

    Whoever gets the module closes the library with its ``nvmlShutdown``.
    """
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except (*nvml_errors(pynvml), OSError) as error:
        return None, f"the NVIDIA driver's library does not answer: {error}"
    return pynvml, ""
