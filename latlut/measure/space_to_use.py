"""The space whose networks are sampled or searched: a plan's, or the table's own."""

from __future__ import annotations

from dataclasses import replace

from latlut.errors import SpecError, TableError, UnknownNameError
from latlut.measure.plans import load_plan
from latlut.spaces.space import Space
from latlut.table.space import TableSpace, space_from_plan, space_of
from latlut.table.table import LatencyTable


def space_to_use(
    table: LatencyTable,
    plan: str | None,
    input_size: tuple[int, int] | None,
    own: Space | None = None,
) -> TableSpace:
    """The space to work in: that of a plan if one is named, else that of the table's latest sweep.

    A space of one's own is taken as the table remembers it where its latest sweep was of that
    space, and as it is otherwise.

    Args:
        table: its runs say which space they swept.
        plan: a plan's name or file.
        input_size: (height, width) in pixels, instead of the plan's or the table's.
        own: what ``--space`` named.

    Raises:
        SpecError: the plan is no search space; a plan and a space are named; a space is named that
            the table has not swept, without a size.
        TableError: no plan is named, and no run of the table swept a space.
    """
    if own is not None:
        if plan is not None:
            raise SpecError("--space and --plan both name a search space: leave one out")
        try:
            where: TableSpace | None = space_of(table)
        except (TableError, UnknownNameError):
            where = None
        if where is not None and where.space.name == own.name:
            return where if input_size is None else replace(where, input_size=input_size)
        if input_size is None:
            raise SpecError(
                f"{table.title} was not swept for the space {own.name!r}, so it does not say at "
                "which size: give --input HEIGHTxWIDTH"
            )
        return TableSpace(own, input_size, 1)
    if plan is None:
        where = space_of(table)
        return where if input_size is None else replace(where, input_size=input_size)
    values = load_plan(plan, input_size).space
    if values is None:
        raise SpecError(f"the plan {plan} is no search space: it has no networks to work with")
    return space_from_plan(values)
