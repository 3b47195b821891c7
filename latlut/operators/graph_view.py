"""An ONNX graph as counting sees it: functions inlined, shapes inferred, constants by name."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from latlut.operators.onnx_files import OnnxWorkload, runtime_session
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
#: Seconds that a graph may run to show its shapes.
_RUN_S = 5.0
#: Bytes that it may take for it.
_RUN_BYTES = 768 << 20
#: Kinds whose outputs have sizes that depend on values.
_SIZED_BY_VALUES = {"NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit"}
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
    return _scope(_inferred(inlined(model)).graph, None)


def learn_shapes(scope: Scope, workload: OnnxWorkload) -> None:
    """Add the shapes that ONNX Runtime's tensors have when it runs the graph as it is.

    Inference knows no operators of other domains. Sizes that depend on values stay unknown: those
    behind nodes that make them (``_SIZED_BY_VALUES``), and those that differ between two inputs. A
    graph that ONNX Runtime does not run adds nothing.
    """
    import onnx
    import onnxruntime

    unsure: set[str] = set()
    for node in scope.nodes:
        if node.op_type in _SIZED_BY_VALUES or unsure & {*node.input}:
            unsure.update(node.output)
    wanted = [
        name
        for node in scope.nodes
        for name in node.output
        if name and name not in scope.shapes and name in scope.varying - unsure
    ]
    if not wanted:
        return
    model = onnx.ModelProto()
    model.CopyFrom(inlined(workload.model))
    known = {item.name for item in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in wanted if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    # What a graph makes may be larger than the memory, and a loop in it may never end.
    _register_allocator()
    options.add_session_config_entry("session.use_env_allocators", "1")
    stopping = onnxruntime.RunOptions()
    timer = threading.Timer(_RUN_S, partial(setattr, stopping, "terminate", True))
    timer.start()
    try:
        content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
        session = runtime_session(content, workload.weights_folder, options, providers)
        first, second = (
            session.run(wanted, dict(zip(workload.names, arrays, strict=True)), stopping)
            for arrays in (workload.random_inputs(0), workload.random_inputs(1))
        )
    except Exception:  # ONNX Runtime's own exceptions have no common base
        return
    finally:
        timer.cancel()
    for name, one, other in zip(wanted, first, second, strict=True):
        shapes = {getattr(one, "shape", None), getattr(other, "shape", None)}
        if len(shapes) == 1 and None not in shapes:
            scope.shapes[name] = tuple(one.shape)
            scope.types.setdefault(name, onnx.helper.np_dtype_to_tensor_dtype(one.dtype))


@cache
def _register_allocator() -> None:
    """Make the memory of all sessions that share it bounded; those that are timed do not."""
    import onnxruntime

    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    bounds = onnxruntime.OrtArenaCfg({"max_mem": _RUN_BYTES})
    onnxruntime.create_and_register_allocator(where, bounds)


def inlined(model: Any) -> Any:
    """The model with its local functions where they are called."""
    import onnx.inliner

    return onnx.inliner.inline_local_functions(model) if model.functions else model


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
