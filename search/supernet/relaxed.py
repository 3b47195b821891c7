"""RelaxedArchitecture: the continuous parameters alpha, beta, gamma of a FasterSeg search.

One row of alpha per supernet cell chooses its operator, one row of beta per cell that can be
reached in two ways chooses where its input comes from, one row of gamma per map between layers
chooses its width. Rows stand in the order of ``FasterSegSpace.cells()``, so that a cell's number
finds its row in every tensor.

Symbols: L layers, N cells (45 for L = 16), K operators, W widths.

Source: FasterSeg, Sec. 3.1 and 3.2. The authors' release gives teacher and student 323 and 499
such numbers for L = 16; so does this module, with a teacher of one width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from latlut.errors import SpecError
from latlut.spaces import FasterSegSpace
from latlut.spaces.topology import is_two_way

#: Logits start as normal noise of this size: every choice is nearly uniform.
INITIAL_STD = 1e-3


class Probabilities(NamedTuple):
    """What the logits say, row by row in the order of ``space.cells()``.

    ``alpha`` (N, K): probability of each operator in each cell.
    ``beta`` (N,): probability that a cell's input comes from the finer scale (a down cell of the
    layer before); 0 for cells at 1/8, 1 for the first cell of a coarser scale, which has no other
    input.
    ``gamma`` (N - 1, W): probability of each width of the map that enters cells[1:].
    """

    alpha: Tensor
    beta: Tensor
    gamma: Tensor


class RelaxedArchitecture(nn.Module):
    """alpha, beta and gamma of one network that is searched.

    Args:
        space: what is searched; its operators are alpha's columns.
        widths: candidate widths in twelfths, gamma's columns; those of ``space`` if not given.
            A teacher has the widest alone: ``widths=(12,)``.
        end_width: width of stem and head in twelfths (the published networks: student 8,
            teacher 12).
        seed: of the initial noise.

    Attributes:
        alpha: (N, K) logits. beta: (cells with two inputs, 2) logits, from the finer scale first.
        gamma: (N - 1, W) logits.

    Raises:
        SpecError: a width that the space does not have.
    """

    def __init__(
        self,
        space: FasterSegSpace,
        widths: tuple[int, ...] | None = None,
        end_width: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.space = space
        self.widths = tuple(space.widths if widths is None else widths)
        self.end_width = end_width
        for width in self.widths:
            if width not in space.widths:
                raise SpecError(f"the space has widths {space.widths}, received {width}")
        if end_width not in space.stem_head_widths:
            raise SpecError(
                f"the space has stem and head widths {space.stem_head_widths}, received {end_width}"
            )
        cells = space.cells()
        self.two_way = tuple(
            row for row, (layer, scale) in enumerate(cells) if is_two_way(layer, scale)
        )
        generator = torch.Generator().manual_seed(seed)

        def logits(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(INITIAL_STD * torch.randn(rows, columns, generator=generator))

        self.alpha = logits(len(cells), len(space.operators))
        self.beta = logits(len(self.two_way), 2)
        self.gamma = logits(len(cells) - 1, len(self.widths))
        fixed = [float(scale > 8 and 8 * 2**layer == scale) for layer, scale in cells]
        self._fixed_beta: Tensor
        self._two_way_rows: Tensor
        self.register_buffer("_fixed_beta", torch.tensor(fixed), persistent=False)
        self.register_buffer("_two_way_rows", torch.tensor(self.two_way), persistent=False)

    def probabilities(self) -> Probabilities:
        """Softmax of the logits; differentiable."""
        beta = self._fixed_beta.index_copy(0, self._two_way_rows, self.beta.softmax(-1)[:, 0])
        return Probabilities(self.alpha.softmax(-1), beta, self.gamma.softmax(-1))
