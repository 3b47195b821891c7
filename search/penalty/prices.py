"""What every choice of a FasterSeg space costs in a table, as dense arrays.

A supernet cell's latency depends on its scale, on whether it keeps the scale or downsamples, on
its operator and on the widths of the maps that it reads and writes, and on nothing else; so a few
small arrays hold the whole space. They are read from the table once. Prices are those of
``pricing.estimator.estimate``: a variant that the table holds may stand for an op spec that it
lacks, and is named; where the table has a calibration, entries count as it says.

Symbols: S scales (3), K operators, V widths: those searched, and the end width if it is another.

Source: FasterSeg, Sec. 3.2 (the lookup table behind the relaxed latency).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Literal

import numpy as np

from latlut.errors import MissingEntryError, SpecError
from latlut.opspec import OpSpec
from latlut.pricing.estimator import Term, estimate
from latlut.pricing.missing import missing_message
from latlut.spaces import Architecture, FasterSegSpace
from latlut.spaces.shapes import SCALES, channels, stem_specs
from latlut.table.space import space_of
from latlut.table.table import LatencyTable

SkipPrice = Literal["derived", "searched"]
SKIP_PRICES: tuple[SkipPrice, ...] = ("derived", "searched")


@dataclass(frozen=True)
class CellChoice:
    """One operator of a cell at 1/scale between two widths, in twelfths."""

    operator: str
    scale: int
    is_down: bool
    in_width: int
    out_width: int


@dataclass(frozen=True)
class SpaceLayout:
    """Which op spec stands behind every choice, without prices.

    Raises:
        SpecError: a width that the space does not have, or an unknown skip price.
    """

    space: FasterSegSpace
    """What is searched."""
    widths: tuple[int, ...]
    """gamma's columns, in twelfths."""
    end_width: int
    """Of stem and head, in twelfths."""
    input_size: tuple[int, int]
    """(height, width) of the image in pixels."""
    batch: int
    """Images per inference."""
    skip_price: SkipPrice = "derived"
    """Of a stride-1 skip: "derived", where it is an identity and costs nothing, or "searched", the
    1x1 convolution that the supernet runs."""

    def __post_init__(self) -> None:
        for width in self.widths:
            if width not in self.space.widths:
                raise SpecError(f"the space has widths {self.space.widths}, received {width}")
        if not self.widths or len(set(self.widths)) != len(self.widths):
            raise SpecError(f"widths must be a list without repetition, received {self.widths}")
        if self.end_width not in self.space.stem_head_widths:
            raise SpecError(
                f"the space has stem and head widths {self.space.stem_head_widths}, "
                f"received {self.end_width}"
            )
        if self.skip_price not in SKIP_PRICES:
            raise SpecError(f"skip_price is one of {SKIP_PRICES}, received {self.skip_price!r}")

    @property
    def columns(self) -> tuple[int, ...]:
        """The V widths of the price arrays: gamma's columns first, then the end width if new."""
        extra = () if self.end_width in self.widths else (self.end_width,)
        return self.widths + extra

    @property
    def end_column(self) -> int:
        """Where the end width stands among ``columns``."""
        return self.columns.index(self.end_width)

    @property
    def widest_column(self) -> int:
        """Where the widest of gamma's widths stands."""
        return self.widths.index(max(self.widths))

    def spec(self, choice: CellChoice) -> OpSpec | None:
        """The choice's op spec; None for a stride-1 skip that costs nothing."""
        if choice.operator == "skip" and not choice.is_down and self.skip_price == "derived":
            return None
        return self.space.cell_spec(
            choice.operator,
            choice.scale,
            choice.in_width,
            choice.out_width,
            choice.is_down,
            self.input_size,
            self.batch,
        )

    def refine_spec(self, scale: int, fine_width: int) -> OpSpec:
        """The refinement from 1/(2 scale) up to 1/scale with a fine map of that width."""
        return OpSpec(
            "refine",
            (self._map(2 * scale, self.end_width), self._map(scale, fine_width)),
            channels(self.space.base_width, scale, self.end_width),
            batch=self.batch,
        )

    def fixed_specs(self) -> tuple[OpSpec, ...]:
        """What every network executes once: stem, fusion, head, upsampling of the logits."""
        space, batch = self.space, self.batch
        branch_map = self._map(8, self.end_width)
        fused = space.branches * branch_map[0]
        fusion = OpSpec("fusion", (branch_map,) * space.branches, fused, batch=batch)
        head = OpSpec("head", fusion.output, space.num_classes, batch=batch)
        upsample = OpSpec(
            "upsample", head.output, space.num_classes, batch=batch, out_size=self.input_size
        )
        stem = stem_specs(space.base_width, self.end_width, self.input_size, batch)
        return (*stem, fusion, head, upsample)

    def choices(self) -> Iterator[tuple[tuple[int, ...], CellChoice]]:
        """Every choice that a network can hold, with its place (d, s, k, i, j) in ``cell_ms``."""
        columns, searched = self.columns, len(self.widths)
        operators = list(enumerate(self.space.operators))
        for (s, scale), (k, operator) in product(enumerate(SCALES), operators):
            for is_down in (False, True) if scale < SCALES[-1] else (False,):
                reads = len(columns) if scale == SCALES[0] else searched
                writes = searched if is_down else len(columns)
                for i, j in product(range(reads), range(writes)):
                    choice = CellChoice(operator, scale, is_down, columns[i], columns[j])
                    yield (int(is_down), s, k, i, j), choice

    def _map(self, scale: int, width: int) -> tuple[int, int, int]:
        height, image_width = self.input_size
        out = channels(self.space.base_width, scale, width)
        return out, -(-height // scale), -(-image_width // scale)


@dataclass(frozen=True, eq=False)
class SpacePrices:
    """A layout's prices in milliseconds, and what they rest on."""

    layout: SpaceLayout
    """What is priced."""
    cell_ms: np.ndarray
    """(2, S, K, V, V): keep and down; the last two axes are the widths read and written. 0 where no
    network has such a cell."""
    refine_ms: np.ndarray
    """(S, V): refinement up to a scale by the width of its fine map; 0 at 1/32."""
    fixed_ms: float
    """Stem, fusion, head and upsampling together, and what a calibration adds to every network."""
    terms: dict[OpSpec, Term]
    """Op spec -> what ``estimate`` says of it, for all that was priced."""
    unpriced: tuple[OpSpec, ...]
    """Op specs that the table cannot price and that were left out, by permission."""

    def network_ms(self, network: Architecture) -> float:
        """A network's latency: what ``latlut.estimate`` says of it, read from the arrays.

        Args:
            network: of the layout's space and end width.

        Raises:
            SpecError: a width or operator that the layout does not have.
        """
        columns = self._columns
        total = self.fixed_ms
        shared = network.shared_cells
        for number, branch in enumerate(network.branches):
            s, read = 0, network.stem_width
            fine: list[int] = []
            for index, cell in enumerate(branch.cells):
                try:
                    place = (
                        int(cell.is_down),
                        s,
                        self._operators[cell.operator],
                        columns[read],
                        columns[cell.width],
                    )
                except KeyError as error:
                    raise SpecError(f"these prices are not of {error} in {cell}") from error
                if number == 0 or index >= shared:
                    total += float(self.cell_ms[place])
                if cell.is_down:
                    fine.append(columns[read])
                    s += 1
                read = cell.width
            total += sum(float(self.refine_ms[at, column]) for at, column in enumerate(fine))
        return total

    @cached_property
    def _columns(self) -> dict[int, int]:
        return {width: index for index, width in enumerate(self.layout.columns)}

    @cached_property
    def _operators(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.layout.space.operators)}

    @cached_property
    def substituted(self) -> tuple[Term, ...]:
        """Terms that are priced by a variant, with the reason."""
        return tuple(term for term in self.terms.values() if term.reason)


