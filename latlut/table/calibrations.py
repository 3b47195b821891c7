"""Calibrations that a table holds: the latest is in force. What one says is ``pricing``'s."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from latlut.table.table import LatencyTable
from latlut.table.writing import insert
from latlut.timestamps import now_text
from latlut.version import __version__


@dataclass(frozen=True)
class UsedNetwork:
    """A network behind a calibration."""

    architecture: str
    """As JSON."""
    source: str
    """File of the validation that measured it."""
    validation_id: int
    position: int
    """``validation_id``, ``position``: which one of which validation."""
    is_fitted: bool
    """Tells the fitted from those that judge."""


@dataclass(frozen=True)
class StoredCalibration:
    """A calibration as it is stored, and the versions that made it."""

    version: int
    model: str
    """As JSON."""
    latlut_version: str
    forced: tuple[str, ...] = ()
    """Why it would have been refused without ``--force``."""


def store(table: LatencyTable, used: Iterable[UsedNetwork], **columns: object) -> int:
    """Keep a calibration in the table's file, in force from now on; its id.

    Args:
        table: writable.
        used: the networks that it was fitted on, and those that judged it.
        columns: those of ``calibrations``.
    """
    with table.writing() as db:
        own = {"at": now_text(), "latlut_version": __version__}
        calibration_id = insert(db, "calibrations", **own, **columns)
        for number, item in enumerate(used):
            place = {"calibration_id": calibration_id, "number": number}
            insert(db, "calibration_networks", **place, **vars(item))
    return calibration_id


def forget(table: LatencyTable) -> int:
    """Delete all calibrations of a table; how many there were."""
    with table.writing() as db:
        db.execute("DELETE FROM calibration_networks")
        return db.execute("DELETE FROM calibrations").rowcount


def latest(table: LatencyTable) -> StoredCalibration | None:
    """The calibration in force; None where there is none."""
    rows = table.rows(
        "SELECT version, model, latlut_version, CASE json_type(scores, '$.forced')"
        " WHEN 'array' THEN json_extract(scores, '$.forced') ELSE '[]' END AS forced"
        " FROM calibrations ORDER BY id DESC LIMIT 1"
    )
    if not rows:
        return None
    forced = tuple(map(str, json.loads(rows[0]["forced"])))
    return StoredCalibration(**rows[0] | {"forced": forced})


def fitted_networks(table: LatencyTable) -> set[str]:
    """The architectures, as JSON, that the calibration in force was fitted on."""
    rows = table.rows(
        "SELECT architecture FROM calibration_networks WHERE is_fitted"
        " AND calibration_id = (SELECT max(id) FROM calibrations)"
    )
    return {row["architecture"] for row in rows}
