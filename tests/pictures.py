"""What tests see of a picture: the figure that was saved, and the boxes of what is on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox


@contextmanager
def figures_saved() -> Iterator[list[Figure]]:
    """The figures that are saved meanwhile, drawn at their own resolution when they are looked at
    with ``laid_out``."""
    figures: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *args: object, **options: object) -> None:
        save(figure, *args, **options)  # type: ignore[arg-type]
        figures.append(figure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", remember)
        yield figures


def laid_out(figure: Figure) -> Figure:
    """The figure with everything in its place: saving has put back another resolution."""
    figure.draw_without_rendering()
    return figure


def texts_of(figure: Figure) -> list[Text]:
    """Everything that is written on a figure and visible."""
    return [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip()
    ]


def assert_within_page(figure: Figure, *containing: str) -> None:
    """Texts that contain one of the words lie on the page."""
    page = figure.bbox
    for word in containing:
        found = [text for text in texts_of(figure) if word in text.get_text()]
        assert found, word
        for text in found:
            box = text.get_window_extent()
            assert page.x0 <= box.x0 and box.x1 <= page.x1, text.get_text()
            assert page.y0 <= box.y0 and box.y1 <= page.y1, text.get_text()


def legends_of(figure: Figure) -> list[Legend]:
    """Of the figure and of its axes."""
    found = [axes.get_legend() for axes in figure.axes]
    return [*figure.legends, *(legend for legend in found if legend is not None)]


def points_of(figure: Figure) -> np.ndarray:
    """(N, 2) where points of scatter plots and lines lie, in pixels of the page."""
    found = [np.empty((0, 2))]
    for axes in figure.axes:
        for collection in axes.collections:
            offsets = np.ma.filled(collection.get_offsets(), np.nan)
            found.append(collection.get_offset_transform().transform(offsets))
        for line in axes.lines:
            if line.get_transform() is axes.transData or line.get_marker() not in ("", "None"):
                found.append(line.get_transform().transform(np.column_stack(line.get_data())))
    together = np.concatenate(found)
    return together[np.isfinite(together).all(axis=1)]


def assert_clear(box: Bbox, points: np.ndarray) -> None:
    """No point lies in a box."""
    inside = (
        (points[:, 0] > box.x0) & (points[:, 0] < box.x1)
        & (points[:, 1] > box.y0) & (points[:, 1] < box.y1)
    )  # fmt: skip
    assert not inside.any(), points[inside]


def assert_legends_clear(figure: Figure) -> None:
    """Legends lie on the page and on no point."""
    legends = legends_of(figure)
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1
        assert_clear(box, points_of(figure))
