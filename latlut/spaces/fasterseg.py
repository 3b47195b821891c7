"""FasterSegSpace: the search space of FasterSeg, what it contains and what has to be measured.

A supernet of L layers. Layer 0 has one cell, at 1/8 of the image; layer 1 has cells at 1/8 and
1/16; every later layer has cells at 1/8, 1/16 and 1/32. A cell keeps its scale (stride 1) or
downsamples to the next one (stride 2, twice the channels); both ways read the cell's one choice
of operator. A width belongs to the map that enters a cell, so that the keep and the down cell
which feed the same cell share it; the first cell reads the stem's width and the last layer writes
the head's width.

Symbols: L layers, K operators, W widths, F base width (see ``architecture``).

Source: FasterSeg, Sec. 3.1 and 4.2.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations, product
from typing import ClassVar

from latlut.errors import SpecError, did_you_mean
from latlut.opspec import OpSpec, unique
from latlut.spaces.architecture import OPERATORS, Architecture, Branch, Cell
from latlut.spaces.shapes import (
    FULL_WIDTH,
    SCALES,
    channels,
    end_specs,
    map_shape,
    refine_spec,
    stem_specs,
    whole_number,
)
from latlut.spaces.space import Space, register_space
from latlut.spaces.topology import cell_places, down_layers, path_places

_SAMPLER = (
    "FasterSeg sampler, version 1: every supernet cell (layer, scale) draws one operator "
    "uniformly, every map between layers (scale, layer boundary) one width uniformly; then the "
    "set of branches is drawn uniformly, and per branch the positions of its downsamplings, "
    "uniformly among all increasing positions. All branches read the same operators and widths, "
    "and share cells while these agree. Stride-1 skips drop out; a down cell or a last cell "
    "that drew skip takes the cell's second draw, uniform among the other operators, and so "
    "does one cell, drawn uniformly, of a stretch of stride-1 cells before a downsampling that "
    "would consist of skips alone. Stem and head have the same width, drawn uniformly from "
    "stem_head_widths."
)


@register_space
@dataclass(frozen=True)
class FasterSegSpace:
    """FasterSeg's search space.

    Raises:
        SpecError: a value out of range, repeated, unknown, or one that gives part of a channel.
    """

    name: ClassVar[str] = "fasterseg"
    title: ClassVar[str] = "FasterSeg"

    layers: int = 16
    """L, 3 to 256."""
    base_width: int = 12
    """F, channels per unit of scale at full width."""
    widths: tuple[int, ...] = (4, 6, 8, 10, 12)
    """Candidate widths in twelfths, 1 to 12; kept in increasing order."""
    stem_head_widths: tuple[int, ...] = (8, 12)
    """Candidate widths of stem and head in twelfths; need not be in ``widths``."""
    branches: int = 2
    """How many branches a network has, 1 or 2."""
    num_classes: int = 19
    """Channels of the logits."""
    operators: tuple[str, ...] = OPERATORS
    """Candidate operators, in the order of alpha; at least one that is not a skip."""

    def __post_init__(self) -> None:
        bounds = {
            "layers": (3, 256),
            "base_width": (1, 1024),
            "branches": (1, 2),
            "num_classes": (1, 1 << 16),
        }
        for name, (low, high) in bounds.items():
            number = whole_number(name, getattr(self, name), low, high)
            object.__setattr__(self, name, number)
        for name in ("widths", "stem_head_widths"):
            items = _checked_list(name, getattr(self, name))
            numbers = sorted(whole_number(f"each of {name}", n, 1, FULL_WIDTH) for n in items)
            object.__setattr__(self, name, tuple(numbers))
        object.__setattr__(self, "operators", _checked_list("operators", self.operators))
        for operator in self.operators:
            if operator not in OPERATORS:
                known = did_you_mean(str(operator), list(OPERATORS))
                raise SpecError(f"unknown operator {operator!r} in a FasterSeg space; {known}")
        if self.operators == ("skip",):
            raise SpecError("a FasterSeg space needs an operator besides skip")
        for width in self.widths:
            channels(self.base_width, 8, width)
        for width in self.stem_head_widths:
            channels(self.base_width, 4, width)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The operators that a derived network can hold: all but skip."""
        return tuple(name for name in self.operators if name != "skip")

    def cells(self) -> tuple[tuple[int, int], ...]:
        """All supernet cells as (layer, scale), layer by layer; 45 for 16 layers."""
        return cell_places(self.layers)

    def branch_scales(self) -> tuple[tuple[int, ...], ...]:
        """The scales at which a network's branches can end, one tuple per choice."""
        return tuple(combinations(SCALES, self.branches))

    def positions(self, scale: int) -> tuple[tuple[int, ...], ...]:
        """All ways for a branch to reach ``scale``: the layers of its down cells, increasing."""
        return down_layers(self.layers, scale)

    def paths(self) -> Iterator[tuple[tuple[int, ...], ...]]:
        """Every set of branch paths, each branch given by the layers of its down cells.

        ``((4,), (3, 7))`` is a 1/16 branch that downsamples at layer 4 with a 1/32 branch that
        does so at layers 3 and 7.
        """
        for scales in self.branch_scales():
            yield from product(*(self.positions(scale) for scale in scales))

    def count(self) -> int:
        """How many unique paths there are: 1695 for 16 layers and two branches.

        With L = 16 a 1/16 branch has 15 paths and a 1/32 branch 105, so that the pairs {8, 16},
        {8, 32}, {16, 32} have 15 + 105 + 15 * 105. Source: FasterSeg, Sec. 4.2.
        """
        return sum(1 for _ in self.paths())

    def combinations(self) -> int:
        """How many choices of operators and widths there are, exactly.

            (1 + (K - 1) W) ** ((L-1) + (L-2) + (L-3)) * K ** 3

        Each cell before the last layer is a skip, which has no width of its own, or one of the
        other operators with one of W widths; the three cells of the last layer have the head's
        width and choose their operator alone. For the published space that is
        (1 + 4 * 5)^(15 + 14 + 13) * 5^3 = 4.3e57. The paper writes this product and prints 3.4e55,
        which is its first factor, 21^42, alone. Without skip the 1 is left out.

        Source: FasterSeg, Sec. 4.2. The paper does not say what 5^3 stands for; operators of the
        last layer is the reading that also holds for a single width, where the count must be K^45.
        """
        own = len(self.candidates) * len(self.widths) + ("skip" in self.operators)
        before_last = sum(layer < self.layers - 1 for layer, _ in self.cells())
        total: int = own**before_last * len(self.operators) ** len(SCALES)
        return total

    def cell_spec(
        self,
        operator: str,
        scale: int,
        in_width: int,
        out_width: int,
        is_down: bool = False,
        input_size: tuple[int, int] = (1024, 2048),
        batch: int = 1,
    ) -> OpSpec:
        """The op spec of one operator of a cell at 1/scale, widths in twelfths.

        A stride-1 skip is the 1x1 convolution used while searching (form=searched): once derived
        it is an identity, which costs nothing and has no op spec.

        Raises:
            SpecError: channels that are not whole, a size or batch out of range.
        """
        shape = map_shape(self.base_width, scale, in_width, input_size)
        out = channels(self.base_width, scale * (2 if is_down else 1), out_width)
        form = {"form": "searched"} if operator == "skip" and not is_down else {}
        return OpSpec(operator, shape, out, stride=2 if is_down else 1, batch=batch, **form)

    def op_specs(
        self, input_size: tuple[int, int] = (1024, 2048), batch: int = 1
    ) -> tuple[OpSpec, ...]:
        """Every op spec that the supernet or a network of this space needs, without repetition.

        Args:
            input_size: (height, width) of the image in pixels, any size; maps round up.
            batch: images per inference.

        Raises:
            SpecError: a size or batch out of range.
        """
        ends = self.stem_head_widths
        into_first = sorted({*self.widths, *ends})
        specs = [s for end in ends for s in stem_specs(self.base_width, end, input_size, batch)]
        for scale in SCALES:
            ins = into_first if scale == 8 else self.widths
            keeps = product(self.operators, ins, into_first, (False,))
            downs = product(self.operators, ins, self.widths, (True,)) if scale < 32 else ()
            for operator, in_width, out_width, is_down in (*keeps, *downs):
                specs.append(
                    self.cell_spec(operator, scale, in_width, out_width, is_down, input_size, batch)
                )
        for end in ends:
            for scale, fine_widths in ((16, self.widths), (8, into_first)):
                specs += [
                    refine_spec(self.base_width, scale, end, width, input_size, batch)
                    for width in fine_widths
                ]
            specs += end_specs(
                self.base_width, end, self.branches, self.num_classes, input_size, batch
            )
        return unique(specs)

    def sample(self, seed: int | random.Random) -> Architecture:
        """A random network; ``describe_sampler`` says how it is drawn.

        Args:
            seed: a whole number, or a generator, which is advanced.

        Raises:
            SpecError: ``seed`` is neither.
        """
        rng = _generator(seed)
        cells = self.cells()
        drawn = {
            cell: (rng.choice(self.operators), rng.choice(self.candidates), rng.random())
            for cell in cells
        }
        widths = {cell: rng.choice(self.widths) for cell in cells if cell[0] > 0}
        end = rng.choice(self.stem_head_widths)
        branches = []
        for scale in rng.choice(self.branch_scales()):
            downs = rng.choice(self.positions(scale))
            branches.append(Branch(scale, self._sampled_cells(downs, drawn, widths, end)))
        return Architecture(end, end, tuple(branches), self.base_width, self.num_classes)

    def _sampled_cells(
        self,
        downs: tuple[int, ...],
        drawn: Mapping[tuple[int, int], tuple[str, str, float]],
        widths: Mapping[tuple[int, int], int],
        end: int,
    ) -> tuple[Cell, ...]:
        last = self.layers - 1
        path = path_places(self.layers, downs)
        never_skip = {*(path[down] for down in downs), path[last]}
        for start, stop in zip((0, *(down + 1 for down in downs)), downs, strict=False):
            stretch = path[start:stop]
            if stretch and all(drawn[cell][0] == "skip" for cell in stretch):
                never_skip.add(min(stretch, key=lambda cell: drawn[cell][2]))
        cells = []
        for layer, scale in path:
            operator, second, _ = drawn[layer, scale]
            if operator == "skip" and (layer, scale) not in never_skip:
                continue
            width = end if layer == last else widths[path[layer + 1]]
            operator = second if operator == "skip" else operator
            cells.append(Cell(operator, width, layer in downs))
        return tuple(cells)

    def sample_many(self, count: int, seed: int | random.Random) -> tuple[Architecture, ...]:
        """``count`` networks drawn one after the other with replacement.

        The same seed gives the same networks, and a smaller count the first of them.

        Raises:
            SpecError: ``count`` is negative or ``seed`` neither a whole number nor a generator.
        """
        rng = _generator(seed)
        return tuple(self.sample(rng) for _ in range(whole_number("count", count, 0, 1 << 24)))

    def describe_sampler(self) -> str:
        """One paragraph that says how ``sample`` draws, to be stored and printed with results."""
        return _SAMPLER

    def to_dict(self) -> dict[str, object]:
        """The space as JSON-able values, with ``"name": "fasterseg"``."""
        values = asdict(self)
        return {"name": self.name} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> FasterSegSpace:
        """The space that ``to_dict`` wrote; what is left out has its default.

        ``input_size`` and ``batch``, which a plan stores beside the space, are passed over.

        Raises:
            SpecError: another space's name, an unknown key, or a value out of range.
        """
        if values.get("name", "fasterseg") != "fasterseg":
            raise SpecError(f'expected the space "fasterseg", received {values["name"]!r}')
        known = [field.name for field in fields(cls)]
        rest = {k: v for k, v in values.items() if k not in ("name", "input_size", "batch")}
        for name in rest:
            if name not in known:
                hint = did_you_mean(str(name), known)
                raise SpecError(f"unknown key {name!r} of a FasterSeg space; {hint}")
        return cls(**rest)  # type: ignore[arg-type]

    @classmethod
    def network_from_json(cls, text: str) -> Architecture:
        """The architecture that ``Architecture.to_json`` wrote; see ``Architecture.from_json``."""
        return Architecture.from_json(text)


def fasterseg_space(space: Space) -> FasterSegSpace:
    """``space`` if it is FasterSeg's: the one that has a supernet and a decoupled penalty.

    Raises:
        SpecError: it is another space.
    """
    if not isinstance(space, FasterSegSpace):
        raise SpecError(
            f"the supernet and its penalty are of the space 'fasterseg', this table is of "
            f"{space.name!r}: take latlut.penalty.ExpectedLatency for a search of your own"
        )
    return space


def _generator(seed: int | random.Random) -> random.Random:
    if isinstance(seed, random.Random):
        return seed
    return random.Random(whole_number("seed", seed, 0, 1 << 64))


def _checked_list(name: str, value: object) -> tuple[object, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise SpecError(f"{name} must be a list with at least one item, received {value!r}")
    repeated = [item for index, item in enumerate(value) if item in value[:index]]
    if repeated:
        raise SpecError(f"{name} holds {repeated[0]!r} twice")
    return tuple(value)
