"""``latlut validate``: measure whole networks and compare them with the table's estimates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import (
    as_in_table,
    device_options,
    is_left_open,
    operators_option,
    space_option,
)
from latlut.cli.commands import Command
from latlut.cli.names import TABLE
from latlut.cli.onnx import Shapes, check_files, cut_as_in, networks_of, onnx_options
from latlut.cli.options import (
    batch_option,
    input_option,
    plan_option,
    plot_option,
    seed_option,
    unchecked_option,
    wait_option,
)
from latlut.cli.output import (
    counted,
    details_option,
    json_option,
    note,
    print_json,
    quiet_option,
    remark,
    remark_predictions,
    waiting,
)
from latlut.cli.progress import progress_bar
from latlut.errors import LatlutError, UnknownNameError

if TYPE_CHECKING:
    from latlut.validation.validate import Validation


@click.command(cls=Command, shows_progress=True)
@device_options
@click.option(
    "--table", "table_name", type=TABLE, help="Table to validate.",
    show_default="the only one in ./profiles",
)  # fmt: skip
@click.option(
    "--networks", type=click.IntRange(3, 10000), default=60, show_default=True,
    help="Number of random networks to measure.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True,
    help="Rounds over all networks in each of the two passes.",
)  # fmt: skip
@seed_option("Random seed of the networks.", default=0, show_default=True)
@plan_option("Plan whose search space to sample networks from.")
@onnx_options
@click.option(
    "--family", metavar="NAME", help="Family of the ONNX files.",
    show_default="first word of each file's name",
)  # fmt: skip
@space_option
@input_option(show_default="the table's latest")
@batch_option("Images per inference, of ONNX files that leave it open.", show_default="1")
@plot_option("Draw estimates against measurements into FILE", "beside the table")
@click.option(
    "--explain", "explained", type=click.IntRange(0, 100), default=3, show_default=True,
    metavar="N", help="Run the N worst estimates layer by layer and explain their errors.",
)  # fmt: skip
@click.option(
    "--min-r", type=click.FloatRange(-1, 1), help="Exit with code 1 if Pearson's r is below this."
)
@details_option
@unchecked_option
@wait_option
@operators_option
@quiet_option
@json_option
def validate(
    gpu: str | None, cpu: bool, engine: str | None, precision: str, threads: int,
    engine_options: tuple[tuple[str, str], ...],
    table_name: str | None, networks: int, rounds: int, seed: int, plan: str | None,
    space_file: str | None, is_onnx: bool, files: tuple[Path, ...], shapes: Shapes,
    family: str | None, input_size: tuple[int, int] | None, batch: int | None,
    plot_path: Path | None, explained: int, min_r: float | None, details: bool, unchecked: bool,
    wait: bool,
    operator_modules: tuple[str, ...], quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure whole networks and compare them with the table's estimates.

    The networks are random ones of the table's search space, or the files that --onnx names. Each
    is measured twice, far apart in time, which gives the noise limit: what no estimate can beat. If
    the table has a calibration, both the plain sum and the calibrated estimate are shown. It ends
    with the verdict of `latlut table check`. Engine, precision and threads are the table's by
    default.

    \b
    latlut validate --table profiles/cpu-onnxruntime-fp32.db
    latlut validate --table profiles/cpu-onnxruntime-fp32.db --onnx networks/*.onnx
    """
    from latlut.cli.residuals import (
        composition_as_json,
        plot,
        print_composition,
        print_validation,
    )
    from latlut.engines.choosing import DeviceChoice, choose_engine
    from latlut.files.writing import check_writable
    from latlut.measure.held_device import measuring_on
    from latlut.measure.space_to_use import space_to_use
    from latlut.measure.sweep_settings import identity_of
    from latlut.operators.own_modules import import_own_modules
    from latlut.spaces.own import own_space
    from latlut.table.table import LatencyTable
    from latlut.validation.explain import explain
    from latlut.validation.validate import ValidationSettings, store
    from latlut.validation.validate import validate as run
    from latlut.validation.verdict import check

    check_files(files, is_onnx, shapes)
    if is_onnx and (plan or space_file):
        raise LatlutError("--onnx names the networks: leave --plan and --space out")
    if batch and not is_onnx:
        raise LatlutError("--batch is for ONNX files: networks of a space have the table's batch")
    if is_onnx and not is_left_open("networks"):
        raise LatlutError("--onnx measures each of its files: leave --networks out")
    import_own_modules(operator_modules)
    own_one = own_space(space_file) if space_file else None
    name = table_name or _only_table()
    with LatencyTable.open(name) as table:
        own = table.identity
        remark_predictions(table, quiet)
    choice = DeviceChoice(gpu, cpu, engine, precision, threads, engine_options)
    target, chosen = choose_engine(as_in_table(choice, own))
    chosen.is_compared = not unchecked
    settings = ValidationSettings(networks=networks, rounds=rounds, seed=seed)
    with LatencyTable.open(name, is_writable=True) as table:
        table.check_identity(
            identity_of(chosen, target.name, mode=own.mode, statistic=own.statistic)
        )
        if is_onnx:
            from latlut.measure.onnx_plans import read_files
            from latlut.table.space import files_as_space

            workloads = read_files(files, input_size, batch, dict(shapes))
            found_files = networks_of(cut_as_in(table, workloads), workloads, family)
            where, explained = files_as_space(found_files), 0
            settings = replace(settings, networks=len(found_files))
            called = counted(len(found_files), "ONNX file")
        else:
            where = space_to_use(table, plan, input_size, own_one)
            called = f"{counted(networks, 'random network')} at {where.size_text}"
        path = plot_path or table.path.with_name(f"{table.path.stem}-validation.png")
        check_writable(path)
        remark(
            f"{called} on {chosen.title} {chosen.version}, 2 passes of {counted(rounds, 'round')}",
            quiet,
        )
        held = measuring_on(chosen, waiting=waiting(wait, quiet))
        with held, progress_bar("validate", quiet) as listener:
            found = run(table, chosen, where, settings, listener=listener)
            store(table, found, settings, where)
            worst = explain(
                table, chosen, found, where, explained, lambda text: remark(text, quiet)
            )
        plot(table, found, where, path)
        judged = check(table)
        if as_json:
            content = _as_json(found, str(table.path), str(path))
            content |= {"composition": composition_as_json(worst), "verdict": judged.sentence}
            print_json(content)
        else:
            print_validation(found, str(table.path), str(path), has_details=details)
            print_composition(worst, has_details=details)
            if not details:
                note("all statistics, trends and causes: --details")
            note(judged.sentence)
    if min_r is not None and not found.agreement.r >= min_r:
        remark(f"r = {found.agreement.r:.4f} is below --min-r {min_r}")
        click.get_current_context().exit(1)


