"""What the driver writes: a run per worker, a pass per opening of its sentinels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from latlut.cluster.messages import Hello, LeaseResult
from latlut.engines import run_environment
from latlut.errors import OperatorError
from latlut.measure.groups import TimedSpec
from latlut.measure.plans import Plan
from latlut.measure.sentinels import choose_sentinels
from latlut.measure.sweep_settings import SweepSettings
from latlut.measure.worklist import table_sentinels
from latlut.operators.building import cost
from latlut.operators.own_modules import imported_own_modules
from latlut.opspec import OpSpec, unique
from latlut.table import history, recording
from latlut.table.identity import Identity
from latlut.table.recording import Measurement, SpecFacts
from latlut.table.roofline import Roofline, set_bounds
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable


class ClusterTable:
    """The table of a sweep by workers. A context manager; it closes the table.

    Args:
        table: writable.
        plan, settings: of the sweep.
        roofline: the target's peak figures.
        launch_floor_ms: what an empty kernel takes, None where nothing says.
        sweep_id: what the runs of all workers have in common.

    Attributes:
        sentinels: op specs that all workers time beside their leases.
        usual_ms: what they took in earlier runs.
    """

    def __init__(
        self,
        table: LatencyTable,
        plan: Plan,
        settings: SweepSettings,
        roofline: Roofline,
        launch_floor_ms: float | None,
        sweep_id: str,
    ) -> None:
        self.table, self._plan, self._settings, self._sweep_id = table, plan, settings, sweep_id
        self.failed: set[OpSpec] = set()
        self.sentinels = table_sentinels(table) or choose_sentinels(plan.specs, settings.sentinels)
        self.usual_ms = history.usual_sentinels(table)
        self._ids = recording.add_op_specs(table, unique([*plan.specs, *self.sentinels]))
        set_bounds(table, roofline, launch_floor_ms)
        recording.keep_own_modules(table, imported_own_modules())
        known = history.keys_of_known_cost(table)
        self._without_cost = [spec for spec in plan.specs if spec.key not in known]
        self._hellos: dict[int, Hello] = {}
        self._runs: dict[int, list[int]] = {}
        self._passes: dict[tuple[int, int], int] = {}
        self._stored: dict[int, dict[int, list[OpSpec]]] = {}
        here = run_environment()
        self._driver = {name: here.get(name) for name in ("host", "boot_id", "process_id")}

    def __enter__(self) -> ClusterTable:
        return self

    def __exit__(self, *_: object) -> None:
        self.table.close()

    @property
    def identity(self) -> Identity:
        """The table's."""
        return self.table.identity

    @property
    def has_costs_to_compute(self) -> bool:
        """Whether the cost of some op specs is not known yet."""
        return bool(self._without_cost)

    def compute_a_cost(self) -> None:
        """Store the multiply-adds of one op spec; done while workers measure."""
        if not self._without_cost:
            return
        spec = self._without_cost.pop()
        with suppress(OperatorError):  # it fails as an entry, too, and is reported there
            found = cost(spec)
            facts = SpecFacts(found.macs, found.params, found.moved_bytes)
            recording.add_facts(self.table, {self._ids[spec.key]: facts})

    def add_worker(self, number: int, hello: Hello) -> None:
        """Begin a worker's run."""
        self._hellos[number] = hello
        run_id = recording.start_run(
            self.table,
            "profile",
            settings=self._settings.to_dict()
            | {"sweep": self._sweep_id, "device": hello.device, "place": hello.place}
            | {"driver": self._driver},
            environment=hello.environment,
            plan=self._plan.name,
            plan_hash=self._plan.hash,
            space=self._plan.space,
        )
        self._runs.setdefault(number, []).append(run_id)
        if hello.state is not None:
            recording.add_gpu_state(self.table, run_id, "before", hello.state)

    def store(
        self,
        number: int,
        result: LeaseResult,
        kept: Sequence[TimedSpec],
        requeues: Mapping[OpSpec, int],
    ) -> None:
        """Store what a worker measured, and what its sentinels read beside it."""
        index, run_id = result.lease.pass_index, self._runs[number][-1]
        key = (run_id, result.opening)
        if key not in self._passes:
            device = self._hellos[number].device
            self._passes[key] = recording.start_pass(self.table, run_id, index, device)
        pass_id = self._passes[key]
        measurements = [
            Measurement(
                item.spec,
                item.sampling,
                result.group,
                requeues[item.spec],
                item.parity,
                result.lease.build,
                result.cpu_share,
            )
            for item in kept
        ]
        recording.add_measurements(self.table, pass_id, self._ids, measurements, result.readings)
        if result.state is not None:
            recording.add_gpu_state(
                self.table, run_id, "group", result.state, pass_id, result.group
            )
        of_pass = self._stored.setdefault(number, {}).setdefault(index, [])
        of_pass += [item.spec for item in kept]

    def fail(self, number: int, spec: OpSpec, message: str) -> None:
        """Record that an op spec could not be measured; it serves as a sentinel no more."""
        run_id = self._runs[number][-1]
        recording.add_failure(self.table, run_id, self._ids[spec.key], message)
        self.failed.add(spec)
        if spec in self.sentinels:
            left = [item for item in self._plan.specs if item not in self.failed]
            kept = [item for item in self.sentinels if item != spec]
            self.sentinels = tuple(kept or choose_sentinels(left, self._settings.sentinels))

    def quarantine(self, number: int, reason: str) -> dict[int, list[OpSpec]]:
        """Keep what a worker measured in this sweep out of the entries; gives it, pass by pass."""
        runs = self._runs[number]
        passes = [pass_id for (run_id, _), pass_id in self._passes.items() if run_id in runs]
        recording.quarantine(self.table, passes, reason)
        return self._stored.pop(number, {})

    def finish(self, status: str, seconds: float) -> None:
        """Compute the entries and end all runs."""
        while self._without_cost and status == "done":
            self.compute_a_cost()
        summarise(self.table)
        here = run_environment()
        for number, runs in self._runs.items():
            # How another machine ends is not known here.
            is_here = self._hellos[number].environment.get("host") == here["host"]
            for run_id in runs:
                recording.end_run(
                    self.table, run_id, status, seconds={"total": seconds},
                    environment=here if is_here else None,
                )  # fmt: skip
