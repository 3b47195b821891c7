"""A sweep on the devices of a Ray cluster, from a plan to a table's file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from latlut.cluster.driver import ClusterSweep, WorkerReport
from latlut.cluster.messages import Hello, WorkerJob, carried
from latlut.cluster.ray_pool import ray_pool
from latlut.cluster.store import ClusterTable
from latlut.engines.choosing import DeviceChoice
from latlut.errors import UnknownNameError
from latlut.machine.targets import cpu_target, load_target
from latlut.measure.plans import Plan
from latlut.measure.sweep import SweepSettings
from latlut.measure.sweep_report import SweepSummary
from latlut.operators.registry import check
from latlut.progress import Progress
from latlut.table.identity import Identity
from latlut.table.roofline import Roofline
from latlut.table.table import LatencyTable


@dataclass(frozen=True)
class ClusterResult:
    """How a sweep on a cluster ended: the table's file, what was done, how each worker fared."""

    path: Path
    summary: SweepSummary
    workers: tuple[WorkerReport, ...]


def sweep_on_ray(
    plan: Plan,
    choice: DeviceChoice,
    settings: SweepSettings,
    address: str,
    path_of: Callable[[Identity], Path],
    *,
    mode: str | None = None,
    workers_per_node: int | None = None,
    own_modules: Sequence[str] = (),
    listener: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> ClusterResult:
    """Measure what a table lacks of a plan, on all devices of a Ray cluster that are meant.

    Args:
        plan: what to measure.
        choice: GPU or CPU, engine (``tensorrt`` or ``onnxruntime`` if not named) and its options.
        settings: passes, budget, timing, op specs per lease.
        address: see ``ray_pool``.
        path_of: the table's file, given the identity of the first worker.
        mode: how operators are isolated; the engine's default if not given.
        workers_per_node: one per GPU, or one per node of CPUs, if not given.
        own_modules: what ``--operators`` named, imported here already; files go to the workers.
        listener: told of each reading.
        say: told of workers that come, end or are sent away.

    Raises:
        LatlutError: Ray or the cluster is missing, no worker can measure, or the table cannot be
            written.
    """
    for spec in plan.specs:
        check(spec)
    engine = choice.engine or ("tensorrt" if choice.gpu else "onnxruntime")
    paths: list[Path] = []

    def open_table(identity: Identity, hello: Hello) -> ClusterTable:
        paths.append(path_of(identity))
        table = LatencyTable.create(paths[0], identity)
        roofline = _roofline(choice, hello.arithmetic)
        return ClusterTable(table, plan, settings, roofline, hello.launch_floor_ms, uuid4().hex)

    job = WorkerJob(
        choice.gpu, engine, choice.precision, choice.threads, dict(choice.engine_options), mode,
        settings, carried(own_modules),
    )  # fmt: skip
    with ExitStack() as stack:
        pool = stack.enter_context(ray_pool(address, job, workers_per_node))
        sweep = ClusterSweep(plan, settings, pool, open_table, listener=listener, say=say)
        summary = sweep.run()
    return ClusterResult(paths[0], summary, tuple(sweep.workers.values()))


def _roofline(choice: DeviceChoice, arithmetic: str) -> Roofline:
    """The target's peak figures; of a GPU that no target describes none are known."""
    try:
        target = load_target(choice.gpu) if choice.gpu else cpu_target(choice.threads)
    except UnknownNameError:
        return Roofline()
    return Roofline(
        target.peak_flops_per_s(arithmetic),
        target.bandwidth_bytes_per_s,
        target.cache_bandwidth_bytes_per_s,
    )
