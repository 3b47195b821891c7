"""``latlut estimate``: a network's latency from a table, term by term."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from latlut.cli.choices import space_option
from latlut.cli.commands import Command
from latlut.cli.names import ARCHITECTURE
from latlut.cli.onnx import Shapes, check_files, cut_as_in, onnx_options
from latlut.cli.options import (
    batch_option,
    input_option,
    op_option,
    table_option,
    unchecked_option,
)
from latlut.cli.output import (
    counted,
    interval_text,
    is_quiet,
    json_option,
    print_json,
    print_table,
    remark,
)
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.operators.onnx_cutting import CutFile
    from latlut.pricing.estimator import Estimate
    from latlut.table.table import LatencyTable

#: Unpriced op specs that are printed; --json has all.
_SHOWN = 30


@click.command(cls=Command)
@table_option("Table that prices the network.")
@click.option(
    "--arch", "arch_name", type=ARCHITECTURE,
    help="Architecture: a JSON file, or a shipped one such as fasterseg-student.",
)  # fmt: skip
@space_option
@onnx_options
@op_option("Operator to price instead of a network")
@input_option(show_default="the table's own; else 1024x2048")
@batch_option(show_default="the table's own; else 1")
@click.option(
    "--plain", "is_plain", is_flag=True,
    help="Plain sum of the entries, without the table's calibration.",
)  # fmt: skip
@click.option(
    "--layers", "has_layers", is_flag=True,
    help="Also run the network on the table's engine, and show it layer by layer.",
)  # fmt: skip
@click.option(
    "--partial", "is_partial", is_flag=True,
    help="Accept an estimate of a part: exit with 0 although the table lacks entries.",
)  # fmt: skip
@unchecked_option
@json_option
def estimate(
    table_name: str, arch_name: str | None, space_file: str | None, is_onnx: bool,
    files: tuple[Path, ...], shapes: Shapes, ops: tuple[str, ...],
    input_size: tuple[int, int] | None, batch: int | None, is_plain: bool, has_layers: bool,
    is_partial: bool, unchecked: bool, as_json: bool,
) -> None:  # fmt: skip
    """Latency of a network from a table's entries, term by term.

    An operator that the table holds only in another variant is priced by that variant, and named.
    One that it cannot price is named with the command that adds it; the exit code is then 1, unless
    --partial is given. If the table has a calibration, it corrects the entries of a network; single
    operators (--op) are priced as measured.

    \b
    latlut estimate --table cpu --arch fasterseg-student
    latlut estimate --table cpu --op "conv 64->96 stride 1 at 32x64"
    latlut estimate --table cpu --arch fasterseg-student --layers
    latlut estimate --table cpu --onnx mine.onnx
    latlut estimate --table mine --arch found.json --space my_space.py
    """
    from latlut.opspec import OpSpec
    from latlut.pricing.estimator import estimate as price
    from latlut.pricing.missing import adding_line
    from latlut.pricing.named import size_and_batch
    from latlut.spaces.own import own_space
    from latlut.spaces.shipped import find_network
    from latlut.table.table import LatencyTable
    from latlut.validation.remarks import measured_elsewhere

    check_files(files, is_onnx, shapes)
    if [bool(arch_name), bool(ops), is_onnx].count(True) != 1:
        raise LatlutError(
            "name either a network with --arch, operator configurations with --op, or a "
            "file with --onnx"
        )
    if len(files) > 1:
        raise LatlutError("an estimate is of one file: name them one by one")
    if has_layers and is_onnx:
        raise LatlutError(
            "--layers is for --arch; for ONNX files: latlut layers FILE --table TABLE"
        )
    if has_layers and not arch_name:
        raise LatlutError("--layers runs a whole network: name one with --arch")
    if space_file and not arch_name:
        raise LatlutError("--space says what --arch is a network of: name one, or leave it out")
    if ops and (input_size or batch):
        raise LatlutError("--op names its own size and batch: leave --input and --batch out")
    if space_file:
        own_space(space_file)
    cut: CutFile | None = None
    with LatencyTable.open(table_name) as table:
        if is_onnx:
            from latlut.measure.onnx_plans import read_files

            (cut,) = cut_as_in(table, read_files(files, input_size, batch, dict(shapes)))
            specs = list(cut.op_specs())
        elif arch_name:
            where = size_and_batch(table, input_size, batch)
            nodes = find_network(arch_name).nodes(*where)
            specs = [node.spec for node in nodes]
        else:
            specs = [OpSpec.parse(text) for text in ops]
        found = price(specs, table, is_calibrated=not (is_plain or ops), allow_missing=True)
        adding = _adding(table, files, input_size, batch, shapes)
        adding_text = adding_line(table, found.unpriced, adding if cut else "")
        if not found.terms and cut is not None:
            reasons = "".join(f"\n  {text}" for text in cut.unpriced[:5])
            raise click.ClickException(
                f"{table.title} has no entry for any piece of {cut.name}{reasons}\n"
                + table.adding(adding, len(specs))
            )
        if not found.terms:
            raise click.ClickException(
                f"{table.title} has no entry for this\n" + table.missing_message(specs[0])
            )
        elsewhere = measured_elsewhere(table)
        view = None
        if has_layers and arch_name:
            from latlut.cli.layers import layers_as_json, measure_layers, print_layers

            view = measure_layers(table, nodes, is_compared=not unchecked)
        if as_json:
            layers = {} if view is None else {"layers": layers_as_json(view)}
            print_json(_as_json(found, str(table.path), cut, elsewhere) | layers)
        else:
            _print(found, table.title, cut, elsewhere)
            if view is not None:
                print_layers(view)
    if found.unpriced:
        remark(adding_text)
    if not is_partial and (found.unpriced or (cut and cut.unpriced)):
        remark("This covers only part of the network; add --partial to accept that.")
        click.get_current_context().exit(1)


def _adding(
    table: LatencyTable, files: tuple[Path, ...], input_size: tuple[int, int] | None,
    batch: int | None, shapes: Shapes,
) -> str:  # fmt: skip
    """The command that adds the pieces of a file."""
    words: list[object] = ["--onnx", *files]
    words += ["--input", "x".join(map(str, input_size))] if input_size else []
    words += ["--batch", batch] if batch else []
    for name, shape in shapes:
        words += ["--shape", f"{name}:{'x'.join(map(str, shape))}" if name else shape]
    return table.command("profile", *words)


def _print(found: Estimate, title: str, cut: CutFile | None, elsewhere: str) -> None:
    is_part = bool(found.unpriced or (cut and cut.unpriced))
    text = interval_text(found.ms, found.ci_low_ms, found.ci_high_ms)
    result = f"at least {text}" if is_part else text
    if is_quiet():
        click.echo(result)
        return
    if found.disturbed:
        click.echo(
            f"disturbed: entries of {100 * _disturbed_share(found):.0f}% of this latency were "
            "measured beside other processes, it may be too high; profile again on a quiet machine "
            "(--wait)"
        )
    _print_terms(found)
    click.echo("")
    _print_calibration(found)
    click.echo(f"{result}  from {title}")
    if is_part:
        _print_left_out(found, cut)
    if found.excluded:
        names = ", ".join(sorted({spec.kind for spec in found.excluded}))
        click.echo(
            "not included, because the table's source does not include them: "
            f"{counted(len(found.excluded), 'operator')} ({names})"
        )
    if found.sum_error is not None and found.ci_high_ms is not None:
        click.echo(f"the interval includes {found.sum_error.describe()}")
    if found.predicted:
        click.echo(
            f"{found.predicted_ms:.4g} ms of it ({100 * found.predicted_share:.0f}%) are "
            f"predicted, not measured: {len(found.predicted)} of {len(found.terms)} terms"
        )
    if found.substituted:
        click.echo(
            f"priced by a variant that the table holds: {counted(len(found.substituted), 'term')}"
        )
    if elsewhere:
        click.echo(f"note: {elsewhere}")


def _disturbed_share(found: Estimate) -> float:
    """The part of the entries' sum, at most 1, that comes from disturbed ones."""
    entries_ms = sum(term.total_ms for term in found.terms)
    disturbed_ms = sum(term.total_ms for term in found.disturbed)
    return min(1.0, max(0.0, disturbed_ms / entries_ms)) if entries_ms > 0 else 1.0


