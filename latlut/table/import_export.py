"""Tables from files and to files: CSV and Parquet both ways, the FasterSeg authors' .npy in.

An import is one transaction: a file that is refused at its last row leaves the table as it was,
and makes none where there was none.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from latlut.errors import IdentityError, ImportFileError, TableError
from latlut.operators import subgraph_store
from latlut.opspec import OpSpec
from latlut.spaces.fasterseg import FasterSegSpace
from latlut.table import recording, subgraphs
from latlut.table.authors_npy import read_fasterseg_npy
from latlut.table.content import MOST_SHARED_ERROR
from latlut.table.entries_file import MAX_TEXT_BYTES, read_entries, write_entries
from latlut.table.entry_rows import EntryRow
from latlut.table.history import measured_keys
from latlut.table.identity import STANDALONE, Identity
from latlut.table.listing import entry_columns
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable
from latlut.table.writing import replace, set_fact
from latlut.timestamps import now_text

#: What the published table was measured with; the file does not say.
#: Source: FasterSeg, Sec. 4.1 (TensorRT 5.1.5, CUDA 10.0, cuDNN 7, FP32, batch 1) and their code,
#: which times by doubling the number of runs until they last 6 s and takes the mean.
FASTERSEG_IDENTITY = Identity(
    target="1080ti",
    device_model="NVIDIA GeForce GTX 1080 Ti",
    engine="tensorrt",
    engine_version="5.1.5",
    precision="fp32",
    statistic="mean",
    driver="CUDA 10.0, cuDNN 7",
    protocol_version="fasterseg-release",
)
#: What the authors' latencies of networks leave out, comma-separated: resizing between operators.
PUBLISHED_EXCLUDES = "upsample"
#: Whose figures a table of the published size holds; ``latlut table info`` shows it.
PUBLISHED_SOURCE = (
    "latency_lookup_table.npy of FasterSeg, github.com/VITA-Group/FasterSeg, MIT licence, "
    "Copyright (c) 2019 Wuyang"
)
#: Of a piece's graph that fits into a cell as base64.
MAX_GRAPH_BYTES = 3 * (MAX_TEXT_BYTES // 4)
#: (height, width) of the images and the number of classes of the published table.
_PUBLISHED_SIZE, _PUBLISHED_CLASSES = (1024, 2048), 19
#: What a file of that form does not say of any other device.
_ASKED = ("target", "device_model", "engine", "engine_version")


@dataclass(frozen=True)
class ImportReport:
    """What an import read: ``rows`` of the file, distinct ``op_specs``, and remarks on them."""

    path: Path
    table: Path
    rows: int
    op_specs: int
    repeats: int
    remarks: tuple[str, ...] = ()


def import_file(
    path: Path,
    table_path: Path,
    identity_overrides: dict[str, str | int] | None = None,
    space: Mapping[str, object] | None = None,
) -> ImportReport:
    """Read a file of latencies into a table of the identity that it names.

    Args:
        path: ``.npy`` of the FasterSeg authors, ``.csv`` or ``.parquet`` of entries.
        table_path: the table; made if it does not exist.
        identity_overrides: fields of the identity, for files that do not carry one.
        space: the search space that a file of entries covers, as ``Plan.space``; a .npy says
            itself.

    Raises:
        ImportFileError: the file cannot be used as it is.
        IdentityError: the table holds another identity, or the file has none and none is given.
    """
    overrides = identity_overrides or {}
    if path.suffix.lower() == ".npy":
        if overrides.get("mode", STANDALONE) != STANDALONE:
            raise IdentityError(
                f"{path}: its operators were timed standalone, received mode={overrides['mode']}: "
                "leave the mode out"
            )
        source = read_fasterseg_npy(path)
        repeats = source.latencies_ms()
        values, assumed = _identity_of_npy(path, list(repeats), overrides)
        specs, count = list(repeats), len(source.rows)
        several = sum(len(readings) > 1 for readings in repeats.values())
        remarks = [
            f"{several} operator configurations were measured more than once; the spread "
            "between these repeats "
            "gives every entry its interval"
        ]
        remarks.append(assumed)
        notes = Counter(row.note for row in source.rows if row.note)
        remarks += [f"{rows} rows: {note}" for note, rows in notes.items()]
        unread: tuple[str, ...] = ()
        theirs = _published_space() if _is_published(list(repeats)) else None
        write = partial(_write_readings, repeats=repeats, path=path, space=theirs)
    else:
        mode = overrides.get("mode")
        entries = read_entries(path, None if mode is None else str(mode))
        values = dict(entries.identity or {})
        shared = _shared_error(values.pop("shared_error", 0.0), path)
        cut = _cut(values.pop("onnx_cut", None), path)
        specs, count = [row.spec for row in entries.rows], len(entries.rows)
        remarks = []
        unread = entries.ignored_columns
        if lacking := sum(row.is_bare_piece for row in entries.rows):
            remarks.append(
                f"{lacking} pieces of ONNX files came without their graphs: they price networks, "
                "but cannot be measured again from this table"
            )
        write = partial(
            _write_entries, rows=entries.rows, shared=shared, path=path, space=space, cut=cut
        )
    identity = Identity.from_dict(values | overrides)

    def fill(table: LatencyTable) -> None:
        _refuse_measured(table, specs, path)
        write(table)

    with LatencyTable.create(table_path, identity, fill) as table:
        written = set(entry_columns(table))  # by an export of any table
    if foreign := [name for name in unread if name not in written]:
        remarks.append(f"columns that are not part of an entry: {', '.join(foreign)[:1000]}")
    return ImportReport(path, table_path, count, len(specs), count - len(specs), tuple(remarks))


def _identity_of_npy(
    path: Path, specs: Sequence[OpSpec], overrides: Mapping[str, str | int]
) -> tuple[dict[str, str | int], str]:
    """Fields of the identity that a FasterSeg table is given, and what that assumes.

    Raises:
        IdentityError: it is not the published table, and who measured it is not said.
    """
    published = FASTERSEG_IDENTITY.to_dict()
    size, classes = _size_and_classes(specs)
    is_published = _is_published(specs)
    is_theirs = all(overrides.get(name, published[name]) == published[name] for name in _ASKED)
    if is_published and is_theirs:
        assumed = published
    else:
        missing = [name for name in _ASKED if name not in overrides]
        if missing:
            (height, width), told = size, ", ".join(map(str, sorted(classes))) or "no head"
            why = (
                "another device than the published table's is named"
                if is_published
                else f"this is not the published table (images of {height}x{width}, classes: "
                f"{told}), and the file does not say what it was measured on"
            )
            options = " ".join(f"--identity {name}=..." for name in missing)
            raise IdentityError(f"{path}: {why}: add {options}")
        assumed = {
            name: published[name]
            for name in ("precision", "statistic", "protocol_version")
            if name not in overrides
        }
    left = {name: value for name, value in assumed.items() if name not in overrides and value != ""}
    shown = ", ".join(f"{name}={value}" for name, value in left.items())
    return assumed, f"assumed, since the file does not say: {shown or 'nothing'}"


def _size_and_classes(specs: Sequence[OpSpec]) -> tuple[tuple[int, ...], set[int]]:
    """(height, width) of the largest map, and the classes of the heads."""
    size = max(shape[1:] for spec in specs for shape in spec.inputs)
    return size, {spec.out_channels for spec in specs if spec.kind == "head"}


def _is_published(specs: Sequence[OpSpec]) -> bool:
    """Whether op specs are of the space and image size of the published table."""
    return _size_and_classes(specs) == (_PUBLISHED_SIZE, {_PUBLISHED_CLASSES})


def _published_space() -> dict[str, object]:
    """The space of the published table, as a run keeps one."""
    return FasterSegSpace().to_dict() | {"input_size": list(_PUBLISHED_SIZE), "batch": [1]}


def _refuse_measured(table: LatencyTable, specs: Sequence[OpSpec], path: Path) -> None:
    measured = measured_keys(table)
    if clash := [spec.key for spec in specs if spec.key in measured]:
        raise TableError(
            f"{table.title} holds measurements of {len(clash)} of the operator "
            f"configurations in {path}, such as "
            f"{clash[0]}: an import never replaces measurements; import into another table"
        )


def _start(
    table: LatencyTable, path: Path, count: int, space: Mapping[str, object] | None = None
) -> int:
    settings = {"file": path.name, "rows": count}
    return recording.start_run(table, "import", settings=settings, environment={}, space=space)


def _write_readings(
    table: LatencyTable,
    repeats: Mapping[OpSpec, Sequence[float]],
    path: Path,
    space: Mapping[str, object] | None,
) -> None:
    """Each repeat of an op spec as a pass of its own; entries follow as from any measurement."""
    ids = recording.add_op_specs(table, repeats)
    run_id = _start(table, path, sum(len(readings) for readings in repeats.values()), space)
    for index in range(max(len(readings) for readings in repeats.values())):
        pass_id = recording.start_pass(table, run_id, index)
        readings = {
            ids[spec.key]: values[index] for spec, values in repeats.items() if index < len(values)
        }
        recording.add_readings(table, pass_id, readings)
    if space is not None:
        with table.writing() as db:
            set_fact(db, "source", PUBLISHED_SOURCE)
            set_fact(db, "excluded_kinds", PUBLISHED_EXCLUDES)
    recording.end_run(table, run_id, "imported")
    summarise(table)


def _shared_error(value: object, path: Path) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value <= MOST_SHARED_ERROR
    ):
        raise ImportFileError(
            f"{path}: shared_error is a relative half-width from 0 to {MOST_SHARED_ERROR:g}, "
            f"received {value!r}"
        )
    return float(value)


def _cut(value: object, path: Path) -> str | None:
    if value is None or value in subgraphs.CUTS:
        return None if value is None else str(value)
    raise ImportFileError(
        f"{path}: onnx_cut is {' or '.join(subgraphs.CUTS)}, received {str(value)[:80]!r}"
    )


def _write_entries(
    table: LatencyTable,
    rows: Sequence[EntryRow],
    shared: float,
    path: Path,
    space: Mapping[str, object] | None,
    cut: str | None,
) -> None:
    ids = recording.add_op_specs(table, [row.spec for row in rows])
    if pieces := [row.piece for row in rows if row.piece is not None]:
        subgraphs.add_pieces(table, pieces, cut or subgraphs.DEFAULT_CUT)
    elif cut is not None:
        subgraphs.keep_cut(table, cut)
    run_id = _start(table, path, len(rows), space)
    with table.writing() as db:
        for row in rows:
            own, own_ms = _own_errors(row, shared, table.identity)
            replace(
                db,
                "entries",
                op_spec_id=ids[row.spec.key],
                latency_ms=row.latency_ms,
                ci_low_ms=row.ci_low_ms,
                ci_high_ms=row.ci_high_ms,
                own_error=own,
                own_error_ms=own_ms,
                passes=row.passes or (1 if row.predicted_from is None else 0),
                n=row.n or (1 if row.predicted_from is None else 0),
                predicted_from=row.predicted_from,
                warnings=row.warnings,
                updated_at=now_text(),
            )
        set_fact(db, "shared_error", repr(shared))
    recording.end_run(table, run_id, "imported")


def _own_errors(
    row: EntryRow, shared: float, identity: Identity
) -> tuple[float | None, float | None]:
    """What of a row's interval other entries do not share: relative, and in milliseconds."""
    if row.ci_low_ms is None or row.ci_high_ms is None:
        return None, None
    size_ms = abs(row.latency_ms)
    if identity.is_in_context:
        half_ms = (row.ci_high_ms - row.ci_low_ms) / 2
        own_ms = max(0.0, half_ms**2 - (shared * size_ms) ** 2) ** 0.5
        return (own_ms / size_ms if size_ms else None), own_ms
    total = float(np.log(row.ci_high_ms / row.ci_low_ms)) / 2
    own = max(0.0, total**2 - shared**2) ** 0.5
    return own, own * size_ms


