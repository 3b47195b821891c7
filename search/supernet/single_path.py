"""One discrete network run with the supernet's weights: its cells alone, each with one operator.

A pass costs what the network costs, not what the supernet does, and gives gradients to the weights
that the network inherits alone. Cells that dropped out are identities, as in the derived network,
whereas ``Supernet.forward`` runs a skip as the 1x1 convolution that is searched.

Symbols: B batch, C channels, H height, W width.

Source: Guo et al., Single Path One-Shot Neural Architecture Search, 2020, on FasterSeg's cells.
"""

from __future__ import annotations

from torch import Tensor

from latlut.errors import SpecError
from latlut.search.supernet.ends import fine_scales
from latlut.search.supernet.supernet import SuperCell, Supernet
from latlut.spaces import Architecture
from latlut.spaces.shapes import channels


def run_path(
    supernet: Supernet, image: Tensor, network: Architecture, layers: tuple[tuple[int, ...], ...]
) -> Tensor:
    """The network's logits with the supernet's weights.

    Args:
        supernet: of the network's space, with its end width and a head for its branches.
        image: (B, 3, H, W) float, any size.
        network: what to run; its number of classes is passed over.
        layers: per branch, in order, the supernet layer of each cell (``derive.Placed``).

    Returns:
        (B, classes, ceil(H/8), ceil(W/8)).

    Raises:
        SpecError: widths, branches or layers that the supernet does not have.
    """
    ends = supernet.ends_of(network.head_width)
    output = tuple(branch.scale for branch in network.branches)
    if output not in supernet.outputs:
        raise SpecError(f"the supernet has outputs {supernet.outputs}, received {output}")
    if [len(places) for places in layers] != [len(branch.cells) for branch in network.branches]:
        raise SpecError(f"expected a layer for each cell of each branch, received {layers}")
    shared = [ends.stem(image)]  # the i-th map enters the branches' i-th cell
    refined = []
    for number, (branch, places) in enumerate(zip(network.branches, layers, strict=True)):
        maps = list(shared[: network.shared_cells + 1]) if number else shared
        scale, fine = 8, {}
        for index, (layer, cell) in enumerate(zip(places, branch.cells, strict=True)):
            if cell.is_down:
                fine[scale] = maps[index]
            after = scale * (2 if cell.is_down else 1)
            if index + 1 == len(maps):
                row = supernet.edges.rows.get((layer, scale))
                if row is None:
                    raise SpecError(f"the supernet has no cell in layer {layer} at 1/{scale}")
                super_cell = supernet.super_cells[row]
                assert isinstance(super_cell, SuperCell)
                out = channels(supernet.space.base_width, after, cell.width)
                (found,) = super_cell.direction(cell.is_down)(maps[index], out, (cell.operator,))
                maps.append(found)
            scale = after
        finer = [fine[at] for at in fine_scales(branch.scale)]
        refined.append(ends.refine(branch.scale, maps[-1], finer))
    return ends.classify(output, refined)
