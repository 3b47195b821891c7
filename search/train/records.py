"""What a training's epochs came to, and the table of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from latlut.errors import LatlutError


@dataclass(frozen=True)
class TrainEpoch:
    """One epoch of a training.

    Attributes:
        epoch: from 0. seconds: with the evaluation.
        loss: mean of the steps' losses; main_loss, auxiliary_loss, distillation_loss: its parts
            before they are weighed, summed over heads; None where there is no such part.
        rate: of the last step.
        mean_iou, pixel_accuracy: on the validation set, fractions; None where it was not evaluated.
        class_iou: of each class, fractions; NaN for a class that is nowhere.
    """

    epoch: int
    seconds: float
    loss: float
    main_loss: float
    rate: float
    auxiliary_loss: float | None = None
    distillation_loss: float | None = None
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    class_iou: tuple[float, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainEpoch:
        """The record that ``to_dict`` wrote."""
        iou = values.get("class_iou")
        return cls(**{**values, "class_iou": None if iou is None else tuple(iou)})


def best_epoch(records: Sequence[TrainEpoch]) -> TrainEpoch | None:
    """The evaluated epoch of largest mean IoU, of equal ones the first; None if there is none."""
    judged = [
        (-1.0 if math.isnan(record.mean_iou) else record.mean_iou, record)
        for record in records
        if record.mean_iou is not None
    ]
    return max(judged, key=lambda pair: pair[0])[1] if judged else None


def write_epochs(path: Path, records: Sequence[TrainEpoch]) -> None:
    """Write a CSV file with a row per epoch; classes' scores are left out.

    Raises:
        LatlutError: it cannot be written.
    """
    names = [item.name for item in fields(TrainEpoch) if item.name != "class_iou"]
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([getattr(record, name) for name in names] for record in records)
        part.replace(path)
    except OSError as error:
        raise LatlutError(f"cannot write {path}: {error}") from error
