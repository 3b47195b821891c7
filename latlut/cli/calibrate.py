"""``latlut calibrate``: what networks take beyond the sum of their entries, learned and stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from latlut.cli.agreements import print_agreements
from latlut.cli.choices import is_left_open, operators_option, space_option
from latlut.cli.commands import Command
from latlut.cli.names import TABLE
from latlut.cli.onnx import onnx_option
from latlut.cli.options import seed_option, table_option
from latlut.cli.output import (
    details_option,
    is_quiet,
    json_option,
    note,
    percent_text,
    predicted_share,
    predicted_text,
    print_json,
    print_table,
    remark,
    remark_predictions,
)

if TYPE_CHECKING:
    from pathlib import Path

    from latlut.opspec import OpSpec
    from latlut.pricing.calibration import Calibration
    from latlut.validation.fitting import CurvePoint, Fitted
    from latlut.validation.measured import MeasuredNetwork
    from latlut.validation.onnx_families import Tried

#: Sizes of maps, from which on factors are printed by kind alone.
MOST_SIZES = 8


@click.command(cls=Command)
@table_option()
@click.option(
    "--networks", type=click.IntRange(10, 10000), default=30, show_default=True,
    help="Number of measured networks to fit on; the others test the fit.",
)  # fmt: skip
@onnx_option
@click.option(
    "--validation", "validation_id", type=int, metavar="ID", show_default="all of the table",
    help="Use only the networks of this validation.",
)  # fmt: skip
@click.option(
    "--from", "source_name", type=TABLE, show_default="the table itself",
    help="Table with the same identity whose validations to use.",
)  # fmt: skip
@seed_option("Random seed of the choice of networks.", default=0, show_default=True)
@space_option
@operators_option
@click.option(
    "--force", is_flag=True, help="Use validations of a busy machine, and passes that disagree."
)
@click.option("--forget", is_flag=True, help="Delete the table's calibrations, and fit nothing.")
@details_option
@json_option
def calibrate(
    table_name: str, networks: int, is_onnx: bool, files: tuple[Path, ...],
    validation_id: int | None, source_name: str | None, seed: int, space_file: str | None,
    operator_modules: tuple[str, ...], force: bool, forget: bool, details: bool, as_json: bool,
) -> None:  # fmt: skip
    """Fit a calibration: how networks differ from the sum of their entries.

    It is fitted on networks that `latlut validate` measured, and stored in the table. From then on
    estimate, validate, sensitivity and search use it; --forget returns to plain sums. It ends with
    the verdict of `latlut table check`.

    \b
    latlut validate --table cpu-onnxruntime-fp32 --networks 90
    latlut calibrate --table cpu-onnxruntime-fp32
    latlut calibrate --table cpu-onnxruntime-fp32 --onnx      networks that are ONNX files
    """
    from latlut.errors import CalibrationError
    from latlut.operators.own_modules import import_own_modules
    from latlut.pricing.calibration import store
    from latlut.spaces.own import own_space
    from latlut.table.calibrations import forget as forget_all
    from latlut.table.table import LatencyTable
    from latlut.validation.fitting import calibrate as run
    from latlut.validation.fitting import doubts, learning_curve, measured_networks
    from latlut.validation.verdict import check

    import_own_modules(operator_modules)
    if space_file:
        own_space(space_file)
    with LatencyTable.open(table_name, is_writable=True) as table:
        remark_predictions(table)
        if forget:
            count = forget_all(table)
            remark(f"{count} calibration{'' if count == 1 else 's'} deleted from {table.title}")
            return
        if source_name is None:
            measured = measured_networks(table, validation_id=validation_id)
            doubtful = doubts(measured, table)
        else:
            with LatencyTable.open(source_name) as source:
                measured = measured_networks(table, source, validation_id)
                doubtful = doubts(measured, source)
        if is_onnx:
            measured = _of_files(measured, files, str(table.path))
            networks = len(measured) if is_left_open("networks") else networks
        if doubtful and not force:
            listed = "\n  ".join(doubtful)
            raise CalibrationError(
                f"a calibration would learn what disturbed the machine:\n  {listed}\n"
                f"measure again with {table.command('validate', '--wait')}, choose a validation "
                "with --validation, or use them with --force"
            )
        if len(measured) < networks:
            raise CalibrationError(
                f"{len(measured)} measured networks, {networks} are asked for: measure more with "
                + (
                    table.command("validate", "--onnx", "FILES")
                    if is_onnx
                    else table.command("validate", "--networks", 2 * networks)
                )
                + (f", or fit on fewer with --networks {len(measured)}" if len(measured) >= 10
                   else "")
            )  # fmt: skip
        found = run(table, measured, networks, seed)
        own = replace(found.calibration, forced=tuple(doubtful))
        source_path = str(table.path if source_name is None else source.path)
        curve = learning_curve(measured, seed)
        scores = _scores(found, curve)
        tried = _by_family(measured) if is_onnx else None
        if tried is not None:
            scores["other_families"] = {
                "mape_percent": tried.mape_percent, "coverage": tried.coverage,
                "networks": len(tried.networks),
            }  # fmt: skip
        number = store(table, own, scores, seed, found.used(source_path))
        judged = check(table)
        if as_json:
            print_json(
                {"table": str(table.path), "id": number}
                | scores
                | {"predicted_share": predicted_share([item.plain for item in measured])}
                | _model(own)
                | {"verdict": judged.sentence}
            )
        else:
            _print(found, curve, tried, str(table.path), details)
            note(judged.sentence)


def _of_files(
    measured: list[MeasuredNetwork], files: tuple[Path, ...], path: str
) -> list[MeasuredNetwork]:
    """The measured networks that are ONNX files; those of ``files`` where any are named."""
    from latlut.errors import CalibrationError
    from latlut.spaces.onnx_files import OnnxNetwork

    own = {
        item.architecture.name: item
        for item in measured
        if isinstance(item.architecture, OnnxNetwork)
    }
    if missing := [file.stem for file in files if file.stem not in own]:
        raise CalibrationError(
            f"{path} holds no measurement of {', '.join(missing[:5])}: measure them with latlut "
            "validate --onnx first"
        )
    return [own[file.stem] for file in files] if files else list(own.values())


def _by_family(measured: list[MeasuredNetwork]) -> Tried | None:
    """Each family by a fit on the others; None where there are too few."""
    from latlut.errors import CalibrationError
    from latlut.validation.onnx_families import by_family

    try:
        return by_family(measured)
    except CalibrationError as error:
        remark(f"not tried on other families: {error}")
        return None


def _print_families(tried: Tried) -> None:
    """Errors of each family by a calibration that has not seen it."""
    from latlut.validation.onnx_families import families

    names = families(tried.networks)
    errors = tried.errors_percent
    rows = []
    for family in dict.fromkeys(names):
        own = [error for error, name in zip(errors, names, strict=True) if name == family]
        mean = sum(map(abs, own)) / len(own)
        rows.append([family, len(own), f"{mean:.2f}", f"{max(own, key=abs):+.2f}"])
    click.echo("")
    print_table(["family, fitted on the others", "networks", "mean error, %", "worst, %"], rows)
    click.echo(
        f"all: {tried.mape_percent:.2f}% mean error, {100 * tried.coverage:.0f}% of the networks "
        "inside their 95% interval"
    )


def _print(
    found: Fitted, curve: list[CurvePoint], tried: Tried | None, path: str, has_details: bool
) -> None:
    """Plain against calibrated, and what was fitted; with details by map size, with all statistics.

    A quiet command prints the first alone.
    """
    _print_errors(found, tried)
    if is_quiet():
        return
    click.echo("")
    if has_details:
        _print_factors(found)
    else:
        _print_ranges(found.calibration, _corrected(found))
    _print_constants(found)
    if has_details:
        _print_statistics(found, curve)
        if tried is not None:
            _print_families(tried)
    if text := predicted_text([item.plain for item in (*found.fitted, *found.others)]):
        click.echo(text)
    more = "" if has_details else "; by map size, all errors: --details"
    click.echo(f"stored in: {path}{more}")


def _print_errors(found: Fitted, tried: Tried | None) -> None:
    """A row per way of judging: mean errors, and how many networks are inside their interval."""
    rows: list[list[str]] = []
    for title, scores in (
        (f"{len(found.others)} networks left out of the fit", found.held_out),
        (f"{len(found.fitted)} fitted networks, cross-validated", found.cross_validated),
    ):
        if scores is not None:
            errors = [scores.plain.mape_percent, scores.calibrated.mape_percent]
            cells = [f"{error:.2f}" for error in errors]
            rows.append([title, *cells, f"{100 * scores.coverage:.0f}"])
    if tried is not None:
        title = f"{len(tried.networks)} networks, each family by the others"
        rows.append([title, "", f"{tried.mape_percent:.2f}", f"{100 * tried.coverage:.0f}"])
    if not rows:
        click.echo(f"fitted on {len(found.fitted)} networks: too few to judge it")
        return
    columns = ["mean absolute error, %", "plain sum", "calibrated", "inside the 95% interval, %"]
    print_table(columns, rows)


def _print_statistics(found: Fitted, curve: list[CurvePoint]) -> None:
    """All statistics of both ways of judging, and the learning curve."""
    for title, scores in (
        (f"{len(found.others)} networks left out of the fit", found.held_out),
        (f"{len(found.fitted)} fitted networks, cross-validated", found.cross_validated),
    ):
        if scores is not None:
            print_agreements(title, scores.plain, scores)
            click.echo("")
    if len(curve) > 1:
        rows = [
            ["none (plain sum)" if not point.networks else str(point.networks), point.mape_percent,
             f"{point.low:.2f} to {point.high:.2f}"]
            for point in curve
        ]  # fmt: skip
        print_table(
            ["networks fitted on", "mean error on the others, %", "range over splits"], rows
        )
        click.echo(_enough(curve))


#: Effect in milliseconds -> for what.
_ADDED = {"network": "constant per network", "call": "per piece", "weights": "per MB of weights"}


def _corrected(found: Fitted) -> list[OpSpec]:
    """The op specs of the fitted networks whose entries have factors."""
    specs = {term.spec for item in found.fitted for term in item.plain.terms}
    return [spec for spec in specs if found.calibration.covers(spec)]


def _print_factors(found: Fitted) -> None:
    """The factor of an entry, by its kind and the size of the map that it writes."""
    from latlut.pricing.calibration import map_size

    own, known = found.calibration, _corrected(found)
    by_place = {(spec.kind, map_size(spec)): spec for spec in known}
    sizes = sorted({size for _, size in by_place}, key=lambda size: -int(size.split("x")[0]))
    if len(sizes) > MOST_SIZES:
        _print_ranges(own, known)
        return
    rows = []
    for kind in sorted({kind for kind, _ in by_place}):
        cells = []
        for size in sizes:
            spec = by_place.get((kind, size))
            cells.append(
                "" if spec is None else
                f"{own.factor(spec):.3f} ±{own.factor_half_width(spec):.3f}"
            )  # fmt: skip
        rows.append([kind, *cells])
    print_table(["factor of an entry (±95%)", *(f"at {size}" for size in sizes)], rows)


def _print_constants(found: Fitted) -> None:
    """What is added to a network, the residual spread, and what has no factor."""
    from latlut.pricing.calibration import ADDED

    own = found.calibration
    for place, name in enumerate(own.effects):
        if name in ADDED:
            half = 1.96 * own.covariance[place][place] ** 0.5
            click.echo(f"{_ADDED[name]}: {own.values[place]:+.4g} ±{half:.2g} ms")
    click.echo(f"residual spread: ±{percent_text(196 * own.residual_sd)}% (95%)")
    kinds = {term.spec.kind for item in found.fitted for term in item.plain.terms}
    if others := sorted(kinds - {spec.kind for spec in _corrected(found)}):
        click.echo(f"not corrected: {', '.join(others)}")


def _print_ranges(own: Calibration, known: list[OpSpec]) -> None:
    """The same by kind alone: least and most over the sizes of maps."""
    rows = []
    for kind in sorted({spec.kind for spec in known}):
        factors = [own.factor(spec) for spec in known if spec.kind == kind]
        rows.append([kind, len(factors), f"{min(factors):.3f} to {max(factors):.3f}"])
    print_table(["operator", "configurations", "factor of an entry"], rows)


def _enough(curve: list[CurvePoint]) -> str:
    """From how many networks on more of them help little."""
    fitted = [point for point in curve if point.networks]
    best = min(point.mape_percent for point in fitted)
    enough = next(point for point in fitted if point.mape_percent <= 1.1 * best)
    return f"{enough.networks} networks are enough: more reduce the error by less than a tenth"


def _scores(found: Fitted, curve: list[CurvePoint]) -> dict[str, object]:
    return found.scores() | {"learning_curve": [vars(point) for point in curve]}


def _model(own: Calibration) -> dict[str, object]:
    return {
        "networks": own.networks,
        "effects": dict(zip(own.effects, own.values, strict=True)),
        "residual_sd": own.residual_sd,
        "dof": own.dof,
        "forced": list(own.forced),
    }
