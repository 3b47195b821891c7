"""Exported graphs on disk, by content: op specs, the source of their operators, the exporter.

The cache is bounded; the graphs that were not used for longest go first.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latlut.files.writing import BoundedFolder, cache_folder, read_cached, write_cached
from latlut.operators.workloads import Workload

if TYPE_CHECKING:
    from torch import nn

LIMIT_BYTES = 4 << 30


class GraphCache(BoundedFolder):
    """Exported graphs on disk, by content.

    Args:
        folder: where they live; by default the user's cache folder.
        is_enabled: read and write it; without, every graph is exported each time.

    Attributes:
        hits, misses: graphs that were found in it, and that were exported.
    """

    def __init__(self, folder: Path | None = None, *, is_enabled: bool = True) -> None:
        super().__init__(folder or cache_folder("graphs"), ".onnx", LIMIT_BYTES)
        self.is_enabled = is_enabled
        self.hits = self.misses = 0

    def onnx_bytes(self, workload: Workload, module: nn.Module | None = None) -> bytes:
        """The workload's ONNX model, from the cache where it is there.

        Args:
            workload: what to export.
            module: the workload's module, where it is built already.
        """
        digest = workload.digest
        if digest is None:
            return workload.onnx_bytes(module)
        path = self.path_of(digest)
        content = read_cached(path) if self.is_enabled else None
        if content is not None:
            self.hits += 1
            return content
        self.misses += 1
        content = workload.onnx_bytes(module)
        # A cache that cannot be written is no reason to stop measuring; it is not tried again.
        self.is_enabled = self.is_enabled and write_cached(path, content)
        return content
