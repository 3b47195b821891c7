"""A sweep on several devices of one model at once: one process per device, all into one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from latlut.engines import engine_class, run_environment
from latlut.errors import LatlutError
from latlut.machine.cpu import allowed_cpus
from latlut.machine.gpus import DetectedGpu
from latlut.measure.held_device import measuring_on
from latlut.measure.parts import Part, run_parts
from latlut.measure.plans import Plan
from latlut.measure.supervising import Supervision
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_report import SweepSummary, TotalProgress, joined
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.measure.worklist import work_of
from latlut.operators.own_modules import import_own_modules
from latlut.progress import Progress
from latlut.table.identity import Identity
from latlut.table.roofline import Roofline
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable


@dataclass(frozen=True)
class DeviceJob:
    """What every process of a sweep on several GPUs has to know."""

    gpus: tuple[DetectedGpu, ...]
    """One per part."""
    engine: str
    options: dict[str, str]
    """``engine``, ``options``: the engine's name and its options."""
    path: Path
    identity: Identity
    """``path``, ``identity``: of the table."""
    plan: Plan
    settings: SweepSettings
    roofline: Roofline
    """``plan``, ``settings``, ``roofline``: see ``Sweep``."""
    own_modules: tuple[str, ...]
    """Files that register operators of one's own."""
    sweep_id: str
    """What the runs of all parts have in common."""
    timeout_s: float | None = None
    """Of one op spec in one pass; None for no limit."""


def measure_part(
    job: DeviceJob, index: int, report: Callable[[Progress], None], supervision: Supervision
) -> SweepSummary:
    """One process: its GPU by UUID, that GPU's lock, CPUs of its own, its part of the plan."""
    import_own_modules(job.own_modules)
    own = job.identity
    environment = run_environment()
    engine = engine_class(job.engine)(own.threads, own.precision, job.gpus[index].uuid, job.options)
    part = Part(index, len(job.gpus))
    with measuring_on(engine, part), LatencyTable.open(job.path, is_writable=True) as table:
        mode, statistic = own.mode, own.statistic
        table.check_identity(identity_of(engine, own.target, statistic=statistic, mode=mode))
        return Sweep(
            table,
            job.plan,
            engine,
            replace(job.settings, budget_s=supervision.left_of(job.settings.budget_s)),
            roofline=job.roofline,
            listener=report,
            environment=environment,
            part=part,
            sweep_id=job.sweep_id,
            supervision=supervision,
        ).run()


def sweep_on_devices(
    table: LatencyTable,
    job: DeviceJob,
    listener: Callable[[Progress], None],
    say: Callable[[str], None] | None = None,
) -> tuple[SweepSummary, list[str]]:
    """Run a job's parts in parallel.

    Args:
        table: the job's, writable.
        job: what to measure, on which devices.
        listener: told of all parts together.
        say: told of each process that died, and of the op spec that it died in.

    Returns:
        What all parts did together, and one message per part that failed.

    Raises:
        KeyboardInterrupt: Ctrl-C; every part has stored what it measured.
        LatlutError: more processes than CPUs.
    """
    count, threads = len(job.gpus), job.identity.threads
    if count * threads > len(allowed_cpus()):
        raise LatlutError(
            f"{count} devices with {threads} thread{'s' if threads > 1 else ''} each need "
            f"{count * threads} CPUs, this process may use {len(allowed_cpus())}: name fewer "
            "with --devices"
        )
    settings = job.settings
    totals = [
        work_of(
            table, job.plan, Part(i, count), settings.passes, settings.rebuilds, settings.seed
        ).total
        for i in range(count)
    ]
    names = [f"GPU {gpu.index} ({gpu.name}, {gpu.uuid})" for gpu in job.gpus]
    results = run_parts(
        names,
        partial(measure_part, job),
        TotalProgress(totals, listener),
        timeout_s=job.timeout_s,
        say=say,
    )
    summarise(table)
    errors = [
        f"part {index + 1} of {count} on {result.name} failed: {result.error}"
        for index, result in enumerate(results)
        if result.error
    ]
    summary = joined([item.value for item in results if isinstance(item.value, SweepSummary)])
    if errors:
        summary.status = "failed"
    return summary, errors
