"""The controller of lambda, the latency penalty's weight.

The paper doubles lambda when the derived student is slower than a bound and halves it when it is
faster than another. This is a proportional-integral controller on the logarithm instead, in
velocity form: with e the log ratio of the derived student's latency to the target,

    log lambda += proportional * (e - e_before) + integral * e

so that lambda settles where the latency stays at the target, whatever the loss is worth. It acts
on the derived network's estimate, not on the expectation: a relaxed architecture whose choices
are still soft is expected to be of another latency than what its argmax gives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from latlut.errors import SpecError

#: lambda stays within this factor of where it began, so that it can come back.
RANGE = 1e3


@dataclass(frozen=True)
class LambdaController:
    """The state of the controller; ``after`` gives the next one.

    Raises:
        SpecError: a negative ``first`` or a target that is not positive.
    """

    first: float
    """The first lambda, per millisecond; 0 switches the penalty off for good."""
    target_ms: float
    """The latency to settle at."""
    proportional: float = 3.0
    integral: float = 2.0
    """``proportional``, ``integral``: gains, dimensionless."""
    value: float = -1.0
    """Lambda now, ``first`` if not given."""
    last_error: float | None = None
    """Log ratio of latency to target after the last epoch; None before the first."""

    def __post_init__(self) -> None:
        if not (self.first >= 0 and self.target_ms > 0):
            raise SpecError(
                f"lambda must not be negative and the target positive, received {self.first} "
                f"and {self.target_ms} ms"
            )
        if self.value < 0:
            object.__setattr__(self, "value", self.first)

    def after(self, latency_ms: float) -> LambdaController:
        """The controller after an epoch whose derived student takes ``latency_ms``."""
        if not latency_ms > 0:
            raise SpecError(f"a latency is positive, received {latency_ms}")
        error = math.log(latency_ms / self.target_ms)
        if self.first == 0:
            return replace(self, last_error=error)
        before = error if self.last_error is None else self.last_error
        change = self.proportional * (error - before) + self.integral * error
        bound = math.log(RANGE)
        away = math.log(self.value / self.first) + change
        value = self.first * math.exp(min(bound, max(-bound, away)))
        return replace(self, value=value, last_error=error)

    def to_dict(self) -> dict[str, float | None]:
        """The state as plain numbers."""
        return {"value": self.value, "last_error": self.last_error}

    def restored(self, state: Mapping[str, Any]) -> LambdaController:
        """This controller in the state that ``to_dict`` gave.

        Raises:
            ValueError: a value of lambda that it cannot have, or an error that is no number.
        """
        value, last_error = state["value"], state["last_error"]
        bounds = (self.first / RANGE, self.first * RANGE)
        if not isinstance(value, float) or not bounds[0] * 0.999 <= value <= bounds[1] * 1.001:
            raise ValueError(f"lambda {value!r:.40}, expected {bounds[0]:.3g} to {bounds[1]:.3g}")
        if not (last_error is None or (isinstance(last_error, float) and abs(last_error) < 1e3)):
            raise ValueError(f"the controller's last error {last_error!r:.40} is no number")
        return replace(self, value=value, last_error=last_error)
