"""Which layers a TensorRT engine has, from which nodes of the graph, and how long each takes.

Two sources of TensorRT's are joined by the layer's name: the engine inspector (what it is made of)
and the profiler (how long it took).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from statistics import median
from types import ModuleType
from typing import Any

from latlut.engines.base import LayerTime
from latlut.errors import EngineError

#: In a layer's metadata the ONNX parser leaves the names of the nodes that it came from.
#: Source: TensorRT developer guide, "Engine Inspector" and "Layer Metadata".
_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


def recorder_of(module: ModuleType) -> Any:
    """A profiler of the module's that keeps layer times by run: ``runs`` of name -> ms."""

    class LayerRecorder(module.IProfiler):  # type: ignore[name-defined]
        def __init__(self) -> None:
            module.IProfiler.__init__(self)
            self.runs: list[dict[str, float]] = []

        def start(self) -> None:
            """What is reported from here on belongs to a new run."""
            self.runs.append({})

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            run = self.runs[-1]
            run[layer_name] = run.get(layer_name, 0.0) + ms

    return LayerRecorder()


def layer_times(described: str, runs: Sequence[Mapping[str, float]]) -> tuple[LayerTime, ...]:
    """The layers in order of execution, each with its median over the runs.

    Args:
        described: the inspector's JSON of the engine, built with detailed verbosity.
        runs: one mapping per profiled run, layer name -> milliseconds.

    Raises:
        EngineError: no run was reported, or the inspector's answer cannot be read.
    """
    if not runs or not runs[0]:
        raise EngineError("the profiler reported no layers")
    known = {str(layer["Name"]): layer for layer in _described_layers(described)}
    found = []
    for name in runs[0]:
        layer = known.get(name, {})
        nodes = dict.fromkeys(_NODE.findall(str(layer.get("Metadata", ""))))
        found.append(
            LayerTime(
                name,
                str(layer.get("LayerType", "unknown")),
                median(run[name] for run in runs if name in run),
                tuple(nodes),
                str(layer.get("TacticName", "") or layer.get("TacticValue", "")),
            )
        )
    return tuple(found)


def _described_layers(described: str) -> list[dict[str, Any]]:
    """The inspector's layers; those of an engine built with layer names only have just a name."""
    try:
        layers = json.loads(described)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the engine inspector's answer cannot be read: {error!r}") from error
    return [item if isinstance(item, dict) else {"Name": item} for item in layers]
