"""Validations that a table holds: whole networks, measured beside their estimates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from latlut.table.table import LatencyTable
from latlut.table.writing import insert
from latlut.timestamps import now_text
from latlut.version import __version__


class NetworkRow(NamedTuple):
    """A network of a validation, to be stored; the fields are the columns.

    Attributes:
        architecture: as JSON.
        estimated_ms, ci_low_ms, ci_high_ms: what the table said of it.
        measured_first_ms, measured_second_ms: its latency in the two passes.
        plain_ms: the sum of its entries.
        readings: JSON, of each round.
    """

    architecture: str
    estimated_ms: float
    ci_low_ms: float | None
    ci_high_ms: float | None
    measured_first_ms: float
    measured_second_ms: float
    plain_ms: float
    readings: str


class StoredNetwork(NamedTuple):
    """A network that a validation measured.

    Attributes:
        validation_id, position: which one of which validation.
        architecture: as JSON.
        measured_first_ms, measured_second_ms: its latency in the two passes.
        input_size: height and width; None of a validation that did not keep it.
        batch: the same.
    """

    validation_id: int
    position: int
    architecture: str
    measured_first_ms: float
    measured_second_ms: float
    input_size: tuple[int, int] | None
    batch: int | None


def store(
    table: LatencyTable,
    *,
    seed: int,
    sampler: str,
    settings: Mapping[str, object],
    environment: Mapping[str, object],
    agreement: Mapping[str, object],
    input_size: tuple[int, int],
    batch: int,
    networks: Iterable[NetworkRow],
) -> int:
    """Keep a validation in the table's file; its id."""
    rows = list(networks)
    with table.writing() as db:
        validation_id = insert(
            db,
            "validations",
            at=now_text(),
            networks=len(rows),
            seed=seed,
            sampler=sampler,
            settings=json.dumps(settings),
            environment=json.dumps(environment),
            agreement=json.dumps(agreement),
            latlut_version=__version__,
            input_size=f"{input_size[0]}x{input_size[1]}",
            batch=batch,
        )
        for position, row in enumerate(rows):
            place = {"validation_id": validation_id, "position": position}
            insert(db, "validation_networks", **place, **row._asdict())
    return validation_id


def validation_ids(table: LatencyTable) -> list[int]:
    """The ids of all validations, the latest last."""
    return [row["id"] for row in table.rows("SELECT id FROM validations ORDER BY id")]


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
