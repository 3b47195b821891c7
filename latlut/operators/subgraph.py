"""A piece of an ONNX graph that is planned, timed and stored like an operator.

Weights are left out: latency does not depend on their values, and a table shall not hold anybody's.
What shapes the computation stays: nodes with their attributes, types and shapes of all inputs and
weights, whole numbers (axes, sizes, permutations) and single numbers. Names are replaced by
numbers, so that equal pieces of different files are equal.

The digest of all that is the piece's key: an ``OpSpec`` of a kind ``subgraph_*`` with the option
``graph``. Its other fields say the shapes to people and to what sorts op specs by them.

Symbols: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from latlut.errors import ImportFileError, SpecError
from latlut.operators.graph_macs import UncountedError, count_macs, node_macs
from latlut.operators.graph_view import attributes_of, scope_of
from latlut.operators.in_context import IMAGE_CHANNELS
from latlut.operators.onnx_loading import load_onnx, making_sense_of
from latlut.operators.onnx_nodes import bodies_of, tensors_of
from latlut.operators.subgraph_kinds import KINDS, MAX_BYTES
from latlut.opspec import MAX_DIMENSION, OpSpec

#: Domains whose operators every engine here may know.
DOMAINS = ("", "ai.onnx", "com.microsoft")
MAX_PIECE_NODES = 2_000
#: Elements of the weights of one piece, 2 GB in float32.
MAX_WEIGHTS = 1 << 29
#: Elements of a table of whole numbers that is kept as it is.
MAX_NUMBERS = 1 << 16
#: Floating-point tensors of so many elements are numbers of the computation, such as scales.
MAX_SCALARS = 8
#: Inputs from here on are weights, whatever their size.
WEIGHTED = {
    "Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 0, "BatchNormalization": 1,
    "LayerNormalization": 1, "InstanceNormalization": 1, "GroupNormalization": 1, "PRelu": 1,
}  # fmt: skip

#: What inputs and outputs of a piece are called that are a network's own, where they are feature
#: maps: engines may exchange those between layers in any layout, but not these.
FIRST, LAST = "first", "last"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Subgraph:
    """A piece of a graph; equal pieces have equal digests.

    Raises:
        SpecError: shapes that no op spec can have.
    """

    content: bytes = field(repr=False)
    """Serialised ``onnx.ModelProto`` without weights."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subgraph) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def model(self) -> Any:
        """The ``onnx.ModelProto``; not to be changed."""
        import onnx

        return onnx.load_model_from_string(self.content)

    @cached_property
    def digest(self) -> str:
        """Forty hexadecimal digits of all that shapes the computation."""
        text = "\n".join(_lines(self.model))
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    @cached_property
    def spec(self) -> OpSpec:
        """Its op spec: shapes as (C, H, W), folded where they have other axes."""
        graph = self.model.graph
        shapes = [shape_of(item) for item in (*graph.input, *graph.output)]
        batch = _batch(shapes)
        maps = [_as_map(shape, batch) for shape in shapes]
        inputs, (channels, *size) = maps[: len(graph.input)], maps[len(graph.input)]
        is_same = tuple(size) == inputs[-1][1:]
        options: dict[str, Any] = {"graph": f"g{self.digest}"}
        options |= {} if is_same else {"out_size": tuple(size)}
        return OpSpec(self._kind, inputs, channels, batch=batch, **options)

    @cached_property
    def label(self) -> str:
        """What it is, for people: ``Conv 64->128 3x3 s2 + Relu at 56x56``."""
        main = self._main
        others = Counter(node.op_type for node in self.model.graph.node if node is not main)
        words = [f"{count} {kind}" if count > 1 else kind for kind, count in others.items()]
        if len(words) > 4:
            left = sum(list(others.values())[3:])
            words = [*words[:3], f"{left} more"]
        _, *size = self.spec.output
        ends = [text for text, items in ((", network's input", self.model.graph.input),
                                         (", network's output", self.model.graph.output))
                if any(item.name.startswith((FIRST, LAST)) for item in items)]  # fmt: skip
        place = f" at {size[0]}x{size[1]}"
        return " + ".join([self._described(main), *words]) + place + "".join(ends)

    @cached_property
    def macs(self) -> int | None:
        """Multiply-accumulates of a run; None where they cannot be counted."""
        try:
            return count_macs(self._scope)
        except UncountedError:
            return None

    @property
    def params(self) -> int:
        """Elements of its weights."""
        weights = [t for t in self.model.graph.initializer if is_open(t)]
        return sum(math.prod(item.dims) for item in weights)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of weights and other constants."""
        tensors = self.model.graph.initializer
        return sum(math.prod(t.dims) * _bytes_of(t.data_type) for t in tensors)

    @property
    def moved_bytes(self) -> int:
        """Bytes of inputs, weights and outputs, once each."""
        graph, total = self.model.graph, self.weight_bytes
        for item in (*graph.input, *graph.output):
            total += math.prod(shape_of(item)) * _bytes_of(item.type.tensor_type.elem_type)
        return total

    @cached_property
    def _scope(self) -> Any:
        return scope_of(self.model)

    @cached_property
    def _main(self) -> Any:
        """The node that most of the work is: of most multiplications, else the first."""
        best, most = self.model.graph.node[0], 0
        for node in self.model.graph.node:
            macs = self._macs_of(node)
            if macs > most:
                best, most = node, macs
        if most:
            return best
        kinds = [node for node in self.model.graph.node if _kind_of(node, ()) != KINDS[-1]]
        varying = [n for n in self.model.graph.node if self._scope.varying & {*n.output}]
        return (kinds or varying or [best])[0]

    def _macs_of(self, node: Any) -> int:
        if not self._scope.varying & {*node.output}:
            return 0
        try:
            return node_macs(node, self._scope)
        except UncountedError:
            return 0

    @property
    def _kind(self) -> str:
        main = self._main
        weight = self._scope.shapes.get(main.input[1], ()) if len(main.input) > 1 else ()
        return _kind_of(main, weight)

    def _described(self, node: Any) -> str:
        shapes, found = self._scope.shapes, attributes_of(node)
        kind = node.op_type
        if kind in ("Conv", "ConvTranspose"):
            weight = shapes.get(node.input[1], ())
            groups = int(found.get("group", 1))
            if kind == "Conv":
                channels = f"{weight[1] * groups}->{weight[0]}"
            else:
                channels = f"{weight[0]}->{weight[1] * groups}"
            strides = found.get("strides", [1])
            stride = "x".join(map(str, dict.fromkeys(strides)))
            kernel = "x".join(map(str, weight[2:]))
            dilation = max(found.get("dilations", [1]))
            words = [kind, channels, kernel, f"s{stride}"]
            words += [f"g{groups}"] if groups > 1 else []
            words += [f"d{dilation}"] if dilation > 1 else []
            return " ".join(words)
        if kind in ("MatMul", "Gemm"):
            sides = [shapes.get(name, ()) for name in (node.input[0], node.output[0])]
            return f"{kind} {'x'.join(map(str, sides[0]))}->{'x'.join(map(str, sides[1][-1:]))}"
        return str(kind)


def stored_subgraph(digest: str, content: bytes) -> Subgraph:
    """A piece as a table holds it, which may come from anybody.

    Args:
        digest: what the table calls it.
        content: the serialised graph.

    Raises:
        ImportFileError: no graph of such a piece, larger than any is, or another digest.
    """
    called = f"the graph {digest[:12]}"
    if len(content) > MAX_BYTES:
        raise ImportFileError(
            f"{called} has {len(content)} bytes, a piece of a graph has {MAX_BYTES} at most"
        )
    model = load_onnx(content)
    with making_sense_of(called):
        if reason := unsound(model):
            raise ImportFileError(f"{called} {reason}")
        found = Subgraph(content)
        if found.digest != digest:
            raise ImportFileError(f"{called} is that of {found.digest[:12]}, another piece")
        _ = found.spec, found.label
    return found


def unsound(model: Any) -> str:
    """Why a model is no piece that latlut cut, empty if it may be one."""
    graph = model.graph
    if len(graph.node) > MAX_PIECE_NODES:
        return f"has {len(graph.node)} nodes, a piece has {MAX_PIECE_NODES} at most"
    if model.functions or any(bodies_of(node) for node in graph.node):
        return "has functions, branches or loops, which no piece has"
    if any(node.domain not in DOMAINS for node in graph.node):
        return "has operators of a domain that no piece has"
    if not graph.input or not graph.output or graph.sparse_initializer:
        return "has no inputs or outputs, or sparse weights"
    if any(item.data_location == item.EXTERNAL for item in tensors_of(model)):
        return "has weights in other files, which no piece has"
    sizes = [math.prod(t.dims) for t in graph.initializer]
    if any(size < 0 or size > MAX_WEIGHTS for size in sizes) or sum(sizes) > MAX_WEIGHTS:
        return f"has weights of more than {MAX_WEIGHTS} elements"
    for item in (*graph.input, *graph.output):
        tensor = item.type.tensor_type
        if not tensor.HasField("shape") or any(d.dim_value < 1 for d in tensor.shape.dim):
            return f"has an input or output without a shape, {item.name!r:.40}"
    return ""


def is_open(tensor: Any) -> bool:
    """Whether a tensor's values were left out, to be drawn (``subgraph_weights``)."""
    return math.prod(tensor.dims) > 0 and not (
        tensor.raw_data or tensor.float_data or tensor.int32_data or tensor.int64_data
        or tensor.double_data or tensor.uint64_data or tensor.string_data
    )  # fmt: skip


