"""The authors' decoding of alpha and beta, with the quirks that their published networks have.

The published weights belong to networks that were decoded in this way, so a file of theirs has to
be read in this way; nothing else should be. It differs from ``derive``'s own rules in this:

- The position of the 1/16 branch's downsampling is off by one: the largest beta says that the
  1/16 cell of layer l + 1 reads a down cell, which is at layer l; the code downsamples at l - 1.
- Positions are judged by beta of the receiving cells alone, and the first and the last such cell
  are left out of the comparison.
- beta passes through softmax again for each of the branches 8, 16, 32, which flattens it and can
  change the pair of positions whose product is largest.
- The three branches are decoded one after the other on the same alpha: a skip that one of them
  has to replace counts as no skip for those that follow, also if that branch is not used.
- A skip in the last layer drops out; stretches of skips before the first downsampling may, too.
- A stretch's protected skip still takes one of the places of those that may drop out.

Source: FasterSeg, the authors' release, train/model_seg.py; single precision, as there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from latlut.errors import SpecError
from latlut.search.derive.choices import Choices
from latlut.spaces.shapes import SCALES
from latlut.spaces.topology import Place, path_places

#: Layers below which the authors' code fails for want of a cell to choose.
FEWEST_LAYERS = 5

Decoded = tuple[tuple[int, ...], dict[int, str]]


def released_branches(choices: Choices, allow_skip: bool) -> dict[int, Decoded]:
    """Every branch as (layers of its down cells, operator of each layer that it keeps).

    Raises:
        SpecError: fewer than 5 layers, for which the authors' rule has no positions.
    """
    layers = choices.space.layers
    if layers < FEWEST_LAYERS:
        raise SpecError(
            f'the decoding "released" needs {FEWEST_LAYERS} layers, received {layers}: '
            'use the decoding "corrected"'
        )
    never_skip: set[Place] = set() if allow_skip else set(choices.alpha)
    branches = {}
    for times, scale in enumerate(SCALES, 1):
        downs = _positions(choices, scale, times)
        branches[scale] = (downs, _kept(choices, scale, downs, never_skip))
    return branches


def _positions(choices: Choices, scale: int, times: int) -> tuple[int, ...]:
    layers = choices.space.layers
    if scale == 8:
        return ()
    from_finer = {
        fine: _repeated_softmax(
            [choices.beta[layer, fine] for layer in range(first, layers)], times
        )
        for fine, first in ((16, 2), (32, 3))
    }
    if scale == 16:
        return (int(from_finer[16][1:-1].argmax()) + 1,)
    best, largest = (0, 1), np.float32(0)
    for coarse in range(layers - 4):
        for fine in range(1, coarse - 1):
            product = from_finer[16][fine] * from_finer[32][coarse]
            if product > largest:
                best, largest = (fine, coarse), product
    return best[0] + 1, best[1] + 2


def _repeated_softmax(rows: list[npt.NDArray[np.float64]], times: int) -> npt.NDArray[np.float32]:
    """First column of softmax over softmax over ..., (rows,)."""
    values = np.asarray(rows, dtype=np.float32)
    for _ in range(times):
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        values = shares / shares.sum(axis=1, keepdims=True)
    return values[:, 0]


def _kept(
    choices: Choices, scale: int, downs: tuple[int, ...], never_skip: set[Place]
) -> dict[int, str]:
    """Operators of the layers that stay; adds to ``never_skip`` what later branches inherit."""
    layers = choices.space.layers
    path = path_places(layers, downs)

    def is_skip(layer: int) -> bool:
        place = path[layer]
        return place not in never_skip and choices.operator(place, with_skip=True) == "skip"

    skips = [layer for layer in range(layers) if layer not in downs and is_skip(layer)]
    protected = []
    for start, stop in zip(downs, (*downs[1:], layers), strict=False):
        stretch = range(start + 1, stop)
        if stretch and all(layer in skips for layer in stretch):
            # Of equal ones the last, as in the authors' code.
            weakest = min(
                reversed(stretch), key=lambda layer: choices.skip_probability(path[layer])
            )
            protected.append(path[weakest])
    skips.sort(key=lambda layer: -choices.skip_probability(path[layer]))
    least = min(layers, round(layers / 3) + 2 * SCALES.index(scale))
    dropped = skips[: layers - least]
    never_skip.update(protected)
    kept = {}
    for layer, place in enumerate(path):
        if is_skip(layer):
            if layer in dropped:
                continue
            never_skip.add(place)
        kept[layer] = choices.operator(place, with_skip=place not in never_skip)
    return kept
