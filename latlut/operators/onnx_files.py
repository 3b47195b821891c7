"""ONNX files from outside: read, given the shapes that they leave open, and made a workload.

An engine can only be timed on shapes that are known. A file may leave its batch and its image size
open; what is asked for is written into the graph then. What a file fixes is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from latlut.errors import EngineError, ImportFileError, SpecError
from latlut.operators.workloads import Workload

_FLOAT32 = 1  # onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class OnnxWorkload(Workload):
    """An ONNX model with float32 inputs of known shapes; there is no PyTorch module of it."""

    names: tuple[str, ...]
    content: bytes = field(repr=False)

    reference: ClassVar[str] = "ONNX Runtime without optimisations"
    has_module: ClassVar[bool] = False

    @property
    def input_names(self) -> tuple[str, ...]:
        """The file's own."""
        return self.names

    @cached_property
    def op_types(self) -> frozenset[str]:
        """What kinds of nodes are in the graph, ``{"Conv", "Resize"}``."""
        import onnx

        return frozenset(node.op_type for node in onnx.load_from_string(self.content).graph.node)

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
            session = onnxruntime.InferenceSession(
                self.content, options, providers=["CPUExecutionProvider"]
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
) -> OnnxWorkload:
    """An ONNX file as a workload.

    Args:
        source: the file, weights beside it included; or a serialised model.
        input_size: (height, width) of the image, where the file leaves them open.
        batch: images per inference, where the file leaves it open; 1 if not given.
        name: of the workload; the file's if not given.

    Raises:
        ImportFileError: no such file, no ONNX model, or inputs that are no float32 tensors.
        SpecError: a size that is open and not given, or given and fixed otherwise in the file.
    """
    called = name or ("an ONNX model" if isinstance(source, bytes) else Path(source).name)
    model = _load(source)
    weights = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in weights]
    if not inputs:
        raise ImportFileError(f"{called}: the model has no inputs")
    for item in inputs:
        _check_type(called, item)
    shapes = _shapes(called, inputs, input_size, batch)
    _write_shapes(model, inputs, shapes)
    try:
        content = bytes(model.SerializeToString())
    except Exception as error:  # protobuf's limit of 2 GiB
        raise ImportFileError(f"{called}: cannot be handed to an engine: {error}") from error
    return OnnxWorkload(called, shapes, tuple(item.name for item in inputs), content)


def _load(source: str | Path | bytes) -> Any:
    import onnx

    if isinstance(source, bytes):
        shown, load = "the given bytes", lambda: onnx.load_model_from_string(source)
    else:
        path = Path(source)
        shown, load = str(path), lambda: onnx.load_model(path)
        if not path.is_file():
            raise ImportFileError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        model = load()
    except FileNotFoundError as error:
        raise ImportFileError(f"{shown}: weights that it keeps elsewhere: {error}") from error
    except Exception as error:  # protobuf's and onnx's own; a damaged file fails anywhere
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ImportFileError(f"{shown}: cannot be read as an ONNX model: {reason}") from error
    if not model.graph.node or not model.opset_import:
        raise ImportFileError(f"{shown}: is no ONNX model: it has no nodes or no operator set")
    return model


def _check_type(called: str, item: Any) -> None:
    import onnx

    kind = item.type.tensor_type.elem_type
    if not item.type.HasField("tensor_type") or kind != _FLOAT32:
        found = onnx.TensorProto.DataType.Name(kind) if kind else "no tensor"
        raise ImportFileError(
            f"{called}: the input {item.name!r} is {found}, latlut runs float32 inputs: export "
            "the model in float32 (--precision makes the engine compute in another one)"
        )
    if not item.type.tensor_type.HasField("shape"):
        raise ImportFileError(f"{called}: the input {item.name!r} has no shape, not even its rank")


def _sides(item: Any) -> list[int | None]:
    """The input's shape, None for a side that is open."""
    dims = item.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else None for dim in dims]


def _shapes(
    called: str, inputs: Sequence[Any], input_size: tuple[int, int] | None, batch: int | None
) -> tuple[tuple[int, ...], ...]:
    """Every input's shape; open sides as asked for, fixed ones compared with what is asked for."""
    if input_size is not None and (len(inputs) > 1 or len(_sides(inputs[0])) != 4):
        raise SpecError(
            f"{called}: an image size is for a model with one input of shape (batch, channels, "
            f"height, width), this one has {_shown(inputs)}: leave --input out"
        )
    shapes = []
    for item in inputs:
        sides = _sides(item)
        wanted = [batch, None, *(input_size or (None, None))][: len(sides)]
        wanted += [None] * (len(sides) - len(wanted))
        shape = []
        for axis, (own, asked) in enumerate(zip(sides, wanted, strict=True)):
            if own is not None and asked is not None and own != asked:
                option = "--batch" if axis == 0 else "--input"
                raise SpecError(
                    f"{called}: the input is fixed at {_shown([item])}, {asked} was asked for: "
                    f"leave {option} out, or export the model with that side open"
                )
            found = own if own is not None else asked
            shape.append(1 if found is None and axis == 0 else found)
        if None in shape:
            raise SpecError(_open_message(called, item, len(inputs)))
        shapes.append(tuple(side for side in shape if side is not None))
    return tuple(shapes)


def _open_message(called: str, item: Any, count: int) -> str:
    sides = _sides(item)
    what = f"{called}: the input {_shown([item])} leaves its size open"
    if count == 1 and len(sides) == 4 and sides[1] is not None:
        return f"{what}: name it, such as --input 1024x2048"
    return f"{what} in a way that no image size settles: export the model with fixed shapes"


def _shown(inputs: Sequence[Any]) -> str:
    """``in0 (batch, 3, ?, ?)``."""
    texts = []
    for item in inputs:
        dims = item.type.tensor_type.shape.dim
        sides = [str(d.dim_value) if d.dim_value > 0 else d.dim_param or "?" for d in dims]
        texts.append(f"{item.name} ({', '.join(sides)})")
    return ", ".join(texts)


def _write_shapes(model: Any, inputs: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Fix the inputs' shapes, and in the rest of the graph the sides that have the same names."""
    values: dict[str, set[int]] = {}
    for item, shape in zip(inputs, shapes, strict=True):
        for dim, side in zip(item.type.tensor_type.shape.dim, shape, strict=True):
            if dim.dim_param:
                values.setdefault(dim.dim_param, set()).add(side)
            dim.dim_value = side
    for item in [*model.graph.output, *model.graph.value_info]:
        for dim in item.type.tensor_type.shape.dim:
            known = values.get(dim.dim_param, set())
            if len(known) == 1:
                dim.dim_value = next(iter(known))
