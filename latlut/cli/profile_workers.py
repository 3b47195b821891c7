"""``latlut profile`` by workers, ``--ray`` and ``--remote``: what the command says of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import is_left_open
from latlut.cli.output import remark
from latlut.cli.progress import progress_bar
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.cluster.sweep import ClusterResult
    from latlut.engines.choosing import DeviceChoice
    from latlut.measure.plans import Plan
    from latlut.measure.sweep_settings import SweepSettings

#: Option -> why it does not go with it, by the option that names the workers.
_NOT_BESIDE = {
    "ray": {
        "devices": "--ray shares the plan out by itself",
        "shard": "--ray shares the plan out by itself",
        "wait": "--ray does not wait for a device",
        "dry_run": "--dry-run looks at one device of this machine",
        "unchecked": "--unchecked is for one device",
        "remote_python": "--remote-python is for --remote",
    },
    "remote": {
        "devices": "--remote takes one device of each machine",
        "shard": "--remote shares the plan out by itself",
        "wait": "--remote does not wait for a device",
        "dry_run": "--dry-run looks at one device of this machine",
        "unchecked": "--unchecked is for this machine",
        "address": "--ray and --remote exclude each other",
        "workers": "--workers is for --ray",
    },
}


def check_beside(option: str, choice: DeviceChoice, mode: str | None) -> None:
    """Refuse, with LatlutError, what does not go with ``ray`` or ``remote``."""
    if not (choice.gpu or choice.cpu):
        raise LatlutError(f"--{option} needs to know what to measure on: name --gpu NAME or --cpu")
    for name, reason in _NOT_BESIDE[option].items():
        if not is_left_open(name):
            flag = "ray" if name == "address" else name.replace("_", "-")
            raise LatlutError(f"{reason}: leave --{flag} out")
    if option == "remote" and mode == "in-context":
        raise LatlutError("--remote measures standalone: leave --mode out")
    if option == "remote" and choice.gpu and "." in choice.gpu:
        raise LatlutError("--remote takes a GPU's name: the file of a target is on this machine")


def profile_by_workers(
    where: str,
    choice: DeviceChoice,
    plan: Plan,
    settings: SweepSettings,
    sweep: Callable[..., ClusterResult],
    report: Callable[..., None],
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a sweep by workers and say how it went, worker by worker.

    Args:
        where: the workers are, for people.
        sweep: takes ``listener`` and ``say``.
        report: prints (table, plan, summary, whether as JSON, the workers as mappings).
    """
    from latlut.table.table import LatencyTable

    remark(
        f"{where}, {choice.gpu or 'CPU'} workers; plan {plan.name} with {len(plan.specs)} operator "
        f"configurations, {settings.passes} passes",
        quiet,
    )
    try:
        with progress_bar("profile", quiet) as listener:
            result = sweep(listener=listener, say=lambda text: remark(text, quiet))
    except KeyboardInterrupt:
        remark("stopped: what was measured is in the table; the same command continues from here")
        raise
    for worker in result.workers:
        remark(
            f"{worker.place}: {worker.measured} readings in {worker.leases} leases, "
            f"{worker.speed:.3f} times as long as on the other workers; {worker.state}",
            quiet,
        )
    if result.summary.status == "failed":
        click.echo("no worker is left that can measure", err=True)
        remark("the same command continues with what is missing")
    with LatencyTable.open(result.path) as table:
        report(table, plan, result.summary, as_json, [vars(item) for item in result.workers])
    if result.summary.failed or result.summary.status == "failed":
        click.get_current_context().exit(1)
