"""ONNX files from outside: read, given the shapes that they leave open, and made a workload.

An engine can only be timed on shapes that are known. A file may leave its batch and its image size
open; what is asked for is written into the graph then. What a file fixes is never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from latlut.errors import EngineError, ImportFileError
from latlut.operators.file_workloads import FileWorkload
from latlut.operators.graph_view import Scope, scope_of
from latlut.operators.input_arrays import arrays_of, by_name, named_arrays
from latlut.operators.input_axes import find_axes
from latlut.operators.onnx_loading import load_onnx, making_sense_of
from latlut.operators.onnx_nodes import nodes_of, tensors_of
from latlut.operators.onnx_shapes import refuse_huge, settle_shapes, sides_of, write_shapes
from latlut.operators.onnx_weights import runtime_session, take_in_weights

if TYPE_CHECKING:
    from torch import nn

#: Name of a floating-point tensor type -> what results call it, as an engine's precision.
_ARITHMETIC = {"FLOAT": "fp32", "FLOAT16": "fp16", "BFLOAT16": "bf16", "DOUBLE": "fp64"}


@dataclass(frozen=True)
class OnnxWorkload(FileWorkload):
    """An ONNX model with inputs of known shapes."""

    content: bytes = field(repr=False)
    """The serialised model."""
    weights_folder: Path | None = None
    """Where the weights lie that are too large to be in ``content``."""
    free_layouts: tuple[str, ...] = ()

    reference: ClassVar[str] = "ONNX Runtime without optimisations"

    @cached_property
    def model(self) -> Any:
        """The model as ``onnx.ModelProto``; not to be changed."""
        import onnx

        return onnx.load_from_string(self.content)

    @cached_property
    def op_types(self) -> Counter[str]:
        """How many nodes of each kind are in the graph, in bodies in it and in local functions."""
        return Counter(node.op_type for node in nodes_of(self.model))

    @cached_property
    def arithmetic(self) -> str:
        """What the file computes in: fp32, fp16, bf16, fp64, or int8 for a quantised one."""
        if any(_is_quantised(kind) for kind in self.op_types):
            return "int8"
        with making_sense_of(self.name):
            return _float_type(self.model)

    @property
    def input_limits(self) -> tuple[int | None, ...]:
        """The length of the axis that an input indexes, as token numbers do."""
        with making_sense_of(self.name):
            limits = _index_limits(self.model.graph)
        return tuple(limits.get(name) for name in self.names)

    def build(self) -> nn.Module:
        """Refused: engines that run PyTorch modules cannot run a file.

        Raises:
            EngineError: always.
        """
        raise EngineError(
            f"{self.name} is an ONNX file, which this engine does not read: choose one that does, "
            "--engine onnxruntime, openvino, tensorrt or tensorrt-rtx"
        )

    def onnx_bytes(self, module: nn.Module | None = None) -> bytes:
        """The model."""
        return self.content

    def expected(
        self, arrays: Sequence[np.ndarray], module: nn.Module | None = None
    ) -> list[np.ndarray]:
        """What ONNX Runtime computes on the CPU when it leaves the graph as it is.

        Raises:
            EngineError: it cannot run the graph.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        try:
            session = runtime_session(
                self.content, self.weights_folder, options, ["CPUExecutionProvider"]
            )
            found = session.run(None, dict(zip(self.names, arrays, strict=True)))
        except Exception as error:  # ONNX Runtime's own exceptions have no common base
            raise EngineError(
                f"ONNX Runtime, which outputs are compared with, cannot run {self.name}: {error}"
            ) from error
        return [np.asarray(item) for item in found]


def read_onnx(
    source: str | Path | bytes,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    name: str | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Mapping[str, np.ndarray] | None = None,
) -> OnnxWorkload:
    """An ONNX file as a workload.

    Args:
        source: the file, weights beside it included; or a serialised model.
        input_size: (height, width) of the image, where the file leaves them open.
        batch: items per inference, where the file leaves it open; 1 if not given.
        name: of the workload; the file's if not given.
        shapes: input -> its shape, for inputs that those two do not settle; ``""`` stands for the
            only input.
        data: input -> what it is filled with; its shape is the input's. ``""`` as above.

    Raises:
        ImportFileError: no such file, no ONNX model, or inputs or outputs that are no tensors of
            numbers.
        SpecError: a size that is open and not given, or given and fixed otherwise in the file; no
            such input; data of another type.
    """
    called = name or ("an ONNX model" if isinstance(source, bytes) else Path(source).name)
    model = load_onnx(source)
    with making_sense_of(called):
        return _workload(source, called, model, input_size, batch, shapes or {}, data or {})