def _only_table() -> str:
    found = sorted(str(path) for path in Path("profiles").glob("*.db"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownNameError("no table in ./profiles: make one with latlut profile")
    raise UnknownNameError(f"which table? name one with --table: {', '.join(found)}")


def _as_json(found: Validation, table_path: str, plot_path: str) -> dict[str, object]:
    from latlut.cli.residuals import trends_as_json
    from latlut.stats.machine_speed import is_disturbed

    return {
        "table": table_path,
        "plot": plot_path,
        "agreement": found.agreement.to_dict(),
        "plain": found.plain.to_dict(),
        "calibrated": None if found.scores is None else found.scores.to_dict(),
        "speed_factor": found.readings.speed_factor,
        "cpu_share": found.readings.cpu_share,
        "is_disturbed": is_disturbed(found.readings.cpu_share),
        "sampler": found.sampler,
        "trends": trends_as_json(found.trends()),
        "networks": [
            {
                "estimated_ms": item.estimate.ms,
                "plain_ms": item.plain.ms,
                "predicted_ms": item.estimate.predicted_ms,
                "is_fitted": item.is_fitted,
                "ci_low_ms": item.estimate.ci_low_ms,
                "ci_high_ms": item.estimate.ci_high_ms,
                "measured_first_ms": item.measured_first_ms,
                "measured_second_ms": item.measured_second_ms,
                "error_percent": item.error_percent,
                "readings_ms": readings,
                "speeds": speeds,
                "architecture": item.architecture.to_json(),
            }
            for item, readings, speeds in zip(
                found.networks,
                found.readings.readings_ms.tolist(),
                found.readings.speeds.tolist(),
                strict=True,
            )
        ],
    }
