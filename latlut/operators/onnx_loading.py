"""ONNX models from outside, read within bounds and refused where their graphs make no sense.

An empty message takes two bytes in a file and two hundred in memory; a local function that calls
another twice, and so on, is doubled each time when functions are inlined. Both are counted before
anything is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError, LatlutError
from latlut.files.reading import read_file
from latlut.operators.onnx_nodes import bodies_of, graphs_of, tensors_of

#: protobuf's own limit; larger models have their weights in files beside them.
MAX_MODEL_BYTES = 2 << 30
#: Nodes of a model with its local functions inlined; language models have 50,000.
MAX_NODES = 50_000
#: Nodes, attributes, tensors, axes and what is in them; ten for each node.
MAX_PARTS = 1_000_000

#: Functions that call each other; PyTorch's exporter nests modules up to 20 deep.
_DEEPEST_CALL = 100

#: Message -> number of a field that is a message too -> which. Source: onnx.proto3.
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value", 13: "value", 15: "sparse"},
    "function": {7: "node", 11: "attribute", 12: "value"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "value": {2: "type"},
    "type": {1: "tensor type", 8: "tensor type", 4: "element", 5: "element", 9: "element"},
    "element": {1: "type", 2: "type"},
    "tensor type": {2: "shape"},
    "shape": {1: "axis"},
    "axis": {},
}


def load_onnx(source: str | Path | bytes) -> Any:
    """The ``onnx.ModelProto`` of a file, or of its content; weights beside it are not read.

    Raises:
        ImportFileError: no such file, no ONNX model, one with more parts than any model has, with
            tensors of an unknown type, or with functions that call themselves.
    """
    import onnx

    shown = "the given bytes" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_file(Path(source), MAX_MODEL_BYTES)
    if sum(1 for _ in _parts(data)) > MAX_PARTS:
        raise ImportFileError(f"{shown}: more than {MAX_PARTS} parts, which no ONNX model has")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's and onnx's own; a damaged file fails anywhere
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ImportFileError(f"{shown}: cannot be read as an ONNX model: {reason}") from error
    if not model.graph.node or not model.opset_import:
        raise ImportFileError(f"{shown}: is no ONNX model: it has no nodes or no operator set")
    nodes = _inlined_nodes(model, shown)
    if nodes > MAX_NODES:
        raise ImportFileError(
            f"{shown}: {nodes} nodes with its functions inlined, latlut reads {MAX_NODES} at most"
        )
    with making_sense_of(shown):
        for text in _texts(model):
            if not isinstance(text, str):  # what is not UTF-8 is given as bytes
                raise ValueError(f"a name that is no text, {text!r:.80}")
    known = set(onnx.TensorProto.DataType.values())
    for item in tensors_of(model):
        if item.data_type not in known:
            raise ImportFileError(
                f"{shown}: the tensor {item.name!r:.80} has the type {item.data_type}, which this "
                f"onnx ({onnx.__version__}) does not know"
            )
    return model


@contextmanager
def making_sense_of(called: str) -> Iterator[None]:
    """Walks through a graph that may lack what ONNX prescribes: outputs, attributes, axes, values.

    Raises:
        ImportFileError: what the graph lacks made the block fail.
    """
    try:
        yield
    except LatlutError:
        raise
    except (
        LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError,
        MemoryError,
    ) as error:  # fmt: skip
        raise ImportFileError(
            f"{called}: its graph is not what ONNX describes: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def _parts(data: bytes) -> Iterator[None]:
    """One for each field of the messages in a serialised model, up to one more than MAX_PARTS.

    They end where the file is damaged, which is for protobuf to say.
    """
    left = [("model", 0, len(data))]
    count = 0
    while left:
        message, position, end = left.pop()
        inside = _MESSAGES[message]
        while position < end and count <= MAX_PARTS:
            tag, position = _varint(data, position, end)
            kind = tag & 7
            if kind == 0:
                _, position = _varint(data, position, end)
            elif kind == 2:
                size, position = _varint(data, position, end)
                if (tag >> 3) in inside:
                    left.append((inside[tag >> 3], position, min(position + size, end)))
                position += size
            elif kind in (1, 5):
                position += 8 if kind == 1 else 4
            else:
                return
            count += 1
            yield


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    number = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    return number, position


def _texts(model: Any) -> Iterator[object]:
    """Every name in a model's graphs."""
    for graph in graphs_of(model):
        for node in graph.node:
            yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
            yield from (part.name for part in node.attribute)
        for item in (*getattr(graph, "initializer", ()), *graph.value_info):
            yield item.name
    for item in (*model.graph.input, *model.graph.output):
        yield item.name
        yield from (dim.dim_param for dim in item.type.tensor_type.shape.dim)


def _inlined_nodes(model: Any, shown: str) -> int:
    """How many nodes a model has once its local functions stand where they are called."""
    functions = {(item.domain, item.name): item for item in model.functions}
    named = {(item.domain, item.name, item.overload) for item in model.functions}
    if len(named) < len(model.functions):
        raise ImportFileError(f"{shown}: two of its functions have the same name")
    sizes: dict[tuple[str, str], int] = {}
    calling: set[tuple[str, str]] = set()

    def size(graph: Any) -> int:
        count = 0
        for node in graph.node:
            count += 1 + sum(size(body) for body in bodies_of(node))
            name = (node.domain, node.op_type)
            if name not in functions:
                continue
            if name in calling or len(calling) > _DEEPEST_CALL:
                raise ImportFileError(
                    f"{shown}: the function {node.op_type!r:.80} calls itself, or functions call "
                    f"each other more than {_DEEPEST_CALL} deep"
                )
            if name not in sizes:
                calling.add(name)
                sizes[name] = size(functions[name])
                calling.remove(name)
            count += sizes[name]
        return count

    return size(model.graph)