def shape_of(item: Any) -> Shape:
    """The shape of an ``onnx.ValueInfoProto``."""
    return tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)


def is_map(shape: Shape) -> bool:
    """Whether a tensor's shape is that of a feature map, of more channels than an image."""
    return len(shape) == 4 and shape[1] > IMAGE_CHANNELS


def _lines(model: Any) -> Iterator[str]:
    """All that shapes the computation, one thing a line."""
    import onnx

    graph = model.graph
    versions = {item.domain: item.version for item in model.opset_import}
    for what, items in (("in", graph.input), ("out", graph.output)):
        for item in items:
            kind = item.type.tensor_type.elem_type
            yield f"{what} {item.name} {kind} {shape_of(item)}"
    for tensor in graph.initializer:
        line = f"weight {tensor.name} {tensor.data_type} {tuple(tensor.dims)}"
        if not is_open(tensor):
            values = onnx.numpy_helper.to_array(tensor)
            line += f" {hashlib.sha256(values.tobytes()).hexdigest()}"
        yield line
    for node in graph.node:
        version = _version(node, versions)
        yield f"node {node.domain} {node.op_type} {version} {[*node.input]} {[*node.output]}"
        defaults = _defaults(node, versions)
        for part in sorted(node.attribute, key=lambda part: part.name):
            value = onnx.helper.get_attribute_value(part)
            if isinstance(value, onnx.TensorProto):
                value = onnx.numpy_helper.to_array(value).tobytes()
            if defaults.get(part.name) != value:
                yield f"  {part.name} {part.type} {value!r}"


