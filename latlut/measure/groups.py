"""One group of a sweep: fresh sessions of some op specs, timed side by side.

An op spec is one session where it is timed alone, two where it is timed in context: its graph with
the operator and that without it (``operators.in_context``), open at the same time.

What fails is told to the sweep and is no number. Where a monitor is given, the GPU's state is
read between the bursts, on the thread that measures: there the GPU has just worked, and nothing
is asked while a run is being timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from latlut.engines.base import Engine, Session
from latlut.errors import DeviceLostError, EngineError, SpecError
from latlut.machine.gpu_state import GpuState, Monitor, merge_states
from latlut.measure.attempts import Attempts
from latlut.measure.cpu_share import watching_cpu
from latlut.measure.device_warmup import warm_device
from latlut.measure.opening import Opening
from latlut.measure.stopwatch import Stopwatch
from latlut.measure.timing import (
    Pair,
    SampleNs,
    TimingSettings,
    measure_side_by_side,
)
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.stats.sampling import Sampling
from latlut.table.identity import IN_CONTEXT, STANDALONE

if TYPE_CHECKING:
    pass

#: What an op spec fails with by itself.
_FAILURES = (EngineError, SpecError, MemoryError)


@dataclass(frozen=True)
class TimedSpec:
    """What came of one op spec."""

    spec: OpSpec
    """What was timed."""
    sampling: Sampling
    """Its samples."""
    parity: float | None
    """Difference from PyTorch, None where nothing was ever compared."""
    host_share: float | None = None
    launch: str | None = None
    """``host_share``, ``launch``: see ``Session``; None where it is not known, as on a CPU."""


@dataclass(frozen=True)
class TimedGroup:
    """What came of a group."""

    found: tuple[TimedSpec, ...] = ()
    """What could be measured."""
    readings: tuple[np.ndarray, ...] = ()
    """The companions' samples, (n,) int64 nanoseconds each."""
    state: GpuState | None = None
    """The GPU's meanwhile, None where nobody watches one."""
    cpu_share: float | None = None
    """Of the CPU meanwhile (``measure.cpu_share``), None where it is not known."""


