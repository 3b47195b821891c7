"""Several processes, one per device: Fabric, and what they average by hand.

Networks are not wrapped in DDP: several backward passes may make one gradient, and some
parameters may have none. Gradients are averaged once before the step, running statistics once
an epoch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from latlut.errors import LatlutError


def launched(accelerator: str, devices: int, precision: str) -> Fabric:
    """Fabric with its processes started.

    Args:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: number of processes; under torchrun its own number counts.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.

    Raises:
        LatlutError: an accelerator, device or precision that is not here.
    """
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            precision=precision,  # type: ignore[arg-type]  # checked with the settings
        )
    except Exception as error:  # Fabric's own message says what is not there
        asked = f"--accelerator {accelerator} --devices {devices} --precision {precision}"
        raise LatlutError(f"{asked}: {error}") from error
    fabric.launch()
    return fabric


def mean_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over processes; a parameter that a process did not use counts as 0."""
    if fabric.world_size == 1:
        return
    parameters = list(parameters)
    flat = torch.cat(
        [
            (torch.zeros_like(item) if item.grad is None else item.grad).flatten()
            for item in parameters
        ]
    )
    mean = mean_of(fabric, flat)
    parts = mean.split([item.numel() for item in parameters])
    for item, part in zip(parameters, parts, strict=True):
        item.grad = part.view_as(item).clone()


def share_buffers(fabric: Fabric, module: nn.Module) -> None:
    """Average the norms' running statistics over processes."""
    if fabric.world_size == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(mean_of(fabric, buffer))


def mean_of(fabric: Fabric, value: Tensor) -> Tensor:
    """The mean of a tensor over processes."""
    mean = fabric.all_reduce(value, reduce_op="mean")
    assert isinstance(mean, Tensor)
    return mean
