"""What the operators of a table compute and move, and what bounds their latency.

A table that latlut measured holds both. One of imported entries, as those that ship with latlut,
holds latencies alone: its operators are counted here, and the target's peak figures are looked up.
Nothing is written into the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from latlut.errors import LatlutError
from latlut.machine.targets import load_target
from latlut.operators.building import Cost, cost
from latlut.opspec import OpSpec
from latlut.table import roofline
from latlut.table.roofline import Roofline
from latlut.table.table import LatencyTable


def with_work(table: LatencyTable, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the view ``latencies``; where the table does not hold what an operator computes, with
    ``gmacs_per_s`` and, where peak figures are known, ``roofline_ms`` computed here.

    Args:
        table: of the rows.
        rows: with ``op_spec``, ``latency_ms`` and both of these; left as they are.
    """
    peaks = stated_peaks(table)
    found = []
    for row in rows:
        is_lacking = row["gmacs_per_s"] is None and row["latency_ms"] > 0
        if is_lacking and (work := _cost_of(row["op_spec"])):
            row = row | {
                "gmacs_per_s": round(work.macs / row["latency_ms"] / 1e6, 2),
                "roofline_ms": peaks.least_ms(work.macs, work.moved_bytes),
            }
        found.append(row)
    return found


def bounds_of(rows: Sequence[Mapping[str, Any]]) -> tuple[list[float | None], str]:
    """What the latency of each entry is compared with, in milliseconds, and what that is.

    The rooflines of the rows; where one has none, for want of peak figures, those by the highest
    rates of the table itself: of the entry that computes most a second, and of the one that moves
    most. That is what the device has shown that it can do.

    Args:
        rows: of ``with_work``, with latencies above 0.

    Source: Williams et al., "Roofline", CACM 2009, for the bound.
    """
    stated = [row["roofline_ms"] for row in rows]
    if all(stated):
        words = "line: latency = roofline latency, by the target's peak figures"
        if any(row["latency_ms"] < row["roofline_ms"] for row in rows):
            words += (
                "; below it: faster than the counted operations allow, as Winograd convolutions "
                "can be"
            )
        return stated, words
    known = [(row["latency_ms"], _cost_of(row["op_spec"])) for row in rows]
    pairs = [(ms, work) for ms, work in known if work is not None]
    if len(pairs) < len(known):
        return [None] * len(known), "the target's peak figures are not known"
    macs_per_s = max(1e3 * work.macs / ms for ms, work in pairs)
    bytes_per_s = max(1e3 * work.moved_bytes / ms for ms, work in pairs)
    best = Roofline(2 * macs_per_s, bytes_per_s)
    words = (
        "line: latency = roofline latency, by the highest rates of this table's entries, "
        f"{macs_per_s / 1e9:.3g} GMAC/s and {bytes_per_s / 1e9:.3g} GB/s, "
        "as the device's peak figures are not known"
    )
    return [best.least_ms(work.macs, work.moved_bytes) for _, work in pairs], words


def stated_peaks(table: LatencyTable) -> Roofline:
    """The peak figures that the table holds, else those of its target's file.

    A CPU has no such file: what is known of the one at hand says nothing of another.
    """
    stored, _ = roofline.bounds(table)
    own = table.identity
    if stored != Roofline() or own.target == "cpu":
        return stored
    try:
        target = load_target(own.target)
        # An engine may compute fp32 as TF32, which is the higher bound.
        peak = target.peak_flops_per_s("tf32" if own.precision == "fp32" else own.precision)
    except LatlutError:
        return stored
    return Roofline(peak, target.bandwidth_bytes_per_s, target.cache_bandwidth_bytes_per_s)


def _cost_of(key: str) -> Cost | None:
    """What an operator configuration computes and moves; None of an operator unknown here."""
    try:
        return cost(OpSpec.parse(key))
    except LatlutError:
        return None
