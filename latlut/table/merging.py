"""Merging: the measurements of one identity from two files in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlite_utils import Database

from latlut.errors import IdentityError, TableError
from latlut.opspec import OpSpec
from latlut.shell import command
from latlut.table import recording
from latlut.table.examination import refuse_faults
from latlut.table.pairs import SpecPairs
from latlut.table.recording import SpecFacts
from latlut.table.storage import table_to_make
from latlut.table.subgraphs import copy_graphs
from latlut.table.summary import SUMMARISED, summarise
from latlut.table.table import LatencyTable
from latlut.table.writing import insert, replace, set_fact, update
from latlut.timestamps import now_text


@dataclass
class MergeReport:
    """What a merge added."""

    runs: int = 0
    """That were not there; ``grown_runs`` were, and had gone on since; ``skipped_runs`` were there
    with all they have."""
    measurements: int = 0
    entries: int = 0
    """``measurements``, ``entries``: how many; entries are those without measurements."""
    predicted: int = 0
    """Predicted entries, of op specs that had no entry."""
    skipped_runs: int = 0
    grown_runs: int = 0
    conflicts: list[str] = field(default_factory=list)
    """Keys of op specs whose entries contradict each other."""

    @property
    def has_added(self) -> bool:
        """Whether anything is new."""
        return bool(self.runs or self.grown_runs or self.entries or self.predicted)


def merge_files(into: str | Path, sources: Sequence[str | Path]) -> list[tuple[Path, MergeReport]]:
    """Merge tables into a file, which is made if it does not exist: all of them or none.

    Args:
        into: the file, or a bare name (``table_to_make``).
        sources: files or bare names (``find_table``); at least one.

    Returns:
        Each source's file, and what it added.

    Raises:
        IdentityError, TableError: see ``merge``; also a file that is no table.
    """
    place = table_to_make(into)
    with LatencyTable.open(place if place.exists() else sources[0]) as first:
        identity = first.identity
    reports: list[tuple[Path, MergeReport]] = []

    def fill(target: LatencyTable) -> None:
        reports.clear()  # where another process has made the file meanwhile, it is filled again
        for name in sources:
            with LatencyTable.open(name) as source:
                reports.append((source.path, merge(target, source)))

    LatencyTable.create(place, identity, fill).close()
    return reports


def merge(into: LatencyTable, source: LatencyTable) -> MergeReport:
    """Add what another table has and this one lacks, all or nothing.

    The source is read as it is at one instant, so that its sweep may go on meanwhile; merged
    again later, the rest of the same runs is added.

    Args:
        into: writable.
        source: of the same identity.

    Raises:
        IdentityError: names the fields that differ.
        TableError: the source is damaged, or an imported entry of it contradicts one that is
            there; nothing was written.
    """
    if into.path.resolve() == source.path.resolve():
        raise TableError(f"{into.path} cannot be merged into itself")
    if differences := into.identity.differences(source.identity):
        raise IdentityError(
            f"{source.path} is of another identity than {into.path} (here: {into.path}):\n  "
            + "\n  ".join(differences)
        )
    report = MergeReport()
    with source.snapshot(), into.writing() as db:
        pairs = SpecPairs(source, into)
        refuse_faults(source, pairs)
        pairs = _copy_op_specs(into, source, pairs)
        unmeasured = _unmeasured_entries(into, source, pairs)
        if conflicts := unmeasured[unmeasured["differs"]]["there"].tolist():
            report.conflicts = _keys(source, conflicts)
            raise _conflict(into, source, report.conflicts)
        copy_graphs(into, source)
        _copy_runs(source, pairs, report, db)
        new = unmeasured[unmeasured["is_new"]]["there"].tolist()
        report.entries = _copy_entries(source, pairs, new, db)
        _copy_facts(into, source, db)
        if report.has_added:
            summarise(into)
        # Predictions come last: what either table has measured needs none.
        predicted = _new_predictions(into, source, pairs)
        report.predicted = _copy_entries(source, pairs, predicted, db)
    return report


def _conflict(into: LatencyTable, source: LatencyTable, keys: Sequence[str]) -> TableError:
    return TableError(
        f"{source.path} and {into.path} hold different latencies without measurements for "
        f"{len(keys)} operator configurations, such as {min(keys)}: compare them with "
        + command("table", "diff", into.path, source.path)
    )


def _copy_op_specs(into: LatencyTable, source: LatencyTable, pairs: SpecPairs) -> SpecPairs:
    """Make sure that the op specs have rows; which row there is which here."""
    if len(pairs.unknown):
        specs = [OpSpec.parse(key) for key in _keys(source, pairs.unknown.tolist())]
        recording.add_op_specs(into, specs)
        pairs = SpecPairs(source, into)
    lacking = {number for (number,) in into.tuples("SELECT id FROM op_specs WHERE macs IS NULL")}
    if lacking:
        known = source.tuples(
            "SELECT id, macs, params, moved_bytes FROM op_specs WHERE macs IS NOT NULL"
        )
        here = pairs.here(np.array([row[0] for row in known], dtype=np.int64)).tolist()
        facts = {
            number: SpecFacts(*values)
            for number, (_, *values) in zip(here, known, strict=True)
            if number in lacking
        }
        recording.add_facts(into, facts)
    return pairs


def _keys(table: LatencyTable, ids: Sequence[int]) -> list[str]:
    """The keys of op specs, by row id."""
    with table.reading() as db:
        sql = "SELECT key FROM op_specs WHERE id = ?"
        return [db.execute(sql, [number]).fetchone()[0] for number in ids]


def _latencies(table: LatencyTable) -> np.ndarray:
    """(n,) row id of the op spec and milliseconds of every entry that was not predicted, by id."""
    with table.reading() as db:
        rows = db.execute(
            "SELECT op_spec_id, coalesce(CAST(latency_ms AS REAL), 0) FROM entries"
            " WHERE predicted_from IS NULL ORDER BY op_spec_id"
        )
        return np.fromiter(rows, [("id", np.int64), ("ms", np.float64)])


def _unmeasured_entries(into: LatencyTable, source: LatencyTable, pairs: SpecPairs) -> np.ndarray:
    """The source's entries without measurements: (n,) row id ``there`` of the op spec, whether it
    ``is_new`` here, and whether it ``differs`` from the entry here."""
    measured = source.tuples("SELECT DISTINCT op_spec_id FROM measurements")
    offered = _latencies(source)
    offered = offered[~np.isin(offered["id"], np.array(measured, dtype=np.int64))]
    held = _latencies(into) if len(offered) else offered
    here = pairs.here(offered["id"])
    found = np.zeros(
        len(offered), [("there", np.int64), ("is_new", np.bool_), ("differs", np.bool_)]
    )
    found["there"], found["is_new"] = offered["id"], ~np.isin(here, held["id"])
    is_held = ~found["is_new"]
    own_ms = held["ms"][np.searchsorted(held["id"], here[is_held])]
    found["differs"][is_held] = own_ms != offered["ms"][is_held]
    return found


def _new_predictions(into: LatencyTable, source: LatencyTable, pairs: SpecPairs) -> list[int]:
    """The source's row ids of op specs that are predicted there and have no entry here."""
    sql = "SELECT op_spec_id FROM entries WHERE predicted_from IS NOT NULL ORDER BY op_spec_id"
    predicted = np.array([number for (number,) in source.tuples(sql)], dtype=np.int64)
    if not len(predicted):
        return []
    held = [number for (number,) in into.tuples("SELECT op_spec_id FROM entries")]
    found: list[int] = predicted[~np.isin(pairs.here(predicted), held)].tolist()
    return found


