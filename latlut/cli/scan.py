"""``latlut scan``: latency as a function of one or two shape parameters, and its steps."""

from __future__ import annotations

from pathlib import Path

import click

from latlut.cli.choices import (
    device_options,
    mode_option,
    operators_option,
)
from latlut.cli.commands import Command
from latlut.cli.names import NEW_TABLE
from latlut.cli.options import (
    budget_option,
    csv_option,
    dry_run_option,
    plot_option,
    sweep_timeout_option,
    unchecked_option,
    wait_option,
)
from latlut.cli.output import (
    duration_text,
    json_option,
    note,
    quiet_option,
    remark,
    waiting,
)
from latlut.cli.profile_output import print_preview
from latlut.cli.progress import progress_bar
from latlut.cli.scan_output import print_scan, print_scan_json
from latlut.cli.sweeping import as_in_file, default_path, measurements_in, settings_of
from latlut.errors import LatlutError

#: Points that lack readings from which on a scan says how long it takes before it starts.
_MANY = 200


@click.command(cls=Command, shows_progress=True)
@click.argument("text", metavar="OPERATOR")
@device_options
@click.option(
    "--table", "table_path", type=NEW_TABLE, help="Table that keeps the entries.",
    show_default="profiles/TARGET-ENGINE-PRECISION.db",
)  # fmt: skip
@click.option(
    "--passes", type=click.IntRange(1, 100), default=3, show_default=True,
    help="Passes over the points.",
)  # fmt: skip
@budget_option
@sweep_timeout_option
@click.option(
    "--max-points", type=click.IntRange(1, 100_000), default=1000, show_default=True,
    help="Refuse ranges of more points.",
)  # fmt: skip
@csv_option("Write the points as CSV.")
@plot_option("Draw latency, intervals and steps, or a heat map of two parameters, into FILE")
@dry_run_option
@mode_option
@unchecked_option
@wait_option
@operators_option
@quiet_option
@json_option
def scan(
    text: str, gpu: str | None, cpu: bool, engine: str | None, precision: str, threads: int,
    engine_options: tuple[tuple[str, str], ...], table_path: Path | None, passes: int,
    budget: float | None, timeout_s: float, max_points: int, csv_path: Path | None,
    plot_path: Path | None, dry_run: bool, mode: str | None, unchecked: bool, wait: bool,
    operator_modules: tuple[str, ...], quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Latency as a function of one or two shape parameters, and where it jumps.

    OPERATOR has ranges {FROM..TO}, {FROM..TO..STEP} or lists {A,B,C} in place of numbers. Points
    are measured as `latlut profile` measures, into a table; those that it holds already are taken
    from there.

    \b
    latlut scan "conv 64->{32..128} at 64x128" --cpu --plot widths.png
    latlut scan "conv {c=32..128..8}->{c} at 64x128" --cpu        input and output alike
    latlut scan "conv {32,64,96}->{32..128..8} at 64x128" --cpu   two parameters
    latlut scan "conv 64->64 at {32..96}x128" --gpu 1080ti
    """
    from latlut.measure.ranges import parse_grid
    from latlut.measure.supervising import supervise

    grid = parse_grid(text)
    supervision = supervise(timeout_s or None, lambda said: remark(said, quiet))
    if isinstance(supervision, int):
        click.get_current_context().exit(supervision)

    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.measure.preview import preview
    from latlut.measure.profile import profile
    from latlut.measure.scan import plan_of_grid, read_scan, write_points
    from latlut.measure.sweep_settings import check_mode, identity_of
    from latlut.operators.own_modules import import_own_modules
    from latlut.table.table import LatencyTable

    import_own_modules(operator_modules)
    plan = plan_of_grid(grid)
    choice = DeviceChoice(gpu, cpu, engine, precision, threads, engine_options)
    choice, statistic, mode = as_in_file(choice, "p10", mode, table_path)
    target, chosen = choose_engine(choice)
    chosen.is_compared = not unchecked
    mode = mode or chosen.default_mode
    check_mode(chosen, mode)
    identity = identity_of(chosen, target.name, statistic=statistic, mode=mode)
    path = table_path or default_path(identity.file_stem, None)
    left_s = supervision.left_of(budget)
    settings = settings_of(statistic, 0.01, passes, left_s, 0, 1, path)
    is_large = grid.size > max_points
    found = None
    if dry_run or is_large or (grid.size >= _MANY and not supervision.failed):
        found = preview(plan, chosen, identity, path, settings, waiting=waiting(wait, quiet))
    lasts = "unknown" if found is None or found.seconds is None else duration_text(found.seconds)
    if dry_run and found is not None:
        print_preview(found, path, as_json)
        return
    if is_large:
        raise LatlutError(
            f"{text!r} names {grid.size} points, the limit is {max_points}; measuring them takes "
            f"{lasts}: use steps, {{32..128..8}}, or raise the limit with --max-points {grid.size}"
        )
    remark(
        f"{chosen.title} {chosen.version} on {chosen.device.model}, {chosen.precision}; "
        f"{grid.size} points, {settings.passes} passes -> {path}"
        + (f"; that takes about {lasts}" if found is not None and found.missing else ""),
        quiet or bool(supervision.failed),  # said by the process before
    )
    before = measurements_in(path)
    try:
        with progress_bar("scan", quiet) as listener:
            summary = profile(
                plan, chosen, target, path, settings, mode=mode, listener=listener,
                waiting=waiting(wait, quiet), supervision=supervision,
            )  # fmt: skip
    except KeyboardInterrupt:
        remark(
            f"stopped: {measurements_in(path) - before} new measurements are in {path}; "
            "the same command goes on from here",
        )
        raise
    with LatencyTable.open(path) as table:
        result = read_scan(table, grid)
    if csv_path is not None:
        write_points(result, csv_path)
    if plot_path is not None:
        from latlut.reports.scan import plot_scan

        own = f"{chosen.title} {chosen.version}, {chosen.precision}, {chosen.device.model}"
        plot_scan(result, own, plot_path)
    if as_json:
        print_scan_json(result, path, summary)
    else:
        print_scan(result, path, summary)
        for written in filter(None, (csv_path, plot_path)):
            note(f"written: {written}")
    if summary.failed:
        click.get_current_context().exit(1)
