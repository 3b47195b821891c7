"""``latlut profile``: measure a plan's operators into a latency table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.choices import (
    DeviceChoice,
    DurationType,
    FractionType,
    SizeType,
    as_in_table,
    choose_engine,
    device_options,
    import_operators,
    is_left_open,
    operators_option,
)
from latlut.cli.output import json_option, print_json, progress_bar, quiet_option, remark
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.plans import Plan
    from latlut.profiler import SweepSummary
    from latlut.table import LatencyTable


@click.command()
@device_options
@click.option("--plan", metavar="NAME|FILE", help="Shipped plan or TOML file [fasterseg].")
@click.option(
    "--op",
    "ops",
    multiple=True,
    metavar="SPEC",
    help='One op spec, e.g. "conv 64->96 stride 1 at 128x256"; may be repeated.',
)
@click.option("--input", "input_size", type=SizeType(), help="Image size, e.g. 256x512.")
@click.option("--batch", type=int, help="Images per inference.")
@click.option(
    "--table",
    "table_path",
    type=click.Path(path_type=Path),
    help="Table file [profiles/<target>-<engine>-<precision>.db].",
)
@click.option(
    "--passes",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    help="Passes over the plan; fewer than 3 leave intervals unknown or wide.",
)
@click.option(
    "--ci",
    type=FractionType(),
    default=0.01,
    show_default=True,
    help="Half-width of an op's interval within a pass that ends sampling early.",
)
@click.option(
    "--statistic",
    default="p10",
    show_default=True,
    help="What a reading is of its samples: min, p10, p25 or median.",
)
@click.option(
    "--budget", type=DurationType(), help="Stop after this time, e.g. 10m; goes on later."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random order.")
@operators_option
@quiet_option
@json_option
def profile(
    gpu: str | None, cpu: bool, engine: str | None, precision: str, threads: int,
    plan: str | None, ops: tuple[str, ...], input_size: tuple[int, int] | None, batch: int | None,
    table_path: Path | None, passes: int, ci: float, statistic: str, budget: float | None,
    seed: int, operator_modules: tuple[str, ...], quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure every operator of a plan into a latency table.

    Runs several short passes in random order. Ctrl-C stops it; the same command goes on where it
    was. With no choice of device made, the best engine that works on this machine is used.

    \b
    latlut profile --cpu --input 256x512             the whole FasterSeg space on this CPU
    latlut profile --gpu 1080ti                      on a GPU, through TensorRT
    latlut profile --cpu --op "conv 64->96 stride 1 at 128x256"
    """
    choice = DeviceChoice(gpu, cpu, engine, precision, threads)
    if table_path is not None and table_path.exists():
        from latlut.table import LatencyTable

        with LatencyTable.open(table_path) as existing:
            own = existing.identity
        choice = as_in_table(choice, own)
        statistic = own.statistic if is_left_open("statistic") else statistic
    target, chosen = choose_engine(choice)
    import_operators(operator_modules)

    from latlut.environment import collect_environment
    from latlut.measuring import measuring_on
    from latlut.profiler import Sweep, SweepSettings, identity_of
    from latlut.stats import check_statistic
    from latlut.summary import Roofline
    from latlut.table import LatencyTable
    from latlut.timing import TimingSettings

    settings = SweepSettings(
        timing=TimingSettings(statistic=check_statistic(statistic), ci=ci),
        passes=passes,
        budget_s=budget,
        seed=seed,
    )
    wanted = _plan(plan, ops, input_size, batch)
    identity = identity_of(chosen, target.name, statistic=statistic)
    path = table_path or _default_path(identity.file_stem, batch)
    roofline = Roofline(
        target.peak_flops_per_s(precision),
        target.bandwidth_bytes_per_s,
        target.cache_bandwidth_bytes_per_s,
    )
    remark(
        f"{chosen.title} {chosen.version} on {chosen.device.model}, {precision}, "
        f"{threads} thread{'s' if threads > 1 else ''}; plan {wanted.name} with "
        f"{len(wanted.specs)} op specs, {passes} passes -> {path}",
        quiet,
    )
    from latlut import operators

    for spec in wanted.specs:
        operators.check(spec)
    environment = collect_environment()
    with measuring_on(chosen), LatencyTable.create(path, identity) as table:
        with progress_bar("profile", quiet) as listener:
            sweep = Sweep(
                table,
                wanted,
                chosen,
                settings,
                roofline=roofline,
                listener=listener,
                environment=environment,
            )
            try:
                summary = sweep.run()
            except KeyboardInterrupt:
                remark(
                    f"stopped: {sweep.summary.measured} new measurements are in {path}; "
                    "the same command goes on from here",
                )
                raise
        _report(table, wanted, summary, as_json)
    if summary.failed:
        click.get_current_context().exit(1)


def _plan(
    plan: str | None,
    ops: tuple[str, ...],
    input_size: tuple[int, int] | None,
    batch: int | None,
) -> Plan:
    from latlut.plans import load_plan, plan_from_ops

    if ops and plan:
        raise LatlutError("--op and --plan exclude each other: put the op specs into the plan file")
    if ops and input_size:
        raise LatlutError("--op names its own size: leave --input out")
    if ops:
        return plan_from_ops(ops, batch)
    return load_plan(plan or "fasterseg", input_size, batch)


def _default_path(stem: str, batch: int | None) -> Path:
    suffix = f"-batch{batch}" if batch not in (None, 1) else ""
    return Path("profiles") / f"{stem}{suffix}.db"


def _report(table: LatencyTable, plan: Plan, summary: SweepSummary, as_json: bool) -> None:
    from latlut.profiler import plan_coverage

    coverage = plan_coverage(table, plan)
    facts: dict[str, Any] = {
        "table": str(table.path),
        "status": summary.status,
        "op_specs": len(plan.specs),
        "entries": coverage.entries,
        "median_ci_percent": coverage.median_ci_percent,
        "p95_ci_percent": coverage.p95_ci_percent,
        "shared_error_percent": 100 * table.shared_error,
        "measured": summary.measured,
        "reused": summary.reused,
        "requeued": summary.requeued,
        "failed": summary.failed,
        "seconds": {name: round(value, 2) for name, value in summary.seconds.items()},
        "overhead_percent": round(100 * summary.overhead_fraction, 1),
    }
    if as_json:
        print_json(facts)
        return
    click.echo(
        f"{coverage.entries} of {len(plan.specs)} op specs have an entry in {table.path} "
        f"({summary.status}, {summary.seconds['total']:.0f} s, "
        f"{summary.measured} new measurements, {summary.requeued} repeated)"
    )
    if coverage.median_ci_percent is not None:
        click.echo(
            f"95% interval of an entry: ±{coverage.median_ci_percent:.1f}% (median), "
            f"±{coverage.p95_ci_percent:.1f}% (95% of them); of that ±"
            f"{100 * table.shared_error:.1f}% is shared by all"
        )
    for key, message in summary.failed.items():
        click.echo(f"failed: {key}: {message}")
    if summary.status == "out of budget":
        click.echo("the budget is spent; the same command goes on from here")
    else:
        click.echo(f"how far to trust it: latlut validate --table {table.path}")
