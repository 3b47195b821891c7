"""An exponential moving average of a network's weights and running statistics (EMA)."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class MovingAverage:
    """A copy of a network that follows it slowly.

        average <- d average + (1 - d) network,  d = min(decay, (1 + step) / (10 + step))

    The second bound keeps the first, random weights from lasting.

    Args:
        network: what to follow; the average starts as its copy.
        decay: in (0, 1).

    Attributes:
        module: the average; in evaluation mode. step: how many updates were made.

    Source: Tarvainen and Valpola, 2017; the bound is that of TensorFlow's moving averages.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = deepcopy(network).eval().requires_grad_(False)
        self.decay, self.step = decay, 0

    def update(self, network: nn.Module) -> None:
        """Take in the network as it is after a step."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        with torch.no_grad():
            for mine, other in zip(
                self.module.state_dict().values(), network.state_dict().values(), strict=True
            ):
                if mine.is_floating_point():
                    mine.lerp_(other.to(mine.dtype), 1 - decay)
                else:
                    mine.copy_(other)
