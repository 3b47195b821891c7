"""PyTorch's per-layer view: the operators that each submodule calls, from torch.profiler.

A copy of the module is run under the profiler with every submodule's call marked by its path, so
that each operator is known by the submodule that calls it. What PyTorch calls to do one operator's
work (``aten::_convolution`` below ``aten::conv2d``) is part of it. On a GPU the times are those of
the kernels.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from latlut.engines.base import LayerTime
from latlut.errors import EngineError

_MARK = "latlut:"
_RUN = "latlut run"


def module_layers(
    module: nn.Module, inputs: Sequence[torch.Tensor], runs: int
) -> tuple[LayerTime, ...]:
    """The operators of one call of ``module``, in order, each with its median over ``runs``.

    Args:
        module: in evaluation mode, on its device; it is copied, not changed.
        inputs: what it is called with.
        runs: profiled calls, at least 1.

    Raises:
        EngineError: the calls did not run the same operators every time.
    """
    marked = copy.deepcopy(module)
    for path, part in marked.named_modules():
        _mark(part, _MARK + path)
    is_gpu = inputs[0].device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]
    # The profiler's library announces itself on stderr otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with torch.inference_mode():
        for _ in range(3):
            marked(*inputs)
        with profile(activities=activities) as record:
            for _ in range(runs):
                with record_function(_RUN):
                    marked(*inputs)
            if is_gpu:
                torch.cuda.synchronize(inputs[0].device)
    on_host = [event for event in record.events() or () if event.device_type.name == "CPU"]
    events = sorted(on_host, key=lambda event: event.time_range.start)
    calls: list[list[tuple[str, str, float]]] = []
    for event in events:
        if event.name == _RUN:
            calls.append([])
        elif (path := _caller(event)) is not None and calls:
            time_us = event.device_time_total if is_gpu else event.cpu_time_total
            calls[-1].append((path, event.name, time_us))
    return _medians(calls)


def _mark(part: nn.Module, label: str) -> None:
    """Put every call of ``part`` inside a profiler range called ``label``."""
    ranges: list[Any] = []

    def enter(*_: object) -> None:
        ranges.append(record_function(label))
        ranges[-1].__enter__()

    def leave(*_: object) -> None:
        ranges.pop().__exit__(None, None, None)

    part.register_forward_pre_hook(enter)
    part.register_forward_hook(leave)


def _caller(event: Any) -> str | None:
    """Path of the submodule that called this operator itself; None where another operator did."""
    parent = event.cpu_parent
    if event.name.startswith(_MARK) or parent is None or not parent.name.startswith(_MARK):
        return None
    return str(parent.name[len(_MARK) :])


def _medians(calls: Sequence[Sequence[tuple[str, str, float]]]) -> tuple[LayerTime, ...]:
    if any([item[:2] for item in call] != [item[:2] for item in calls[0]] for call in calls):
        raise EngineError("PyTorch ran other operators in one profiled run than in another")
    layers = []
    seen: Counter[str] = Counter()
    for position, (path, kind, _) in enumerate(calls[0]):
        label = f"{path}/{kind.removeprefix('aten::')}"
        name = f"{label}_{seen[label]}" if seen[label] else label
        seen[label] += 1
        time_us = median(call[position][2] for call in calls)
        layers.append(LayerTime(name, kind, time_us / 1e3, (path,) if path else ()))
    return tuple(layers)
