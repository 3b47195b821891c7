"""How well estimates agree with measurements, as a printed table: plain and calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latlut.cli.output import print_table

if TYPE_CHECKING:
    from latlut.stats.agreement import Agreement
    from latlut.validation.scores import Scores


#: Rows that are printed without --details.
_FIRST = ("Pearson r", "mean absolute error, %", "bias, %", "within 10%, % of networks")


def print_agreements(
    title: str, plain: Agreement, scores: Scores | None, *, has_details: bool = True
) -> None:
    """A row per statistic with its 95% interval, a column per estimate, and the noise limit.

    Args:
        title: of the first column.
        plain: of the plain sums.
        scores: with those of the calibrated estimates, where there is a calibration.
        has_details: print all statistics, not only the first ones.
    """
    columns = [plain] if scores is None else [plain, scores.calibrated]

    def row(label: str, name: str, best: str = "", digits: int = 2, factor: float = 1) -> list[str]:
        cells = []
        for found in columns:
            value = f"{factor * getattr(found, name):.{digits}f}"
            if name in found.intervals:
                low, high = found.intervals[name]
                value += f" ({factor * low:.{digits}f} to {factor * high:.{digits}f})"
            cells.append(value)
        return [label, *cells, best]

    rows = [
        row("Pearson r", "r", f"{plain.ceiling_r:.4f}", 4),
        row("mean absolute error, %", "mape_percent", f"{plain.noise_floor_mape_percent:.2f}"),
        row("root mean square error, %", "rmspe_percent"),
        row("bias, %", "bias_percent"),
        row("within 5%, % of networks", "within_5", "", 0, 100),
        row("within 10%, % of networks", "within_10", "", 0, 100),
        row("R2 against y = x", "r2", "", 4),
        row("Spearman", "spearman", "", 4),
        row("Kendall", "kendall", "", 4),
        row("slope", "slope", "", 3),
        row("intercept, ms", "intercept_ms", "", 3),
    ]
    if not has_details:
        rows = [row for row in rows if row[0] in _FIRST]
    if scores is None:
        print_table([title, "plain sum (95% interval)", "noise limit"], rows)
        return
    low, high = scores.coverage_interval()
    shown = f"{100 * scores.coverage:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    rows.append(["inside the 95% interval, %", "", shown, "95"])
    print_table([title, "plain sum (95% interval)", "calibrated", "noise limit"], rows)
