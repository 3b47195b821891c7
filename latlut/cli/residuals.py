"""What validations print and draw: the agreement, trends of residuals, effects of composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from latlut.cli.agreements import print_agreements
from latlut.cli.layers import difference_text
from latlut.cli.output import is_quiet, predicted_text, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from latlut.table.space import TableSpace
    from latlut.table.table import LatencyTable
    from latlut.validation.composition import CompositionEffect
    from latlut.validation.explain import Explained
    from latlut.validation.trends import Slope, Trend
    from latlut.validation.validate import Validation

#: Effects below this part of the measured network are only printed as one sum.
LEAST_SHARE = 0.01


def plot(table: LatencyTable, found: Validation, where: TableSpace, path: Path) -> None:
    """Draw estimated against measured latency of the validation's networks, and their residuals.

    Plain and calibrated estimates stand side by side where the table has a calibration.
    """
    from latlut.reports.scatter import plot_agreement
    from latlut.stats.machine_speed import is_disturbed

    own = table.identity
    lows = [item.estimate.ci_low_ms for item in found.judged]
    highs = [item.estimate.ci_high_ms for item in found.judged]
    has_intervals = all(value is not None for value in (*lows, *highs))
    is_calibrated = found.scores is not None
    is_unsure = is_disturbed(found.readings.cpu_share)
    title = "Estimated and measured latency of networks" + (", disturbed" if is_unsure else "")
    where_text = (
        f"random {where.space.title} networks at {where.size_text}"
        if where.size_text
        else (f"{len(found.networks)} ONNX files")
    )
    plot_agreement(
        [item.plain.ms for item in found.judged],
        [item.measured_ms for item in found.judged],
        found.plain,
        title,
        f"{own.engine} {own.engine_version}, {own.precision}, threads: {own.threads}, "
        f"{own.device_model}; {where_text}",
        path,
        ci_low_ms=lows if has_intervals else None,  # type: ignore[arg-type]
        ci_high_ms=highs if has_intervals else None,  # type: ignore[arg-type]
        calibrated_ms=[item.estimate.ms for item in found.judged] if is_calibrated else None,
        calibrated_agreement=None if found.scores is None else found.scores.calibrated,
    )
    shown = found.trends()
    if shown:
        from latlut.reports.residuals import plot_residuals

        plot_residuals(
            shown,
            [item.plain_error_percent for item in found.judged],
            None if found.scores is None else [item.error_percent for item in found.judged],
            f"{own.engine} {own.engine_version}, threads: {own.threads}, {where_text}"
            + (", measured while disturbed" if is_unsure else ""),
            residuals_path(path),
        )


def residuals_path(plot_path: Path) -> Path:
    """Where the picture of the residuals lives: beside that of the agreement."""
    return plot_path.with_name(
        f"{plot_path.stem.removesuffix('-validation')}-residuals{plot_path.suffix}"
    )


def print_validation(
    found: Validation, table_path: str, plot_path: str, *, has_details: bool = False
) -> None:
    """The agreement as a table, the worst estimate, and where things were stored.

    With details also all statistics, trends of the residuals, terms of the worst estimates, and
    how networks were sampled. A quiet command prints the agreement alone.
    """
    if is_quiet():
        print_agreements("estimates", found.plain, found.scores, has_details=has_details)
        return
    _print_doubt(found)
    click.echo(_networks_line(found))
    print_agreements("estimates", found.plain, found.scores, has_details=has_details)
    for note in found.agreement.notes:
        click.echo(f"note: {note}")
    if text := predicted_text([item.estimate for item in found.networks]):
        click.echo(text)
    trends = found.trends()
    if has_details:
        _print_conditions(found)
        print_trends(trends)
        _print_worst(found)
        click.echo(f"\nsampler: {found.sampler}")
    else:
        _print_first_trend(trends)
        for item in found.worst()[:1]:
            click.echo(
                f"worst estimate: {item.estimate.ms:.4g} ms, measured {item.measured_ms:.4g} ms "
                f"({item.error_percent:+.1f}%)"
            )
    click.echo(f"plot: {plot_path}\nstored in: {table_path}")


def _print_doubt(found: Validation) -> None:
    """Why the measurements say little, where they do."""
    from latlut.measure.cpu_share import disturbed_text
    from latlut.stats.machine_speed import is_disturbed
    from latlut.validation.fitting import LEAST_R12

    r12, share = found.agreement.r12, found.readings.cpu_share
    if share is not None and is_disturbed(share):
        click.echo(disturbed_text(share))
    elif r12 < LEAST_R12:
        click.echo(
            f"disturbed: the two passes correlate by {r12:.3f} only, errors are mostly noise; "
            "measure again when the machine is quiet (--wait waits for that), with more --rounds"
        )


def _networks_line(found: Validation) -> str:
    a, fitted = found.agreement, len(found.networks) - len(found.judged)
    without = f"; {fitted} that the calibration was fitted on are left out" if fitted else ""
    return (
        f"{a.n} networks, measured {a.measured_p10_ms:.3g} to {a.measured_p90_ms:.3g} ms "
        f"(10th to 90th percentile){without}"
    )


def _print_conditions(found: Validation) -> None:
    """How the two passes agree, and how fast the machine was."""
    from latlut.stats.machine_speed import is_disturbed

    click.echo(f"correlation between the two measuring passes: {found.agreement.r12:.4f}")
    speed, share = found.readings.speed_factor, found.readings.cpu_share
    # Reference operators that are disturbed all the time look usual: no reassurance beside that.
    if speed == speed and (share is None or not is_disturbed(share)):
        click.echo(
            f"machine speed: the reference operators took {speed:.3f} times as long as during "
            "profiling; measurements are normalised to the profiling speed"
        )


def _print_worst(found: Validation) -> None:
    click.echo("\nworst estimates, with their largest terms:")
    for item in found.worst():
        click.echo(
            f"  {item.estimate.ms:.4g} ms estimated, {item.measured_ms:.4g} ms measured "
            f"({item.error_percent:+.1f}%)"
        )
        for term in sorted(item.estimate.terms, key=lambda t: -t.total_ms)[:4]:
            click.echo(f"      {term.total_ms:8.4g} ms  {term.count} x {term.spec}")


def _print_first_trend(trends: Sequence[Trend]) -> None:
    """The strongest significant trend of the residuals, in one line."""
    significant = [
        (trend.name, slope)
        for trend in trends
        for slope in (trend.plain if trend.calibrated is None else trend.calibrated,)
        if slope.is_significant
    ]
    if significant:
        name, slope = max(significant, key=lambda item: abs(item[1].change_percent))
        click.echo(
            f"errors depend on {name}: they change by {slope.change_percent:+.1f} percentage "
            "points from its 10th to its 90th percentile"
        )


def print_trends(trends: Sequence[Trend]) -> None:
    """A row per property of the networks: how the errors change with it."""
    from latlut.validation.trends import MIN_NETWORKS

    click.echo("")
    if not trends:
        click.echo(
            f"no trends of the residuals: they need {MIN_NETWORKS} networks that differ in size, "
            "depth or operators"
        )
        return
    has_calibrated = any(trend.calibrated is not None for trend in trends)
    columns = ["residuals against", "p10 to p90", "plain, change", "rank", "p"]
    if has_calibrated:
        columns += ["calibrated, change", "rank", "p"]
    rows: list[list[object]] = []
    for trend in trends:
        row: list[object] = [trend.name, _range_text(trend), *_slope_cells(trend.plain)]
        if has_calibrated:
            row += ["-", "-", "-"] if trend.calibrated is None else _slope_cells(trend.calibrated)
        rows.append(row)
    print_table(columns, rows)
    click.echo(
        "change: change of the relative error in percentage points from the property's 10th to its "
        "90th percentile (95% interval)\nrank: Spearman's correlation; p: its p-value, corrected "
        f"for {len(trends)} trends (Holm); * below 0.05"
    )


def print_composition(worst: Sequence[Explained], *, has_details: bool = False) -> None:
    """Per network the causes of its difference from the sum of entries; nothing of a quiet command.

    With details the evidence of each cause, and those below 1% of the network as one line
    together; without, the main cause in the worst network.
    """
    if is_quiet():
        return
    if not has_details:
        for item in worst[:1]:
            click.echo(_main_cause(item))
        return
    if worst:
        click.echo("\nwhy the worst estimates are off, by the engine's own layers:")
    for item in worst:
        _print_effects(item)


def _main_cause(item: Explained) -> str:
    """What most of a network's error is, in one line."""
    effect, view = item.main_effect, item.view
    if effect is None and item.is_reproduced:
        return "main cause: not known, none that was found has the sign of the error"
    if effect is None:
        return (
            f"main cause: not known, the network took {view.whole_ms.value:.4g} ms when it was run "
            f"again layer by layer, not {item.measured_ms:.4g} ms"
        )
    return (
        f"main cause: {effect.name}, {difference_text(effect.ms)} ms of the "
        f"{difference_text(item.error_ms)} ms between the sum of its entries "
        f"({view.estimate.plain_ms:.4g} ms) and its measurement"
    )


