"""Validations that a table holds: whole networks, measured beside their estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latlut.table.table import LatencyTable
from latlut.table.writing import insert
from latlut.timestamps import now_text
from latlut.version import __version__


@dataclass(frozen=True)
class StoredNetwork:
    """A network that a validation measured."""

    validation_id: int
    position: int
    """``validation_id``, ``position``: which one of which validation."""
    architecture: str
    """As JSON."""
    measured_first_ms: float
    measured_second_ms: float
    """``measured_first_ms``, ``measured_second_ms``: its latency in the two passes."""
    input_size: tuple[int, int] | None
    """Height and width; None of a validation that did not keep it."""
    batch: int | None
    """The same."""


def store(table: LatencyTable, networks: Sequence[Mapping[str, object]], **columns: object) -> int:
    """Keep a validation in the table's file; its id.

    Args:
        table: writable.
        networks: of each the columns of ``validation_networks``, by name.
        columns: those of ``validations``.
    """
    with table.writing() as db:
        validation_id = insert(
            db,
            "validations",
            at=now_text(),
            networks=len(networks),
            latlut_version=__version__,
            **columns,
        )
        for position, row in enumerate(networks):
            insert(db, "validation_networks", validation_id=validation_id, position=position, **row)
    return validation_id


def validation_ids(table: LatencyTable) -> list[int]:
    """The ids of all validations, the latest last."""
    return [row["id"] for row in table.rows("SELECT id FROM validations ORDER BY id")]


@dataclass(frozen=True)
class Quietness:
    """What a validation says of the machine meanwhile."""

    cpu_share: float | None
    """Of the CPU that the process got; None where the validation did not keep it."""
    r12: float | None
    """Correlation of the two measuring passes; None where it was not defined."""


def quietness(table: LatencyTable) -> dict[int, Quietness]:
    """Validation id -> how quiet the machine was."""
    rows = table.rows(
        "SELECT id, cpu_share, json_extract(agreement, '$.r12') AS r12 FROM validations"
    )
    return {row["id"]: Quietness(row["cpu_share"], row["r12"]) for row in rows}


def errors_of_sums(table: LatencyTable) -> list[float]:
    """By how much networks took longer than the sum of their entries, relative to that sum.

    Of all networks of validations that the machine did not disturb; ``validation_log`` says which.
    """
    rows = table.rows(
        "SELECT (measured_first_ms + measured_second_ms) / 2 / plain_ms - 1 AS error"
        " FROM validation_networks JOIN validation_log ON validation_log.id = validation_id"
        " WHERE NOT is_disturbed AND plain_ms > 0"
    )
    return [row["error"] for row in rows]


def stored_networks(table: LatencyTable, validation_id: int | None = None) -> list[StoredNetwork]:
    """The networks that validations measured, the latest validation's first; or of one alone."""
    rows = table.rows(
        "SELECT validation_id, position, architecture, measured_first_ms, measured_second_ms,"
        " input_size, batch FROM validation_networks"
        " JOIN validations ON validations.id = validation_id"
        " WHERE ? IS NULL OR validation_id = ? ORDER BY validation_id DESC, position",
        [validation_id, validation_id],
    )
    return [StoredNetwork(**row | {"input_size": _size(row["input_size"])}) for row in rows]


def _size(text: str | None) -> tuple[int, int] | None:
    if not text:
        return None
    height, width = (int(side) for side in text.split("x"))
    return height, width
