"""``latlut table``: inspect, query, compare, merge, export and import tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click

from latlut.cli.choices import FractionType, space_option
from latlut.cli.commands import Group
from latlut.cli.names import NEW_TABLE, TABLE
from latlut.cli.options import csv_option, op_option
from latlut.cli.output import (
    json_option,
    note,
    print_json,
    print_json_rows,
    print_table,
    remark,
)
from latlut.cli.table_diff import print_diff, print_diff_json
from latlut.cli.table_info import print_info
from latlut.errors import LatlutError

_FILE = click.Path(path_type=Path)
#: Columns of ``latlut table query`` where none are named, and their titles.
USUAL_COLUMNS: Mapping[str, str] = {
    "op_spec": "operator configuration", "latency_ms": "latency, ms", "ci_low_ms": "95% from, ms",
    "ci_high_ms": "to, ms", "passes": "passes", "n": "runs", "gmacs_per_s": "GMAC/s",
    "roofline_ms": "roofline, ms", "predicted_from": "predicted from", "warnings": "warnings",
}  # fmt: skip
#: Of these, what a narrow terminal can spare.
_SPARE = ("passes", "runs", "roofline, ms", "GMAC/s")


@click.group(cls=Group)
def table() -> None:
    """Inspect, query, compare, merge, export and import tables.

    A table is named by its file, or by a bare name: NAME means profiles/NAME.db, else the only
    table there whose name begins with NAME-, else a table that ships with latlut.
    """


@table.command(short_help="What a table holds.")
@click.argument("name", type=TABLE, metavar="TABLE")
@json_option
def info(name: str, as_json: bool) -> None:
    """What a table holds: identity, runs, entries by kind, validations, calibrations."""
    from latlut.table.listing import overview
    from latlut.table.table import LatencyTable

    with LatencyTable.open(name) as opened:
        found, title = overview(opened), opened.title
        facts: dict[str, Any] = {
            "table": str(opened.path),
            "identity": opened.identity.to_dict(),
            "entries": len(opened),
            **({"source": source} if (source := opened.fact("source")) else {}),
            "predicted": opened.predicted_count,
            **found,
        }
    if as_json:
        print_json(facts)
        return
    print_info(facts | {"table": title}, found)


@table.command(short_help="Verdict: OK, CAUTION or NOT RELIABLE, and why.")
@click.argument("name", type=TABLE, metavar="TABLE")
@click.option(
    "--ok", type=FractionType(), default="5%", show_default=True,
    help="Largest error of entries and networks (95%) of a table that is OK.",
)  # fmt: skip
@click.option(
    "--caution", type=FractionType(), default="10%", show_default=True,
    help="Largest error of a table to be used with CAUTION; above it is NOT RELIABLE.",
)  # fmt: skip
@space_option
@click.option("--migrate", is_flag=True, help="First update the file of an older latlut.")
@json_option
def check(
    name: str, ok: float, caution: float, space_file: str | None, migrate: bool, as_json: bool
) -> None:
    """Verdict on a table: OK, CAUTION or NOT RELIABLE, and why.

    Also lists suspect entries and what has changed on this machine since. Exit code 1 if the table
    is NOT RELIABLE.

    \b
    latlut table check cpu --ok 2% --caution 5%
    """
    from latlut.engines import run_environment
    from latlut.spaces.own import own_space
    from latlut.table.subgraphs import shown_keys
    from latlut.table.table import LatencyTable
    from latlut.validation.verdict import Limits
    from latlut.validation.verdict import check as judge

    if space_file:
        own_space(space_file)
    limits = Limits(100 * ok, 100 * caution)
    with LatencyTable.open(name, is_writable=migrate) as opened:
        verdict = judge(opened, run_environment(), limits)
        path, title = opened.path, opened.title
        names = shown_keys(opened, (entry.key for entry in verdict.suspects))
    if as_json:
        print_json(
            {
                "table": str(path),
                "verdict": verdict.level.title,
                "is_reliable": verdict.is_reliable,
                "reasons": [
                    {"verdict": reason.level.title, "text": reason.text}
                    for reason in verdict.reasons
                ],
                "limits": vars(verdict.limits),
                "entry_percent": verdict.entry_percent,
                "network_percent": verdict.network_percent,
                "suspects": [
                    {"op_spec": e.key, "latency_ms": e.latency_ms, "warnings": e.warnings}
                    for e in verdict.suspects
                ],
                "changes": verdict.changes,
                "remarks": verdict.remarks,
            }
        )
    else:
        click.echo(f"{title}: {verdict.level.title}")
        for reason in verdict.reasons:
            note(f"  {reason.level.title}: {reason.text}")
        note(f"limits: {limits.describe()}")
        for text in verdict.remarks:
            note(f"remark: {text}")
        for text in verdict.changes:
            note(f"since it was measured: {text}")
        if verdict.suspects:
            note(f"suspect entries: {len(verdict.suspects)}")
            for entry in verdict.suspects[:10]:
                note(f"  {names[entry.key]}: {entry.latency_ms:.4g} ms, {entry.warnings}")
            if len(verdict.suspects) > 10:
                note("  ... all of them: the view `suspects` of the file")
    if not verdict.is_reliable:
        click.get_current_context().exit(1)


@table.command(short_help="Print entries, filtered and sorted.")
@click.argument("name", type=TABLE, metavar="TABLE")
@click.option("--kind", help="Entries of this operator.")
@op_option("Entry of this operator configuration")
@click.option("--where", help='SQL condition on the view `latencies`, e.g. "latency_ms > 1".')
@click.option(
    "--sort", metavar="COLUMN", default="op_spec", show_default=True,
    help="Column to sort by; -COLUMN for the largest first.",
)  # fmt: skip
@click.option(
    "--columns", metavar="A,B,...", help="Columns to show; `all` for all.",
    show_default="the usual ones",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most rows.")
@csv_option("Write the rows into a CSV file instead.")
@json_option
def query(
    name: str, kind: str | None, ops: tuple[str, ...], where: str | None, sort: str,
    columns: str | None, limit: int, csv_path: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Print entries of a table, filtered and sorted.

    \b
    latlut table query cpu --kind zoomed_conv --where "stride = 2"
    latlut table query cpu --sort -latency_ms --limit 10 --columns op_spec,latency_ms
    latlut table query cpu --columns all --limit 100000 --csv entries.csv
    """
    from latlut.files.writing import write_csv
    from latlut.opspec import OpSpec
    from latlut.table.listing import check_column, count_where, entries_where, entry_columns
    from latlut.table.subgraphs import shown_keys
    from latlut.table.table import LatencyTable

    with LatencyTable.open(name) as opened:
        keys = [opened.lookup(OpSpec.parse(text)).key for text in ops]
        found = entries_where(opened, kind, keys, where, limit + 1, sort)
        chosen, titles = tuple(USUAL_COLUMNS), tuple(USUAL_COLUMNS.values())
        if columns is not None:
            chosen = titles = tuple(
                entry_columns(opened) if columns == "all"
                else [check_column(opened, c.strip(), "--columns") for c in columns.split(",")]
            )  # fmt: skip
        if as_json:
            kept = islice(found, limit)
            count = print_json_rows(
                kept if columns is None else ({c: row[c] for c in chosen} for row in kept)
            )
        else:
            rows = list(islice(found, limit))
            count = len(rows)
            names = shown_keys(opened, [row["op_spec"] for row in rows])
            cells = [[{**row, "op_spec": names[row["op_spec"]]}[c] for c in chosen] for row in rows]
            if csv_path is not None:
                write_csv(csv_path, chosen, cells)
                remark(f"{csv_path}: {count} entries")
            elif rows:
                print_table(titles, cells, spare=_SPARE if columns is None else ())
        is_cut = next(found, None) is not None
        total = count_where(opened, kind, keys, where) if is_cut else count
    if not count:
        remark("no entry matches")
    if is_cut:
        remark(f"showing {count} of {total}; --limit {total} shows all")