def _print_effects(item: Explained) -> None:
    from latlut.stats.machine_speed import is_disturbed

    view = item.view
    whole, plain = view.whole_ms.value, view.estimate.plain_ms
    click.echo(
        f"\n{item.label}: run again {whole:.4g} ms, sum of entries {plain:.4g} ms, "
        f"difference {difference_text(whole - plain)} ms ({100 * (whole - plain) / whole:+.1f}%)"
    )
    if not item.is_reproduced:
        click.echo("  note: this run does not show the error that was measured before")
    shown, small = _divided(item.effects, whole)
    for effect in shown:
        click.echo(_effect_line(effect.name, effect.ms, whole))
        for part in effect.evidence.split("; "):
            click.echo(f"              {part}")
    if small:
        names = ", ".join(effect.name for effect in small)
        click.echo(_effect_line(names, sum(effect.ms for effect in small), whole))
    share = view.cpu_share
    if share is not None and is_disturbed(share):
        click.echo(
            f"  note: this process had a CPU for only {100 * share:.0f}% of the time: repeat "
            "it on a quiet machine (--wait)"
        )


def trends_as_json(trends: Iterable[Trend]) -> list[dict[str, object]]:
    """JSON-able, one per property; changes in percentage points, p-values Holm-corrected."""
    return [
        {
            "name": trend.name,
            "unit": trend.unit,
            "values": trend.values.tolist(),
            "plain": _slope_as_json(trend.plain),
            "calibrated": None if trend.calibrated is None else _slope_as_json(trend.calibrated),
        }
        for trend in trends
    ]


