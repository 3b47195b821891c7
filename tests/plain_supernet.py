"""The supernet written plainly, one operator at a time: what its optimisations are held against.

Every operator is computed alone by ``torch.nn.functional`` from its own slice of the weights, both
inputs of a cell are computed in full and then mixed by Eq. 1, and finer maps are padded to the
widest. Nothing is stacked, skipped or summed in place. Norms run on batch statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.search.supernet.mixing import Gates, Mixing
from latlut.search.supernet.supernet import Supernet
from latlut.spaces.shapes import SCALES, channels


def _resize(image: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(image, size=tuple(size), mode="bilinear", align_corners=True)


def _kernel(superkernel: nn.Module, out: int, inputs: int, index: int) -> Tensor:
    total, most, side, _ = superkernel.weight.shape
    stacked = superkernel.weight.view(superkernel.count, -1, most, side, side)
    return stacked[index][:out][:, :inputs]


def _norm(norms: nn.Module, image: Tensor, index: int = 0) -> Tensor:
    channels = image.shape[1]
    norm = norms.norms[str(channels)]
    part = slice(index * channels, (index + 1) * channels)
    return functional.batch_norm(
        image, None, None, norm.weight[part], norm.bias[part], training=True, eps=norm.eps
    )


def _conv(part: nn.Module, image: Tensor, out: int, stride: int, index: int = 0) -> Tensor:
    weight = _kernel(part.conv, out, image.shape[1], index)
    result = functional.conv2d(image, weight, stride=stride, padding=weight.shape[-1] // 2)
    return _norm(part.norm, result, index)


def plain_operator(mixed: nn.Module, name: str, image: Tensor, out: int) -> Tensor:
    """One operator of a ``MixedOperator`` on its own, (B, out, H', W')."""
    stride = mixed.stride
    if name == "skip":
        if stride == 1:
            return functional.relu(_conv(mixed.skip, image, out, 1))
        even = _kernel(mixed.skip.even, out // 2, image.shape[1], 0)
        odd = _kernel(mixed.skip.odd, out - out // 2, image.shape[1], 0)
        bottom, right = image.shape[-2] % 2, image.shape[-1] % 2
        shifted = functional.pad(image, (-1, right, -1, bottom))
        halves = [
            functional.conv2d(image, even, stride=2),
            functional.conv2d(shifted, odd, stride=2),
        ]
        return functional.relu(_norm(mixed.skip.norm, torch.cat(halves, 1)))
    is_zoomed, is_double = name.startswith("zoomed"), name.endswith("2x")
    pair = mixed.zoomed if is_zoomed else mixed.direct
    single = "zoomed_conv" if is_zoomed else "conv"
    index = int(is_double and single in mixed.operators)
    size = image.shape[-2:]
    if is_zoomed:
        image = _resize(image, [(side + 1) // 2 for side in size])
    result = _conv(pair.first, image, out, 1 if is_zoomed else stride, index)
    if is_double:
        result = _conv(pair.second, functional.relu(result), out, 1)
    if is_zoomed and stride == 1:
        result = _resize(result, size)
    return functional.relu(result)


def _refined(refinement: nn.Module, coarse: Tensor, fine: Tensor) -> Tensor:
    joined = torch.cat([_resize(refinement.reduce(coarse), fine.shape[-2:]), fine], 1)
    weight = refinement.merge.weight[:, : joined.shape[1]]
    return functional.relu(refinement.norm(functional.conv2d(joined, weight, padding=1)))


def path_weight(downs: Sequence[int], branch: int, beta_of: Callable[[int, int], Tensor]) -> Tensor:
    """Probability that a branch, traced back from the last layer, goes down at these layers."""
    scales = [8]
    layers = beta_of.layers  # type: ignore[attr-defined]
    for layer in range(layers - 1):
        scales.append(scales[-1] * (2 if layer in downs else 1))
    assert scales[-1] == branch
    weight = torch.ones(())
    for layer, (before, after) in enumerate(pairwise(scales)):
        share = beta_of(layer + 1, after)
        weight = weight * (share if after > before else 1 - share)
    return weight


def plain_supernet(
    net: Supernet,
    image: Tensor,
    mixing: Mixing,
    widths: Sequence[int],
    end_width: int,
    gates: Gates | None = None,
) -> dict[tuple[int, ...], Tensor]:
    """What ``Supernet.forward`` returns, in training mode."""
    space, ends = net.space, net.ends_of(end_width)
    rows = {cell: row for row, cell in enumerate(space.cells())}

    def beta_of(layer: int, scale: int) -> Tensor:
        return mixing.beta[rows[layer, scale]]

    beta_of.layers = space.layers  # type: ignore[attr-defined]

    def run(layer: int, scale: int, is_down: bool, width: int) -> Tensor:
        row = rows[layer, scale]
        out = channels(space.base_width, scale * (1 + is_down), width)
        mixed = net.super_cells[row].direction(is_down)
        parts = [plain_operator(mixed, name, maps[layer, scale], out) for name in space.operators]
        return sum(weight * part for weight, part in zip(mixing.alpha[row], parts, strict=True))

    maps = {(0, 8): ends.stem(image)}
    for layer, scale in space.cells()[1:]:
        row = rows[layer, scale]
        share, total = mixing.beta[row], torch.zeros(())
        if scale > 8:
            total = total + share * run(layer - 1, scale // 2, True, widths[row - 1])
        if (layer - 1, scale) in rows:
            total = total + (1 - share) * run(layer - 1, scale, False, widths[row - 1])
        if gates is not None:
            bounds = [channels(space.base_width, scale, width) for width in gates.widths]
            column = [next(i for i, b in enumerate(bounds) if c < b) for c in range(total.shape[1])]
            total = total * gates.values[row - 1][column][:, None, None]
        maps[layer, scale] = total
    last = {scale: run(space.layers - 1, scale, False, end_width) for scale in SCALES}

    refined = {8: last[8]}
    for branch in (16, 32):
        fine = {}
        for scale in (16, 8):
            if scale < branch:
                most = max(image.shape[1] for cell, image in maps.items() if cell[1] == scale)
                fine[scale] = torch.zeros(())
                for downs in space.positions(branch):
                    down = downs[SCALES.index(scale)]
                    part = maps[down, scale]
                    padded = functional.pad(part, (0, 0, 0, 0, 0, most - part.shape[1]))
                    fine[scale] = fine[scale] + path_weight(downs, branch, beta_of) * padded
        coarse = last[branch]
        for scale, part in fine.items():
            coarse = _refined(ends.refinements[f"{branch}_{scale}"], coarse, part)
        refined[branch] = coarse
    found = {}
    for output in net.outputs:
        name = "_".join(map(str, output))
        joined = torch.cat([refined[scale] for scale in output], 1)
        found[output] = ends.heads[name](ends.fusions[name](joined))
    return found
