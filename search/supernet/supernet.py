"""Supernet: every network of a FasterSeg space at once, with shared weights.

Cell (l, s) holds all operators in its keep direction (stride 1) and, where there is a coarser
scale and a next layer, in its down direction (stride 2), both under one row of alpha. Its input is
mixed from both sources before the cell runs (Eq. 1), so that a cell runs once; the authors' code
runs it on each input and mixes the outputs, which is twice the work and not the paper's equation.

A branch's last map is refined back to 1/8 with finer maps. In a derived network the finer map at
1/s is the input of the branch's down cell there; which cell that is depends on beta. So here it is
its expectation over the positions of that cell,

    fine(branch, s) = sum_l P(branch goes down at layer l from 1/s) * input(l, s)

which equals the derived network's map where beta is one-hot. Inputs differ in width: narrower ones
are padded with zeros, which is exact, as the 3x3 that follows is linear. (The authors' code takes
the last layer's map while searching, which no derived network has.)

Symbols: B batch, L layers, N cells, K operators, E edges (see ``mixing``).

Source: FasterSeg, Sec. 3.1 and Appendix A.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from latlut.errors import SpecError
from latlut.operators.building import initialise
from latlut.search.supernet.ends import Ends, fine_scales
from latlut.search.supernet.mixing import Edges, Gates, Mixing, weighted_sum
from latlut.search.supernet.superkernel import MixedOperator, Superkernel, halve
from latlut.spaces import FasterSegSpace
from latlut.spaces.shapes import SCALES, channels


def outputs_of(space: FasterSegSpace) -> tuple[tuple[int, ...], ...]:
    """The sets of branches that have a head: each branch alone and, for two branches, every pair.

    Source: FasterSeg, Appendix B. The authors' code lacks the pair (8, 16).
    """
    single = tuple((scale,) for scale in SCALES)
    return single if space.branches == 1 else (*single, *space.branch_scales())


class FineWeights(NamedTuple):
    """Inputs of cells that make up a finer map: ``values`` are ``weights`` as Python floats."""

    rows: list[int]
    weights: Tensor
    values: list[float]


class SuperCell(nn.Module):
    """One cell: its operators in the keep and, if it has one, the down direction."""

    def __init__(
        self,
        operators: Sequence[str],
        in_channels: int,
        keep_channels: Sequence[int],
        down_channels: Sequence[int] | None,
    ) -> None:
        super().__init__()
        self.keep = MixedOperator(operators, in_channels, keep_channels, 1)
        if down_channels is not None:
            self.down = MixedOperator(operators, in_channels, down_channels, 2)

    def direction(self, is_down: bool) -> MixedOperator:
        """The operators of one direction."""
        return self.down if is_down else self.keep


class Supernet(nn.Module):
    """The supernet of a space; stem, refinements and heads once per end width.

    Args:
        space: what is searched.
        end_widths: widths of stem and head in twelfths (the paper: teacher 12, student 8).
        seed: of the weights (Kaiming, fan in).
        outputs: the sets of branches that have a head; ``outputs_of(space)`` if not given.

    Raises:
        SpecError: an end width that the space does not have, or an output that is none.
    """

    def __init__(
        self,
        space: FasterSegSpace,
        end_widths: tuple[int, ...] = (12, 8),
        seed: int = 0,
        outputs: Sequence[tuple[int, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.end_widths = tuple(end_widths)
        self.outputs = outputs_of(space) if outputs is None else tuple(outputs)
        for width in self.end_widths:
            if width not in space.stem_head_widths:
                raise SpecError(
                    f"the space has stem and head widths {space.stem_head_widths}, received {width}"
                )
        for output in self.outputs:
            if not output or list(output) != sorted(set(output) & set(SCALES)):
                raise SpecError(f"an output is an increasing choice of {SCALES}, received {output}")
        self.edges = Edges(space)
        self.cells = space.cells()
        with torch.random.fork_rng(devices=[]):  # the modules' own start is overwritten below
            self.super_cells = nn.ModuleList(self._cell(*cell) for cell in self.cells)
            self.ends = nn.ModuleDict(
                {str(width): Ends(space, width, self.outputs) for width in self.end_widths}
            )
        initialise(self, seed)
        generator = torch.Generator().manual_seed(seed)
        for part in self.modules():
            if isinstance(part, Superkernel):
                part.initialise(generator)

    def _cell(self, layer: int, scale: int) -> SuperCell:
        space = self.space
        is_last = layer == space.layers - 1

        def all_channels(at: int, widths: Sequence[int]) -> list[int]:
            return [channels(space.base_width, at, width) for width in widths]

        has_down = not is_last and scale < SCALES[-1]
        return SuperCell(
            space.operators,
            max(all_channels(scale, self.end_widths if layer == 0 else space.widths)),
            all_channels(scale, self.end_widths if is_last else space.widths),
            all_channels(2 * scale, space.widths) if has_down else None,
        )

    def ends_of(self, end_width: int) -> Ends:
        """Stem, refinements and heads of one end width.

        Raises:
            SpecError: the supernet has none of that width.
        """
        if end_width not in self.end_widths:
            raise SpecError(f"the supernet has end widths {self.end_widths}, received {end_width}")
        ends = self.ends[str(end_width)]
        assert isinstance(ends, Ends)
        return ends

    def forward(
        self,
        image: Tensor,
        mixing: Mixing,
        widths: Sequence[int],
        end_width: int,
        gates: Gates | None = None,
        outputs: Sequence[tuple[int, ...]] | None = None,
    ) -> dict[tuple[int, ...], Tensor]:
        """Logits of every wanted output.

        Operators, cells and branches whose weight is exactly 0 are not computed, unless the
        weights want a gradient and none was drawn.

        Args:
            image: (B, 3, H, W) float, any size.
            mixing: alpha (N, K) and beta (N,).
            widths: (N - 1,) twelfths, one per map that enters cells[1:].
            end_width: twelfths, of stem and head.
            gates: multiplied onto the channels of the maps that enter cells[1:]; ones that carry
                a gradient, for a straight-through estimate of gamma's.
            outputs: among ``self.outputs``; all if not given.

        Returns:
            output -> (B, classes, ceil(H/8), ceil(W/8)).

        Raises:
            SpecError: a shape, width or output that does not belong to the supernet.
        """
        wanted = self.outputs if outputs is None else tuple(outputs)
        self._check(mixing, widths, gates, wanted)
        ends = self.ends_of(end_width)
        weights = self.edges.weights(mixing)
        is_whole = weights.requires_grad and not mixing.is_drawn
        fine = self._fine_weights(mixing.beta, wanted, is_whole)
        values = weights.tolist()
        needed, live = self._needed(values, is_whole, fine, wanted)
        stem = ends.stem(image)
        maps = self._run_cells(stem, weights, values, needed, live, widths, end_width, gates)
        refined = {}
        for branch in {scale for output in wanted for scale in output}:
            finer = [
                weighted_sum(found.weights, tuple(found.values), [maps[row] for row in found.rows])
                for found in (fine[branch, scale] for scale in fine_scales(branch))
            ]
            coarse = maps[len(self.cells) + SCALES.index(branch)]
            refined[branch] = ends.refine(branch, coarse, finer)
        return {output: ends.classify(output, [refined[s] for s in output]) for output in wanted}

    def _gated(self, image: Tensor, scale: int, gates: Gates, number: int) -> Tensor:
        """The map (B, C, H, W) times the gates of its channels."""
        bounds = [channels(self.space.base_width, scale, width) for width in gates.widths]
        sizes = [
            max(0, min(bound, image.shape[1]) - before)
            for bound, before in zip(bounds, (0, *bounds), strict=False)
        ]
        each = torch.tensor(sizes, device=image.device)
        by_channel = gates.values[number].repeat_interleave(each).to(image.dtype)
        return image * by_channel[:, None, None]

    def _check(
        self,
        mixing: Mixing,
        widths: Sequence[int],
        gates: Gates | None,
        outputs: Sequence[tuple[int, ...]],
    ) -> None:
        count = len(self.cells)
        shapes = {
            "alpha": (mixing.alpha, (count, len(self.space.operators))),
            "beta": (mixing.beta, (count,)),
            "gates": (gates and gates.values, (count - 1, len(gates.widths) if gates else 0)),
        }
        for name, (tensor, shape) in shapes.items():
            if tensor is not None and tuple(tensor.shape) != shape:
                raise SpecError(f"{name} must have shape {shape}, received {tuple(tensor.shape)}")
        if len(widths) != count - 1:
            raise SpecError(f"expected {count - 1} widths, received {len(widths)}")
        if unknown := set(widths) - set(self.space.widths):
            raise SpecError(f"the space has widths {self.space.widths}, received {min(unknown)}")
        for output in outputs:
            if output not in self.outputs:
                raise SpecError(f"the supernet has outputs {self.outputs}, received {output}")

    def _fine_weights(
        self, beta: Tensor, outputs: Sequence[tuple[int, ...]], is_whole: bool
    ) -> dict[tuple[int, int], FineWeights]:
        """(branch, finer scale) -> the cells' rows whose inputs count, and how much.

        Args:
            is_whole: those of weight 0 count, too.
        """
        found = {}
        for branch in {scale for output in outputs for scale in output}:
            for scale, weights in self.edges.down_weights(beta, branch).items():
                rows, tensor = [row for row, _ in weights], torch.stack([w for _, w in weights])
                values = tensor.tolist()
                if not is_whole:
                    kept = [index for index, value in enumerate(values) if value]
                    rows, values = [rows[i] for i in kept], [values[i] for i in kept]
                    tensor = tensor[kept]
                found[branch, scale] = FineWeights(rows, tensor, values)
        return found

    def _needed(
        self,
        values: Sequence[Sequence[float]],
        is_whole: bool,
        fine: Mapping[tuple[int, int], FineWeights],
        outputs: Sequence[tuple[int, ...]],
    ) -> tuple[dict[int, list[int]], set[int]]:
        """What has to be computed: edge's row -> operators' numbers, and the maps' rows."""
        count = len(self.cells)
        live = {count + SCALES.index(scale) for output in outputs for scale in output}
        live |= {row for weights in fine.values() for row in weights.rows}
        needed: dict[int, list[int]] = {}
        for target in range(count + len(SCALES) - 1, -1, -1):
            if target not in live:
                continue
            for edge in self.edges.into[target]:
                row = values[edge.row]
                numbers = [k for k, value in enumerate(row) if value or is_whole]
                if numbers:
                    needed[edge.row] = numbers
                    live.add(edge.source)
        return needed, live

    def _run_cells(
        self,
        stem: Tensor,
        weights: Tensor,
        values: Sequence[Sequence[float]],
        needed: Mapping[int, Sequence[int]],
        live: set[int],
        widths: Sequence[int],
        end_width: int,
        gates: Gates | None,
    ) -> dict[int, Tensor]:
        """Row -> map that enters the cell, and N + i -> last map at the i-th scale."""
        pending: dict[int, list[Tensor]] = {}

        def mixed(target: int) -> Tensor:
            used = [(e.row, k) for e in self.edges.into[target] for k in needed.get(e.row, ())]
            numbers = tuple(values[row][k] for row, k in used)
            chosen = weights
            if weights.requires_grad:
                columns = weights.shape[1]
                flat = [row * columns + k for row, k in used]
                chosen = weights.flatten()[torch.tensor(flat, device=weights.device)]
            return weighted_sum(chosen, numbers, pending.pop(target))

        maps = {0: stem}
        for row, (_, scale) in enumerate(self.cells):
            if row not in live:
                continue
            if row:
                maps[row] = mixed(row)
                if gates is not None:
                    maps[row] = self._gated(maps[row], scale, gates, row - 1)
            image = maps[row]
            halved = None
            for edge in self.edges.out_of[row]:
                if edge.row not in needed:
                    continue
                names = [self.space.operators[k] for k in needed[edge.row]]
                if halved is None and any(name.startswith("zoomed") for name in names):
                    halved = halve(image)
                width = end_width if edge.target >= len(self.cells) else widths[edge.target - 1]
                out = channels(self.space.base_width, scale * (2 if edge.is_down else 1), width)
                cell = self.super_cells[row]
                assert isinstance(cell, SuperCell)
                parts = cell.direction(edge.is_down)(image, out, names, halved)
                pending.setdefault(edge.target, []).extend(parts)
        for target in range(len(self.cells), len(self.cells) + len(SCALES)):
            if target in live:
                maps[target] = mixed(target)
        return maps
