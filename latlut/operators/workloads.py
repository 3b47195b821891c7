"""Workloads: what an engine is asked to run, with its input shapes.

An operator, a network of op specs, or a module that is built already (an ONNX file from outside is
one too: ``onnx_files``). Each kind says how it becomes a module and an ONNX model; that imports
torch.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from latlut.errors import OperatorError, SpecError, reason_of
from latlut.operators.input_arrays import random_arrays
from latlut.operators.input_axes import InputAxes, common_batch, find_axes
from latlut.opspec import IMAGE, Node, OpSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Workload(ABC):
    """What an engine runs; B, C, H, W in ``input_shapes``."""

    name: str
    input_shapes: tuple[tuple[int, ...], ...]

    #: What ``expected`` computes with.
    reference: ClassVar[str] = "PyTorch"
    #: Whether ``build`` gives a module.
    has_module: ClassVar[bool] = True
    #: Whether there is something to compare its outputs with.
    has_reference: ClassVar[bool] = True
    #: The one engine that runs it, as it is; None: any that takes modules or ONNX models.
    only_engine: ClassVar[str | None] = None

    @staticmethod
    def from_spec(spec: OpSpec) -> Workload:
        """The workload of one operator, or of a piece of a graph.

        Raises:
            UnknownNameError, SpecError: no such operator; a piece whose graph is not known.
        """
        from latlut.operators.registry import check

        graphs = check(spec).graphs
        if graphs is not None:
            made: Workload = graphs.workload(spec)
            return made
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
    def input_types(self) -> tuple[np.dtype, ...]:
        """The type of each input; float32 of what latlut builds."""
        return (np.dtype(np.float32),) * len(self.input_shapes)

    @property
    def batch(self) -> int | None:
        """Items that one run takes; None where it is not known which axis counts them."""
        return self.input_shapes[0][0]

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the image that it takes; None where it takes none."""
        shape = self.input_shapes[0]
        return (shape[2], shape[3]) if len(shape) == 4 else None

    @property
    def weights_folder(self) -> Path | None:
        """Where the weights lie that are too large to be in the ONNX model; None: nowhere else."""
        return None

    @property
    def arithmetic(self) -> str:
        """What it computes in before an engine's precision changes it."""
        return "fp32"

    @property
    def digest(self) -> str | None:
        """Name of the graph in the cache: a hash of all that shapes it; None: it is not cached."""
        return None

    def compared(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What of an engine's outputs is compared with ``expected``: all."""
        return list(outputs)

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
        from latlut.operators.onnx_export import export_onnx

        inputs = [np.zeros(shape, dtype=np.float32) for shape in self.input_shapes]
        return export_onnx(self.build() if module is None else module, inputs)

    @property
    def free_layouts(self) -> tuple[str, ...]:
        """Inputs that an engine may take in the layout that it computes in instead of (B, C, H, W):
        maps that come from the rest of a network."""
        return ()

    @property
    def input_limits(self) -> tuple[int | None, ...]:
        """Below what the whole numbers of each input have to be, None where nothing says."""
        return (None,) * len(self.input_shapes)

    def random_inputs(self, seed: int = 0) -> list[np.ndarray]:
        """What the inputs are filled with, see ``random_arrays``: standard normal float32 arrays
        of what latlut builds."""
        maps = [name in self.free_layouts for name in self.input_names]
        return random_arrays(self.input_shapes, self.input_types, seed, self.input_limits, maps)

    def expected(
        self, arrays: Sequence[np.ndarray], module: nn.Module | None = None
    ) -> list[np.ndarray]:
        """What the workload computes from these inputs, by its ``reference``; one array an output.

        Args:
            arrays: float32, of ``input_shapes``.
            module: the workload's module, where it is built already.

        Raises:
            OperatorError: the module raises.
        """
        import torch

        from latlut.operators.onnx_export import tensors_of_output

        built = self.build() if module is None else module
        try:
            with torch.inference_mode():
                found = built(*(torch.from_numpy(array) for array in arrays))
        except (Exception, SystemExit) as error:  # whatever somebody's module raises
            raise OperatorError(
                f"{self.name}: the module raised {type(error).__name__}: {reason_of(error)}"
            ) from error
        return [item.numpy() for item in tensors_of_output(found)]


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
        from latlut.operators.building import build

        return build(self.spec)


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
        return graph_digest(self.specs, lines, ["latlut.operators.network"])

    def build(self) -> nn.Module:
        """The network."""
        from latlut.operators.network import Network

        return Network(self.graph).eval()


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

    @property
    def batch(self) -> int | None:
        """Items that one run takes, told from the shapes; see ``input_axes``."""
        return common_batch(self._axes, self.input_shapes)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the first input that is an image, channels first or last."""
        pairs = zip(self._axes, self.input_shapes, strict=True)
        return next((size for axes, shape in pairs if (size := axes.image_size(shape))), None)

    @property
    def _axes(self) -> list[InputAxes]:
        """Of each input; of four axes whose order the shape does not show, (B, C, H, W)."""
        found = [find_axes("", shape) for shape in self.input_shapes]
        return [
            InputAxes(0, 1, 2, 3) if len(shape) == 4 and not axes.is_image else axes
            for axes, shape in zip(found, self.input_shapes, strict=True)
        ]

    def build(self) -> nn.Module:
        """The module itself."""
        return self.module


def graph_digest(specs: Sequence[OpSpec], lines: Sequence[str], modules: Sequence[str] = ()) -> str:
    """Name of a graph in the cache.

    Args:
        specs: its op specs, for the source of their operators.
        lines: whatever else shapes it.
        modules: names of the Python modules that put its operators together.
    """
    import torch

    from latlut.operators.building import source_digest
    from latlut.operators.onnx_export import OPSET

    parts = [f"opset {OPSET}", torch.__version__, source_digest(specs, modules), *lines]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
