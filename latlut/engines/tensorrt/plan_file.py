"""A network as a TensorRT plan: the serialised engine that runs on the GPU it was built for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latlut.engines.tensorrt.engine import TensorRtEngine
from latlut.files.writing import written_whole
from latlut.operators.workloads import Workload

if TYPE_CHECKING:
    from torch import nn


def write_plan(
    engine: TensorRtEngine, module: nn.Module, input_shape: tuple[int, int, int, int], path: Path
) -> tuple[float, tuple[int, ...]]:
    """Build the module's engine, write it, load the file again and compare it with PyTorch.

    Args:
        engine: TensorRT or TensorRT-RTX on the GPU that the plan is for, in the plan's precision.
        module: in evaluation mode, takes one image.
        input_shape: (B, 3, H, W), fixed in the plan.
        path: of the plan. It is there afterwards only if it agrees with PyTorch.

    Returns:
        The largest difference from PyTorch, see ``Engine.check_parity``; the output's shape.

    Raises:
        EngineError: the module cannot be exported, built or loaded.
        ParityError: the loaded plan computes something else than the module.
        WriteError: the file cannot be written.
    """
    workload = Workload.from_module(module, [input_shape], path.stem)
    graph = workload.onnx_bytes()
    with engine.memory.current():  # of several GPUs the engine's own
        plan = bytes(engine.built(workload, graph, build=0).serialize())
    with written_whole(path) as temporary:
        temporary.write_bytes(plan)
        with engine.load_plan(workload, temporary.read_bytes()) as session:
            difference = engine.check_parity(session)
            return difference, session.outputs()[0].shape
