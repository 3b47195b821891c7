"""Widths follow gamma, and gates are ones that carry its gradient."""

from __future__ import annotations

import torch

from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.search.supernet.widths import gumbel_widths, likeliest_widths, random_widths, same_width
from latlut.spaces import FasterSegSpace

SPACE = FasterSegSpace(layers=4, widths=(4, 8, 12))


def test_draws_follow_gamma() -> None:
    relaxed = RelaxedArchitecture(SPACE)
    with torch.no_grad():
        relaxed.gamma.copy_(torch.tensor([0.5, 0.3, 0.2]).log().expand_as(relaxed.gamma))
    generator = torch.Generator().manual_seed(0)
    drawn = [gumbel_widths(relaxed, generator).values for _ in range(400)]
    flat = [width for widths in drawn for width in widths]
    for width, share in zip(SPACE.widths, (0.5, 0.3, 0.2), strict=True):
        assert abs(flat.count(width) / len(flat) - share) < 0.03
    assert likeliest_widths(relaxed).values == (4,) * len(relaxed.gamma)


def test_gates_are_ones_with_a_gradient_for_every_map() -> None:
    relaxed = RelaxedArchitecture(SPACE, widths=(8, 4, 12))
    found = gumbel_widths(relaxed, torch.Generator().manual_seed(1))
    assert found.gates is not None
    assert found.gates.widths == (4, 8, 12)
    assert torch.allclose(found.gates.values, torch.ones_like(relaxed.gamma))
    (found.gates.values * torch.tensor([7.0, 2.0, 3.0])).sum().backward()
    # d/dgamma of 7 + 2 P(width >= 8) + 3 P(width >= 12), columns 8, 4, 12
    p = relaxed.gamma.detach().softmax(-1)
    value = torch.tensor([2.0, 0.0, 5.0])
    expected = p * (value - (p * value).sum(-1, keepdim=True))
    torch.testing.assert_close(relaxed.gamma.grad, expected)


def test_equal_seeds_draw_equal_widths() -> None:
    relaxed = RelaxedArchitecture(SPACE)
    for draw in (gumbel_widths, random_widths):
        first, second = (draw(relaxed, torch.Generator().manual_seed(3)).values for _ in range(2))
        assert first == second
        assert set(first) <= set(SPACE.widths)


def test_a_single_width_needs_no_gate() -> None:
    teacher = RelaxedArchitecture(SPACE, widths=(12,), end_width=12)
    found = gumbel_widths(teacher, torch.Generator().manual_seed(0))
    assert found == same_width(teacher, 12)
    assert found.gates is None