def read_prices(
    layout: SpaceLayout, table: LatencyTable, leave_out_fixed: bool = False
) -> SpacePrices:
    """Price a whole layout from a table.

    Args:
        layout: what to price.
        table: prices it, by variants too.
        leave_out_fixed: leave out, and name in ``unpriced``, what every network executes alike
            and the table cannot price; such a term changes no comparison between networks.

    Raises:
        MissingEntryError: op specs that the table cannot price; says how many, names the first
            ten, and the command that adds them.
    """
    choices = [(place, layout.spec(choice)) for place, choice in layout.choices()]
    fines = [
        ((s, v), layout.refine_spec(scale, width))
        for s, scale in enumerate(SCALES[:-1])
        for v, width in enumerate(layout.columns if s == 0 else layout.widths)
    ]
    fixed = layout.fixed_specs()
    wanted = dict.fromkeys([*(s for _, s in choices if s), *(s for _, s in fines), *fixed])
    found = estimate(wanted, table, allow_missing=True)
    terms = {term.spec: term for term in found.terms}
    may_lack = set(fixed) if leave_out_fixed else set()
    missing = [spec for spec in wanted if spec not in terms and spec not in may_lack]
    if missing:
        raise MissingEntryError(missing_message(table, missing, _command(layout, table, missing)))
    scales, operators, columns = len(SCALES), len(layout.space.operators), len(layout.columns)
    cell_ms = np.zeros((2, scales, operators, columns, columns))
    refine_ms = np.zeros((scales, columns))
    for place, spec in choices:
        cell_ms[place] = 0.0 if spec is None else terms[spec].price_ms
    for (s, v), spec in fines:
        refine_ms[s, v] = terms[spec].price_ms
    executed_ms = sum(terms[spec].price_ms for spec in fixed if spec in terms)
    fixed_ms = executed_ms + found.constant_ms
    lacking = (*found.unpriced, *found.excluded)
    return SpacePrices(layout, cell_ms, refine_ms, fixed_ms, terms, lacking)


def _command(layout: SpaceLayout, table: LatencyTable, missing: list[OpSpec]) -> str:
    """The command that adds ``missing``; empty where naming them one by one is short enough."""
    if len(missing) <= 3:
        return ""
    height, width = layout.input_size
    batch = [] if layout.batch == 1 else ["--batch", layout.batch]
    plan = "fasterseg" if layout.space == FasterSegSpace() else "PLAN.toml"
    hint = "" if plan == "fasterseg" else " (the plan of the space that is searched)"
    size = f"{height}x{width}"
    return table.command("profile", "--plan", plan, "--input", size, *batch) + hint


def layout_for(
    space: FasterSegSpace,
    table: LatencyTable,
    widths: tuple[int, ...] | None,
    end_width: int,
    input_size: tuple[int, int] | None,
    batch: int | None,
    skip_price: SkipPrice,
) -> SpaceLayout:
    """A layout whose input size and batch are the table's own where they are not given.

    Raises:
        SpecError: see ``SpaceLayout``.
        TableError: no input size given, and the table was not made from a search space.
    """
    if input_size is None:
        where = space_of(table)
        input_size = where.input_size
        batch = where.batch if batch is None else batch
    return SpaceLayout(
        space,
        tuple(space.widths if widths is None else widths),
        end_width,
        (int(input_size[0]), int(input_size[1])),
        1 if batch is None else batch,
        skip_price,
    )
