"""ONNX files cut into pieces: equal pieces of different files, what is in none, hostile graphs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import segmenter

from latlut.errors import EngineError, ImportFileError, SpecError, UnknownNameError
from latlut.operators.building import build, cost
from latlut.operators.in_context import context_of
from latlut.operators.onnx_cutting import by_layers, by_work, cut
from latlut.operators.onnx_files import read_onnx
from latlut.operators.subgraph import stored_subgraph
from latlut.operators.subgraph_kinds import MAX_BYTES
from latlut.operators.subgraph_store import known, subgraph_of
from latlut.operators.subgraph_weights import with_weights
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec


def model(
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...] = (1, 8, 12, 12),
    weights: dict[str, np.ndarray] | None = None,
    output: str = "y",
) -> bytes:
    """A model of one input ``x`` and one output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def conv(source: str, target: str, weight: str = "w", **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [target], pads=[1, 1, 1, 1], **attributes)


def residual(seed: int, prefix: str = "") -> bytes:
    """Two convolutions with a residual sum; other weights and names by ``seed`` and ``prefix``."""
    draw = np.random.default_rng(seed)
    weight = draw.standard_normal((8, 8, 3, 3), dtype=np.float32)
    nodes = [
        conv("x", f"{prefix}a"),
        helper.make_node("Relu", [f"{prefix}a"], [f"{prefix}b"]),
        conv(f"{prefix}b", f"{prefix}c"),
        helper.make_node("Add", [f"{prefix}c", "x"], [f"{prefix}d"]),
        helper.make_node("Relu", [f"{prefix}d"], ["y"]),
    ]
    return model(nodes, weights={"w": weight})


def test_pieces_are_convolutions_with_their_tails() -> None:
    found = cut(read_onnx(residual(0), name="net"), by_work)
    assert [piece.label for piece in found.pieces] == [
        "Conv 8->8 3x3 s1 + Relu at 12x12, network's input",
        "Conv 8->8 3x3 s1 + Add + Relu at 12x12, network's input, network's output",
    ]
    assert found.unpriced == ()
    first, second = found.op_specs()
    assert (first.kind, first.inputs, first.out_channels) == ("subgraph_conv", ((8, 12, 12),), 8)
    assert len(second.inputs) == 2
    assert OpSpec.parse(second.key) == second


def test_weights_and_names_are_no_part_of_a_piece_shapes_and_attributes_are() -> None:
    specs = cut(read_onnx(residual(0)), by_work).op_specs()
    assert cut(read_onnx(residual(7, "other_")), by_work).op_specs() == specs
    weight = {"w": np.ones((8, 8, 3, 3), np.float32)}
    plain = cut(read_onnx(model([conv("x", "y")], weights=weight)), by_work).op_specs()
    explicit = model([conv("x", "y", group=1, strides=[1, 1])], weights=weight)
    dilated = model([conv("x", "y", dilations=[2, 2])], weights=weight)
    assert cut(read_onnx(explicit), by_work).op_specs()[0].inputs == plain[0].inputs
    assert cut(read_onnx(dilated), by_work).op_specs() != plain
    wide = model([conv("x", "y")], (1, 8, 12, 14), weight)
    assert cut(read_onnx(wide), by_work).op_specs() != plain


def test_numbers_that_shape_the_computation_are_kept_and_weights_are_not() -> None:
    file = read_onnx(segmenter(shape=(1, 3, 16, 24)))
    for spec in cut(file, by_work).op_specs():
        for item in subgraph_of(spec).model.graph.initializer:
            assert bool(item.raw_data) == (np.prod(item.dims) <= 8)


def test_a_piece_computes_what_the_file_does_with_the_same_weights() -> None:
    """The last piece, fed with what the file computes before it, gives the file's output."""
    content = residual(3)
    whole = read_onnx(content)
    x = whole.random_inputs(5)[0]
    traced = onnx.load_model_from_string(content)
    traced.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(traced.SerializeToString())
    expected, middle = session.run(["y", "b"], {"x": x})
    last = subgraph_of(cut(whole, by_work).op_specs()[-1])
    filled = with_weights(last.model)
    (weight,) = filled.graph.initializer
    weight.raw_data = onnx.load_model_from_string(content).graph.initializer[0].raw_data
    names = [item.name for item in filled.graph.input]
    found = onnxruntime.InferenceSession(filled.SerializeToString()).run(
        None, dict(zip(names, [middle, x], strict=True))
    )
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_sizes_that_a_graph_computes_are_constants() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    weights = {
        "first": np.array([0]), "rest": np.array([-1]), "w": np.ones((72, 5), np.float32)
    }  # fmt: skip
    found = cut(read_onnx(model(nodes, (2, 8, 3, 3), weights)), by_work)
    assert found.unpriced == ()
    assert [piece.label.split(" at ")[0] for piece in found.pieces] == [
        "Reshape", "MatMul 2x72->5",
    ]  # fmt: skip
    assert found.op_specs()[1].batch == 2


