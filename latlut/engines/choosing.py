"""From what was asked for to a target and an engine that works here, or a refusal.

Nothing is ever swapped: what was named and is not here is refused, with what can be done.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from latlut.engines import engine_class
from latlut.errors import EngineError, LatlutError, UnknownNameError
from latlut.machine.gpus import detect_gpus, gpu_absence_reason, resolve_gpu, target_of
from latlut.machine.targets import Target, cpu_target, load_target

if TYPE_CHECKING:
    from latlut.engines.base import Engine


class HasDevice(Protocol):
    """What a table's identity says of the device and the engine, see ``table.identity``."""

    @property
    def target(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def options(self) -> tuple[tuple[str, str], ...]: ...


class DeviceChoice(NamedTuple):
    """A device, an engine, and how it runs."""

    gpu: str | None
    """A GPU's target by name, or a file that describes one; None where none was named."""
    cpu: bool
    """Whether the CPU was named."""
    engine: str | None
    """An engine's name; None for the best that works."""
    precision: str
    """Arithmetic of the engine."""
    threads: int
    """Of one inference on a CPU."""
    engine_options: tuple[tuple[str, str], ...] = ()
    """The engine's own settings, as (name, value)."""

    @classmethod
    def of_identity(cls, own: HasDevice) -> DeviceChoice:
        """What a table was measured with."""
        is_cpu = own.target == "cpu"
        gpu = None if is_cpu else own.target
        return cls(gpu, is_cpu, own.engine, own.precision, own.threads, _options_of(own))

    def completed(self, own: HasDevice, left_open: Iterable[str]) -> DeviceChoice:
        """The choice with what it leaves open taken from a table's identity.

        Args:
            own: the identity.
            left_open: which of ``precision``, ``threads`` and ``engine_options`` were not named;
                device and engine show it themselves.
        """
        table = DeviceChoice.of_identity(own)
        device = self if self.gpu or self.cpu else table
        return self._replace(
            gpu=device.gpu,
            cpu=device.cpu,
            engine=self.engine or table.engine,
            **{name: getattr(table, name) for name in left_open},
        )


def _options_of(own: HasDevice) -> tuple[tuple[str, str], ...]:
    """A table's options, with what its identity leaves out where a GPU has another default."""
    known = dict(own.options)
    with suppress(UnknownNameError):  # a table from elsewhere
        for name, option in engine_class(own.engine).option_choices.items():
            if own.target != "cpu" and option.on_gpu:
                known.setdefault(name, option.choices[0])
    return tuple(known.items())


def choose_engine(choice: DeviceChoice) -> tuple[Target, Engine]:
    """The target and the engine that the options mean, or a refusal; nothing is ever swapped.

    With no choice made: TensorRT, TensorRT-RTX, then PyTorch on the first GPU, then ONNX Runtime
    on the CPU, whichever works here. ``--gpu NAME`` alone means TensorRT. An engine that runs on
    GPUs only takes the first GPU where none is named.

    Raises:
        LatlutError: contradicting options, hardware or an engine that is not here.
    """
    gpu, cpu, engine, precision, threads, pairs = choice

    def started(name: str, device: str) -> Engine:
        return engine_class(name)(threads, precision, device, dict(pairs))

    if gpu and cpu:
        raise LatlutError("--gpu and --cpu exclude each other: choose one")
    if gpu:
        found = resolve_gpu(gpu, detect_gpus())
        try:
            chosen = started(engine or "tensorrt", found.uuid)
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
        chosen = started(engine, gpus[0].uuid if gpus else "cuda:0")
        if not gpus:
            raise EngineError(f"{title}: {gpu_absence_reason()}")
        return target_of(gpus[0]), chosen
    first_gpu = [] if cpu or engine else detect_gpus()[:1]
    for item in first_gpu:
        for name in ("tensorrt", "tensorrt-rtx", "pytorch"):
            with suppress(EngineError):
                chosen = started(name, item.uuid)
                return target_of(item), chosen
    chosen = started(engine or "onnxruntime", "cpu")
    return cpu_target(threads), chosen
