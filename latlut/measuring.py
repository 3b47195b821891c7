"""Taking a device for measuring: its lock, a pinned process, nothing else on its threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from latlut.affinity import pin_process
from latlut.devicelock import device_lock
from latlut.engines.base import Engine


@contextmanager
def measuring_on(engine: Engine) -> Iterator[tuple[int, ...]]:
    """Hold the engine's device for the block; yields the CPUs that the process is pinned to.

    The process is pinned to as many CPUs as the engine has threads. PyTorch's own pool is as
    large, so that parity checks and exports do not fight for them.

    Raises:
        DeviceBusyError: another process measures on the device; names it.
        SpecError: more threads than there are CPUs.
    """
    import torch

    threads_before = torch.get_num_threads()
    with device_lock(engine.device.uuid or engine.device.name), pin_process(engine.threads) as cpus:
        torch.set_num_threads(engine.threads)
        try:
            yield cpus
        finally:
            torch.set_num_threads(threads_before)
