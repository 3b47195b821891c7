"""``latlut sensitivity``: what operators, downsampling and widths can change, by a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from latlut.cli.choices import space_option
from latlut.cli.commands import Command
from latlut.cli.group_ranges import print_groups
from latlut.cli.options import input_option, plan_option, table_option
from latlut.cli.output import (
    json_option,
    note,
    print_json,
    print_table,
    remark_predicted_part,
)
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.search.penalty.prices import SpacePrices
    from latlut.search.penalty.sensitivity import Sensitivity


@click.command(cls=Command)
@table_option("Table that prices the search space.")
@plan_option("Plan whose search space to look at.")
@input_option(show_default="the table's latest")
@space_option
@click.option(
    "--branches", type=click.IntRange(1, 2), show_default="the search space's",
    help="Number of branches of a network.",
)  # fmt: skip
@click.option(
    "--end-width", type=click.IntRange(1, 12), show_default="the narrowest of the search space",
    help="Width of stem and head in twelfths.",
)  # fmt: skip
@click.option(
    "--skip-price", type=click.Choice(["derived", "searched"]), default="derived",
    show_default=True,
    help="Price of a stride-1 skip: none, as in a derived network, or that of the 1x1 convolution "
    "in the search.",
)  # fmt: skip
@json_option
def sensitivity(
    table_name: str, plan: str | None, input_size: tuple[int, int] | None,
    space_file: str | None, branches: int | None, end_width: int | None, skip_price: str,
    as_json: bool,
) -> None:  # fmt: skip
    """How much operators, downsampling and widths change the expected latency.

    One of the three varies between two end points while the other two stay fixed: uniform
    operators, uniform downsampling, full width. Weights inverse to the gaps balance the three in a
    search. In your own search space: each kind of choice, if the space names its choices.

    \b
    latlut sensitivity --table cpu
    latlut sensitivity --table 1080ti --branches 1
    """
    from dataclasses import replace

    from latlut.measure.space_to_use import space_to_use
    from latlut.search.penalty.prices import SpaceLayout, read_prices
    from latlut.search.penalty.sensitivity import sensitivity as measure
    from latlut.search.penalty.terms import ExpectedTerms
    from latlut.spaces.fasterseg import FasterSegSpace, fasterseg_space
    from latlut.spaces.own import own_space
    from latlut.table.table import LatencyTable

    own = own_space(space_file) if space_file else None
    with LatencyTable.open(table_name) as table:
        where = space_to_use(table, plan, input_size, own)
        predicted = remark_predicted_part(
            table, where.space.op_specs(where.input_size, where.batch)
        )
        if not isinstance(where.space, FasterSegSpace):
            if branches is not None or end_width is not None:
                raise LatlutError("--branches and --end-width are of the FasterSeg space")
            print_groups(table, where, predicted, as_json)
            return
        space = fasterseg_space(where.space)
        space = space if branches is None else replace(space, branches=branches)
        layout = SpaceLayout(
            space,
            space.widths,
            min(space.stem_head_widths) if end_width is None else end_width,
            where.input_size,
            where.batch,
            "searched" if skip_price == "searched" else "derived",
        )
        prices = read_prices(layout, table, leave_out_fixed=True)
        found = measure(ExpectedTerms(prices), table)
        path, title = str(table.path), table.title
    if as_json:
        print_json(_as_json(found, prices, path) | predicted)
    else:
        _print(found, prices, title)


def _weights(found: Sensitivity) -> tuple[tuple[float, ...] | None, str]:
    """(balanced weights, "") or (None, why there are none)."""
    from latlut.search.penalty.sensitivity import balanced_weights

    try:
        return balanced_weights(found), ""
    except LatlutError as error:
        return None, str(error)


def _print(found: Sensitivity, prices: SpacePrices, title: str) -> None:
    from latlut.search.penalty.sensitivity import PAPER_GAPS_MS
    from latlut.search.penalty.weights import PAPER_WEIGHTS

    weights, why_not = _weights(found)
    layout = prices.layout
    rows: list[list[object]] = []
    for number, gap in enumerate(found.gaps):
        half = "unknown" if gap.half_ms is None else f"±{gap.half_ms:.3g}"
        rows.append(
            [
                gap.factor,
                gap.low_ms,
                gap.high_ms,
                gap.gap_ms,
                half,
                PAPER_GAPS_MS[number],
                None if weights is None else weights[number],
                PAPER_WEIGHTS[number],
            ]
        )
    columns = ["factor", "low, ms", "high, ms", "gap, ms", "95%"]
    print_table([*columns, "paper's gap", "balanced weight", "paper's weight"], rows)
    note("\nend points, the other two factors as in the penalty (uniform, widest):")
    for gap in found.gaps:
        note(f"  {gap.factor}, low: {gap.low_end}")
        note(f"  {gap.factor}, high: {gap.high_end}")
    if why_not:
        note(f"\nno balanced weights: {why_not}")
    height, width = layout.input_size
    note(
        f"\nfrom {title}: {layout.space.layers} layers, branches: {layout.space.branches}, "
        f"{height}x{width}, widths {', '.join(map(str, layout.widths))}/12; "
        "the paper's table is of a GTX 1080 Ti at 1024x2048, its end points are not defined"
    )
    reasons = dict.fromkeys(term.reason for term in prices.substituted)
    for reason in reasons:
        count = sum(term.reason == reason for term in prices.substituted)
        note(f"{count} operator configurations are priced by another variant: {reason}")
    if prices.unpriced:
        note("without what the table cannot price, the same in both end points:")
        for spec in prices.unpriced:
            note(f"  {spec}")


def _as_json(found: Sensitivity, prices: SpacePrices, path: str) -> dict[str, object]:
    from latlut.search.penalty.sensitivity import PAPER_GAPS_MS
    from latlut.search.penalty.weights import PAPER_WEIGHTS

    weights, why_not = _weights(found)
    layout = prices.layout
    return {
        "table": path,
        "space": layout.space.to_dict(),
        "input_size": list(layout.input_size),
        "end_width": layout.end_width,
        "skip_price": layout.skip_price,
        "gaps": [
            {
                "factor": gap.factor,
                "low_ms": gap.low_ms,
                "high_ms": gap.high_ms,
                "gap_ms": gap.gap_ms,
                "half_ms": gap.half_ms,
                "low_end": gap.low_end,
                "high_end": gap.high_end,
                "paper_gap_ms": paper_ms,
            }
            for gap, paper_ms in zip(found.gaps, PAPER_GAPS_MS, strict=True)
        ],
        "balanced_weights": None if weights is None else list(weights),
        "no_weights_because": why_not or None,
        "paper_weights": list(PAPER_WEIGHTS),
        "substituted": {
            term.spec.key: {"priced_as": list(term.priced_as), "reason": term.reason}
            for term in prices.substituted
        },
        "unpriced": [spec.key for spec in prices.unpriced],
    }
