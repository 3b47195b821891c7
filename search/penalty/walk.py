"""How often a random network of a FasterSeg supernet executes each edge, and the gradient of that.

A branch traces back from its last layer: at a cell it takes its input from the finer scale with
probability beta, from its own scale otherwise, each branch independently of the other, until it
reaches layer 0. Two branches share their cells for as long as their histories from layer 0 on are
the same. An edge is one operator: it leads from the map that enters a cell to the map that the
cell writes, so that a cell has one keep edge and at most one down edge.

    F_b(n)   probability that branch b passes map n; F_b(its last map) = 1 and
             F_b(source) = sum over edges out of source of p(edge) F_b(target)
    A(n)     probability that two histories that both end in n are the same;
             A(0) = 1, A(n) = sum over edges into n of p(edge)^2 A(source)
    visits   sum over branches of w_b F_b(target) p(edge), w_b the share of candidate sets with b
    shared   sum over pairs of F_a(target) F_b(target) p(edge)^2 A(source) / number of sets
    weight   visits - shared: how often the edge's operator is executed, on average

Maps are numbered as ``FasterSegSpace.cells()`` numbers the cells that read them; after these
come the three maps that the last layer writes for the head, one per scale. The arrays are tiny:
recursions run over Python floats, which at this size is faster than one numpy call per layer.

Symbols: L layers, N cells, M = N + 3 maps, E edges, B = 3 branches.

Source: FasterSeg, Sec. 3.1.3 and 3.2, Appendix E. The authors' code counts shared prefixes three
times and gives beta of the 1/16 scale no gradient; this is the exact expectation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from latlut.spaces import FasterSegSpace
from latlut.spaces.shapes import SCALES


class Walk(NamedTuple):
    """The expectations for one beta.

    ``edge`` (E,) probability of each edge given its target; ``passes`` (B, M) F; ``same`` (M,) A;
    ``pairs`` (M,) sum over pairs of F_a F_b / number of sets; ``visits`` and ``weight`` (E,).
    """

    edge: np.ndarray
    passes: np.ndarray
    same: np.ndarray
    pairs: np.ndarray
    visits: np.ndarray
    weight: np.ndarray


class BranchGraph:
    """The edges between the maps of a space's supernet.

    Attributes:
        maps: M. cells: N.
        source, target: (E,) numbers of the maps that an edge reads and writes. Keep edges come
            first, then down edges; within these by scale, and then by layer. Both an edge's
            source and its target are unique among the keep edges and among the down edges.
        keeps: how many of the edges are keep edges.
        groups: (first edge, end, d, s) of each stretch of edges of one kind: d is 1 for down.
    """

    def __init__(self, space: FasterSegSpace) -> None:
        cells = space.cells()
        number = {cell: row for row, cell in enumerate(cells)}
        self.cells, self.layers = len(cells), space.layers
        self.maps = len(cells) + len(SCALES)
        heads = {scale: len(cells) + s for s, scale in enumerate(SCALES)}
        edges: list[tuple[int, int, int, int]] = []
        for row, (layer, scale) in enumerate(cells):
            s = SCALES.index(scale)
            after = number.get((layer + 1, scale), heads[scale])
            edges.append((0, s, row, after))
            if (below := number.get((layer + 1, 2 * scale))) is not None:
                edges.append((1, s, row, below))
        edges.sort()
        kinds = [(d, s) for d, s, _, _ in edges]
        self.groups = tuple(
            (kinds.index(kind), kinds.index(kind) + kinds.count(kind), *kind)
            for kind in dict.fromkeys(kinds)
        )
        self.source = np.array([edge[2] for edge in edges])
        self.target = np.array([edge[3] for edge in edges])
        self.keeps = sum(d == 0 for d, _ in kinds)
        sets = space.branch_scales()
        self.set_count = len(sets)
        self.has_pairs = space.branches == 2
        self.share = sum(SCALES[0] in scales for scales in sets) / len(sets)
        self._upwards = sorted(
            ((number, *edge[2:]) for number, edge in enumerate(edges)), key=lambda item: item[2]
        )
        self._branches = [self._reachable(heads[scale]) for scale in SCALES]
        self._last = list(heads.values())

    def _reachable(self, last: int) -> list[tuple[int, int, int]]:
        """(edge, source, target) of the edges that lead to ``last``, the deepest layer first."""
        reached, found = {last}, []
        for edge, source, target in reversed(self._upwards):
            if target in reached:
                reached.add(source)
                found.append((edge, source, target))
        return found

    def walk(self, beta: np.ndarray) -> Walk:
        """Expected executions of every edge.

        Args:
            beta: (N,) float64, probability that a cell's input comes from the finer scale.
        """
        maps, keeps = self.maps, self.keeps
        finer = np.zeros(maps)
        finer[: self.cells] = beta
        edge = finer[self.target]
        edge[:keeps] = 1.0 - edge[:keeps]
        odds = edge.tolist()
        passes = []
        for last, steps in zip(self._last, self._branches, strict=True):
            row = [0.0] * maps
            row[last] = 1.0
            for number, source, target in steps:
                row[source] += row[target] * odds[number]
            passes.append(row)
        f = np.array(passes)
        visits = self.share * f.sum(0)[self.target] * edge
        same = [0.0] * maps
        same[0] = 1.0
        if not self.has_pairs:
            return Walk(edge, f, np.array(same), np.zeros(maps), visits, visits)
        squares = (edge * edge).tolist()
        for number, source, target in self._upwards:
            same[target] += squares[number] * same[source]
        a = np.array(same)
        total = f.sum(0)
        pairs = (total * total - (f * f).sum(0)) * (0.5 / self.set_count)
        weight = visits - pairs[self.target] * edge * edge * a[self.source]
        return Walk(edge, f, a, pairs, visits, weight)

    def beta_gradient(self, walk: Walk, cell_ms: np.ndarray, refine_ms: np.ndarray) -> np.ndarray:
        """(N,) gradient of sum(weight * cell_ms + visits * refine_ms) with respect to beta.

        Args:
            walk: of the beta at which to differentiate.
            cell_ms, refine_ms: (E,) float64, taken as constants. Refinements belong to one branch
                and are never shared.

        Numbers of cells that can be reached in one way only are meaningless and to be discarded.
        """
        source, target, edge = self.source, self.target, walk.edge
        odds = edge.tolist()
        own = self.share * (cell_ms + refine_ms)
        explicit = np.zeros(len(edge))
        lost = [[0.0] * self.maps for _ in walk.passes]
        if self.has_pairs:
            squared = edge * edge
            shared_ms = squared * walk.same[source] * cell_ms
            into = np.bincount(target, shared_ms, self.maps) / self.set_count
            lost = ((walk.passes.sum(0) - walk.passes) * into).tolist()
            # adjoint of A: what a unit of A(source) adds to the shared latency, from the end back
            adjoint = [0.0] * self.maps
            direct = (walk.pairs[target] * cell_ms).tolist()
            through = squared.tolist()
            for number, start, end in reversed(self._upwards):
                adjoint[start] += through[number] * (direct[number] + adjoint[end])
            passed_on = walk.pairs[target] * cell_ms + np.array(adjoint)[target]
            explicit = 2.0 * edge * walk.same[source] * passed_on
        costs = own.tolist()
        per_edge = np.zeros(len(edge))
        for row, steps, gone in zip(walk.passes, self._branches, lost, strict=True):
            # value of a map: what a branch that passes it adds from there back to the stem
            value = [-amount for amount in gone]
            for number, start, end in reversed(steps):
                value[end] += odds[number] * (costs[number] + value[start])
            per_edge += row[target] * (own + np.array(value)[source])
        per_edge -= explicit
        gradient = np.zeros(self.maps)
        gradient[target[self.keeps :]] += per_edge[self.keeps :]
        gradient[target[: self.keeps]] -= per_edge[: self.keeps]
        return gradient[: self.cells]
