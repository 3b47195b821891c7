"""``latlut profile --ray``: what the command says of a sweep by workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import is_left_open
from latlut.cli.output import progress_bar, remark
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.engines.choosing import DeviceChoice
    from latlut.measure.plans import Plan
    from latlut.measure.sweep import SweepSettings
    from latlut.table.identity import Identity


def profile_on_ray(
    address: str,
    choice: DeviceChoice,
    plan: Plan,
    settings: SweepSettings,
    path_of: Callable[[Identity], Path],
    report: Callable[..., None],
    *,
    mode: str | None,
    workers: int | None,
    own_modules: Sequence[str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Run ``cluster.sweep.sweep_on_ray`` and say how it went, worker by worker.

    Args:
        report: prints (table, plan, summary, whether as JSON, the workers as mappings).
    """
    from latlut.cluster.sweep import sweep_on_ray
    from latlut.table.table import LatencyTable

    if not (choice.gpu or choice.cpu):
        raise LatlutError("--ray needs to know what to measure on: name --gpu NAME or --cpu")
    beside = [name for name in ("devices", "shard", "wait") if not is_left_open(name)]
    if beside:
        raise LatlutError(f"--ray shares the plan out by itself: leave --{beside[0]} out")
    remark(
        f"Ray {address}, {choice.gpu or 'CPU'} workers; plan {plan.name} with {len(plan.specs)} op "
        f"specs, {settings.passes} passes",
        quiet,
    )
    try:
        with progress_bar("profile", quiet) as listener:
            result = sweep_on_ray(
                plan, choice, settings, address, path_of, mode=mode, workers_per_node=workers,
                own_modules=own_modules, listener=listener, say=lambda text: remark(text, quiet),
            )  # fmt: skip
    except KeyboardInterrupt:
        remark("stopped: what was measured is in the table; the same command goes on from here")
        raise
    for worker in result.workers:
        remark(
            f"{worker.place}: {worker.measured} readings in {worker.leases} leases, "
            f"{worker.speed:.3f} times as slow as the others; {worker.state}",
            quiet,
        )
    if result.summary.status == "failed":
        remark("no worker is left that can measure; the same command goes on with what is missing")
    with LatencyTable.open(result.path) as table:
        report(table, plan, result.summary, as_json, [vars(item) for item in result.workers])
    if result.summary.failed or result.summary.status == "failed":
        click.get_current_context().exit(1)
