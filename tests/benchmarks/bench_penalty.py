"""How fast the decoupled latency penalty of a FasterSeg search is, forward and backward, one core.

    python tests/benchmarks/bench_penalty.py

16 layers, 5 operators, 5 widths, two branches. Beside it, in the same process and in turns, stand
two plain ways of computing the same numbers with torch operations and autograd: a loop over cells
and their operators, as one writes it down first and as the authors' code has it, and the same
with three matrix products per cell. All three must give the same penalty and gradients.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latlut.machine.pinning import choose_cpus, pinned
from latlut.measure.plans import load_plan
from latlut.search.penalty.decoupled import DecoupledLatency
from latlut.search.penalty.prices import SpacePrices
from latlut.search.supernet.relaxed import Probabilities, RelaxedArchitecture
from latlut.spaces import FasterSegSpace
from latlut.spaces.shapes import SCALES
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.table import LatencyTable
from latlut.timestamps import now_text

#: Latency of one cell's operator: (prices (K, V, V), alpha (K,), widths read (V,), written (V,)).
CellLatency = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Cell = tuple[int, int]
INPUT_SIZE = (1024, 2048)


def by_operator(prices: Tensor, alpha: Tensor, reads: Tensor, writes: Tensor) -> Tensor:
    """A sum over operators, one after the other."""
    total = torch.zeros((), dtype=prices.dtype)
    for weight, price in zip(alpha, prices, strict=True):
        total = total + weight * (reads @ price @ writes)
    return total


def by_matrix(prices: Tensor, alpha: Tensor, reads: Tensor, writes: Tensor) -> Tensor:
    """Three products of matrices and vectors."""
    return reads @ ((alpha @ prices.flatten(1)).view(len(reads), -1) @ writes)


class PlainLoop:
    """The decoupled penalty as three recursions over dictionaries of cells."""

    def __init__(self, prices: SpacePrices, weights: tuple[float, ...], cell: CellLatency) -> None:
        self.space, self.layout = prices.layout.space, prices.layout
        self.weights, self.cell = weights, cell
        self.cell_ms = torch.from_numpy(prices.cell_ms)
        self.refine_ms = torch.from_numpy(prices.refine_ms)
        self.fixed_ms = prices.fixed_ms
        self.rows = {cell: row for row, cell in enumerate(self.space.cells())}
        self.ends = torch.eye(len(self.layout.columns), dtype=torch.double)[self.layout.end_column]

    def penalty_ms(self, relaxed: RelaxedArchitecture) -> Tensor:
        """Weighted sum of the three expectations."""
        p = relaxed.probabilities()
        alpha = torch.full_like(p.alpha, 1 / p.alpha.shape[1])
        beta = p.beta.detach().clone()
        beta[list(relaxed.two_way)] = 0.5
        gamma = torch.zeros_like(p.gamma)
        gamma[:, self.layout.widest_column] = 1
        parts = (
            Probabilities(p.alpha, beta, gamma),
            Probabilities(alpha, p.beta, gamma),
            Probabilities(alpha, beta, p.gamma),
        )
        terms = [self.expected_ms(part) for part in parts]
        return sum((w * term for w, term in zip(self.weights, terms, strict=True)), torch.zeros(()))

    def widths(self, p: Probabilities, cell: Cell) -> Tensor:
        """(V,) widths of the map that enters a cell, or that the head reads."""
        if cell not in self.rows or cell == (0, 8):
            return self.ends
        return p.gamma[self.rows[cell] - 1]

    def expected_ms(self, p: Probabilities) -> Tensor:
        """E[T] of one choice of probabilities."""
        last = self.space.layers - 1
        edges: dict[Cell, list[tuple[Cell, Tensor, Tensor, Tensor]]] = {}
        for (layer, scale), row in self.rows.items():
            for is_down in (0, 1) if scale < 32 and layer < last else (0,):
                after = (layer + 1, scale * (1 + is_down))
                s, reads = SCALES.index(scale), self.widths(p, (layer, scale))
                ms = self.cell(self.cell_ms[is_down, s], p.alpha[row], reads, self.widths(p, after))
                refine = (self.refine_ms[s] * reads).sum() * is_down
                odds = torch.ones(())
                if after in self.rows:
                    odds = p.beta[self.rows[after]] if is_down else 1 - p.beta[self.rows[after]]
                edges.setdefault(after, []).append(((layer, scale), odds, ms, refine))
        same = {(0, 8): torch.ones(())}
        backward = sorted(edges, reverse=True)
        for cell in reversed(backward):
            same[cell] = sum(  # type: ignore[assignment]
                odds * odds * same[source] for source, odds, _, _ in edges[cell]
            )
        total = torch.zeros(())
        passes = {}
        sets = self.space.branch_scales()
        for scale in SCALES:
            passing = {(last + 1, scale): torch.ones(())}
            share = sum(scale in scales for scales in sets) / len(sets)
            for cell in backward:
                for source, odds, ms, refine in edges[cell] if cell in passing else ():
                    part = passing[cell] * odds
                    passing[source] = passing.get(source, 0) + part
                    total = total + share * part * (ms + refine)
            passes[scale] = passing
        for first, second in sets:
            for cell in passes[first]:
                for source, odds, ms, _ in edges.get(cell, []) if cell in passes[second] else ():
                    both = passes[first][cell] * passes[second][cell]
                    total = total - both * odds * odds * same[source] * ms / len(sets)
        return total + self.fixed_ms


def make_table(path: Path, space: FasterSegSpace) -> LatencyTable:
    """A table of the whole space with latencies that grow with the work."""
    specs = load_plan("fasterseg", INPUT_SIZE).specs
    table = LatencyTable.create(path, Identity("cpu", "benchmark", "none", "0"))
    ids = recording.add_op_specs(table, specs)
    with table.writing() as db:
        for spec in specs:
            channels, height, width = spec.output
            ms = 0.02 + 1e-10 * spec.in_channels * channels * height * width
            db.execute(
                "INSERT INTO entries (op_spec_id, latency_ms, own_error, passes, n, updated_at)"
                " VALUES (?, ?, 0.01, 5, 100, ?)",
                [ids[spec.key], ms, now_text()],
            )
    return table


def timed_s(action: Callable[[], object], repeats: int) -> np.ndarray:
    """(repeats,) seconds."""
    seconds = np.empty(repeats)
    for number in range(repeats):
        started = time.perf_counter()
        action()
        seconds[number] = time.perf_counter() - started
    return seconds


def main() -> None:
    """Print every figure with its spread."""
    torch.set_num_threads(1)
    space = FasterSegSpace()
    with (
        tempfile.TemporaryDirectory() as folder,
        make_table(Path(folder) / "table.db", space) as table,
    ):
        latency = DecoupledLatency(space, table, input_size=INPUT_SIZE)
    relaxed = RelaxedArchitecture(space, seed=1).double()
    loops = {
        "a loop over cells and operators": PlainLoop(latency.prices, latency.weights, by_operator),
        "a loop over cells, three products each": PlainLoop(
            latency.prices, latency.weights, by_matrix
        ),
    }

    def backward_of(penalty_ms: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            relaxed.zero_grad()
            value = penalty_ms()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        return run

    ours = backward_of(lambda: latency(relaxed).penalty_ms)
    plain = {
        name: backward_of(lambda loop=loop: loop.penalty_ms(relaxed))
        for name, loop in loops.items()
    }
    value = ours()
    gradients = [parameter.grad.clone() for parameter in relaxed.parameters()]
    for name, action in plain.items():
        other = action()
        assert torch.allclose(value, other, rtol=1e-10), name
        for mine, parameter in zip(gradients, relaxed.parameters(), strict=True):
            assert torch.allclose(mine, parameter.grad, rtol=1e-8, atol=1e-12), name

    with pinned(choose_cpus(1)):
        timed_s(ours, 200)
        mine: list[np.ndarray] = []
        theirs: dict[str, list[float]] = {name: [] for name in plain}
        for _ in range(15):
            mine.append(timed_s(ours, 60))
            for name, action in plain.items():
                theirs[name].append(float(np.median(timed_s(action, 2))))
        forward_ms = 1e3 * np.median(timed_s(lambda: latency(relaxed), 400))
        single = RelaxedArchitecture(space, seed=1)
        with_expected = timed_s(lambda: sum(latency(single)[::2]).backward(), 400)  # type: ignore[union-attr]
    low, middle, high = 1e3 * np.quantile(mine, [0.1, 0.5, 0.9])
    print(
        f"penalty, forward and backward: {middle:.3f} ms (p10 {low:.3f}, p90 {high:.3f}); "
        f"forward alone {forward_ms:.3f} ms; with the gradient of expected_ms too "
        f"{1e3 * np.median(with_expected):.3f} ms"
    )
    for name, seconds in theirs.items():
        ratios = [slow / np.median(fast) for slow, fast in zip(seconds, mine, strict=True)]
        print(
            f"{np.median(ratios):.0f}x faster than {name} "
            f"({min(ratios):.0f}x to {max(ratios):.0f}x), which takes "
            f"{1e3 * np.median(seconds):.1f} ms"
        )


if __name__ == "__main__":
    main()
