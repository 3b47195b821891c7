"""What tests of the supernet's latency share: random logits, and E[T] written out way by way."""

from __future__ import annotations

import math
from itertools import product

import torch
from small_tables import INPUT_SIZE

from latlut.opspec import OpSpec
from latlut.search.supernet.relaxed import Probabilities, RelaxedArchitecture
from latlut.spaces import FasterSegSpace

OPERATORS = ("skip", "conv", "zoomed_conv_2x")
NO_SKIP = ("conv", "zoomed_conv_2x")


def small_space(layers: int = 4, branches: int = 2, operators=OPERATORS, **more) -> FasterSegSpace:
    values = {"widths": (4, 8), "stem_head_widths": (8, 12), "num_classes": 5} | more
    return FasterSegSpace(layers=layers, branches=branches, operators=operators, **values)


def random_relaxed(
    space: FasterSegSpace, seed: int, widths=None, end_width: int = 8, spread: float = 1.0
) -> RelaxedArchitecture:
    relaxed = RelaxedArchitecture(space, widths=widths, end_width=end_width).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in relaxed.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
            parameter.copy_(spread * noise)
    return relaxed


def probabilities(relaxed: RelaxedArchitecture) -> Probabilities:
    with torch.no_grad():
        return Probabilities(*(value.double() for value in relaxed.probabilities()))


def fixed_factors(relaxed: RelaxedArchitecture, free: str) -> Probabilities:
    """The probabilities with all factors but ``free`` as the penalty fixes them."""
    found = probabilities(relaxed)
    alpha = torch.full_like(found.alpha, 1 / found.alpha.shape[1])
    beta = found.beta.clone()
    beta[list(relaxed.two_way)] = 0.5
    gamma = torch.zeros_like(found.gamma)
    gamma[:, relaxed.widths.index(max(relaxed.widths))] = 1
    if free == "gamma":
        return Probabilities(alpha, beta, found.gamma)
    return Probabilities(
        found.alpha if free == "alpha" else alpha, found.beta if free == "beta" else beta, gamma
    )


class Brute:
    """E[T] by writing out every set of branches and every pair of ways.

    Shares nothing with the module but the op specs of a space: a cell's latency is the sum over
    operators and widths, a way's probability the product of its betas.
    """

    def __init__(self, space, latency_ms, widths, end_width, skip_ms_is_zero=True):
        self.space, self.latency_ms, self.widths, self.end = space, latency_ms, widths, end_width
        self.zero_skip = skip_ms_is_zero
        self.rows = {cell: row for row, cell in enumerate(space.cells())}

    def expected_ms(self, p: Probabilities) -> float:
        sets = self.space.branch_scales()
        total = 0.0
        for scales in sets:
            ways = [self.space.positions(scale) for scale in scales]
            for downs in product(*ways):
                weight = math.prod(
                    self.way(p, scale, way) for scale, way in zip(scales, downs, strict=True)
                )
                if weight:
                    total += weight * self.pair_ms(p, downs)
        return total / len(sets)

    def path(self, downs):
        return [
            (layer, 8 * 2 ** sum(down < layer for down in downs))
            for layer in range(self.space.layers)
        ]

    def way(self, p, scale, downs) -> float:
        weight = 1.0
        for layer, at in self.path(downs)[1:]:
            beta = float(p.beta[self.rows[layer, at]])
            weight *= beta if layer - 1 in downs else 1 - beta
        return weight

    def width_weights(self, p, cell) -> dict[int, float]:
        if cell not in self.rows or cell == (0, 8):
            return {self.end: 1.0}
        row = p.gamma[self.rows[cell] - 1].tolist()
        return dict(zip(self.widths, row, strict=True))

    def cell_ms(self, p, cell, is_down) -> float:
        layer, scale = cell
        after = (layer + 1, scale * (2 if is_down else 1))
        total = 0.0
        for operator, share in zip(
            self.space.operators, p.alpha[self.rows[cell]].tolist(), strict=True
        ):
            if operator == "skip" and not is_down and self.zero_skip:
                continue
            for (i, gi), (j, gj) in product(
                self.width_weights(p, cell).items(), self.width_weights(p, after).items()
            ):
                spec = self.space.cell_spec(operator, scale, i, j, is_down, INPUT_SIZE)
                total += share * gi * gj * self.latency_ms(spec)
        return total

    def refine_ms(self, p, cell) -> float:
        scale = cell[1]
        base, (height, width) = self.space.base_width, INPUT_SIZE
        total = 0.0
        for fine, share in self.width_weights(p, cell).items():
            coarse_map = (
                base * 2 * scale * self.end // 12,
                height // scale // 2,
                width // scale // 2,
            )
            fine_map = (base * scale * fine // 12, height // scale, width // scale)
            spec = OpSpec("refine", (coarse_map, fine_map), base * scale * self.end // 12)
            total += share * self.latency_ms(spec)
        return total

    def pair_ms(self, p, downs) -> float:
        base = self.space.base_width
        executed = set()
        refinements = 0.0
        for way in downs:
            history = ()
            for layer, scale in self.path(way):
                is_down = layer in way
                history += (is_down,)
                own = way if layer == self.space.layers - 1 else None  # never shared
                executed.add(((layer, scale), is_down, history, own))
                refinements += self.refine_ms(p, (layer, scale)) if is_down else 0.0
        cells = sum(self.cell_ms(p, cell, is_down) for cell, is_down, _, _ in executed)
        height, width = INPUT_SIZE
        out = base * 8 * self.end // 12
        stem = OpSpec("conv", (3, height, width), base * 4 * self.end // 12, stride=2)
        second = OpSpec("conv_2x", stem.output, out, stride=2)
        third = OpSpec("conv_2x", second.output, out, stride=2)
        fusion = OpSpec("fusion", (third.output,) * len(downs), len(downs) * out)
        head = OpSpec("head", fusion.output, self.space.num_classes)
        logits = OpSpec("upsample", head.output, self.space.num_classes, out_size=(height, width))
        fixed = sum(self.latency_ms(spec) for spec in (stem, second, third, fusion, head, logits))
        return fixed + cells + refinements