@table.command(short_help="Which entries moved between two tables.")
@click.argument("before", type=TABLE, metavar="BEFORE")
@click.argument("after", type=TABLE, metavar="AFTER")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Most rows.")
@json_option
def diff(before: str, after: str, limit: int, as_json: bool) -> None:
    """Which entries moved beyond their intervals from BEFORE to AFTER.

    For a driver upgrade, another engine version, thermal trouble.
    """
    from latlut.table.diff import diff as compare
    from latlut.table.subgraphs import shown_keys
    from latlut.table.table import LatencyTable

    with LatencyTable.open(before) as first, LatencyTable.open(after) as second:
        found, titles = compare(first, second), (first.title, second.title)
        common = [move.key for move in found.moves] + list(found.predicted)
        names = shown_keys(first, [*common, *found.only_before])
        names |= shown_keys(second, found.only_after)
    if as_json:
        print_diff_json(found)
    else:
        print_diff(found, titles, names, limit)


@table.command(short_help="Add the measurements of other tables to a table.")
@click.argument("into", type=NEW_TABLE, metavar="INTO")
@click.argument("sources", nargs=-1, required=True, type=TABLE, metavar="SOURCE...")
@json_option
def merge(into: Path, sources: tuple[str, ...], as_json: bool) -> None:
    """Add the measurements of SOURCES to the table INTO; all must have one identity.

    What INTO holds already is skipped, so a merge can be repeated, also while a sweep still writes
    to a source: later the rest is added. All SOURCES are added or none. A file INTO that does not
    exist is made.

    \b
    latlut table merge profiles/h200.db profiles/h200-*-shard*of8.db
    """
    from latlut.table.merging import merge_files

    reports = [{"source": str(path), **vars(report)} for path, report in merge_files(into, sources)]
    if as_json:
        print_json(reports)
        return
    for report in reports:
        click.echo(
            f"{report['source']}: {report['runs']} runs with {report['measurements']} measurements "
            f"and {report['entries']} imported entries "
            + (f"and {report['predicted']} predicted ones " if report["predicted"] else "")
            + f"added, {report['skipped_runs']} runs were "
            "there already" + (f", {report['grown_runs']} grew" if report["grown_runs"] else "")
        )


