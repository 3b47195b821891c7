"""A table's file examined as a whole: pages, references, every row, every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat

import numpy as np

from latlut.errors import LatlutError, TableError
from latlut.opspec import OpSpec
from latlut.table.content import RULES, wrong_rows
from latlut.table.file_schema import missing_texts
from latlut.table.pairs import SpecPairs
from latlut.table.samples import unpack_samples, unpacked_bytes
from latlut.table.subgraphs import wrong_graphs
from latlut.table.table import LatencyTable

#: How many times its size a file's samples may take when they are decompressed, beside a base:
#: those of clocks take about four times.
_MOST_RATIO, _BASE_BYTES = 64, 64 << 20
#: Samples are nanoseconds below this: thirty years.
MOST_NS = 10**18
_AT_ONCE = 1000


def faults(table: LatencyTable, pairs: SpecPairs | None = None) -> list[str]:
    """What is wrong with a table's file, one phrase each; empty where nothing is.

    Takes time and memory in proportion to the size of the file.

    Args:
        table: to be examined.
        pairs: with a sound table; op specs that it has as well are not read again.
    """
    own = (_references, _rows, partial(_keys, pairs=pairs), wrong_graphs, _samples)
    with ThreadPoolExecutor(1) as thread:  # SQLite lets other threads run meanwhile
        pages = thread.submit(_first_faults, table, (_pages,))
        found = _first_faults(table, own)
        return pages.result() or found  # what is found on damaged pages says nothing more


def _first_faults(
    table: LatencyTable, examinations: Iterable[Callable[[LatencyTable], Iterable[str]]]
) -> list[str]:
    """What the first of the examinations finds that finds anything."""
    for examine in examinations:
        try:
            found = list(examine(table))
        except TableError as error:
            found = [str(error).removeprefix(f"{table.title}: ")]
        if found:
            return found
    return []


def refuse_faults(table: LatencyTable, pairs: SpecPairs | None = None) -> None:
    """Refuse a table with a fault; arguments as of ``faults``.

    Raises:
        TableError: names it.
    """
    for phrase in faults(table, pairs):
        raise TableError(
            f"{table.title}: {phrase}: the file is damaged, or somebody has changed it\n"
            "restore a copy, or leave this table out"
        )


def _pages(table: LatencyTable) -> Iterator[str]:
    with table.reading_beside() as db:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        yield f"the file is damaged ({' '.join(str(found).split())})"


def _references(table: LatencyTable) -> Iterator[str]:
    for row in table.rows("PRAGMA foreign_key_check")[:1]:
        yield f"{row['table']} row {row['rowid']} refers to a missing row of {row['parent']}"


def _rows(table: LatencyTable) -> Iterator[str]:
    with table.reading() as db:
        yield from wrong_rows(db.conn, RULES)
        for kind, name in missing_texts(db.conn):
            yield f"the {kind} {name} is missing"


def _keys(table: LatencyTable, pairs: SpecPairs | None) -> Iterator[str]:
    columns = ("key", "kind", "in_channels", "out_channels", "stride", "batch")
    sql = f"SELECT {', '.join(columns)} FROM op_specs ORDER BY id"
    are_alike: Iterable[bool] = repeat(False)
    if pairs is not None:
        if pairs.are_alike.all():
            return
        are_alike = pairs.are_alike.tolist()
    for found, is_alike in zip(table.tuples(sql), are_alike, strict=False):
        if is_alike:
            continue
        key = found[0]
        try:
            spec = OpSpec.parse(key)
        except (LatlutError, ValueError, TypeError) as error:
            yield f"op_specs: {key[:120]!r} is no operator configuration: {error}"
            return
        if found != tuple(getattr(spec, name) for name in columns):
            yield f"op_specs: its columns are not those of {key[:120]!r}"
            return


def _samples(table: LatencyTable) -> Iterator[str]:
    left = _BASE_BYTES + _MOST_RATIO * table.size_bytes
    last = 0
    while rows := table.tuples(
        "SELECT id, n, samples, without_samples FROM measurements WHERE id > ?"
        f" ORDER BY id LIMIT {_AT_ONCE}",
        [last],
    ):
        if not _are_right(rows):
            for number, count, own, without in rows:
                if phrase := _wrong_samples(own, count) or _wrong_samples(without, None):
                    yield f"measurements row {number}: {phrase}"
                    return
        left -= 8 * sum(row[1] for row in rows)
        if left < 0:
            yield "its samples take much more room than samples of a clock do"
            return
        last = rows[-1][0]


def _are_right(rows: list[tuple[int, int, bytes | None, bytes | None]]) -> bool:
    """Whether all samples of some rows are surely right, seen at once."""
    found: list[bytes] = []
    try:
        for _, count, own, without in rows:
            if own is not None:
                found.append(unpacked_bytes(own))
                if len(found[-1]) != 8 * count:
                    return False
            if without is not None:
                found.append(unpacked_bytes(without))
    except TableError:
        return False
    every = np.frombuffer(b"".join(found), "<i8")
    return not every.size or bool(every.min() >= 0 and every.max() < MOST_NS)


def _wrong_samples(blob: bytes | None, count: int | None) -> str:
    if blob is None:
        return ""
    try:
        samples = unpack_samples(blob)
    except TableError as error:
        return str(error)
    if count is not None and len(samples) != count:
        return f"{len(samples)} samples, where n says {count}"
    if len(samples) and not 0 <= samples.min() <= samples.max() < MOST_NS:
        return f"samples from {samples.min()} to {samples.max()} ns"
    return ""