def _copy_entries(
    source: LatencyTable, pairs: SpecPairs, numbers: Sequence[int], db: Database
) -> int:
    """Copy the entries of op specs of these row ids there; how many."""
    here = pairs.here(np.array(numbers, dtype=np.int64)).tolist()
    for number, own in zip(numbers, here, strict=True):
        (entry,) = source.rows("SELECT * FROM entries WHERE op_spec_id = ?", [number])
        replace(db, "entries", **entry | {"op_spec_id": own, "updated_at": now_text()})
    return len(numbers)


def _copy_facts(into: LatencyTable, source: LatencyTable, db: Database) -> None:
    """Copy what is not known here: the target's peak figures, the launch floor, ..."""
    for row in source.rows("SELECT name, value FROM facts WHERE name <> ?", [SUMMARISED]):
        if into.fact(row["name"]) is None:
            set_fact(db, row["name"], row["value"])


def _copy_runs(source: LatencyTable, pairs: SpecPairs, report: MergeReport, db: Database) -> None:
    """Copy runs, and what is new of known ones, with all that belongs to them."""
    for run in source.rows("SELECT * FROM runs ORDER BY id"):
        known = db.execute(
            "SELECT id, status, ended_at FROM runs"
            " WHERE started_at = ? AND environment = ? AND settings = ?",
            [run["started_at"], run["environment"], run["settings"]],
        ).fetchone()
        if known is None:
            run_id, has_changed = insert(db, "runs", **run | {"id": None}), False
        else:
            run_id, has_changed = known[0], _has_ended_since(run, *known[1:])
        if has_changed:
            names = ("status", "ended_at", "seconds", "environment_end")
            update(db, "runs", run_id, **{name: run[name] for name in names})
        added = _copy_run(source, run["id"], run_id, pairs, report, db)
        if known is None:
            report.runs += 1
        elif added or has_changed:
            report.grown_runs += 1
        else:
            report.skipped_runs += 1


