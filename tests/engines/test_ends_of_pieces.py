"""Pieces of ONNX files on engines: no conversion at their ends, the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from latlut.engines import engine_class
from latlut.operators.onnx_cutting import by_work, cut
from latlut.operators.onnx_files import read_onnx
from latlut.operators.workloads import Workload

ENGINES = ("onnxruntime", "openvino")


def chain() -> bytes:
    """Three convolutions, the second with a residual sum; few channels and large maps."""
    draw = np.random.default_rng(0)
    sides = {"w1": (16, 3, 3, 3), "w2": (16, 16, 1, 1), "w3": (19, 16, 1, 1)}
    weights = [
        numpy_helper.from_array(draw.standard_normal(side, dtype=np.float32), name)
        for name, side in sides.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"]),
        helper.make_node("Add", ["b", "a"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "w3"], ["y"]),
    ]
    shape = (1, 3, 40, 72)
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize("name", ENGINES)
def test_each_piece_gives_what_the_reference_does(name: str) -> None:
    pytest.importorskip(name)
    engine = engine_class(name)(1, "fp32")
    for spec in cut(read_onnx(chain()), by_work).op_specs():
        with engine.load(Workload.from_spec(spec)) as session:
            assert engine.check_parity(session) < 1e-4


def test_openvino_converts_no_maps_between_pieces_and_the_networks_own_output() -> None:
    pytest.importorskip("openvino")
    engine = engine_class("openvino")(1, "fp32")
    first, middle, last = (
        Workload.from_spec(spec) for spec in cut(read_onnx(chain()), by_work).op_specs()
    )
    assert (first.free_layouts, len(middle.free_layouts), len(last.free_layouts)) == ((), 1, 1)
    shapes = []
    for workload in (middle, last):
        with engine.load(workload) as session:
            session.run()
            (output,) = session.outputs()
            shapes.append(output.shape)
            assert list(session._compiled.inputs[0].shape) == [1, 40, 72, 16]
    assert shapes == [(1, 16, 1, 1), (1, 19, 40, 72)]


def test_maps_within_a_network_mostly_keep_their_sign_and_images_do_not() -> None:
    """PRelu of ONNX Runtime takes four to six times as long where signs are random."""
    first, middle, last = (
        Workload.from_spec(spec) for spec in cut(read_onnx(chain()), by_work).op_specs()
    )

    def kept(workload: Workload) -> float:
        (image,) = workload.random_inputs()
        return float((np.sign(image[..., 1:]) == np.sign(image[..., :-1])).mean())

    assert 0.45 < kept(first) < 0.55
    for workload in (middle, last):
        assert 0.6 < kept(workload) < 0.95
        (image,) = workload.random_inputs()
        assert image.dtype == np.float32 and (image.min() < 0) and (image.max() > 0)
        assert np.array_equal(image, workload.random_inputs()[0])
