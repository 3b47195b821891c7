"""One step on weights, as searches and trainings make it.

Each loss has its own backward pass, so that peak memory is that of one. The loss of the step is
their sum, averaged over the batches that make one step and over processes, which share each batch.
One that is not finite ends the run before the step is made, and says where.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from latlut.errors import LatlutError
from latlut.search.data.loading import Batch, TrainBatches
from latlut.search.runs.checkpoints import last_checkpoint
from latlut.search.runs.processes import mean_gradients, mean_of
from latlut.search.runs.settings import PhaseSettings

#: Passes a loss on, or raises DivergedError.
LossCheck = Callable[[float], float]


class DivergedError(LatlutError):
    """A loss that is not finite."""


def make_step(
    fabric: Fabric,
    module: nn.Module,
    optimizer: Any,
    losses: Iterable[Tensor],
    check: LossCheck,
    accumulate: int,
    clip: float | None = None,
) -> float:
    """Make one step; the loss.

    Args:
        fabric: device, precision and processes.
        module: what the step changes.
        optimizer: of its parameters, set up by Fabric.
        losses: () float each, computed when it is asked for; the backward pass of one comes before
            the next.
        check: asked before the step is made.
        accumulate: how many batches the losses are of.
        clip: the largest norm of the gradient; None leaves it as it is.
    """
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=fabric.device)
    for loss in losses:
        fabric.backward(loss / accumulate)
        total += loss.detach() / accumulate
    found = check(float(mean_of(fabric, total)))
    mean_gradients(fabric, module.parameters())
    if clip is not None:
        # Half precision looks for overflows itself and leaves such a step out.
        fabric.clip_gradients(module, optimizer, max_norm=clip, error_if_nonfinite=False)
    optimizer.step()
    return found


def step_batches(
    fabric: Fabric, drawn: Iterator[Batch], count: int, is_channels_last: bool
) -> Iterator[Batch]:
    """The next ``count`` batches, on the device."""
    for batch in islice(drawn, count):
        image, label = fabric.to_device(batch.image), fabric.to_device(batch.label)
        if is_channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        yield Batch(image, label)


def weight_optimizer(fabric: Fabric, module: nn.Module, group: PhaseSettings) -> Any:
    """SGD on the module's parameters, set up by Fabric."""
    return fabric.setup_optimizers(
        torch.optim.SGD(
            module.parameters(),
            lr=group.lr,
            momentum=group.momentum,
            weight_decay=group.weight_decay,
        )
    )


def set_rate(optimizer: Any, rate: float) -> None:
    """Make the steps that follow at this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def finite_loss(
    loss: float, place: str, batches: TrainBatches, epoch: int, numbers: Iterable[int], folder: Path
) -> float:
    """The loss of one step, if it is finite.

    Args:
        loss: of one step.
        place: which step, in words.
        batches, epoch, numbers: which batches the step is made of.
        folder: of the checkpoints.

    Raises:
        DivergedError: it is not; names the step, the images and the checkpoint before it.
    """
    if math.isfinite(loss):
        return loss
    names = [name for number in numbers for name in batches.names(epoch, number)]
    last = last_checkpoint(folder)
    before = f"the checkpoint before it is {last}" if last else "there was no checkpoint yet"
    raise DivergedError(
        f"the loss became {loss} in {place}, on the images {', '.join(names)}; {before}; "
        "try a lower learning rate, or --torch-precision 32-true"
    )
