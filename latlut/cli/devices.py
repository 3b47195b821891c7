"""``latlut profile --devices``: one process per GPU, all into one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.output import progress_bar, remark
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.machine.gpus import DetectedGpu
    from latlut.measure.plans import Plan
    from latlut.measure.sweep import SweepSettings
    from latlut.progress import Progress, SweepSummary
    from latlut.table.identity import Identity
    from latlut.table.roofline import Roofline
    from latlut.table.table import LatencyTable


class DeviceListType(click.ParamType[tuple[int, ...]]):
    """Numbers of GPUs, 0,1,2."""

    name = "N,N,..."

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The numbers, in order."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",")]
        if not all(word.isdecimal() for word in words):
            self.fail(f"{value!r} is no list of GPUs, such as 0,1,2,3", param, ctx)
        return tuple(int(word) for word in words)


@dataclass(frozen=True)
class DeviceJob:
    """What every process of a sweep on several GPUs has to know; ``gpus`` has one per part."""

    gpus: tuple[DetectedGpu, ...]
    engine: str
    options: dict[str, str]
    path: Path
    identity: Identity
    plan: Plan
    settings: SweepSettings
    roofline: Roofline
    operator_modules: tuple[str, ...]
    sweep_id: str


def measure_part(job: DeviceJob, index: int, report: Callable[[Progress], None]) -> SweepSummary:
    """One process: its GPU by UUID, that GPU's lock, CPUs of its own, its part of the plan."""
    from latlut.cli.choices import import_operators
    from latlut.engines import engine_class
    from latlut.machine.provenance import collect_environment
    from latlut.measure.held_device import measuring_on
    from latlut.measure.parts import Part
    from latlut.measure.sweep import Sweep, identity_of
    from latlut.table.table import LatencyTable

    import_operators(job.operator_modules)
    own = job.identity
    environment = collect_environment()
    engine = engine_class(job.engine)(own.threads, own.precision, job.gpus[index].uuid, job.options)
    part = Part(index, len(job.gpus))
    with measuring_on(engine, part), LatencyTable.open(job.path, is_writable=True) as table:
        mode, statistic = own.mode, own.statistic
        table.check_identity(identity_of(engine, own.target, statistic=statistic, mode=mode))
        return Sweep(
            table,
            job.plan,
            engine,
            job.settings,
            roofline=job.roofline,
            listener=report,
            environment=environment,
            part=part,
            sweep_id=job.sweep_id,
        ).run()


def sweep_on_devices(
    table: LatencyTable, job: DeviceJob, is_quiet: bool
) -> tuple[SweepSummary, list[str]]:
    """Run a job's parts in parallel.

    Returns:
        What all parts did together, and one message per part that failed.

    Raises:
        KeyboardInterrupt: Ctrl-C; every part has stored what it measured.
        LatlutError: more processes than CPUs.
    """
    from latlut.machine.provenance import allowed_cpus
    from latlut.measure.parts import Part, run_parts
    from latlut.measure.worklist import work_of
    from latlut.progress import SweepSummary, TotalProgress, joined
    from latlut.table.summary import summarise

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
    with progress_bar("profile", is_quiet) as listener:
        results = run_parts(names, partial(measure_part, job), TotalProgress(totals, listener))
    summarise(table)
    errors = [
        f"part {index + 1} of {count} on {result.name} failed: {result.error}"
        for index, result in enumerate(results)
        if result.error
    ]
    done = [result.value for result in results if isinstance(result.value, SweepSummary)]
    summary = joined(done)
    if errors:
        summary.status = "failed"
        remark("\n".join([*errors, "the same command goes on with what is missing"]))
    return summary, errors
