"""The picture of a validation."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from latlut.agreement import agreement
from latlut.errors import ImportFileError, SpecError
from latlut.reports.scatter import plot_agreement


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
    plot_agreement(
        estimated, measured, found, "title", "subtitle", path,
        ci_low_ms=estimated * 0.98, ci_high_ms=estimated * 1.02, calibrated_ms=estimated / 1.03,
    )  # fmt: skip
    text = path.read_text()
    shown = ("title", "subtitle", f"{found.r:.4f}", f"{found.ceiling_r:.4f}", "n = 30", "y = x")
    for part in (*shown, f"MAPE = {found.mape_percent:.2f}%", "calibrated", "95% interval"):
        assert part in text, part


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
    with pytest.raises(SpecError, match=r"\.pdf, \.png, \.svg"):
        plot(estimated, measured, to=tmp_path / "a.bmp")
    with pytest.raises(ImportFileError, match="cannot be written"):
        plot(estimated, measured, to=tmp_path / "missing" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_never_imported(tmp_path):
    code = (
        "import sys; from latlut.agreement import agreement\n"
        "from latlut.reports.scatter import plot_agreement\n"
        "assert 'matplotlib' not in sys.modules\n"
        "a = [1, 2, 3]; plot_agreement(a, a, agreement(a, a, a, resamples=2), 't', 's', "
        f"{str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
