"""The picture of a validation."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pictures import (
    assert_clear,
    assert_legends_clear,
    assert_within_page,
    figures_saved,
    laid_out,
    legends_of,
    points_of,
    texts_of,
)

from latlut.errors import SpecError
from latlut.files.writing import WriteError
from latlut.reports.scatter import plot_agreement
from latlut.stats.agreement import agreement


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    true = rng.uniform(5, 20, 30)
    first, second = true * (1 + 0.01 * rng.normal(size=(2, 30)))
    estimated = true * 1.03
    return estimated, (first + second) / 2, agreement(estimated, first, second, resamples=20)


@pytest.mark.parametrize(
    ("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]
)
def test_file_kind_follows_the_suffix(tmp_path, data, suffix, magic):
    path = tmp_path / f"fit{suffix}"
    estimated, measured, found = data
    plot_agreement(estimated, measured, found, "a $ title_{", "a subtitle " * 40, path)
    assert path.read_bytes().startswith(magic)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_picture_shows_numbers_intervals_and_calibration(tmp_path, data, monkeypatch):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    estimated, measured, found = data
    path = tmp_path / "fit.svg"
    ends = {"ci_low_ms": estimated * 0.98, "ci_high_ms": estimated * 1.02}
    plot_agreement(estimated, measured, found, "title", "subtitle", path, **ends)
    text = path.read_text()
    shown = ("title", "subtitle", f"{found.r:.4f}", f"{found.ceiling_r:.4f}", "n = 30", "y = x")
    for part in (*shown, f"MAPE = {found.mape_percent:.2f}%", "95% interval of the estimate"):
        assert part in text, part
    assert "calibrated" not in text and "plain" not in text
    calibrated = agreement(estimated / 1.03, measured * 1.001, measured * 0.999, resamples=20)
    plot_agreement(
        estimated, measured, found, "title", "subtitle", path, **ends,
        calibrated_ms=estimated / 1.03, calibrated_agreement=calibrated,
    )  # fmt: skip
    text = path.read_text()
    numbers = [f"{n:.2f}%" for n in (found.mape_percent, calibrated.mape_percent,
                                     found.noise_floor_mape_percent)]  # fmt: skip
    correlations = [f"{n:.4f}" for n in (found.r, calibrated.r, found.ceiling_r)]
    for part in (*numbers, *correlations, "n = 30", "noise limit", "within 5%", ">plain<",
                 "95% interval, calibrated", ">calibrated<"):  # fmt: skip
        assert part in text, part


def test_the_bars_are_those_of_the_calibrated_estimates(tmp_path, data, monkeypatch):
    drawn = []
    monkeypatch.setattr(Axes, "errorbar", lambda axes, x, y, **options: drawn.append((x, options)))
    estimated, measured, found = data
    ends = {"ci_low_ms": estimated * 0.9, "ci_high_ms": estimated * 1.1}
    own = {"calibrated_ms": estimated * 0.98, "calibrated_agreement": found}
    for more, middle in (({}, estimated), (own, estimated * 0.98)):
        plot_agreement(estimated, measured, found, "", "", tmp_path / "a.png", **ends, **more)
        shown, options = drawn.pop()
        assert shown == pytest.approx(middle)
        assert options["xerr"][0] == pytest.approx(middle - estimated * 0.9)
        assert options["xerr"][1] == pytest.approx(estimated * 1.1 - middle)


def test_the_numbers_of_both_estimates_do_not_overlap(tmp_path, data, monkeypatch):
    """Nor where they are as long as they get."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **o: (save(self, *a, **o), figures.append(self))
    )
    none = float("nan")
    found = replace(data[2], n=10_000, r=none, mape_percent=none, ceiling_r=none, within_5=1.0)
    plot_agreement(
        data[0], data[1], found, "", "", tmp_path / "a.png",
        calibrated_ms=data[0], calibrated_agreement=found,
    )  # fmt: skip
    figures[0].draw_without_rendering()  # saving has put back another resolution
    upper = figures[0].axes[0]
    (table,) = upper.tables
    texts = [cell.get_text() for cell in table.get_celld().values()]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) == 15
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    (frame,) = (artist for artist in upper.patches if artist.get_zorder() == 5)
    area = frame.get_window_extent()
    assert all(area.containsx(b.x0) and area.containsx(b.x1) for b in boxes)
    assert all(area.containsy(b.y0) and area.containsy(b.y1) for b in boxes)


