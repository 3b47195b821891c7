"""Losses against brute force, with extreme logits, with everything ignored, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latlut.errors import SpecError
from latlut.search.train.losses import distillation_loss, ohem_loss


def batch(seed: int, spread: float = 2.0, ignored: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    """Two sets of logits (2, 5, 4, 6) in double precision, and labels with some ignored."""
    random = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.randn(2, 5, 4, 6, generator=random, dtype=torch.float64) * spread for _ in range(2)
    )
    labels = torch.randint(0, 5, (2, 4, 6), generator=random)
    labels[torch.rand(2, 4, 6, generator=random) < ignored] = 255
    return student, teacher, labels


def brute_ohem(logits: Tensor, labels: Tensor, threshold: float, min_kept: int) -> float:
    """As the definition says: sort, take what is hard, or the hardest min_kept."""
    pixels = []
    for b in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label = int(labels[b, y, x])
                if label != 255:
                    scores = [float(v) for v in logits[b, :, y, x]]
                    pixels.append(math.log(sum(math.exp(s) for s in scores)) - scores[label])
    pixels.sort(reverse=True)
    hard = [loss for loss in pixels if math.exp(-loss) <= threshold]
    kept = hard if len(hard) >= min_kept else pixels[:min_kept]
    return sum(kept) / len(kept) if kept else 0.0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), threshold=st.sampled_from([0.01, 0.3, 0.7, 0.95]),
    min_kept=st.integers(0, 60), ignored=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
)  # fmt: skip
def test_ohem_equals_brute_force(
    seed: int, threshold: float, min_kept: int, ignored: float
) -> None:
    logits, _, labels = batch(seed, ignored=ignored)
    found = ohem_loss(logits, labels, threshold=threshold, min_kept=min_kept)
    assert found.item() == pytest.approx(brute_ohem(logits, labels, threshold, min_kept), rel=1e-9)


def test_ohem_keeps_one_pixel_in_sixteen_if_not_told() -> None:
    logits, _, labels = batch(1, ignored=0.0)
    confident = torch.nn.functional.one_hot(labels, 5).movedim(-1, 1) * 20 + logits * 0.01
    expected = brute_ohem(confident, labels, 0.7, 2 * 4 * 6 // 16)
    assert ohem_loss(confident, labels).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("min_kept", [None, 0, 1000])
def test_ohem_where_all_is_ignored(min_kept: int | None) -> None:
    logits = torch.randn(2, 5, 4, 6, requires_grad=True)
    loss = ohem_loss(logits, torch.full((2, 4, 6), 255), min_kept=min_kept)
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None and (logits.grad == 0).all()


def test_ohem_gradient() -> None:
    logits, _, labels = batch(4)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ohem_loss(x, labels, min_kept=7), [logits])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ohem_with_extreme_logits(dtype: torch.dtype) -> None:
    logits, _, labels = batch(2)
    logits = (logits * 1e4).to(dtype).requires_grad_()
    loss = ohem_loss(logits, labels)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()


def brute_divergence(one: Tensor, other: Tensor, labels: Tensor | None) -> float:
    """KL(one || other), summed over classes, mean over the pixels that count."""
    p, q = one.softmax(1), other.softmax(1)
    pixels = []
    for b in range(p.shape[0]):
        for y in range(p.shape[2]):
            for x in range(p.shape[3]):
                if labels is None or labels[b, y, x] != 255:
                    pixels.append(
                        sum(float(p[b, c, y, x] * (p[b, c, y, x] / q[b, c, y, x]).log())
                            for c in range(p.shape[1]))
                    )  # fmt: skip
    return sum(pixels) / len(pixels)


@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_distillation_equals_brute_force(seed: int, is_masked: bool) -> None:
    student, teacher, labels = batch(seed)
    mask = labels if is_masked else None
    found = distillation_loss(student, teacher, mask)
    assert found.item() == pytest.approx(brute_divergence(teacher, student, mask), rel=1e-9)
    found = distillation_loss(student, teacher, mask, direction="student_teacher")
    assert found.item() == pytest.approx(brute_divergence(student, teacher, mask), rel=1e-9)


@pytest.mark.parametrize("direction", ["teacher_student", "student_teacher"])
def test_distillation_gradient(direction: str) -> None:
    student, teacher, labels = batch(3)
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: distillation_loss(x, teacher, labels, direction=direction),  # type: ignore[arg-type]
        [student],
    )


@pytest.mark.parametrize("direction", ["teacher_student", "student_teacher"])
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_distillation_with_extreme_logits(direction: str, scale: float) -> None:
    student, teacher, labels = batch(5)
    student = (student * scale).float().requires_grad_()
    loss = distillation_loss(student, (teacher * scale).float(), labels, direction=direction)  # type: ignore[arg-type]
    loss.backward()
    assert loss.isfinite() and loss > 0
    assert student.grad is not None and student.grad.isfinite().all()


def test_distillation_is_zero_for_equal_logits_and_spares_the_teacher() -> None:
    student, teacher, labels = batch(6)
    assert distillation_loss(teacher, teacher, labels).item() == pytest.approx(0, abs=1e-12)
    student.requires_grad_()
    teacher.requires_grad_()
    distillation_loss(student, teacher, labels).backward()
    assert teacher.grad is None and student.grad is not None
    assert (student.grad.movedim(1, -1)[labels == 255] == 0).all()


def test_distillation_where_all_is_ignored() -> None:
    student, teacher, labels = batch(7, ignored=1.0)
    student.requires_grad_()
    loss = distillation_loss(student, teacher, labels)
    loss.backward()
    assert loss.item() == 0 and student.grad is not None and (student.grad == 0).all()


def test_sizes_that_do_not_fit() -> None:
    student, teacher, labels = batch(8)
    with pytest.raises(SpecError, match=r"\(2, 5, 4, 6\) and labels \(2, 3, 6\)"):
        ohem_loss(student, labels[:, :3])
    with pytest.raises(SpecError, match="expected equal shapes"):
        distillation_loss(student, teacher[..., :3], labels)
    with pytest.raises(SpecError, match="expected teacher_student or"):
        distillation_loss(student, teacher, labels, direction="both")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="threshold 0"):
        ohem_loss(student, labels, threshold=0)


def test_a_nan_is_not_hidden_as_an_easy_pixel() -> None:
    logits = torch.randn(1, 3, 4, 4)
    logits[0, 0, 2, 1] = float("nan")
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    assert ohem_loss(logits, labels).isnan()
    assert ohem_loss(logits, labels, min_kept=0).isnan()
