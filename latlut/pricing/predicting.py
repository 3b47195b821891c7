"""Predicting what a table has not measured, and keeping it there as predicted."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from latlut.errors import PredictionError
from latlut.operators.subgraph_store import digest_of
from latlut.opspec import OpSpec, unique
from latlut.predict.predictor import LEAST_KNOWN, Predictor
from latlut.table import predictions
from latlut.table.entry import Entry
from latlut.table.predictions import PredictedEntry
from latlut.table.subgraphs import pieces_count
from latlut.table.table import LatencyTable

#: A prediction whose 95% interval is wider than by a factor of two either way is none.
WIDEST = math.log(2)
#: With work, bytes and weights as features, 118 of 382 pieces of ten networks told the others to
#: 11 to 16% in the median, but only 78 to 84% of them lay inside 95% intervals.
NO_PIECES = (
    "pieces of ONNX files are not predicted, since their shapes do not say what they compute"
)


@dataclass(frozen=True)
class Predicted:
    """What could be predicted of the op specs that a table has not measured."""

    entries: tuple[PredictedEntry, ...]
    left_out: tuple[OpSpec, ...]
    """Op specs that cannot be predicted: too few of their kind are measured, or the interval would
    be wider than by a factor of two."""
    predictor: Predictor

    @property
    def half_widths(self) -> np.ndarray:
        """(number of entries,): relative half-widths of the 95% intervals."""
        return np.array([entry.own_error for entry in self.entries])


def measured_entries(table: LatencyTable) -> list[Entry]:
    """The entries that were measured or imported, of operators; see ``NO_PIECES``."""
    return [entry for entry in table if not entry.is_predicted and digest_of(entry.spec) is None]


def fit_predictor(table: LatencyTable, random: Collection[OpSpec] | None = None) -> Predictor:
    """A model of a table's measured entries.

    Args:
        table: what it holds as predicted is not used.
        random: the op specs that were chosen for measuring at random; all of them if not given.

    Raises:
        PredictionError: fewer than 20 measured entries, or entries that are differences.
    """
    if table.identity.is_in_context:
        raise PredictionError(
            f"{table.title} holds differences (--mode in-context), which may be zero or negative: "
            "only standalone latencies can be predicted"
        )
    known = measured_entries(table)
    if len(known) < LEAST_KNOWN and pieces_count(table):
        raise PredictionError(
            f"{table.title} has {len(known)} measured entries of operators, too few to predict "
            f"others from; {NO_PIECES}: measure them with: "
            + table.command("profile", "--onnx", "FILES")
        )
    if len(known) < LEAST_KNOWN:
        raise PredictionError(
            f"{table.title} has {len(known)} measured entries, too few to predict others from: "
            f"measure {LEAST_KNOWN} or more with: {table.command('profile')}"
        )
    specs = [entry.spec for entry in known]
    is_scored = None if random is None else [spec in random for spec in specs]
    return Predictor.fit(specs, [entry.latency_ms for entry in known], is_scored)


def predict_entries(
    table: LatencyTable, specs: Sequence[OpSpec], predictor: Predictor
) -> Predicted:
    """Predictions for those of the op specs that have no measured entry."""
    wanted = [
        spec for spec in unique(specs) if spec not in table or table.lookup(spec).is_predicted
    ]
    known = [spec for spec in wanted if predictor.can_predict(spec)]
    left_out = [spec for spec in wanted if not predictor.can_predict(spec)]
    entries = []
    if known:
        found = predictor.predict(known)
        columns = (found.latency_ms, found.ci_low_ms, found.ci_high_ms, found.half_width)
        for spec, *values in zip(known, *(column.tolist() for column in columns), strict=True):
            if values[-1] > WIDEST:
                left_out.append(spec)
            else:
                entries.append(PredictedEntry(spec, *values))
    return Predicted(tuple(entries), tuple(left_out), predictor)


def store_predictions(table: LatencyTable, predicted: Predicted) -> int:
    """Keep predictions in the table in place of all earlier ones; how many."""
    model = predicted.predictor
    return predictions.store(table, predicted.entries, len(model.keys), model.to_json())


def stored_predictor(table: LatencyTable) -> Predictor:
    """The model that the table's latest predictions were made with.

    Raises:
        PredictionError: there is none, or it cannot be read.
    """
    text = predictions.model_text(table)
    if text is None:
        raise PredictionError(
            f"{table.title} has no predictions: make them with {table.command('predict')}"
        )
    try:
        return Predictor.from_json(text)
    except PredictionError as error:
        raise PredictionError(
            f"{table.title}: its predictor cannot be read: {error}\nmake it anew with "
            + table.command("predict")
        ) from error
