"""The loss of a training: the main head, the auxiliary heads, the teacher.

    L = OHEM(main) + a sum_i OHEM(auxiliary_i) + d KL(teacher, main)

with a = 0.2 and d = 1.0 by default. All logits are enlarged to the labels' size first.

Symbols: B batch, C classes, H, W pixels of the labels.

Source: FasterSeg, Sec. 3.3 (equal weights for segmentation and distillation) and the authors' code
(0.2 for each auxiliary head).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latlut.operators.modules import resize
from latlut.search.networks.network import TrainOutputs
from latlut.search.train.losses import distillation_loss, ohem_loss
from latlut.search.train.settings import LossSettings


class Loss(NamedTuple):
    """The loss () float with its gradient, and its parts () float, detached, not yet weighed.

    ``parts`` has ``main_loss`` and, where they count, ``auxiliary_loss`` (summed over the heads)
    and ``distillation_loss``.
    """

    total: Tensor
    parts: dict[str, Tensor]


def training_loss(
    outputs: Tensor | TrainOutputs,
    label: Tensor,
    settings: LossSettings,
    teacher_logits: Tensor | None = None,
) -> Loss:
    """The loss of one batch.

    Args:
        outputs: of the network in training mode; logits alone are those of the main head.
        label: (B, H, W) int64, classes or 255.
        settings: weights, threshold, direction.
        teacher_logits: (B, C, *, *) float; None where there is no teacher.

    Raises:
        SpecError: logits of another batch than the labels; a teacher of other classes.
    """
    found = TrainOutputs(outputs) if isinstance(outputs, Tensor) else outputs
    main = _at(found.main, label)
    parts = {"main_loss": ohem_loss(main, label, threshold=settings.ohem_threshold)}
    weights = {"main_loss": 1.0}
    if found.auxiliary and settings.auxiliary:
        losses = [
            ohem_loss(_at(logits, label), label, threshold=settings.ohem_threshold)
            for logits in found.auxiliary
        ]
        parts["auxiliary_loss"] = torch.stack(losses).sum()
        weights["auxiliary_loss"] = settings.auxiliary
    if teacher_logits is not None and settings.distillation:
        parts["distillation_loss"] = distillation_loss(
            main, _at(teacher_logits, label), label, direction=settings.direction
        )
        weights["distillation_loss"] = settings.distillation
    total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return Loss(total, {name: value.detach() for name, value in parts.items()})


def _at(logits: Tensor, label: Tensor) -> Tensor:
    """Logits as float32 at the labels' size."""
    size = (int(label.shape[-2]), int(label.shape[-1]))
    return (
        logits.float()
        if tuple(logits.shape[-2:]) == size
        else resize(logits.float(), size, "bilinear")
    )
