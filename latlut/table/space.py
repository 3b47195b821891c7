"""The search space that a table covers: read from the plan of the run that swept it.

A run keeps its plan's space, input size and batch. Whoever samples networks to measure, or prices
a whole space for a search, reads them here, so that the size is the table's own and not that of
whatever images happen to be at hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from latlut.errors import TableError, UnknownNameError
from latlut.spaces.onnx_files import OnnxFiles, OnnxNetwork
from latlut.spaces.space import Space, space_class
from latlut.table.table import LatencyTable


@dataclass(frozen=True)
class TableSpace:
    """The search space that a table covers, and at which input size and batch."""

    space: Space
    input_size: tuple[int, int]
    batch: int
    is_swept: bool = True
    """False where a file of entries was imported, which need not hold all that networks run."""

    @property
    def size_text(self) -> str | None:
        """``512x1024``; None where each network has an input size of its own (ONNX files)."""
        height, width = self.input_size
        return f"{height}x{width}" if height else None


def files_as_space(networks: Sequence[OnnxNetwork]) -> TableSpace:
    """ONNX files in place of a space."""
    return TableSpace(OnnxFiles(networks), (0, 0), 1)


def space_from_plan(values: Mapping[str, object]) -> TableSpace:
    """The space that a plan's or a run's ``space`` describes."""
    own = {k: v for k, v in values.items() if k not in ("name", "input_size", "batch")}
    height, width = (int(side) for side in values["input_size"])  # type: ignore[attr-defined]
    batches = values.get("batch") or [1]
    return TableSpace(
        space_class(str(values["name"])).from_dict({"name": values["name"], **own}),
        (height, width),
        int(batches[0]),  # type: ignore[index]
    )


def space_of(table: LatencyTable) -> TableSpace:
    """The space of the table's latest run that swept one.

    Raises:
        TableError: no run of this table swept a search space.
        UnknownNameError: it swept one that nothing registers here; names the file that did.
    """
    rows = table.rows(
        "SELECT space, kind FROM runs WHERE space IS NOT NULL ORDER BY id DESC LIMIT 1"
    )
    if not rows:
        raise TableError(
            f"{table.title}: no run of this table swept a search space, so it does not say which "
            "networks and which input size it is for: name its plan with --plan, or add one with\n"
            f"  {table.command('profile', '--plan', 'fasterseg')}"
        )
    values = json.loads(rows[0]["space"])
    try:
        return replace(space_from_plan(values), is_swept=rows[0]["kind"] != "import")
    except UnknownNameError as error:
        own = table.own_modules
        hint = f", measured with {', '.join(own)}" if own else ""
        raise UnknownNameError(
            f"{table.title} is of the space {values['name']!r}{hint}: name the file that registers "
            f"it, --space {own[0] if len(own) == 1 else 'FILE'}"
        ) from error
