"""Read and write latency entries as CSV and Parquet files.

A file of entries has one row per op spec: ``op_spec`` (the canonical text) and ``latency_ms``,
and may have ``ci_low_ms``, ``ci_high_ms``, ``n``, ``passes``, ``warnings``, ``predicted_from`` and,
of pieces of ONNX files, ``graph``. Whose latencies they are travels in the same file: in CSV as
columns, the same in every row, in Parquet as the file metadata ``latlut_identity``. Nothing is
guessed: a row that cannot be an entry is refused with its number, its column and what was found.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlut.errors import ImportFileError
from latlut.files.kinds import but_it_is
from latlut.files.reading import read_file
from latlut.files.writing import why_not_written, written_whole
from latlut.opspec import OpSpec
from latlut.table.csv_entries import MAX_COLUMNS, MAX_ROWS, Row, parsed_identity, read_csv
from latlut.table.entry_rows import Cells, EntryRow
from latlut.table.identity import IN_CONTEXT, Identity

if TYPE_CHECKING:
    import pandas as pd

REQUIRED_COLUMNS = ("op_spec", "latency_ms")
OPTIONAL_COLUMNS = (
    "ci_low_ms", "ci_high_ms", "n", "passes", "warnings", "predicted_from", "graph",
)  # fmt: skip
SUFFIXES = (".csv", ".parquet")
#: Of a file, and of what a Parquet file unpacks to: a million rows have 100 MB.
MAX_FILE_BYTES = 256 << 20
#: Of one text in it, ``csv``'s own limit for a cell.
MAX_TEXT_BYTES = 1 << 17

#: Whose latencies they are, the same in every row; what else is of all entries travels with them.
IDENTITY_COLUMNS = (*(field.name for field in fields(Identity)), "shared_error", "onnx_cut")
_KNOWN_COLUMNS = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS, *IDENTITY_COLUMNS)
_NUMBER_COLUMNS = (
    "latency_ms", "ci_low_ms", "ci_high_ms", "n", "passes", "shared_error", "predicted_from",
)  # fmt: skip
_TEXT_COLUMNS = set(_KNOWN_COLUMNS) - set(_NUMBER_COLUMNS)
_IDENTITY_KEY = b"latlut_identity"


@dataclass(frozen=True)
class EntriesFile:
    """What a file of entries holds."""

    identity: dict[str, Any] | None
    """Whose latencies they are, None where the file does not say."""
    rows: tuple[EntryRow, ...]
    """One per op spec, in the file's order."""
    ignored_columns: tuple[str, ...] = ()
    """Columns that are not part of an entry."""


def read_entries(path: str | Path, mode: str | None = None) -> EntriesFile:
    """The entries of a CSV or Parquet file, told apart by its suffix.

    Args:
        path: the file.
        mode: how its operators were isolated, where that is not for its own identity to say;
            latencies in context are differences, and may be zero or negative.

    Raises:
        ImportFileError: no such file, a folder, another suffix, content that is not of that kind,
            no rows, a missing or repeated column, an op spec that cannot be read or occurs twice,
            a latency that is not finite, or not positive unless it is a difference, an interval
            that is half given, inverted or without the latency, a count that is not a positive
            whole number.
    """
    path = Path(path)
    suffix = _checked_suffix(path)
    data = read_file(path, MAX_FILE_BYTES)
    if not data:
        raise ImportFileError(f"{path}: the file is empty")
    if suffix == ".csv":
        identity, columns, rows = read_csv(path, data, REQUIRED_COLUMNS, _NUMBER_COLUMNS)
        _check_columns(path, columns)
    else:
        identity, columns, rows = _read_parquet(path, data)
    identity = _with_columns(path, identity, rows)
    own_mode = mode or (identity or {}).get("mode")
    entries: list[EntryRow] = []
    first_seen: dict[OpSpec, int] = {}
    for row, values in rows:
        entry = Cells(path, row, values, may_be_negative=own_mode == IN_CONTEXT).entry()
        if entry.spec in first_seen:
            raise ImportFileError(
                f"{path}: row {row}, column op_spec: {entry.spec} stands in row "
                f"{first_seen[entry.spec]} already; keep one of the two"
            )
        first_seen[entry.spec] = row
        entries.append(entry)
    if not entries:
        raise ImportFileError(f"{path}: has no rows, expected one per operator configuration")
    ignored = tuple(name for name in columns if name not in _KNOWN_COLUMNS)
    return EntriesFile(identity, tuple(entries), ignored)


