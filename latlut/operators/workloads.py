"""Workloads, and the ONNX graphs that ONNX engines load.

A workload is what an engine is asked to run, with its input shapes: an operator, a network of op
specs, or a module that is built already (an ONNX file from outside is one too: ``onnx_files``).
Each kind says how it becomes a module and an ONNX model. Exporting takes about 0.1 s an operator,
so the graphs of op specs are cached by content: the op specs, the source of their operators, the
exporter's version. The cache is bounded; the graphs that were not used for longest go first.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from latlut import operators
from latlut.errors import EngineError, SpecError
from latlut.opspec import IMAGE, Node, OpSpec

OPSET = 17
CACHE_LIMIT_BYTES = 4 << 30


@dataclass(frozen=True)
class Workload(ABC):
    """What an engine runs; B, C, H, W in ``input_shapes``."""

    name: str
    input_shapes: tuple[tuple[int, ...], ...]

    #: What ``expected`` computes with.
    reference: ClassVar[str] = "PyTorch"
    #: Whether ``build`` gives a module.
    has_module: ClassVar[bool] = True

    @staticmethod
    def from_spec(spec: OpSpec) -> OperatorWorkload:
        """The workload of one operator."""
        shapes = tuple((spec.batch, *shape) for shape in spec.inputs)
        return OperatorWorkload(spec.key, shapes, spec)

    @staticmethod
    def from_nodes(nodes: Sequence[Node], name: str) -> NetworkWorkload:
        """The workload of a whole network; the first node takes the image."""
        first = next(node for node in nodes if IMAGE in node.inputs)
        shape = first.spec.inputs[first.inputs.index(IMAGE)]
        return NetworkWorkload(name, ((first.spec.batch, *shape),), tuple(nodes))

    @staticmethod
    def from_module(
        module: nn.Module, input_shapes: Sequence[Sequence[int]], name: str
    ) -> ModuleWorkload:
        """The workload of a module with its own weights, in evaluation mode.

        Raises:
            SpecError: the module is in training mode: it would compute something else.
        """
        return ModuleWorkload(name, tuple(tuple(shape) for shape in input_shapes), module)

    @property
    def specs(self) -> tuple[OpSpec, ...]:
        """The op specs that it consists of, empty where it was not made from any."""
        return ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The graph of op specs of a network, empty for anything else."""
        return ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the ONNX model calls its inputs, in the order of ``input_shapes``."""
        return tuple(f"in{index}" for index in range(len(self.input_shapes)))

    @property
    def digest(self) -> str | None:
        """Name of the graph in the cache: a hash of all that shapes it; None: it is not cached."""
        return None

    @abstractmethod
    def build(self) -> nn.Module:
        """The PyTorch module, in evaluation mode.

        Raises:
            EngineError: there is none.
        """

    def onnx_bytes(self, module: nn.Module | None = None) -> bytes:
        """The workload as a serialised ONNX model.

        Args:
            module: the workload's module, where it is built already.

        Raises:
            EngineError: it cannot be exported.
        """
        inputs = [np.zeros(shape, dtype=np.float32) for shape in self.input_shapes]
        return export_onnx(self.build() if module is None else module, inputs)

    def random_inputs(self, seed: int = 0) -> list[np.ndarray]:
        """Standard normal float32 arrays of ``input_shapes``."""
        generator = np.random.default_rng(seed)
        return [generator.standard_normal(s, dtype=np.float32) for s in self.input_shapes]

    def expected(
        self, arrays: Sequence[np.ndarray], module: nn.Module | None = None
    ) -> list[np.ndarray]:
        """What the workload computes from these inputs, by its ``reference``; one array an output.

        Args:
            arrays: float32, of ``input_shapes``.
            module: the workload's module, where it is built already.
        """
        built = self.build() if module is None else module
        with torch.inference_mode():
            found = built(*(torch.from_numpy(array) for array in arrays))
        return [item.numpy() for item in (found if isinstance(found, (tuple, list)) else [found])]


@dataclass(frozen=True)
class OperatorWorkload(Workload):
    """One operator, with seeded weights."""

    spec: OpSpec

    @property
    def specs(self) -> tuple[OpSpec, ...]:
        """Its op spec."""
        return (self.spec,)

    @cached_property
    def digest(self) -> str:
        """See ``Workload``."""
        return graph_digest(self.specs, [self.spec.key])

    def build(self) -> nn.Module:
        """The operator."""
        return operators.build(self.spec)


@dataclass(frozen=True)
class NetworkWorkload(Workload):
    """A network as a graph of op specs, with seeded weights."""

    graph: tuple[Node, ...]

    @property
    def specs(self) -> tuple[OpSpec, ...]:
        """One op spec per node."""
        return tuple(node.spec for node in self.graph)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The graph."""
        return self.graph

    @cached_property
    def digest(self) -> str:
        """See ``Workload``."""
        lines = [f"{node.name}({','.join(node.inputs)}) {node.spec}" for node in self.graph]
        return graph_digest(self.specs, lines)

    def build(self) -> nn.Module:
        """The network."""
        return operators.Network(self.graph).eval()


@dataclass(frozen=True)
class ModuleWorkload(Workload):
    """A module that exists already; its graph is exported each time."""

    module: nn.Module = field(repr=False)

    def __post_init__(self) -> None:
        if any(part.training for part in self.module.modules()):
            raise SpecError(
                f"{self.name} is in training mode, where it computes something else than it will "
                "when it is used: call .eval() first"
            )

    def build(self) -> nn.Module:
        """The module itself."""
        return self.module


def graph_digest(specs: Sequence[OpSpec], lines: Sequence[str]) -> str:
    """Name of a graph in the cache.

    Args:
        specs: its op specs, for the source of their operators.
        lines: whatever else shapes it.
    """
    parts = [f"opset {OPSET}", torch.__version__, operators.source_digest(specs), *lines]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def export_onnx(
    module: nn.Module,
    inputs: Sequence[np.ndarray],
    opset: int = OPSET,
    is_batch_dynamic: bool = False,
) -> bytes:
    """The module as a serialised ONNX model with batch norms folded, inputs ``in0``, ``in1``, ...

    Args:
        module: in evaluation mode; one output, ``out``.
        inputs: one array per input, for its shape alone.
        opset: version of ONNX's operator set.
        is_batch_dynamic: leave the first side of inputs and output open, under the name ``batch``.

    Raises:
        EngineError: the module cannot be exported; the exporter's message is kept.
    """
    buffer = io.BytesIO()
    names = [f"in{index}" for index in range(len(inputs))]
    open_sides = {name: {0: "batch"} for name in [*names, "out"]} if is_batch_dynamic else None
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
                dynamic_axes=open_sides,
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
