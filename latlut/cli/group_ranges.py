"""What ``latlut sensitivity`` says of a space by its choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from latlut.cli.output import note, print_json, print_table
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from latlut.table.space import TableSpace
    from latlut.table.table import LatencyTable


def print_groups(
    table: LatencyTable, where: TableSpace, predicted: Mapping[str, float], as_json: bool
) -> None:
    """How much each kind of choice can change, and weights inverse to that.

    Args:
        table: prices the space. where: the space.
        predicted: how much of it is, for JSON.
        as_json: print JSON.

    Raises:
        LatlutError: the space does not name its choices, or the table lacks entries.
    """
    from latlut.pricing.choices import PricedChoices
    from latlut.spaces.checking import choices_of

    choices = choices_of(where.space, where.input_size, where.batch)
    if choices is None:
        raise LatlutError(
            f"the space {where.space.name!r} does not say what its networks choose: give it a "
            "method choices(input_size, batch), see docs/own-spaces.md"
        )
    priced = PricedChoices(choices, table)
    ranges = priced.group_ranges()
    fastest, slowest = priced.range_ms()
    gaps = [item.gap_ms for item in ranges]
    weights = None
    if ranges and min(gaps) > 0:
        inverse = [1 / gap for gap in gaps]
        weights = [value / sum(inverse) for value in inverse]
    options = {choice.name: choice.options for choice in choices.choices}

    def named(picks: dict[str, int]) -> dict[str, str]:
        return {name: str(options[name][number]) for name, number in picks.items()}

    if as_json:
        print_json(
            {
                "table": str(table.path),
                "space": where.space.to_dict(),
                "input_size": list(where.input_size),
                "fastest_ms": fastest,
                "slowest_ms": slowest,
                "gaps": [
                    {
                        "factor": item.group,
                        "low_ms": item.low_ms,
                        "high_ms": item.high_ms,
                        "gap_ms": item.gap_ms,
                        "half_ms": item.half_ms,
                        "low_end": named(item.low),
                        "high_end": named(item.high),
                    }
                    for item in ranges
                ],
                "balanced_weights": weights,
                **predicted,
            }
        )
        return
    rows = [
        [
            item.group, item.low_ms, item.high_ms, item.gap_ms,
            "unknown" if item.half_ms is None else f"±{item.half_ms:.3g}",
            None if weights is None else weights[number],
        ]
        for number, item in enumerate(ranges)
    ]  # fmt: skip
    print_table(["factor", "low, ms", "high, ms", "gap, ms", "95%", "balanced weight"], rows)
    note("\nend points, the other factors uniform:")
    for item in ranges:
        for title, picks in (("low", item.low), ("high", item.high)):
            listed = ", ".join(f"{name} {value}" for name, value in named(picks).items())
            note(f"  {item.group}, {title}: {listed}")
    height, width = where.input_size
    note(
        f"\nfrom {table.title}: networks of {where.space.title} at {height}x{width} take "
        f"{fastest:.4g} to {slowest:.4g} ms"
    )
