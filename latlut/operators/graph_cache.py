"""Exported graphs on disk, by content.

The graphs of op specs are cached by the op specs, the source of their operators and the
exporter's version. The cache is bounded; the graphs that were not used for longest go first.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from torch import nn

from latlut.operators.workloads import Workload

CACHE_LIMIT_BYTES = 4 << 30


class GraphCache:
    """Exported graphs on disk, by content.

    Args:
        folder: where they live; by default the user's cache folder. None with ``is_enabled``
            False exports every time.
    """

    def __init__(self, folder: Path | None = None, *, is_enabled: bool = True) -> None:
        if folder is None:
            from platformdirs import user_cache_path

            folder = Path(os.environ.get("LATLUT_CACHE") or user_cache_path("latlut")) / "graphs"
        self.folder = folder
        self.is_enabled = is_enabled
        self.hits = 0
        self.misses = 0

    def onnx_bytes(self, workload: Workload, module: nn.Module | None = None) -> bytes:
        """The workload's ONNX model, from the cache where it is there.

        Args:
            workload: what to export.
            module: the workload's module, where it is built already.
        """
        digest = workload.digest
        if digest is None:
            return workload.onnx_bytes(module)
        path = self.folder / digest[:2] / f"{digest}.onnx"
        if self.is_enabled:
            try:
                content = path.read_bytes()
                self.hits += 1
                with suppress(OSError):  # a cache that is read-only is still good to read
                    os.utime(path)
                return content
            except OSError:
                pass
        self.misses += 1
        content = workload.onnx_bytes(module)
        if self.is_enabled:
            self._store(path, content)
        return content

    def _store(self, path: Path, content: bytes) -> None:
        """Write atomically; a cache that cannot be written is no reason to stop measuring."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                os.replace(temporary, path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError:
            self.is_enabled = False

    def size_bytes(self) -> int:
        """Bytes that the cached graphs take on disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*/*.onnx"))

    def trim(self, limit_bytes: int = CACHE_LIMIT_BYTES) -> None:
        """Delete the graphs that were not used for longest until the rest fits ``limit_bytes``."""
        files = sorted(
            (path.stat().st_mtime, path.stat().st_size, path)
            for path in self.folder.glob("*/*.onnx")
        )
        excess = sum(size for _, size, _ in files) - limit_bytes
        for _, size, path in files:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
