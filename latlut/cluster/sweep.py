"""A sweep by workers, in a Ray cluster or reached by ssh, from a plan to a table's file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from latlut.cluster.driver import ClusterSweep, Pool, WorkerReport
from latlut.cluster.messages import Hello, WorkerJob, carried
from latlut.cluster.ray_pool import ray_pool
from latlut.cluster.ssh_connection import Host
from latlut.cluster.ssh_pool import ssh_pool
from latlut.cluster.store import ClusterTable
from latlut.engines import engine_class
from latlut.engines.choosing import DeviceChoice
from latlut.measure.plans import Plan
from latlut.measure.supervising import Supervision
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings
from latlut.operators.registry import check
from latlut.progress import Progress
from latlut.table.identity import Identity
from latlut.table.roofline import Roofline
from latlut.table.subgraphs import keep_pieces, require_graphs
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
    job = _job(choice, mode, settings, own_modules)
    with ray_pool(address, job, workers_per_node) as pool:
        return _sweep(plan, settings, pool, path_of, listener, say)


def sweep_on_hosts(
    plan: Plan,
    choice: DeviceChoice,
    settings: SweepSettings,
    hosts: Sequence[Host],
    path_of: Callable[[Identity], Path],
    *,
    python: str = "python3",
    timeout_s: float | None = None,
    own_modules: Sequence[str] = (),
    supervision: Supervision | None = None,
    listener: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> ClusterResult:
    """Measure what a table lacks of a plan on machines that are reached by ssh, one worker on each.

    Operators are measured standalone. Those of an engine that reads ONNX are built here, so that
    PyTorch need not be there.

    Args:
        plan, choice, settings, path_of, own_modules, listener, say: see ``sweep_on_ray``.
        hosts: the machines.
        python: the interpreter there.
        timeout_s: of one op spec in one pass.
        supervision: where to say which op spec is built here.

    Raises:
        LatlutError: asyncssh is missing, no worker can measure, or the table cannot be written.
    """
    # A builder's file is needed there only where modules are.
    needs_modules = not engine_class(engine_of(choice)).reads_onnx
    job = _job(choice, None, settings, own_modules if needs_modules else ())
    with ssh_pool(
        hosts, job, python=python, timeout_s=timeout_s, supervision=supervision,
        say=say or (lambda text: None),
    ) as pool:  # fmt: skip
        return _sweep(plan, settings, pool, path_of, listener, say)


def engine_of(choice: DeviceChoice) -> str:
    """The engine's name; the default of a GPU or CPU where none was asked for."""
    return choice.engine or ("tensorrt" if choice.gpu else "onnxruntime")


def _job(
    choice: DeviceChoice, mode: str | None, settings: SweepSettings, own_modules: Sequence[str]
) -> WorkerJob:
    return WorkerJob(
        choice.gpu, engine_of(choice), choice.precision, choice.threads,
        dict(choice.engine_options),
        mode, settings, carried(own_modules),
    )  # fmt: skip


def _sweep(
    plan: Plan,
    settings: SweepSettings,
    pool: Pool,
    path_of: Callable[[Identity], Path],
    listener: Callable[[Progress], None] | None,
    say: Callable[[str], None] | None,
) -> ClusterResult:
    for spec in plan.specs:
        check(spec)
    paths: list[Path] = []

    def open_table(identity: Identity, hello: Hello) -> ClusterTable:
        paths.append(path_of(identity))
        require_graphs(paths[0], plan.specs)
        table = LatencyTable.create(paths[0], identity)
        keep_pieces(table, plan.specs, plan.cut)
        floor_ms = hello.launch_floor_ms
        return ClusterTable(table, plan, settings, Roofline(*hello.peaks), floor_ms, uuid4().hex)

    sweep = ClusterSweep(plan, settings, pool, open_table, listener=listener, say=say)
    summary = sweep.run()
    return ClusterResult(paths[0], summary, tuple(sweep.workers.values()))
