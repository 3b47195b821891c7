"""ONNX models that would take all memory, or whose graphs make no sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import segmenter

from latlut.errors import ImportFileError
from latlut.operators import onnx_loading
from latlut.operators.onnx_files import read_onnx
from latlut.operators.onnx_loading import load_onnx
from latlut.search.networks.cost import cost_of_onnx


def field(number: int, content: bytes) -> bytes:
    """A field of a protobuf message that is a message or a text."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def model(nodes: list[Any], functions: list[Any] | None = None, **inputs: Any) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y])
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    made = helper.make_model(graph, opset_imports=opset, functions=functions or [])
    return bytes(made.SerializeToString())


def function(name: str, *called: str) -> Any:
    """A local function that calls others one after the other."""
    nodes = [
        helper.make_node(item, [f"v{index}"], [f"v{index + 1}"], domain="own")
        for index, item in enumerate(called)
    ] or [helper.make_node("Relu", ["v0"], ["v1"])]
    last = f"v{max(1, len(called))}"
    return helper.make_function("own", name, ["v0"], [last], nodes, [helper.make_opsetid("", 17)])


@pytest.mark.parametrize("number", [1, 5, 11, 13], ids=["nodes", "weights", "inputs", "values"])
def test_more_parts_than_any_model_has_are_refused_unread(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(onnx_loading, "MAX_PARTS", 1000)
    graph = field(number, b"") * 1001
    with pytest.raises(ImportFileError, match="more than 1000 parts"):
        load_onnx(b"\x08\x08" + field(7, graph) + field(8, b"\x10\x0d"))


def test_parts_are_counted_in_bodies_and_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = field(2, field(1, field(2, field(1, b"") * 1000)))
    deep = field(7, field(1, field(5, field(6, field(11, axes)))))
    monkeypatch.setattr(onnx_loading, "MAX_PARTS", 1000)
    with pytest.raises(ImportFileError, match="more than 1000 parts"):
        load_onnx(deep)
    load_onnx(segmenter())


def test_functions_that_double_each_other_are_refused() -> None:
    functions = [function("f0")] + [
        function(f"f{n}", f"f{n - 1}", f"f{n - 1}") for n in range(1, 40)
    ]
    call = helper.make_node("f39", ["x"], ["y"], domain="own")
    with pytest.raises(ImportFileError, match="nodes with its functions inlined"):
        load_onnx(model([call], functions))
    call = helper.make_node("f3", ["x"], ["y"], domain="own")
    assert cost_of_onnx(read_onnx(model([call], functions[:4]))).macs == 0


@pytest.mark.parametrize("called", [("f", "f"), ("f", "g")], ids=["itself", "each other"])
def test_functions_that_call_themselves_are_refused(called: tuple[str, str]) -> None:
    functions = [function("f", called[1]), function("g", called[0])]
    call = helper.make_node("f", ["x"], ["y"], domain="own")
    with pytest.raises(ImportFileError, match="calls itself"):
        load_onnx(model([call], functions))


def _two_perms(made: Any) -> None:
    made.graph.node[0].op_type = "Transpose"
    del made.graph.node[0].attribute[:]
    made.graph.node[0].attribute.extend([helper.make_attribute("perm", [0, 1, 2, 3])] * 2)


def _no_value(made: Any) -> None:
    made.graph.node.add(op_type="Constant", output=["k"])


def _short_value(made: Any) -> None:
    made.graph.initializer.add(name="k", data_type=TensorProto.INT64, dims=[1], raw_data=b"\1")


@pytest.mark.parametrize("damage", [_two_perms, _no_value, _short_value])
def test_a_graph_that_lacks_what_onnx_prescribes_is_no_traceback(
    damage: Callable[[Any], None],
) -> None:
    made = onnx.load_model_from_string(segmenter())
    damage(made)
    with pytest.raises(ImportFileError, match="is not what ONNX describes"):
        cost_of_onnx(read_onnx(made.SerializeToString()))


@pytest.mark.parametrize("old", [b"Relu", b"weight", b"image", b"half"])
def test_names_that_are_no_text_are_refused(old: bytes) -> None:
    content = segmenter().replace(old, b"\x81" * len(old))
    with pytest.raises(ImportFileError, match="no text|cannot be read"):
        read_onnx(content)


def test_a_long_chain_and_a_doubled_one_are_walked_once() -> None:
    weight = helper.make_tensor("w0", TensorProto.FLOAT, [3, 3], np.eye(3).flatten())
    chain = [helper.make_node("Identity", [f"w{n}"], [f"w{n + 1}"]) for n in range(3000)]
    doubled = [
        node
        for n in range(3000, 3060)
        for node in (
            helper.make_node("Concat", [f"w{n}", f"w{n}"], [f"twice{n}"], axis=0),
            helper.make_node("Split", [f"twice{n}"], [f"w{n + 1}", f"other{n}"], axis=0),
        )
    ]
    last = helper.make_node("Add", ["x", "w3060"], ["y"])
    made = onnx.load_model_from_string(model([*chain, *doubled, last]))
    made.graph.initializer.append(weight)
    assert cost_of_onnx(read_onnx(made.SerializeToString())).parameters == 9


def test_a_loop_without_an_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from latlut.operators import run_shapes

    monkeypatch.setattr(run_shapes, "_RUN_S", 0.2)
    one = helper.make_tensor_value_info("more", TensorProto.BOOL, [])
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, None)
    step = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    go = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    nodes = [
        helper.make_node("Identity", ["more"], ["go"]),
        helper.make_node("MatMul", ["v", "v"], ["o"]),
    ]
    body = helper.make_graph(
        nodes,
        "body", [step, one, value], [go, out],
    )  # fmt: skip
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    made = onnx.load_model_from_string(
        model([helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)])
    )
    made.graph.initializer.append(yes)
    assert cost_of_onnx(read_onnx(made.SerializeToString())).macs is None


def test_weights_that_share_bytes_many_times_are_refused(tmp_path: Path) -> None:
    made = onnx.load_model_from_string(segmenter())
    (tmp_path / "w.bin").write_bytes(bytes(1000))
    for number in range(10):
        item = made.graph.initializer.add(
            name=f"k{number}", data_type=TensorProto.FLOAT, dims=[250]
        )
        item.data_location = TensorProto.EXTERNAL
        item.external_data.add(key="location", value="w.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(ImportFileError, match="more than 4 times the bytes"):
        read_onnx(path)
