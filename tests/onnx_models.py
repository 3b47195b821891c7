"""Small ONNX models as other tools write them: inputs by any name, sides left open."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]


def segmenter(
    shape: Shape = (1, 3, 16, 24),
    *,
    classes: int = 4,
    input_name: str = "image",
    has_upsample: bool = True,
    has_argmax: bool = False,
    elem_type: int = TensorProto.FLOAT,
    op_type: str = "Relu",
) -> bytes:
    """A stride-2 convolution, ``op_type``, and what is asked for after it.

    The output's shape is left open where the input's is, so that a reader has to find it.
    """
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((classes, 3, 3, 3), dtype=np.float32)
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), "scales"),
    ]
    nodes = [
        helper.make_node(
            "Conv", [input_name, "weight"], ["half"], pads=[1, 1, 1, 1], strides=[2, 2]
        ),
        helper.make_node(op_type, ["half"], ["active"]),
    ]
    last, output_type = "active", TensorProto.FLOAT
    if has_upsample:
        nodes.append(helper.make_node("Resize", [last, "", "scales"], ["full"], mode="linear"))
        last = "full"
    if has_argmax:
        nodes.append(helper.make_node("ArgMax", [last], ["classes"], axis=1, keepdims=1))
        last, output_type = "classes", TensorProto.INT64
    sides = [None] * 4
    if all(isinstance(side, int) for side in shape):
        batch, _, height, width = shape
        divisor = 1 if has_upsample else 2
        sides = [batch, 1 if has_argmax else classes, height // divisor, width // divisor]
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info(input_name, elem_type, list(shape))],
        [helper.make_tensor_value_info(last, output_type, sides)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def adder(first: Shape, second: Shape) -> bytes:
    """Two inputs, two outputs: their sum, and whether the first is larger (bool)."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Greater", ["a", "b"], ["larger"]),
        ],
        "adder",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, list(first)),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, list(second)),
        ],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("larger", TensorProto.BOOL, None),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def word_reader(words: int = 7, vocabulary: int = 50, channels: int = 8) -> bytes:
    """Token numbers (1, words), int64, looked up in a table and multiplied by a matrix."""
    generator = np.random.default_rng(0)
    table = generator.standard_normal((vocabulary, channels), dtype=np.float32)
    matrix = generator.standard_normal((channels, channels), dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "words"], ["vectors"]),
            helper.make_node("MatMul", ["vectors", "matrix"], ["out"]),
        ],
        "word_reader",
        [helper.make_tensor_value_info("words", TensorProto.INT64, [1, words])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, words, channels])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()
