"""Which widths a pass through the supernet runs at: narrowest, widest, random or drawn from gamma.

Every map has one width per pass (the sandwich rule trains the narrowest and the widest beside
drawn ones). Drawn from gamma, the width is a straight-through Gumbel softmax sample at
temperature 1: the pass runs the drawn width, and a gate of value 1 carries the gradient.

Source: FasterSeg, Sec. 3.1.3, Appendix C and D; sandwich rule: Yu et al. 2018.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from latlut.search.supernet.relaxed import RelaxedArchitecture


class Widths(NamedTuple):
    """(N - 1,) widths in twelfths, and (N - 1,) gates of ones with gamma's gradient, or None."""

    values: tuple[int, ...]
    gates: Tensor | None = None


def same_width(relaxed: RelaxedArchitecture, width: int) -> Widths:
    """Every map ``width`` twelfths wide."""
    return Widths((width,) * len(relaxed.gamma))


def random_widths(relaxed: RelaxedArchitecture, generator: torch.Generator) -> Widths:
    """Every map's width drawn uniformly."""
    drawn = torch.randint(len(relaxed.widths), (len(relaxed.gamma),), generator=generator)
    return Widths(tuple(relaxed.widths[index] for index in drawn.tolist()))


def likeliest_widths(relaxed: RelaxedArchitecture) -> Widths:
    """Every map's width of largest gamma; of equal ones the first in ``relaxed.widths``."""
    return Widths(tuple(relaxed.widths[i] for i in relaxed.gamma.argmax(-1).tolist()))


def gumbel_widths(relaxed: RelaxedArchitecture, generator: torch.Generator) -> Widths:
    """Widths drawn from softmax(gamma), with straight-through gates.

        y = softmax(log p + g),  g = -log(-log u);  drawn: argmax y;  gate = 1 + y_j - stop(y_j)

    Args:
        relaxed: gives gamma.
        generator: on the CPU, so that a draw is the same on every device.

    Source: FasterSeg, Appendix C, with the sign of the noise as in Jang et al. 2017.
    """
    gamma = relaxed.gamma
    if gamma.shape[-1] == 1:
        return same_width(relaxed, relaxed.widths[0])
    uniform = torch.rand(gamma.shape, generator=generator).clamp_min(1e-20)
    noise = -torch.log((-torch.log(uniform)).clamp_min(1e-20)).to(gamma.device)
    soft = (gamma.log_softmax(-1) + noise).softmax(-1)
    drawn = soft.detach().argmax(-1, keepdim=True)
    chosen = soft.gather(-1, drawn)[:, 0]
    gates = 1 + chosen - chosen.detach()
    return Widths(tuple(relaxed.widths[index] for index in drawn[:, 0].tolist()), gates)
