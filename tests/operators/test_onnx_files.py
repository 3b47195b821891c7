"""ONNX files from outside: which shapes they get, what engines make of them, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import adder, segmenter

from latlut.engines import engine_class
from latlut.errors import EngineError, ImportFileError, SpecError
from latlut.operators.graph_view import scope_of
from latlut.operators.input_files import read_inputs
from latlut.operators.onnx_files import read_onnx

READERS = ["onnxruntime", "openvino"]


def engine_named(name: str):
    found = engine_class(name).availability()
    if not found.is_available:
        pytest.skip(found.reason)
    return engine_class(name)()


@pytest.mark.parametrize("open_sides", list(product([False, True], repeat=3)))
@pytest.mark.parametrize("batch", [None, 2, 3])
@pytest.mark.parametrize("size", [None, (16, 24), (32, 24)])
def test_open_sides_take_what_is_asked_and_fixed_ones_are_kept(
    open_sides: tuple[bool, bool, bool], batch: int | None, size: tuple[int, int] | None
) -> None:
    own = (2, 16, 24)
    names = ("batch", "height", "width")
    sides = [
        name if free else side for name, side, free in zip(names, own, open_sides, strict=True)
    ]
    asked = (batch, *(size or (None, None)))
    content = segmenter((sides[0], 3, *sides[1:]))
    fits = all(free or a in (None, o) for free, a, o in zip(open_sides, asked, own, strict=True))
    is_settled = not any(open_sides[1:]) or size is not None
    if not fits:
        with pytest.raises(SpecError, match="is fixed at"):
            read_onnx(content, size, batch)
    elif not is_settled:
        with pytest.raises(SpecError, match=r"leaves its size open.*--input 1024x2048"):
            read_onnx(content, size, batch)
    else:
        default = (1, None, None)
        expected = [
            (a or d) if free else o
            for free, a, o, d in zip(open_sides, asked, own, default, strict=True)
        ]
        workload = read_onnx(content, size, batch)
        assert workload.input_shapes == ((expected[0], 3, *expected[1:]),)
        inside = onnx.load_from_string(workload.content).graph.input[0].type.tensor_type.shape.dim
        assert tuple(dim.dim_value for dim in inside) == workload.input_shapes[0]


def test_sides_of_one_name_are_fixed_together() -> None:
    model = onnx.load_from_string(segmenter(("n", 3, 16, 24)))
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    workload = read_onnx(model.SerializeToString(), batch=5)
    fixed = onnx.load_from_string(workload.content).graph.output[0].type.tensor_type.shape.dim[0]
    assert fixed.dim_value == 5


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("has_argmax", [False, True])
def test_engines_agree_with_the_graph_as_it_is(name: str, has_argmax: bool) -> None:
    engine = engine_named(name)
    workload = read_onnx(segmenter(("n", 3, "h", "w"), has_argmax=has_argmax), (32, 48), 2)
    assert workload.input_names == ("image",)
    with engine.load(workload) as session:
        assert engine.check_parity(session) < (1e-2 if has_argmax else 1e-5)
        assert session.outputs()[0].shape == (2, 1 if has_argmax else 4, 32, 48)
        assert (session.sample_ns(3) > 0).all()


@pytest.mark.parametrize("name", READERS)
def test_several_inputs_and_outputs_of_other_types(name: str) -> None:
    engine = engine_named(name)
    workload = read_onnx(adder((2, 3), (2, 3)))
    first, second = workload.random_inputs(seed=4)
    with engine.load(workload) as session:
        session.set_inputs([first, second])
        session.run()
        total, larger = session.outputs()
        assert np.allclose(total, first + second)
        assert np.array_equal(larger, (first > second).astype(np.float32))
        engine.check_parity(session)


def test_an_engine_that_reads_no_onnx_says_which_do() -> None:
    with pytest.raises(EngineError, match=r"model\.onnx is an ONNX file.*--engine onnxruntime"):
        engine_class("pytorch")().load(read_onnx(segmenter(), name="model.onnx"))


@pytest.mark.parametrize("name", READERS)
def test_a_graph_that_an_engine_rejects_is_named(name: str) -> None:
    engine = engine_named(name)
    workload = read_onnx(segmenter(op_type="NoSuchOperator"), name="odd.onnx")
    with pytest.raises(EngineError, match=r"(?s)rejects odd\.onnx.*NoSuchOperator"):
        engine.load(workload)


def large_zeros(*, is_output: bool, is_inferred: bool) -> bytes:
    """A graph that makes 2^50 zeros; ONNX infers no product of a list."""
    factors = onnx.numpy_helper.from_array(np.array([1 << 25, 1 << 25]), "factors")
    whole = onnx.numpy_helper.from_array(np.array([1 << 50]), "whole")
    long, image = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [side])
        for name, side in (("y", "n"), ("x", 1))
    )
    nodes = [
        helper.make_node("ReduceProd", ["factors"], ["product"], keepdims=1),
        helper.make_node("ConstantOfShape", ["whole" if is_inferred else "product"], ["zeros"]),
        helper.make_node("Add", ["x", "zeros"], ["y" if is_output else "sum"]),
    ]
    if not is_output:
        nodes.append(helper.make_node("ReduceMax", ["sum"], ["y"], keepdims=1))
    graph = helper.make_graph(nodes, "g", [image], [long], [factors, whole])
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.mark.parametrize("is_output", [True, False])
def test_a_map_that_is_seen_to_be_huge_is_refused_unrun(is_output: bool) -> None:
    content = large_zeros(is_output=is_output, is_inferred=True)
    with pytest.raises(SpecError, match=r"long.onnx: the output zeros of ConstantOfShape is too"):
        read_onnx(content, name="long.onnx")


@pytest.mark.parametrize("is_output", [True, False])
def test_a_tensor_that_no_memory_holds_is_the_engine_s_refusal(is_output: bool) -> None:
    content = large_zeros(is_output=is_output, is_inferred=False)
    with (
        pytest.raises(EngineError, match=r"ONNX Runtime (failed on|rejects) long.onnx: "),
        engine_named("onnxruntime").load(read_onnx(content, name="long.onnx")) as session,
    ):
        session.run()


def test_large_weights_are_left_out_of_inference_and_small_ones_are_not() -> None:
    weight = onnx.numpy_helper.from_array(np.ones((64, 3, 32, 32), np.float32), "w")
    sides = onnx.numpy_helper.from_array(np.array([1, -1, 64]), "sides")
    image, found = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 40, 40]), ("y", None))
    )
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Reshape", ["c", "sides"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [image], [found], [weight, sides])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    shapes = scope_of(model).shapes
    assert shapes["w"] == (64, 3, 32, 32) and shapes["y"] == (1, 81, 64)
    assert model.graph.initializer[0].raw_data == weight.raw_data


def test_more_axes_than_an_array_has_are_refused() -> None:
    sides = [1] * 65
    image, found = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name in ("x", "y")
    )
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [image], [found])
    content = helper.make_model(graph).SerializeToString()
    with pytest.raises(SpecError, match="the input 'x' has 65 axes"):
        read_onnx(content)


def test_weights_that_older_tools_list_among_the_inputs_are_no_inputs() -> None:
    model = onnx.load_from_string(segmenter())
    weight = model.graph.initializer[0]
    model.graph.input.append(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    )
    assert read_onnx(model.SerializeToString()).input_names == ("image",)


def test_weights_in_a_file_of_their_own_are_read(tmp_path: Path) -> None:
    model = onnx.load_from_string(segmenter())
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    workload = read_onnx(path)
    (found,) = workload.expected(workload.random_inputs())
    (wanted,) = read_onnx(segmenter()).expected(workload.random_inputs())
    assert np.array_equal(found, wanted)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ImportFileError, match="model.onnx"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no nodes"),
        (b"this is no model", "cannot be read as an ONNX model|no nodes"),
        (segmenter(elem_type=TensorProto.STRING), "'image' is STRING"),
        (segmenter(elem_type=TensorProto.BFLOAT16), "'image' is BFLOAT16"),
        (segmenter(elem_type=TensorProto.COMPLEX64), "'image' is COMPLEX64"),
        (segmenter(elem_type=99), "'image' is .*unknown"),
    ],
)
def test_what_cannot_be_run_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ImportFileError, match=message):
        read_onnx(content)


def test_open_sides_that_no_image_size_settles_are_refused() -> None:
    with pytest.raises(SpecError, match="--shape image:1x64x16x24"):
        read_onnx(segmenter((1, "channels", 16, 24)), (16, 24))
    with pytest.raises(SpecError, match="--shape a:1x64"):
        read_onnx(adder((1, "m"), (1, "m")))
    with pytest.raises(SpecError, match="leave --input out"):
        read_onnx(adder((1, 4), (1, 4)), (16, 24))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"none\.onnx: no such file"):
        read_onnx(tmp_path / "none.onnx")
    with pytest.raises(ImportFileError, match="is a folder"):
        read_onnx(tmp_path)


def relu(kind: int, shape: Sequence[int | str], op_type: str = "Identity") -> bytes:
    """One node between an input ``x`` and an output ``y`` of the same type."""
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


KINDS = [
    "FLOAT",
    "DOUBLE",
    "FLOAT16",
    "BOOL",
    *(f"{u}INT{n}" for u in ("", "U") for n in (8, 16, 32, 64)),
]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2, 5), ()])
def test_inputs_and_outputs_of_any_type_of_number(
    name: str, kind: str, shape: tuple[int, ...]
) -> None:
    engine = engine_named(name)
    workload = read_onnx(relu(getattr(TensorProto, kind), shape))
    (array,) = workload.random_inputs()
    assert (array.shape, array.dtype) == (shape, workload.input_types[0])
    with engine.load(workload) as session:
        assert engine.check_parity(session) == 0
        assert (session.sample_ns(2) > 0).all()


def test_token_numbers_reach_every_row_of_the_table_that_they_index() -> None:
    table = onnx.numpy_helper.from_array(np.zeros((500, 8), np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "embedding",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 2000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (ids,) = read_onnx(model.SerializeToString()).random_inputs()
    assert 0 <= ids.min() < 10 and 490 <= ids.max() < 500


def test_shapes_by_name() -> None:
    content = adder((1, "m"), (1, "m"))
    workload = read_onnx(content, shapes={"a": (1, 7), "b": (1, 7)})
    assert workload.input_shapes == ((1, 7), (1, 7))
    assert read_onnx(segmenter(("n", 3, "h", "w")), shapes={"": (2, 3, 8, 9)}).batch == 2
    for shapes, message in [
        ({"a": (1, 7)}, r"b \(1, m\) leaves its size open.*such as --shape b:1x64"),
        ({}, r"a .*, b .* leave their sizes open.*--shape a:1x64 --shape b:1x64"),
        ({"c": (1, 7)}, r"no input 'c'; it has a \(1, m\), b \(1, m\)"),
        ({"": (1, 7)}, "several inputs"),
        ({"a": (1, 7, 1), "b": (1, 7)}, "has 2 axes, 1x7x1 has 3"),
        ({"a": (2, 7), "b": (1, 7)}, "fixed at"),
        ({"a": (1, 1 << 40), "b": (1, 7)}, "too large"),
    ]:
        with pytest.raises(SpecError, match=message):
            read_onnx(content, shapes=shapes)


def test_channels_last_takes_an_image_size_and_open_sides_next_to_each_other() -> None:
    model = onnx.load_from_string(segmenter(("n", "h", "w", 3)))
    workload = read_onnx(model.SerializeToString(), (32, 48), 2)
    assert workload.input_shapes == ((2, 32, 48, 3),)
    assert (workload.batch, workload.image_size) == (2, (32, 48))


def test_given_inputs_are_what_is_run(tmp_path: Path) -> None:
    first, second = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    np.savez(tmp_path / "in.npz", a=first, b=second)
    data = read_inputs(tmp_path / "in.npz")
    workload = read_onnx(adder((2, "n"), (2, "n")), data=data)
    assert workload.input_shapes == ((2, 3), (2, 3))
    total, larger = workload.expected(workload.random_inputs(seed=5))
    assert (total == 3).all() and not larger.any()
    for wrong, message in [
        ({"a": first}, "nothing is given for b"),
        ({"a": first, "b": second.astype(np.float64)}, "float64: convert it"),
        ({"a": first, "b": second[:1]}, "fixed at"),
    ]:
        with pytest.raises(SpecError, match=message):
            read_onnx(adder((2, "n"), (2, "n")), data=wrong)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04torn"])
def test_files_that_hold_no_arrays_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in.npz").write_bytes(content)
    with pytest.raises(ImportFileError, match="in.npz"):
        read_inputs(tmp_path / "in.npz")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ImportFileError, match="no .npy or .npz file of numbers"):
        read_inputs(tmp_path / "objects.npy")


@pytest.mark.parametrize("kind", ["sequence", "map", "optional"])
def test_outputs_that_are_no_tensors_are_refused_by_name(kind: str) -> None:
    model = onnx.load_from_string(segmenter())
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    made = {
        "sequence": lambda: helper.make_sequence_type_proto(tensor),
        "map": lambda: helper.make_map_type_proto(TensorProto.INT64, tensor),
        "optional": lambda: helper.make_optional_type_proto(tensor),
    }[kind]()
    model.graph.output[0].type.CopyFrom(made)
    with pytest.raises(ImportFileError, match=f"'full' is an? {kind}"):
        read_onnx(model.SerializeToString())


def hub_cache(folder: Path, location: str = "model.onnx_data") -> Path:
    """A model with its weights beside it, both links into a folder of blobs."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    onnx.save(
        onnx.load_from_string(segmenter()), snapshot / "model.onnx", save_as_external_data=True,
        location="model.onnx_data", size_threshold=0,
    )  # fmt: skip
    for number, name in enumerate(("model.onnx", "model.onnx_data")):
        (snapshot / name).rename(blobs / f"blob{number}")
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / f"blob{number}")
    return snapshot / "model.onnx"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("is_embedded", [True, False])
