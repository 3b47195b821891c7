"""What a whole network must hold and compute: parameters and multiply-accumulates.

Parameters are all that training changes: weights, biases, norms' scales and shifts, the slopes of
PReLU. Multiply-accumulates are those of convolutions, matrix products, recurrent cells and
attention for one image; norms, activations, pooling and interpolation are not counted, and
neither is the enlargement of the logits. Papers call the same number FLOPs, or FLOPs twice that
number.

Modules run on PyTorch's meta device. ONNX graphs have their shapes inferred; those that ONNX does
not infer are taken from a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from latlut.operators.building import cost
from latlut.operators.graph_macs import UncountedError, count_macs
from latlut.operators.graph_view import scope_of
from latlut.operators.onnx_files import OnnxWorkload
from latlut.operators.onnx_loading import making_sense_of
from latlut.operators.run_shapes import learn_shapes
from latlut.search.networks.baselines import baseline_on_meta
from latlut.search.networks.graph_parameters import count_parameters
from latlut.search.networks.network import SegmentationNetwork
from latlut.spaces import Architecture

DEFINITION = (
    "parameters: all that training changes, of the deployed network; MACs: multiply-accumulates of "
    "convolutions, matrix products, recurrent cells and attention for one image, norms, "
    "activations, pooling and interpolation not counted"
)


@dataclass(frozen=True)
class NetworkCost:
    """Counts of one network at one image size."""

    parameters: int
    """Of the deployed network."""
    training_parameters: int | None
    """With the heads that only training uses; None for an ONNX file."""
    macs: int | None
    """multiply-accumulates for one image; None where they cannot be counted."""
    why_unknown: str = ""
    """Why not."""


def cost_of_baseline(name: str, input_size: tuple[int, int], num_classes: int = 19) -> NetworkCost:
    """Counts of a hand-designed network.

    Args:
        name: one of ``baseline_names()``.
        input_size: (height, width) in pixels.
        num_classes: of the logits.

    Raises:
        UnknownNameError: no such network.
    """
    module = baseline_on_meta(name, num_classes)
    everything = parameters_of(module)
    deployed = everything - parameters_of(module.auxiliary)
    return NetworkCost(deployed, everything, macs_of(module, input_size))


def cost_of_architecture(architecture: Architecture, input_size: tuple[int, int]) -> NetworkCost:
    """Counts of a network of the FasterSeg space.

    Args:
        architecture: with its number of classes.
        input_size: (height, width) in pixels.

    Raises:
        SpecError: a size out of range.
    """
    costs = [_cached_cost(spec) for spec in architecture.op_specs(input_size)]
    parameters = sum(item.params for item in costs)
    heads = _head_parameters(architecture)
    return NetworkCost(parameters, parameters + heads, sum(item.macs for item in costs))


def cost_of_onnx(workload: OnnxWorkload) -> NetworkCost:
    """Counts of an ONNX graph: see ``graph_parameters`` and ``graph_macs`` for what counts.

    Multiply-accumulates are those for one image where the batch is known, else those of a run.

    Raises:
        ImportFileError: the graph lacks what ONNX prescribes.
    """
    with making_sense_of(workload.name):
        scope = scope_of(workload.model)
        try:
            try:
                macs = count_macs(scope)
            except UncountedError:
                learn_shapes(scope, workload)
                macs = count_macs(scope)
        except UncountedError as error:
            return NetworkCost(count_parameters(scope), None, None, str(error))
        return NetworkCost(count_parameters(scope), None, macs // (workload.batch or 1))


def parameters_of(module: nn.Module) -> int:
    """All that training changes."""
    return sum(item.numel() for item in module.parameters())


def macs_of(module: nn.Module, input_size: tuple[int, int]) -> int:
    """Multiply-accumulates of a module on the meta device for one image of ``input_size``."""
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.empty(1, 3, *input_size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(image)
    return counter.get_total_flops() // 2


@cache
def _head_parameters(architecture: Architecture) -> int:
    return parameters_of(SegmentationNetwork(architecture).auxiliary_heads)


_cached_cost = cache(cost)
