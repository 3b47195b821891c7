"""Freed memory goes back to the system before an engine allocates."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest

from latlut.heap import return_freed_memory


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_holes_in_the_heap_are_given_back() -> None:
    blocks = [bytearray(4000) for _ in range(40_000)]  # 160 MB in blocks too small to be mapped
    keeper = bytearray(4000)  # above them: the heap cannot shrink from its end
    del blocks
    before = _resident_bytes()
    return_freed_memory()
    assert before - _resident_bytes() > 100_000_000
    assert keeper


def test_without_glibc_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    return_freed_memory()
