"""The loss of a training: hard pixels of all heads, and the divergence from the teacher.

    L = OHEM(main) + a sum_i OHEM(auxiliary_i) + d KL(teacher, main)

with a = 0.2 and d = 1.0 by default. All logits are enlarged to the labels' size first. Where
several processes share a batch, hard pixels are those of the whole batch, and the mean of the
processes' losses and gradients is that of one process with the whole batch.

Symbols: B batch, C classes, H, W pixels of the labels.

Source: FasterSeg, Sec. 3.3 (equal weights for segmentation and distillation) and the authors' code
(0.2 for each auxiliary head).
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from latlut.errors import SpecError
from latlut.operators.modules import resize
from latlut.search.data.classes import IGNORE
from latlut.search.networks.network import TrainOutputs
from latlut.search.runs.processes import gathered, joint_mean, sum_of
from latlut.search.train.settings import OHEM_THRESHOLD, Direction, LossSettings

#: One label pixel in so many is kept, however easy.
_KEPT_SHARE = 16


def ohem_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    threshold: float = OHEM_THRESHOLD,
    min_kept: int | None = None,
    fabric: Fabric | None = None,
) -> Tensor:
    """Mean cross entropy over the hard pixels (online hard example mining).

    A pixel is hard if its own class has at most the probability ``threshold``; if fewer than
    ``min_kept`` are, the ``min_kept`` hardest are taken (all, where there are not so many).

    Args:
        logits: (B, C, H, W) float.
        labels: (B, H, W) int64, classes or 255.
        threshold: in (0, 1].
        min_kept: number of pixels of the batch; if not given, one in 16 of them, as the authors
            have it: batch * height * width / (16 * label stride ** 2).
        fabric: processes that share the batch; None is one.

    Returns:
        () float. Where every pixel is ignored: 0, with a gradient of 0.

    Raises:
        SpecError: sizes of logits and labels that do not fit, a threshold outside (0, 1].

    Source: Shrivastava et al., 2016, as FasterSeg's code uses it. Theirs gives NaN where every
    pixel is ignored.
    """
    _check_sizes(logits, labels)
    if not 0 < threshold <= 1:
        raise SpecError(f"threshold {threshold}: expected a probability above 0, at most 1")
    loss = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    is_valid = labels != IGNORE
    count = _pixels(labels, fabric) // _KEPT_SHARE if min_kept is None else min_kept
    least = -math.log(threshold)
    # Ignored pixels come last; where they are among the count, all others are kept.
    hardness = loss.detach().masked_fill(~is_valid, -math.inf).flatten()
    limit = loss.new_tensor(least)
    if count > 0:
        limit = limit.minimum(_hardest(hardness, count, fabric)[-1])
    is_kept = is_valid & ~(loss.detach() < limit)  # a NaN is kept, and seen
    return joint_mean(fabric, loss.masked_fill(~is_kept, 0).sum(), is_kept.sum())


def _pixels(labels: Tensor, fabric: Fabric | None) -> int:
    """Pixels of the whole batch."""
    if fabric is None or fabric.world_size == 1:
        return labels.numel()
    return int(sum_of(fabric, labels.new_tensor(labels.numel())))


def _hardest(hardness: Tensor, count: int, fabric: Fabric | None) -> Tensor:
    """The ``count`` largest values of all processes, or all that there are, the smallest last."""
    found = hardness.topk(min(count, hardness.numel())).values
    if fabric is None or fabric.world_size == 1:
        return found
    padded = functional.pad(found, (0, count - found.numel()), value=-math.inf)
    return gathered(fabric, padded).flatten().topk(count).values


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    direction: Direction = "teacher_student",
    fabric: Fabric | None = None,
) -> Tensor:
    """Mean over pixels of the Kullback-Leibler divergence between teacher and student.

        teacher_student: KL(t || s) = sum_c t_c (log t_c - log s_c)
        student_teacher: KL(s || t) = sum_c s_c (log s_c - log t_c)

    Args:
        student_logits: (B, C, H, W) float.
        teacher_logits: (B, C, H, W) float; no gradient flows into it.
        labels: (B, H, W) int64; pixels labelled 255 are left out. None leaves out none.
        direction: which of the two. The authors' code computes teacher_student; Eq. 4 of the
            paper writes KL(s || t).
        fabric: processes that share the batch; None is one.

    Returns:
        () float, at least 0. Where every pixel is ignored: 0, with a gradient of 0.

    Raises:
        SpecError: sizes that do not fit, an unknown direction.

    Source: FasterSeg, Eq. 4. The authors average over classes as well and include ignored pixels;
    their softmax().log() gives -inf and then NaN. Here it is log-softmax on both sides.
    """
    if student_logits.shape != teacher_logits.shape:
        raise SpecError(
            f"student logits {tuple(student_logits.shape)}, "
            f"teacher logits {tuple(teacher_logits.shape)}: expected equal shapes"
        )
    student = functional.log_softmax(student_logits, dim=1)
    teacher = functional.log_softmax(teacher_logits.detach(), dim=1)
    if direction == "teacher_student":
        pairs = (student, teacher)
    elif direction == "student_teacher":
        pairs = (teacher, student)
    else:
        raise SpecError(f"direction {direction!r}: expected teacher_student or student_teacher")
    divergence = functional.kl_div(*pairs, log_target=True, reduction="none").sum(dim=1)
    if labels is None:
        return joint_mean(fabric, divergence.sum(), divergence.new_tensor(divergence.numel()))
    _check_sizes(student_logits, labels)
    is_valid = labels != IGNORE
    return joint_mean(fabric, divergence.masked_fill(~is_valid, 0).sum(), is_valid.sum())


def _check_sizes(logits: Tensor, labels: Tensor) -> None:
    expected = (logits.shape[0], *logits.shape[2:])
    if logits.ndim != 4 or tuple(labels.shape) != expected:
        raise SpecError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}: "
            "expected (B, C, H, W) and (B, H, W)"
        )


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
    fabric: Fabric | None = None,
) -> Loss:
    """The loss of one batch.

    Args:
        outputs: of the network in training mode; logits alone are those of the main head.
        label: (B, H, W) int64, classes or 255.
        settings: weights, threshold, direction.
        teacher_logits: (B, C, *, *) float; None where there is no teacher.
        fabric: processes that share the batch; None is one.

    Raises:
        SpecError: logits of another batch than the labels; a teacher of other classes.
    """
    found = TrainOutputs(outputs) if isinstance(outputs, Tensor) else outputs
    main = _at(found.main, label)
    hard = partial(ohem_loss, threshold=settings.ohem_threshold, fabric=fabric)
    parts = {"main_loss": hard(main, label)}
    weights = {"main_loss": 1.0}
    if found.auxiliary and settings.auxiliary:
        losses = [hard(_at(logits, label), label) for logits in found.auxiliary]
        parts["auxiliary_loss"] = torch.stack(losses).sum()
        weights["auxiliary_loss"] = settings.auxiliary
    if teacher_logits is not None and settings.distillation:
        parts["distillation_loss"] = distillation_loss(
            main,
            _at(teacher_logits, label),
            label,
            direction=settings.direction,
            fabric=fabric,
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
