"""OpenVINO's own model files (IR, an .xml with its .bin), which OpenVINO alone runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from latlut.errors import EngineError, ImportFileError
from latlut.files.reading import check_file
from latlut.operators.file_workloads import FileWorkload
from latlut.operators.input_arrays import arrays_of, by_name, named_arrays
from latlut.operators.input_axes import find_axes
from latlut.operators.onnx_loading import making_sense_of
from latlut.operators.onnx_shapes import refuse_huge, settle_shapes, sides_of

if TYPE_CHECKING:
    from torch import nn

#: Of the .xml; that of a network of 10,000 layers has 10 MB.
MAX_TEXT_BYTES = 64 << 20


@dataclass(frozen=True)
class IrWorkload(FileWorkload):
    """A model of OpenVINO's with inputs of known shapes.

    There is nothing independent to compare its outputs with.
    """

    path: Path
    """Of the .xml; the weights lie beside it."""
    arithmetic: str = "fp32"
    """``int8`` of a quantised model; OpenVINO runs any other in float32."""

    only_engine: ClassVar[str | None] = "openvino"
    has_reference: ClassVar[bool] = False

    def build(self) -> nn.Module:
        """Refused: there is no PyTorch module of it.

        Raises:
            EngineError: always.
        """
        raise self._of_openvino()

    def onnx_bytes(self, module: nn.Module | None = None) -> bytes:
        """Refused as well; EngineError."""
        raise self._of_openvino()

    def _of_openvino(self) -> EngineError:
        return EngineError(
            f"{self.name} is a model of OpenVINO, which no other engine runs: choose --engine "
            f"{self.only_engine}"
        )


def read_ir(
    path: Path,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    data: Mapping[str, np.ndarray] | None = None,
) -> IrWorkload:
    """A model of OpenVINO's as a workload; arguments and errors as of ``read_onnx``."""
    model = _load(path)
    with making_sense_of(str(path)):
        return _workload(model, path, input_size, batch, shapes or {}, data or {})


def _workload(
    model: Any,
    path: Path,
    input_size: tuple[int, int] | None,
    batch: int | None,
    shapes: Mapping[str, Sequence[int]],
    data: Mapping[str, np.ndarray],
) -> IrWorkload:
    import onnx

    called, inputs, types = path.name, [], []
    for item in model.inputs:
        dtype = item.get_element_type().to_dtype()
        rank = item.partial_shape.rank
        if rank.is_dynamic:
            raise ImportFileError(f"{called}: an input has no shape, not even its rank")
        sides = [side.get_length() if side.is_static else None for side in item.partial_shape]
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        name = item.get_any_name() if item.get_names() else item.get_node().get_friendly_name()
        inputs.append(onnx.helper.make_tensor_value_info(name, kind, sides))
        types.append(str(np.dtype(dtype)))
    if not inputs:
        raise ImportFileError(f"{called}: the model has no inputs")
    arrays = named_arrays(called, inputs, data)
    asked = {name: tuple(array.shape) for name, array in arrays.items()}
    asked |= by_name(called, inputs, shapes)
    axes = [find_axes(item.name, sides_of(item)) for item in inputs]
    found, axes = settle_shapes(called, inputs, axes, asked, input_size, batch)
    given = arrays_of(called, inputs, found, types, arrays)
    for node in model.get_ops():
        for output in node.outputs():
            if output.partial_shape.is_static:
                shown = f"{called}: the output of {node.get_friendly_name()}"
                refuse_huge(shown, tuple(output.shape))
    is_quantised = any(node.get_type_name() == "FakeQuantize" for node in model.get_ops())
    names, arithmetic = tuple(item.name for item in inputs), "int8" if is_quantised else "fp32"
    return IrWorkload(
        called, found, names, tuple(types), tuple(axes), path, arithmetic, given=given
    )


def _load(path: Path) -> Any:
    check_file(path, MAX_TEXT_BYTES)
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise EngineError(
            f"{path} is a model of OpenVINO, which is not installed: pip install 'latlut[openvino]'"
        ) from error
    try:
        return openvino.Core().read_model(path)
    except Exception as error:  # OpenVINO's own have no common base
        reason = (str(error) or type(error).__name__).strip().splitlines()[-1]
        raise ImportFileError(f"{path}: cannot be read as a model of OpenVINO: {reason}") from error
