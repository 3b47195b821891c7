"""Comparisons, residuals, scans, ablations and trajectories: nothing is cut off or hides points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from pictures import (
    assert_legends_clear,
    assert_within_page,
    figures_saved,
    laid_out,
    texts_of,
)

from latlut import LatencyTable
from latlut.measure.ranges import parse_grid
from latlut.measure.scan import read_scan
from latlut.reports.architecture import plot_architecture
from latlut.reports.comparison import PUBLISHED, plot_comparison
from latlut.reports.front import plot_front
from latlut.reports.residuals import plot_residuals
from latlut.reports.scan import plot_scan
from latlut.reports.style import wrapped
from latlut.reports.trajectory import plot_trajectory
from latlut.search.cosearch.archive import Archived
from latlut.search.cosearch.folder import Found, Member
from latlut.search.cosearch.records import EpochRecord
from latlut.search.networks.comparing import compare
from latlut.search.networks.finding import find_contenders
from latlut.spaces.shipped import find_architecture
from latlut.validation.trends import DEPTH, SIZE, Slope, Trend

LONG = "word " * 60


@pytest.mark.parametrize("width", [1.0, 2.5, 6.0])
@pytest.mark.parametrize("text", [LONG, "w" * 300, "short", "", "one " + "w" * 300])
def test_wrapped_lines_are_no_wider_than_asked(text: str, width: float) -> None:
    figure = Figure()
    shown = wrapped(figure, text, width, most_lines=2, fontsize=11, fontweight="bold")
    assert shown.count("\n") <= 1
    box = figure.text(0, 0, shown, fontsize=11, fontweight="bold").get_window_extent()
    assert box.width <= width * figure.dpi
    if text == "short":
        assert shown == "short"
    if len(text) > 100:
        assert shown.endswith(" …")


def test_a_comparison_has_a_panel_for_each_data_set(tmp_path: Path) -> None:
    """Validation and test accuracies of Cityscapes are not on one axis, nor are own ones."""
    rows = compare(find_contenders(["enet", "fast-scnn", "fasterseg-student"]), "common", (64, 128))
    own = replace(rows[1], kind="trained", own_miou_percent=41.0, own_data="street-scenes")
    with figures_saved() as figures:
        count = plot_comparison([*rows, own], "title", LONG, tmp_path / "a.png")
    assert count == 4
    figure = laid_out(figures[0])
    drawn = {
        axes.get_title(loc="left"): sorted(
            round(float(item.get_offsets()[0][1]), 1) for item in axes.collections
        )
        for axes in figure.axes
    }
    published = {
        split: sorted(
            round(getattr(row.published, f"miou_{split}_percent").value, 1)
            for row in [*rows, own]
            if row.published and getattr(row.published, f"miou_{split}_percent")
        )
        for split in PUBLISHED
    }
    assert set(drawn) == {*PUBLISHED.values(), "measured here, street-scenes"}
    for split, panel in PUBLISHED.items():
        assert drawn[panel] == published[split]
    assert drawn["measured here, street-scenes"] == [41.0]
    limits = {axes.get_xlim() for axes in figure.axes}
    assert len(limits) == 1, "panels share the axis of latency"
    assert_within_page(figure, "title", "word", "mean IoU", "multiply", "Cityscapes")
    assert_legends_clear(figure)


def test_a_comparison_of_one_data_set_has_one_panel(tmp_path: Path) -> None:
    rows = compare(find_contenders(["enet"]), "common", (64, 128))
    with figures_saved() as figures:
        assert plot_comparison(rows, "title", "subtitle", tmp_path / "a.png") == 1
    (axes,) = laid_out(figures[0]).axes
    assert axes.get_title(loc="left") == PUBLISHED["test"]


@pytest.mark.parametrize("panels", [1, 2, 5])
def test_residuals_fit_their_page(tmp_path: Path, panels: int) -> None:
    rng = np.random.default_rng(2)
    slope = Slope(-0.52, 0.001, -112.3, -110.1, -112.2)
    names = [SIZE, DEPTH, "share of zoomed_conv_2x", "share of conv_2x", "share of refine"]
    trends = [Trend(name, "%", rng.uniform(1, 9, 40), slope, slope) for name in names[:panels]]
    error = rng.normal(0, 5, 40)
    with figures_saved() as figures:
        plot_residuals(trends, error, error / 2, LONG, tmp_path / "a.png")
    figure = laid_out(figures[0])
    assert_within_page(figure, "Errors by", "word", "Above each panel", "points, rank")
    assert_legends_clear(figure)
    above = [text for text in texts_of(figure) if "points, rank" in text.get_text()]
    boxes = [text.get_window_extent() for text in above]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_a_trajectory_and_a_network_with_long_names_fit_their_pages(tmp_path: Path) -> None:
    records = [
        EpochRecord("search", epoch, 1.0, 1.0, lambda_per_ms=10.0**-epoch, expected_ms=2.0)
        for epoch in range(4)
    ]
    with figures_saved() as figures:
        plot_trajectory(records, 1.5, LONG, tmp_path / "a.png")
        student = find_architecture("fasterseg-student")
        plot_architecture(student, LONG, tmp_path / "b.png", LONG + "pixels")
    for figure in figures:
        assert_within_page(laid_out(figure), "word")
    assert_legends_clear(figures[0])


def test_a_front_fits_its_page_and_its_students_are_seen(tmp_path: Path) -> None:
    network = find_architecture("fasterseg-student")
    rng = np.random.default_rng(1)

    def item(kind: str, ms: float, ranked: float) -> Archived:
        return Archived(kind, 0, (16, 32), network, ms, ranked, ranked, ranked=ranked)

    targets = (4.0, 6.0, 9.0)
    kinds = ("random", "evolved", "fitted")
    seen = [item(k, float(rng.uniform(3.9, 9.1)), float(rng.uniform(0.2, 0.4))) for k in kinds * 9]
    members = [Member(ms, item("evolved", 1.01 * ms, 0.4), None, None) for ms in targets]
    found = Found(
        tmp_path, tmp_path / "table.db", 6.0, members[1].student, seen[0], (), tuple(members),
        (*seen, *(member.student for member in members)), (),
    )  # fmt: skip
    measured = {ms: 0.98 * ms for ms in targets}
    baselines = {"fast-scnn": 0.1, "enet": 7.6, "bisenet-v2": 19.2}
    with figures_saved() as figures:
        plot_front(found, measured, baselines, LONG, tmp_path / "a.png")
        plot_front(found, {}, {}, "A front", tmp_path / "b.png")
    for figure, count in zip(figures, (5, 4), strict=True):
        figure = laid_out(figure)
        (axes,) = figure.axes
        lines = {line.get_label(): line for line in axes.lines}
        assert len([name for name in lines if not name.startswith("_")]) == count
        assert lines["student"].get_xdata().tolist() == [1.01 * ms for ms in targets]
        assert lines["student"].get_ydata().tolist() == [40.0] * 3
        assert sum(len(line.get_xdata()) for line in axes.lines) >= 27 + 3
        words = ("word", "fast-scnn", "enet", "bisenet") if count == 5 else ("A front",)
        assert_within_page(figure, *words, "inherited mIoU")
        assert_legends_clear(figure)
    boxes = [t.get_window_extent() for t in texts_of(figures[0]) if " ms" in t.get_text()]
    named = [box for box in boxes if box.width < 200]
    assert len(named) >= 3
    for number, box in enumerate(named):
        assert not any(box.overlaps(other) for other in named[number + 1 :])


def test_a_scan_with_a_long_subject_fits_its_page(tmp_path: Path) -> None:
    with LatencyTable.open("epyc4-onnxruntime-fp32") as table:
        found = read_scan(table, parse_grid("conv 64->{32,48,64,80,96} at 32x64"))
    with figures_saved() as figures:
        plot_scan(found, LONG, tmp_path / "a.png")
    assert_within_page(laid_out(figures[0]), "word", "conv 64", "latency, ms")
