"""Several processes, one per device: Fabric, and what they do together.

Networks are not wrapped in DDP: several backward passes make one gradient, and some parameters
have none. Gradients are averaged once before the step; norms share their statistics (``norms``).
In one process every function here gives back what it was given.

A process that ends, or does not answer for the time-out, ends the others with a
``LostProcessError``. With NCCL a time-out is noticed by PyTorch's watchdog instead, which ends the
process with a message of its own.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from latlut.errors import LatlutError

#: Seconds that a process waits for the others.
TIMEOUT_S = 600.0

GOES_ON = "the same command continues from the last epoch"

Result = TypeVar("Result")


class LostProcessError(LatlutError):
    """Another process of the run ended or did not answer, or this one was told to end."""


def launched(
    accelerator: str, devices: int, precision: str, timeout_s: float = TIMEOUT_S
) -> Fabric:
    """Fabric with its processes started.

    Args:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: number of processes; where RANK and WORLD_SIZE are set, as torchrun does, theirs
            counts.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        timeout_s: how long a process waits for the others.

    Raises:
        LatlutError: an accelerator, device or precision that is not here.
        LostProcessError: the other processes did not come.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of every process
    started = _started_by_others()
    devices, nodes = started or (devices, 1)
    is_several = devices * nodes > 1
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=DDPStrategy(timeout=timedelta(seconds=timeout_s)) if is_several else "auto",
            precision=precision,  # type: ignore[arg-type]  # checked with the settings
            plugins=TorchElasticEnvironment() if started and is_several else None,
        )
    except Exception as error:  # Fabric's own message says what is not there
        asked = f"--accelerator {accelerator} --processes {devices} --torch-precision {precision}"
        raise LatlutError(f"{asked}: {error}") from error
    with _together(fabric):
        fabric.launch()
    return fabric


def _started_by_others() -> tuple[int, int] | None:
    """(processes per node, nodes) by the environment; None where nobody started several.

    Raises:
        LatlutError: variables that do not fit each other.
    """
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    here = {name: os.environ[name] for name in names if name in os.environ}
    try:
        values = {name: int(text) for name, text in here.items()}
    except ValueError:
        values = {"RANK": -1, "WORLD_SIZE": 0}
    world_size = values["WORLD_SIZE"]
    local = values.get("LOCAL_WORLD_SIZE", world_size)
    if not 0 <= values["RANK"] < world_size or local < 1 or world_size % local:
        received = ", ".join(f"{name}={text}" for name, text in here.items())
        raise LatlutError(
            f"the environment has {received}: expected a rank below the number of processes, as "
            "many of them on each machine; start them with torchrun, or unset RANK and WORLD_SIZE"
        )
    os.environ.setdefault("LOCAL_RANK", str(values["RANK"] % local))
    return local, world_size // local


def refuse_several(what: str) -> None:
    """Refuse what runs in one process, where several were started.

    Raises:
        LatlutError: they were.
    """
    processes, machines = _started_by_others() or (1, 1)
    if processes * machines > 1:
        raise LatlutError(
            f"{what} runs in one process, and the environment has WORLD_SIZE="
            f"{processes * machines}: start it without torchrun, or unset RANK and WORLD_SIZE"
        )


@contextmanager
def ended_by_signal(fabric: Fabric) -> Iterator[None]:
    """Where several processes run, SIGTERM raises a LostProcessError inside the block.

    torchrun sends it to the other processes when one has failed.
    """

    def end(number: int, _: Any) -> None:
        raise LostProcessError(
            f"{_name(fabric)} was told to end by {signal.Signals(number).name}, as torchrun does "
            f"when another process has failed; {GOES_ON}"
        )

    if fabric.world_size == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _together(fabric: Fabric) -> Iterator[None]:
    """What is inside needs all processes; an error of it names a lost one."""
    if fabric.world_size == 1:
        yield
        return
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise LostProcessError(
            f"{_name(fabric)} waited in vain for the others: one has ended or did not answer "
            f"within the time-out (--timeout); {GOES_ON}\n  {reason}"
        ) from error


def _name(fabric: Fabric) -> str:
    return f"process {fabric.global_rank + 1} of {fabric.world_size}"


def on_first(fabric: Fabric, work: Callable[[], Result]) -> Result:
    """The result of ``work``, which the first process alone does; it can be pickled.

    Raises:
        LatlutError: ``work`` raised it; the other processes raise a LostProcessError that has
            its message.
    """
    if fabric.world_size == 1:
        return work()
    result: Any = None
    refusal: LatlutError | None = None
    if fabric.is_global_zero:
        try:
            result = work()
        except LatlutError as error:
            refusal = error
    with _together(fabric):
        result, reason = fabric.broadcast((result, refusal and str(refusal)))
    if refusal is not None:
        raise refusal
    if reason is not None:
        raise LostProcessError(f"{_name(fabric)} ends with the first one: {reason}")
    shared: Result = result
    return shared


def share_state(fabric: Fabric, *modules: nn.Module) -> None:
    """Give all processes the parameters and buffers of the first one."""
    if fabric.world_size == 1:
        return
    with _together(fabric):
        for value in (item for module in modules for item in module.state_dict().values()):
            sent = value.contiguous()
            torch.distributed.broadcast(sent, 0)
            value.copy_(sent)


def mean_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over processes; a parameter that only some processes used counts as 0
    in the others, and one that none used keeps no gradient."""
    if fabric.world_size == 1:
        return
    parameters = list(parameters)
    is_used = torch.tensor([float(item.grad is not None) for item in parameters])
    users = sum_of(fabric, is_used.to(fabric.device)).tolist()
    used = [item for item, count in zip(parameters, users, strict=True) if count]
    if not used:
        return
    flat = torch.cat(
        [(torch.zeros_like(item) if item.grad is None else item.grad).flatten() for item in used]
    )
    parts = mean_of(fabric, flat).split([item.numel() for item in used])
    for item, part in zip(used, parts, strict=True):
        item.grad = part.view_as(item).clone()


def joint_mean(fabric: Fabric | None, total: Tensor, count: Tensor) -> Tensor:
    """A sum over this process's part, divided by the count of all parts together.

    It is multiplied by the number of processes, so that its mean over processes, and that of its
    gradients, are those of one process that has all parts.

    Args:
        fabric: processes; None is one.
        total: () float. count: () how many values it is the sum of; 0 counts as 1.
    """
    if fabric is None or fabric.world_size == 1:
        return total / count.clamp(min=1)
    return total * (fabric.world_size / sum_of(fabric, count).clamp(min=1))


def mean_of(fabric: Fabric, value: Tensor) -> Tensor:
    """The mean of a tensor over processes, without gradients."""
    return value if fabric.world_size == 1 else sum_of(fabric, value) / fabric.world_size


def sum_of(fabric: Fabric, value: Tensor) -> Tensor:
    """The sum of a tensor over processes, without gradients."""
    if fabric.world_size == 1:
        return value
    total = value.detach().clone(memory_format=torch.contiguous_format)
    with _together(fabric):
        torch.distributed.all_reduce(total)
    return total


def gathered(fabric: Fabric, value: Tensor) -> Tensor:
    """(P, *) the tensors of all P processes, which have one shape, without gradients."""
    if fabric.world_size == 1:
        return value.detach()[None]
    sent = value.detach().contiguous()
    parts = [torch.empty_like(sent) for _ in range(fabric.world_size)]
    with _together(fabric):
        torch.distributed.all_gather(parts, sent)
    return torch.stack(parts)
