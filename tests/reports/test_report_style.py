"""What pictures have in common: which files they go into, and what becomes of those."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from latlut.errors import SpecError
from latlut.files.writing import WriteError
from latlut.reports.style import STYLE, SUFFIXES, picture_path, save
from latlut.reports.trajectory import plot_trajectory
from latlut.search.cosearch.records import EpochRecord


def draw(path: Path) -> None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2, 2))
        axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
        axes.plot([0, 1], [1, 0], "o-", clip_on=True)
        axes.set_title("a $ title_{")
        save(figure, picture_path(path))


@pytest.mark.parametrize("name", ["picture.jpg", "picture", ".png"])
def test_other_suffixes_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=r"ends in \.pdf, \.png, \.svg, received"):
        picture_path(name)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_the_same_data_give_the_same_file(tmp_path: Path, suffix: str) -> None:
    one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
    draw(one)
    draw(other)
    assert one.read_bytes() == other.read_bytes()


def test_a_write_that_fails_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.svg"
    path.write_text("from before")

    def full(figure: Figure, file: Path, **options: object) -> None:
        file.write_text("half a pic")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(WriteError, match="cannot write"):
        draw(path)
    assert path.read_text() == "from before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_trajectory_shows_powers_of_ten_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    records = [
        EpochRecord("search", epoch, 1.0, 1.0, lambda_per_ms=10.0**-epoch, expected_ms=2.0)
        for epoch in range(4)
    ]
    plot_trajectory(records, 1.5, "A search", tmp_path / "a.svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())
    assert {"A search", "target 1.5", "lambda, per ms"} <= set(texts)
    assert not any("$" in text for text in texts)
    with pytest.raises(SpecError, match="ends in"):
        plot_trajectory(records, 1.5, "A search", tmp_path / "a.txt")
