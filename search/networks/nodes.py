"""A network of the FasterSeg space node by node: operators, widths, parameters, operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latlut.operators.building import cost
from latlut.opspec import IMAGE, Node
from latlut.spaces import Architecture


def architecture_rows(
    architecture: Architecture, input_size: tuple[int, int]
) -> list[dict[str, Any]]:
    """One row per node of the graph, in order of execution.

    Args:
        architecture: the network.
        input_size: (height, width) in pixels that multiply-accumulates are counted at.
    """
    widths = {}
    for branch in architecture.branches:
        for index, cell in enumerate(branch.cells):
            owner = "shared" if index < architecture.shared_cells else f"branch{branch.scale}"
            widths[f"{owner}.cell.{index}"] = cell.width
    costs = {spec: cost(spec) for spec in set(architecture.op_specs(input_size))}
    scales = _output_scales(architecture)
    return [
        {
            "node": node.name,
            "operator": node.spec.kind,
            "in_scale": scales[node.inputs[0]],
            "scale": scales[node.name],
            "width": widths.get(node.name),
            "in_channels": [channels for channels, _, _ in node.spec.inputs],
            "channels": node.spec.out_channels,
            "stride": node.spec.stride,
            "parameters": costs[node.spec].params,
            "macs": costs[node.spec].macs,
        }
        for node in architecture.nodes(input_size)
    ]


def _output_scales(architecture: Architecture) -> dict[str, int]:
    """The scale of every node's output, from a graph of a size that all scales divide."""
    side = 64
    nodes: Sequence[Node] = architecture.nodes((side, side))
    return {IMAGE: 1} | {node.name: side // node.spec.out_size[0] for node in nodes}
