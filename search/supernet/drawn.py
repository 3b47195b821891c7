"""Mixings of a few drawn paths: passes of the search phase that cost a part of the whole supernet.

    1 path    per cell one operator and one input, straight-through Gumbel softmax:
              weight 1 + p - stop(p) for the drawn one, 0 for the others
    2 paths   per cell two operators, drawn without replacement, weighed by the softmax of
              their two logits; both inputs, by beta

Weights of 0 are not computed, so that gradients reach what was drawn alone.

Source: Dong and Yang, GDAS, 2019, for one path; Cai et al., ProxylessNAS, 2019, for two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from latlut.search.supernet.mixing import Mixing
from latlut.search.supernet.relaxed import RelaxedArchitecture


def drawn_mixing(relaxed: RelaxedArchitecture, paths: int, generator: torch.Generator) -> Mixing:
    """The mixing of one pass, differentiable in alpha and beta.

    Args:
        relaxed: whose choices are drawn. paths: 1 or 2.
        generator: on the CPU, so that a draw is the same on every device.
    """
    found = relaxed.probabilities()
    noisy = relaxed.alpha.detach() + _gumbel(relaxed.alpha, generator)
    chosen = noisy.topk(min(paths, noisy.shape[1]), dim=1).indices
    if paths == 1:
        p = found.alpha.gather(1, chosen)
        weights = 1 + (p - p.detach())  # exactly 1
    else:
        weights = relaxed.alpha.gather(1, chosen).softmax(1)
    alpha = torch.zeros_like(found.alpha).scatter(1, chosen, weights)
    if paths > 1:
        return Mixing(alpha, found.beta, is_drawn=True)
    p = found.beta
    uniform = torch.rand(p.shape, generator=generator).to(p.device)
    # Of one-way cells p is 0 or 1, and the draw is that.
    beta = (uniform < p.detach()).to(p.dtype) + (p - p.detach())
    return Mixing(alpha, beta, is_drawn=True)


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=generator).clamp_min(1e-20)
    return -torch.log((-torch.log(uniform)).clamp_min(1e-20)).to(like.device)
