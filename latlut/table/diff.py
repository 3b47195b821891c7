"""Comparing two tables: which entries moved beyond what their intervals explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latlut.table.entry import Entry
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable


@dataclass(frozen=True)
class Move:
    """An op spec in two tables, milliseconds."""

    key: str
    """Canonical text of the op spec."""
    before_ms: float
    after_ms: float
    """``before_ms``, ``after_ms``: its latency in each."""
    ratio: float | None
    """After / before, None where one of them is not positive."""
    bound: float | None
    """What noise explains of the ratio's logarithm; None where a latency is itself a difference, or
    an interval is unknown."""
    bound_ms: float | None = None
    """What noise explains of the difference, which decides there; else None."""

    @property
    def size(self) -> float:
        """How large the change is: |log ratio|; infinite where there is no ratio."""
        return float("inf") if self.ratio is None else abs(float(np.log(self.ratio)))

    @property
    def has_moved(self) -> bool:
        """Beyond what the two intervals explain."""
        if self.bound is not None:
            return self.size > self.bound
        return self.bound_ms is not None and abs(self.after_ms - self.before_ms) > self.bound_ms


@dataclass(frozen=True)
class Difference:
    """What differs between two tables."""

    identity: tuple[str, ...]
    """A phrase per field of the identity that differs."""
    overall: float
    """The median ratio after / before."""
    moves: tuple[Move, ...]
    """Every common op spec, the largest change first."""
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    """``only_before``, ``only_after``: keys that one of them lacks."""
    predicted: tuple[str, ...] = ()
    """Common op specs that a table predicted and did not measure: they are in no move."""

    @property
    def moved(self) -> tuple[Move, ...]:
        """The op specs that moved beyond their intervals."""
        return tuple(move for move in self.moves if move.has_moved)

    @property
    def slowdown(self) -> float | None:
        """How many times as long the slower table takes, at least 1; None where nothing says."""
        is_known = np.isfinite(self.overall) and self.overall > 0
        return max(self.overall, 1 / self.overall) if is_known else None

    @property
    def by_chance(self) -> float:
        """Op specs expected beyond their 95% intervals if nothing had changed."""
        return 0.05 * sum(
            move.bound is not None or move.bound_ms is not None for move in self.moves
        )


def diff(before: LatencyTable, after: LatencyTable) -> Difference:
    """Which entries moved beyond their intervals from one table to another.

    An entry moved if |log(after / before)| exceeds the root of the sum of the squares of both
    half-widths, what each table's entries share included; where one of the tables is of
    differences, if |after - before| exceeds that of the half-widths in milliseconds. Tables of
    different identity may be compared (another driver, another engine); ``identity`` says what
    differs.
    """
    first = {entry.key: entry for entry in before}
    second = {entry.key: entry for entry in after}
    both = sorted(first.keys() & second.keys())
    predicted = [key for key in both if first[key].is_predicted or second[key].is_predicted]
    common = sorted(set(both) - set(predicted))
    has_differences = before.identity.is_in_context or after.identity.is_in_context
    shared = (before.shared_error, after.shared_error)
    moves = [_move(first[key], second[key], shared, has_differences) for key in common]
    if has_differences:
        moves.sort(key=lambda move: -abs(move.after_ms - move.before_ms))
    else:
        moves.sort(key=lambda move: -move.size)
    logs = [np.log(move.ratio) for move in moves if move.ratio is not None]
    overall = float(np.exp(np.median(logs))) if logs else float("nan")
    return Difference(
        _identity_phrases(before.identity, after.identity),
        overall,
        tuple(moves),
        tuple(sorted(first.keys() - second.keys())),
        tuple(sorted(second.keys() - first.keys())),
        tuple(predicted),
    )


def _identity_phrases(before: Identity, after: Identity) -> tuple[str, ...]:
    """``engine: openvino in BEFORE, pytorch in AFTER``, for each field that differs."""
    others = after.to_dict()
    return tuple(
        f"{name.replace('_', ' ')}: {mine or 'none'} in BEFORE, {others[name] or 'none'} in AFTER"
        for name, mine in before.to_dict().items()
        if mine != others[name]
    )


def _move(a: Entry, b: Entry, shared: tuple[float, float], has_differences: bool) -> Move:
    ratio = b.latency_ms / a.latency_ms if a.latency_ms > 0 and b.latency_ms > 0 else None
    bound = bound_ms = None
    if has_differences and a.own_error_ms is not None and b.own_error_ms is not None:
        parts_ms = (shared[0] * a.latency_ms, shared[1] * b.latency_ms)
        bound_ms = float(np.linalg.norm([a.own_error_ms, b.own_error_ms, *parts_ms]))
    elif not has_differences and a.own_error is not None and b.own_error is not None:
        bound = float(np.linalg.norm([a.own_error, b.own_error, *shared]))
    return Move(a.key, a.latency_ms, b.latency_ms, ratio, bound, bound_ms)
