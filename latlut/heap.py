"""The process's heap: what was freed goes back to the system."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc).

    An engine that is loaded next gets fresh memory for its weights and maps, instead of holes that
    a parsed graph or an earlier session left. In such holes OpenVINO is 3% to 4% slower, which a
    program that runs one network never sees (measured, docs/export-and-bench.md).
    """
    if os.name == "posix":
        with suppress(AttributeError, OSError):  # macOS, musl
            ctypes.CDLL(None).malloc_trim(0)
