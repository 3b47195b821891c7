"""What a page shows of a latency table: verdict, provenance, entries, validation, sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from latlut.errors import LatlutError
from latlut.measure.space_to_use import space_to_use
from latlut.pricing import calibration as calibrations
from latlut.pricing.estimator import calibrated
from latlut.reports.page import charts, labels
from latlut.reports.page.parts import Block, Chart, Facts, Grid, Section, Text
from latlut.reports.page.work import bounds_of, with_work
from latlut.search.penalty.prices import SpaceLayout, read_prices
from latlut.search.penalty.sensitivity import PAPER_GAPS_MS, balanced_weights, sensitivity
from latlut.search.penalty.terms import ExpectedTerms
from latlut.search.penalty.weights import PAPER_WEIGHTS
from latlut.spaces.fasterseg import fasterseg_space
from latlut.table import roofline
from latlut.table.calibrations import fitted_networks
from latlut.table.examination import faults
from latlut.table.listing import entries_where, overview
from latlut.table.table import LatencyTable
from latlut.table.validations import validation_ids
from latlut.validation.fitting import measured_networks
from latlut.validation.measured import MeasuredNetwork
from latlut.validation.verdict import Level, Verdict, check

#: Entries that a page draws and lists at most; a larger table says so.
MOST_ENTRIES = 3000
MOST_WORST = 10


def table_section(table: LatencyTable) -> Section:
    """All that a page shows of a table.

    Raises:
        TableError: the table is damaged.
    """
    verdict = check(table)
    blocks: list[Block] = [_verdict_text(verdict)]
    blocks += [Text(text) for text in verdict.remarks]
    if not faults(table):
        blocks.append(Facts(_identity(table)))
        blocks += _provenance(table)
        rows = latencies(table)
        blocks += entry_charts(table, rows)
        blocks += validation_blocks(table)
        blocks += _sensitivity_blocks(table)
        blocks += _listing(table, rows)
    return Section(table.path.name, str(table.path), "latency table", tuple(blocks))


def _verdict_text(verdict: Verdict) -> Text:
    tones = {Level.OK: "ok", Level.CAUTION: "caution", Level.NOT_RELIABLE: "bad"}
    return Text(verdict.sentence, tones[verdict.level])


def _identity(table: LatencyTable) -> Mapping[str, object]:
    fields = {"entries": len(table), **table.identity.to_dict()}
    return {labels.label(k, labels.IDENTITY): v for k, v in fields.items() if v != ""}


def _provenance(table: LatencyTable) -> Iterator[Block]:
    found = overview(table)
    titles = {"runs": "Runs", "validations": "Validations", "kinds": "Entries by operator",
              "gpus": "GPUs while measuring", "devices": "Devices", "quarantine": "In quarantine",
              "failed": "Could not be measured"}  # fmt: skip
    for subject, title in titles.items():
        if rows := found.get(subject):
            kept = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
            yield Grid(
                title,
                [labels.label(name, labels.OVERVIEW.get(subject)) for name in kept],
                [[labels.value_of(name, row[name]) for name in kept] for row in rows],
            )


def latencies(table: LatencyTable) -> list[dict[str, Any]]:
    """What a page draws and lists of the entries: rows of the view ``latencies``, with what the
    table does not hold of their operators' work."""
    return with_work(table, list(entries_where(table, None, (), None, MOST_ENTRIES)))


def _left_out(table: LatencyTable) -> str:
    count = len(table)
    return f"the first {MOST_ENTRIES} of {count} entries" if count > MOST_ENTRIES else ""


def entry_charts(table: LatencyTable, rows: Sequence[Mapping[str, Any]]) -> Iterator[Chart]:
    """Heat maps of the entries by operator, and measured latency over the roofline's.

    Args:
        table: of the entries.
        rows: what ``latencies`` gives of it.
    """
    positive = [row for row in rows if row["latency_ms"] > 0]
    if not positive:
        return
    drawn = charts.heat_map([_heat_row(row) for row in positive])
    yield Chart("heatmap", "Latency by width and resolution", drawn, _left_out(table))
    _, floor_ms = roofline.bounds(table)
    computing = [row for row in positive if row["gmacs_per_s"]]
    if computing:
        bounds_ms, note = bounds_of(computing)
        counted = [
            {"op_spec": row["op_spec"], "kind": row["kind"], "latency_ms": row["latency_ms"],
             "bound_ms": bound_ms, "gmacs": row["gmacs_per_s"] * row["latency_ms"] / 1e3,
             "gmacs_per_s": row["gmacs_per_s"]}
            for row, bound_ms in zip(computing, bounds_ms, strict=True)
        ]  # fmt: skip
        if floor_ms:
            note += f"; dashed: an empty kernel, {floor_ms:.3g} ms"
        title = "Measured latency over " + ("roofline latency" if all(bounds_ms) else "operations")
        yield Chart("roofline", title, charts.roofline(counted, floor_ms), note)


