"""Comparing: a table with itself (may it be believed?), with this machine, with another table.

``check`` gives one verdict, ``diff`` the entries that moved beyond their intervals, ``merge``
joins measurements of one identity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from sqlite_utils import Database

from latlut import recording
from latlut.environment import Environment, environment_changes
from latlut.errors import IdentityError, TableError
from latlut.opspec import OpSpec
from latlut.recording import SpecFacts
from latlut.summary import summarise
from latlut.table import Entry, LatencyTable

#: More disturbed entries than this share of all, and the table is not to be believed.
MAX_SUSPECT_SHARE = 0.10


@dataclass(frozen=True)
class Verdict:
    """Whether a table may be believed, and within what.

    ``entry_percent``: 95% of the entries have a 95% interval of at most this half-width;
    ``network_percent``: 95% of the networks of the latest validation were estimated within this;
    both None where nothing is known. ``problems`` are why it is not believed; ``suspects`` are
    entries with a warning; ``changes`` what is different on this machine now.
    """

    is_believed: bool
    entry_percent: float | None
    network_percent: float | None
    problems: tuple[str, ...]
    suspects: tuple[Entry, ...]
    changes: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if not self.is_believed:
            return "do not believe this table: " + "; ".join(self.problems)
        entry = (
            "an entry (how far, nothing says: it has no intervals)"
            if self.entry_percent is None
            else f"an entry within ±{self.entry_percent:.1f}%"
        )
        if self.network_percent is None:
            return f"believe {entry}; no network was measured against it yet: latlut validate"
        return f"believe {entry}, a whole network within ±{self.network_percent:.1f}%"


def check(table: LatencyTable, environment: Environment | None = None) -> Verdict:
    """One verdict on a table.

    Args:
        table: the table.
        environment: this machine's, as ``collect_environment`` gives it; compared with that of
            the table's latest run on the same host. None compares nothing.
    """
    problems: list[str] = []
    remarks: list[str] = []
    damage = table.rows("PRAGMA integrity_check")[0]["integrity_check"]
    if damage != "ok":
        problems.append(f"the file is damaged ({damage})")
    entries = list(table)
    if not entries:
        problems.append("it has no entries")
    failed = table.rows("SELECT op_spec, message FROM failed")
    if failed:
        problems.append(
            f"{len(failed)} op specs could not be measured: {failed[0]['op_spec']}, ..."
        )
    suspects = [entry for entry in entries if entry.warnings]
    impossible = [entry for entry in suspects if "peak figures" in entry.warnings]
    if impossible:
        problems.append(f"{len(impossible)} entries are faster than the hardware can be")
    # A wide or unknown interval is no problem of its own: the verdict says how wide they are.
    doubtful = [
        entry
        for entry in suspects
        if any(not text.startswith("interval") for text in entry.warnings.split("; "))
    ]
    if entries and len(doubtful) > MAX_SUSPECT_SHARE * len(entries):
        problems.append(f"{len(doubtful)} of {len(entries)} entries were taken while disturbed")
    widths = [
        50 * (entry.ci_high_ms - entry.ci_low_ms) / entry.latency_ms
        for entry in entries
        if entry.ci_low_ms is not None and entry.ci_high_ms is not None
    ]
    entry_percent = float(np.quantile(widths, 0.95)) if widths else None
    if widths and len(widths) < len(entries):
        remarks.append(f"{len(entries) - len(widths)} entries have no interval")
    latest = table.rows("SELECT id, status FROM runs ORDER BY id DESC LIMIT 1")
    remarks += [
        f"run {row['id']} ended as {row['status']!r}: repeat it to complete the table"
        for row in latest
        if row["status"] not in ("done", "imported")
    ]
    return Verdict(
        not problems,
        entry_percent,
        _network_percent(table),
        tuple(problems),
        tuple(sorted(suspects, key=lambda entry: -(entry.own_error or 0.0))),
        tuple(_changes(table, environment)),
        tuple(remarks),
    )


def _network_percent(table: LatencyTable) -> float | None:
    rows = table.rows(
        "SELECT abs(2 * estimated_ms / (measured_first_ms + measured_second_ms) - 1) AS error"
        " FROM validation_networks WHERE validation_id = (SELECT max(id) FROM validations)"
    )
    return 100 * float(np.quantile([row["error"] for row in rows], 0.95)) if rows else None


def _changes(table: LatencyTable, environment: Environment | None) -> list[str]:
    rows = table.rows(
        "SELECT environment FROM runs WHERE kind = 'profile' ORDER BY id DESC LIMIT 1"
    )
    if environment is None or not rows:
        return []
    then = json.loads(rows[0]["environment"])
    if then.get("host") != environment.get("host"):
        return [f"measured on host {then.get('host')}, this is {environment.get('host')}"]
    return environment_changes(then, environment)


@dataclass(frozen=True)
class Move:
    """An op spec in two tables; ``ratio`` is after / before, ``bound`` what noise explains."""

    key: str
    before_ms: float
    after_ms: float
    ratio: float
    bound: float | None

    @property
    def has_moved(self) -> bool:
        """Beyond what the two intervals explain."""
        return self.bound is not None and abs(np.log(self.ratio)) > self.bound


@dataclass(frozen=True)
class Difference:
    """What differs between two tables.

    ``overall`` is the median ratio after / before; ``moves`` every common op spec, the largest
    change first; ``by_chance`` how many would seem to move if nothing had.
    """

    identity: tuple[str, ...]
    overall: float
    moves: tuple[Move, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def moved(self) -> tuple[Move, ...]:
        """The op specs that moved beyond their intervals."""
        return tuple(move for move in self.moves if move.has_moved)

    @property
    def by_chance(self) -> float:
        """Op specs expected beyond their 95% intervals if nothing had changed."""
        return 0.05 * sum(move.bound is not None for move in self.moves)


def diff(before: LatencyTable, after: LatencyTable) -> Difference:
    """Which entries moved beyond their intervals from one table to another.

    An entry moved if |log(after / before)| exceeds the root of the sum of the squares of both
    half-widths, what each table's entries share included. Tables of different identity may be
    compared (another driver, another engine); ``identity`` says what differs.
    """
    first = {entry.key: entry for entry in before}
    second = {entry.key: entry for entry in after}
    common = sorted(first.keys() & second.keys())
    shared = float(np.hypot(before.shared_error, after.shared_error))
    moves = []
    for key in common:
        a, b = first[key], second[key]
        bound = None
        if a.own_error is not None and b.own_error is not None:
            bound = float(np.sqrt(a.own_error**2 + b.own_error**2 + shared**2))
        moves.append(Move(key, a.latency_ms, b.latency_ms, b.latency_ms / a.latency_ms, bound))
    moves.sort(key=lambda move: -abs(np.log(move.ratio)))
    overall = float(np.exp(np.median([np.log(m.ratio) for m in moves]))) if moves else float("nan")
    return Difference(
        tuple(before.identity.differences(after.identity)),
        overall,
        tuple(moves),
        tuple(sorted(first.keys() - second.keys())),
        tuple(sorted(second.keys() - first.keys())),
    )


@dataclass
class MergeReport:
    """What a merge added; ``skipped_runs`` were in the table already."""

    runs: int = 0
    measurements: int = 0
    entries: int = 0
    skipped_runs: int = 0
    conflicts: list[str] = field(default_factory=list)


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
    measured = {
        row["key"]: row["n"]
        for row in source.rows(
            "SELECT key, count(*) AS n FROM measurements JOIN op_specs ON op_specs.id = op_spec_id"
            " GROUP BY key"
        )
    }
    for entry in source:
        known = into.lookup(entry.spec) if entry.spec in into else None
        if entry.key not in measured and known and known.latency_ms != entry.latency_ms:
            report.conflicts.append(entry.key)
    if report.conflicts:
        raise TableError(
            f"{source.path} and {into.path} hold different latencies without measurements for "
            f"{len(report.conflicts)} op specs, such as {report.conflicts[0]}: compare them with "
            f"latlut table diff"
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
                db.execute(
                    "INSERT INTO entries (op_spec_id, latency_ms, ci_low_ms, ci_high_ms, own_error,"
                    " passes, n, roofline_ms, warnings, updated_at)"
                    " VALUES (?,?,?,?,?,?,?,?,?,datetime())",
                    [
                        ids[entry.key],
                        entry.latency_ms,
                        entry.ci_low_ms,
                        entry.ci_high_ms,
                        entry.own_error,
                        entry.passes,
                        entry.n,
                        entry.roofline_ms,
                        entry.warnings,
                    ],
                )
                report.entries += 1
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
        run_id = _insert(db, "runs", run, id=None)
        report.runs += 1
        for row in source.rows("SELECT * FROM passes WHERE run_id = ?", [run["id"]]):
            pass_id = _insert(db, "passes", row, id=None, run_id=run_id)
            for name in ("sentinel_readings", "measurements"):
                for item in source.rows(f"SELECT * FROM {name} WHERE pass_id = ?", [row["id"]]):
                    spec_id = spec_of[item["op_spec_id"]]
                    _insert(db, name, item, id=None, pass_id=pass_id, op_spec_id=spec_id)
                    report.measurements += name == "measurements"


def _insert(db: Database, name: str, row: Mapping[str, object], **changes: object) -> int:
    values = {**row, **changes}
    columns = ", ".join(values)
    marks = ", ".join("?" for _ in values)
    cursor = db.execute(f"INSERT INTO {name} ({columns}) VALUES ({marks})", list(values.values()))
    return int(cursor.lastrowid or 0)
