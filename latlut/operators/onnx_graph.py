"""An ONNX file's graph made ready to be cut: one list of named nodes whose shapes are all known.

Functions are inlined. What computes sizes (the shape of a tensor, its parts, a reshape's target) is
computed once and becomes constants, as every engine does while loading.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from latlut.operators.graph_view import Scope, inlined, scope_of
from latlut.operators.onnx_files import OnnxWorkload
from latlut.operators.onnx_loading import making_sense_of
from latlut.operators.onnx_nodes import bodies_of
from latlut.operators.run_shapes import learn_shapes

#: Lists of so many numbers are computed while preparing.
_MOST_VALUES = 1024
#: Kinds whose outputs are no larger than their inputs together, broadcasting aside.
_FOLDED = {
    "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Neg", "Abs", "Floor", "Ceil", "Round", "Sqrt", "Min",
    "Max", "Cast", "Concat", "Gather", "Slice", "Split", "Squeeze", "Unsqueeze", "Reshape",
    "Transpose", "Flatten", "Identity", "Equal", "Greater", "Less", "Not", "And", "Or", "Where",
    "ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin",
}  # fmt: skip


@dataclass
class OpenGraph:
    """A graph whose nodes can be put into pieces."""

    name: str
    """Of the file."""
    model: Any
    """``onnx.ModelProto`` with names for all nodes, small constants folded."""
    scope: Scope = field(repr=False)
    """Shapes and types."""
    nodes: list[Any] = field(repr=False)
    """Those that depend on the inputs, in order."""
    constants: dict[str, Any] = field(repr=False)
    """Tensor -> its initializer, or the node that makes it from constants alone."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """``inputs`` and ``outputs``: of the graph."""

    @property
    def makers(self) -> dict[str, int]:
        """Tensor -> number of the node that gives it."""
        return {name: i for i, node in enumerate(self.nodes) for name in node.output if name}


def open_graph(workload: OnnxWorkload) -> OpenGraph:
    """The graph of a file whose input shapes are known.

    Raises:
        ImportFileError: it lacks what ONNX prescribes.
    """
    model = named_model(workload)
    with making_sense_of(workload.name):
        scope = scope_of(model)
        learn_shapes(scope, workload)
        return _opened(workload.name, model, scope)


def named_model(workload: OnnxWorkload) -> Any:
    """The file's ``onnx.ModelProto`` as engines get it, with names for all nodes.

    Raises:
        ImportFileError: it lacks what ONNX prescribes.
    """
    import onnx

    with making_sense_of(workload.name):
        model = onnx.ModelProto()
        model.CopyFrom(inlined(workload.model))
        _name_nodes(model.graph)
        return model


def _opened(called: str, model: Any, scope: Scope) -> OpenGraph:
    import onnx

    graph = model.graph
    constants: dict[str, Any] = {item.name: item for item in graph.initializer}
    values: dict[str, np.ndarray] = {}
    for item in graph.initializer:
        if item.data_location != item.EXTERNAL and math.prod(item.dims) <= _MOST_VALUES:
            with suppress(ValueError, TypeError):
                values[item.name] = onnx.numpy_helper.to_array(item)
    varying = {item.name for item in graph.input if item.name not in constants}
    nodes, left = [], []
    for node in graph.node:
        found = _folded(node, values, scope, model)
        if found is not None:
            for name, value in zip(node.output, found, strict=True):
                values[name] = value
                constants[name] = onnx.numpy_helper.from_array(value, name)
                graph.initializer.append(constants[name])
            continue
        left.append(node)
        if set(_used(node)) & varying or node.op_type.startswith(("Random", "Bernoulli")):
            varying.update(node.output)
            nodes.append(node)
        else:
            constants.update(dict.fromkeys(node.output, node))
    kept = list(map(_copied, left))
    del graph.node[:]
    graph.node.extend(kept)
    by_name = {node.name: node for node in graph.node}
    nodes = [by_name[node.name] for node in nodes]
    constants = {
        name: by_name[item.name] if hasattr(item, "op_type") else item
        for name, item in constants.items()
    }
    outputs = tuple(item.name for item in graph.output)
    inputs = tuple(item.name for item in graph.input if item.name not in constants)
    living = _living(nodes, outputs)
    return OpenGraph(called, model, scope, living, constants, inputs, outputs)


def _copied(node: Any) -> Any:
    import onnx

    made = onnx.NodeProto()
    made.CopyFrom(node)
    return made


def _living(nodes: Sequence[Any], outputs: Sequence[str]) -> list[Any]:
    """The nodes that an output needs."""
    wanted, found = set(outputs), []
    for node in reversed(nodes):
        if wanted & {*node.output}:
            wanted.update(_used(node))
            found.append(node)
    return found[::-1]


def _used(node: Any) -> Iterator[str]:
    """Tensors that a node takes, those that its bodies take from outside included."""
    yield from (name for name in node.input if name)
    for body in bodies_of(node):
        for inner in body.node:
            yield from _used(inner)


def _folded(
    node: Any, values: dict[str, np.ndarray], scope: Scope, model: Any
) -> list[np.ndarray] | None:
    """The outputs of a node that computes small constants; None of any other."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    if node.domain not in ("", "ai.onnx") or bodies_of(node):
        return None
    if node.op_type == "Constant":
        content = next((part.t for part in node.attribute if part.HasField("t")), None)
        if content is not None:
            return [onnx.numpy_helper.to_array(content)]
    elif node.op_type in ("Shape", "Size"):
        shape = scope.shapes.get(node.input[0])
        if shape is None:
            return None
        if node.op_type == "Size":
            return [np.array(math.prod(shape), dtype=np.int64)]
        ends = {part.name: part.i for part in node.attribute}
        return [np.array(shape[ends.get("start", 0) : ends.get("end")], dtype=np.int64)]
    elif not all(name in values and values[name].size <= _MOST_VALUES
                 for name in node.input if name):  # fmt: skip
        return None
    elif node.op_type not in _FOLDED and node.op_type != "Constant":
        shapes = [scope.shapes.get(name) for name in node.output]
        if any(shape is None or math.prod(shape) > _MOST_VALUES for shape in shapes):
            return None
    graph = onnx.helper.make_graph(
        [node],
        "folded",
        [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(
            values[name].dtype), values[name].shape) for name in dict.fromkeys(node.input) if name],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )  # fmt: skip
    try:
        made = onnx.helper.make_model(graph, opset_imports=model.opset_import)
        feeds = {name: values[name] for name in node.input if name}
        found = ReferenceEvaluator(made).run(None, feeds)
    except Exception:  # the evaluator's own have no common base; the engine computes it then
        return None
    arrays = [np.asarray(item) for item in found]
    return arrays if all(item.dtype.kind in "fiub" for item in arrays) else None


def _name_nodes(graph: Any) -> None:
    """Give every node a name of its own."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{index}"
        while name in taken:
            name += "_"
        node.name = name
        taken.add(name)
