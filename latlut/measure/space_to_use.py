"""The space whose networks are sampled or searched: a plan's, or the table's own."""

from __future__ import annotations

from dataclasses import replace

from latlut.errors import SpecError
from latlut.measure.plans import load_plan
from latlut.table.space import TableSpace, space_from_plan, space_of
from latlut.table.table import LatencyTable


def space_to_use(
    table: LatencyTable, plan: str | None, input_size: tuple[int, int] | None
) -> TableSpace:
    """The space to work in: that of a plan if one is named, else that of the table's latest sweep.

    Args:
        table: its runs say which space they swept.
        plan: a plan's name or file.
        input_size: (height, width) in pixels, instead of the plan's or the table's.

    Raises:
        SpecError: the plan is no search space.
        TableError: no plan is named, and no run of the table swept a space.
    """
    if plan is None:
        where = space_of(table)
        return where if input_size is None else replace(where, input_size=input_size)
    values = load_plan(plan, input_size).space
    if values is None:
        raise SpecError(f"the plan {plan} is no search space: it has no networks to work with")
    return space_from_plan(values)
