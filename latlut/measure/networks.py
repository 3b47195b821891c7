"""Timing whole networks as a sweep times op specs: in rounds, in groups, beside sentinels.

A round visits every network once, in a random order, with fresh sessions. The networks of a group
are timed in short bursts that take turns, the table's sentinels among them: they tell how fast the
machine was just then, against its usual speed while the table was made. A network's latency is
what it takes at that speed, as an entry's is; otherwise a machine that was slower in the afternoon
would look like an error of the table.

Symbols: N networks, R rounds of all passes together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from latlut.engines.base import Engine, Session
from latlut.measure.cpu_share import watching_cpu
from latlut.measure.device_warmup import ClockMhz, clock_of, warm_device
from latlut.measure.opening import Opening
from latlut.measure.timing import SampleNs, TimingSettings, measure_side_by_side, warm_up
from latlut.operators.graph_cache import GraphCache
from latlut.operators.registry import check
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.stats.machine_speed import relative_speed
from latlut.stats.passes import log_readings_at_usual_speed
from latlut.stats.quantiles import statistic_interval


@dataclass(frozen=True)
class NetworkReadings:
    """What networks took, round by round.

    ``readings_ms`` (N, R); ``speeds`` (N, R) how slow the machine was beside each, 1 as while the
    table was made, NaN where the table has no sentinels. The first half of the rounds is the first
    pass. ``cpu_share`` is the mean share of the CPU in the pass that got less of it, None where it
    is not known.
    """

    readings_ms: np.ndarray
    speeds: np.ndarray
    cpu_share: float | None = None

    @property
    def speed_factor(self) -> float:
        """The sentinels' latency over that in the table, geometric mean; NaN without any."""
        return float(np.exp(np.mean(np.log(self.speeds))))

    def at_usual_speed_ms(self) -> np.ndarray:
        """(N, R) milliseconds at the speed that the machine had while the table was made.

        The level of all rounds follows the sentinels fully, a single reading's deviation by the
        elasticity that the readings show (``stats.passes``): a sentinel's
        own noise must not be added where the machine was steady.
        """
        if not np.isfinite(self.speeds).all():
            return self.readings_ms
        level = np.log(self.speed_factor)
        logs, _ = log_readings_at_usual_speed(self.readings_ms, self.speeds / np.exp(level))
        usual: np.ndarray = np.exp(logs - level)
        return usual

    def passes_ms(self) -> tuple[np.ndarray, np.ndarray]:
        """Each network's latency in the first and in the second pass: (N,), medians of rounds."""
        usual = self.at_usual_speed_ms()
        half = usual.shape[1] // 2
        return np.median(usual[:, :half], axis=1), np.median(usual[:, half:], axis=1)


class NetworkTimer:
    """Times workloads in groups beside sentinels.

    Args:
        engine: runs them.
        timing: when a reading is known well enough.
        sentinels: op specs -> their usual reading, milliseconds; empty where there are none.
        cache: of exported graphs.
        group: how many workloads are timed side by side.

    Raises:
        SpecError: a sentinel of an operator that is not registered.
    """

    def __init__(
        self,
        engine: Engine,
        timing: TimingSettings,
        sentinels: Mapping[OpSpec, float],
        cache: GraphCache | None = None,
        group: int = 6,
    ) -> None:
        for spec in sentinels:
            check(spec)
        self.engine, self.timing, self.group = engine, timing, group
        self.sentinels, self.cache = dict(sentinels), cache or GraphCache()
        self._checked: set[str] = set()
        self._clock_mhz: ClockMhz | None = None

    def passes(
        self,
        workloads: Sequence[Workload],
        rounds: int,
        seed: int,
        listener: Callable[[Progress], None] | None = None,
    ) -> NetworkReadings:
        """Two passes of ``rounds`` rounds over all workloads.

        Args:
            workloads: N of them, of different names.
            rounds: per pass.
            seed: of the order.
            listener: told of each reading.

        Raises:
            ParityError: the engine computes something else than PyTorch; on the first visit.
            EngineError: the engine rejects a workload.
        """
        count = len(workloads)
        shares: tuple[list[float], list[float]] = [], []
        readings_ms, speeds = (np.full((count, 2 * rounds), np.nan) for _ in range(2))
        done = 0
        for pass_index in range(2):
            with ExitStack() as stack:
                self._clock_mhz = stack.enter_context(clock_of(self.engine))
                companions = self._open_sentinels(stack)
                for column in range(pass_index * rounds, (pass_index + 1) * rounds):
                    order = list(range(count))
                    random.Random(f"{seed}/{column}").shuffle(order)
                    for start in range(0, count, self.group):
                        chosen = order[start : start + self.group]
                        found, speed, share = self._time([workloads[i] for i in chosen], companions)
                        shares[pass_index].extend([] if share is None else [share])
                        readings_ms[chosen, column], speeds[chosen, column] = found, speed
                        for index, ms in zip(chosen, found, strict=True):
                            done += 1
                            if listener is not None:
                                total = 2 * rounds * count
                                name = workloads[index].name
                                listener(Progress(done, total, pass_index, name, ms, share))
        least = min((float(np.mean(own)) for own in shares if own), default=None)
        return NetworkReadings(readings_ms, speeds, least)

    def _time(
        self, workloads: Sequence[Workload], companions: Sequence[SampleNs]
    ) -> tuple[list[float], float, float | None]:
        """Each workload's reading in milliseconds; the machine's speed and CPU share meanwhile."""
        with ExitStack() as stack:
            samplers = [stack.enter_context(self._open(item)).sample_ns for item in workloads]
            if self._clock_mhz is not None:
                warm_device(samplers, self._clock_mhz)
            with watching_cpu(self.engine) as share:
                samplings, beside = measure_side_by_side(
                    samplers, self.timing, companions, resolution=self.engine.resolution
                )
        taken_ms = (statistic_interval(item / 1e6, self.timing.statistic).value for item in beside)
        speed = relative_speed(zip(taken_ms, self.sentinels.values(), strict=True))
        return [sampling.interval_ms.value for sampling in samplings], speed, share.value

    def _open_sentinels(self, stack: ExitStack) -> list[SampleNs]:
        opened: list[SampleNs] = []
        for spec in self.sentinels:
            sampler = stack.enter_context(self._open(Workload.from_spec(spec))).sample_ns
            warm_up(sampler, self.timing, self.engine.resolution)
            opened.append(sampler)
        return opened

    def _open(self, workload: Workload) -> Session:
        """A fresh session, its output compared with PyTorch's the first time."""
        is_new = workload.name not in self._checked
        session = Opening(self.engine, workload, self.cache).open(is_checked=is_new)
        self._checked.add(workload.name)
        return session
