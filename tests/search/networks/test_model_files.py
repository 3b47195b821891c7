"""The description of a trained network, where somebody changed it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from latlut.errors import ImportFileError, LatlutError
from latlut.search.data.classes import Classes
from latlut.search.networks.model_files import DESCRIPTION, ModelFacts, load_model, save_model
from latlut.search.networks.network import SegmentationNetwork
from latlut.spaces import Architecture, Branch, Cell

SMALL = Architecture(8, 8, (Branch(16, (Cell("conv", 8, True), Cell("conv", 8))),), 3, 2)
FACTS = ModelFacts(SMALL, Classes(("a", "b"), ((0, 0, 0), (1, 2, 3))), "d", (64, 64), 0.5, 3, 0.4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "run", SegmentationNetwork(SMALL), FACTS)


def test_what_is_written_comes_back(folder: Path) -> None:
    network, facts = load_model(folder)
    assert facts == FACTS and isinstance(network, nn.Module)
    assert not any(value.is_meta for value in network.state_dict().values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_scale", float("nan")), ("image_scale", True), ("image_scale", "0.5"),
        ("image_scale", 0), ("image_scale", 1e9), ("input_size", [64]), ("input_size", [64, -1]),
        ("input_size", [64, 1.5]), ("epoch", True), ("epoch", -1), ("epoch", "3"),
        ("mean_iou", "0.5"), ("mean_iou", 1.5), ("mean_iou", True), ("classes", ["a", 1]),
        ("classes", ["a"]), ("colours", [[0, 0, 0], [1, 2, 300]]), ("colours", [[0, 0], [1, 2]]),
        ("num_classes", 3), ("num_classes", True), ("data", None), ("architecture", None),
        ("version", 2), ("format", ["latlut model"]),
    ],
)  # fmt: skip
def test_a_value_that_is_none_is_refused(folder: Path, name: str, value: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ImportFileError, match="the model cannot be read"):
        load_model(folder)


def test_a_network_larger_than_its_weights_is_not_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / DESCRIPTION
    values = json.loads(path.read_text())
    values["architecture"]["base_width"] = 48
    path.write_text(json.dumps(values))
    made: list[torch.device] = []
    reset = nn.Conv2d.reset_parameters

    def noted(module: nn.Conv2d) -> None:
        made.append(module.weight.device)
        reset(module)

    monkeypatch.setattr(nn.Conv2d, "reset_parameters", noted)
    with pytest.raises(LatlutError, match="the weights are of another network"):
        load_model(folder)
    assert {device.type for device in made} == {"meta"}