def _schema(node: Any, versions: dict[str, int]) -> Any:
    import onnx

    domain = node.domain if node.domain != "ai.onnx" else ""
    try:
        return onnx.defs.get_schema(node.op_type, versions.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None


def _version(node: Any, versions: dict[str, int]) -> int:
    """Since which version of the operator set the operator is what it is."""
    found = _schema(node, versions)
    return versions.get(node.domain, 1) if found is None else found.since_version


def _defaults(node: Any, versions: dict[str, int]) -> dict[str, Any]:
    import onnx

    found = _schema(node, versions)
    if found is None:
        return {}
    values = {name: item.default_value for name, item in found.attributes.items()}
    return {
        name: onnx.helper.get_attribute_value(value)
        for name, value in values.items()
        if value.type != onnx.AttributeProto.UNDEFINED
    }


def _batch(shapes: Sequence[Shape]) -> int:
    """The first axis that all have in common, 1 where they have none."""
    firsts = {shape[0] for shape in shapes if len(shape) > 1}
    only = firsts.pop() if len(firsts) == 1 else 1
    return only if only <= 4096 else 1


def _as_map(shape: Shape, batch: int) -> tuple[int, int, int]:
    """(C, H, W) of any shape: its axes without the batch, missing ones 1, further ones in W."""
    sides = list(shape[1:] if len(shape) > 1 and shape[0] == batch else shape)
    sides += [1] * (3 - len(sides))
    sides = [*sides[:2], math.prod(sides[2:])]
    for place in range(3):
        other = next((i for i in range(3) if sides[i] == 1), None)
        if sides[place] > MAX_DIMENSION and other is not None:
            side = sides[place]
            part = max(p for p in range(1, MAX_DIMENSION + 1) if side % p == 0)
            sides[place], sides[other] = part, side // part
    if max(sides) > MAX_DIMENSION:
        raise SpecError(f"a tensor of the shape {shape} has too long a side")
    return sides[0], sides[1], sides[2]


def _kind_of(node: Any, weight: Shape) -> str:
    kind = node.op_type
    if kind == "Conv":
        groups = next((part.i for part in node.attribute if part.name == "group"), 1)
        if groups > 1 and groups == weight[0]:
            return "subgraph_depthwise"
        return "subgraph_pointwise" if math.prod(weight[2:]) == 1 else "subgraph_conv"
    if kind == "ConvTranspose":
        return "subgraph_transposed"
    if kind in ("MatMul", "Gemm", "Einsum"):
        return "subgraph_matmul"
    if "Pool" in kind or kind.startswith("Reduce"):
        return "subgraph_pool"
    return "subgraph_resize" if kind in ("Resize", "Upsample") else "subgraph_other"


def _bytes_of(kind: int) -> int:
    import onnx

    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
