"""Pinning: which CPUs a measurement runs on, and keeping the process there."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from latlut.errors import SpecError
from latlut.machine.cpu import allowed_cpus, core_of, cpu_ranges


def choose_cpus(threads: int) -> tuple[int, ...]:
    """The CPUs to measure on: ``threads`` of those that this process may use, ascending.

    The highest-numbered ones, since CPU 0 serves most interrupts; one per physical core as long
    as there are cores left, since two threads on one core share its arithmetic units.

    Raises:
        SpecError: ``threads`` is below 1 or more than the CPUs that are allowed.
    """
    allowed = allowed_cpus()
    if threads < 1:
        raise SpecError(f"threads must be at least 1, received {threads}")
    if threads > len(allowed):
        raise SpecError(
            f"{threads} threads were asked for, but this process may use {len(allowed)} CPUs "
            f"({cpu_ranges(allowed)}); ask for at most {len(allowed)}"
        )
    highest_first = sorted(allowed, reverse=True)
    first_of_core: dict[str, int] = {}
    for cpu in highest_first:
        first_of_core.setdefault(core_of(cpu), cpu)
    whole_cores = list(first_of_core.values())
    siblings = [cpu for cpu in highest_first if cpu not in first_of_core.values()]
    return tuple(sorted((whole_cores + siblings)[:threads]))


@contextmanager
def pinned(cpus: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """Keep all threads of this process on ``cpus`` while the context lasts, then undo it.

    Threads that exist are moved too, so that the order of pinning and of loading an engine does
    not matter, unless the engine pins its own threads. Threads and processes started inside
    inherit the CPUs.

    Yields:
        The CPUs, ascending; an empty tuple, after a RuntimeWarning, where the operating system
        cannot pin.

    Raises:
        SpecError: one of the CPUs does not exist or is not allowed.
    """
    wanted = tuple(sorted(set(cpus)))
    if not hasattr(os, "sched_setaffinity"):
        warnings.warn(
            f"this system ({platform.system()}) cannot pin a process to CPUs: measuring unpinned",
            RuntimeWarning,
            stacklevel=3,
        )
        yield ()
        return
    allowed = allowed_cpus()
    if not wanted or not set(wanted) <= set(allowed):
        raise SpecError(
            f"cannot pin to CPUs {cpu_ranges(wanted) or '(none)'}: this process may use "
            f"{cpu_ranges(allowed)}"
        )
    before: dict[int, set[int]] = {}
    for thread in _own_threads():
        with suppress(OSError):  # a thread that has just ended
            before[thread] = os.sched_getaffinity(thread)
            os.sched_setaffinity(thread, wanted)
    try:
        if allowed_cpus() != wanted:
            raise SpecError(
                f"the system refused to pin this process to CPUs {cpu_ranges(wanted)}: it stays on "
                f"{cpu_ranges(allowed_cpus())}"
            )
        yield wanted
    finally:
        for thread in _own_threads():
            with suppress(OSError):
                os.sched_setaffinity(thread, before.get(thread, set(allowed)))


def _own_threads() -> list[int]:
    """Kernel numbers of this process's threads; 0, the calling one, where they are not listed."""
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]