def _print_terms(found: Estimate) -> None:
    from latlut.operators.subgraph_store import shown

    is_calibrated = found.calibration is not None
    rows = [
        [
            shown(term.spec),
            term.count,
            term.total_ms,
            f"{100 * term.total_ms / found.ms:.1f}%" if found.ms else "",
            *([f"{term.factor:.3f}"] if is_calibrated else []),
            f"{term.reason}" if term.reason else "",
            *(["predicted" if term.predicted_ms else ""] if found.predicted else []),
        ]
        for term in found.terms
    ]
    factor = ["factor"] if is_calibrated else []
    basis = ["basis"] if found.predicted else []
    print_table(
        [
            "operator configuration",
            "times",
            "ms",
            "share",
            *factor,
            "priced as another variant",
            *basis,
        ],
        rows,
    )


def _print_calibration(found: Estimate) -> None:
    calibration = found.calibration
    if calibration is None:
        return
    click.echo(
        f"calibrated on {counted(calibration.networks, 'network')}, plus a constant of "
        f"{found.constant_ms:.4g} ms; the plain sum is {found.plain_ms:.4g} ms"
    )
    if calibration.forced:
        click.echo(f"note: {calibration.forced_text}")
    for text in found.notes:
        click.echo(f"note: outside the range the calibration was fitted on: {text}")


