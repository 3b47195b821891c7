"""Merging: the measurements of one identity from two files in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from latlut.errors import IdentityError, TableError
from latlut.opspec import OpSpec
from latlut.shell import command
from latlut.table import recording
from latlut.table.examination import refuse_faults
from latlut.table.history import measured_keys
from latlut.table.recording import SpecFacts
from latlut.table.storage import find_table
from latlut.table.subgraphs import copy_graphs
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable
from latlut.table.writing import insert, set_fact, update
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
    skipped_runs: int = 0
    grown_runs: int = 0
    conflicts: list[str] = field(default_factory=list)
    """Keys of op specs whose entries contradict each other."""

    @property
    def has_added(self) -> bool:
        """Whether anything is new."""
        return bool(self.runs or self.grown_runs or self.entries)


def merge_files(into: str | Path, sources: Sequence[str | Path]) -> list[tuple[Path, MergeReport]]:
    """Merge tables into a file, which is made if it does not exist: all of them or none.

    Args:
        into: the file, or a bare name (``find_table``).
        sources: likewise; at least one.

    Returns:
        Each source's file, and what it added.

    Raises:
        IdentityError, TableError: see ``merge``; also a file that is no table.
    """
    place = find_table(into)
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
    with source.snapshot():
        refuse_faults(source, known=into)
        measured = measured_keys(source)
        with into.writing() as db:
            held, offered = _latencies(into), _latencies(source)
            unmeasured = offered.keys() - measured
            report.conflicts = [
                key for key in unmeasured if held.get(key, offered[key]) != offered[key]
            ]
            if report.conflicts:
                raise _conflict(into, source, report.conflicts)
            ids = _copy_op_specs(into, source)
            copy_graphs(into, source)
            _copy_runs(source, ids, report, db)
            report.entries = _copy_entries(source, ids, unmeasured - held.keys(), db)
            _copy_facts(into, source, db)
            if report.has_added:
                summarise(into)
    return report


def _conflict(into: LatencyTable, source: LatencyTable, keys: Sequence[str]) -> TableError:
    return TableError(
        f"{source.path} and {into.path} hold different latencies without measurements for "
        f"{len(keys)} op specs, such as {min(keys)}: compare them with "
        + command("table", "diff", into.path, source.path)
    )


def _copy_op_specs(into: LatencyTable, source: LatencyTable) -> dict[int, int]:
    """Make sure that the op specs have rows; row id in the source -> row id here."""
    ids = dict(into.tuples("SELECT key, id FROM op_specs"))
    there = source.tuples("SELECT key, id FROM op_specs")
    ids |= recording.add_op_specs(into, [OpSpec.parse(key) for key, _ in there if key not in ids])
    lacking = {key for (key,) in into.tuples("SELECT key FROM op_specs WHERE macs IS NULL")}
    known = source.tuples(
        "SELECT key, macs, params, moved_bytes FROM op_specs WHERE macs IS NOT NULL"
    )
    facts = {ids[key]: SpecFacts(*values) for key, *values in known if key in lacking}
    recording.add_facts(into, facts)
    return {number: ids[key] for key, number in there}


def _latencies(table: LatencyTable) -> dict[str, float]:
    """Key -> milliseconds of every entry."""
    return dict(
        table.tuples("SELECT key, latency_ms FROM entries JOIN op_specs ON id = op_spec_id")
    )


def _copy_entries(
    source: LatencyTable, ids: Mapping[int, int], keys: Set[str], db: Database
) -> int:
    """Copy the entries of these op specs; how many."""
    if not keys:
        return 0
    own = {key: ids[number] for key, number in source.tuples("SELECT key, id FROM op_specs")}
    for entry in source:
        if entry.key in keys:
            columns = {name: value for name, value in vars(entry).items() if name != "key"}
            insert(db, "entries", op_spec_id=own[entry.key], updated_at=now_text(), **columns)
    return len(keys)


def _copy_facts(into: LatencyTable, source: LatencyTable, db: Database) -> None:
    """Copy what is not known here: the target's peak figures, the launch floor, ..."""
    for row in source.rows("SELECT name, value FROM facts"):
        if into.fact(row["name"]) is None:
            set_fact(db, row["name"], row["value"])


def _copy_runs(
    source: LatencyTable, ids: Mapping[int, int], report: MergeReport, db: Database
) -> None:
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
        added = _copy_run(source, run["id"], run_id, ids, report, db)
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
    ids: Mapping[int, int],
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

    def own_spec(item: Mapping[str, Any]) -> dict[str, object]:
        return {"op_spec_id": ids[item["op_spec_id"]]}

    def own_pass(item: Mapping[str, Any]) -> dict[str, object]:
        return {"pass_id": passes[item["pass_id"]]}

    for row in rows:
        ends = (row["id"], passes[row["id"]])
        measured = _copy_new(source, db, _MEASUREMENTS, ends, own_spec)
        report.measurements += measured
        added += measured + _copy_new(source, db, _SENTINELS, ends, own_spec)
    return added + _copy_new(source, db, _GPU_STATES, (number, run_id), own_pass)


@dataclass(frozen=True)
class _Belonging:
    """An SQL table of rows that belong to a row of another, and what tells them apart there."""

    name: str
    owner: str
    key: tuple[str, ...]


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
    translated: Callable[[Mapping[str, Any]], dict[str, object]],
) -> int:
    """Copy the rows of one owner that the same owner here lacks; how many.

    Args:
        source: where they come from.
        db: where they go.
        kind: of the rows.
        owners: the owner's row id there and here.
        translated: the columns of a row that hold other row ids here.
    """
    columns = f"SELECT id, {', '.join(kind.key)} FROM {kind.name} WHERE {kind.owner} = ?"
    there = Counter(tuple(row[1:]) for row in db.execute(columns, [owners[1]]).fetchall())
    added = 0
    for row in source.rows(f"{columns} ORDER BY id", [owners[0]]):
        key = tuple((row | translated(row))[name] for name in kind.key)
        if there[key]:
            there[key] -= 1
            continue
        (item,) = source.rows(f"SELECT * FROM {kind.name} WHERE id = ?", [row["id"]])
        own = {"id": None, kind.owner: owners[1]} | translated(item)
        insert(db, kind.name, **item | own)
        added += 1
    return added