def write_entries(
    frame: pd.DataFrame, path: str | Path, *, identity: Mapping[str, Any] | None = None
) -> None:
    """Write a frame of entries as CSV or Parquet, by suffix, whole or not at all.

    Args:
        frame: one row per entry, with at least ``op_spec`` and ``latency_ms``; all its columns
            are written, ``warnings`` that are lists of texts joined by "; ".
        path: the file, replaced if it exists.
        identity: whose latencies they are; ``frame.attrs["identity"]`` if not given.

    Raises:
        ImportFileError: another suffix, a missing column, or a file that cannot be written.
    """
    path = Path(path)
    suffix = _checked_suffix(path)
    _check_columns(path, [str(name) for name in frame.columns])
    chosen = identity if identity is not None else frame.attrs.get("identity")
    text = None if chosen is None else json.dumps(dict(chosen), sort_keys=True, ensure_ascii=False)
    plain = frame.assign(op_spec=[str(spec) for spec in frame["op_spec"]])
    if "warnings" in plain.columns:
        plain = plain.assign(warnings=[_joined(value) for value in frame["warnings"]])
    with _written(path) as temporary:
        if suffix == ".csv":
            plain = plain.assign(**dict(chosen or {}))
            plain.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
        else:
            arrow, parquet = _pyarrow()
            plain.attrs = {}
            table = arrow.Table.from_pandas(plain, preserve_index=False)
            metadata = dict(table.schema.metadata or {})
            if text is not None:
                metadata[_IDENTITY_KEY] = text.encode()
            parquet.write_table(table.replace_schema_metadata(metadata), temporary)


def _with_columns(
    path: Path, identity: dict[str, Any] | None, rows: Sequence[Row]
) -> dict[str, Any] | None:
    """The identity with what columns say of it, which has to be the same in all rows."""
    found: dict[str, Any] = {}
    for name in IDENTITY_COLUMNS:
        said: dict[str, tuple[Any, int]] = {}
        if identity is not None and identity.get(name) is not None:
            said[str(identity[name])] = identity[name], 1
        for row, values in rows:
            if values.get(name) not in (None, ""):
                said.setdefault(str(values[name]), (values[name], row))
        if len(said) > 1:
            (first, row), (second, other) = list(said.values())[:2]
            raise ImportFileError(
                f"{path}: column {name}: {first!r} in row {row}, {second!r} in row {other}: a file "
                "holds latencies of one device and engine; write one file for each"
            )
        if said:
            found[name], _ = next(iter(said.values()))
    if isinstance(found.get("shared_error"), str):
        with suppress(ValueError):  # refused with its value where it is used
            found["shared_error"] = float(found["shared_error"])
    return (identity or {}) | found or None


def _written(path: Path) -> AbstractContextManager[Path]:
    """The path to write the file to for now, as ``written_whole`` gives it."""

    def refusal(error: OSError) -> ImportFileError:
        return ImportFileError(f"{path}: cannot be written: {why_not_written(error)}")

    return written_whole(path, refusal=refusal, makes_folder=False)


def _joined(value: object) -> str:
    if value is None or value != value:  # NaN, pandas' missing text
        return ""
    return value if isinstance(value, str) else "; ".join(map(str, value))  # type: ignore[call-overload]


def _checked_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ImportFileError(
            f"{path}: a file of entries ends in {' or '.join(SUFFIXES)}, received {suffix!r}"
            + but_it_is(path)
        )
    return suffix


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        found = ", ".join(columns)[:200]
        raise ImportFileError(f"{path}: no column {', '.join(missing)}; the columns are: {found}")
    repeated = sorted(name for name, count in Counter(columns).items() if count > 1)
    if repeated:
        raise ImportFileError(f"{path}: column {', '.join(repeated)[:200]} occurs more than once")


