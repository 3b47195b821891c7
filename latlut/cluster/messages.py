"""What the driver of a sweep and its workers tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from latlut.errors import LatlutError
from latlut.machine.gpu_state import GpuState
from latlut.measure.groups import TimedSpec
from latlut.measure.sweep_settings import SweepSettings
from latlut.opspec import OpSpec
from latlut.table.identity import Identity


@dataclass(frozen=True)
class WorkerJob:
    """What every worker of a sweep has to know."""

    gpu: str | None
    """The target's name; None for the CPU."""
    engine: str
    """Its name."""
    precision: str
    threads: int
    options: Mapping[str, str]
    """``precision``, ``threads``, ``options``: of the engine."""
    mode: str | None
    """How operators are isolated; None for the engine's default."""
    settings: SweepSettings
    """Of the sweep."""
    own_modules: tuple[tuple[str, str | None], ...] = ()
    """See ``carried``."""


def carried(own_modules: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
    """Files of ``--operators`` with their text, which workers need not have; modules by name.

    Raises:
        LatlutError: a file cannot be read.
    """
    try:
        return tuple(
            (name, Path(name).read_text(encoding="utf-8") if name.endswith(".py") else None)
            for name in own_modules
        )
    except OSError as error:
        raise LatlutError(
            f"--operators {error.filename}: cannot be read: {error.strerror}"
        ) from error


@dataclass(frozen=True)
class Hello:
    """What a worker says once it holds its device."""

    version: str
    """Of latlut there."""
    identity: Identity
    """Of what it measures."""
    device: str
    """A GPU's UUID, or the host of a CPU."""
    place: str
    """Host, process and device, for people."""
    environment: Mapping[str, object]
    """Of its machine, with the engine's facts."""
    launch_floor_ms: float | None
    """What an empty kernel takes, None where nothing says."""
    peaks: tuple[float | None, float | None, float | None]
    """Of the device by its target: FLOP/s, and bytes/s of memory and of the last-level cache."""
    state: GpuState | None
    """Of the GPU, None on a CPU."""


@dataclass(frozen=True)
class Lease:
    """A group of op specs that a worker is to measure in one pass.

    ``deaths``: how many workers have ended while they had it.
    """

    pass_index: int
    build: int
    specs: tuple[OpSpec, ...]
    deaths: int = 0


@dataclass(frozen=True)
class LeaseResult:
    """What came of a lease."""

    lease: Lease
    """Which."""
    opening: int
    """How many times the worker has opened its sentinels; a pass of its own in the table."""
    group: int
    """Number of the lease since then."""
    found: tuple[TimedSpec, ...]
    """What could be measured."""
    failures: Mapping[OpSpec, str]
    """The others -> why."""
    readings: tuple[tuple[OpSpec, int, float], ...]
    """The sentinels', (op spec, group, milliseconds)."""
    is_slow: bool
    """Whether they were grossly slower than before."""
    state: GpuState | None
    """Of the GPU meanwhile."""
    cpu_share: float | None
    """Of the CPU meanwhile."""


@dataclass(frozen=True)
class Lost:
    """A worker that answers no more."""

    reason: str
    """Why, for people."""
    is_final: bool = False
    """Whether a new one in its place would not answer either."""
    culprit: OpSpec | None = None
    """What it worked on when its process ended, where that is known."""
    is_cut: bool = False
    """Whether it was the connection that ended, which no op spec is to blame for."""
