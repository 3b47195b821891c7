"""A table's file examined as a whole: pages, references, every row, every sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat

from latlut.errors import LatlutError, TableError
from latlut.opspec import OpSpec
from latlut.table.content import RULES, wrong_rows
from latlut.table.file_schema import missing_texts
from latlut.table.pairs import SpecPairs
from latlut.table.samples import unpack_samples
from latlut.table.subgraphs import wrong_graphs
from latlut.table.table import LatencyTable

#: How many times its size a file's samples may take when they are decompressed, beside a base:
#: those of clocks take about four times.
_MOST_RATIO, _BASE_BYTES = 64, 64 << 20
_AT_ONCE = 1000


def faults(table: LatencyTable, known: LatencyTable | None = None) -> list[str]:
    """What is wrong with a table's file, one phrase each; empty where nothing is.

    Takes time and memory in proportion to the size of the file.

    Args:
        table: to be examined.
        known: a sound table; op specs that it has as well are not read again.
    """
    found: list[str] = []
    for examine in (
        _pages,
        _references,
        _rows,
        partial(_keys, known=known),
        wrong_graphs,
        _samples,
    ):
        try:
            found += examine(table)
        except TableError as error:
            found.append(str(error).removeprefix(f"{table.path}: "))
        if found:
            break  # what is found on damaged pages says nothing more
    return found


def refuse_faults(table: LatencyTable, known: LatencyTable | None = None) -> None:
    """Refuse a table with a fault; arguments as of ``faults``.

    Raises:
        TableError: names it.
    """
    for phrase in faults(table, known):
        raise TableError(
            f"{table.path}: {phrase}: the file is damaged, or somebody has changed it\n"
            "restore a copy, or leave this table out"
        )


def _pages(table: LatencyTable) -> Iterator[str]:
    found = str(table.rows("PRAGMA integrity_check(1)")[0]["integrity_check"])
    if found != "ok":
        yield f"the file is damaged ({' '.join(found.split())})"


def _references(table: LatencyTable) -> Iterator[str]:
    for row in table.rows("PRAGMA foreign_key_check")[:1]:
        yield f"{row['table']} row {row['rowid']} refers to a missing row of {row['parent']}"


def _rows(table: LatencyTable) -> Iterator[str]:
    with table.reading() as db:
        yield from wrong_rows(db.conn, RULES)
        for kind, name in missing_texts(db.conn):
            yield f"the {kind} {name} is missing"


def _keys(table: LatencyTable, known: LatencyTable | None) -> Iterator[str]:
    columns = ("key", "kind", "in_channels", "out_channels", "stride", "batch")
    sql = f"SELECT {', '.join(columns)} FROM op_specs ORDER BY id"
    are_alike: Iterable[bool] = repeat(False)
    if known is not None:
        alike = SpecPairs(table, known).are_alike()
        if alike.all():
            return
        are_alike = alike.tolist()
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
    while rows := table.rows(
        "SELECT id, n, samples, without_samples FROM measurements WHERE id > ?"
        f" ORDER BY id LIMIT {_AT_ONCE}",
        [last],
    ):
        for row in rows:
            if phrase := _wrong_samples(row["samples"], row["n"]) or _wrong_samples(
                row["without_samples"], None
            ):
                yield f"measurements row {row['id']}: {phrase}"
                return
            left -= 8 * row["n"]
            if left < 0:
                yield "its samples take much more room than samples of a clock do"
                return
        last = rows[-1]["id"]


def _wrong_samples(blob: bytes | None, count: int | None) -> str:
    if blob is None:
        return ""
    try:
        samples = unpack_samples(blob)
    except TableError as error:
        return str(error)
    if count is not None and len(samples) != count:
        return f"{len(samples)} samples, where n says {count}"
    if len(samples) and not 0 <= samples.min() <= samples.max() < 10**18:
        return f"samples from {samples.min()} to {samples.max()} ns"
    return ""
