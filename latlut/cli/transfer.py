"""``latlut transfer``: a new device's table from a few measurements and other devices' tables."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from latlut.cli.commands import Command
from latlut.cli.names import NEW_TABLE
from latlut.cli.output import json_option, note, print_json
from latlut.errors import LatlutError


@click.command(cls=Command)
@click.option(
    "--to", "target", required=True, type=NEW_TABLE,
    help="Table of the new device; it need not exist yet.",
)  # fmt: skip
@click.option(
    "--from", "sources", required=True, metavar="T1,T2,...",
    help="Tables of other devices, with the same plan and input size.",
)  # fmt: skip
@click.option(
    "--next", "count", type=click.IntRange(1, 1000), show_default="up to 10, then 5 more",
    help="Number of operators to measure next.",
)  # fmt: skip
@json_option
def transfer(target: Path, sources: str, count: int | None, as_json: bool) -> None:
    """Predict a new device's entries from a few measured ones and the tables of other devices.

    First it names ten operators to measure. Once the new table holds some of them, it predicts all
    others with 95% intervals, stores them as predicted, and names five more to measure.

    \b
    latlut transfer --to profiles/new.db --from onnxruntime,openvino,pytorch
    """
    from latlut.pricing.transferring import KnownDevices, store_transferred
    from latlut.pricing.transferring import transfer as transferred
    from latlut.shell import command
    from latlut.table.storage import find_table
    from latlut.table.table import LatencyTable

    names = [name for name in sources.split(",") if name]
    path = target
    if path.resolve() in {find_table(name).resolve() for name in names}:
        raise LatlutError(f"{target} is the new device: leave it out of --from")
    known = KnownDevices.of(names)
    with LatencyTable.open(path, is_writable=True) if path.exists() else nullcontext() as table:
        measured = 0 if table is None else len(table) - table.predicted_count
        result = transferred(known, table, count or max(5, 10 - measured))
        stored = 0 if table is None or not result.entries else store_transferred(table, result)
    nexts = [
        command("profile", "--table", path, *(w for s in result.next_specs for w in ("--op", s)))
    ]
    if as_json:
        print_json(
            {
                "table": str(path), "measured": result.measured, "stored": stored,
                "left_out": result.too_wide, "next": [spec.key for spec in result.next_specs],
                "predictions": [
                    {"op_spec": e.spec.key, "latency_ms": e.latency_ms, "ci_low_ms": e.ci_low_ms,
                     "ci_high_ms": e.ci_high_ms}
                    for e in result.entries
                ],
            }
        )  # fmt: skip
        return
    note(
        f"{len(names)} devices know {len(known.specs)} operator configurations; {path} "
        "has measured "
        f"{result.measured} of them"
    )
    if stored:
        widths = sorted(100 * entry.own_error for entry in result.entries)
        click.echo(
            f"{stored} entries predicted and stored as such: ±{widths[len(widths) // 2]:.1f}% "
            f"(median), ±{widths[int(0.95 * (len(widths) - 1))]:.1f}% (95% of them)"
        )
    elif result.measured < 3:
        note("too few to tell the device's speed: measure three or more first")
    if result.too_wide:
        note(
            f"{result.too_wide} operator configurations have no prediction: their "
            "intervals would be wider than "
            "by a factor of two"
        )
    if result.next_specs:
        click.echo(f"measure these {len(result.next_specs)} next:")
        click.echo(f"  {nexts[0]}")
