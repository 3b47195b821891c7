"""Evaluation on whole images: against counting by hand, scales, windows, processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from latlut.errors import SpecError
from latlut.search.data.classes import IGNORE, Classes
from latlut.search.data.dataset import Split
from latlut.search.data.opening import open_data
from latlut.search.networks.network import TrainOutputs, trainable
from latlut.search.train.evaluating import evaluate, full_logits, window_starts
from latlut.spaces import Architecture, Branch, Cell

CLASSES = Classes(("dark", "middle", "bright"), ((0, 0, 0), (128, 128, 128), (255, 255, 255)))


CLASSES_OF_SCENES = open_data("street-scenes", counts=(1, 1, 0)).classes


class Brightness(nn.Module):
    """Class by the mean of the channels; blind to where a pixel is."""

    def forward(self, image: Tensor) -> Tensor:
        grey = image.mean(dim=1, keepdim=True)
        return torch.cat([-grey - 0.5, torch.zeros_like(grey), grey - 0.5], dim=1)


class TenClasses(nn.Module):
    """Brightness, and seven classes that are never chosen."""

    def forward(self, image: Tensor) -> Tensor:
        found = Brightness()(image)
        rest = found.new_full((found.shape[0], 7, *found.shape[2:]), -99.0)
        return torch.cat([found, rest], dim=1)


@pytest.fixture(scope="module")
def split() -> Split:
    return open_data("street-scenes", size=(48, 96), counts=(1, 3, 0)).val


class Counted:
    """Labels by a rule of one's own, so that hits and misses are known."""

    split = "val"

    def __init__(self, images: list[np.ndarray], labels: list[np.ndarray]) -> None:
        self._pairs = list(zip(images, labels, strict=True))

    def __len__(self) -> int:
        return len(self._pairs)

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._pairs[index]

    def name(self, index: int) -> str:
        return str(index)


def test_the_score_is_that_of_counting_by_hand() -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (h, 20, 3), np.uint8) for h in (16, 24)]
    labels = [random.integers(0, 3, image.shape[:2], np.uint8) for image in images]
    labels[0][:3] = IGNORE
    predicted: list[np.ndarray] = []
    score = evaluate(
        Brightness(), Split(Counted(images, labels)), CLASSES,
        on_prediction=lambda number, found: predicted.append(found.numpy()),
    )  # fmt: skip
    flat = np.concatenate([item.ravel() for item in predicted])
    truth = np.concatenate([item.ravel() for item in labels])
    flat, truth = flat[truth != IGNORE], truth[truth != IGNORE]
    for label, iou in enumerate(score.class_iou):
        both = ((flat == label) & (truth == label)).sum()
        either = ((flat == label) | (truth == label)).sum()
        assert iou == pytest.approx(both / either)
    assert score.mean_iou == pytest.approx(np.mean(score.class_iou))
    assert score.labelled_pixels == len(truth)
    assert score.pixel_accuracy == pytest.approx((flat == truth).mean())


def test_the_whole_set_counts_not_the_mean_of_images() -> None:
    dark, bright = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    labels = [np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)]
    score = evaluate(Brightness(), Split(Counted([dark, bright], labels)), CLASSES)
    assert score.class_iou[0] == pytest.approx(0.5)
    assert score.class_iou[2] == 0.0 and np.isnan(score.class_iou[1])
    assert score.mean_iou == pytest.approx(0.25)


def test_smaller_images_are_scored_at_the_labels_size(split: Split) -> None:
    sizes = []

    class Watching(TenClasses):
        def forward(self, image: Tensor) -> Tensor:
            sizes.append(tuple(image.shape[-2:]))
            return super().forward(image)[:, :, ::8, ::8]

    score = evaluate(Watching(), split, CLASSES_OF_SCENES, image_scale=0.5)
    assert set(sizes) == {(24, 48)}
    labelled = sum(int((label != IGNORE).sum()) for _, label in split)
    assert score.labelled_pixels == labelled


def test_windows_of_a_local_network_change_nothing(split: Split) -> None:
    whole = evaluate(TenClasses(), split, CLASSES_OF_SCENES)
    for window in ((20, 30), (48, 96), (100, 100), (1, 7)):
        assert evaluate(TenClasses(), split, CLASSES_OF_SCENES, window=window) == whole


def test_windows_are_averaged_where_they_overlap() -> None:
    class Positions(nn.Module):
        """Logits that say where in its window a pixel is."""

        def forward(self, image: Tensor) -> Tensor:
            columns = torch.arange(image.shape[-1], dtype=torch.float32)
            return columns.expand(1, 1, *image.shape[-2:])

    found = full_logits(Positions(), torch.zeros(1, 3, 4, 9), window=(4, 6))
    starts = window_starts(9, 6)
    expected = [
        np.mean([column - start for start in starts if start <= column < start + 6])
        for column in range(9)
    ]
    assert found[0, 0, 0].tolist() == pytest.approx(expected)


@given(st.integers(1, 300), st.integers(1, 300))
def test_windows_cover_and_overlap(size: int, window: int) -> None:
    starts = window_starts(size, window)
    assert starts[0] == 0 and starts[-1] == max(0, size - window)
    gaps = np.diff(starts)
    assert (gaps > 0).all() and (gaps <= window).all()
    if window >= 3:
        assert (gaps <= window * 2 / 3 + 1).all()


def test_a_limit_and_the_order_of_predictions(split: Split) -> None:
    numbers: list[int] = []
    evaluate(
        TenClasses(), split, CLASSES_OF_SCENES, limit=2,
        on_prediction=lambda number, _: numbers.append(number),
    )  # fmt: skip
    assert numbers == [0, 1]


def test_a_network_keeps_its_mode_and_statistics(split: Split) -> None:
    cell = Cell("conv", 8)
    network = trainable(Architecture(8, 8, (Branch(8, (cell,)),), base_width=3), 10).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    evaluate(network, split, CLASSES_OF_SCENES)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert isinstance(network(torch.rand(2, 3, 32, 32)), TrainOutputs)


def test_another_number_of_classes_is_refused(split: Split) -> None:
    with pytest.raises(SpecError, match="the network has 3 classes, the data 10"):
        evaluate(Brightness(), split, CLASSES_OF_SCENES)
    with pytest.raises(SpecError, match="window"):
        evaluate(TenClasses(), split, CLASSES_OF_SCENES, window=(0, 4))
