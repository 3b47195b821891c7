"""The sweep: a plan, through an engine, into a table.

Several short passes over the plan in random order with fresh sessions. Within a pass, groups of op
specs are timed side by side, accompanied by a few sentinel op specs: these tell how fast the
machine was, and groups taken while it was grossly slower are measured again. Whatever was measured
is in the table within seconds, so the sweep can be stopped, or killed, at any time and goes on
where it was.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field

import numpy as np
from torch import nn

from latlut import operators, recording
from latlut.engines.base import Engine, Session
from latlut.environment import collect_environment
from latlut.errors import EngineError
from latlut.graphs import GraphCache, Workload
from latlut.identity import Identity
from latlut.opspec import OpSpec, unique
from latlut.plans import Plan
from latlut.recording import Measurement, SpecFacts
from latlut.sentinels import Sentinels, choose_sentinels
from latlut.summary import Roofline, set_roofline, summarise
from latlut.table import LatencyTable
from latlut.timing import SampleNs, TimingSettings, measure_side_by_side, warm_up

MAX_REQUEUES = 2


@dataclass(frozen=True)
class SweepSettings:
    """How a sweep goes over its plan.

    ``passes`` over the whole plan; ``budget_s`` of wall time after which it stops and can be
    continued, None for no limit; ``group`` how many op specs are timed side by side;
    ``sentinels`` how many op specs accompany every group; ``seed`` of the random order.
    """

    timing: TimingSettings = field(default_factory=TimingSettings)
    passes: int = 5
    budget_s: float | None = None
    group: int = 12
    sentinels: int = 3
    seed: int = 0

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        return asdict(self)


@dataclass
class Progress:
    """What a listener is told after each step: steps done of all, and what was just measured."""

    done: int
    total: int
    pass_index: int
    label: str
    reading_ms: float | None


@dataclass
class SweepSummary:
    """How a sweep ended. ``seconds`` by what they went into; ``total`` is their wall time."""

    status: str = "running"
    measured: int = 0
    reused: int = 0
    requeued: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def overhead_fraction(self) -> float:
        """Share of the sweep that is neither timing, warm-up nor engine building."""
        names = ("timing", "warm-up", "sentinels", "building")
        useful = sum(self.seconds.get(name, 0.0) for name in names)
        return 1 - useful / self.seconds["total"] if self.seconds.get("total") else 0.0


class _Stopwatch:
    """Adds up wall seconds by name."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def measuring(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


def identity_of(
    engine: Engine, target: str, *, statistic: str, mode: str = "standalone"
) -> Identity:
    """The identity of what ``engine`` measures here."""
    return Identity(
        target=target,
        device_model=engine.device.model,
        engine=engine.name,
        engine_version=engine.version,
        precision=engine.precision,
        threads=engine.threads,
        mode=mode,
        statistic=statistic,
        driver=engine.device.driver,
    )


