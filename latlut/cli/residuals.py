"""What validations print of residuals: their trends, and the composition effects of the worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from latlut.cli.output import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from latlut.validation.composition import CompositionEffect
    from latlut.validation.explain import Explained
    from latlut.validation.trends import Slope, Trend

#: Effects below this part of the measured network are only printed as one sum.
LEAST_SHARE = 0.01


def print_trends(trends: Sequence[Trend]) -> None:
    """A row per property of the networks: how the errors change with it."""
    from latlut.validation.trends import MIN_NETWORKS

    click.echo("")
    if not trends:
        click.echo(
            f"residuals against size, depth and kinds: nothing to say of fewer than "
            f"{MIN_NETWORKS} networks, or of networks that are all alike"
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
        "change: of the relative error, in percentage points, from the property's p10 to its p90 "
        "(95% interval);\nrank: Spearman's correlation; p: of the rank, corrected for "
        f"{len(trends)} trends (Holm); * below 0.05"
    )


def print_composition(worst: Sequence[Explained]) -> None:
    """Per network what its difference from the sum of entries is made of, with the evidence.

    Effects below 1% of the network are one line together.
    """
    from latlut.validation.composition import LEAST_CPU_SHARE

    if worst:
        click.echo("\nwhat parts the worst networks from their sums, by the engine's layers:")
    for item in worst:
        view = item.view
        whole, plain = view.whole_ms.value, view.estimate.plain_ms
        click.echo(
            f"\n{item.label}: whole {whole:.4g} ms, sum of entries {plain:.4g} ms, "
            f"difference {whole - plain:+.3g} ms ({100 * (whole - plain) / whole:+.1f}%)"
        )
        shown, small = _divided(item.effects, whole)
        for effect in shown:
            click.echo(_effect_line(effect.name, effect.ms, whole))
            for part in effect.evidence.split("; "):
                click.echo(f"              {part}")
        if small:
            names = ", ".join(effect.name for effect in small)
            click.echo(_effect_line(names, sum(effect.ms for effect in small), whole))
        share = view.cpu_share
        if share is not None and share < LEAST_CPU_SHARE:
            click.echo(
                f"  note: this process had a CPU for only {100 * share:.0f}% of the time, others "
                "the rest: a quiet machine says more"
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
    return f"  {ms:+8.3g} ms  {100 * ms / whole_ms:+5.1f}%  {name}"
