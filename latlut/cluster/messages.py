"""What the driver of a sweep and its workers tell each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from latlut.errors import LatlutError
from latlut.machine.gpu_state import GpuState
from latlut.measure.groups import TimedSpec
from latlut.measure.sweep import SweepSettings
from latlut.opspec import OpSpec
from latlut.table.identity import Identity


@dataclass(frozen=True)
class WorkerJob:
    """What every worker of a sweep has to know.

    Attributes:
        gpu: the target's name; None for the CPU.
        engine: its name.
        precision, threads, options: of the engine.
        mode: how operators are isolated; None for the engine's default.
        settings: of the sweep.
        own_modules: see ``carried``.
    """

    gpu: str | None
    engine: str
    precision: str
    threads: int
    options: Mapping[str, str]
    mode: str | None
    settings: SweepSettings
    own_modules: tuple[tuple[str, str | None], ...] = ()


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
    """What a worker says once it holds its device.

    Attributes:
        version: of latlut there.
        identity: of what it measures.
        device: a GPU's UUID, or the host of a CPU.
        place: host, process and device, for people.
        environment: of its machine, with the engine's facts.
        launch_floor_ms: what an empty kernel takes, None where nothing says.
        arithmetic: what the engine computes with, for the target's peak figures.
        state: of the GPU, None on a CPU.
    """

    version: str
    identity: Identity
    device: str
    place: str
    environment: Mapping[str, object]
    launch_floor_ms: float | None
    arithmetic: str
    state: GpuState | None


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
    """What came of a lease.

    Attributes:
        lease: which.
        opening: how many times the worker has opened its sentinels; a pass of its own in the table.
        group: number of the lease since then.
        found: what could be measured.
        failures: the others -> why.
        readings: the sentinels', (op spec, group, milliseconds).
        is_slow: whether they were grossly slower than before.
        state: of the GPU meanwhile.
        cpu_share: of the CPU meanwhile.
    """

    lease: Lease
    opening: int
    group: int
    found: tuple[TimedSpec, ...]
    failures: Mapping[OpSpec, str]
    readings: tuple[tuple[OpSpec, int, float], ...]
    is_slow: bool
    state: GpuState | None
    cpu_share: float | None


@dataclass(frozen=True)
class Lost:
    """A worker that answers no more; ``is_final`` where a new one in its place would not either."""

    reason: str
    is_final: bool = False