def _read_parquet(path: Path, data: bytes) -> tuple[dict[str, Any] | None, list[str], list[Row]]:
    if len(data) < 12 or data[:4] != b"PAR1" or data[-4:] != b"PAR1":
        raise ImportFileError(f"{path}: not a Parquet file, it begins with {data[:8]!r}")
    arrow, parquet = _pyarrow()
    rows: list[Mapping[str, object]] = []
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        columns = [str(name) for name in file.schema_arrow.names]
        _check_columns(path, columns)
        wanted = [name for name in columns if name in _KNOWN_COLUMNS]
        _check_parquet(path, file, wanted)
        stored = (file.schema_arrow.metadata or {}).get(_IDENTITY_KEY)
        # Repeated texts stay one text each: a small file can repeat a long one a million times.
        texts = [name for name in wanted if name in _TEXT_COLUMNS]
        file = parquet.ParquetFile(io.BytesIO(data), read_dictionary=texts, pre_buffer=False)
        for number in range(file.num_row_groups):
            group = file.read_row_group(number, columns=wanted, use_threads=False)
            for batch in group.to_batches():
                cells = [_cells_of(path, name, batch.column(name)) for name in wanted]
                rows += [dict(zip(wanted, row, strict=True)) for row in zip(*cells, strict=True)]
    except (arrow.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise ImportFileError(f"{path}: damaged Parquet file: {str(error)[:200]}") from error
    identity = None
    if stored is not None:
        identity = parsed_identity(path, stored.decode("utf-8", errors="replace"))
    return identity, columns, list(enumerate(rows, start=1))


def _check_parquet(path: Path, file: Any, wanted: Sequence[str]) -> None:
    """Refuse by its description what would take all memory when it is decoded."""
    import pyarrow.types as types

    found = file.metadata
    if found.num_rows > MAX_ROWS or found.num_columns > MAX_COLUMNS:
        raise ImportFileError(
            f"{path}: {found.num_rows} rows and {found.num_columns} columns, a file of entries has "
            f"at most {MAX_ROWS} and {MAX_COLUMNS}: split it"
        )
    for name in wanted:
        kind = file.schema_arrow.field(name).type
        if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
            raise ImportFileError(
                f"{path}: column {name} holds {str(kind)[:80]}, expected numbers or texts"
            )
    # Not column by column: Arrow aborts the process where a column's description is damaged.
    sizes = [found.row_group(number).total_byte_size for number in range(found.num_row_groups)]
    size = sum(map(abs, sizes))
    if size > MAX_FILE_BYTES:
        raise ImportFileError(
            f"{path}: its columns have {size} bytes when they are unpacked, a file of entries has "
            f"at most {MAX_FILE_BYTES}: split it"
        )


def _cells_of(path: Path, name: str, column: Any) -> list[object]:
    """The values of a column; equal texts of a dictionary are one object."""
    import pyarrow.compute

    values = getattr(column, "dictionary", column)
    if pyarrow.types.is_string(values.type) or pyarrow.types.is_large_string(values.type):
        longest = pyarrow.compute.max(pyarrow.compute.binary_length(values)).as_py() or 0
        if longest > MAX_TEXT_BYTES:
            raise ImportFileError(
                f"{path}: column {name}: a text of {longest} bytes, expected at most "
                f"{MAX_TEXT_BYTES}"
            )
    found: list[object] = values.to_pylist()
    if values is column:
        return found
    indices = column.indices.to_pylist()
    if any(index is not None and not 0 <= index < len(found) for index in indices):
        raise ImportFileError(f"{path}: column {name}: damaged, some rows have a text's number "
                              "that there is none of")  # fmt: skip
    return [None if index is None else found[index] for index in indices]


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportFileError(
            f"Parquet files need pyarrow, which cannot be imported ({error}); "
            "type: pip install pyarrow, or use a .csv file"
        ) from error
    return pyarrow, pyarrow.parquet
