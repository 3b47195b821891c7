"""A new device's table from a few measured entries and the tables of other devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from latlut.errors import PredictionError
from latlut.opspec import OpSpec
from latlut.predict.features import Features
from latlut.predict.transfer import LEAST_DEVICES, LEAST_MEASURED, DevicePrior
from latlut.pricing.predicting import NO_PIECES, WIDEST, measured_entries
from latlut.table import predictions
from latlut.table.predictions import PredictedEntry
from latlut.table.subgraphs import pieces_count
from latlut.table.table import LatencyTable

#: Op specs that the sources must have in common.
LEAST_COMMON = 20


@dataclass(frozen=True)
class KnownDevices:
    """The op specs that several tables have measured, and what they take on each."""

    specs: tuple[OpSpec, ...]
    latency_ms: np.ndarray
    """(op specs, tables)."""

    @classmethod
    def of(cls, names: Sequence[str | Path]) -> KnownDevices:
        """What the tables have in common.

        Raises:
            PredictionError: fewer than two tables, tables in context, or fewer than 20 op specs
                in common.
        """
        if len(names) < LEAST_DEVICES:
            raise PredictionError(
                f"--from names {len(names)} table: name {LEAST_DEVICES} or more, of devices as "
                "different as the new one may be"
            )
        columns: list[dict[str, float]] = []
        has_pieces = False
        for name in names:
            with LatencyTable.open(name) as table:
                if table.identity.is_in_context:
                    raise PredictionError(
                        f"{table.title} holds differences (--mode in-context): only standalone "
                        "latencies can be transferred"
                    )
                has_pieces = has_pieces or pieces_count(table) > 0
                columns.append({e.key: e.latency_ms for e in measured_entries(table)})
        common = [key for key in columns[0] if all(key in column for column in columns)]
        if len(common) < LEAST_COMMON:
            raise PredictionError(
                f"{', '.join(map(str, names))} have {len(common)} measured operator "
                "configurations in common, too "
                f"few to transfer from: it takes {LEAST_COMMON} of the same plan and input size"
                + (f"; {NO_PIECES}" if has_pieces else "")
            )
        values = [[column[key] for column in columns] for key in common]
        return cls(tuple(OpSpec.parse(key) for key in common), np.array(values))

    @cached_property
    def prior(self) -> DevicePrior:
        """The model of them: logarithms, since latencies range over decades."""
        features = Features.of(self.specs).rows(self.specs).matrix
        # Columns that say nothing, and one category of those that add up to 1, are left out.
        varying = features[:, np.ptp(features, axis=0) > 0]
        return DevicePrior(np.log(self.latency_ms), varying)


@dataclass(frozen=True)
class TransferResult:
    """Entries of a new device, and what to measure next."""

    measured: int
    """Common op specs that the device has measured."""
    entries: tuple[PredictedEntry, ...]
    too_wide: int
    """Op specs whose interval would be wider than by a factor of two: they have no prediction."""
    next_specs: tuple[OpSpec, ...]
    """The most informative first."""


def transfer(
    known: KnownDevices, table: LatencyTable | None, count: int, is_predicted: bool = True
) -> TransferResult:
    """Predict a new device's entries from those that it has measured.

    Args:
        known: the other devices.
        table: the new device's; None where nothing is measured yet.
        count: how many op specs to name that are to be measured next.
        is_predicted: False names these only.

    Raises:
        PredictionError: the table has measured op specs, but none that the others know; its
            entries are differences.
    """
    place = {spec: number for number, spec in enumerate(known.specs)}
    own = [] if table is None else measured_entries(table)
    if table is not None and table.identity.is_in_context:
        raise PredictionError(f"{table.title} holds differences (--mode in-context)")
    values = {place[e.spec]: float(np.log(e.latency_ms)) for e in own if e.spec in place}
    if own and not values:
        raise PredictionError(
            "the new device's table has no operator configuration in common with the "
            "others: measure the same "
            f"plan at the same input size, such as {known.specs[0]}"
        )
    items = list(values)
    chosen = known.prior.next_items(count, items)
    next_specs = tuple(known.specs[number] for number in chosen)
    if len(items) < LEAST_MEASURED or not is_predicted:
        return TransferResult(len(items), (), 0, next_specs)
    found = known.prior.transfer(items, list(values.values()))
    half = found.quantile * found.sd
    left = [n for n in range(len(known.specs)) if n not in values]
    entries = tuple(
        PredictedEntry(
            known.specs[n], math.exp(mean), math.exp(mean - h), math.exp(mean + h), own_error=h
        )
        for n in left
        for mean, h in [(float(found.mean[n]), float(half[n]))]
        if h <= WIDEST
    )
    return TransferResult(len(items), entries, len(left) - len(entries), next_specs)


def store_transferred(table: LatencyTable, result: TransferResult) -> int:
    """Keep the predictions in the new device's table in place of all earlier ones; how many."""
    return predictions.store(table, result.entries, result.measured, None)
