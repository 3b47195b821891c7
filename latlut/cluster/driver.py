"""The driver of a sweep by workers: hands out leases and alone writes the table.

A worker that ends gives its lease back and is started again; one whose sentinels are slow beside
the others' is sent away, and what it measured while it was slow is put into quarantine and measured
again by others. The sweep can be stopped, or killed, at any time, and goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from latlut.cluster.leases import LeaseBook
from latlut.cluster.messages import Hello, Lease, LeaseResult, Lost
from latlut.cluster.pace import FEWEST, SLOW_DEVICE, Pace
from latlut.cluster.store import ClusterTable
from latlut.errors import LatlutError
from latlut.measure.parts import Part
from latlut.measure.plans import Plan
from latlut.measure.sweep import MAX_REQUEUES
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings
from latlut.measure.worklist import work_of
from latlut.opspec import OpSpec
from latlut.progress import Progress
from latlut.stats.machine_speed import is_disturbed
from latlut.table.identity import Identity
from latlut.version import __version__

#: A worker that ends so many times in a row without a result is not started again.
MAX_STARTS = 3
#: How often what is waited for is said, seconds.
_SAY_EVERY_S = 60.0


class Pool(Protocol):
    """Workers, by number; what they answer comes back from ``wait``.

    ``names``: of the places in which workers run.
    """

    names: Sequence[str]

    def start(self, number: int) -> None:
        """Start a worker; it answers with Hello."""

    def measure(self, number: int, lease: Lease, sentinels: tuple[OpSpec, ...]) -> None:
        """Give a worker a lease, and what to time beside it; it answers with LeaseResult."""

    def wait(self, timeout_s: float) -> list[tuple[int, Hello | LeaseResult | Lost]]:
        """Answers of workers, with their numbers; none where the time is up."""

    def stop(self, number: int) -> None:
        """End a worker, if it runs."""


@dataclass
class WorkerReport:
    """How one worker fared."""

    place: str
    """Where it ran."""
    state: str = "starts"
    """``measures``, or how it ended."""
    measured: int = 0
    """Readings that are in entries."""
    leases: int = 0
    """That it completed."""
    speed: float = 1.0
    """Its sentinels beside the others'; 1 is equal, more is slower."""


