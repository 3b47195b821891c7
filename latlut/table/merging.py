"""Merging: the measurements of one identity from two files in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlite_utils import Database

from latlut.errors import IdentityError, TableError
from latlut.opspec import OpSpec
from latlut.shell import command
from latlut.table import recording
from latlut.table.history import measured_keys
from latlut.table.recording import SpecFacts
from latlut.table.storage import find_table
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable
from latlut.table.writing import insert, set_fact
from latlut.timestamps import now_text


@dataclass
class MergeReport:
    """What a merge added; ``skipped_runs`` were in the table already."""

    runs: int = 0
    measurements: int = 0
    entries: int = 0
    skipped_runs: int = 0
    conflicts: list[str] = field(default_factory=list)


def open_or_make(path: str | Path, source: str | Path) -> LatencyTable:
    """The table to merge into, writable; a file that does not exist is made as the source's kind.

    Raises:
        TableError: either is no table, or a bare name that means none.
    """
    if find_table(path).exists():
        return LatencyTable.open(path, is_writable=True)
    with LatencyTable.open(source) as first:
        return LatencyTable.create(find_table(path), first.identity)


def merge(into: LatencyTable, source: LatencyTable) -> MergeReport:
    """Add another table's runs and entries, all or nothing; a run that is there is skipped.

    Args:
        into: writable.
        source: of the same identity.

    Raises:
        IdentityError: names the fields that differ.
        TableError: an imported entry of the source contradicts one that is there.
    """
    if into.path.resolve() == source.path.resolve():
        raise TableError(f"{into.path} cannot be merged into itself")
    if differences := into.identity.differences(source.identity):
        raise IdentityError(
            f"{source.path} is of another identity than {into.path} (here: {into.path}):\n  "
            + "\n  ".join(differences)
        )
    report = MergeReport()
    measured = measured_keys(source)
    for entry in source:
        known = into.lookup(entry.spec) if entry.spec in into else None
        if entry.key not in measured and known and known.latency_ms != entry.latency_ms:
            report.conflicts.append(entry.key)
    if report.conflicts:
        raise TableError(
            f"{source.path} and {into.path} hold different latencies without measurements for "
            f"{len(report.conflicts)} op specs, such as {report.conflicts[0]}: compare them with "
            + command("table", "diff", into.path, source.path)
        )
    facts = {
        OpSpec.parse(row["key"]): SpecFacts(row["macs"], row["params"], row["moved_bytes"])
        for row in source.rows("SELECT key, macs, params, moved_bytes FROM op_specs")
    }
    ids = recording.add_op_specs(into, facts, facts)
    with into.writing() as db:
        _copy_runs(source, ids, report, db)
        for entry in source:
            if entry.key not in measured and entry.spec not in into:
                columns = {name: value for name, value in vars(entry).items() if name != "key"}
                insert(db, "entries", op_spec_id=ids[entry.key], updated_at=now_text(), **columns)
                report.entries += 1
        for row in source.rows("SELECT name, value FROM facts"):
            if into.fact(row["name"]) is None:  # the target's peak figures, the launch floor, ...
                set_fact(db, row["name"], row["value"])
    summarise(into)
    return report


def _copy_runs(
    source: LatencyTable, ids: Mapping[str, int], report: MergeReport, db: Database
) -> None:
    """Copy runs with their passes, readings and measurements under new row ids."""
    spec_of = {row["id"]: ids[row["key"]] for row in source.rows("SELECT id, key FROM op_specs")}
    for run in source.rows("SELECT * FROM runs ORDER BY id"):
        same = db.execute(
            "SELECT 1 FROM runs WHERE started_at = ? AND environment = ? AND settings = ?",
            [run["started_at"], run["environment"], run["settings"]],
        ).fetchone()
        if same:
            report.skipped_runs += 1
            continue
        run_id = insert(db, "runs", **run | {"id": None})
        report.runs += 1
        passes: dict[int | None, int | None] = {None: None}
        for row in source.rows("SELECT * FROM passes WHERE run_id = ?", [run["id"]]):
            pass_id = insert(db, "passes", **row | {"id": None, "run_id": run_id})
            passes[row["id"]] = pass_id
            for name in ("sentinel_readings", "measurements"):
                for item in source.rows(f"SELECT * FROM {name} WHERE pass_id = ?", [row["id"]]):
                    spec_id = spec_of[item["op_spec_id"]]
                    own = {"id": None, "pass_id": pass_id, "op_spec_id": spec_id}
                    insert(db, name, **item | own)
                    report.measurements += name == "measurements"
        for state in source.rows("SELECT * FROM gpu_states WHERE run_id = ?", [run["id"]]):
            own = {"id": None, "run_id": run_id, "pass_id": passes[state["pass_id"]]}
            insert(db, "gpu_states", **state | own)