class GroupTimer:
    """Opens sessions of an engine and times them in groups.

    Args:
        engine: what runs them.
        timing: when an op spec is known well enough.
        cache: of exported graphs.
        watch: what the time went into.
        parities: (key, build) -> difference from PyTorch of those that were compared before.
        on_failure: told of an op spec that cannot be measured, and why.
        monitor: of the engine's GPU.
        mode: how an operator is isolated, one of ``table.identity.MODES``.
        attempts: told which op spec is worked on.
        workload_of: an op spec's workload where it is timed alone.
    """

    def __init__(
        self,
        engine: Engine,
        timing: TimingSettings,
        cache: GraphCache,
        watch: Stopwatch,
        parities: Mapping[tuple[str, int], float],
        on_failure: Callable[[OpSpec, Exception], None],
        monitor: Monitor | None = None,
        mode: str = STANDALONE,
        attempts: Attempts | None = None,
        workload_of: Callable[[OpSpec], Workload] = Workload.from_spec,
    ) -> None:
        self.engine, self.timing, self.cache = engine, timing, cache
        self.monitor, self.mode = monitor, mode
        self.attempts = attempts or Attempts()
        self.workload_of = workload_of
        self._neighbour_parities: dict[tuple[str, int], float] = {}
        self._watch = watch
        self._parities = dict(parities)
        self._on_failure = on_failure

    def opening(self, workload: Workload, build: int = 0) -> Opening:
        """Opens sessions of a workload, the graph taken from the cache."""
        return Opening(self.engine, workload, self.cache, self._watch, build)

    def time(
        self, specs: Sequence[OpSpec], build: int, companions: Sequence[SampleNs]
    ) -> TimedGroup:
        """Measure op specs side by side; what cannot be measured is told to ``on_failure``.

        Args:
            specs: the group.
            build: which of the independent builds.
            companions: timed in the same turns, the sentinels.

        Raises:
            DeviceLostError: the device has gone.
        """
        states: list[GpuState] = []
        attempts = self.attempts
        attempts.begin_visit()
        with ExitStack() as stack:
            stack.callback(attempts.turn_to, None)
            opened: list[tuple[OpSpec, SampleNs | Pair]] = []
            sessions: list[Session] = []
            for spec in specs:
                own = stack.enter_context(ExitStack())
                attempts.turn_to(spec.key)
                try:
                    session, sampler = self._open(spec, build, own)
                    opened.append((spec, sampler))
                    sessions.append(session)
                    own.callback(attempts.turn_to, spec.key)  # closing is work on it, too
                except _FAILURES as error:
                    own.close()  # of two sessions the first may be open
                    self._fail(spec, error)
            if not opened:
                return TimedGroup()
            samplers = [self._told(spec, sampler) for spec, sampler in opened]
            try:
                is_warm = self._warm_device(samplers)
                with self._watch.measuring("measuring"), watching_cpu(self.engine) as share:
                    samplings, readings = measure_side_by_side(
                        self._watched(samplers, states),
                        self.timing,
                        companions,
                        resolution=self.engine.resolution,
                    )
            except _FAILURES as error:
                if len(opened) == 1:
                    self._fail(opened[0][0], error)
                    return TimedGroup(state=merge_states(states))
                if isinstance(error, DeviceLostError):
                    raise
                stack.close()
                return self._one_by_one([spec for spec, _ in opened], build, companions)
        for sampling in samplings:
            self._watch.add("warm-up", sampling.warmup_s)
            self._watch.add("timing", sampling.timing_s)
        for samples in readings:
            self._watch.add("sentinels", float(samples.sum()) / 1e9)
        found = [
            TimedSpec(
                spec,
                sampling if is_warm else replace(sampling, is_steady=False),
                self._parities.get((spec.key, build)),
                session.host_share,
                session.launch,
            )
            for (spec, _), session, sampling in zip(opened, sessions, samplings, strict=True)
        ]
        return TimedGroup(tuple(found), tuple(readings), merge_states(states), share.value)

    def _warm_device(self, samplers: Sequence[SampleNs | Pair]) -> bool:
        """Keep a GPU busy until its clock is steady; whether it is. True where there is none.

        It has idled while the group's sessions were built.
        """
        if self.monitor is None:
            return True
        with self._watch.measuring("measuring"):
            alone = [item.with_operator if isinstance(item, Pair) else item for item in samplers]
            found = warm_device(alone, self.monitor.sm_mhz)
        self._watch.add("warm-up", found.busy_s)
        return found.is_steady

    def _one_by_one(
        self, specs: Sequence[OpSpec], build: int, companions: Sequence[SampleNs]
    ) -> TimedGroup:
        """A group of which one cannot be run beside the others: each for itself."""
        timed = [self.time([spec], build, companions) for spec in specs]
        beside = [part.readings for part in timed if part.readings]
        return TimedGroup(
            tuple(item for part in timed for item in part.found),
            tuple(np.concatenate(samples) for samples in zip(*beside, strict=True)),
            merge_states([part.state for part in timed if part.state is not None]),
            min((part.cpu_share for part in timed if part.cpu_share is not None), default=None),
        )

    def _told(self, spec: OpSpec, sampler: SampleNs | Pair) -> SampleNs | Pair:
        """The op spec's sampler, whose turns are told of."""
        if isinstance(sampler, Pair):
            return Pair(
                self.attempts.told(spec.key, sampler.with_operator),
                self.attempts.told(spec.key, sampler.without),
            )
        return self.attempts.told(spec.key, sampler)

    def _watched(
        self, samplers: Sequence[SampleNs | Pair], states: list[GpuState]
    ) -> Sequence[SampleNs | Pair]:
        """The samplers, the GPU's state being read once per round of their turns."""
        monitor = self.monitor
        if monitor is None:
            return samplers
        bursts = 0
        round_size = sum(2 if isinstance(sampler, Pair) else 1 for sampler in samplers)

        def watched(sampler: SampleNs) -> SampleNs:
            def sample_ns(count: int, runs: int = 1) -> np.ndarray:
                nonlocal bursts
                samples = sampler(count) if runs == 1 else sampler(count, runs)
                if count > 1:  # one run alone only fills the caches before a burst
                    if bursts % round_size == 0:
                        states.append(monitor.snapshot())
                    bursts += 1
                return samples

            return sample_ns

        return [
            Pair(watched(sampler.with_operator), watched(sampler.without))
            if isinstance(sampler, Pair)
            else watched(sampler)
            for sampler in samplers
        ]

    def _open(self, spec: OpSpec, build: int, stack: ExitStack) -> tuple[Session, SampleNs | Pair]:
        """An op spec's session and what times it; all its sessions are left to ``stack``.

        Each is compared with PyTorch the first time that the table meets the op spec.
        """
        is_known = (spec.key, build) in self._parities
        without = None
        if self.mode == IN_CONTEXT:
            from latlut.operators.in_context import context_of

            context = context_of(spec)
            workload: Workload = context.with_operator
            without = context.without
        else:
            workload = self.workload_of(spec)
        opening = self.opening(workload, build)
        session = stack.enter_context(opening.open(is_checked=not is_known))
        difference = opening.difference
        sampler: SampleNs | Pair = session.sample_ns
        if without is not None:
            beside, of_neighbours = self._open_neighbours(without, build)
            stack.enter_context(beside)
            difference = None if difference is None else max(difference, of_neighbours)
            sampler = Pair(session.sample_ns, beside.sample_ns)
        if difference is not None:
            self._parities[spec.key, build] = difference
        return session, sampler

    def _open_neighbours(self, workload: Workload, build: int) -> tuple[Session, float]:
        """The session without the operator, whose graph op specs of equal inputs have in common."""
        name = workload.digest or workload.name
        known = self._neighbour_parities.get((name, build))
        opening = self.opening(workload, build)
        session = opening.open(is_checked=known is None)
        if known is None:
            self._neighbour_parities[name, build] = known = opening.difference or 0.0
        return session, known

    def _fail(self, spec: OpSpec, error: Exception) -> None:
        if isinstance(error, DeviceLostError):
            raise error
        if self.monitor is not None:
            self.monitor.snapshot()  # raises if the device has gone: then all others fail as well
        self._on_failure(spec, error)