class ClusterSweep:
    """One sweep of a plan by the workers of a pool.

    Args:
        plan: what to measure.
        settings: passes, budget, timing, op specs per lease.
        pool: the workers; the caller closes it.
        open_table: the writable table of an identity, which the first worker says.
        listener: told of each reading.
        say: told of workers that come, end or are sent away.
    """

    def __init__(
        self,
        plan: Plan,
        settings: SweepSettings,
        pool: Pool,
        open_table: Callable[[Identity, Hello], ClusterTable],
        *,
        listener: Callable[[Progress], None] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.plan, self.settings, self.pool = plan, settings, pool
        self.workers = {number: WorkerReport(name) for number, name in enumerate(pool.names)}
        self.summary = SweepSummary()
        self._open_table = open_table
        self._listener = listener or (lambda progress: None)
        self._say = say or (lambda text: None)
        self._table: ClusterTable | None = None
        self._out: dict[int, Lease] = {}
        self._idle: list[int] = []
        self._starts = dict.fromkeys(self.workers, 0)
        self._was_busy: set[int] = set()
        self._requeues: dict[tuple[int, OpSpec], int] = {}
        self._began = self._said = time.monotonic()

    def run(self) -> SweepSummary:
        """Measure what the table lacks.

        Returns:
            The summary; ``status`` is ``done``, ``out of budget``, or ``failed`` where no worker
            is left. Ctrl-C marks the runs ``stopped`` and is raised again.

        Raises:
            LatlutError: no worker could begin: says why each could not.
        """
        for number in self.workers:
            self._start(number)
        status = "failed"
        with ExitStack() as stack:
            try:
                self._serve(stack)
                status = self._status()
            except KeyboardInterrupt:
                status = "stopped"
                raise
            finally:
                if self._table is not None:
                    self._table.finish(status, time.monotonic() - self._began)
        if self._table is None:
            reasons = "\n".join(f"  {item.place}: {item.state}" for item in self.workers.values())
            raise LatlutError(f"no worker can measure:\n{reasons}")
        self.summary.status = status
        self.summary.seconds = {"total": time.monotonic() - self._began}
        return self.summary

    def _serve(self, stack: ExitStack) -> None:
        """Until all is measured, the budget is spent, or no worker is left."""
        while self._hand_out():
            is_idle = self._table is not None and self._table.has_costs_to_compute
            answers = self.pool.wait(0.0 if is_idle else 1.0)
            for number, answer in answers:
                if isinstance(answer, Hello):
                    self._greet(number, answer, stack)
                elif isinstance(answer, LeaseResult):
                    self._take(number, answer)
                else:
                    self._lose(number, answer)
            if not answers and self._table is not None:
                self._table.compute_a_cost()
            self._say_what_is_waited_for()

    def _hand_out(self) -> bool:
        """Give leases to idle workers; False where nothing more can come."""
        starting = [item for item in self.workers.values() if item.state == "starts"]
        if self._table is None:
            return bool(starting) and not self._is_over_budget()
        while self._idle and not self._is_over_budget():
            lease = self._book.next()
            if lease is None:
                break
            number = self._idle.pop(0)
            self._out[number] = lease
            self.pool.measure(number, lease, self._table.sentinels)
        if self._is_over_budget():
            return bool(self._out)
        if not self._book.open:
            self._judge_all()
        return self._book.open > 0 and bool(self._out or starting or self._idle)

    def _start(self, number: int) -> None:
        self.workers[number].state = "starts"
        self._starts[number] += 1
        self.pool.start(number)

    def _greet(self, number: int, hello: Hello, stack: ExitStack) -> None:
        worker = self.workers[number]
        worker.place = hello.place
        if self._table is None:
            self._table = stack.enter_context(self._open_table(hello.identity, hello))
            self._plan_work(self._table)
        if hello.version != __version__:
            self._send_away(number, f"it has latlut {hello.version}, this is {__version__}")
        elif differences := self._table.identity.differences(hello.identity):
            self._send_away(
                number, "of another identity (here: the table): " + "; ".join(differences)
            )
        else:
            worker.state = "measures"
            self._table.add_worker(number, hello)
            self._idle.append(number)

    def _plan_work(self, table: ClusterTable) -> None:
        settings = self.settings
        work = work_of(
            table.table, self.plan, Part(0, 1), settings.passes, settings.rebuilds, settings.seed
        )
        self._book = LeaseBook(work.missing, settings.group, settings.rebuilds)
        self.summary.reused = work.reused
        self._pace = Pace(table.usual_ms)

    def _take(self, number: int, result: LeaseResult) -> None:
        """Store what a worker measured, and judge the worker."""
        assert self._table is not None
        worker, lease = self.workers[number], self._out.pop(number)
        worker.leases, self._starts[number] = worker.leases + 1, 0
        self._idle.append(number)
        for spec, message in result.failures.items():
            self._fail(number, spec, message)
        again = self._to_measure_again(number, result)
        fresh = self._book.settle(
            lease.pass_index, [item.spec for item in result.found if item.spec not in again]
        )
        kept = [item for item in result.found if item.spec in fresh]
        requeues = {
            item.spec: self._requeues.get((lease.pass_index, item.spec), 0) for item in kept
        }
        self._table.store(number, result, kept, requeues)
        self._book.again(lease.pass_index, again)
        worker.measured += len(kept)
        self.summary.measured += len(kept)
        self.summary.requeued += len(again)
        self.summary.disturbed += len(kept) if is_disturbed(result.cpu_share) else 0
        before = self._book.total - self._book.open - len(kept)
        for done, item in enumerate(kept, before + 1):
            label = f"{worker.place} ({worker.measured}): {item.spec.key}"
            reading_ms = item.sampling.interval_ms.value
            self._listener(
                Progress(
                    done, self._book.total, lease.pass_index, label, reading_ms, result.cpu_share
                )
            )
        self._pace.add(number, result.readings)
        self._judge(number)

    def _to_measure_again(self, number: int, result: LeaseResult) -> list[OpSpec]:
        """What was taken while the machine was disturbed, by the rules of any sweep."""
        is_busy = is_disturbed(result.cpu_share)
        is_new = is_busy and number not in self._was_busy
        (self._was_busy.add if is_busy else self._was_busy.discard)(number)
        is_throttled = result.state is not None and bool(result.state.disturbances)
        if not (result.is_slow or is_throttled or is_new):
            return []
        index, again = result.lease.pass_index, []
        for item in result.found:
            if self._requeues.get((index, item.spec), 0) < MAX_REQUEUES:
                self._requeues[index, item.spec] = self._requeues.get((index, item.spec), 0) + 1
                again.append(item.spec)
        return again

    def _judge_all(self) -> None:
        """Before the end those that took too few leases are judged by what there is of them."""
        for number, worker in self.workers.items():
            if worker.state == "measures":
                self._judge(number, fewest=1)

    def _judge(self, number: int, fewest: int = FEWEST) -> None:
        """Send a slow worker away, and have measured again what it measured in this sweep."""
        assert self._table is not None
        worker = self.workers[number]
        worker.speed = self._pace.ratio(number, fewest)
        if worker.speed <= SLOW_DEVICE:
            return
        reason = (
            f"its reference operators take {worker.speed:.2f} times as long as on the other workers"
        )
        for index, specs in self._table.quarantine(number, reason).items():
            self._book.again(index, specs)
            worker.measured -= len(specs)
            self.summary.measured -= len(specs)
        self._pace.forget(number)
        if number in self._idle:
            self._idle.remove(number)
        self._send_away(number, f"in quarantine, {reason}")

    def _lose(self, number: int, lost: Lost) -> None:
        """A worker has ended: its lease goes back, and another takes its place."""
        worker, lease = self.workers[number], self._out.pop(number, None)
        self.pool.stop(number)
        if lease is not None:
            self._give_back(number, lease, lost)
        if lost.is_final or self._starts[number] >= MAX_STARTS:
            self._send_away(number, lost.reason)
        else:
            self._say(
                f"{worker.place}: {lost.reason}; its operator configurations go "
                "back, it is started again"
            )
            self._start(number)

    def _give_back(self, number: int, lease: Lease, lost: Lost) -> None:
        """The lease of a worker that ended is handed out again, without what ended the worker."""
        assert self._table is not None
        if lost.culprit in (*lease.specs, *self._table.sentinels):
            self._book.give_back(lease)
            self._fail(number, lost.culprit, lost.reason)
            self._starts[number] = 0  # the next one gets further
        elif lost.is_cut:
            self._book.give_back(lease)
        elif (culprit := self._book.take_back(lease)) is not None:
            self._fail(number, culprit, f"the process that measured it ended: {lost.reason}")

    def _fail(self, number: int, spec: OpSpec, message: str) -> None:
        assert self._table is not None
        self.summary.failed[spec.key] = message
        self._table.fail(number, spec, message)
        self._book.drop(spec)

    def _send_away(self, number: int, reason: str) -> None:
        self.workers[number].state = reason
        self.pool.stop(number)
        self._say(f"{self.workers[number].place} measures no more: {reason}")

    def _status(self) -> str:
        if self._table is None or self._book.open == 0:
            return "done"
        return "out of budget" if self._is_over_budget() else "failed"

    def _is_over_budget(self) -> bool:
        budget = self.settings.budget_s
        return budget is not None and time.monotonic() - self._began >= budget

    def _say_what_is_waited_for(self) -> None:
        if time.monotonic() - self._said < _SAY_EVERY_S:
            return
        self._said = time.monotonic()
        starting = [item.place for item in self.workers.values() if item.state == "starts"]
        if starting:
            self._say(f"waiting for {len(starting)} workers to begin, such as {starting[0]}")
