"""Cutting an ONNX graph into pieces that are timed one by one.

A piece is a set of nodes: by what an engine fuses into one layer (``by_layers``), or, for any
engine, a convolution or product with the element-wise nodes behind it (``by_work``). What cannot be
a piece (loops, operators of other domains, sizes that depend on data) is named, never left out
silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from latlut.errors import SpecError
from latlut.operators import subgraph_store
from latlut.operators.onnx_files import OnnxWorkload
from latlut.operators.onnx_graph import OpenGraph, open_graph
from latlut.operators.onnx_loading import making_sense_of
from latlut.operators.onnx_nodes import bodies_of
from latlut.operators.subgraph import (
    DOMAINS,
    FIRST,
    LAST,
    MAX_NUMBERS,
    MAX_SCALARS,
    WEIGHTED,
    Subgraph,
    is_map,
    unsound,
)
from latlut.operators.subgraph_kinds import MAX_BYTES
from latlut.opspec import OpSpec

_DEPENDS = "its sizes depend on the data"
#: Nodes that engines compute with the one before: element by element, or a tensor seen otherwise.
_TAILS = {
    "Relu", "LeakyRelu", "PRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu",
    "Selu", "Celu", "Softplus", "Softsign", "Gelu", "Mish", "Swish", "Erf", "Exp", "Log", "Sqrt",
    "Reciprocal", "Pow", "Abs", "Neg", "Floor", "Ceil", "Round", "Sign", "Add", "Sub", "Mul", "Div",
    "Min", "Max", "Where", "Equal", "Greater", "Less", "Not", "And", "Or", "BatchNormalization",
    "Cast", "Identity", "Dropout", "QuantizeLinear", "DequantizeLinear",
    "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "Expand",
}  # fmt: skip

#: Numbers of nodes that belong together.
Groups = Sequence[Sequence[int]]
Cut = Callable[[OpenGraph], Groups]


@dataclass(frozen=True)
class Piece:
    """A piece of one file: its op spec, and the names of the nodes that are in it."""

    spec: OpSpec
    label: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class CutFile:
    """A file as pieces, one for each execution; anything with ``op_specs`` can be priced."""

    name: str
    """Of the file."""
    pieces: tuple[Piece, ...]
    unpriced: tuple[str, ...] = ()
    """What is in no piece, and why."""

    def op_specs(self) -> tuple[OpSpec, ...]:
        """One op spec per piece."""
        return tuple(piece.spec for piece in self.pieces)


def cut(workload: OnnxWorkload, rule: Cut) -> CutFile:
    """Cut a file; the graphs of its pieces are known from now on (``subgraph_store``).

    Args:
        workload: the file, with known input shapes.
        rule: which nodes belong together; ``by_work``, or what ``by_layers`` gives.

    Raises:
        ImportFileError: a graph that is not what ONNX describes.
    """
    graph = open_graph(workload)
    with making_sense_of(workload.name):
        return _cut(graph, rule(graph))


def _cut(graph: OpenGraph, groups: Groups) -> CutFile:
    reasons = _reasons(graph)
    unpriced = [f"{_called(graph.nodes[i])}: {reason}" for i, reason in reasons.items()]
    pieces = []
    for group in groups:
        members = sorted(set(group) - reasons.keys())
        if not members:
            continue
        try:
            made = _subgraph(graph, members)
        except SpecError as error:
            unpriced.append(f"{_called(graph.nodes[members[0]])}: {error}")
            continue
        if made is None:
            continue
        subgraph_store.keep(made)
        names = tuple(graph.nodes[i].name for i in members)
        pieces.append(Piece(made.spec, made.label, names))
    return CutFile(graph.name, tuple(pieces), tuple(unpriced))


def by_work(graph: OpenGraph) -> Groups:
    """A convolution, product, pool, ... with the element-wise nodes behind it.

    A node of several inputs goes with the one that is computed last.
    """
    makers = graph.makers
    group_of: list[int] = []
    groups: list[list[int]] = []
    for index, node in enumerate(graph.nodes):
        sources = [makers[name] for name in node.input if name in makers]
        is_tail = node.op_type in _TAILS and sources and not _why_not(graph, node)
        if is_tail and not _why_not(graph, graph.nodes[max(sources)]):
            place = group_of[max(sources)]
        else:
            place = len(groups)
            groups.append([])
        groups[place].append(index)
        group_of.append(place)
    return groups


def by_layers(sources: Iterable[Sequence[str]]) -> Cut:
    """A rule: nodes that a layer of an engine computes together belong together.

    Args:
        sources: of each layer the names of nodes, or else of tensors that they give, as
            ``LayerTime.source_nodes``. Nodes in no layer go with the node before them.
    """
    layers = [tuple(layer) for layer in sources]

    def rule(graph: OpenGraph) -> Groups:
        parent = list(range(len(graph.nodes)))

        def root(index: int) -> int:
            while parent[index] != index:
                index = parent[index]
            return index

        def join(one: int, other: int) -> None:
            low, high = sorted((root(one), root(other)))
            parent[high] = low

        makers = graph.makers
        place = makers | {node.name: index for index, node in enumerate(graph.nodes)}
        seen: set[int] = set()
        for layer in layers:
            own = [place[name] for name in layer if name in place]
            seen.update(own)
            for other in own[1:]:
                join(own[0], other)
        for index, node in enumerate(graph.nodes):
            before = [makers[name] for name in node.input if name in makers]
            if index not in seen and before:
                join(max(before), index)
        groups: dict[int, list[int]] = {}
        for index in range(len(graph.nodes)):
            groups.setdefault(root(index), []).append(index)
        return list(groups.values())

    return rule


def _called(node: Any) -> str:
    kind = node.op_type if node.domain in DOMAINS[:2] else f"{node.domain}.{node.op_type}"
    return f"{kind} {node.name!r}"


def _reasons(graph: OpenGraph) -> dict[int, str]:
    """Why nodes can be in no piece, by number."""
    found: dict[int, str] = {}
    follows: dict[str, str] = {}  # tensor of unknown shape -> the custom operator before it
    for number, node in enumerate(graph.nodes):
        if not (reason := _why_not(graph, node)):
            continue
        custom = next((follows[name] for name in node.input if name in follows), "")
        if node.domain not in DOMAINS and not bodies_of(node):
            custom = _called(node)
        elif custom and reason == _DEPENDS:
            reason = f"its sizes follow from {custom}, a custom operator"
        found[number] = reason
        if custom:
            follows |= dict.fromkeys(node.output, custom)
    return found


def _why_not(graph: OpenGraph, node: Any) -> str:
    """Why a node can be in no piece, empty if it can."""
    if bodies_of(node):
        return "how often a loop repeats, or which branch is taken, is known only when it runs"
    if node.domain not in DOMAINS:
        return "a custom operator"
    shapes, types = graph.scope.shapes, graph.scope.types
    for name in (*node.input, *node.output):
        if not name or name in graph.constants:
            continue
        if name not in shapes:
            used = name in graph.outputs or any(name in other.input for other in graph.nodes)
            if name in node.output and not used:
                continue
            return _DEPENDS
        if not types.get(name):
            return f"the type of {name!r} is not known"
        if math.prod(shapes[name]) == 0:
            return f"{name!r} is empty"
    return ""


def _subgraph(graph: OpenGraph, members: Sequence[int]) -> Subgraph | None:
    """The piece of these nodes; None where nothing takes what it gives.

    Raises:
        SpecError: it is too large, or has shapes that no op spec can have.
    """
    import onnx
    from onnx import helper

    own = [graph.nodes[i] for i in members]
    made = {name for node in own for name in node.output if name}
    inside = set(members)
    outside = {
        name for i, node in enumerate(graph.nodes) if i not in inside for name in node.input
    } | {*graph.outputs}
    outputs = [name for node in own for name in node.output if name in outside and name]
    if not outputs:
        return None
    helpers, tensors, inputs = _needed(graph, own, made)
    names: dict[str, str] = {"": ""}
    results = [name for node in [*helpers, *own] for name in node.output if name]
    for prefix, items in (("in", inputs), ("w", tensors), ("t", results)):
        names.update({name: f"{prefix}{i}" for i, name in enumerate(items)})
    for prefix, ends in ((FIRST, graph.inputs), (LAST, graph.outputs)):
        mine = [name for name in ends if name in names and is_map(graph.scope.shapes[name])]
        names.update({name: f"{prefix}{i}" for i, name in enumerate(mine)})
    nodes = []
    for number, node in enumerate([*helpers, *own]):
        copy = onnx.NodeProto(op_type=node.op_type, domain=node.domain, name=f"n{number}")
        copy.input.extend(names[name] for name in node.input)
        copy.output.extend(names[name] for name in node.output)
        copy.attribute.extend(sorted(node.attribute, key=lambda part: part.name))
        for part in copy.attribute:
            part.doc_string = ""
        nodes.append(copy)
    users = {name: (n.op_type, i) for n in [*helpers, *own] for i, name in enumerate(n.input)}
    weights = [_stripped(graph.constants[name], names[name], *users[name]) for name in tensors]

    def info(name: str) -> Any:
        kind, shape = graph.scope.types[name], graph.scope.shapes[name]
        return helper.make_tensor_value_info(names[name], kind, shape)

    body = helper.make_graph(nodes, "piece", [*map(info, inputs)], [*map(info, outputs)], weights)
    domains = {node.domain for node in nodes}
    opsets = [item for item in graph.model.opset_import if item.domain in domains]
    model = helper.make_model(body, opset_imports=opsets, ir_version=graph.model.ir_version)
    model.producer_name = ""
    content = model.SerializeToString(deterministic=True)
    if len(content) > MAX_BYTES:
        raise SpecError(f"a piece of {len(content)} bytes, the limit is {MAX_BYTES}")
    if reason := unsound(model):
        raise SpecError(f"a piece that {reason}")
    found = Subgraph(content)
    _ = found.spec
    return found


def _needed(
    graph: OpenGraph, own: Sequence[Any], made: set[str]
) -> tuple[list[Any], list[str], list[str]]:
    """Nodes that make constants, constants and inputs that a piece needs, each in order of use."""
    helpers: dict[str, Any] = {}
    tensors: dict[str, None] = {}
    inputs: dict[str, None] = {}

    def add(name: str) -> None:
        left = [name]
        while left:
            current = left[-1]
            item = graph.constants[current]
            if not hasattr(item, "op_type"):
                tensors[current] = None
            elif item.name not in helpers:
                waiting = [n for n in item.input if n and not _is_there(n)]
                if waiting:
                    left += waiting
                    continue
                helpers[item.name] = item
            left.pop()

    def _is_there(name: str) -> bool:
        item = graph.constants[name]
        return name in tensors if not hasattr(item, "op_type") else item.name in helpers

    for node in own:
        for name in node.input:
            if name in graph.constants:
                add(name)
            elif name and name not in made:
                inputs[name] = None
    if not inputs:
        raise SpecError("it depends on no input")
    return list(helpers.values()), list(tensors), list(inputs)


def _stripped(item: Any, name: str, kind: str, position: int) -> Any:
    """A constant as a piece keeps it: whole numbers and single numbers as they are, no weights."""
    import onnx

    count = math.prod(item.dims)
    number = onnx.TensorProto.DataType.Name(item.data_type)
    is_weight = number.startswith(("FLOAT", "BFLOAT", "DOUBLE"))
    if is_weight:
        is_weight = count > MAX_SCALARS or position >= WEIGHTED.get(kind, 99)
    elif number in ("INT8", "UINT8"):
        is_weight = count > MAX_SCALARS
    elif count > MAX_NUMBERS:
        raise SpecError(f"a table of {count} whole numbers, a piece has {MAX_NUMBERS} at most")
    if is_weight and count:
        return onnx.TensorProto(name=name, data_type=item.data_type, dims=item.dims)
    values = onnx.numpy_helper.to_array(item)
    return onnx.numpy_helper.from_array(values, name)