def export_file(table: LatencyTable, path: Path) -> int:
    """Write all entries with the table's identity to a CSV or Parquet file; how many.

    Pieces of ONNX files carry their graphs, unless one is too large for a cell.
    """
    frame = table.frame()
    if frame.empty:
        raise TableError(f"{table.title} has no entries to export")
    rounded = {entry.key: entry for entry in table}
    for column in ("latency_ms", "ci_low_ms", "ci_high_ms"):  # the view rounds, a file must not
        frame[column] = [getattr(rounded[key], column) for key in frame["op_spec"]]
    # The part of the intervals that all entries share travels beside the identity.
    identity = table.identity.to_dict() | {"shared_error": table.shared_error}
    if subgraphs.pieces_count(table):
        frame["graph"] = _graphs(table, frame["op_spec"])
        identity["onnx_cut"] = subgraphs.cut_of(table)
    write_entries(frame, path, identity=identity)
    return len(frame)


def _graphs(table: LatencyTable, keys: Iterable[str]) -> list[str | None]:
    """What the column ``graph`` says of each op spec: None where there is no graph, or too much."""
    held = subgraphs.contents(table)
    found = []
    for key in keys:
        content = held.get(subgraph_store.digest_of(OpSpec.parse(key)) or "", b"")
        text = base64.b64encode(content).decode()
        found.append(text if 0 < len(content) <= MAX_GRAPH_BYTES else None)
    return found
