"""Precision written into an ONNX graph: FP16 casts, INT8 quantise/dequantise nodes.

TensorRT 11 has strongly typed networks only: an operator computes in the type that its inputs
have in the graph. A float16 graph takes and gives float16, as the same operator does in the
middle of a float16 network: casts at the edge of every operator would be counted once per entry
and never happen in the network. An 8-bit graph takes and gives float32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from latlut.errors import EngineError


def half_precision(graph: bytes) -> bytes:
    """The graph with float16 weights, arithmetic, inputs and outputs.

    Args:
        graph: a serialised float32 ONNX model.

    Raises:
        EngineError: this is no ONNX model.

    Source: onnxruntime.transformers.float16, which inserts casts around operators that have no
    float16 version. Some releases leave Resize in float32, for the sake of ONNX Runtime on GPUs;
    TensorRT resizes in float16, so that Resize is converted here. Its scales stay float32, as
    ONNX demands.
    """
    from onnxruntime.transformers import float16

    kept_in_fp32 = [name for name in float16.DEFAULT_OP_BLOCK_LIST if name != "Resize"]
    model = float16.convert_float_to_float16(
        _model(graph), keep_io_types=False, op_block_list=kept_in_fp32
    )
    return bytes(model.SerializeToString())


def quantized(graph: bytes, samples: Sequence[Sequence[np.ndarray]]) -> bytes:
    """The graph with 8-bit convolutions between quantise and dequantise nodes.

    Weights are quantised per output channel, activations per tensor, both symmetrically, as
    TensorRT requires; the range of an activation is what it takes on the samples (min-max). Only
    the inputs of convolutions are quantised: TensorRT fuses the following activation and the next
    convolution's quantise node into the convolution. Biases stay float32. The weights are trained
    on nothing here, so the graph serves latency, not accuracy.

    Args:
        graph: a serialised float32 ONNX model.
        samples: sets of inputs to calibrate on, float32 each, in the order of the graph's inputs.

    Raises:
        EngineError: this is no ONNX model.

    Source: TensorRT developer guide, "Working with Quantized Types" (placement of Q/DQ nodes).
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    model = _model(graph)
    weights = {item.name for item in model.graph.initializer}
    names = [item.name for item in model.graph.input if item.name not in weights]
    with tempfile.TemporaryDirectory(prefix="latlut-int8-") as folder, _quiet():
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            path,
            _reader(names, samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": ["Conv"],
            },
        )
        return path.read_bytes()


def opset_of(graph: bytes) -> int:
    """The version of ONNX's own operator set that the graph uses.

    Raises:
        EngineError: this is no ONNX model.
    """
    model = _model(graph)
    return max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))


def node_label(graph: bytes, index: int) -> str:
    """What the graph's node of that number is called: ``"Resize '/up/Resize'"``."""
    nodes = _model(graph).graph.node
    if not 0 <= index < len(nodes):
        return f"node {index}"
    return f"{nodes[index].op_type} {nodes[index].name!r}"


def _model(graph: bytes):  # type: ignore[no-untyped-def]  # onnx has no types
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(graph)
    except DecodeError as error:
        raise EngineError(f"this is no ONNX model: {error}") from error
    if not model.graph.node or not model.opset_import:
        raise EngineError("this is no ONNX model: it has no nodes or no operator set")
    return model


def _reader(  # type: ignore[no-untyped-def]
    names: Sequence[str], samples: Sequence[Sequence[np.ndarray]]
):
    """The samples as ONNX Runtime's calibration takes them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter([dict(zip(names, arrays, strict=True)) for arrays in samples])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ONNX Runtime's remarks on each graph: preprocess it, an initializer is unused."""
    import onnxruntime

    root = logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root.addFilter(keep)
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)  # its own default
        root.removeFilter(keep)
