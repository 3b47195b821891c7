"""Shapes that ONNX does not infer: ONNX Runtime runs the graph once to see them."""

from __future__ import annotations

import threading
from functools import cache, partial

from latlut.operators.graph_view import Scope, inlined
from latlut.operators.onnx_files import OnnxWorkload
from latlut.operators.onnx_weights import runtime_session

#: Seconds that a graph may run to show its shapes.
_RUN_S = 5.0
#: Bytes that it may take for it.
_RUN_BYTES = 768 << 20
#: Kinds whose outputs have sizes that depend on values.
_SIZED_BY_VALUES = {"NonZero", "Unique", "Compress", "NonMaxSuppression", "StringSplit"}


def learn_shapes(scope: Scope, workload: OnnxWorkload) -> None:
    """Add the shapes that ONNX Runtime's tensors have when it runs the graph as it is.

    Inference knows no operators of other domains. Sizes that depend on values stay unknown: those
    behind nodes that make them (``_SIZED_BY_VALUES``), and those that differ between two inputs. A
    graph that ONNX Runtime does not run adds nothing.
    """
    import onnx
    import onnxruntime

    unsure: set[str] = set()
    for node in scope.nodes:
        if node.op_type in _SIZED_BY_VALUES or unsure & {*node.input}:
            unsure.update(node.output)
    wanted = [
        name
        for node in scope.nodes
        for name in node.output
        if name and name not in scope.shapes and name in scope.varying - unsure
    ]
    if not wanted:
        return
    model = onnx.ModelProto()
    model.CopyFrom(inlined(workload.model))
    known = {item.name for item in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in wanted if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    # What a graph makes may be larger than the memory, and a loop in it may never end.
    _register_allocator()
    options.add_session_config_entry("session.use_env_allocators", "1")
    stopping = onnxruntime.RunOptions()
    timer = threading.Timer(_RUN_S, partial(setattr, stopping, "terminate", True))
    timer.start()
    try:
        content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
        session = runtime_session(content, workload.weights_folder, options, providers)
        first, second = (
            session.run(wanted, dict(zip(workload.names, arrays, strict=True)), stopping)
            for arrays in (workload.random_inputs(0), workload.random_inputs(1))
        )
    except Exception:  # ONNX Runtime's own exceptions have no common base
        return
    finally:
        timer.cancel()
    for name, one, other in zip(wanted, first, second, strict=True):
        shapes = {getattr(one, "shape", None), getattr(other, "shape", None)}
        if len(shapes) == 1 and None not in shapes:
            scope.shapes[name] = tuple(one.shape)
            scope.types.setdefault(name, onnx.helper.np_dtype_to_tensor_dtype(one.dtype))


@cache
def _register_allocator() -> None:
    """Make the memory of all sessions that share it bounded; those that are timed do not."""
    import onnxruntime

    where = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    bounds = onnxruntime.OrtArenaCfg({"max_mem": _RUN_BYTES})
    onnxruntime.create_and_register_allocator(where, bounds)
