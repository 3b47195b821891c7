"""What a relaxed architecture's logits say, cell by cell, as plain numbers.

Both ways of deriving a network read this: ours (``derive``) and the authors' (``released``).

Symbols: L layers, N cells, K operators, W widths. A cell is a (layer, scale) of
``FasterSegSpace.cells()``; a branch's path is given by the layers of its down cells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latlut.errors import SpecError
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Cell, FasterSegSpace
from latlut.spaces.shapes import SCALES
from latlut.spaces.topology import Place, path_places

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Choices:
    """The logits of every choice, and the width that every map chose."""

    space: FasterSegSpace
    end_width: int
    alpha: Mapping[Place, Floats]
    """Per cell (K,) float64 logits, in the order of ``space.operators``."""
    beta: Mapping[Place, Floats]
    """Per cell with two inputs (2,) float64 logits, from the finer scale first."""
    width: Mapping[Place, int]
    """Per cell but the first the width of the map that enters it, in twelfths: the argmax of gamma,
    of equal ones the first in ``relaxed.widths``."""

    def operator(self, place: Place, with_skip: bool) -> str:
        """The operator of largest alpha; of equal ones the first in ``space.operators``."""
        logits = self.alpha[place].tolist()
        names = self.space.operators
        if not with_skip and "skip" in names:
            logits[names.index("skip")] = -math.inf
        return names[logits.index(max(logits))]

    def skip_probability(self, place: Place) -> float:
        """Softmax of alpha at skip; 0 in a space without it."""
        if "skip" not in self.space.operators:
            return 0.0
        logits = self.alpha[place]
        shares = np.exp(logits - logits.max())
        return float(shares[self.space.operators.index("skip")] / shares.sum())

    def branch_cells(self, downs: tuple[int, ...], kept: Mapping[int, str]) -> tuple[Cell, ...]:
        """The cells of a branch from its path and the operators of the layers that it keeps.

        A kept cell has the width of the map that enters the path's next cell, also where that
        next cell was left out; the last kept cell has the head's width.
        """
        path = path_places(self.space.layers, downs)
        final = max(kept)
        return tuple(
            Cell(
                operator,
                self.end_width if layer == final else self.width[path[layer + 1]],
                layer in downs,
            )
            for layer, operator in sorted(kept.items())
        )


def choices_of(relaxed: RelaxedArchitecture) -> Choices:
    """The choices that a relaxed architecture's logits stand for.

    Raises:
        SpecError: a logit that is not finite, with its parameter and cell.
    """
    cells = relaxed.space.cells()
    two_way = [cells[row] for row in relaxed.two_way]
    tables: dict[str, dict[Place, Floats]] = {}
    for name, places in (("alpha", cells), ("beta", two_way), ("gamma", cells[1:])):
        values = getattr(relaxed, name).detach().double().cpu().numpy()
        for row, (layer, scale) in zip(values, places, strict=True):
            if not np.isfinite(row).all():
                raise SpecError(
                    f"{name} of the cell at layer {layer}, 1/{scale} is {row.tolist()}: "
                    "a network cannot be derived from logits that are not finite"
                )
        tables[name] = dict(zip(places, values, strict=True))
    width = {place: relaxed.widths[int(row.argmax())] for place, row in tables["gamma"].items()}
    return Choices(relaxed.space, relaxed.end_width, tables["alpha"], tables["beta"], width)


def minimum_depth(layers: int, scale: int) -> int:
    """Cells that a branch down to 1/scale has at least: round(L (1/3 + i/8)), i downsamplings.

    But one per downsampling and one behind the last. For the 16 layers of the authors' code these
    are its 5, 7 and 9; its own rule, round(L / 3) + 2 i, would leave small spaces hardly a skip.
    """
    downs = SCALES.index(scale)
    return max(downs + 1, round(layers * (8 + 3 * downs) / 24))


def least_gap(layers: int) -> int:
    """Layers between the two downsamplings of a 1/32 branch, at least: max(1, round(3 L / 16)).

    3 for the 16 layers of the authors' code, which has that number for any L.
    """
    return max(1, round(3 * layers / 16))
