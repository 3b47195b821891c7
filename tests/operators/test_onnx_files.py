"""ONNX files from outside: which shapes they get, what engines make of them, what is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_models import adder, segmenter

from latlut.engines import engine_class
from latlut.errors import EngineError, ImportFileError, SpecError
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
        (segmenter(elem_type=TensorProto.UINT8), "'image' is UINT8.*float32"),
    ],
)
def test_what_cannot_be_run_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ImportFileError, match=message):
        read_onnx(content)


def test_open_sides_that_no_image_size_settles_are_refused() -> None:
    with pytest.raises(SpecError, match="fixed shapes"):
        read_onnx(segmenter((1, "channels", 16, 24)), (16, 24))
    with pytest.raises(SpecError, match="fixed shapes"):
        read_onnx(adder((1, "n"), (1, "n")))
    with pytest.raises(SpecError, match="leave --input out"):
        read_onnx(adder((1, 4), (1, 4)), (16, 24))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"none\.onnx: no such file"):
        read_onnx(tmp_path / "none.onnx")
    with pytest.raises(ImportFileError, match="not a file"):
        read_onnx(tmp_path)
