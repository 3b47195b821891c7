"""The picture of a network: its words, what overlaps, the same file from the same network."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from latlut.errors import SpecError
from latlut.files.writing import WriteError
from latlut.reports.architecture import plot_architecture
from latlut.resources import profiles_dir
from latlut.spaces import Architecture, Branch, Cell, FasterSegSpace


def published(name: str) -> Architecture:
    return Architecture.load(profiles_dir() / "architectures" / f"fasterseg-{name}.json")


def texts_of(path: Path) -> list[str]:
    """Every text of an .svg that was drawn with text as text."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_every_cell_is_drawn_once(name: str, tmp_path: Path) -> None:
    network = published(name)
    path = tmp_path / "network.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_architecture(network, name, path, subtitle="as published")
    texts = texts_of(path)
    cells = [
        cell
        for number, branch in enumerate(network.branches)
        for cell in branch.cells[network.shared_cells if number else 0 :]
    ]
    labels = {"conv": "conv", "conv_2x": "conv ×2", "zoomed_conv": "zoom"}
    for operator, label in {**labels, "zoomed_conv_2x": "zoom ×2"}.items():
        in_legend = label == operator
        assert texts.count(label) == sum(c.operator == operator for c in cells) + in_legend
    for width in {cell.width for cell in cells}:
        assert texts.count(f"{width}/12") == sum(c.width == width for c in cells)
    assert sum(text.startswith("↓") for text in texts) == sum(c.is_down for c in cells)
    assert texts.count("refine") == 3
    for word in (name, "as published", "1/8", "1/16", "1/32", "stem", "fusion", "head"):
        assert word in texts


@pytest.mark.parametrize(
    ("seed", "layers", "branches"), [(1, 3, 1), (2, 5, 2), (3, 16, 2), (4, 16, 1), (5, 16, 2)]
)
def test_nothing_overlaps(tmp_path: Path, seed: int, layers: int, branches: int) -> None:
    network = FasterSegSpace(layers=layers, branches=branches).sample(seed)
    drawn: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *args: Any, **options: Any) -> None:
        save(figure, *args, **options)
        drawn.append(figure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", remember)
        plot_architecture(network, "a title", tmp_path / "x.png", "and a subtitle")
    (axes,) = drawn[0].axes
    drawn[0].draw_without_rendering()  # saving has put back another resolution
    page = drawn[0].bbox
    texts = [text.get_window_extent() for text in axes.texts if text.get_text()]
    boxes = [patch.get_window_extent() for patch in axes.patches if type(patch) is FancyBboxPatch]
    for group in (texts, boxes):
        for one, other in combinations(group, 2):
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(width, height) < 1, (one, other)
    for box in (*texts, *boxes):
        assert box.x0 >= page.x0 and box.x1 <= page.x1
        assert box.y0 >= page.y0 and box.y1 <= page.y1


@pytest.mark.parametrize(
    "network",
    [
        Architecture(8, 8, (Branch(8, (Cell("conv", 8),)),)),
        Architecture(8, 8, (Branch(16, (Cell("conv", 4, True), Cell("conv", 8))),)),
        Architecture(
            8,
            8,
            (
                Branch(16, (Cell("conv", 4, True), Cell("conv", 8))),
                Branch(32, (Cell("conv", 4, True), Cell("conv", 4, True), Cell("conv", 8))),
            ),
        ),
    ],
    ids=["one cell", "one branch", "shared down cell"],
)
def test_small_networks_make_pictures(network: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    plot_architecture(network, "small", path)
    with Image.open(path) as image:
        image.load()
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert (0x8F, 0xBB, 0xE8) in colours, "the bar of a conv"


def test_the_same_network_gives_the_same_file(tmp_path: Path) -> None:
    for suffix in ("svg", "png"):
        one, other = tmp_path / f"one.{suffix}", tmp_path / f"other.{suffix}"
        for path in (one, other):
            plot_architecture(published("student"), "student", path)
        assert one.read_bytes() == other.read_bytes()


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"\.pdf, \.png, \.svg, received '\.jpg'"):
        plot_architecture(published("student"), "x", tmp_path / "x.jpg")
    with pytest.raises(WriteError):
        plot_architecture(published("student"), "x", tmp_path / "missing" / "x.png")
    assert list(tmp_path.iterdir()) == []
