"""What a page shows of two tables: which entries differ, and by how much."""

from __future__ import annotations

from collections.abc import Iterator

from latlut.opspec import OpSpec
from latlut.reports.page import charts
from latlut.reports.page.labels import IDENTITY, label
from latlut.reports.page.parts import Block, Chart, Grid, Section, Text
from latlut.reports.page.table_part import MOST_ENTRIES
from latlut.table.diff import diff
from latlut.table.table import LatencyTable

MOST_MOVED = 200


def difference_section(before: LatencyTable, after: LatencyTable) -> Section:
    """Two tables side by side: engines, precisions, or before and after a change."""
    title = f"{before.path.name} and {after.path.name}"
    return Section(title, str(after.path), "comparison of tables", tuple(_blocks(before, after)))


def _blocks(before: LatencyTable, after: LatencyTable) -> Iterator[Block]:
    found = diff(before, after)
    first, second = before.identity.to_dict(), after.identity.to_dict()
    if differing := [name for name in first if first[name] != second[name]]:
        yield Grid(
            "What differs between the tables",
            ["", before.path.name, after.path.name],
            [[label(name, IDENTITY), first[name], second[name]] for name in differing],
        )
    common = [move for move in found.moves if move.ratio is not None]
    if not common:
        yield Text("The tables have no operator configuration in common.")
        return
    yield Text(
        f"{len(found.moves)} operator configurations in common; the median of {after.path.name} "
        f"over {before.path.name} is {found.overall:.4g}; {len(found.moved)} differ by more than "
        f"their intervals (about {found.by_chance:.0f} would by chance)."
    )
    if found.slowdown is not None and f"{found.slowdown:.2f}" != "1.00":
        faster = before if found.overall > 1 else after
        yield Text(f"{faster.path.name} is {found.slowdown:.2f} times faster (median).")
    rows = [
        {"op_spec": move.key, "kind": OpSpec.parse(move.key).kind, "before_ms": move.before_ms,
         "after_ms": move.after_ms, "ratio": move.ratio}
        for move in common[:MOST_ENTRIES]
    ]  # fmt: skip
    yield Chart("ratios", f"Latency in {after.path.name} over {before.path.name}",
                charts.ratios(rows))  # fmt: skip
    moved = found.moved[:MOST_MOVED]
    yield Grid(
        "Entries that differ most",
        ["operator configuration", f"{before.path.name}, ms", f"{after.path.name}, ms", "ratio"],
        [[move.key, move.before_ms, move.after_ms, move.ratio] for move in moved],
        has_filter=True,
    )
    for path, keys in ((before.path, found.only_before), (after.path, found.only_after)):
        if keys:
            yield Text(
                f"{len(keys)} operator configurations are only in {path.name}, such as {keys[0]}."
            )
