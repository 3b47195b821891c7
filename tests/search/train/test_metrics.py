"""Scores against a plain numpy count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import SpecError
from latlut.search.train.metrics import ScoreMeter, SegmentationScore


def plain(predictions: np.ndarray, labels: np.ndarray, count: int) -> tuple[list[float], float]:
    """IoU of each class and pixel accuracy, counted pixel set by pixel set."""
    valid = labels != 255
    ious = []
    for number in range(count):
        here, there = (predictions == number) & valid, (labels == number) & valid
        union = (here | there).sum()
        ious.append((here & there).sum() / union if union else math.nan)
    accuracy = (predictions == labels)[valid].mean() if valid.any() else math.nan
    return ious, float(accuracy)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), count=st.integers(2, 20), batches=st.integers(1, 4),
    ignored=st.sampled_from([0.0, 0.4, 1.0]), used=st.floats(0.2, 1.0),
)  # fmt: skip
def test_scores_equal_a_plain_count(
    seed: int, count: int, batches: int, ignored: float, used: float
) -> None:
    random = np.random.default_rng(seed)
    high = max(1, int(count * used))  # the classes from here on are absent
    labels = random.integers(0, high, (batches, 2, 5, 7))
    predictions = np.where(random.random(labels.shape) < 0.6, labels,
                           random.integers(0, high, labels.shape))  # fmt: skip
    labels[random.random(labels.shape) < ignored] = 255
    meter = ScoreMeter(count)
    for one, other in zip(predictions, labels, strict=True):
        meter.update(torch.from_numpy(one), torch.from_numpy(other))
    score = meter.score()
    ious, accuracy = plain(predictions, labels, count)
    assert score.class_iou == pytest.approx(ious, nan_ok=True)
    present = [value for value in ious if not math.isnan(value)]
    assert score.mean_iou == pytest.approx(np.mean(present) if present else math.nan, nan_ok=True)
    assert score.pixel_accuracy == pytest.approx(accuracy, nan_ok=True)
    assert score.labelled_pixels == (labels != 255).sum()


def mean_iou(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    predict: Callable[[torch.Tensor], torch.Tensor],
    class_count: int,
) -> SegmentationScore:
    """The score of a network over a set of (image, label) pairs."""
    meter = ScoreMeter(class_count)
    for image, label in batches:
        meter.update(predict(image), label)
    return meter.score()


def test_a_network_is_scored_over_a_set() -> None:
    random = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(1, 3, 4, 6, generator=random), torch.randint(0, 3, (1, 4, 6), generator=random))
        for _ in range(5)
    ]
    score = mean_iou(batches, lambda image: image, 3)
    predictions = np.stack([image.argmax(1).numpy() for image, _ in batches])
    ious, _ = plain(predictions, np.stack([label.numpy() for _, label in batches]), 3)
    assert score.class_iou == pytest.approx(ious)


def test_perfect_predictions_and_reset() -> None:
    meter = ScoreMeter(4)
    labels = torch.tensor([[[0, 1, 255]]])
    meter.update(torch.tensor([[[0, 1, 3]]]), labels)
    score = meter.score()
    assert (score.mean_iou, score.pixel_accuracy, score.labelled_pixels) == (1.0, 1.0, 2)
    assert [math.isnan(value) for value in score.class_iou] == [False, False, True, True]
    meter.reset()
    meter.update(torch.tensor([[[1, 0, 3]]]), labels)
    assert meter.score().mean_iou == 0


def test_predictions_that_do_not_fit() -> None:
    meter = ScoreMeter(4)
    with pytest.raises(SpecError, match="logits of 5 classes; expected 4"):
        meter.update(torch.zeros(1, 5, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    with pytest.raises(SpecError, match="scale the logits to the labels first"):
        meter.update(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 4, dtype=torch.long))


@pytest.mark.parametrize("ignored", [0, 3, 16])
def test_a_single_class(ignored: int) -> None:
    meter = ScoreMeter(1)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels.flatten()[:ignored] = 255
    meter.update(torch.randn(1, 1, 4, 4), labels)
    found = meter.score()
    assert len(found.class_iou) == 1 and found.labelled_pixels == 16 - ignored
    if ignored < 16:
        assert found.mean_iou == 1.0
