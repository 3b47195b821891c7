"""Waiting for a device that another process measures on, and for a machine that is busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from latlut.errors import DeviceBusyError
from latlut.machine.cpu import cpu_ranges, cpu_times
from latlut.machine.lock import device_lock
from latlut.stats.machine_speed import LEAST_CPU_SHARE

#: Told what is waited for.
Say = Callable[[str], None]
#: How often, seconds.
_SAY_EVERY_S = 30.0
_LOOK_EVERY_S = 1.0
#: So many looks in a row have to find the CPUs idle.
_QUIET_LOOKS = 3


@contextmanager
def lock_when_free(device: str, say: Say) -> Iterator[None]:
    """Hold the device's lock for the block; while another process has it, wait and say so.

    Args:
        device: see ``device_lock``.
        say: told every 30 s who has it.

    Raises:
        LatlutError: the lock file cannot be made.
    """
    said = _Said(say)
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(device_lock(device))
                break
            except DeviceBusyError as error:
                said.now_and_then(f"waiting for the device: {str(error).splitlines()[0]}")
                time.sleep(_LOOK_EVERY_S)
        yield


def wait_until_quiet(cpus: Sequence[int], say: Say) -> None:
    """Return when other processes have left these CPUs nearly idle for some seconds.

    Where the kernel does not show how busy they are there is nothing to wait for.

    Args:
        cpus: their numbers.
        say: told every 30 s how busy they are.
    """
    said = _Said(say)
    quiet = 0
    while quiet < _QUIET_LOOKS:
        try:
            before, since = sum(cpu_times(cpus)), time.perf_counter()
            time.sleep(_LOOK_EVERY_S)
            busy_s = sum(cpu_times(cpus)) - before
        except (OSError, KeyError, ValueError):
            return
        share = busy_s / ((time.perf_counter() - since) * max(1, len(cpus)))
        quiet = quiet + 1 if share < 1 - LEAST_CPU_SHARE else 0
        if not quiet:
            said.now_and_then(
                f"waiting for a quiet machine: other processes use {100 * share:.0f}% of "
                f"CPU {cpu_ranges(tuple(cpus))}"
            )


class _Said:
    """Says at once, and then every 30 s."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._last = float("-inf")

    def now_and_then(self, text: str) -> None:
        if time.monotonic() - self._last >= _SAY_EVERY_S:
            self._last = time.monotonic()
            self._say(text)
