"""What stands around the supernet's cells: stem, refinements, fusion and heads of one end width.

Teacher and student share the cells and have their own ends, as their stems and heads differ in
width. The modules are those of ``latlut.operators`` and are named by branch and scale as the nodes
of a derived network are; only a refinement's finer map has no fixed width, so that its 3x3 is a
superkernel.

Symbols: B batch, C channels, H height, W width, F base width.

Source: FasterSeg, Appendix A; the stem, the five outputs and the heads follow the authors' code.
The 1x1 fusion before each head is what derived networks have: with it a frozen network computes
exactly what the supernet did.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm, Head, resize
from latlut.search.supernet.superkernel import MODE, Superkernel
from latlut.spaces import FasterSegSpace
from latlut.spaces.shapes import SCALES, channels


class SlicedRefine(nn.Module):
    """``operators.Refine`` for a finer map of any width up to ``most_fine_channels``."""

    def __init__(self, coarse_channels: int, most_fine_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(coarse_channels, out_channels, kernel_size=1)
        self.merge = Superkernel(out_channels + most_fine_channels, out_channels)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(B, out_channels, H, W) from the coarse map (B, C1, h, w) and the finer (B, C2, H, W)."""
        reduced = self.reduce(coarse)
        enlarged = resize(reduced, (int(fine.shape[-2]), int(fine.shape[-1])), MODE)
        joined = torch.cat([enlarged, fine.to(enlarged.dtype)], dim=1)
        return functional.relu(self.norm(self.merge(joined, reduced.shape[1])))


class Ends(nn.Module):
    """Stem, refinements, fusions and heads of one end width.

    Args:
        space: base width, classes and the widths that a finer map can have.
        width: the end width in twelfths.
        outputs: the sets of branches that have a head.

    Attributes:
        stem: image (B, 3, H, W) -> (B, 8 F width / 12, ceil(H/8), ceil(W/8)).
        refinements: ``"32_16"`` brings the 1/32 branch up to 1/16.
        fusions, heads: ``"16_32"`` for the branches at 1/16 and 1/32.
    """

    def __init__(
        self, space: FasterSegSpace, width: int, outputs: Sequence[tuple[int, ...]]
    ) -> None:
        super().__init__()
        half, full = channels(space.base_width, 4, width), channels(space.base_width, 8, width)
        self.stem = nn.Sequential(
            ConvNorm(3, half, stride=2),
            nn.Sequential(ConvNorm(half, full, stride=2), ConvNorm(full, full)),
            nn.Sequential(ConvNorm(full, full, stride=2), ConvNorm(full, full)),
        )
        widest = max(space.widths)
        self.refinements = nn.ModuleDict()
        for branch in sorted({scale for output in outputs for scale in output}):
            for scale in fine_scales(branch):
                coarse = channels(space.base_width, 2 * scale, width)
                # The first cell's input has the stem's width, which can exceed the others.
                fine_width = max(widest, width) if scale == 8 else widest
                fine = channels(space.base_width, scale, fine_width)
                out = channels(space.base_width, scale, width)
                self.refinements[f"{branch}_{scale}"] = SlicedRefine(coarse, fine, out)
        self.fusions, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for output in outputs:
            joined = len(output) * full
            self.fusions[output_name(output)] = ConvNorm(joined, joined, kernel_size=1)
            self.heads[output_name(output)] = Head(joined, space.num_classes)

    def refine(self, branch: int, coarse: Tensor, fine_maps: Sequence[Tensor]) -> Tensor:
        """The branch's map at 1/8, (B, 8 F width / 12, ceil(H/8), ceil(W/8)).

        Args:
            branch: scale at which the branch ends.
            coarse: its last map.
            fine_maps: the finer maps in the order of ``fine_scales(branch)``.
        """
        for scale, fine in zip(fine_scales(branch), fine_maps, strict=True):
            coarse = self.refinements[f"{branch}_{scale}"](coarse, fine)
        return coarse

    def classify(self, output: tuple[int, ...], maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, classes, ceil(H/8), ceil(W/8)) from the refined maps of the branches."""
        name = output_name(output)
        logits: Tensor = self.heads[name](self.fusions[name](*maps))
        return logits


def fine_scales(branch: int) -> tuple[int, ...]:
    """The scales at which a branch is refined on its way back to 1/8, coarse to fine."""
    return tuple(scale for scale in reversed(SCALES) if scale < branch)


def output_name(output: Sequence[int]) -> str:
    """``"16_32"`` for the output of the branches (16, 32)."""
    return "_".join(str(scale) for scale in output)
