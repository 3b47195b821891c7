"""Workers without processes: their answers are scripted latencies, and some of them end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from fake_engine import work_ns

from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost
from latlut.engines import run_environment
from latlut.measure.groups import TimedSpec
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.stats.quantiles import statistic_interval
from latlut.stats.sampling import Sampling
from latlut.table.identity import Identity
from latlut.version import __version__

IDENTITY = Identity("h200", "NVIDIA H200", "scripted", "1.0", driver="580.1")


class ScriptedPool:
    """See ``cluster.driver.Pool``.

    Args:
        speeds: of each worker's device; 1.3 takes 1.3 times as long.
        ends: (worker, lease) -> how the worker ends instead of answering, None where it answers.
        fails: op spec -> why the engine rejects it.
        identities: of workers that are unlike the others.
    """

    def __init__(
        self,
        speeds: Sequence[float],
        *,
        ends: Callable[[int, Lease], Lost | None] = lambda number, lease: None,
        fails: Mapping[OpSpec, str] | None = None,
        identities: Mapping[int, Identity] | None = None,
    ) -> None:
        self.names = [f"node {number}" for number in range(len(speeds))]
        self.speeds = list(speeds)
        self.leases: list[tuple[int, Lease]] = []
        self.running: set[int] = set()
        self._ends, self._fails, self._identities = ends, fails or {}, identities or {}
        self._answers: deque[tuple[int, Hello | LeaseResult | Lost]] = deque()
        self._groups = dict.fromkeys(range(len(speeds)), 0)
        self._openings = dict.fromkeys(range(len(speeds)), (0, -1))
        self._generator = np.random.default_rng(0)

    def start(self, number: int) -> None:
        self.running.add(number)
        self._groups[number] = 0
        identity = self._identities.get(number, IDENTITY)
        environment = {**run_environment(), "host": f"node-{number}"}
        place = f"node {number}, GPU-{number}"
        hello = Hello(
            __version__, identity, f"GPU-{number}", place, environment, 0.002, (None,) * 3, None
        )
        self._answers.append((number, hello))

    def measure(self, number: int, lease: Lease, sentinels: tuple[OpSpec, ...]) -> None:
        assert number in self.running
        assert number not in {waiting for waiting, _ in self._answers}  # one lease at a time
        self.leases.append((number, lease))
        lost = self._ends(number, lease)
        self._answers.append((number, lost or self._result(number, lease, sentinels)))

    def wait(self, timeout_s: float) -> list[tuple[int, Hello | LeaseResult | Lost]]:
        return [self._answers.popleft()] if self._answers else []

    def stop(self, number: int) -> None:
        self.running.discard(number)
        self._answers = deque(item for item in self._answers if item[0] != number)

    def _result(self, number: int, lease: Lease, sentinels: tuple[OpSpec, ...]) -> LeaseResult:
        opening, index = self._openings[number]
        if index != lease.pass_index:
            self._openings[number] = opening, index = opening + 1, lease.pass_index
            self._groups[number] = 0
        group, self._groups[number] = self._groups[number], self._groups[number] + 1
        found = [
            TimedSpec(spec, self._sampling(number, spec), 0.0)
            for spec in lease.specs
            if spec not in self._fails
        ]
        readings = [
            (spec, group, self._sampling(number, spec).interval_ms.value) for spec in sentinels
        ]
        failures = {spec: self._fails[spec] for spec in lease.specs if spec in self._fails}
        return LeaseResult(
            lease, opening, group, tuple(found), failures, tuple(readings), False, None, None
        )

    def _sampling(self, number: int, spec: OpSpec) -> Sampling:
        level = self.speeds[number] * work_ns(Workload.from_spec(spec))
        samples = np.rint(level * self._generator.lognormal(0, 0.005, 40)).astype(np.int64)
        return Sampling(samples, statistic_interval(samples / 1e6, "p10"), 3, 0.01, 0.01, True)