def test_what_can_be_no_piece_is_named() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["go"]), helper.make_node("Relu", ["v"], ["o"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("o", TensorProto.FLOAT, None),
        ],
    )
    weights = {"w": np.ones((8, 8, 3, 3), np.float32), "three": np.array(3), "yes": np.array(True)}
    loop = [
        conv("x", "a"),
        helper.make_node("Loop", ["three", "yes", "a"], ["y"], body=body, name="again"),
    ]
    found = cut(read_onnx(model(loop, weights=weights)), by_work)
    assert len(found.pieces) == 1
    assert [text.split(":")[0] for text in found.unpriced] == ["Loop 'again'"]
    custom = [conv("x", "a"), helper.make_node("Magic", ["a"], ["y"], domain="mine", name="m")]
    found = cut(read_onnx(model(custom, weights=weights)), by_work)
    assert "mine.Magic 'm': a custom operator" in found.unpriced
    behind = [
        conv("x", "a"),
        helper.make_node("Magic", ["a"], ["b"], domain="mine", name="m"),
        helper.make_node("Relu", ["b"], ["y"], name="r"),
    ]
    content = onnx.load_model_from_string(model(behind, weights=weights))
    del content.graph.output[0].type.tensor_type.shape.dim[:]
    content.graph.output[0].type.tensor_type.ClearField("shape")
    found = cut(read_onnx(content.SerializeToString()), by_work)
    assert found.unpriced[-1] == (
        "Relu 'r': its sizes follow from mine.Magic 'm', a custom operator"
    )
    dependent = [conv("x", "a"), helper.make_node("NonZero", ["a"], ["y"], name="where")]
    content = onnx.load_model_from_string(model(dependent, weights=weights))
    content.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    found = cut(read_onnx(content.SerializeToString()), by_work)
    assert found.unpriced == ("NonZero 'where': its sizes depend on the data",)


def test_layers_of_an_engine_are_pieces() -> None:
    file = read_onnx(residual(0))
    names = ["Conv_0", "Relu_1", "Conv_2", "Add_3", "Relu_4"]
    apart = cut(file, by_layers([[name] for name in names]))
    assert len(apart.pieces) == 5
    together = cut(file, by_layers([names[:2], [*names[2:4]]]))  # the last is in no layer
    assert [piece.nodes for piece in together.pieces] == [tuple(names[:2]), tuple(names[2:])]


def test_in_context_a_piece_stands_between_neighbours() -> None:
    spec = cut(read_onnx(residual(0)), by_work).op_specs()[1]
    context = context_of(spec)
    assert context.without is not None
    assert context.with_operator.input_shapes == ((1, 4, 12, 12), (1, 4, 12, 12))
    assert context.without.input_shapes == context.with_operator.input_shapes
    for workload in (context.with_operator, context.without):
        for array in workload.expected(workload.random_inputs()):
            assert array.shape == (1, 8, 1, 1)


def test_tokens_in_context_and_an_image_alone() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    tokens = model(nodes, (1, 6, 10), {"w": np.ones((10, 4), np.float32)})
    context = context_of(cut(read_onnx(tokens), by_work).op_specs()[0])
    assert context.without is not None
    outputs = [w.expected(w.random_inputs())[0].shape for w in (context.with_operator,)]
    assert outputs == [(1, 6, 1)]
    image = model([conv("x", "y")], (1, 3, 8, 8), {"w": np.ones((4, 3, 3, 3), np.float32)})
    assert context_of(cut(read_onnx(image), by_work).op_specs()[0]).without is None


def test_an_op_spec_without_its_graph_is_refused_by_name() -> None:
    stranger = OpSpec("subgraph_conv", (8, 12, 12), 8, graph="g" + "0" * 40)
    assert known(stranger) is None
    for use in (Workload.from_spec, cost, context_of):
        with pytest.raises(SpecError, match="its graph is not known here"):
            use(stranger)
    with pytest.raises(EngineError, match="PyTorch does not run"):
        build(cut(read_onnx(residual(0)), by_work).op_specs()[0])
    with pytest.raises(UnknownNameError):
        Workload.from_spec(OpSpec("subgraph_unheard", (8, 12, 12), 8))


def test_costs_are_those_of_the_piece() -> None:
    spec = cut(read_onnx(residual(0)), by_work).op_specs()[0]
    found = cost(spec)
    assert found.macs == 8 * 8 * 9 * 12 * 12
    assert found.params == 8 * 8 * 9
    assert found.moved_bytes == 4 * (2 * 8 * 12 * 12 + 8 * 8 * 9)


def _changed(content: bytes, change: str) -> bytes:
    found = onnx.load_model_from_string(content)
    graph = found.graph
    if change == "another stride":
        graph.node[0].attribute.append(helper.make_attribute("strides", [2, 2]))
    elif change == "a custom operator":
        graph.node[0].domain = "evil"
    elif change == "external weights":
        tensor = graph.initializer[0]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
    elif change == "endless weights":
        graph.initializer[0].dims[:] = [1 << 20, 1 << 20, 3, 3]
    elif change == "negative weights":
        graph.initializer[0].dims[:] = [-8, 8, 3, 3]
    elif change == "no shape":
        graph.input[0].type.tensor_type.ClearField("shape")
    elif change == "a loop":
        graph.node[0].attribute.append(
            helper.make_attribute("body", helper.make_graph([], "b", [], []))
        )
    elif change == "no nodes":
        del graph.node[:]
    return found.SerializeToString()


@pytest.mark.parametrize(
    "change",
    ["another stride", "a custom operator", "external weights", "endless weights",
     "negative weights", "no shape", "a loop", "no nodes"],
)  # fmt: skip
def test_a_stored_graph_that_is_not_the_piece_is_refused(change: str) -> None:
    piece = subgraph_of(cut(read_onnx(residual(0)), by_work).op_specs()[0])
    assert stored_subgraph(piece.digest, piece.content).spec == piece.spec
    with pytest.raises(ImportFileError):
        stored_subgraph(piece.digest, _changed(piece.content, change))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04", bytes(MAX_BYTES + 1)])
def test_stored_bytes_that_are_no_graph_are_refused(content: bytes) -> None:
    with pytest.raises(ImportFileError):
        stored_subgraph("0" * 40, content)
