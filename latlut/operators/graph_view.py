"""An ONNX graph as counting sees it: functions inlined, shapes inferred, constants by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from latlut.errors import ImportFileError
from latlut.operators.onnx_nodes import bodies_of, graphs_of, nodes_of

Shape = tuple[int, ...]

#: Nodes that hand a weight on, perhaps in another order, type or scale.
PASSING = {
    "Identity", "Cast", "CastLike", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze",
    "QuantizeLinear", "DequantizeLinear", "Slice", "Split", "Concat", "Expand",
}  # fmt: skip

#: Kinds whose values ONNX propagates, one dimension for each element of a list.
_PROPAGATING = {
    "Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze",
}  # fmt: skip
#: Elements of a list, above which its values are not propagated.
_MOST_VALUES = 1 << 16
#: Kinds whose outputs vary although nothing goes in.
_RANDOM = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
    "Multinomial",
}  # fmt: skip


@dataclass(frozen=True)
class Constant:
    """A value that does not depend on the graph's input."""

    size: int
    """Number of elements."""
    rank: int
    """Number of axes."""
    is_float: bool
    """Whether its elements are floating-point numbers."""
    value: int | None = None
    """The element of one that is a single whole number, such as a loop's length."""


@dataclass
class Scope:
    """A graph or the body of an If, Loop or Scan, which sees the names of the graphs around it."""

    nodes: list[Any]
    """Of this graph alone."""
    shapes: dict[str, Shape]
    """Tensor -> shape, of those that are known."""
    constants: dict[str, Constant]
    """Initializers and Constant nodes, by name."""
    varying: set[str]
    """Tensors that depend on the graph's inputs, or are drawn at random."""
    makers: dict[str, Any] = field(default_factory=dict)
    """Tensor -> the node that gives it."""
    types: dict[str, int] = field(default_factory=dict)
    """Tensor -> its type, a ``TensorProto.DataType``, of those that are known."""

    def body(self, graph: Any) -> Scope:
        """The scope of a node's body."""
        return _scope(graph, self)

    def sources(self, name: str) -> Iterator[str]:
        """The constants that a tensor hands on: itself, or what it was made from (``PASSING``)."""
        left, seen = [name], {name}
        while left:
            name = left.pop()
            if name in self.constants:
                yield name
                continue
            node = self.makers.get(name)
            if node is None or node.op_type not in PASSING or name in self.varying:
                continue
            inputs = node.input if node.op_type == "Concat" else node.input[:1]
            left += [source for source in reversed(inputs) if source not in seen]
            seen.update(inputs)


def attributes_of(node: Any) -> dict[str, Any]:
    """Name -> value of a node's attributes; texts as ``str``."""
    import onnx

    found = {part.name: onnx.helper.get_attribute_value(part) for part in node.attribute}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in found.items()
    }


def scope_of(model: Any) -> Scope:
    """The graph of an ``onnx.ModelProto``, with shapes as far as ONNX infers them."""
    return _scope(_inferred(_without_weights(inlined(model))).graph, None)


def inlined(model: Any) -> Any:
    """The model with its local functions where they are called.

    Raises:
        ImportFileError: they cannot be put there.
    """
    import onnx.inliner

    if not model.functions:
        return model
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # onnx's own have no common base
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ImportFileError(f"its functions cannot be inlined: {reason}") from error


