"""Which op specs two tables have in common, as arrays of row ids: tables may have millions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from latlut.table.table import LatencyTable

#: In order of keys, as SQLite's own index has them. What is no text is of a damaged file: it is
#: read as one, and is unlike any key.
_KEYS = "SELECT coalesce(CAST(key AS TEXT), ''), id FROM op_specs ORDER BY key"
_NUMBERS = ("in_channels", "out_channels", "stride", "batch")
_COLUMNS = (
    "SELECT id, coalesce(CAST(kind AS TEXT), ''), "
    + ", ".join(f"coalesce(CAST({name} AS INTEGER), 0)" for name in _NUMBERS)
    + " FROM op_specs ORDER BY id"
)
_PAIR = np.dtype([("there", np.int64), ("here", np.int64), ("is_known", np.bool_)])


class SpecPairs:
    """The op specs of one table, and which of another they are, as both were when first asked.

    Args:
        source: whose op specs are looked for.
        into: where they are looked for.
    """

    def __init__(self, source: LatencyTable, into: LatencyTable) -> None:
        self._source, self._into = source, into

    @cached_property
    def _pairs(self) -> np.ndarray:
        found = np.fromiter(_paired(self._source, self._into), _PAIR)
        return found[np.argsort(found["there"], kind="stable")]

    @property
    def unknown(self) -> np.ndarray:
        """(n,) int64, row ids in the source of the op specs that the other table lacks."""
        return self._pairs["there"][~self._pairs["is_known"]]

    def here(self, there: np.ndarray) -> np.ndarray:
        """(n,) int64, the row ids in the other table of these of the source, which are known."""
        return self._pairs["here"][np.searchsorted(self._pairs["there"], there)]

    def are_alike(self) -> np.ndarray:
        """(n,) bool, in order of the source's row ids: the other table has the same columns."""
        kinds: dict[str, int] = {}
        here, there = _columns(self._into, kinds), _columns(self._source, kinds)
        if not len(here):
            return np.zeros(len(there), dtype=bool)
        place = np.searchsorted(here[:, 0], self._pairs["here"]).clip(max=len(here) - 1)
        alike: np.ndarray = (here[place, 1:] == there[:, 1:]).all(axis=1)
        return alike & self._pairs["is_known"]


def _paired(source: LatencyTable, into: LatencyTable) -> Iterator[tuple[int, int, bool]]:
    with source.reading() as theirs, into.reading() as own:
        others = own.execute(_KEYS)
        other, number = others.fetchone() or (None, 0)
        for key, own_number in theirs.execute(_KEYS):
            while other is not None and other < key:
                other, number = others.fetchone() or (None, 0)
            yield own_number, number, other == key


def _columns(table: LatencyTable, kinds: dict[str, int]) -> np.ndarray:
    """(n, 6) int64: row id, number of the operator in ``kinds``, and the whole numbers."""
    with table.reading() as db:
        rows = (
            (number, kinds.setdefault(kind, len(kinds)), *values)
            for number, kind, *values in db.execute(_COLUMNS)
        )
        return np.fromiter(rows, np.dtype((np.int64, 2 + len(_NUMBERS))))
