"""``latlut predict``: the entries that a table has not measured, with intervals."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.choices import operators_option
from latlut.cli.commands import Command
from latlut.cli.options import batch_option, input_option, op_option, plan_option, table_option
from latlut.cli.output import is_quiet, json_option, note, print_json, print_table
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.opspec import OpSpec
    from latlut.pricing.predicting import Predicted
    from latlut.table.table import LatencyTable


@click.command(cls=Command)
@table_option("Table whose missing entries to predict.")
@plan_option("Plan to predict.", "the table's search space")
@op_option("Operator to predict instead of a plan; nothing is stored")
@input_option(show_default="the table's own")
@batch_option(show_default="the table's own")
@click.option("--forget", is_flag=True, help="Delete all predictions of the table.")
@operators_option
@json_option
def predict(
    table_name: str, plan: str | None, ops: tuple[str, ...], input_size: tuple[int, int] | None,
    batch: int | None, forget: bool, operator_modules: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Predict the entries that a table has not measured, with 95% intervals.

    A Gaussian process over shapes and operators, fitted on the measured entries, predicts the other
    entries of the table's search space. Its errors on entries held out from the fit give the
    intervals. Predictions are marked as such and replace earlier ones; measurements replace them.

    \b
    latlut predict --table cpu
    latlut predict --table cpu --op "conv 72->104 stride 1 at 32x64"
    latlut predict --table cpu --forget
    """
    from latlut.operators.own_modules import import_own_modules
    from latlut.pricing import predicting
    from latlut.table import predictions
    from latlut.table.table import LatencyTable

    if sum(map(bool, (ops, plan, forget))) > 1:
        raise LatlutError("name one of --op, --plan and --forget")
    if ops and (input_size or batch):
        raise LatlutError("--op names its own size and batch: leave --input and --batch out")
    import_own_modules(operator_modules)
    with LatencyTable.open(table_name, is_writable=not ops) as table:
        if forget:
            count = predictions.forget(table)
            if as_json:
                print_json({"table": str(table.path), "forgotten": count})
            else:
                click.echo(f"{count} predictions deleted from {table.title}")
            return
        predictor = predicting.fit_predictor(table)
        found = predicting.predict_entries(
            table, _wanted(table, plan, ops, input_size, batch), predictor
        )
        stored = 0 if ops else predicting.store_predictions(table, found)
        _print(table, found, stored, as_json)
    if ops and found.left_out:
        click.get_current_context().exit(1)


def _wanted(
    table: LatencyTable, plan: str | None, ops: tuple[str, ...],
    input_size: tuple[int, int] | None, batch: int | None,
) -> list[OpSpec]:  # fmt: skip
    """The op specs that shall have an entry."""
    from latlut.measure.plans import load_plan
    from latlut.opspec import OpSpec
    from latlut.table.space import space_of

    if ops:
        return [OpSpec.parse(text) for text in ops]
    if plan:
        return list(load_plan(plan, input_size, batch).specs)
    own = space_of(table)
    return list(own.space.op_specs(input_size or own.input_size, batch or own.batch))


def _print(table: LatencyTable, found: Predicted, stored: int, as_json: bool) -> None:
    known = len(found.predictor.keys)
    facts: dict[str, Any] = {
        "table": str(table.path),
        "predicted_from": known,
        "stored": stored,
        "predictions": [
            {"op_spec": e.spec.key, "latency_ms": e.latency_ms, "ci_low_ms": e.ci_low_ms,
             "ci_high_ms": e.ci_high_ms}
            for e in found.entries
        ],
        "left_out": [spec.key for spec in found.left_out],
    }  # fmt: skip
    if as_json:
        print_json(facts)
        return
    if not stored and found.entries:
        rows = [[e.spec.key, e.latency_ms, e.ci_low_ms, e.ci_high_ms] for e in found.entries]
        print_table(["operator configuration", "ms", "from", "to"], rows, "predicted")
    elif stored:
        _print_widths(found)
        click.echo(
            f"{stored} entries predicted from {known} measured ones, stored in {table.title}"
        )
    elif not found.left_out:
        click.echo(f"nothing to predict: {table.title} has measured all of it")
    if found.left_out:
        click.echo(
            f"{len(found.left_out)} operator configurations cannot be predicted, measure them:"
        )
        for spec in found.left_out[:10]:
            note(f"  {table.command('profile', '--op', spec)}")
        if len(found.left_out) > 10:
            note("  ...")


def _print_widths(found: Predicted) -> None:
    """How wide the intervals of each operator are; a detail beside the summary."""
    import numpy as np

    if is_quiet():
        return
    widths = defaultdict(list)
    for entry in found.entries:
        widths[entry.spec.kind].append(100 * entry.own_error)
    print_table(
        ["operator", "predicted", "interval, median", "95% of them"],
        [
            [kind, len(own), f"±{np.median(own):.1f}%", f"±{np.quantile(own, 0.95):.1f}%"]
            for kind, own in sorted(widths.items())
        ],
    )
