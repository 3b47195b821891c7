"""OpenVINO's per-layer view: its performance counters, and what its runtime model was made of.

The CPU plugin counts each layer's time as a running average in whole microseconds since the
model was compiled, and calls a layer that took less than one "not run". Means over runs are
recovered from the averages before and after them, in several freshly compiled models, of which
the median is taken: one interruption would otherwise stay in the average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from latlut.engines.base import LayerTime

_BLOCKS = 3
_WARMUP_RUNS = 3
#: Runtime layers that hold data and do nothing.
_DATA = ("Const", "Input", "Output")
#: What a layer has for a kernel where it is part of another or changes no byte.
_NO_KERNEL = ("unknown", "undef")


def compiled_layers(
    compile_model: Callable[[], Any], arrays: Sequence[np.ndarray], runs: int
) -> tuple[LayerTime, ...]:
    """The layers that OpenVINO executes, in the order of its runtime model.

    Args:
        compile_model: gives an ``openvino.CompiledModel`` with ``PERF_COUNT``, a new one each time.
        arrays: the inputs, in order.
        runs: profiled runs, at least 1; rounded up to whole blocks.
    """
    import openvino

    per_block = -(-runs // _BLOCKS)
    times_ms: dict[str, list[float]] = defaultdict(list)
    for _ in range(_BLOCKS):
        compiled = compile_model()
        request = compiled.create_infer_request()
        for index, array in enumerate(arrays):
            request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
        before_ms = _totals_ms(request, _WARMUP_RUNS, 0)
        after_ms = _totals_ms(request, per_block, _WARMUP_RUNS)
        for name, total_ms in after_ms.items():
            times_ms[name].append(max(0.0, total_ms - before_ms[name]) / per_block)
    layers = []
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = operation.get_rt_info()
        name, kernel = operation.get_friendly_name(), _text(info, "primitiveType")
        has_work = not kernel.startswith(_NO_KERNEL) or any(times_ms.get(name, ()))
        kind = _text(info, "layerType")
        if kind in _DATA or not has_work or name not in times_ms:
            continue
        sources = _text(info, "originalLayersNames").split(",")
        layers.append(
            LayerTime(
                name,
                kind,
                median(times_ms[name]),
                # What OpenVINO splits a convolution with bias into is one node of the graph.
                tuple(dict.fromkeys(s.removesuffix("/WithoutBiases") for s in sources if s)),
                f"{kernel} {_text(info, 'outputLayouts')}",
            )
        )
    return tuple(layers)


def _totals_ms(request: Any, runs: int, runs_before: int) -> dict[str, float]:
    """Layer -> milliseconds since the model was compiled, after ``runs`` more runs."""
    for _ in range(runs):
        request.infer()
    count = runs_before + runs
    return {
        layer.node_name: count * 1e3 * layer.real_time.total_seconds()
        for layer in request.profiling_info
    }


def _text(info: Any, key: str) -> str:
    """A runtime attribute of a layer as text, "" where it has none."""
    if key not in info:
        return ""
    found = info[key]
    return str(getattr(found, "value", found))
