"""Which widths a pass through the supernet runs at: narrowest, widest, random or drawn from gamma.

Every map has one width per pass (the sandwich rule trains the narrowest and the widest beside
drawn ones). Drawn from gamma, the width is a Gumbel softmax sample at temperature 1: the pass runs
the drawn width, and gates of value 1 carry the gradient. There is a gate for the channels that
each width adds to the next narrower one, 1 + P(width >= i) - its detached value: a gate of the
whole map, as in the authors' code, is a scale that the norms of all consumers take out again, and
gamma would hardly hear of accuracy.

Source: FasterSeg, Sec. 3.1.3, Appendix C and D; sandwich rule: Yu et al. 2018.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from latlut.search.supernet.mixing import Gates
from latlut.search.supernet.relaxed import RelaxedArchitecture


class Widths(NamedTuple):
    """(N - 1,) widths in twelfths, and gates of ones with gamma's gradient, or None."""

    values: tuple[int, ...]
    gates: Gates | None = None


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
    """Widths drawn from p = softmax(gamma), with gates that carry its gradient.

        drawn: argmax_i log p_i + g_i,  g = -log(-log u)
        gate of the channels that width i adds: 1 + q_i - stop(q_i),  q_i = sum_(k >= i) p_k

    The narrowest width's channels are always there: q = 1, and their gate has no gradient.

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
    drawn = (gamma.detach().log_softmax(-1) + noise).argmax(-1)
    order = sorted(range(len(relaxed.widths)), key=lambda index: relaxed.widths[index])
    wide_enough = gamma.softmax(-1)[:, order].flip(-1).cumsum(-1).flip(-1)
    gates = Gates(
        tuple(relaxed.widths[index] for index in order), 1 + (wide_enough - wide_enough.detach())
    )
    return Widths(tuple(relaxed.widths[index] for index in drawn.tolist()), gates)