@table.command(short_help="Write entries as .csv or .parquet.")
@click.argument("name", type=TABLE, metavar="TABLE")
@click.argument("file", type=_FILE)
def export(name: str, file: Path) -> None:
    """Write a table's entries to FILE, .csv or .parquet, with its identity."""
    from latlut.table.import_export import MAX_GRAPH_BYTES, export_file
    from latlut.table.subgraphs import count_without_graph
    from latlut.table.table import LatencyTable

    with LatencyTable.open(name) as opened:
        count, predicted = export_file(opened, file), opened.predicted_count
        lacking = count_without_graph(opened, MAX_GRAPH_BYTES)
    marked = f", {predicted} of them predicted (column predicted_from)" if predicted else ""
    note(f"{count} entries written to {file}{marked}")
    if lacking:
        remark(
            f"{lacking} of them are pieces of ONNX files without their graphs: a table made of the "
            "file prices networks, but cannot measure these pieces again"
        )


@table.command(short_help="One figure of a table.")
@click.argument("name", type=TABLE, metavar="TABLE")
@click.argument("chart", type=click.Choice(["heatmap", "roofline", "agreement", "residuals"]))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
    help="File to write: the figure as .png or .svg, or its data as .csv.",
)  # fmt: skip
@click.option(
    "--operator", help="Operator of a heat map; `list` names them.", show_default="the first"
)
def plot(name: str, chart: str, out: Path, operator: str | None) -> None:
    """One figure of a table, as in `latlut report`.

    \b
    latlut table plot cpu heatmap --operator conv -o conv.png
    latlut table plot cpu agreement -o agreement.csv
    """
    from latlut.reports.page.figures import figure_of, operators_of, save_figure
    from latlut.table.table import LatencyTable

    with LatencyTable.open(name) as opened:
        found = figure_of(opened, chart)
    if operator == "list":
        click.echo("\n".join(operators_of(found)))
        return
    save_figure(found, out, operator)
    note(f"{out} written")


@table.command(name="import", short_help="Read a file of latencies into a table.")
@click.argument("file", type=_FILE)
@click.option(
    "--table", "table_path", type=NEW_TABLE, help="Table to write: a new one, or one to add to.",
    show_default="profiles/NAME-OF-FILE.db",
)  # fmt: skip
@click.option(
    "--identity", "overrides", multiple=True, metavar="FIELD=VALUE",
    help="Field of the identity, for files that do not hold it; may be repeated.",
)  # fmt: skip
@json_option
def import_(file: Path, table_path: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Read FILE into a table: .csv or .parquet of entries, or the FasterSeg authors' .npy.

    Nothing in a .npy is executed: a file that holds anything but numbers by name is refused.

    \b
    latlut table import latency_lookup_table.npy --table profiles/authors.db
    latlut table import entries.csv --identity target=cpu --identity device_model=... \\
        --identity engine=... --identity engine_version=...
    """
    from latlut.table.import_export import import_file

    fields: dict[str, str | int] = {}
    for item in overrides:
        field, equals, value = item.partition("=")
        if not equals or not field:
            raise LatlutError(
                f"--identity {item}: expected FIELD=VALUE, such as engine=onnxruntime"
            )
        fields[field] = value
    path = table_path or Path("profiles") / f"{file.stem}.db"
    report = import_file(file, path, fields)
    if as_json:
        print_json({k: str(v) if isinstance(v, Path) else v for k, v in vars(report).items()})
        return
    click.echo(
        f"{report.rows} rows of {report.path} are {report.op_specs} operator configurations"
        f"{f' and {report.repeats} repeats' if report.repeats else ''} in {report.table}"
    )
    for text in report.remarks:
        note(f"  {text}")