def _print_left_out(found: Estimate, cut: CutFile | None) -> None:
    from latlut.operators.subgraph_store import shown

    left_out = [*(shown(spec) for spec in found.unpriced), *(cut.unpriced if cut else ())]
    click.echo("without what the table cannot price:")
    for text in left_out[:_SHOWN]:
        click.echo(f"  {text}")
    if len(left_out) > _SHOWN:
        click.echo(f"  ... {len(left_out) - _SHOWN} more: --json")


def _as_json(found: Estimate, path: str, cut: CutFile | None, elsewhere: str) -> dict[str, object]:
    from latlut.operators.subgraph_store import shown

    return {
        "table": path,
        "latency_ms": found.ms,
        "ci_low_ms": found.ci_low_ms,
        "ci_high_ms": found.ci_high_ms,
        "is_complete": found.is_complete and not (cut and cut.unpriced),
        "is_calibrated": found.calibration is not None,
        "plain_ms": found.plain_ms,
        "constant_ms": found.constant_ms,
        "predicted_ms": found.predicted_ms,
        "is_disturbed": bool(found.disturbed),
        "notes": list(found.notes),
        "forced": [] if found.calibration is None else list(found.calibration.forced),
        "measured_elsewhere": elsewhere,
        "sum_error": None if found.sum_error is None else vars(found.sum_error),
        "unpriced": [spec.key for spec in found.unpriced],
        "excluded": [spec.key for spec in found.excluded],
        "left_out": list(cut.unpriced) if cut else [],
        "terms": [
            {
                "op_spec": term.spec.key,
                "label": shown(term.spec),
                "count": term.count,
                "latency_ms": term.latency_ms,
                "factor": term.factor,
                "total_ms": term.total_ms,
                "priced_as": list(term.priced_as),
                "reason": term.reason,
                "predicted_ms": term.predicted_ms,
            }
            for term in found.terms
        ],
    }