def composition_as_json(worst: Iterable[Explained]) -> list[dict[str, object]]:
    """JSON-able, one per network; milliseconds."""
    return [
        {
            "network": item.label,
            "measured_ms": item.measured_ms,
            "whole_ms": item.view.whole_ms.value,
            "whole_ci_low_ms": item.view.whole_ms.low,
            "whole_ci_high_ms": item.view.whole_ms.high,
            "plain_ms": item.view.estimate.plain_ms,
            "layers_ms": item.view.layers_ms,
            "cpu_share": item.view.cpu_share,
            "effects": [
                {"name": effect.name, "ms": effect.ms, "evidence": effect.evidence}
                for effect in item.effects
            ],
        }
        for item in worst
    ]


def _slope_as_json(slope: Slope) -> dict[str, object]:
    return {
        "spearman": slope.spearman,
        "p_value": slope.p_value,
        "change_percent": slope.change_percent,
        "change_interval_percent": [slope.low_percent, slope.high_percent],
    }


def _slope_cells(slope: Slope) -> list[object]:
    mark = " *" if slope.is_significant else ""
    return [
        f"{slope.change_percent:+.1f} ({slope.low_percent:+.1f} to {slope.high_percent:+.1f})",
        f"{slope.spearman:+.2f}",
        f"{slope.p_value:.2g}{mark}",
    ]


def _range_text(trend: Trend) -> str:
    import numpy as np

    from latlut.validation.trends import RANGE

    low, high = np.quantile(trend.values, RANGE)
    unit = trend.unit if trend.unit == "%" else f" {trend.unit}"
    return f"{low:.3g} to {high:.3g}{unit}"


def _divided(
    effects: Sequence[CompositionEffect], whole_ms: float
) -> tuple[list[CompositionEffect], list[CompositionEffect]]:
    """Effects of at least 1% of the network, and the others."""
    least = LEAST_SHARE * whole_ms
    shown = [effect for effect in effects if abs(effect.ms) >= least]
    return shown, [effect for effect in effects if abs(effect.ms) < least]


def _effect_line(name: str, ms: float, whole_ms: float) -> str:
    return f"  {difference_text(ms):>8} ms  {100 * ms / whole_ms:+5.1f}%  {name}"