def test_same_data_same_file(tmp_path, data):
    for name in ("a.svg", "b.svg"):
        plot_agreement(*data, "title", "", tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_degenerate_numbers_are_drawn_as_undefined(tmp_path):
    found = agreement([3, 3, 3], [3, 3, 3], [3, 3, 3], resamples=5)
    plot_agreement([3, 3, 3], [3, 3, 3], found, "title", "", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_data_that_do_not_fit_are_refused(tmp_path, data):
    estimated, measured, found = data
    path = tmp_path / "a.png"

    def plot(*series, to=path, **options):
        plot_agreement(*series, found, "title", "", to, **options)

    with pytest.raises(SpecError, match="measured_ms"):
        plot(estimated, measured[1:])
    with pytest.raises(SpecError, match="finite and positive"):
        plot(-estimated, measured)
    with pytest.raises(SpecError, match="both or neither"):
        plot(estimated, measured, ci_low_ms=estimated)
    for lonely in ({"calibrated_ms": estimated}, {"calibrated_agreement": found}):
        with pytest.raises(SpecError, match="calibrated_agreement: give both or neither"):
            plot(estimated, measured, **lonely)
    with pytest.raises(SpecError, match=r"\.pdf, \.png, \.svg"):
        plot(estimated, measured, to=tmp_path / "a.bmp")
    with pytest.raises(WriteError, match="cannot write"):
        plot(estimated, measured, to=tmp_path / "missing" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys; from latlut.stats.agreement import agreement\n"
        "from latlut.reports.scatter import plot_agreement\n"
        "assert 'matplotlib' not in sys.modules\n"
        "a = [1, 2, 3]; plot_agreement(a, a, agreement(a, a, a, resamples=2), 't', 's', "
        f"{str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


DISTURBED = "Estimated and measured latency of networks, disturbed"


@pytest.mark.parametrize("shift", [0.8, 1.0, 1.25], ids=["too low", "equal", "too high"])
@pytest.mark.parametrize("is_calibrated", [False, True])
def test_nothing_lies_on_points_or_beyond_the_page(tmp_path, data, shift, is_calibrated):
    """The points fill the corners that a fixed legend or box of numbers would take."""
    measured, found = data[1], data[2]
    estimated = measured * shift
    own = {"calibrated_ms": measured * 1.01, "calibrated_agreement": found}
    subtitle = "onnxruntime 1.32.0, fp32, threads: 2, AMD EPYC (family 25, model 17); " * 4
    with figures_saved() as figures:
        plot_agreement(
            estimated, measured, found, DISTURBED, subtitle, tmp_path / "a.png",
            ci_low_ms=estimated * 0.9, ci_high_ms=estimated * 1.1, **own if is_calibrated else {},
        )  # fmt: skip
    figure = laid_out(figures[0])
    title = next(text for text in texts_of(figure) if text.get_text().startswith("Estimated"))
    assert title.get_text().replace("\n", " ") == DISTURBED
    assert_within_page(figure, "Estimated and", "onnxruntime", "estimated latency", "measured")
    assert_legends_clear(figure)
    (legend,) = legends_of(figure)
    top = figure.axes[0].get_window_extent().y1
    heading = min(
        text.get_window_extent().y0
        for text in texts_of(figure)
        if text.get_text().startswith(("Estimated and", "onnxruntime"))
    )
    assert top < legend.get_window_extent().y0 < legend.get_window_extent().y1 < heading
    if is_calibrated:
        numbers = [a for a in figure.axes[0].patches if a.get_zorder() == 5]
        boxes = [a.get_window_extent() for a in numbers]
    else:
        (words,) = (t for t in figure.axes[0].texts if "MAPE" in t.get_text())
        boxes = [words.get_bbox_patch().get_window_extent()]
    (box,) = boxes
    assert_clear(box, points_of(figure))
