"""Workloads, and the ONNX graphs that ONNX engines load.

A workload is what an engine is asked to run: one operator or a whole network, with its input
shapes. Exporting takes about 0.1 s an operator, so exported graphs are cached by content: the op
specs, the source of their operators, the exporter's version. The cache is bounded; the graphs
that were not used for longest go first.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from latlut import operators
from latlut.errors import EngineError
from latlut.opspec import IMAGE, Node, OpSpec

OPSET = 17
CACHE_LIMIT_BYTES = 4 << 30


@dataclass(frozen=True)
class Workload:
    """An operator or a network with the shapes of its inputs; B, C, H, W in ``input_shapes``."""

    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    specs: tuple[OpSpec, ...]
    nodes: tuple[Node, ...] = ()

    @classmethod
    def from_spec(cls, spec: OpSpec) -> Workload:
        """The workload of one operator."""
        return cls(spec.key, tuple((spec.batch, *shape) for shape in spec.inputs), (spec,))

    @classmethod
    def from_nodes(cls, nodes: Sequence[Node], name: str) -> Workload:
        """The workload of a whole network; the first node takes the image."""
        first = next(node for node in nodes if IMAGE in node.inputs)
        shape = first.spec.inputs[first.inputs.index(IMAGE)]
        specs = tuple(node.spec for node in nodes)
        return cls(name, ((first.spec.batch, *shape),), specs, tuple(nodes))

    def build(self) -> nn.Module:
        """The PyTorch module, in evaluation mode, with seeded weights."""
        if self.nodes:
            return operators.Network(self.nodes).eval()
        return operators.build(self.specs[0])

    def random_inputs(self, seed: int = 0) -> list[np.ndarray]:
        """Standard normal float32 arrays of ``input_shapes``."""
        generator = np.random.default_rng(seed)
        return [generator.standard_normal(s, dtype=np.float32) for s in self.input_shapes]

    @cached_property
    def digest(self) -> str:
        """Name of the graph in the cache: a hash of all that shapes it."""
        digest = hashlib.sha256()
        parts = [f"opset {OPSET}", torch.__version__, operators.source_digest(self.specs)]
        if self.nodes:
            parts += [f"{node.name}({','.join(node.inputs)}) {node.spec}" for node in self.nodes]
        else:
            parts.append(self.specs[0].key)
        digest.update("\n".join(parts).encode())
        return digest.hexdigest()


def export_onnx(module: nn.Module, inputs: Sequence[np.ndarray], opset: int = OPSET) -> bytes:
    """The module as a serialised ONNX model with batch norms folded, inputs ``in0``, ``in1``, ...

    Raises:
        EngineError: the module cannot be exported; the exporter's message is kept.
    """
    buffer = io.BytesIO()
    names = [f"in{index}" for index in range(len(inputs))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The TorchScript exporter takes 0.1 s an operator, the dynamo one 0.7 to 1.1 s.
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(array) for array in inputs),
                buffer,  # type: ignore[arg-type]  # a file object, as the exporter without dynamo takes
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=["out"],
            )
    except Exception as error:
        raise EngineError(f"PyTorch cannot export this to ONNX opset {opset}: {error}") from error
    return buffer.getvalue()


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
        path = self.folder / workload.digest[:2] / f"{workload.digest}.onnx"
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
        shapes = [np.zeros(shape, dtype=np.float32) for shape in workload.input_shapes]
        content = export_onnx(workload.build() if module is None else module, shapes)
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
