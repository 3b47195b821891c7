"""What a whole network must hold and compute: parameters and multiply-accumulates.

Parameters are all that training changes: weights, biases, norms' scales and shifts, the slopes of
PReLU. Multiply-accumulates are those of convolutions, transposed convolutions and matrix products
for one image; norms, activations, pooling and interpolation are not counted, and neither is the
enlargement of the logits. Papers call the same number FLOPs, or FLOPs twice that number.

Nothing is computed while counting: modules run on PyTorch's meta device, ONNX graphs have their
shapes inferred.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from latlut.operators.building import cost
from latlut.operators.onnx_files import OnnxWorkload
from latlut.search.networks.baselines import baseline_on_meta
from latlut.search.networks.network import SegmentationNetwork
from latlut.spaces import Architecture

DEFINITION = (
    "parameters: all that training changes, of the deployed network; MACs: multiply-accumulates of "
    "convolutions and matrix products for one image, norms, activations, pooling and interpolation "
    "not counted"
)


@dataclass(frozen=True)
class NetworkCost:
    """Counts of one network at one image size.

    Args:
        parameters: of the deployed network.
        training_parameters: with the heads that only training uses; None for an ONNX file.
        macs: multiply-accumulates for one image; None where an ONNX graph hides its shapes.
    """

    parameters: int
    training_parameters: int | None
    macs: int | None


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
    """Counts of an ONNX graph: what it holds as float weights, what its nodes multiply.

    A graph whose norms are folded into its convolutions has a little fewer parameters than the
    network it was exported from. MACs are None where a shape cannot be inferred.
    """
    import onnx

    model = onnx.load_from_string(workload.content)
    not_weights = {
        name for node in model.graph.node if node.op_type == "Resize" for name in node.input[1:]
    }
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    small = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    parameters = sum(
        math.prod(item.dims)
        for item in model.graph.initializer
        if item.data_type in floats + small and item.dims and item.name not in not_weights
    )
    macs = _graph_macs(model)
    if macs is None:
        macs = _graph_macs(onnx.load_from_string(_folded(workload.content)))
    return NetworkCost(parameters, None, macs)


def _graph_macs(model: Any) -> int | None:
    """Multiply-accumulates of all nodes; None where a shape is not known."""
    import onnx

    # sizes that a graph computes, as those of a resize, are known only by propagating values
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = _shapes(graph)
    counts = [_node_macs(node, shapes) for node in graph.node]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _folded(content: bytes) -> bytes:
    """The graph with all that does not depend on its input computed, by ONNX Runtime.

    Shape inference knows the sizes then that a graph works out while it runs. A graph that ONNX
    Runtime does not load is given back as it is.
    """
    import tempfile
    from pathlib import Path

    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            return path.read_bytes()
        except Exception:  # ONNX Runtime's own exceptions have no common base
            return content


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

Shape = tuple[int, ...]


def _shapes(graph: Any) -> dict[str, Shape]:
    """Name -> shape of every tensor whose shape is known."""
    found = {item.name: tuple(item.dims) for item in graph.initializer}
    for item in [*graph.input, *graph.output, *graph.value_info]:
        dims = item.type.tensor_type.shape.dim
        if all(dim.dim_value > 0 for dim in dims):
            found[item.name] = tuple(dim.dim_value for dim in dims)
    for node in graph.node:  # the exporter keeps some weights as constants
        if node.op_type == "Constant":
            for part in node.attribute:
                if part.name == "value":
                    found[node.output[0]] = tuple(part.t.dims)
    return found


def _node_macs(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    """Multiply-accumulates of one node; None where its shapes are not known."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    image, weight = (shapes.get(name) for name in node.input[:2])
    output = shapes.get(node.output[0])
    if node.op_type == "Conv" and weight and output:  # weight: (out, in / groups, *kernel)
        return math.prod(output) * math.prod(weight[1:])
    if not image or not weight or not output:
        return None
    if node.op_type == "ConvTranspose":  # weight: (in, out / groups, *kernel)
        return math.prod(image) * math.prod(weight[1:])
    is_transposed = any(part.name == "transA" and part.i for part in node.attribute)
    return math.prod(output) * (image[0] if is_transposed else image[-1])