def _without_weights(model: Any) -> Any:
    """A copy whose large weights have a type and a shape only; inference would copy them twice."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = light.graph
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(graph, name).extend(getattr(model.graph, name))
    graph.name = model.graph.name
    for item in model.graph.initializer:
        if item.ByteSize() > _MOST_VALUES:
            graph.initializer.add(name=item.name, data_type=item.data_type, dims=item.dims)
        else:
            graph.initializer.append(item)
    return light


def _inferred(model: Any) -> Any:
    """The model with the shapes that ONNX infers; as it is where ONNX cannot, such as one that
    uses a domain that it does not declare."""
    import onnx

    try:
        found = onnx.shape_inference.infer_shapes(model)
        # sizes that a graph computes, as those of a resize, are known only by propagating values
        if _has_short_lists(found):
            found = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return model
    return found


def _has_short_lists(model: Any) -> bool:
    """Whether no list that ONNX would propagate is longer than ``_MOST_VALUES``.

    One of unknown length counts as longer: ConstantOfShape gives any length that is computed.
    """
    lengths: dict[str, float] = {}
    for graph in graphs_of(model):
        lengths |= {item.name: _length(item.dims) for item in graph.initializer}
        for item in [*graph.input, *graph.output, *graph.value_info]:
            tensor = item.type.tensor_type
            if tensor.HasField("shape"):
                sides = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
                lengths[item.name] = _length(sides)
    for node in nodes_of(model):
        if node.op_type == "Constant":
            lengths[node.output[0]] = _length(_constant_node(node)[1])
    return all(
        lengths.get(name, math.inf) <= _MOST_VALUES
        for node in nodes_of(model)
        if node.op_type in _PROPAGATING
        for name in [*node.input, *node.output]
        if name
    )


def _length(sides: Sequence[int | None]) -> float:
    """Of a list; 1 for a number, 0 for what is no list, infinite where it is unknown."""
    if len(sides) != 1:
        return not sides
    return math.inf if sides[0] is None else sides[0]


def _scope(graph: Any, outer: Scope | None) -> Scope:
    shapes = dict(outer.shapes) if outer else {}
    constants = dict(outer.constants) if outer else {}
    makers = dict(outer.makers) if outer else {}
    varying = set(outer.varying) if outer else set()
    for item in graph.initializer:
        shapes[item.name], constants[item.name] = tuple(item.dims), _constant(item)
    for item in graph.sparse_initializer:
        shapes[item.values.name] = tuple(item.dims)
        constants[item.values.name] = _constant(item.values)
    for item in [*graph.input, *graph.output, *graph.value_info]:
        tensor = item.type.tensor_type
        if tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim):
            shapes.setdefault(item.name, tuple(d.dim_value for d in tensor.shape.dim))
    varying.update(item.name for item in graph.input if item.name not in constants)
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            constant, shape = _constant_node(node)
            constants[node.output[0]], shapes[node.output[0]] = constant, shape
            continue
        nodes.append(node)
        makers.update(dict.fromkeys(node.output, node))
        used = {*node.input, *(name for body in bodies_of(node) for name in _names_used(body))}
        if used & varying or node.op_type in _RANDOM:
            varying.update(node.output)
    types = dict(outer.types) if outer else {}
    types |= {item.name: item.data_type for item in graph.initializer}
    for item in [*graph.input, *graph.output, *graph.value_info]:
        if item.type.tensor_type.elem_type:
            types[item.name] = item.type.tensor_type.elem_type
    return Scope(nodes, shapes, constants, varying, makers, types)


def _names_used(graph: Any) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for body in bodies_of(node):
            yield from _names_used(body)


def _constant(item: Any) -> Constant:
    import onnx

    kind = onnx.TensorProto.DataType.Name(item.data_type)
    is_float = kind.startswith(("FLOAT", "BFLOAT", "DOUBLE"))
    value = None
    if not is_float and math.prod(item.dims) == 1 and item.data_location != item.EXTERNAL:
        value = int(onnx.numpy_helper.to_array(item).reshape(-1)[0]) if kind != "STRING" else None
    return Constant(math.prod(item.dims), len(item.dims), is_float, value)


def _constant_node(node: Any) -> tuple[Constant, Shape]:
    (part,) = node.attribute[:1]
    if part.name == "value":
        return _constant(part.t), tuple(part.t.dims)
    if part.name == "sparse_value":
        return _constant(part.sparse_tensor.values), tuple(part.sparse_tensor.dims)
    if part.name == "value_int":
        return Constant(1, 0, False, part.i), ()
    values = {"value_floats": part.floats, "value_ints": part.ints, "value_strings": part.strings}
    found = values.get(part.name)
    if found is None:  # a single number or text
        return Constant(1, 0, part.name == "value_float"), ()
    single = int(found[0]) if part.name == "value_ints" and len(found) == 1 else None
    return Constant(len(found), 1, part.name == "value_floats", single), (len(found),)
