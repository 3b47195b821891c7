"""Pieces of graphs as engines run them: alone, and between neighbours (``operators.in_context``).

Alone a piece is spared what engines do at the ends of a graph and not between the layers of a
network, converting feature maps from and to (B, C, H, W): an input may come in the layout that the
engine computes in, and an output ends in a sink. A network's own inputs and outputs are left.

In context a feature map (B, C, H, W) of more than three channels comes out of a 1x1 convolution
with ReLU and ends in a sink that pools, as an operator's; other floating-point tensors of two axes
or more come out of a product with a narrow matrix and end in their first column. What is left,
whole numbers and images, is read and written as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from latlut.operators.in_context import (
    NEIGHBOUR_CHANNELS,
    SINK_STRIDE,
    Context,
)
from latlut.operators.onnx_files import OnnxWorkload, read_onnx
from latlut.operators.subgraph import FIRST, LAST, Subgraph, is_map, shape_of
from latlut.operators.subgraph_weights import with_weights


def workload_of(subgraph: Subgraph) -> OnnxWorkload:
    """The piece by itself, with seeded weights."""
    whole = with_weights(subgraph.model)
    outputs = list(whole.graph.output)
    del whole.graph.output[:]
    for number, item in enumerate(outputs):
        if _has_free_layout(item):
            _add_sink(whole.graph, item, number)
        else:
            whole.graph.output.append(item)
    free = tuple(item.name for item in whole.graph.input if _has_free_layout(item))
    found = read_onnx(whole.SerializeToString(), name=subgraph.spec.key)
    return replace(found, free_layouts=free)


def _has_free_layout(item: Any) -> bool:
    from onnx import TensorProto

    if item.name.startswith((FIRST, LAST)):
        return False
    return item.type.tensor_type.elem_type == TensorProto.FLOAT and is_map(shape_of(item))


def context_of(subgraph: Subgraph) -> Context:
    """The piece between its neighbours, and these alone; without any where it has none."""
    import onnx

    whole = with_weights(subgraph.model)
    bare = onnx.ModelProto()
    bare.CopyFrom(whole)
    for part in (bare.graph.node, bare.graph.initializer, bare.graph.output):
        del part[:]
    inputs, outputs = list(whole.graph.input), list(whole.graph.output)
    names = [item.name for item in inputs if _Neighbour.has(item)]
    made = [_Neighbour(item, number) for number, item in enumerate(inputs)]
    for model, ends in ((whole, outputs), (bare, [i for i in inputs if i.name in names])):
        graph = model.graph
        before = [node for neighbour in made for node in neighbour.nodes]
        after = list(graph.node)
        del graph.node[:], graph.input[:], graph.output[:]
        kept = [m for m in made if model is whole or m.name in names]
        graph.input.extend(neighbour.input for neighbour in kept)
        graph.initializer.extend(w for neighbour in kept for w in neighbour.weights)
        graph.node.extend([*before, *after])
        for number, item in enumerate(ends):
            _add_sink(graph, item, number)
    key = subgraph.spec.key
    with_operator = read_onnx(whole.SerializeToString(), name=f"{key} in context")
    if not names:
        return Context(with_operator, None)
    shapes = "; ".join(str(shape_of(item)) for item in inputs if item.name in names)
    return Context(with_operator, read_onnx(bare.SerializeToString(), name=f"neighbours {shapes}"))


class _Neighbour:
    """What an input of a piece comes out of: its own input, nodes and weights."""

    def __init__(self, item: Any, number: int) -> None:
        from onnx import TensorProto, helper

        self.name, self.input, self.nodes, self.weights = item.name, item, [], []
        if not self.has(item):
            return
        shape, source = shape_of(item), f"before{number}"
        has_channels = is_map(shape)
        channels = shape[1] if has_channels else shape[-1]
        narrow = list(shape)
        narrow[1 if has_channels else -1] = NEIGHBOUR_CHANNELS
        sides = (
            [channels, NEIGHBOUR_CHANNELS, 1, 1] if has_channels else [NEIGHBOUR_CHANNELS, channels]
        )
        values = np.random.default_rng([1, number]).standard_normal(sides, dtype=np.float32)
        weight, middle = f"weight{number}", f"middle{number}"
        self.weights = [helper.make_tensor(weight, TensorProto.FLOAT, sides, values, raw=False)]
        self.input = helper.make_tensor_value_info(source, TensorProto.FLOAT, narrow)
        kind = "Conv" if has_channels else "MatMul"
        self.nodes = [
            helper.make_node(kind, [source, weight], [middle], name=f"neighbour{number}"),
            helper.make_node("Relu", [middle], [item.name], name=f"after{number}"),
        ]

    @staticmethod
    def has(item: Any) -> bool:
        """Whether an input has a neighbour."""
        from onnx import TensorProto

        shape = shape_of(item)
        if item.type.tensor_type.elem_type != TensorProto.FLOAT or len(shape) < 2:
            return False
        return is_map(shape) if len(shape) == 4 else True


def _add_sink(graph: Any, item: Any, number: int) -> None:
    """End a tensor in what reads a small part of it."""
    from onnx import TensorProto, helper

    shape, kind = shape_of(item), item.type.tensor_type.elem_type
    if kind != TensorProto.FLOAT or len(shape) < 2:
        graph.output.append(item)
        return
    end, middle = f"end{number}", f"pooled{number}"
    if len(shape) == 4:
        kernel = [min(2, side) for side in shape[2:]]
        strides = [SINK_STRIDE] * 2
        graph.node.extend(
            [
                helper.make_node(
                    "MaxPool", [item.name], [middle], kernel_shape=kernel, strides=strides
                ),
                helper.make_node("GlobalAveragePool", [middle], [end]),
            ]
        )
        sides = [*shape[:2], 1, 1]
    else:
        ends = [helper.make_tensor(f"{name}{number}", TensorProto.INT64, [1], [value])
                for name, value in (("from", 0), ("to", 1), ("axis", len(shape) - 1))]  # fmt: skip
        graph.initializer.extend(ends)
        slicing = [item.name, *(tensor.name for tensor in ends)]
        graph.node.append(helper.make_node("Slice", slicing, [end]))
        sides = [*shape[:-1], 1]
    graph.output.append(helper.make_tensor_value_info(end, kind, sides))
