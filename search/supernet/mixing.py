"""Mixing: what weighs the supernet's operators and inputs, and the weighted sum itself.

The map that enters a cell is, by Eq. 1 of the paper, the mean of what the down direction of the
finer cell and the keep direction of the cell at the same scale put out, and each of these is a mean
over operators. Both are linear, so that a map is one weighted sum of up to 2 K outputs:

    x = beta sum_k alpha_k down_k + (1 - beta) sum_k alpha'_k keep_k

with alpha and alpha' of the two source cells. All weights of a pass are computed at once, and
outputs of weight 0 are not computed where no gradient asks for them.

Symbols: L layers, N cells, K operators, E edges. Maps are numbered by the cell that
they enter, then come the outputs of the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from latlut.spaces import FasterSegSpace


class Mixing(NamedTuple):
    """Weights of one pass, row by row in the order of ``space.cells()``.

    ``alpha`` (N, K): weight of each operator. ``beta`` (N,): weight of the input that comes from
    the finer scale; the rest comes from the same scale. Cells that have one input have a fixed
    beta: 0 at 1/8, 1 for the first cell of a coarser scale (``relaxed.Probabilities`` has it so).
    ``is_drawn``: weights of 0 were not drawn and are not computed, also where the others have a
    gradient.
    """

    alpha: Tensor
    beta: Tensor
    is_drawn: bool = False


class Gates(NamedTuple):
    """What multiplies the channels that a width adds to the next narrower one.

    ``widths`` (W,) in twelfths, increasing; ``values`` (N - 1, W) float, for the maps that enter
    cells[1:]. A map that is drawn narrower has no channels for the last columns.
    """

    widths: tuple[int, ...]
    values: Tensor


class WeightedSum(torch.autograd.Function):
    """sum_i weights[i] * maps[i] as one step; see ``weighted_sum``.

    A chain of products and sums would store every partial sum for the backward pass; here the maps
    alone are kept, and only where the weights want a gradient.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        weights: Tensor,
        values: tuple[float, ...],
        *maps: Tensor,
    ) -> Tensor:
        widest = max(range(len(maps)), key=lambda i: maps[i].shape[1])
        result = maps[widest] * values[widest]
        for index, (value, part) in enumerate(zip(values, maps, strict=True)):
            if index != widest:
                result[:, : part.shape[1]].add_(part, alpha=value)
        ctx.values = values  # type: ignore[attr-defined]
        ctx.kinds = [(part.shape[1], part.dtype) for part in maps]  # type: ignore[attr-defined]
        ctx.dtype = weights.dtype  # type: ignore[attr-defined]
        if weights.requires_grad:
            ctx.save_for_backward(*maps)
        return result

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        needs: tuple[bool, ...] = ctx.needs_input_grad  # type: ignore[attr-defined]
        of_weights = None
        if needs[0]:
            products = [
                (gradient[:, : part.shape[1]] * part).sum(dtype=ctx.dtype)  # type: ignore[attr-defined]
                for part in ctx.saved_tensors  # type: ignore[attr-defined]
            ]
            of_weights = torch.stack(products)
        of_maps = [
            (gradient[:, :channels] * value).to(dtype) if wanted else None
            for value, (channels, dtype), wanted in zip(
                ctx.values,  # type: ignore[attr-defined]
                ctx.kinds,  # type: ignore[attr-defined]
                needs[2:],
                strict=True,
            )
        ]
        return of_weights, None, *of_maps


def weighted_sum(weights: Tensor, values: tuple[float, ...], maps: Sequence[Tensor]) -> Tensor:
    """(B, C, H, W): sum_i weights[i] * maps[i]; narrower maps count as padded with zero channels.

    Args:
        weights: (n,) float, may require a gradient.
        values: the same numbers as Python floats, so that no map waits for them on a GPU.
        maps: n tensors (B, C_i, H, W); C is the largest C_i.
    """
    if len(maps) == 1 and values[0] == 1.0 and not weights.requires_grad:
        return maps[0]
    result: Tensor = WeightedSum.apply(weights, values, *maps)
    return result


@dataclass(frozen=True)
class Edge:
    """One direction of a cell: it carries outputs of cell ``source`` into map ``target``.

    ``row`` is its row among ``Edges.all``; ``target`` is a cell's row, or N + i for the output of
    the last layer at the i-th scale.
    """

    row: int
    source: int
    target: int
    is_down: bool


class Edges:
    """All directions of a space's cells, and their weights under a mixing."""

    def __init__(self, space: FasterSegSpace) -> None:
        cells = space.cells()
        rows = {cell: row for row, cell in enumerate(cells)}
        self.rows, self.layers = rows, space.layers
        last = [scale for layer, scale in cells if layer == space.layers - 1]
        found: list[Edge] = []
        for row, (layer, scale) in enumerate(cells):
            if layer == space.layers - 1:
                found.append(Edge(len(found), row, len(cells) + last.index(scale), False))
                continue
            found.append(Edge(len(found), row, rows[layer + 1, scale], False))
            if 2 * scale in last:
                found.append(Edge(len(found), row, rows[layer + 1, 2 * scale], True))
        self.all = tuple(found)
        self.into: tuple[tuple[Edge, ...], ...] = tuple(
            tuple(edge for edge in found if edge.target == target)
            for target in range(len(cells) + len(last))
        )
        self.out_of: tuple[tuple[Edge, ...], ...] = tuple(
            tuple(edge for edge in found if edge.source == row) for row in range(len(cells))
        )

    def weights(self, mixing: Mixing) -> Tensor:
        """(E, K) weight of every output in the map that it enters, differentiable."""
        beta, alpha = mixing.beta, mixing.alpha
        into = torch.stack([1 - beta, beta], dim=1)
        cells = len(self.out_of)
        # The outputs of the last layer have one source, weight 1: one more row for them.
        into = torch.cat([into, torch.ones_like(into[:1])])
        rows = [(edge.source, min(edge.target, cells), int(edge.is_down)) for edge in self.all]
        sources, targets, is_down = torch.tensor(rows, device=alpha.device).unbind(1)
        return alpha[sources] * into[targets, is_down][:, None]

    def down_weights(self, beta: Tensor, branch: int) -> dict[int, list[tuple[int, Tensor]]]:
        """For each finer scale, the cells whose down direction a branch may take, and how likely.

            P(at (l - 1, s))            += P(at (l, s)) (1 - beta(l, s))
            P(down from (l - 1, s / 2))  = P(at (l, s)) beta(l, s)

        traced back from the last layer, where the branch is at its own scale.

        Args:
            beta: (N,), see ``Mixing``.
            branch: the scale at which the branch ends.

        Returns:
            finer scale -> (row of the cell, () float) for each layer; the floats of a scale sum
            to 1.
        """
        found: dict[int, list[tuple[int, Tensor]]] = {}
        arriving: dict[int, Tensor] = {self.layers - 1: torch.ones_like(beta[0])}
        scale = branch
        while scale > 8:
            leaving: dict[int, Tensor] = {}
            at: Tensor | None = None
            for layer in range(self.layers - 1, 0, -1):
                if (layer, scale) not in self.rows:
                    break
                if layer in arriving:
                    at = arriving[layer] if at is None else at + arriving[layer]
                if at is None:
                    continue
                share = beta[self.rows[layer, scale]]
                leaving[layer - 1] = at * share
                at = at * (1 - share)
            scale //= 2
            found[scale] = [(self.rows[layer, scale], weight) for layer, weight in leaving.items()]
            arriving = leaving
        return found
