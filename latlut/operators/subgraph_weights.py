"""The weights of a piece of a graph, drawn anew: what a table leaves out.

They are such that values stay in the normal range of floating-point numbers, where a CPU computes
at its usual speed: products keep the size of their inputs, variances are positive.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from latlut.operators.subgraph import is_open

#: Draws a tensor of a shape.
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv")


def with_weights(model: Any, seed: int = 0) -> Any:
    """The model with every weight that was left out; the same for the same seed.

    Args:
        model: ``onnx.ModelProto``; left as it is.
        seed: of the weights.
    """
    import onnx

    found = onnx.ModelProto()
    found.CopyFrom(model)
    users: dict[str, tuple[str, int]] = {}
    for node in found.graph.node:
        for position, name in enumerate(node.input):
            users.setdefault(name, (node.op_type, position))
    for number, tensor in enumerate(found.graph.initializer):
        if is_open(tensor):
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            user = users.get(tensor.name, ("", 0))
            values = _drawn(tuple(tensor.dims), np.random.default_rng([seed, number]), *user)
            if np.dtype(dtype).kind in "iu":
                values = values * 64
            tensor.raw_data = values.astype(dtype).tobytes()
    return found


def _drawn(
    shape: tuple[int, ...], generator: np.random.Generator, kind: str, position: int
) -> np.ndarray:
    """Float32 values for the input ``position`` of a node of that kind."""
    uniform = generator.random(shape, dtype=np.float32)
    if kind in _PRODUCTS and len(shape) > 1:
        is_first_output = kind == "Conv"
        fan_in = math.prod(shape[1:]) if is_first_output else shape[0]
        return (2 * uniform - 1) * np.float32((6.0 / max(1, fan_in)) ** 0.5)
    if kind in _PRODUCTS or (kind.endswith("Normalization") and position in (2, 3)):
        return 0.2 * uniform - 0.1
    return 0.5 + uniform
