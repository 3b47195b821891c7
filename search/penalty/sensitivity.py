"""How much each granularity of a search can change the latency, and the weights that balance them.

Operators, downsampling and widths are varied one at a time, the other two held as the decoupled
penalty holds them (uniform alpha, uniform beta, widest gamma). The gap of a factor is the
difference between two end points of that factor's own term of the penalty:

    operator       every cell has its most expensive operator, against every cell its cheapest
    downsampling   the ways that cost most, against those that cost least, among all ways in which
                   each cell takes its input from one scale alone (beta is 0 or 1)
    width          every map has the widest width, against every map the narrowest

A factor's weight is inverse to its gap, so that weight times gap is the same for all three.

A gap is a sum of entries with coefficients, positive and negative. Its 95% interval joins the
errors of the entries with those of the table's calibration, where it has one (``pricing.gaps``).

Symbols: L layers, E edges, K operators, V widths (see ``walk`` and ``terms``).

Source: FasterSeg, Sec. 3.2, Table 2 and footnote 1. The paper does not define its end points.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from latlut.errors import LatlutError
from latlut.opspec import OpSpec
from latlut.pricing import calibration as calibrations
from latlut.pricing.gaps import gap_half_width_ms
from latlut.search.penalty.prices import CellChoice
from latlut.search.penalty.terms import ExpectedTerms
from latlut.spaces.shapes import SCALES
from latlut.table.table import LatencyTable

FACTORS = ("operator", "downsampling", "width")
#: The paper's Table 2, milliseconds on a GTX 1080 Ti, in the order of ``FACTORS``.
PAPER_GAPS_MS = (10.42, 0.01, 5.54)


@dataclass(frozen=True)
class FactorGap:
    """What one factor can change, in milliseconds.

    ``low_ms`` and ``high_ms`` are its end points, described by ``low_end`` and ``high_end``;
    ``half_ms`` the half-width of the gap's 95% interval, None where an entry has none.
    """

    factor: str
    low_ms: float
    high_ms: float
    half_ms: float | None
    low_end: str
    high_end: str

    @property
    def gap_ms(self) -> float:
        """High end less low end."""
        return self.high_ms - self.low_ms

    @property
    def is_clear(self) -> bool:
        """Whether the gap is positive and beyond its own interval, where that is known."""
        return self.gap_ms > (self.half_ms or 0.0)


@dataclass(frozen=True)
class Sensitivity:
    """The three gaps, in the order of ``FACTORS``."""

    gaps: tuple[FactorGap, FactorGap, FactorGap]


def sensitivity(terms: ExpectedTerms, table: LatencyTable) -> Sensitivity:
    """The latency gap of each factor.

    Args:
        terms: the expectations of a space.
        table: the one that priced them; for the errors of its entries.
    """
    return Sensitivity(
        (
            _gap(terms, table, 0, _operator_ends(terms)),
            _gap(terms, table, 1, _downsampling_ends(terms)),
            _gap(terms, table, 2, _width_ends(terms)),
        )
    )


def balanced_weights(found: Sensitivity) -> tuple[float, float, float]:
    """Weights inverse to the gaps, with sum 1.

    Raises:
        LatlutError: a gap that is not beyond its own interval; names the factor.
    """
    for gap in found.gaps:
        if not gap.is_clear:
            half = "" if gap.half_ms is None else f" ±{gap.half_ms:.3g}"
            raise LatlutError(
                f"the {gap.factor} gap is {gap.gap_ms:.3g}{half} ms, which is not beyond its own "
                "interval: weights cannot be balanced by it\nname the weights yourself, such as "
                "the paper's 0.001, 0.997, 0.002, or profile with more passes"
            )
    inverse = [1.0 / gap.gap_ms for gap in found.gaps]
    total = math.fsum(inverse)
    return inverse[0] / total, inverse[1] / total, inverse[2] / total


class _Executed:
    """How often an end point executes each op spec, on average."""

    def __init__(self, terms: ExpectedTerms) -> None:
        self.terms = terms
        self.layout = terms.prices.layout
        priced = terms.prices.terms
        self.counts: defaultdict[OpSpec, float] = defaultdict(float)
        for spec in self.layout.fixed_specs():
            if spec in priced:
                self.counts[spec] += 1.0

    def add_cells(self, weight: np.ndarray, alpha: np.ndarray, columns: np.ndarray) -> None:
        """Edges executed ``weight`` (E,) times, operators alpha (N, K), a width per map (M,)."""
        graph, layout = self.terms.graph, self.layout
        for start, end, is_down, s in graph.groups:
            for edge in range(start, end):
                source = graph.source[edge]
                ends = columns[source], columns[graph.target[edge]]
                for operator, share in zip(layout.space.operators, alpha[source], strict=True):
                    if not share * weight[edge]:
                        continue
                    widths = (layout.columns[end] for end in ends)
                    spec = layout.spec(CellChoice(operator, SCALES[s], bool(is_down), *widths))
                    if spec is not None:
                        self.counts[spec] += float(weight[edge] * share)

    def add_refinements(self, visits: np.ndarray, columns: np.ndarray) -> None:
        """Refinements executed as often as their down edges are passed."""
        graph, layout = self.terms.graph, self.layout
        for start, end, is_down, s in graph.groups:
            for edge in range(start, end) if is_down else ():
                width = layout.columns[columns[graph.source[edge]]]
                self.counts[layout.refine_spec(SCALES[s], width)] += float(visits[edge])


#: What an end point of a factor consists of, alpha, beta and gamma, and its description.
_End = tuple[np.ndarray, np.ndarray, np.ndarray, str]


def _gap(terms: ExpectedTerms, table: LatencyTable, number: int, ends: Iterable[_End]) -> FactorGap:
    """The gap of a factor between its low and its high end, in its own term of the penalty."""
    ends_ms, executed, texts = [], [], []
    for alpha, beta, gamma, text in ends:
        walk, columns = terms.graph.walk(beta), terms.map_widths(gamma).argmax(1)
        ends_ms.append(float(terms.evaluate(alpha, beta, gamma).terms_ms[number]))
        own = _Executed(terms)
        own.add_cells(walk.weight, alpha, columns)
        own.add_refinements(walk.visits, columns)
        executed.append(own.counts)
        texts.append(text)
    low, high = executed
    priced_as = {spec: term.priced_as for spec, term in terms.prices.terms.items()}
    keys = {key for spec in (*low, *high) for key in priced_as[spec]}
    entries = {key: table.lookup(OpSpec.parse(key)) for key in keys}
    half_ms = gap_half_width_ms(
        low, high, entries, table.shared_error, calibrations.stored(table), priced_as
    )
    return FactorGap(FACTORS[number], ends_ms[0], ends_ms[1], half_ms, texts[0], texts[1])


def _operator_ends(terms: ExpectedTerms) -> Iterator[_End]:
    """Linear in alpha: the fastest and slowest operator of each cell give its extremes."""
    operators = terms.prices.layout.space.operators
    gamma = _same_width(terms, terms.prices.layout.widest_column)
    choices = {"fastest": terms.operator_ms.argmin(1), "slowest": terms.operator_ms.argmax(1)}
    for kind, choice in choices.items():
        counts = {name: int((choice == k).sum()) for k, name in enumerate(operators)}
        listed = ", ".join(f"{name} in {count}" for name, count in counts.items() if count)
        text = f"the {kind} operator in every cell: {listed} of {len(choice)} cells"
        yield np.eye(len(operators))[choice], terms.uniform_beta, gamma, text


def _downsampling_ends(terms: ExpectedTerms) -> Iterator[_End]:
    gamma = _same_width(terms, terms.prices.layout.widest_column)
    for middle, first, second in _extreme_ways(terms):
        text = (
            f"the 1/16 branch downsamples in layer {middle}, the 1/32 branch in layers {first} "
            f"and {second}"
        )
        yield _uniform_alpha(terms), _beta_of_ways(terms, middle, first, second), gamma, text


def _width_ends(terms: ExpectedTerms) -> Iterator[_End]:
    layout = terms.prices.layout
    for width in (min(layout.widths), max(layout.widths)):
        gamma = _same_width(terms, layout.widths.index(width))
        text = f"width {width}/12 in every map, stem and head {layout.end_width}/12"
        yield _uniform_alpha(terms), terms.uniform_beta, gamma, text


def _uniform_alpha(terms: ExpectedTerms) -> np.ndarray:
    cells, operators = terms.operator_ms.shape
    return np.full((cells, operators), 1.0 / operators)


def _same_width(terms: ExpectedTerms, column: int) -> np.ndarray:
    """(N - 1, W) gamma with one width everywhere."""
    return np.tile(np.eye(len(terms.prices.layout.widths))[column], (terms.graph.cells - 1, 1))


def _beta_of_ways(terms: ExpectedTerms, middle: int, first: int, second: int) -> np.ndarray:
    """(N,) beta of 0 and 1 with which the branches downsample in these layers."""
    beta = np.array([float(scale > 8) for _, scale in terms.prices.layout.space.cells()])
    for row, (layer, scale) in enumerate(terms.prices.layout.space.cells()):
        if scale == 16 and 8 * 2**layer > scale:
            beta[row] = float(layer - 1 in (middle, first))
        if scale == 32 and 8 * 2**layer > scale:
            beta[row] = float(layer - 1 == second)
    return beta


def _extreme_ways(terms: ExpectedTerms) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(layer of the 1/16 branch's down, of the 1/32 branch's two) of least and greatest latency.

    Both branches read the same beta, so where the 1/32 branch leaves 1/16 only after the 1/16
    branch's down cell, its own first down cell is the same one.
    """
    graph, last = terms.graph, terms.graph.layers - 1
    cell_ms, refine_ms = terms.uniform_cell_ms, terms.widest_refine_ms
    by_kind = {(d, s): slice(start, end) for start, end, d, s in graph.groups}

    def before(s: int) -> np.ndarray:
        """Latency of the keep cells at scale s in the layers below l, for l up to L."""
        own = cell_ms[by_kind[0, s]]
        missing = np.zeros(last + 1 - len(own))
        return np.concatenate(([0.0], np.cumsum(np.concatenate((missing, own)))))

    def downs(values: np.ndarray, s: int) -> np.ndarray:
        return np.concatenate((np.zeros(s), values[by_kind[1, s]]))

    keep8, keep16, keep32 = (before(s) for s in range(len(SCALES)))
    cell8, cell16 = downs(cell_ms, 0), downs(cell_ms, 1)
    down8, down16 = cell8 + downs(refine_ms, 0), cell16 + downs(refine_ms, 1)
    pair_share = 1.0 / graph.set_count if graph.has_pairs else 0.0
    best: list[tuple[float, tuple[int, int, int]]] = []
    layers = np.arange(last)
    own16 = keep8[layers] + down8 + keep16[last + 1] - keep16[layers + 1]
    for second in range(1, last):
        first = np.arange(second)[:, None]  # (F, 1) against (1, P) positions of the 1/16 branch
        middle = layers[None, :]
        tail = down16[second] + keep32[last + 1] - keep32[second + 1] + keep16[second]
        own32 = keep8[first] + down8[first] - keep16[first + 1] + tail
        same = keep8[middle] + cell8[middle] + keep16[second] - keep16[middle + 1]
        common = np.where(middle == first, same, keep8[np.minimum(first, middle)])
        shared = keep8[middle] + keep8[first] + common
        total = graph.share * (own16[middle] + own32) - pair_share * shared
        is_possible = (middle >= second) | (middle == first)
        for fill, pick in ((np.inf, np.argmin), (-np.inf, np.argmax)):
            values = np.where(is_possible, total, fill)
            place = np.unravel_index(int(pick(values)), values.shape)
            best.append((float(values[place]), (int(place[1]), int(place[0]), second)))
    return min(best)[1], max(best)[1]
