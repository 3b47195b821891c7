"""The picture of a search: latency, accuracy, lambda and the share of cheap choices by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latlut.reports.style import GRID, MUTED, STYLE, picture_path, save, wrapped
from latlut.search.cosearch.records import EpochRecord

_TARGET = "#b91c1c"
_COLOURS = ("#2563a8", "#d97706", "#15803d", "#7c3aed", "#b45309")
#: As other pictures, a little smaller; the axis of lambda shows powers of ten.
_STYLE: Any = STYLE | {"font.size": 9, "text.parse_math": True}


def plot_trajectory(
    records: Sequence[EpochRecord], target_ms: float, title: str, path: str | Path
) -> None:
    """Draw a search's epochs into a file.

    Args:
        records: of a search; pretraining epochs are left out.
        target_ms: drawn as a line.
        title: above the picture.
        path: .png, .svg or .pdf; replaced if it exists, whole or not at all.

    Raises:
        SpecError: another suffix.
        ImportFileError: the file cannot be written.

    Source: after FasterSeg, Fig. 4.
    """
    import matplotlib
    from matplotlib.figure import Figure

    path = picture_path(path)
    rows = [record for record in records if record.phase == "search"]
    epochs = [record.epoch + 1 for record in rows]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(11, 6), layout="constrained")
        latency, accuracy, penalty, shares = figure.subplots(2, 2).flatten()
        said = wrapped(figure, title, 10.8, fontsize=11)
        figure.suptitle(said, fontsize=11, x=0.01, ha="left")
        names = list(rows[0].derived_ms) if rows else []
        for name, colour in zip(names, _COLOURS, strict=False):
            derived = [record.derived_ms[name] for record in rows]
            fitted = [record.fitted_ms[name] for record in rows]
            latency.plot(epochs, derived, "o-", color=colour, label=f"derived {name}")
            latency.plot(epochs, fitted, "x:", color=colour, label=f"fitted {name}")
            soft = [100 * r.miou[name] for r in rows]
            accuracy.plot(epochs, soft, "o-", color=colour, label=f"{name}, soft choices")
            own = [100 * r.derived_miou[name] for r in rows]
            accuracy.plot(epochs, own, "x:", color=colour, label=f"{name}, derived")
        expected = [record.expected_ms for record in rows]
        latency.plot(epochs, expected, "-", color=MUTED, label="expected")
        latency.axhline(target_ms, color=_TARGET, lw=1, label=f"target {target_ms:.4g}")
        lambdas = [record.lambda_per_ms for record in rows]
        if any(lambdas):
            penalty.semilogy(epochs, lambdas, "o-", color=_COLOURS[0])
        shares.plot(epochs, [r.skip_share for r in rows], "o-", color=_COLOURS[0], label="skip")
        shares.plot(
            epochs,
            [r.narrowest_share for r in rows],
            "o-",
            color=_COLOURS[1],
            label="narrowest width",
        )
        shares.plot(
            epochs,
            [r.largest_alpha for r in rows],
            ":",
            color=MUTED,
            label="mean of largest alpha",
        )
        shares.set_ylim(-0.02, 1.02)
        for axis, label in (
            (latency, "latency by the table, ms"),
            (accuracy, "mIoU with the supernet's weights, %"),
            (penalty, "lambda, per ms"),
            (shares, "share of cells"),
        ):
            axis.set_xlabel("search epoch")
            axis.set_ylabel(label)
            axis.grid(color=GRID, lw=0.6)
            axis.set_axisbelow(True)
            axis.xaxis.get_major_locator().set_params(integer=True)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(  # beside the lines, which fill the axes
                    fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02)
                )
        save(figure, path)
