"""Settings that are of the wrong type or that nothing can be done with are refused by name."""

from __future__ import annotations

import pytest

from latlut.errors import SpecError
from latlut.search.cosearch.settings import load_settings
from latlut.search.train.settings import load_train_settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.crop_scales", [1e9]), ("data.crop_scales", []), ("data.crop_scales", [True]),
        ("data.image_scale", float("nan")), ("data.image_scale", 0.001), ("data.image_scale", True),
        ("data.workers", 100_000), ("data.image_size", [1 << 17, 4]), ("schedule.epochs", 2**70),
        ("schedule.epochs", "5"), ("schedule.epochs", 5.0), ("schedule.epochs", True),
        ("schedule.batch", -1), ("schedule.lr", float("inf")), ("schedule.ema", True),
        ("schedule.momentum", 1), ("is_channels_last", 1), ("seed", True), ("seed", -1),
    ],
)  # fmt: skip
def test_of_a_training(name: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"(?m)^  {name}"):
        load_train_settings("tiny", {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("space.widths", []), ("space.widths", [True]), ("space.branches", True),
        ("space.branches", 3), ("space.layers", 10_000), ("latency.tolerance", True),
        ("latency.weights", [True, 0, 0]), ("latency.strength", float("nan")),
        ("architecture.betas", [0.5, 1.0]), ("search.crop", [0, 64]), ("search.batch", 1e3),
    ],
)  # fmt: skip
def test_of_a_search(name: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"(?m)^  {name}"):
        load_settings("tiny", {name: value})


def test_few_of_many_wrong_keys_are_told() -> None:
    with pytest.raises(SpecError) as refused:
        load_train_settings("tiny", {f"wrong{number}": 1 for number in range(1000)})
    assert len(str(refused.value).splitlines()) <= 21
