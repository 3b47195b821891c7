"""Exported modules: the graph that a trained network of the same shape would give."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from latlut.engines import engine_class
from latlut.measure.layers import measure_file
from latlut.operators.onnx_export import export_onnx
from latlut.operators.onnx_files import read_onnx

SHAPE = (1, 8, 32, 32)


def untrained() -> nn.Module:
    """All slopes, norms and biases are equal."""
    parts = [(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.PReLU(8)) for _ in range(4)]
    return nn.Sequential(*(part for block in parts for part in block)).eval()


def exported() -> onnx.ModelProto:
    return onnx.load_from_string(export_onnx(untrained(), [np.zeros(SHAPE, np.float32)]))


def layers_with_slopes(model: onnx.ModelProto) -> list[tuple[str, tuple[str, ...]]]:
    """Kind and nodes of the layers that compute a PRelu on OpenVINO, the last one aside."""
    pytest.importorskip("openvino")
    found = measure_file(engine_class("openvino")(), read_onnx(model.SerializeToString()), "p10", 2)
    return [
        (layer.kind, layer.source_nodes)
        for layer in found.layers
        if any("PRelu" in name for name in layer.source_nodes)
    ]


def test_each_node_has_constants_of_its_own() -> None:
    model = exported()
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} == {"Conv", "PRelu"}
    kept = {item.name for item in model.graph.initializer}
    used = [name for node in model.graph.node for name in node.input if name in kept]
    assert len(set(used)) == len(used) == 12


def test_an_output_that_is_a_constant_stays() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x * 2, self.scale

    model = onnx.load_from_string(export_onnx(Constant().eval(), [np.zeros(3, np.float32)]))
    onnx.checker.check_model(model)
    assert len(model.graph.output) == 2


def test_untrained_slopes_go_into_convolutions() -> None:
    assert [kind for kind, _ in layers_with_slopes(exported())] == ["Convolution"] * 3


def test_layers_of_a_file_are_those_of_the_file_as_it_is() -> None:
    """Equal slopes behind ``Identity``, as PyTorch's exporter has it, are run apart."""
    model = exported()
    slopes = [node for node in model.graph.node if node.op_type == "PRelu"]
    for place, node in enumerate(slopes[1:]):
        same = helper.make_node("Identity", [slopes[0].input[1]], [f"same{place}"])
        model.graph.node.insert(0, same)
        node.input[1] = f"same{place}"
    assert len([kind for kind, _ in layers_with_slopes(model) if kind != "Convolution"]) == 3
