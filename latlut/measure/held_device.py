"""Taking a device for measuring: its lock, a pinned process, nothing else on its threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec

from latlut.engines.base import Engine
from latlut.machine.lock import device_lock, shared_device_lock
from latlut.machine.pinning import choose_cpus, pinned
from latlut.measure.parts import Part
from latlut.measure.waiting import Say, lock_when_free, wait_until_quiet


@contextmanager
def measuring_on(
    engine: Engine, part: Part | None = None, waiting: Say | None = None
) -> Iterator[tuple[int, ...]]:
    """Hold the engine's device for the block; yields the CPUs that the process is pinned to.

    The process is pinned to as many CPUs as the engine has threads; those of the parts of one
    sweep, which run at the same time, are disjoint, and parts that share the CPU lock only theirs.
    PyTorch's own pool is as large, so that parity checks and exports do not fight for them.

    Args:
        engine: whose device it is.
        part: of a sweep over several devices.
        waiting: wait for the device, and for a CPU that others use, and tell this about it;
            without it a device that is taken is an error.

    Raises:
        DeviceBusyError: another process measures on the device; names it.
        SpecError: more threads than there are CPUs.
    """
    share = part or Part(0, 1)
    chosen = choose_cpus(engine.threads * share.count)
    mine = chosen[share.index * engine.threads : (share.index + 1) * engine.threads]
    device = engine.device.uuid or engine.device.name
    if waiting is not None:
        held: AbstractContextManager[object] = lock_when_free(device, waiting)
    elif share.count > 1 and not engine.device.uuid:  # the parts have the CPUs in common
        held = shared_device_lock(device, mine)
    else:
        held = device_lock(device)
    with held, pinned(mine) as cpus, _torch_threads(engine.threads):
        if waiting is not None and engine.device.name == "cpu":
            wait_until_quiet(cpus, waiting)
        yield cpus


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    """PyTorch's pool has as many threads inside the block, where PyTorch is installed."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
