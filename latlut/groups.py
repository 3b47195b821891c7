"""One group of a sweep: fresh sessions of some op specs, timed side by side.

What fails is told to the sweep and is no number. Where a monitor is given, the GPU's state is
read between the bursts, on the thread that measures: there the GPU has just worked, and nothing
is asked while a run is being timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from torch import nn

from latlut.engines.base import Engine, Session
from latlut.errors import DeviceLostError, EngineError
from latlut.gpustate import GpuState, Monitor, merge_states
from latlut.graphs import GraphCache, Workload
from latlut.opspec import OpSpec
from latlut.recording import Measurement
from latlut.stopwatch import Stopwatch
from latlut.timing import SampleNs, TimingSettings, measure_side_by_side


@dataclass(frozen=True)
class Group:
    """Op specs to time side by side: the ``number``-th group of its pass, on build ``build``.

    ``requeues`` says how often each of them was put back so far.
    """

    specs: tuple[OpSpec, ...]
    number: int
    build: int
    requeues: Mapping[OpSpec, int]


@dataclass(frozen=True)
class TimedGroup:
    """What came of a group: measurements, the companions' samples, (n,) int64 nanoseconds each,
    and the GPU's state meanwhile, None where nobody watches one.
    """

    found: tuple[Measurement, ...] = ()
    readings: tuple[np.ndarray, ...] = ()
    state: GpuState | None = None


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
    ) -> None:
        self.engine, self.timing, self.cache = engine, timing, cache
        self.monitor = monitor
        self._watch = watch
        self._parities = dict(parities)
        self._on_failure = on_failure

    def load(self, workload: Workload, module: nn.Module | None = None, build: int = 0) -> Session:
        """A session of the engine, its graph taken from the cache."""
        graph = None
        if self.engine.reads_onnx:
            with self._watch.measuring("exporting"):
                graph = self.cache.onnx_bytes(workload, module)
        with self._watch.measuring("building"):
            return self.engine.load(workload, module=module, graph=graph, build=build)

    def time(self, group: Group, companions: Sequence[SampleNs]) -> TimedGroup:
        """Measure a group; what cannot be measured is told to ``on_failure``.

        Raises:
            DeviceLostError: the device has gone.
        """
        states: list[GpuState] = []
        with ExitStack() as stack:
            opened: list[tuple[OpSpec, Session]] = []
            for spec in group.specs:
                try:
                    opened.append((spec, stack.enter_context(self._open(spec, group.build))))
                except (EngineError, MemoryError) as error:
                    self._fail(spec, error)
            if not opened:
                return TimedGroup()
            samplers = [session.sample_ns for _, session in opened]
            try:
                with self._watch.measuring("measuring"):
                    samplings, readings = measure_side_by_side(
                        self._watched(samplers, states), self.timing, companions
                    )
            except (EngineError, MemoryError) as error:
                if len(opened) == 1:
                    self._fail(opened[0][0], error)
                    return TimedGroup(state=merge_states(states))
                if isinstance(error, DeviceLostError):
                    raise
                stack.close()
                return self._one_by_one(group, [spec for spec, _ in opened], companions)
        for sampling in samplings:
            self._watch.add("warm-up", sampling.warmup_s)
            self._watch.add("timing", sampling.timing_s)
        for samples in readings:
            self._watch.add("sentinels", float(samples.sum()) / 1e9)
        found = [
            Measurement(
                spec,
                sampling,
                group.number,
                group.requeues[spec],
                self._parities.get((spec.key, group.build)),
                group.build,
            )
            for (spec, _), sampling in zip(opened, samplings, strict=True)
        ]
        return TimedGroup(tuple(found), tuple(readings), merge_states(states))

    def _one_by_one(
        self, group: Group, specs: list[OpSpec], companions: Sequence[SampleNs]
    ) -> TimedGroup:
        """A group of which one cannot be run beside the others: each for itself."""
        timed = [
            self.time(Group((spec,), group.number, group.build, group.requeues), companions)
            for spec in specs
        ]
        beside = [part.readings for part in timed if part.readings]
        return TimedGroup(
            tuple(item for part in timed for item in part.found),
            tuple(np.concatenate(samples) for samples in zip(*beside, strict=True)),
            merge_states([part.state for part in timed if part.state is not None]),
        )

    def _watched(self, samplers: Sequence[SampleNs], states: list[GpuState]) -> Sequence[SampleNs]:
        """The samplers, the GPU's state being read once per round of their turns."""
        monitor = self.monitor
        if monitor is None:
            return samplers
        bursts = 0

        def watched(sampler: SampleNs) -> SampleNs:
            def sample_ns(count: int) -> np.ndarray:
                nonlocal bursts
                samples = sampler(count)
                if count > 1:  # one run alone only fills the caches before a burst
                    if bursts % len(samplers) == 0:
                        states.append(monitor.snapshot())
                    bursts += 1
                return samples

            return sample_ns

        return [watched(sampler) for sampler in samplers]

    def _open(self, spec: OpSpec, build: int) -> Session:
        """A session, compared with PyTorch the first time that the table meets the op spec."""
        workload = Workload.from_spec(spec)
        if (spec.key, build) in self._parities:
            return self.load(workload, build=build)
        with self._watch.measuring("building modules"):
            module = workload.build()
        session = self.load(workload, module, build)
        try:
            with self._watch.measuring("checking"):
                difference = self.engine.check_parity(session, module)
        except BaseException:
            session.close()
            raise
        self._parities[spec.key, build] = difference
        return session

    def _fail(self, spec: OpSpec, error: Exception) -> None:
        if isinstance(error, DeviceLostError):
            raise error
        if self.monitor is not None:
            self.monitor.snapshot()  # raises if the device has gone: then all others fail as well
        self._on_failure(spec, error)
