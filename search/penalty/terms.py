"""Expected latency of a FasterSeg supernet and its gradient, in NumPy, in double precision.

For probabilities alpha, beta, gamma the expected latency of the networks that they describe is

    E[T] = fixed + sum over edges e of weight_e cell_e + visits_e refine_e
    cell_e = sum_k,i,j alpha[source]_k gamma[source]_i gamma[target]_j t[k, i, j]
    refine_e = sum_i gamma[source]_i r[i] for a down edge, 0 for a keep edge

with the executions ``weight`` and ``visits`` of ``walk``: operators, widths and ways are
independent choices, so the expectation of a product is the product of expectations. It is exact
for networks in which every cell of the path is executed or costs nothing; see
``latlut.search.penalty.decoupled`` for what skips do to that.

Four expectations come out of one call, three of them with two factors held fixed: uniform alpha,
uniform beta, widest gamma. What a fixed factor makes constant is computed once. The gradient is
written out by hand: the arrays are so small that a framework's bookkeeping costs more than they.

Symbols: N cells, K operators, W widths searched, V widths with the end width, M maps, E edges.

Source: FasterSeg, Sec. 3.2, Eq. 3, where the factors that are held fixed are not named; those of
the authors' code are uniform alpha, uniform beta and widest gamma.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from latlut.search.penalty.prices import SpacePrices
from latlut.search.penalty.walk import BranchGraph, Walk
from latlut.spaces.topology import is_two_way


class Evaluation(NamedTuple):
    """Values in milliseconds and what the gradient needs of them.

    ``terms_ms`` (3,): E[T] when only alpha, only beta, only gamma vary; ``expected_ms``: as given.
    """

    terms_ms: np.ndarray
    expected_ms: float
    walk: Walk
    alpha: np.ndarray
    widths: np.ndarray
    mixed_ms: np.ndarray
    cell_ms: np.ndarray
    refine_ms: np.ndarray


class Gradient(NamedTuple):
    """Derivatives with respect to probabilities: alpha (N, K), beta (N,), gamma (N - 1, W)."""

    alpha: np.ndarray
    beta: np.ndarray
    gamma: np.ndarray


class ExpectedTerms:
    """The four expectations of one space in one table; holds constants only."""

    def __init__(self, prices: SpacePrices) -> None:
        layout = prices.layout
        space = layout.space
        self.prices = prices
        self.graph = graph = BranchGraph(space)
        self._operators = len(space.operators)
        self._searched, columns = len(layout.widths), len(layout.columns)
        groups = graph.groups
        #: per group (K, V * V) prices
        self._tables = [prices.cell_ms[d, s].reshape(self._operators, -1) for *_, d, s in groups]
        self._refine = np.zeros((len(graph.source), columns))
        for start, end, d, s in groups:
            if d:
                self._refine[start:end] = prices.refine_ms[s]
        self._end_row = np.eye(columns)[layout.end_column]
        self.uniform_beta = np.array([_uniform(*cell) for cell in space.cells()])
        fixed_walk = graph.walk(self.uniform_beta)
        self._fix_alpha(fixed_walk)
        self._fix_widths(fixed_walk)

    def _fix_widths(self, walk: Walk) -> None:
        """Constants of the terms whose widths are fixed: the widest, but the ends' own."""
        layout, graph = self.prices.layout, self.graph
        column = np.full(graph.maps, layout.widest_column)
        column[0] = layout.end_column
        column[graph.cells :] = layout.end_column
        reads, writes = column[graph.source], column[graph.target]
        edges = np.arange(len(reads))
        operator_ms = np.concatenate(  # (E, K) of each edge's operators at these widths
            [
                self.prices.cell_ms[d, s][:, reads[start:end], writes[start:end]].T
                for start, end, d, s in graph.groups
            ]
        )
        self.widest_refine_ms = self._refine[edges, reads]
        self.uniform_cell_ms = operator_ms.mean(1)
        self.operator_ms = np.zeros((graph.cells, self._operators))
        np.add.at(self.operator_ms, graph.source, walk.weight[:, None] * operator_ms)
        self._alpha_fixed_ms = self.prices.fixed_ms + float(walk.visits @ self.widest_refine_ms)

    def _fix_alpha(self, walk: Walk) -> None:
        """Constants of the term that only gamma changes: (E, V, V) pairs, (E, V) refinements."""
        columns = len(self._end_row)
        mean = np.empty((len(walk.edge), columns, columns))
        for (start, end, *_), table in zip(self.graph.groups, self._tables, strict=True):
            mean[start:end] = table.mean(0).reshape(columns, columns)
        self.pair_ms = walk.weight[:, None, None] * mean
        self.refine_ms = walk.visits[:, None] * self._refine

    def map_widths(self, gamma: np.ndarray) -> np.ndarray:
        """(M, V) probability of each width of each map: gamma between the two ends."""
        widths = np.zeros((self.graph.maps, len(self._end_row)))
        widths[0] = self._end_row
        widths[1 : self.graph.cells, : self._searched] = gamma
        widths[self.graph.cells :] = self._end_row
        return widths

    def evaluate(self, alpha: np.ndarray, beta: np.ndarray, gamma: np.ndarray) -> Evaluation:
        """The four expectations.

        Args:
            alpha: (N, K) float64, probability of each operator in each cell.
            beta: (N,) float64, probability that a cell's input comes from the finer scale.
            gamma: (N - 1, W) float64, probability of each width of the map into cells[1:].
        """
        graph, columns = self.graph, len(self._end_row)
        walk = graph.walk(beta)
        widths = self.map_widths(gamma)
        reads, writes = widths[graph.source], widths[graph.target]
        operators = alpha[graph.source]
        mixed = np.empty((len(reads), columns * columns))
        for (start, end, *_), table in zip(graph.groups, self._tables, strict=True):
            np.matmul(operators[start:end], table, out=mixed[start:end])
        mixed_ms = mixed.reshape(-1, columns, columns)
        pairs = reads[:, :, None] * writes[:, None, :]
        cell_ms = np.einsum("eij,eij->e", mixed_ms, pairs)
        refine_ms = np.einsum("ei,ei->e", self._refine, reads)
        fixed_ms = self.prices.fixed_ms
        terms_ms = np.array(
            [
                self._alpha_fixed_ms + np.vdot(self.operator_ms, alpha),
                fixed_ms + walk.weight @ self.uniform_cell_ms + walk.visits @ self.widest_refine_ms,
                fixed_ms + np.vdot(self.pair_ms, pairs) + np.vdot(self.refine_ms, reads),
            ]
        )
        expected_ms = fixed_ms + float(walk.weight @ cell_ms + walk.visits @ refine_ms)
        return Evaluation(terms_ms, expected_ms, walk, alpha, widths, mixed_ms, cell_ms, refine_ms)

    def gradient(self, found: Evaluation, terms: np.ndarray, expected: float) -> Gradient:
        """Derivative of ``terms @ terms_ms + expected * expected_ms``.

        Args:
            found: where to differentiate.
            terms: (3,) float64, weight of each term.
            expected: weight of ``expected_ms``.
        """
        graph, walk = self.graph, found.walk
        source, target = graph.source, graph.target
        reads, writes = found.widths[source], found.widths[target]
        alpha = terms[0] * self.operator_ms
        cell_ms = terms[1] * self.uniform_cell_ms
        refine_ms = terms[1] * self.widest_refine_ms
        pair_ms = terms[2] * self.pair_ms
        own_ms = terms[2] * self.refine_ms
        if expected:
            executed = expected * walk.weight
            pairs = (reads * executed[:, None])[:, :, None] * writes[:, None, :]
            pairs = pairs.reshape(len(pairs), -1)
            by_operator = np.empty((len(pairs), self._operators))
            for (start, end, *_), table in zip(graph.groups, self._tables, strict=True):
                np.matmul(pairs[start:end], table.T, out=by_operator[start:end])
            alpha[source[: graph.keeps]] += by_operator[: graph.keeps]
            alpha[source[graph.keeps :]] += by_operator[graph.keeps :]
            cell_ms = cell_ms + expected * found.cell_ms
            refine_ms = refine_ms + expected * found.refine_ms
            pair_ms += executed[:, None, None] * found.mixed_ms
            own_ms += (expected * walk.visits)[:, None] * self._refine
        beta = graph.beta_gradient(walk, cell_ms, refine_ms)
        own_ms += np.einsum("eij,ej->ei", pair_ms, writes)
        written = np.einsum("eij,ei->ej", pair_ms, reads)
        widths = np.zeros_like(found.widths)
        for part in (slice(None, graph.keeps), slice(graph.keeps, None)):
            widths[source[part]] += own_ms[part]
            widths[target[part]] += written[part]
        return Gradient(alpha, beta, widths[1 : graph.cells, : self._searched])


def _uniform(layer: int, scale: int) -> float:
    """beta of a cell when both ways are equally likely."""
    if is_two_way(layer, scale):
        return 0.5
    return float(scale > 8)
