"""Entries that were predicted: how they are written, and the model that is kept beside them.

A prediction stands among the entries with ``predicted_from``, the number of measured entries that
it rests on. Measuring or importing the op spec replaces it; a prediction never replaces what was
measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from latlut.opspec import OpSpec
from latlut.table import recording
from latlut.table.table import LatencyTable
from latlut.table.writing import replace, set_fact
from latlut.timestamps import now_text

_MODEL = "predictor"


@dataclass(frozen=True)
class PredictedEntry:
    """A latency with its 95% interval, milliseconds."""

    spec: OpSpec
    latency_ms: float
    ci_low_ms: float
    ci_high_ms: float
    own_error: float
    """Relative half-width of the interval."""


def store(
    table: LatencyTable, found: Iterable[PredictedEntry], predicted_from: int, model: str | None
) -> int:
    """Keep predictions in place of all earlier ones; how many. All or nothing.

    Args:
        table: writable.
        found: of op specs; those that have a measured entry are left out.
        predicted_from: on how many measured entries they rest.
        model: text of the model to keep beside them.
    """
    with table.writing() as db:
        _delete(table)
        wanted = [item for item in found if item.spec not in table]
        ids = recording.add_op_specs(table, [item.spec for item in wanted])
        for item in wanted:
            replace(
                db,
                "entries",
                op_spec_id=ids[item.spec.key],
                latency_ms=item.latency_ms,
                ci_low_ms=item.ci_low_ms,
                ci_high_ms=item.ci_high_ms,
                own_error=item.own_error,
                own_error_ms=item.own_error * item.latency_ms,
                passes=0,
                n=0,
                warnings="",
                updated_at=now_text(),
                predicted_from=predicted_from,
            )
        db.execute("DELETE FROM facts WHERE name = ?", [_MODEL])
        if model is not None:
            set_fact(db, _MODEL, model)
    return len(wanted)


def forget(table: LatencyTable) -> int:
    """Delete all predictions and the model; how many predictions there were."""
    with table.writing() as db:
        count = _delete(table)
        db.execute("DELETE FROM facts WHERE name = ?", [_MODEL])
    return count


def _delete(table: LatencyTable) -> int:
    count = int(table.db.execute("DELETE FROM entries WHERE predicted_from IS NOT NULL").rowcount)
    table.__dict__.pop("_entries", None)
    return count


def model_text(table: LatencyTable) -> str | None:
    """The model that the latest predictions were made with; None where there is none."""
    return table.fact(_MODEL)
