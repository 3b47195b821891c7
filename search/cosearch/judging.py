"""What the architectures of a search are worth after an epoch.

The supernet segments the validation images with the soft choices of operators and inputs and the
likeliest widths; networks are derived, priced, and scored one by one with the supernet's weights;
lambda moves with the best student's latency.
"""

from __future__ import annotations

from typing import Any

import torch

from latlut.operators.modules import resize
from latlut.search.cosearch.records import name_of
from latlut.search.cosearch.state import SearchState
from latlut.search.supernet.mixing import Mixing
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.search.supernet.widths import likeliest_widths
from latlut.search.train.evaluating import split_batches
from latlut.search.train.metrics import ScoreMeter


def judged(search: SearchState, epoch: int) -> dict[str, Any]:
    """What an ``EpochRecord`` says of an epoch; moves lambda and adds to the archive."""
    problem, student = search.problem, search.student
    weights_per_ms = search.weights_per_ms
    miou = supernet_scores(search, student, problem.student_end)
    teacher_miou = supernet_scores(search, search.teacher, problem.teacher_end)
    scorer = search.scorer()
    found = search.archive.add(epoch, problem, student, search.teacher, scorer.score)
    best = max(found.derived, key=lambda item: item.score)
    search.controller = search.controller.after(best.ms)
    with torch.no_grad():
        terms = problem.latency(student)
        alpha = student.alpha.softmax(-1)
    likeliest = alpha.argmax(-1)
    skip = problem.skip_column
    widths = student.gamma.argmax(-1)
    narrowest = student.widths.index(min(student.widths))
    return {
        "lambda_per_ms": sum(weights_per_ms),
        "weights_per_ms": weights_per_ms,
        "expected_ms": float(terms.expected_ms),
        "penalty_ms": float(terms.penalty_ms),
        "terms_ms": tuple(terms.terms_ms.tolist()),
        "derived_ms": {name_of(item.scales): item.latency_ms for item in found.derived},
        "fitted_ms": {name_of(item.scales): item.latency_ms for item in found.fitted},
        "fitted_loss": {name_of(item.scales): item.loss for item in found.fitted},
        "miou": {name_of(scales): value for scales, value in miou.items()},
        "teacher_miou": {name_of(scales): value for scales, value in teacher_miou.items()},
        "derived_miou": {name_of(item.scales): item.accuracy for item in found.derived},
        "fitted_miou": {name_of(item.scales): item.accuracy for item in found.fitted},
        "scores": {name_of(item.scales): item.score for item in found.derived},
        "skip_share": None if skip is None else float((likeliest == skip).float().mean()),
        "narrowest_share": float((widths == narrowest).float().mean()),
        "largest_alpha": float(alpha.max(-1).values.mean()),
    }


def supernet_scores(
    search: SearchState, relaxed: RelaxedArchitecture, end_width: int
) -> dict[tuple[int, ...], float]:
    """Mean IoU per set of branches, a fraction, over all processes together.

    Logits are enlarged to the labels' size before. The supernet is left in evaluation mode.

    Args:
        relaxed: whose choices are taken. end_width: twelfths.
    """
    supernet, fabric, settings = search.supernet.eval(), search.fabric, search.settings.data
    wanted, widths = search.problem.branch_sets, likeliest_widths(relaxed).values
    meters = {output: ScoreMeter(search.data.classes.count, fabric) for output in wanted}
    batches = split_batches(
        fabric, search.data.val, image_scale=settings.image_scale, limit=settings.evaluate_images
    )
    with torch.no_grad(), fabric.autocast():
        mixing = mixing_of(relaxed)
        for _, (image, label) in batches:
            logits = supernet(image, mixing, widths, end_width, outputs=wanted)
            size = (int(label.shape[-2]), int(label.shape[-1]))
            for output, meter in meters.items():
                meter.update(resize(logits[output].float(), size, "bilinear"), label)
    return {output: meter.score().mean_iou for output, meter in meters.items()}


def mixing_of(relaxed: RelaxedArchitecture) -> Mixing:
    """The soft choices of operators and inputs, differentiable."""
    found = relaxed.probabilities()
    return Mixing(found.alpha, found.beta)
