"""Which cells a FasterSeg supernet has, and by which of them a branch goes down.

A supernet of L layers has one cell at 1/8 in layer 0, cells at 1/8 and 1/16 in layer 1, and at
1/8, 1/16 and 1/32 in every later layer. A branch starts at 1/8 and downsamples in as many layers
as its scale asks for; the last layer is no place for that, since nothing follows it.

Symbols: L layers.

Source: FasterSeg, Sec. 3.1 and 4.2.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from typing import TypeAlias

from latlut.spaces.shapes import SCALES

#: (layer, scale) of a cell.
Place: TypeAlias = tuple[int, int]


def cell_places(layers: int) -> tuple[Place, ...]:
    """All cells, layer by layer; 45 for 16 layers."""
    return tuple((layer, scale) for layer in range(layers) for scale in SCALES[: min(layer, 2) + 1])


def down_layers(layers: int, scale: int) -> tuple[tuple[int, ...], ...]:
    """All ways for a branch to reach ``scale``: the layers of its down cells, increasing."""
    return tuple(combinations(range(layers - 1), SCALES.index(scale)))


@cache
def path_places(layers: int, downs: tuple[int, ...]) -> tuple[Place, ...]:
    """The cell of each layer on a path that downsamples in the layers ``downs``."""
    return tuple((layer, 8 * 2 ** sum(down < layer for down in downs)) for layer in range(layers))


def is_two_way(layer: int, scale: int) -> bool:
    """Whether a cell's input can come from the finer and from its own scale."""
    return scale > 8 and 8 * 2**layer > scale
