"""PyTorch modules as ONNX models. Exporting takes about 0.1 s an operator."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from latlut.errors import EngineError, reason_of

OPSET = 17


def export_onnx(
    module: nn.Module,
    inputs: Sequence[np.ndarray],
    opset: int = OPSET,
    is_batch_dynamic: bool = False,
) -> bytes:
    """The module as a serialised ONNX model with batch norms folded, inputs ``in0``, ``in1``, ...

    Args:
        module: in evaluation mode; its first output is called ``out``. Outputs in tuples, lists
            and dicts become outputs of the graph, in their order.
        inputs: one array per input, for its shape alone.
        opset: version of ONNX's operator set.
        is_batch_dynamic: leave the first side of inputs and output open, under the name ``batch``.

    Raises:
        EngineError: the module cannot be exported; the exporter's message is kept.
    """
    buffer = io.BytesIO()
    names = [f"in{index}" for index in range(len(inputs))]
    open_sides = {name: {0: "batch"} for name in [*names, "out"]} if is_batch_dynamic else None
    # TorchScript takes no hooks, and returns no dicts that it would need them for.
    is_script = isinstance(module, torch.jit.ScriptModule)
    flattening = None if is_script else module.register_forward_hook(_flat)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # The TorchScript exporter takes 0.1 s an operator, the dynamo one 0.7 to 1.1 s.
            torch.onnx.export(
                module,
                tuple(torch.from_numpy(array) for array in inputs),
                buffer,  # type: ignore[arg-type]  # a file object, as the exporter without dynamo takes
                dynamo=False,
                opset_version=opset,
                input_names=names,
                output_names=["out"],
                dynamic_axes=open_sides,
            )
    except (Exception, SystemExit) as error:
        raise EngineError(
            f"PyTorch cannot export this to ONNX opset {opset}: {reason_of(error)}"
        ) from error
    finally:
        if flattening is not None:
            flattening.remove()
    return _with_own_constants(buffer.getvalue())


def _with_own_constants(graph: bytes) -> bytes:
    """The model without constants that several nodes share by way of ``Identity``.

    PyTorch's exporter keeps equal parameters once. Those of an untrained network are equal, those
    of a trained one are not, and engines treat what is shared otherwise: OpenVINO runs a PRelu
    with a shared slope apart from its convolution, and an untrained ENet takes 1.5 times as long.
    """
    import onnx

    model = onnx.load_from_string(graph)
    nodes, kept = model.graph.node, {item.name: item for item in model.graph.initializer}
    outputs = {item.name for item in model.graph.output}
    for place in reversed(range(len(nodes))):
        node = nodes[place]
        is_copy = node.op_type == "Identity" and node.input[0] in kept
        if is_copy and node.output[0] not in outputs:
            own = model.graph.initializer.add()
            own.CopyFrom(kept[node.input[0]])
            own.name = node.output[0]
            del nodes[place]
    return model.SerializeToString()


def tensors_of_output(found: Any) -> list[torch.Tensor]:
    """What a module returned as tensors, in order: tuples, lists and dicts are walked through.

    Raises:
        EngineError: there is something else in it than tensors and None.
    """
    if isinstance(found, torch.Tensor):
        return [found]
    if isinstance(found, Mapping):
        found = list(found.values())
    if isinstance(found, (tuple, list)):
        return [item for part in found if part is not None for item in tensors_of_output(part)]
    raise EngineError(
        f"the module returns {type(found).__name__}, latlut takes tensors, and tuples, lists and "
        "dicts of them"
    )


def _flat(_module: nn.Module, _inputs: Any, found: Any) -> Any:
    """Forward hook: the exporter takes no dicts."""
    return found if isinstance(found, torch.Tensor) else tuple(tensors_of_output(found))
