"""What is built here and run there: graphs of operators and pieces, and their expected outputs.

A machine that has an inference engine but no PyTorch can build no operator. It is sent the ONNX
model, and a part of the outputs that the reference computes here from the inputs of the parity
check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from latlut.engines.base import PARITY_SEED
from latlut.errors import EngineError, ParityError
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec

if TYPE_CHECKING:
    from torch import nn

#: Elements of an output that are sent to be compared with, the largest among them.
COMPARED = 4096


@dataclass(frozen=True)
class SentOutput:
    """Elements of one output that the reference computed."""

    shape: tuple[int, ...]
    """Of the whole output."""
    places: np.ndarray
    """(n,) int64, in the flattened output."""
    values: np.ndarray
    """(n,) float32."""


@dataclass(frozen=True)
class SentWorkload(Workload):
    """An operator's or a piece's graph that another machine built."""

    spec: OpSpec
    graph: bytes = field(repr=False)
    input_names: tuple[str, ...] = ()
    input_types: tuple[np.dtype, ...] = ()
    input_limits: tuple[int | None, ...] = ()
    arithmetic: str = "fp32"
    free_layouts: tuple[str, ...] = ()
    outputs: tuple[SentOutput, ...] = field(default=(), repr=False)

    has_module: ClassVar[bool] = False

    @property
    def specs(self) -> tuple[OpSpec, ...]:
        """Its op spec."""
        return (self.spec,)

    def build(self) -> nn.Module:
        """Refused: the operator is not known here.

        Raises:
            EngineError: always.
        """
        raise EngineError(f"{self.name}: only its graph was sent")

    def onnx_bytes(self, module: nn.Module | None = None) -> bytes:
        """The graph."""
        return self.graph

    def compared(self, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The elements whose values were sent.

        Raises:
            ParityError: number or shapes of the outputs differ.
        """
        shapes = [item.shape for item in outputs], [item.shape for item in self.outputs]
        if shapes[0] != shapes[1]:
            raise ParityError(f"{self.name}: gives {shapes[0]}, {self.reference} {shapes[1]}")
        pairs = zip(outputs, self.outputs, strict=True)
        return [found.ravel()[sent.places] for found, sent in pairs]

    def expected(
        self, arrays: Sequence[np.ndarray], module: nn.Module | None = None
    ) -> list[np.ndarray]:
        """Those values.

        Raises:
            EngineError: none were sent.
        """
        if not self.outputs:
            raise EngineError(f"{self.name}: nothing was sent to compare its outputs with")
        return [sent.values for sent in self.outputs]


def graph_to_send(
    spec: OpSpec, cache: GraphCache, *, is_compared: bool
) -> tuple[dict[str, Any], list[bytes]]:
    """An op spec's graph, as ``received_graphs`` takes it: its description and its blobs.

    Args:
        spec: what to build.
        cache: of exported graphs.
        is_compared: whether reference outputs go with it.

    Raises:
        EngineError, OperatorError, SpecError: it cannot be built, exported or run.
    """
    workload = Workload.from_spec(spec)
    module = workload.build() if is_compared and workload.has_module else None
    blobs = [cache.onnx_bytes(workload, module)]
    outputs = []
    if is_compared:
        arrays = workload.random_inputs(seed=PARITY_SEED)
        for whole in workload.expected(arrays, module):
            places = _places(whole)
            outputs.append({"shape": list(whole.shape)})
            blobs += [places.tobytes(), whole.ravel()[places].astype("<f4").tobytes()]
    inputs = [
        {"name": name, "shape": list(shape), "type": str(dtype), "limit": limit}
        for name, shape, dtype, limit in zip(
            workload.input_names, workload.input_shapes, workload.input_types,
            workload.input_limits, strict=True,
        )
    ]  # fmt: skip
    values = {
        "spec": spec.key,
        "inputs": inputs,
        "outputs": outputs,
        "arithmetic": workload.arithmetic,
        "free_layouts": list(workload.free_layouts),
    }
    return values, blobs


def received_graphs(
    graphs: Sequence[dict[str, Any]], blobs: Sequence[bytes]
) -> dict[OpSpec, Workload]:
    """The workloads of what ``graph_to_send`` gave, one after the other."""
    found: dict[OpSpec, Workload] = {}
    rest = iter(blobs)
    for item in graphs:
        spec = OpSpec.parse(item["spec"])
        graph = next(rest)
        outputs = tuple(
            SentOutput(
                tuple(output["shape"]),
                np.frombuffer(next(rest), dtype="<i8"),
                np.frombuffer(next(rest), dtype="<f4"),
            )
            for output in item["outputs"]
        )
        inputs = item["inputs"]
        found[spec] = SentWorkload(
            spec.key,
            tuple(tuple(given["shape"]) for given in inputs),
            spec,
            graph,
            tuple(given["name"] for given in inputs),
            tuple(np.dtype(given["type"]) for given in inputs),
            tuple(given["limit"] for given in inputs),
            item["arithmetic"],
            tuple(item["free_layouts"]),
            outputs,
        )
    return found


def _places(whole: np.ndarray) -> np.ndarray:
    """(n,) int64: which elements are compared; the largest is one of them, for the scale."""
    if whole.size <= COMPARED:
        return np.arange(whole.size, dtype="<i8")
    chosen = np.random.default_rng(0).integers(whole.size, size=COMPARED - 1)
    return np.unique([*chosen, np.abs(whole).argmax()]).astype("<i8")