def test_weights_behind_links_are_read_and_large_ones_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_embedded: bool
) -> None:
    path = hub_cache(tmp_path)
    if not is_embedded:
        monkeypatch.setattr("latlut.operators.onnx_weights.EMBEDDED_BYTES", 100)
        monkeypatch.setattr("latlut.operators.onnx_weights.SMALL_BYTES", 100)
    workload = read_onnx(path)
    assert (workload.weights_folder is None) == is_embedded
    engine = engine_named(name)
    with engine.load(workload) as session:
        assert engine.check_parity(session) < 1e-5


@pytest.mark.parametrize(
    "location", ["../secret.bin", "/etc/hostname", "a/../../secret.bin", "C:\\secret.bin", ""]
)
def test_weights_outside_of_the_model_s_folder_are_refused(tmp_path: Path, location: str) -> None:
    model = onnx.load_from_string(segmenter())
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (tmp_path / "secret.bin").write_bytes(b"x" * 500)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ImportFileError, match="not in the model's own folder"):
        read_onnx(folder / "model.onnx")


@pytest.mark.parametrize(
    ("changed", "arithmetic"),
    [("QuantizeLinear", "int8"), ("MatMulNBits", "int8"), ("Relu", "fp32")],
)
def test_the_arithmetic_is_the_file_s(changed: str, arithmetic: str) -> None:
    assert read_onnx(segmenter(op_type=changed)).arithmetic == arithmetic


def test_half_and_double_precision_files_are_called_so() -> None:
    assert read_onnx(relu(TensorProto.FLOAT16, (1, 4))).arithmetic == "fp16"
    assert read_onnx(relu(TensorProto.DOUBLE, (1, 4))).arithmetic == "fp64"
