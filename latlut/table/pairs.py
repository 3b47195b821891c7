"""Which op specs two tables have in common, as arrays of row ids: tables may have millions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from latlut.table.table import LatencyTable

_COLUMNS = ("kind", "in_channels", "out_channels", "stride", "batch")
#: In order of row ids: in that of keys SQLite would jump about in the file. What is no text is of
#: a damaged file: it is read as one, and is unlike any key.
_ROWS = (
    f"SELECT id, coalesce(CAST(key AS TEXT), ''), {', '.join(_COLUMNS)} FROM op_specs ORDER BY id"
)
_AT_ONCE = 10_000


class SpecPairs:
    """The op specs of one table, and which of another they are, as both were when first asked.

    Keys are compared by Python's 64-bit hashes, seeded anew in each process: among two million op
    specs two keys are taken for one with a probability below 1 in a million.

    Args:
        source: whose op specs are looked for.
        into: where they are looked for.
    """

    def __init__(self, source: LatencyTable, into: LatencyTable) -> None:
        self._source, self._into = source, into

    @cached_property
    def _own(self) -> _Hashes:
        return _hashes(self._source)

    @cached_property
    def _found(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) of each op spec of the source the row id in the other table, whether it is there,
        and whether its columns are the same."""
        own, other = self._own, _hashes(self._into)
        here, is_known = np.zeros(len(own.ids), np.int64), np.zeros(len(own.ids), dtype=bool)
        is_alike = is_known.copy()
        # Both in order of hashes: a search at random would take most of the time.
        ours, theirs = np.argsort(own.keys), np.argsort(other.keys)
        place = np.searchsorted(other.keys[theirs], own.keys[ours])
        ours, place = ours[place < len(theirs)], theirs[place[place < len(theirs)]]
        here[ours], is_known[ours] = other.ids[place], own.keys[ours] == other.keys[place]
        is_alike[ours] = is_known[ours] & (own.columns[ours] == other.columns[place])
        return here, is_known, is_alike

    @property
    def unknown(self) -> np.ndarray:
        """(n,) int64, row ids in the source of the op specs that the other table lacks."""
        return self._own.ids[~self._found[1]]

    def here(self, there: np.ndarray) -> np.ndarray:
        """(n,) int64, the row ids in the other table of these of the source, which are known."""
        return self._found[0][np.searchsorted(self._own.ids, there)]

    @property
    def are_alike(self) -> np.ndarray:
        """(n,) bool, in order of the source's row ids: the other table has the same columns."""
        return self._found[2]


@dataclass(frozen=True)
class _Hashes:
    """Op specs of a table: (n,) row ids, and hashes of their keys and of their columns."""

    ids: np.ndarray
    keys: np.ndarray
    columns: np.ndarray


def _hashes(table: LatencyTable) -> _Hashes:
    found: list[tuple[np.ndarray, ...]] = [(np.zeros(0, np.int64),) * 3]
    with table.reading() as db:
        cursor = db.execute(_ROWS)
        while rows := cursor.fetchmany(_AT_ONCE):
            ids, keys, *columns = zip(*rows, strict=True)
            numbers = (ids, list(map(hash, keys)), list(map(hash, zip(*columns, strict=True))))
            found.append(tuple(np.array(values, dtype=np.int64) for values in numbers))
    return _Hashes(*map(np.concatenate, zip(*found, strict=True)))
