"""ONNX Runtime's per-layer view of graphs with bodies, and of nodes without a name of their own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import segmenter

from latlut.engines import engine_class
from latlut.engines.base import LayerTime
from latlut.operators.onnx_files import read_onnx


def layers_of(content: bytes) -> tuple[LayerTime, ...]:
    with engine_class("onnxruntime")().load(read_onnx(content)) as session:
        return session.layers(3)


def with_body(kind: str) -> bytes:
    """A Relu, then a body that is run several times, or one of two."""
    state = helper.make_tensor_value_info("s", TensorProto.FLOAT, [4, 8])
    step = [helper.make_node("Sin", ["s"], ["t"]), helper.make_node("Cos", ["t"], ["n"])]
    made = helper.make_tensor_value_info("n", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(np.array(4, np.int64), "count")]
    if kind == "Loop":
        body = helper.make_graph(
            [*step, helper.make_node("Identity", ["go"], ["on"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                state,
            ],
            [helper.make_tensor_value_info("on", TensorProto.BOOL, []), made],
        )
        node = helper.make_node("Loop", ["count", "", "r"], ["y"], body=body)
    elif kind == "Scan":
        row = helper.make_tensor_value_info("s", TensorProto.FLOAT, [8])
        body = helper.make_graph(step, "body", [row], [made])
        node = helper.make_node("Scan", ["r"], ["y"], body=body, num_scan_inputs=1)
    else:
        inner = [helper.make_node("Sin", ["r"], ["t"]), helper.make_node("Cos", ["t"], ["n"])]
        body = helper.make_graph(inner, "body", [], [made])
        constants = [numpy_helper.from_array(np.zeros((), np.float32), "zero")]
        node = helper.make_node("If", ["is"], ["y"], then_branch=body, else_branch=body)
    nodes = [helper.make_node("Relu", ["x"], ["r"])]
    if kind == "If":
        nodes.append(helper.make_node("ReduceMax", ["r"], ["m"], keepdims=0))
        nodes.append(helper.make_node("Greater", ["m", "zero"], ["is"]))
    graph = helper.make_graph(
        [*nodes, node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize("kind", ["Loop", "Scan", "If"])
def test_a_body_is_part_of_its_node_s_layer(kind: str) -> None:
    found = layers_of(with_body(kind))
    assert [layer.kind for layer in found if layer.kind in ("Sin", "Cos")] == []
    (whole,) = (layer for layer in found if layer.kind == kind)
    assert whole.time_ms > 0 and len(whole.source_nodes) == 1


def test_nodes_without_a_name_are_told_apart() -> None:
    model = onnx.load_from_string(segmenter(op_type="Sin"))
    for node in model.graph.node:
        node.name = ""
    found = layers_of(model.SerializeToString())
    sources = [source for layer in found for source in layer.source_nodes]
    assert len(set(sources)) == len(sources) == 3


def test_all_nodes_that_a_product_becomes_count_to_it() -> None:
    """ONNX Runtime makes Reshape, Gemm, Reshape of a product of three sides with a sum."""
    draw = np.random.default_rng(0)
    weights = {
        "w": draw.standard_normal((48, 64), dtype=np.float32),
        "b": draw.standard_normal(64, dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Sin", ["x"], ["s"], name="before"),
            helper.make_node("MatMul", ["s", "w"], ["m"], name="product"),
            helper.make_node("Add", ["m", "b"], ["a"], name="sum"),
            helper.make_node("Cos", ["a"], ["y"], name="after"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 20, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = {layer.kind: layer.source_nodes for layer in layers_of(model.SerializeToString())}
    assert set(found["Gemm"]) == {"product", "sum"}
    assert (found["Sin"], found["Cos"]) == (("before",), ("after",))
