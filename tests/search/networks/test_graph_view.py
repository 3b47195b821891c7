"""Graphs that ONNX cannot infer, or not within memory, are looked at all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from latlut.errors import ImportFileError
from latlut.operators.onnx_files import read_onnx
from latlut.search.networks.cost import cost_of_onnx

#: Bytes of address space that looking at a small graph has to do with.
MEMORY = 6 << 30
SCRIPT = f"""
import resource, sys
from pathlib import Path
from latlut.errors import SpecError
from latlut.operators.onnx_files import read_onnx
from latlut.search.networks.cost import cost_of_onnx
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
try:
    print(cost_of_onnx(read_onnx(Path(sys.argv[1]))))
except SpecError as error:
    print("refused:", error)
"""


def model(nodes: list[onnx.NodeProto], *weights: onnx.TensorProto) -> onnx.ModelProto:
    """x (1, 3) float, out y (1, 3)."""
    image, found = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")
    )
    graph = helper.make_graph(nodes, "g", [image], [found], list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def filled() -> onnx.ModelProto:
    """2^50 zeros, of which y takes none."""
    length = numpy_helper.from_array(np.array([1 << 50]), "length")
    return model(
        [helper.make_node("ConstantOfShape", ["length"], ["z"]),
         helper.make_node("Add", ["z", "z"], ["sum"]),
         helper.make_node("Relu", ["x"], ["y"])], length,
    )  # fmt: skip


def filled_to_a_product() -> onnx.ModelProto:
    """The same, of a length that is computed."""
    half = numpy_helper.from_array(np.array([1 << 25]), "half")
    return model(
        [helper.make_node("Mul", ["half", "half"], ["length"]),
         helper.make_node("ConstantOfShape", ["length"], ["z"]),
         helper.make_node("Add", ["z", "z"], ["sum"]),
         helper.make_node("Relu", ["x"], ["y"])], half,
    )  # fmt: skip


def doubled() -> onnx.ModelProto:
    """A list that is joined to itself forty times."""
    nodes = [helper.make_node("Shape", ["x"], ["n0"])]
    nodes += [helper.make_node("Concat", [f"n{i}"] * 2, [f"n{i + 1}"], axis=0) for i in range(40)]
    return model([*nodes, helper.make_node("Relu", ["x"], ["y"])])


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (filled, "refused: bomb.onnx: the output z of ConstantOfShape is too large"),
        (filled_to_a_product, "macs=0"),
        (doubled, "refused: bomb.onnx: the output n30 of Concat is too large"),
    ],
)
def test_long_lists_of_numbers_are_not_held(tmp_path: Path, make, shown: str) -> None:
    path = tmp_path / "bomb.onnx"
    onnx.save(make(), path)
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert shown in found.stdout


def test_an_undeclared_domain_is_unknown() -> None:
    evil = model([helper.make_node("Evil", ["x"], ["y"], domain="nowhere")])
    found = cost_of_onnx(read_onnx(evil.SerializeToString()))
    assert found.macs is None and "nowhere.Evil" in found.why_unknown


def in_a_weight() -> onnx.ModelProto:
    weight = TensorProto(name="w", data_type=99, dims=[3], raw_data=bytes(12))
    return model([helper.make_node("Add", ["x", "w"], ["y"])], weight)


def in_a_constant() -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.zeros(3)))
    node.attribute[0].t.data_type = 99
    return model([node, helper.make_node("Add", ["x", "w"], ["y"])])


@pytest.mark.parametrize("make", [in_a_weight, in_a_constant])
def test_a_tensor_of_an_unknown_type_is_refused(make) -> None:
    with pytest.raises(ImportFileError, match="has the type 99"):
        read_onnx(make().SerializeToString())
