"""The sweep: a plan, through an engine, into a table.

Several short passes over the plan in random order with fresh sessions. Within a pass, groups of op
specs are timed side by side, accompanied by a few sentinel op specs: these tell how fast the
machine was, and groups taken while it was grossly slower, or while the GPU was throttled, are
measured again. Whatever was measured is in the table within seconds, so the sweep can be stopped,
or killed, at any time and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress

from latlut.engines import run_environment
from latlut.engines.base import Engine
from latlut.errors import DeviceLostError, EngineError, SpecError
from latlut.machine.gpu_state import GpuMonitor, Monitor
from latlut.measure.budget import Budget
from latlut.measure.groups import GroupTimer
from latlut.measure.parts import Part
from latlut.measure.plans import Plan
from latlut.measure.sentinels import Sentinels, choose_sentinels, open_sentinels
from latlut.measure.stopwatch import Stopwatch
from latlut.measure.supervising import Supervision
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings, check_mode, check_rebuilds
from latlut.measure.worklist import table_sentinels, work_of
from latlut.operators.building import cost
from latlut.operators.graph_cache import GraphCache
from latlut.operators.own_modules import imported_own_modules
from latlut.operators.registry import check
from latlut.operators.subgraph_store import shown
from latlut.opspec import OpSpec, unique
from latlut.progress import Progress
from latlut.stats.machine_speed import is_disturbed
from latlut.table import history, recording
from latlut.table.recording import Measurement, SpecFacts
from latlut.table.roofline import Roofline, set_bounds
from latlut.table.subgraphs import keep_pieces
from latlut.table.summary import are_entries_current, summarise
from latlut.table.table import LatencyTable

MAX_REQUEUES = 2


class Sweep:
    """One run over a plan, in the table's mode.

    Args:
        table: writable, of the engine's identity.
        plan: what to measure.
        engine: measures it.
        settings: passes, budget, timing.
        roofline: the target's peak figures.
        cache: of exported graphs.
        listener: called with a ``Progress`` after each measurement.
        environment: of the run, collected before the process was pinned; now if not given.
        monitor: of the engine's GPU; if not given, and the engine's device is a GPU, its driver.
        part: the share of the plan that this process measures; all of it if not given.
        sweep_id: what the runs of all parts have in common.
        supervision: where to say what is worked on, and which op specs ended earlier processes.
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
        monitor: Monitor | None = None,
        part: Part | None = None,
        sweep_id: str | None = None,
        supervision: Supervision | None = None,
    ) -> None:
        self.environment = run_environment() if environment is None else environment
        self.table, self.plan, self.engine, self.settings = table, plan, engine, settings
        self.roofline = roofline or Roofline()
        self.cache = cache or GraphCache()
        self.listener = listener or (lambda progress: None)
        self.monitor = monitor
        self.part = part or Part(0, 1)
        self.sweep_id = sweep_id
        supervision = supervision or Supervision()
        self.attempts, self._known_failures = supervision.attempts, supervision.failed
        self.summary = SweepSummary(measured=self.attempts.measured)
        self._watch = Stopwatch()
        self._budget = Budget(
            settings.budget_s, self._watch, history.measurement_count(table), len(plan.specs)
        )
        self._uuid = engine.device.uuid

    def run(self) -> SweepSummary:
        """Measure what the table lacks.

        Returns:
            The summary; ``status`` is ``done`` or ``out of budget``. Ctrl-C stores what was
            measured, marks the run ``stopped`` and is raised again.

        Raises:
            LatlutError: an op spec of an unknown operator (before anything is timed), or a
                table that cannot be written.
            EngineError: several builds are asked for of an engine that always builds the same,
                or differences of one that cannot take them.
            DeviceLostError: the device went away; what was measured before is in the table.
        """
        for spec in self.plan.specs:
            check(spec)
        check_rebuilds(self.engine, self.settings.rebuilds)
        check_mode(self.engine, self.table.identity.mode)
        settings, part = self.settings, self.part
        work = work_of(
            self.table, self.plan, part, settings.passes, settings.rebuilds, settings.seed
        )
        self._todo, self._total, self.summary.reused = work.missing, work.total, work.reused
        self.summary.reused -= self.summary.measured  # what an earlier process of this sweep took
        self._done = 0
        if not self._total:
            self._summarise()  # a killed run may have left entries to be computed
            self.summary.status = "done"
            self.summary.seconds = {"total": 0.0}
            return self.summary
        with ExitStack() as stack:
            if self.monitor is None and self._uuid:
                self.monitor = stack.enter_context(GpuMonitor(self._uuid))
            self._run_all()
        return self.summary

    def _run_all(self) -> None:
        self._prepare()
        status = "failed"
        try:
            for spec in unique([*self.plan.specs, *self.sentinels]):
                if spec.key in self._known_failures:
                    self._fail(spec, EngineError(self._known_failures[spec.key]))
            self._note_gpu("before")
            status = self._all_passes()
        except KeyboardInterrupt:
            status = "stopped"
            raise
        except Exception as error:
            # Freeing what a lost device held may fail as well, and must not hide the reason.
            lost = _cause(error, DeviceLostError)
            if lost is None:
                raise
            raise DeviceLostError(
                f"{lost}\nthe sweep ended with it; {self.summary.measured} new measurements are in "
                f"{self.table.title}, and the same command continues from there"
            ) from error
        finally:
            with suppress(DeviceLostError):
                self._note_gpu("after")
            self._finish(status)

    def _note_gpu(self, phase: str) -> None:
        if self.monitor is not None:
            recording.add_gpu_state(self.table, self._run_id, phase, self.monitor.snapshot())

    def _prepare(self) -> None:
        with self._watch.measuring("preparing"):
            self.engine.keep_caches_beside(self.table.path)
            sound = [spec for spec in self.plan.specs if spec.key not in self._known_failures]
            self.sentinels = table_sentinels(self.table) or choose_sentinels(
                sound, self.settings.sentinels
            )
            specs = unique([*self.plan.specs, *self.sentinels])
            keep_pieces(self.table, specs, self.plan.cut)
            self._ids = recording.add_op_specs(self.table, specs)
            self._costed = history.keys_of_known_cost(self.table)
            floor_ms = self.engine.launch_floor_ms()
            clock_error_ms = 1e3 * self.engine.resolution.error_s
            set_bounds(self.table, self.roofline, floor_ms, clock_error_ms)
            self._timer = GroupTimer(
                self.engine,
                self.settings.timing,
                self.cache,
                self._watch,
                history.parities(self.table),
                self._fail,
                self.monitor,
                self.table.identity.mode,
                self.attempts,
            )
            recording.keep_own_modules(self.table, imported_own_modules())
            own: dict[str, object] = {
                "part": [self.part.index, self.part.count],
                "device": self._uuid,
            }
            if not self.engine.is_compared:
                own["is_compared"] = False
            self._run_id = recording.start_run(
                self.table,
                "profile",
                settings=self.settings.to_dict() | own | {"sweep": self.sweep_id},
                environment={
                    **self.environment,
                    "engine_facts": self.engine.facts(),
                    "launch_floor_ms": floor_ms,
                },
                plan=self.plan.name,
                plan_hash=self.plan.hash,
                space=self.plan.space,
            )

    def _add_costs(self, group: Sequence[OpSpec]) -> None:
        """Store what the group's op specs compute and move, where that is not known yet."""
        facts = {}
        for spec in group:
            if spec.key in self._costed:
                continue
            self._costed.add(spec.key)
            self.attempts.turn_to(spec.key)
            try:
                found = cost(spec)
            except SpecError:  # it fails as an entry, too, and is reported there
                continue
            facts[self._ids[spec.key]] = SpecFacts(found.macs, found.params, found.moved_bytes)
        self.attempts.turn_to(None)
        if facts:
            recording.add_facts(self.table, facts)

    def _all_passes(self) -> str:
        for index, specs in self._todo.items():
            specs = [spec for spec in specs if spec.key not in self.summary.failed]
            if specs and not self._one_pass(index, specs):
                return "out of budget"
        return "done"

    def _finish(self, status: str) -> None:
        self._summarise()
        with self._watch.measuring("storing"):
            self.cache.trim()
        seconds = self._watch.seconds | {"total": self._watch.elapsed_s}
        self.summary.status, self.summary.seconds = status, seconds
        recording.end_run(
            self.table,
            self._run_id,
            status,
            seconds=seconds,
            environment=run_environment(),
        )

    # ---- one pass --------------------------------------------------------------------------

    def _one_pass(self, index: int, specs: list[OpSpec]) -> bool:
        """Measure ``specs`` once each, group by group; False when the budget ended it."""
        pass_id = recording.start_pass(self.table, self._run_id, index, self._uuid)
        build = index % self.settings.rebuilds
        queue, requeues = list(specs), dict.fromkeys(specs, 0)
        was_busy = False
        with ExitStack() as stack:
            sound = [spec for spec in self.sentinels if spec.key not in self._known_failures]
            opened = open_sentinels(self._timer, sound, self.settings.timing, stack)
            sentinels = Sentinels(opened, self.table.identity.statistic)
            while queue:
                if self._budget.is_spent:
                    return False
                size = self._budget.group_size(self.settings.group)
                group, queue = queue[:size], queue[size:]
                number = sentinels.groups
                with self._budget.visiting(len(group)):
                    with self._watch.measuring("preparing"):
                        self._add_costs(group)
                    timed = self._timer.time(group, build, sentinels.samplers)
                is_throttled = timed.state is not None and bool(timed.state.disturbances)
                again = []
                # Others that stay would make a sweep three times as long: what is measured beside
                # them is marked instead.
                is_busy = is_disturbed(timed.cpu_share)
                is_new, was_busy = is_busy and not was_busy, is_busy
                if sentinels.add(timed.readings) or is_throttled or is_new:
                    again = [
                        item.spec for item in timed.found if requeues[item.spec] < MAX_REQUEUES
                    ]
                if timed.state is not None:
                    recording.add_gpu_state(
                        self.table, self._run_id, "group", timed.state, pass_id, number
                    )
                kept = [
                    Measurement(
                        item.spec,
                        item.sampling,
                        number,
                        requeues[item.spec],
                        item.parity,
                        build,
                        timed.cpu_share,
                        item.host_share,
                        item.launch,
                    )
                    for item in timed.found
                    if item.spec not in again
                ]
                for spec in again:
                    requeues[spec] += 1
                queue += again
                self.summary.requeued += len(again)
                self.summary.disturbed += len(kept) if is_busy else 0
                self._store(pass_id, index, kept, sentinels.take_new())
        self._summarise()
        return True

    def _summarise(self) -> None:
        if are_entries_current(self.table):
            return
        with self._watch.measuring("storing"), self._budget.summarising():
            summarise(self.table)

    def _store(
        self,
        pass_id: int,
        index: int,
        kept: list[Measurement],
        readings: list[tuple[OpSpec, int, float]],
    ) -> None:
        with self._watch.measuring("storing"):
            recording.add_measurements(self.table, pass_id, self._ids, kept, readings)
        self.attempts.add_measured(len(kept))
        self.summary.measured += len(kept)
        for item in kept:
            self._done += 1
            reading_ms = item.sampling.interval_ms.value
            name, share = shown(item.spec), item.cpu_share
            self.listener(Progress(self._done, self._total, index, name, reading_ms, share))

    def _fail(self, spec: OpSpec, error: Exception) -> None:
        """Record a failure; the op spec is not tried again in this run."""
        message = str(error) or type(error).__name__
        self.summary.failed[spec.key] = message
        recording.add_failure(self.table, self._run_id, self._ids[spec.key], message)
        self._done += sum(spec in specs for specs in self._todo.values())


def _cause(error: BaseException | None, kind: type[EngineError]) -> EngineError | None:
    """The error itself, or the one that it was raised beside, if of that kind."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
