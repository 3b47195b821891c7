"""A loss that is not finite: the run stops before the step is made, and says where."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from latlut.errors import LatlutError
from latlut.search.runs.checkpoints import last_checkpoint


class DivergedError(LatlutError):
    """A loss that is not finite."""


def finite_loss(loss: float, place: str, names: Iterable[str], folder: Path) -> float:
    """The loss, if it is finite.

    Args:
        loss: of one step.
        place: which step, in words.
        names: the images of its batches; read only if the loss is not finite.
        folder: of the checkpoints.

    Raises:
        DivergedError: it is not; names the step, the images and the checkpoint before it.
    """
    if math.isfinite(loss):
        return loss
    last = last_checkpoint(folder)
    before = f"the checkpoint before it is {last}" if last else "there was no checkpoint yet"
    raise DivergedError(
        f"the loss became {loss} in {place}, on the images {', '.join(names)}; {before}; "
        "try a lower learning rate, or --precision 32-true"
    )