class Sweep:
    """One run over a plan.

    Args:
        table: writable, of the engine's identity.
        plan: what to measure.
        engine: measures it.
        settings: passes, budget, timing.
        roofline: the target's peak figures.
        cache: of exported graphs.
        listener: called with a ``Progress`` after each measurement.
        environment: of the run, collected before the process was pinned; now if not given.
    """

    def __init__(
        self,
        table: LatencyTable,
        plan: Plan,
        engine: Engine,
        settings: SweepSettings,
        *,
        roofline: Roofline | None = None,
        cache: GraphCache | None = None,
        listener: Callable[[Progress], None] | None = None,
        environment: Mapping[str, object] | None = None,
    ) -> None:
        self.environment = collect_environment() if environment is None else environment
        self.table, self.plan, self.engine, self.settings = table, plan, engine, settings
        self.roofline = roofline or Roofline()
        self.cache = cache or GraphCache()
        self.listener = listener or (lambda progress: None)
        self.summary = SweepSummary()
        self._watch = _Stopwatch()

    def run(self) -> SweepSummary:
        """Measure what the table lacks.

        Returns:
            The summary; ``status`` is ``done`` or ``out of budget``. Ctrl-C stores what was
            measured, marks the run ``stopped`` and is raised again.

        Raises:
            LatlutError: an op spec of an unknown operator (before anything is timed), or a
                table that cannot be written.
        """
        for spec in self.plan.specs:
            operators.check(spec)
        self._todo = self._missing()
        self.summary.reused = len(self.plan.specs) * self.settings.passes - sum(
            len(specs) for specs in self._todo.values()
        )
        self._total = sum(len(specs) for specs in self._todo.values())
        self._done = 0
        if not self._total:
            summarise(self.table)  # a killed run may have left entries to be computed
            self.summary.status = "done"
            self.summary.seconds = {"total": 0.0}
            return self.summary
        self._prepare()
        status = "failed"
        try:
            status = self._all_passes()
        except KeyboardInterrupt:
            status = "stopped"
            raise
        finally:
            self._finish(status)
        return self.summary

    def _prepare(self) -> None:
        with self._watch.measuring("preparing"):
            pending = {spec for specs in self._todo.values() for spec in specs}
            self.sentinels = self._table_sentinels() or choose_sentinels(
                self.plan.specs, self.settings.sentinels
            )
            facts = {}
            known = {
                row["key"]
                for row in self.table.rows("SELECT key FROM op_specs WHERE macs IS NOT NULL")
            }
            for spec in pending - {s for s in pending if s.key in known}:
                cost = operators.cost(spec)
                facts[spec] = SpecFacts(cost.macs, cost.params, cost.moved_bytes)
            specs = unique([*self.plan.specs, *self.sentinels])
            self._ids = recording.add_op_specs(self.table, specs, facts)
            set_roofline(self.table, self.roofline)
            self._parities = {
                row["key"]: row["parity"]
                for row in self.table.rows(
                    "SELECT key, max(parity) AS parity FROM measurements"
                    " JOIN op_specs ON op_specs.id = op_spec_id GROUP BY key"
                )
            }
            self._run_id = recording.start_run(
                self.table,
                "profile",
                settings=self.settings.to_dict(),
                environment=self.environment,
                plan=self.plan.name,
                plan_hash=self.plan.hash,
                space=self.plan.space,
            )

    def _table_sentinels(self) -> tuple[OpSpec, ...]:
        """Those of earlier runs: what is added later is tied to the same usual speed."""
        rows = self.table.rows(
            "SELECT DISTINCT key FROM sentinel_readings"
            " JOIN op_specs ON op_specs.id = op_spec_id ORDER BY key"
        )
        known = operators.operator_kinds()
        specs = [OpSpec.parse(row["key"]) for row in rows]
        return tuple(spec for spec in specs if spec.kind in known)

    def _missing(self) -> dict[int, list[OpSpec]]:
        """Pass index -> the op specs that it still lacks, in that pass's random order."""
        rows = self.table.rows(
            "SELECT key, pass_index FROM measurements JOIN passes ON passes.id = pass_id"
            " JOIN op_specs ON op_specs.id = op_spec_id"
        )
        counts: dict[str, set[int]] = {}
        for row in rows:
            counts.setdefault(row["key"], set()).add(row["pass_index"])
        missing = {}
        for index in range(self.settings.passes):
            specs = [s for s in self.plan.specs if index not in counts.get(s.key, ())]
            random.Random(f"{self.settings.seed}/{index}").shuffle(specs)
            if specs:
                missing[index] = specs
        return missing

    def _all_passes(self) -> str:
        for index, specs in self._todo.items():
            specs = [spec for spec in specs if spec.key not in self.summary.failed]
            if not self._one_pass(index, specs):
                return "out of budget"
        return "done"

    def _finish(self, status: str) -> None:
        with self._watch.measuring("storing"):
            summarise(self.table)
            self.cache.trim()
        seconds = self._watch.seconds | {"total": self._watch.elapsed_s}
        self.summary.status, self.summary.seconds = status, seconds
        recording.end_run(
            self.table,
            self._run_id,
            status,
            seconds=seconds,
            environment=collect_environment(),
        )

    # ---- one pass --------------------------------------------------------------------------

    def _one_pass(self, index: int, specs: list[OpSpec]) -> bool:
        """Measure ``specs`` once each, group by group; False when the budget ended it."""
        pass_id = recording.start_pass(self.table, self._run_id, index)
        queue, requeues = list(specs), dict.fromkeys(specs, 0)
        with ExitStack() as stack:
            sentinels = self._open_sentinels(stack)
            while queue:
                if self._is_over_budget():
                    return False
                group, queue = queue[: self.settings.group], queue[self.settings.group :]
                found, readings = self._measure_group(
                    group, sentinels.groups, sentinels.samplers, requeues
                )
                again = []
                if sentinels.add(readings):
                    again = [item.spec for item in found if requeues[item.spec] < MAX_REQUEUES]
                for spec in again:
                    requeues[spec] += 1
                queue += again
                self.summary.requeued += len(again)
                kept = [item for item in found if item.spec not in again]
                self._store(pass_id, index, kept, sentinels.take_new())
        with self._watch.measuring("storing"):
            summarise(self.table)
        return True

    def _open_sentinels(self, stack: ExitStack) -> Sentinels:
        opened = []
        for spec in self.sentinels:
            with suppress(EngineError):  # it fails as an entry, too, and is reported there
                session = stack.enter_context(self.load(Workload.from_spec(spec)))
                warm_up(session.sample_ns, self.settings.timing)
                opened.append((spec, session.sample_ns))
        return Sentinels(opened, self.table.identity.statistic)

    def _store(
        self,
        pass_id: int,
        index: int,
        kept: list[Measurement],
        readings: list[tuple[OpSpec, int, float]],
    ) -> None:
        with self._watch.measuring("storing"):
            recording.add_measurements(self.table, pass_id, self._ids, kept, readings)
        self.summary.measured += len(kept)
        for item in kept:
            self._done += 1
            reading_ms = item.sampling.interval_ms.value
            self.listener(Progress(self._done, self._total, index, item.spec.key, reading_ms))

    def _is_over_budget(self) -> bool:
        budget = self.settings.budget_s
        return budget is not None and self._watch.elapsed_s >= budget

    def _measure_group(
        self,
        group: list[OpSpec],
        group_index: int,
        companions: Sequence[SampleNs],
        requeues: dict[OpSpec, int],
    ) -> tuple[list[Measurement], list[np.ndarray]]:
        """Fresh sessions of some op specs, timed side by side; a failure is a row, not a number."""
        with ExitStack() as stack:
            opened: list[tuple[OpSpec, Session]] = []
            for spec in group:
                try:
                    opened.append((spec, stack.enter_context(self._open_checked(spec))))
                except (EngineError, MemoryError) as error:
                    self._fail(spec, error)
            if not opened:
                return [], []
            try:
                with self._watch.measuring("measuring"):
                    samplings, readings = measure_side_by_side(
                        [session.sample_ns for _, session in opened],
                        self.settings.timing,
                        companions,
                    )
            except (EngineError, MemoryError) as error:
                if len(group) == 1:
                    self._fail(group[0], error)
                    return [], []
                stack.close()
                return self._one_by_one(
                    [spec for spec, _ in opened], group_index, companions, requeues
                )
        for sampling in samplings:
            self._watch.add("warm-up", sampling.warmup_s)
            self._watch.add("timing", sampling.timing_s)
        for samples in readings:
            self._watch.add("sentinels", float(samples.sum()) / 1e9)
        found = [
            Measurement(spec, sampling, group_index, requeues[spec], self._parities.get(spec.key))
            for (spec, _), sampling in zip(opened, samplings, strict=True)
        ]
        return found, readings

    def _one_by_one(
        self,
        group: list[OpSpec],
        group_index: int,
        companions: Sequence[SampleNs],
        requeues: dict[OpSpec, int],
    ) -> tuple[list[Measurement], list[np.ndarray]]:
        """A group of which one cannot be run beside the others: each for itself."""
        found: list[Measurement] = []
        readings: list[list[np.ndarray]] = []
        for spec in group:
            measured, beside = self._measure_group([spec], group_index, companions, requeues)
            found += measured
            readings += [beside] if beside else []
        return found, [np.concatenate(samples) for samples in zip(*readings, strict=True)]

    def _fail(self, spec: OpSpec, error: Exception) -> None:
        """Record a failure; the op spec is not tried again in this run."""
        message = str(error) or type(error).__name__
        self.summary.failed[spec.key] = message
        recording.add_failure(self.table, self._run_id, self._ids[spec.key], message)
        self._done += sum(spec in specs for specs in self._todo.values())

    def load(self, workload: Workload, module: nn.Module | None = None) -> Session:
        """A session of the sweep's engine, its graph taken from the cache."""
        graph = None
        if self.engine.reads_onnx:
            with self._watch.measuring("exporting"):
                graph = self.cache.onnx_bytes(workload, module)
        with self._watch.measuring("building"):
            return self.engine.load(workload, module=module, graph=graph)

    def _open_checked(self, spec: OpSpec) -> Session:
        """A session, compared with PyTorch the first time that the table meets the op spec."""
        workload = Workload.from_spec(spec)
        if self._parities.get(spec.key) is not None:
            return self.load(workload)
        with self._watch.measuring("building modules"):
            module = workload.build()
        session = self.load(workload, module)
        try:
            with self._watch.measuring("checking"):
                self._parities[spec.key] = self.engine.check_parity(session, module)
        except BaseException:
            session.close()
            raise
        return session


@dataclass(frozen=True)
class Coverage:
    """How much of a plan a table holds; intervals as relative 95% half-widths in percent."""

    entries: int
    median_ci_percent: float | None
    p95_ci_percent: float | None


def plan_coverage(table: LatencyTable, plan: Plan) -> Coverage:
    """How much of the plan the table holds, and how well."""
    found = [table.lookup(spec) for spec in plan.specs if spec in table]
    widths = [
        50 * (entry.ci_high_ms - entry.ci_low_ms) / entry.latency_ms
        for entry in found
        if entry.ci_low_ms is not None and entry.ci_high_ms is not None
    ]
    if not widths:
        return Coverage(len(found), None, None)
    median, p95 = np.quantile(widths, [0.5, 0.95])
    return Coverage(len(found), float(median), float(p95))