def _has_ended_since(run: Mapping[str, Any], status: str, ended_at: str | None) -> bool:
    """Whether the source knows how a run ended, and this table does not."""
    if ended_at is not None:
        return False
    return run["ended_at"] is not None or (status == "running" and run["status"] != "running")


def _copy_run(
    source: LatencyTable,
    number: int,
    run_id: int,
    pairs: SpecPairs,
    report: MergeReport,
    db: Database,
) -> int:
    """Copy what run ``number`` of the source has and run ``run_id`` here lacks; how many rows."""
    rows = source.rows("SELECT * FROM passes WHERE run_id = ?", [number])
    there = {
        tuple(row[1:]): row[0]
        for row in db.execute(
            "SELECT id, pass_index, started_at, device FROM passes WHERE run_id = ?", [run_id]
        ).fetchall()
    }
    passes: dict[int | None, int | None] = {None: None}
    added = 0
    for row in rows:
        pass_id = there.get((row["pass_index"], row["started_at"], row["device"]))
        if pass_id is None:
            pass_id = insert(db, "passes", **row | {"id": None, "run_id": run_id})
            added += 1
        passes[row["id"]] = pass_id

    def own_specs(numbers: Sequence[int]) -> list[int]:
        return pairs.here(np.array(numbers, dtype=np.int64)).tolist()

    def own_passes(numbers: Sequence[int | None]) -> list[int | None]:
        return [passes[number] for number in numbers]

    for row in rows:
        ends = (row["id"], passes[row["id"]])
        measured = _copy_new(source, db, _MEASUREMENTS, ends, own_specs)
        report.measurements += measured
        added += measured + _copy_new(source, db, _SENTINELS, ends, own_specs)
    return added + _copy_new(source, db, _GPU_STATES, (number, run_id), own_passes)


@dataclass(frozen=True)
class _Belonging:
    """An SQL table of rows that belong to a row of another, and what tells them apart there."""

    name: str
    owner: str
    key: tuple[str, ...]
    """The first column refers to a row of a third."""


_MEASUREMENTS = _Belonging("measurements", "pass_id", ("op_spec_id",))
_SENTINELS = _Belonging(
    "sentinel_readings", "pass_id", ("op_spec_id", "group_index", "at", "reading_ms")
)
_GPU_STATES = _Belonging(
    "gpu_states", "run_id", ("pass_id", "group_index", "phase", "at", "device")
)


def _copy_new(
    source: LatencyTable,
    db: Database,
    kind: _Belonging,
    owners: tuple[int, int | None],
    translated: Callable[[list[Any]], Sequence[int | None]],
) -> int:
    """Copy the rows of one owner that the same owner here lacks; how many.

    Args:
        source: where they come from.
        db: where they go.
        kind: of the rows.
        owners: the owner's row id there and here.
        translated: gives for row ids there, that the rows refer to, those here.
    """
    columns = (
        f"SELECT {', '.join(kind.key)}, id FROM {kind.name} WHERE {kind.owner} = ? ORDER BY id"
    )
    rows = source.tuples(columns, [owners[0]])
    references = translated([row[0] for row in rows])
    offered = [(here, *row[1:-1]) for here, row in zip(references, rows, strict=True)]
    held = [row[:-1] for row in db.execute(columns, [owners[1]]).fetchall()]
    if offered == held:
        return 0
    there, added = Counter(held), 0
    for key, row in zip(offered, rows, strict=True):
        if there[key]:
            there[key] -= 1
            continue
        (item,) = source.rows(f"SELECT * FROM {kind.name} WHERE id = ?", [row[-1]])
        own = {"id": None, kind.owner: owners[1], kind.key[0]: key[0]}
        insert(db, kind.name, **item | own)
        added += 1
    return added
