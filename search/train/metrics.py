"""Scores of segmentation: intersection over union of each class, their mean, pixel accuracy.

Symbols: B batch, C classes, H, W pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_fabric import Fabric
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from latlut.errors import SpecError
from latlut.search.data.classes import IGNORE
from latlut.search.runs.processes import sum_of


def likeliest_classes(logits: Tensor) -> Tensor:
    """(B, H, W) int64, the class of the largest of logits (B, C, H, W) at each pixel.

    On a CPU ``max`` takes a fifth of the time of ``argmax``, which does not vectorise across
    classes that are far apart in memory.
    """
    return logits.max(dim=1).indices


@dataclass(frozen=True)
class SegmentationScore:
    """How well predictions agree with labels, over a whole set."""

    class_iou: tuple[float, ...]
    """(C) intersection over union of each class, in [0, 1]; NaN for a class that neither labels nor
    predictions hold."""
    mean_iou: float
    """Mean over the classes that are not NaN; NaN where there is none."""
    pixel_accuracy: float
    """Share of the labelled pixels that are right; NaN where none is labelled."""
    labelled_pixels: int
    """Number of pixels that were not ignored."""


class ScoreMeter:
    """Adds up a confusion matrix; where several processes run, over all of them.

    Args:
        class_count: C.
        fabric: device that counts, and processes; one CPU process if not given.
    """

    def __init__(self, class_count: int, fabric: Fabric | None = None) -> None:
        self._class_count, self._fabric = class_count, fabric
        # torchmetrics counts two classes or more; the second of a single one stays empty
        self._matrix = MulticlassConfusionMatrix(
            max(2, class_count), ignore_index=IGNORE, validate_args=False, sync_on_compute=False
        ).to("cpu" if fabric is None else fabric.device)

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Count one batch.

        Args:
            predictions: (B, C, H, W) float logits, or (B, H, W) integer classes.
            labels: (B, H, W) integer, classes or 255.

        Raises:
            SpecError: sizes that do not fit, another number of classes.
        """
        if predictions.ndim == 4:
            if predictions.shape[1] != self._class_count:
                raise SpecError(
                    f"logits of {predictions.shape[1]} classes; expected {self._class_count}"
                )
            predictions = likeliest_classes(predictions)
        if predictions.shape != labels.shape:
            raise SpecError(
                f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)}: "
                "expected one prediction per labelled pixel; scale the logits to the labels first"
            )
        self._matrix.update(predictions, labels)

    def score(self) -> SegmentationScore:
        """The score of all batches so far."""
        count, matrix = self._class_count, self._matrix.confmat
        assert isinstance(matrix, Tensor)
        if self._fabric is not None:
            matrix = sum_of(self._fabric, matrix)
        return score_of(matrix[:count, :count])

    def reset(self) -> None:
        """Forget all batches."""
        self._matrix.reset()


def score_of(confusion: Tensor) -> SegmentationScore:
    """The score of a confusion matrix.

    Args:
        confusion: (C, C) pixels; row: label, column: prediction.
    """
    counts = confusion.double().cpu()
    right = counts.diagonal()
    union = counts.sum(dim=0) + counts.sum(dim=1) - right
    total = counts.sum()
    iou = right / union  # 0 / 0 is NaN: a class that is nowhere
    return SegmentationScore(
        class_iou=tuple(iou.tolist()),
        mean_iou=float(iou.nanmean()),
        pixel_accuracy=float(right.sum() / total) if total else math.nan,
        labelled_pixels=int(total),
    )