def _heat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    stride = f" stride {row['stride']}" if row["stride"] != 1 else ""
    options = "" if row["options"] in ("{}", "") else f" {row['options']}"
    batch = f" batch {row['batch']}" if row["batch"] != 1 else ""
    return {
        "op_spec": row["op_spec"],
        "operator": f"{row['kind']}{stride}{batch}{options}",
        "channels": f"{row['in_channels']}->{row['out_channels']}",
        "order": row["in_channels"] * 100_000 + row["out_channels"],
        "size": f"{row['height']}x{row['width']}",
        "area": row["height"] * row["width"],
        "latency_ms": row["latency_ms"],
        "ci_percent": row["ci_percent"],
    }


def validation_blocks(table: LatencyTable) -> Iterator[Block]:
    """The latest validation: estimates against measurements, errors, and the worst ones."""
    known = validation_ids(table)
    if not known:
        how = f" yet: {table.command('validate')}" if table.identity.is_of_this_protocol else "."
        yield Text(f"No network was measured against this table{how}")
        return
    try:
        networks = measured_networks(table, validation_id=known[-1])
        calibration = calibrations.stored(table)
    except LatlutError as error:
        yield Text(f"The latest validation cannot be shown: {error}")
        return
    fitted = fitted_networks(table)
    rows = [_agreement_row(item, n, charts.SUM) for n, item in enumerate(networks, 1)]
    if calibration is not None:
        for n, item in enumerate(networks, 1):
            found = calibrated(item.plain, calibration)
            is_fitted = item.architecture.to_json() in fitted
            kind = charts.FITTED if is_fitted else charts.CALIBRATED
            rows.append(_row(n, item, kind, found.ms, found.ci_low_ms, found.ci_high_ms))
    note = "bars: 95% intervals; line: estimate = measurement"
    title = "Whole networks, estimated against measured"
    yield Chart("agreement", title, charts.agreement(rows), note)
    yield Chart("residuals", "Errors of the estimates", charts.residuals(rows))
    judged = [row for row in rows if row["estimate"] != charts.FITTED]
    name = charts.CALIBRATED if calibration is not None else charts.SUM
    worst = sorted((row for row in judged if row["estimate"] == name),
                   key=lambda row: -abs(row["error_percent"]))[:MOST_WORST]  # fmt: skip
    yield Grid(
        f"Worst estimates ({name})",
        ["network", "measured, ms", "estimated, ms", "error, %", "measured inside the interval"],
        [[row["network"], row["measured_ms"], row["estimated_ms"], row["error_percent"],
          _is_inside(row)] for row in worst],
    )  # fmt: skip


def _agreement_row(item: MeasuredNetwork, position: int, series: str) -> dict[str, Any]:
    plain = item.plain
    return _row(position, item, series, plain.ms, plain.ci_low_ms, plain.ci_high_ms)


def _row(
    position: int, item: MeasuredNetwork, series: str, ms: float, low: float | None,
    high: float | None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "network": f"network {position}",
        "measured_ms": item.measured_ms,
        "estimated_ms": ms,
        "low_ms": low,
        "high_ms": high,
        "error_percent": 100 * (ms / item.measured_ms - 1),
        "estimate": series,
    }


def _is_inside(row: Mapping[str, Any]) -> str:
    if row["low_ms"] is None or row["high_ms"] is None:
        return "no interval"
    return "yes" if row["low_ms"] <= row["measured_ms"] <= row["high_ms"] else "no"


def _sensitivity_blocks(table: LatencyTable) -> Iterator[Block]:
    """What operators, downsampling and widths can change, where the table swept FasterSeg's."""
    try:
        where = space_to_use(table, None, None)
        space = fasterseg_space(where.space)
        layout = SpaceLayout(space, space.widths, min(space.stem_head_widths), where.input_size,
                             where.batch, "derived")  # fmt: skip
        found = sensitivity(ExpectedTerms(read_prices(layout, table, leave_out_fixed=True)), table)
    except LatlutError:
        return  # of another space, or of a part of one
    try:
        weights: Sequence[float | None] = balanced_weights(found)
    except LatlutError:
        weights = (None, None, None)
    yield Grid(
        "What a search can change: sensitivity and weights",
        ["factor", "low, ms", "high, ms", "gap, ms", "±, ms", "paper's gap, ms",
         "balanced weight", "paper's weight"],
        [[gap.factor, gap.low_ms, gap.high_ms, gap.gap_ms, gap.half_ms, PAPER_GAPS_MS[n],
          weights[n], PAPER_WEIGHTS[n]] for n, gap in enumerate(found.gaps)],
        "the paper's gaps and weights: FasterSeg, Table 2, GTX 1080 Ti, 1024x2048",
    )  # fmt: skip


def _listing(table: LatencyTable, rows: Sequence[Mapping[str, Any]]) -> Iterator[Block]:
    columns = {"op_spec": "operator configuration", "latency_ms": "latency, ms",
               "ci_percent": "± %", "passes": "passes", "n": "samples", "gmacs_per_s": "GMAC/s",
               "roofline_ms": "roofline, ms", "predicted_from": "predicted from",
               "warnings": "warnings"}  # fmt: skip
    kept = {
        name: title
        for name, title in columns.items()
        if any(row[name] not in (None, "") for row in rows)
    }
    listed = [[row[name] for name in kept] for row in rows]
    yield Grid("Entries", list(kept.values()), listed, _left_out(table), has_filter=True)
