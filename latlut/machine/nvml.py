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
    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError, OSError) as error:
        return None, f"the NVIDIA driver's library does not answer: {error}"
    return pynvml, ""
