"""A whole network, built from a graph of op specs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from latlut.operators.building import build
from latlut.opspec import IMAGE, Node, OpSpec, check_graph


class Network(nn.Module):
    """A whole network from its graph of op specs; runs each node once, in order.

    Args:
        nodes: the graph; ``latlut.opspec.check_graph`` must accept it.
        seed: for the weights.

    Takes the image (B, C, H, W), returns the last node's output.
    """

    def __init__(self, nodes: Sequence[Node], seed: int = 0) -> None:
        super().__init__()
        check_graph(nodes)
        self.nodes = tuple(nodes)
        self.operators = nn.ModuleList(
            build(node.spec, seed + index) for index, node in enumerate(self.nodes)
        )
        last_use = {name: index for index, n in enumerate(self.nodes) for name in n.inputs}
        self._last_use = last_use

    def op_specs(self) -> tuple[OpSpec, ...]:
        """One op spec per executed node."""
        return tuple(node.spec for node in self.nodes)

    def forward(self, image: Tensor) -> Tensor:
        maps = {IMAGE: image}
        result = image
        for index, (node, operator) in enumerate(zip(self.nodes, self.operators, strict=True)):
            result = operator(*(maps[name] for name in node.inputs))
            maps[node.name] = result
            for name in node.inputs:
                if self._last_use[name] == index:
                    maps.pop(name, None)
        return result
