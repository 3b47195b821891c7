"""A search of one's own in the chain space: a task loss, the table's latency, a target.

    python docs/examples/chain_search.py profiles/chain.db 0.5

The task here is a stand-in of three lines, which wants wide maps and large blocks; yours is the
loss of a supernet. The table is one of ``chain_space.py``, and says at which input size.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from latlut import LatencyTable
from latlut.penalty import ChoiceLatency
from latlut.pricing.choices import Fit
from latlut.spaces.own import own_space
from latlut.table.space import space_of


def search(table_path: str, target_ms: float, steps: int = 200) -> tuple[Fit, float]:
    """The network that is found, and the expected latency that the search ended with, in ms."""
    own_space(str(Path(__file__).with_name("chain_space.py")))
    with LatencyTable.open(table_path) as table:
        where = space_of(table)
        latency = ChoiceLatency(where.space.choices(where.input_size, where.batch), table)
    logits = latency.new_logits()
    optimizer = torch.optim.Adam(logits.values(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        # Replace this by the loss of your supernet, run with these logits.
        task_loss = -sum(
            (row.softmax(0) * torch.linspace(0, 1, len(row))).sum() for row in logits.values()
        )
        expected_ms = latency(logits)
        loss = task_loss + 20 * (expected_ms / target_ms - 1).abs()
        loss.backward()
        optimizer.step()
    # The likeliest network seldom lands on the target: take the likeliest of those that do.
    return latency.fit(logits, target_ms, tolerance=0.02), latency(logits).item()


if __name__ == "__main__":
    found, expected_ms = search(sys.argv[1], float(sys.argv[2]))
    print(f"expected: {expected_ms:.3f} ms")
    print(f"network: {found.latency_ms:.3f} ms, {found.changes} choices changed")
    print(found.picks)
