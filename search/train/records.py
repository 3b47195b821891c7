"""What a training's epochs came to, and the table of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrainEpoch:
    """One epoch of a training."""

    epoch: int
    """From 0. seconds: with the evaluation."""
    seconds: float
    loss: float
    """Mean of the steps' losses; main_loss, auxiliary_loss, distillation_loss: its parts before
    they are weighed, summed over heads; None where there is no such part."""
    main_loss: float
    rate: float
    """Of the last step."""
    auxiliary_loss: float | None = None
    distillation_loss: float | None = None
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    """``mean_iou``, ``pixel_accuracy``: on the validation set, fractions; None where it was not
    evaluated."""
    class_iou: tuple[float, ...] | None = None
    """Of each class, fractions; NaN for a class that is nowhere."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """One row of ``epochs.csv``, epochs from 1; classes' scores are left out."""
        values = asdict(self) | {"epoch": self.epoch + 1}
        return {name: value for name, value in values.items() if name != "class_iou"}

    def describe(self, epochs: int) -> str:
        """One line for people.

        Args:
            epochs: of the training.
        """
        parts = {
            "main": self.main_loss,
            "auxiliary": self.auxiliary_loss,
            "teacher": self.distillation_loss,
        }
        shown = "".join(
            f"  {name} {value:.3g}" for name, value in parts.items() if value is not None
        )
        score = "" if self.mean_iou is None else f"  mIoU {percent(self.mean_iou)}"
        return (
            f"epoch {self.epoch + 1}/{epochs}  loss {self.loss:.3g}{shown}{score}"
            f"  ({self.seconds:.0f} s)"
        )


def percent(fraction: float) -> str:
    """0.1234567 as "12.35%"."""
    return f"{100 * fraction:.4g}%"


def best_epoch(records: Sequence[TrainEpoch]) -> TrainEpoch | None:
    """The evaluated epoch of largest mean IoU, of equal ones the first; None if there is none."""
    judged = [
        (-1.0 if math.isnan(record.mean_iou) else record.mean_iou, record)
        for record in records
        if record.mean_iou is not None
    ]
    return max(judged, key=lambda pair: pair[0])[1] if judged else None