def _workload(
    source: str | Path | bytes,
    called: str,
    model: Any,
    input_size: tuple[int, int] | None,
    batch: int | None,
    shapes: Mapping[str, Sequence[int]],
    data: Mapping[str, np.ndarray],
) -> OnnxWorkload:
    is_whole = isinstance(source, bytes) or take_in_weights(model, Path(source).parent, str(source))
    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    if not inputs:
        raise ImportFileError(f"{called}: the model has no inputs")
    types = tuple(_type_of(called, "input", item) for item in inputs)
    for item in model.graph.output:
        _type_of(called, "output", item)
    arrays = named_arrays(called, inputs, data)
    asked = {item: tuple(array.shape) for item, array in arrays.items()}
    asked |= by_name(called, inputs, shapes)
    axes = [find_axes(item.name, sides_of(item), model.graph.node) for item in inputs]
    found, axes = settle_shapes(called, inputs, axes, asked, input_size, batch)
    given = arrays_of(called, inputs, found, types, arrays)
    write_shapes(model, inputs, found)
    _refuse_huge_maps(called, scope_of(model))
    try:
        content = bytes(model.SerializeToString())
    except Exception as error:  # protobuf's limit of 2 GiB
        raise ImportFileError(
            f"{called}: its {model.ByteSize() / 2**30:.1f} GiB are too large for one message: save "
            "it with its weights in a file beside it (save_as_external_data)"
        ) from error
    names = tuple(item.name for item in inputs)
    folder = None if is_whole else Path(source).parent  # type: ignore[arg-type]
    return OnnxWorkload(called, found, names, types, tuple(axes), content, folder, given=given)


def _refuse_huge_maps(called: str, scope: Scope) -> None:
    for node in scope.nodes:
        for name in node.output:
            shown = f"{called}: the output {name} of {node.op_type}"
            refuse_huge(shown, scope.shapes.get(name, ()))


def _is_quantised(kind: str) -> bool:
    starts = ("QLinear", "QGemm", "QAttention", "DynamicQuantize", "Quantize", "Dequantize")
    return kind.startswith(starts) or kind.endswith(("Integer", "NBits"))


def _float_type(model: Any) -> str:
    """What most of the weights are, else the inputs."""
    import onnx

    name_of = onnx.TensorProto.DataType.Name
    counts: Counter[str] = Counter()
    for item in tensors_of(model):
        counts[name_of(item.data_type)] += int(np.prod(item.dims, dtype=np.float64))
    for item in model.graph.input:
        counts[name_of(item.type.tensor_type.elem_type)] += 0
    known = [(count, name) for name, count in counts.items() if name in _ARITHMETIC]
    return _ARITHMETIC[max(known)[1]] if known else "fp32"


def _index_limits(graph: Any) -> dict[str, int]:
    """Input -> the length of the axis that its values index, where a Gather shows it."""
    lengths = {item.name: tuple(item.dims) for item in graph.initializer}
    same = {item.name: item.name for item in graph.input}
    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Cast", "Reshape", "Flatten", "Unsqueeze", "Squeeze", "Identity"):
            if node.input[0] in same:
                same[node.output[0]] = same[node.input[0]]
        elif node.op_type == "Gather" and node.input[1] in same and node.input[0] in lengths:
            axis = next((part.i for part in node.attribute if part.name == "axis"), 0)
            length, name = lengths[node.input[0]][axis], same[node.input[1]]
            found[name] = min(length, found.get(name, length))
    return found


def _type_of(called: str, what: str, item: Any) -> str:
    """NumPy's name of an input's or output's type."""
    import onnx

    kind = item.type.WhichOneof("value")
    if kind not in ("tensor_type", None):
        found = str(kind).removesuffix("_type").replace("_", " ")
        found = f"a {found}" if kind in ("sequence_type", "map_type") else f"an {found} value"
        raise ImportFileError(
            f"{called}: the {what} {item.name!r} is {found}, latlut runs models of tensors alone: "
            "export the model without it (of scikit-learn models: zipmap=False)"
        )
    tensor = item.type.tensor_type
    if what == "output" and not tensor.elem_type:
        return ""  # left to be inferred
    name = _type_name(tensor.elem_type)
    if name in ("STRING", "UNDEFINED", "BFLOAT16") or name.startswith(
        ("FLOAT8", "FLOAT4", "COMPLEX")
    ):
        raise ImportFileError(
            f"{called}: the {what} {item.name!r} is {name}, which latlut cannot "
            f"{'make' if what == 'input' else 'compare'}: it runs floating-point numbers of 16 to "
            "64 bits, whole numbers and booleans; put a Cast before it"
        )
    if what == "input" and not tensor.HasField("shape"):
        raise ImportFileError(f"{called}: the input {item.name!r} has no shape, not even its rank")
    return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def _type_name(number: int) -> str:
    import onnx

    try:
        return str(onnx.TensorProto.DataType.Name(number))
    except ValueError:
        return f"COMPLEX or unknown ({number})"
