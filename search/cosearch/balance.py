"""Balancing the penalty against the loss by their gradients.

Latency's gradient reaches operators, inputs and widths with very different strength: with the
paper's weights it is smaller than accuracy's by factors of tens to tens of thousands, and which
factor depends on space and table. Here the weight of each term follows from the two gradients that
meet in its parameters,

    weight_f = strength * |d loss / d f| / |d term_f / d f|,   f in alpha, beta, gamma

with the loss's norm averaged over steps. Their sum is lambda, their shares are w1, w2, w3.

Source: none; the paper's Eq. 3 has fixed weights and one lambda.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Weight of the steps before in the running mean of the loss's norms.
DECAY = 0.9


@dataclass(frozen=True)
class GradientBalance:
    """The running mean of the loss's gradient on alpha, beta and gamma; ``after`` gives the next.

    ``norms`` are sums that are not yet divided, ``steps`` how many there were; ``weights_per_ms``
    those of the last step.
    """

    norms: tuple[float, ...] = (0.0, 0.0, 0.0)
    steps: int = 0
    weights_per_ms: tuple[float, ...] = (0.0, 0.0, 0.0)

    def after(
        self, loss_norms: Sequence[float], term_norms: Sequence[float], strength: float
    ) -> GradientBalance:
        """After a step.

        Args:
            loss_norms: of the loss's gradient on each factor.
            term_norms: of each term's gradient on its factor, per millisecond.
            strength: the penalty's gradient over the loss's, on each factor.
        """
        norms = tuple(
            DECAY * before + (1 - DECAY) * now
            for before, now in zip(self.norms, loss_norms, strict=True)
        )
        steps = self.steps + 1
        whole = 1 - DECAY**steps
        weights = tuple(
            strength * norm / whole / term if term > 0 else 0.0
            for norm, term in zip(norms, term_norms, strict=True)
        )
        return GradientBalance(norms, steps, weights)

    def to_dict(self) -> dict[str, Any]:
        """The state as plain numbers."""
        values = {"norms": self.norms, "weights_per_ms": self.weights_per_ms}
        return {name: list(value) for name, value in values.items()} | {"steps": self.steps}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> GradientBalance:
        """The balance that ``to_dict`` wrote.

        Raises:
            ValueError: numbers that are none.
        """
        norms, weights = (
            tuple(float(value) for value in state[name]) for name in ("norms", "weights_per_ms")
        )
        if len(norms) != 3 or len(weights) != 3 or not all(0 <= n < 1e30 for n in norms + weights):
            raise ValueError(f"gradient norms {norms}, weights {weights}: expected three of each")
        return cls(norms, int(state["steps"]), weights)
