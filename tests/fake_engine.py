"""An engine with scripted latencies for unit tests: no clock, no waiting, repeatable noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from latlut.engines.base import Availability, Device, Engine, Session
from latlut.errors import EngineError
from latlut.operators.workloads import Workload

#: What most scripted sweeps measure.
OPS = (
    "conv 8->8 stride 1 at 16x16",
    "conv 8->16 stride 2 at 16x16",
    "conv_2x 8->8 stride 1 at 16x16",
    "zoomed_conv 8->8 stride 1 at 16x16",
    "upsample 4->4 stride 1 at 8x8 out_size=16x16",
)


def work_ns(workload: Workload) -> float:
    """A latency that grows with what the op specs compute, nanoseconds."""
    total = 0.0
    for spec in workload.specs:
        channels, height, width = spec.output
        total += 20_000 + 0.05 * spec.in_channels * channels * height * width / spec.stride
    return total


class FakeSession(Session):
    """Computes with PyTorch, but its durations come from the engine's script."""

    def _open(self, module: nn.Module | None, graph: bytes | None) -> None:
        engine = self.engine
        assert isinstance(engine, FakeEngine)
        if self.workload.name in engine.rejects:
            raise EngineError(f"{self.workload.name}: rejected by the script")
        self._module = self.workload.build() if module is None else module
        engine.opened.append(self.workload.name)
        if isinstance(engine, TacticsEngine):
            engine.builds.append((self.workload.name, self.build))

    def _set_inputs(self, arrays: list[np.ndarray]) -> None:
        self._inputs = [torch.from_numpy(array) for array in arrays]

    def _run(self) -> None:
        with torch.inference_mode():
            self._result = self._module(*self._inputs)

    def _sample_ns(self, count: int, runs: int) -> np.ndarray:
        engine = self.engine
        assert isinstance(engine, FakeEngine)
        engine.runs += count * runs
        if engine.on_sample is not None:
            engine.on_sample(self.workload, engine.runs)
        noise = engine.generator.lognormal(0.0, engine.noise, count)
        level = engine.speed(engine.runs) * engine.work_ns(self.workload)
        if isinstance(engine, TacticsEngine):
            level *= engine.build_speed(self.workload.name, self.build)
        return np.maximum(1, np.rint(level * noise)).astype(np.int64)

    def _outputs(self) -> list[np.ndarray]:
        wrong = 10.0 if self.workload.name in self.engine.wrong else 0.0  # type: ignore[attr-defined]
        return [self._result.numpy() + wrong]

    def _close(self) -> None:
        self.engine.closed += 1  # type: ignore[attr-defined]


class FakeEngine(Engine):
    """Scripted: ``speed(runs so far)`` multiplies every latency, ``noise`` is its log spread.

    ``work_ns`` says what a workload takes before both.
    """

    name = "fake"
    title = "Fake engine"
    reads_onnx = False
    session_type = FakeSession

    def __init__(self, *, noise: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        self.generator = np.random.default_rng(seed)
        self.noise = noise
        self.speed: Callable[[int], float] = lambda runs: 1.0
        self.work_ns: Callable[[Workload], float] = work_ns
        self.on_sample: Callable[[Workload, int], None] | None = None
        self.rejects: set[str] = set()
        self.wrong: set[str] = set()
        self.opened: list[str] = []
        self.closed = 0
        self.runs = 0

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "1.0")

    def _find_device(self, name: str) -> Device:
        # Not "cpu": scripted latencies do not depend on what else is running.
        return Device("scripted", "Fake CPU")


class TacticsEngine(FakeEngine):
    """Scripted: build b of a workload is ``build_speed(name, b)`` times as slow as usual."""

    name = "fake-tactics"
    title = "Fake engine with tactics"
    chooses_tactics = True

    def __init__(self, *, noise: float = 0.01, seed: int = 0) -> None:
        super().__init__(noise=noise, seed=seed)
        self.build_speed: Callable[[str, int], float] = lambda name, build: 1.0
        self.builds: list[tuple[str, int]] = []
