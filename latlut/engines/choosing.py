"""From what was asked for to a target and an engine that works here, or a refusal.

Nothing is ever swapped: what was named and is not here is refused, with what can be done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latlut.errors import EngineError, LatlutError

if TYPE_CHECKING:
    from latlut.engines.base import Engine
    from latlut.machine.targets import Target


class DeviceChoice(NamedTuple):
    """What the device options say."""

    gpu: str | None
    cpu: bool
    engine: str | None
    precision: str
    threads: int
    engine_options: tuple[tuple[str, str], ...] = ()


def choose_engine(choice: DeviceChoice) -> tuple[Target, Engine]:
    """The target and the engine that the options mean, or a refusal; nothing is ever swapped.

    With no choice made: TensorRT, TensorRT-RTX, then PyTorch on the first GPU, then ONNX Runtime
    on the CPU, whichever works here. ``--gpu NAME`` alone means TensorRT. An engine that runs on
    GPUs only takes the first GPU where none is named.

    Raises:
        LatlutError: contradicting options, hardware or an engine that is not here.
    """
    from latlut.engines import engine_class
    from latlut.machine.gpus import detect_gpus, gpu_absence_reason, resolve_gpu, target_of
    from latlut.machine.targets import cpu_target, load_target

    gpu, cpu, engine, precision, threads, pairs = choice
    options = dict(pairs)
    if gpu and cpu:
        raise LatlutError("--gpu and --cpu exclude each other: choose one")
    if gpu:
        found = resolve_gpu(gpu, detect_gpus())
        name = engine or "tensorrt"
        try:
            chosen = engine_class(name)(threads, precision, found.uuid, options)
        except EngineError as error:
            if engine:
                raise
            raise EngineError(f"--gpu {gpu} alone means TensorRT. {error}") from error
        # A target's own file has figures that the detected name alone does not lead to.
        return (load_target(gpu) if Path(gpu).suffix else target_of(found)), chosen
    if engine and "cpu" not in engine_class(engine).device_kinds:
        title = engine_class(engine).title
        if cpu:
            raise LatlutError(f"{title} runs on GPUs only: leave --cpu or --engine out")
        gpus = detect_gpus()
        # Where there is no GPU the engine itself refuses, and says what is missing.
        chosen = engine_class(engine)(
            threads, precision, gpus[0].uuid if gpus else "cuda:0", options
        )
        if not gpus:
            raise EngineError(f"{title}: {gpu_absence_reason()}")
        return target_of(gpus[0]), chosen
    if not cpu and not engine:
        gpus = detect_gpus()
        for name in ("tensorrt", "tensorrt-rtx", "pytorch"):
            for item in gpus[:1]:
                try:
                    chosen = engine_class(name)(threads, precision, item.uuid, options)
                except EngineError:
                    continue
                return target_of(item), chosen
    chosen = engine_class(engine or "onnxruntime")(threads, precision, "cpu", options)
    return cpu_target(threads), chosen
