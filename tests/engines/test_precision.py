"""Precision in the graph: what ONNX Runtime computes from it agrees with PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from some_specs import SPECS

from latlut.engines.parity import PARITY_TOLERANCE
from latlut.engines.precision import half_precision, node_label, opset_of, quantized
from latlut.errors import EngineError
from latlut.operators.graph_cache import GraphCache
from latlut.operators.onnx_export import OPSET
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.spaces import FasterSegSpace

CONV = OpSpec("conv", (8, 16, 16), 8)


def _graph(workload: Workload) -> bytes:
    return GraphCache().onnx_bytes(workload)


def _run(graph: bytes, arrays: list[np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = {f"in{index}": array for index, array in enumerate(arrays)}
    (found,) = session.run(None, feeds)
    return found.astype(np.float32)


def _difference(workload: Workload, graph: bytes, dtype: type[np.floating]) -> float:
    arrays = workload.random_inputs(seed=1)
    with torch.inference_mode():
        expected = workload.build()(*map(torch.from_numpy, arrays)).numpy()
    found = _run(graph, [array.astype(dtype) for array in arrays])
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("text", SPECS)
def test_every_operator_in_fp16_agrees_with_pytorch(text: str) -> None:
    workload = Workload.from_spec(OpSpec.parse(text))
    graph = half_precision(_graph(workload))
    assert _difference(workload, graph, np.float16) < PARITY_TOLERANCE["fp16"] / 10


@pytest.mark.parametrize("text", SPECS)
def test_every_operator_in_int8_agrees_with_pytorch(text: str) -> None:
    workload = Workload.from_spec(OpSpec.parse(text))
    graph = quantized(_graph(workload), [workload.random_inputs(seed=2)])
    # In a depthwise convolution few rounding errors average out, and others follow on it.
    is_depthwise = workload.specs[0].kind in ("depthwise_separable", "inverted_residual")
    limit = PARITY_TOLERANCE["int8"] / (1.5 if is_depthwise else 3)
    assert _difference(workload, graph, np.float32) < limit


def test_a_whole_network_agrees_in_both() -> None:
    network = FasterSegSpace(layers=4, widths=(4,), stem_head_widths=(4,)).sample(3)
    workload = Workload.from_nodes(network.nodes((64, 96)), "a network")
    graph = _graph(workload)
    assert _difference(workload, half_precision(graph), np.float16) < PARITY_TOLERANCE["fp16"]
    in_int8 = quantized(graph, [workload.random_inputs(seed=2)])
    assert _difference(workload, in_int8, np.float32) < PARITY_TOLERANCE["int8"]


def test_an_fp16_graph_has_no_float32_left() -> None:
    """Nothing but the scales of Resize: a cast at an operator's edge would be timed with it."""
    workload = Workload.from_spec(OpSpec.parse("zoomed_conv 8->16 stride 1 at 15x17"))
    model = onnx.load_from_string(half_precision(_graph(workload)))
    half = onnx.TensorProto.FLOAT16
    edges = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in edges} == {half}
    assert {item.data_type for item in model.graph.initializer} == {half}
    assert "Cast" not in {node.op_type for node in model.graph.node}


def test_an_int8_graph_quantises_the_inputs_of_convolutions_per_channel() -> None:
    workload = Workload.from_spec(OpSpec.parse("conv_2x 8->8 stride 1 at 16x16"))
    model = onnx.load_from_string(quantized(_graph(workload), [workload.random_inputs()]))
    made_by = {name: node for node in model.graph.node for name in node.output}
    weights = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        data, kernel = made_by[node.input[0]], made_by[node.input[1]]
        assert (data.op_type, kernel.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert weights[data.input[1]].size == 1
        assert weights[kernel.input[1]].shape == (8,)
        assert weights[kernel.input[0]].dtype == np.int8
        assert not weights[kernel.input[2]].any()  # symmetric, as TensorRT requires
        assert weights.get(node.input[2], np.zeros(1, np.float32)).dtype == np.float32
    assert not any(
        made_by.get(node.input[0]) in convolutions
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    )  # the activation in between must stay fusable


def test_quantising_is_repeatable_and_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    workload = Workload.from_spec(CONV)
    graph, samples = _graph(workload), [workload.random_inputs(seed=2)]
    assert quantized(graph, samples) == quantized(graph, samples)
    assert half_precision(graph) == half_precision(graph)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a"])
def test_what_is_no_graph_is_refused(content: bytes) -> None:
    for read in (opset_of, half_precision, lambda graph: quantized(graph, [])):
        with pytest.raises(EngineError, match="no ONNX model"):
            read(content)


def test_opset_and_nodes_are_named() -> None:
    graph = _graph(Workload.from_spec(CONV))
    assert opset_of(graph) == OPSET
    assert node_label(graph, 0).startswith("Conv '")
    assert node_label(graph, 99) == "node 99"
