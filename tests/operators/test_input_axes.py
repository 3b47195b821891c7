"""Which axis of an input is what: told from names, nodes and shapes, or left unknown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from onnx import helper
from torch import nn

from latlut.operators.input_axes import InputAxes, Side, common_batch, find_axes
from latlut.operators.workloads import ModuleWorkload

NCHW, NHWC, HWC = InputAxes(0, 1, 2, 3), InputAxes(0, 3, 1, 2), InputAxes(None, 2, 0, 1)
UNKNOWN = InputAxes()


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ((1, 3, 64, 128), NCHW),
        ((4, 3, 64, 128), NCHW),
        (("n", 3, "h", "w"), NCHW),
        ((None, 1, None, None), NCHW),
        ((1, 64, 128, 3), NHWC),
        (("N", "H", "W", 3), NHWC),
        (("batch_size", "height", "width", "channels"), NHWC),
        ((None, None, None, 1), NHWC),
        ((128, 64, 3), HWC),
        ((1, 3, 3, 3), InputAxes(batch=0)),
        ((1, 64, 32, 48), InputAxes(batch=0)),
        ((8, 64, 32, 48), UNKNOWN),
        ((1, 16), InputAxes(batch=0)),
        ((4, 16), UNKNOWN),
        (("batch", "sequence"), InputAxes(batch=0)),
        (("sequence_length", "batch", 80), InputAxes(batch=1)),
        (("seq_len", 512), UNKNOWN),
        ((None, 77), InputAxes(batch=0)),
        (("n", 77), InputAxes(batch=0)),
        (("dynamic_axes_1", 77), InputAxes(batch=0)),
        (("unk__12", 77), InputAxes(batch=0)),
        (("num_boxes", 4), UNKNOWN),
        (("L", 16), UNKNOWN),
        (("num_images", 3, "h", "w"), NCHW),
        ((1,), UNKNOWN),
        ((None,), UNKNOWN),
        ((), UNKNOWN),
        ((3, 224, 224), UNKNOWN),
        ((1, 224, 224), InputAxes(batch=0)),
        ((7, 2, 20), UNKNOWN),
    ],
)
def test_names_and_shapes(sides: Sequence[Side], expected: InputAxes) -> None:
    assert find_axes("x", sides) == expected


@pytest.mark.parametrize(
    ("nodes", "sides", "expected"),
    [
        ([("Conv", ["x", "w"], {})], (1, 3, 3, 3), NCHW),
        ([("Conv", ["x", "w"], {})], (8, 64, 32, 48), NCHW),
        ([("Relu", ["x"], {}), ("Conv", ["o0", "w"], {})], (8, 64, 32, 48), NCHW),
        ([("Transpose", ["x"], {"perm": [0, 3, 1, 2]})], (2, 4, 4, 64), NHWC),
        ([("Cast", ["x"], {"to": 1}), ("Transpose", ["o0"], {"perm": [2, 0, 1]})], (4, 4, 4), HWC),
        ([("MatMul", ["x", "w"], {})], (8, 64, 32, 48), UNKNOWN),
        ([("Conv", ["other", "w"], {})], (8, 64, 32, 48), UNKNOWN),
        ([("Conv", ["x", "w"], {})], (5, 80, 100), InputAxes(batch=0, channels=1)),
    ],
)
def test_what_the_graph_does_first(
    nodes: list[tuple[str, list[str], dict]], sides: Sequence[Side], expected: InputAxes
) -> None:
    made = [
        helper.make_node(kind, inputs, [f"o{index}"], **attributes)
        for index, (kind, inputs, attributes) in enumerate(nodes)
    ]
    assert find_axes("x", sides, made) == expected


def test_inputs_have_to_agree_on_the_batch() -> None:
    assert common_batch([NCHW, InputAxes(batch=0)], [(4, 3, 8, 8), (4, 7)]) == 4
    assert common_batch([NCHW, UNKNOWN], [(4, 3, 8, 8), (7, 2)]) == 4
    assert common_batch([NCHW, InputAxes(batch=0)], [(4, 3, 8, 8), (1, 7)]) is None
    assert common_batch([UNKNOWN], [(7, 2)]) is None


def test_modules_take_channels_last_too() -> None:
    def workload(*shapes: tuple[int, ...]) -> ModuleWorkload:
        return ModuleWorkload("m", shapes, nn.Identity().eval())

    assert workload((2, 3, 64, 128)).image_size == workload((2, 64, 128, 3)).image_size
    assert workload((2, 16, 64, 128)).image_size == (64, 128)
    assert workload((2, 64, 128, 3)).batch == 2
    assert workload((2, 3, 8, 8), (4, 3, 8, 8)).batch is None
    assert workload((7, 2)).batch is None
