"""Going through an ONNX model: its nodes and tensors, those in bodies and functions included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def bodies_of(node: Any) -> list[Any]:
    """The graphs (``onnx.GraphProto``) in a node's attributes: of an If, a Loop, a Scan."""
    return [
        graph
        for part in node.attribute
        for graph in [*([part.g] if part.HasField("g") else []), *part.graphs]
    ]


def graphs_of(model: Any) -> Iterator[Any]:
    """Every graph of an ``onnx.ModelProto``: its own, local functions, and bodies in them.

    A local function (``onnx.FunctionProto``) has nodes, like a graph, and no initializers.
    """
    left = [model.graph, *model.functions]
    while left:
        graph = left.pop()
        yield graph
        left += [body for node in graph.node for body in bodies_of(node)]


def nodes_of(model: Any) -> Iterator[Any]:
    """Every ``onnx.NodeProto`` of a model, in no particular order of graphs."""
    for graph in graphs_of(model):
        yield from graph.node


def tensors_of(model: Any) -> Iterator[Any]:
    """Every ``onnx.TensorProto`` of a model: initializers and attributes."""
    for graph in graphs_of(model):
        yield from getattr(graph, "initializer", ())
        for item in getattr(graph, "sparse_initializer", ()):
            yield from (item.values, item.indices)
    for node in nodes_of(model):
        for part in node.attribute:
            if part.HasField("t"):
                yield part.t
            yield from part.tensors
