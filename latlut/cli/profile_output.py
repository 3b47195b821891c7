"""What ``latlut profile`` prints: what a sweep came to, and what one would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.output import duration_text, note, print_json, print_table, range_text

if TYPE_CHECKING:
    from latlut.measure.active import ActiveResult
    from latlut.measure.coverage import Coverage
    from latlut.measure.plans import Plan
    from latlut.measure.preview import Preview
    from latlut.measure.sweep_report import SweepSummary
    from latlut.opspec import OpSpec
    from latlut.table.table import LatencyTable


def print_preview(found: Preview, path: Path, as_json: bool) -> None:
    """What a sweep would measure, and about how long it takes."""
    if as_json:
        print_json(vars(found))
        return
    click.echo(
        f"{len(found.missing)} of {found.op_specs} operator configurations lack readings "
        f"in {path}: "
        f"{found.readings} to take, {found.reused} are there"
    )
    for kind, count in found.by_kind.items():
        click.echo(f"  {kind}: {count}")
    click.echo(duration_of(found))


def duration_of(found: Preview) -> str:
    """About how long the sweep takes, for people."""
    if found.seconds is None:
        return (
            "how long it takes is unknown: none of the operator configurations that were tried "
            "can be run"
        )
    if not found.missing:
        return "nothing is left to measure"
    return (
        f"about {duration_text(found.seconds)}, from {found.tried} operator configurations that "
        "were tried"
    )


def print_report(
    table: LatencyTable, plan: Plan, summary: SweepSummary, as_json: bool,
    workers: Sequence[Mapping[str, object]] = (), active: ActiveResult | None = None,
    *, is_named: bool = False,
) -> None:  # fmt: skip
    """How a sweep ended, what the table holds of the plan, what failed, what to do next.

    Args:
        table: what was measured into.
        plan: what was to be measured.
        summary: of the sweep.
        as_json: print one JSON document.
        workers: each as a mapping, where workers measured.
        active: where a part was predicted.
        is_named: the plan's op specs were named one by one: their latencies are printed.
    """
    from latlut.measure.coverage import plan_coverage
    from latlut.table.history import quarantines
    from latlut.table.subgraphs import shown_keys
    from latlut.table.summary import HOST_BOUND

    quarantined = [str(item) for item in quarantines(table)]
    coverage = plan_coverage(table, plan)
    facts: dict[str, Any] = {
        "table": str(table.path),
        "status": summary.status,
        "op_specs": len(plan.specs),
        "entries": coverage.entries,
        "median_ci_percent": coverage.median_ci_percent,
        "p95_ci_percent": coverage.p95_ci_percent,
        "median_build_percent": coverage.median_build_percent,
        "median_device_percent": coverage.median_device_percent,
        "near_zero": coverage.near_zero,
        "negative": coverage.negative,
        "shared_error_percent": 100 * table.shared_error,
        "measured": summary.measured,
        "reused": summary.reused,
        "requeued": summary.requeued,
        "disturbed": summary.disturbed,
        "failed": summary.failed,
        "seconds": {name: round(value, 2) for name, value in summary.seconds.items()},
        "workers": list(workers),
        "quarantine": quarantined,
        "overhead_percent": round(100 * summary.overhead_fraction, 1),
    }
    if coverage.predicted:
        facts["predicted"] = coverage.predicted
    if active is not None:
        facts["ended_because"] = active.reason
        facts["network_half_width"] = active.network_half_width
        facts["left_out"] = [spec.key for spec in active.left_out]
    if is_named:
        facts["latencies"] = _latencies(table, plan.specs)
    host_bound = sum(HOST_BOUND in entry.warnings for entry in table)
    if host_bound:
        facts["host_bound"] = host_bound
    if as_json:
        print_json(facts)
        return
    if summary.disturbed:
        note(
            f"disturbed: other processes used the CPU during {summary.disturbed} of "
            f"{summary.measured} new measurements, latencies may be too high; the entries are "
            "marked (--wait waits for a quiet machine)"
        )
    click.echo(
        f"{coverage.entries} of {len(plan.specs)} operator configurations have an entry "
        f"in {table.title} "
        f"({summary.status}, {summary.seconds['total']:.0f} s, "
        f"{summary.measured} new measurements, {summary.requeued} repeated)"
    )
    if is_named:
        _print_latencies(facts["latencies"])
    if coverage.predicted:
        note(f"{coverage.predicted} more are predicted, and marked as such")
    if active is not None:
        width = active.network_half_width
        note(
            f"ended because {active.reason}"
            + ("" if width is None else f"; predictions leave a network's 95% interval at ±"
               f"{100 * width:.1f}% (mean over random networks)")
        )  # fmt: skip
        for spec in active.left_out:
            note(f"neither measured nor predicted: {spec}")
    if text := _interval_text(coverage, table.shared_error):
        note(text)
    if coverage.near_zero or coverage.negative:
        note(
            f"{coverage.near_zero} entries are not distinguishable from zero, "
            f"{coverage.negative} are negative"
        )
    if host_bound:
        note(
            f"the host takes more than 80% of the time of {host_bound} entries to launch them: "
            "they may show the host's speed, not the GPU's; they are marked"
        )
    for text in quarantined:
        note(f"quarantine: {text}")
    names = shown_keys(table, summary.failed)
    for key, message in summary.failed.items():
        click.echo(f"failed: {names[key]}: {message}")
    if summary.status == "out of budget":
        note("the budget is spent; the same command continues from here")
    else:
        note(f"check its accuracy with: {_next_command(table)}")


def _interval_text(coverage: Coverage, shared_error: float) -> str:
    """How wide the intervals of entries are, and where that comes from; empty if unknown."""
    median, most = coverage.median_ci_percent, coverage.p95_ci_percent
    if median is None:
        return ""
    sources = {
        "builds": coverage.median_build_percent,
        "devices": coverage.median_device_percent,
    }
    comes_from = [
        f", ±{share:.1f}% comes from {name}" for name, share in sources.items() if share is not None
    ]
    if coverage.entries == 1:
        return f"95% interval of the entry: ±{median:.1f}%" + "".join(comes_from)
    return (
        f"95% interval of an entry: ±{median:.1f}% (median), ±{most:.1f}% (95% of them); "
        f"±{100 * shared_error:.1f}% of it is common to all entries"
        + "".join(f"{text} (median)" for text in comes_from)
    )


def _latencies(table: LatencyTable, specs: Sequence[OpSpec]) -> list[dict[str, Any]]:
    """What the table holds of op specs; those without an entry are left out."""
    return [
        {"op_spec": entry.key, "latency_ms": entry.latency_ms, "ci_low_ms": entry.ci_low_ms,
         "ci_high_ms": entry.ci_high_ms, "warnings": entry.warnings}
        for entry in table.held(specs)
    ]  # fmt: skip


def _print_latencies(latencies: Sequence[Mapping[str, Any]]) -> None:
    if latencies:
        rows = [
            [item["op_spec"], item["latency_ms"],
             range_text(item["ci_low_ms"], item["ci_high_ms"]), item["warnings"]]
            for item in latencies
        ]  # fmt: skip
        print_table(["operator", "ms", "95% interval, ms", "warnings"], rows)
        note()


def _next_command(table: LatencyTable) -> str:
    """What checks the table's accuracy: whole networks where it knows which."""
    from latlut.errors import TableError
    from latlut.shell import command
    from latlut.table.space import space_of

    try:
        space_of(table)
    except TableError:
        return command("table", "check", table.path)
    return table.command("validate")
