"""GPU time by events, the host's share of it, and CUDA graphs, on a GPU by script."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from scripted_gpu import ScriptedGpu

from latlut.engines.cuda import driver
from latlut.engines.cuda.clock import GpuClock, Timed
from latlut.engines.cuda.driver import CapturedGraph
from latlut.engines.cuda.graphs import ENQUEUED, REPLAYED, captured
from latlut.engines.resolution import EVENT_TICK_S, EXACT, Resolution
from latlut.errors import DeviceLostError, EngineError
from latlut.stats.machine_speed import is_host_bound


def _timed(gpu: ScriptedGpu, count: int = 200, runs: int = 1, flush_ns: float = 0.0) -> Timed:
    flush = (lambda: gpu.work(flush_ns, 1_000)) if flush_ns else None
    return GpuClock(gpu, flush, gpu.clock_ns).time(gpu.launch, count, runs)


@pytest.mark.parametrize("runs", [1, 7])
def test_a_gpu_that_is_slower_than_its_host_reads_as_itself(runs: int) -> None:
    found = _timed(ScriptedGpu(enqueue_ns=4_000, kernel_ns=50_000), runs=runs)
    assert np.median(found.durations_ns) == 50_000
    assert found.host_share == pytest.approx(0.08)
    assert not is_host_bound(found.host_share)


@pytest.mark.parametrize("runs", [1, 10])
def test_a_host_that_is_slower_than_its_gpu_is_seen(runs: int) -> None:
    found = _timed(ScriptedGpu(enqueue_ns=25_000, kernel_ns=3_000), runs=runs)
    assert np.median(found.durations_ns) >= 25_000
    assert found.host_share > 0.8
    assert is_host_bound(found.host_share)


def test_a_full_queue_is_not_taken_for_a_slow_host() -> None:
    """The host waits from the ninth launch on; that is no enqueuing."""
    found = _timed(ScriptedGpu(enqueue_ns=4_000, kernel_ns=900_000, queue=8))
    assert found.host_share < 0.01


def test_a_flush_does_not_hide_the_enqueuing() -> None:
    """While the GPU flushes, the host runs ahead: cold would look faster than hot."""
    hot = _timed(ScriptedGpu(enqueue_ns=25_000, kernel_ns=3_000))
    cold = _timed(ScriptedGpu(enqueue_ns=25_000, kernel_ns=3_000), flush_ns=80_000)
    assert np.median(cold.durations_ns) == pytest.approx(25_000)
    assert np.median(cold.durations_ns) >= 0.85 * np.median(hot.durations_ns)
    assert cold.host_share > 0.8
    assert _timed(ScriptedGpu(4_000, 50_000), flush_ns=80_000).host_share == pytest.approx(0.08)


def test_several_runs_share_a_reading_so_that_the_tick_is_small() -> None:
    def spread(runs: int) -> float:
        gpu = ScriptedGpu(enqueue_ns=100, kernel_ns=3_170, tick_ns=500)
        return float(np.ptp(_timed(gpu, runs=runs).durations_ns[1:]))

    runs = Resolution(EVENT_TICK_S).runs_per_reading(3.17e-6)
    assert runs == 16
    assert spread(1) >= 499
    assert spread(runs) <= 0.011 * 3_170


@pytest.mark.parametrize(("run_us", "runs"), [(0.5, 100), (5, 10), (49, 2), (50, 1), (5000, 1)])
def test_how_many_runs_share_a_reading(run_us: float, runs: int) -> None:
    assert Resolution(EVENT_TICK_S).runs_per_reading(run_us / 1e6) == runs
    assert EXACT.runs_per_reading(run_us / 1e6) == 1
    alone = Resolution(EVENT_TICK_S, can_average=False)
    assert (alone.runs_per_reading(run_us / 1e6), alone.error_s) == (1, EVENT_TICK_S)


def test_after_a_flush_no_two_runs_share_a_reading() -> None:
    gpu = ScriptedGpu(1, 1)
    assert GpuClock(gpu).resolution == Resolution(EVENT_TICK_S)
    assert not GpuClock(gpu, lambda: None).resolution.can_average


# ---- the option cuda_graph -----------------------------------------------------------------


def _failing(text: str) -> Callable[[], object]:
    def capture() -> object:
        raise EngineError(text)

    return capture


def test_the_option_says_what_is_captured() -> None:
    def never() -> None:
        raise AssertionError

    graph = object()
    assert captured("off", never, never) == (None, ENQUEUED)
    for choice in ("on", "auto"):
        assert captured(choice, lambda: graph, never) == (graph, REPLAYED)


def test_auto_falls_back_once_the_stream_is_proven() -> None:
    recovered: list[int] = []
    found = captured("auto", _failing("operation  not\npermitted"), lambda: recovered.append(1))
    assert found == (None, f"{ENQUEUED} (not captured: operation not permitted)")
    assert recovered == [1]
    with pytest.raises(EngineError, match="the stream is broken"):
        captured("auto", _failing("no"), _failing("the stream is broken"))  # type: ignore[arg-type]


def test_on_is_refused_where_nothing_can_be_captured() -> None:
    with pytest.raises(EngineError, match=r"(?s)CUDA graph: no such thing.*cuda_graph=auto"):
        captured("on", _failing("no such thing"), lambda: None)


@pytest.mark.parametrize("choice", ["on", "auto"])
def test_a_lost_gpu_is_no_failed_capture(choice: str) -> None:
    with pytest.raises(DeviceLostError):
        captured(choice, _failing("unspecified launch failure"), lambda: None)


# ---- capturing through the driver ----------------------------------------------------------


class ScriptedDriver:
    """The driver's capture calls; ``bad`` are the codes of functions that fail."""

    def __init__(self, **bad: int) -> None:
        self.bad, self.called, self.is_capturing = bad, list[str](), False

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)

        def function(*arguments: object) -> int:
            self.called.append(name)
            if name.startswith("cuStreamBeginCapture"):
                self.is_capturing = True
            if name == "cuStreamEndCapture":
                self.is_capturing = False  # whatever it returns
                arguments[1]._obj.value = 7  # type: ignore[attr-defined]
            if name == "cuGetErrorString":
                arguments[1]._obj.value = b"operation failed"  # type: ignore[attr-defined]
            return self.bad.get(name, 0)

        return function


def _capture(monkeypatch: pytest.MonkeyPatch, script: ScriptedDriver, enqueue=lambda: None):
    monkeypatch.setattr(driver, "_library", lambda: script)
    return CapturedGraph(ctypes.addressof(ctypes.c_int()), enqueue)


@pytest.mark.parametrize(
    ("bad", "is_enqueue_failing"),
    [
        ({}, True),
        ({"cuStreamEndCapture": 901}, True),
        ({"cuStreamEndCapture": 901}, False),
        ({"cuGraphInstantiateWithFlags": 1}, False),
    ],
)
def test_a_failed_capture_leaves_the_stream_usable(
    monkeypatch: pytest.MonkeyPatch, bad: dict[str, int], is_enqueue_failing: bool
) -> None:
    def enqueue() -> None:
        if is_enqueue_failing:
            raise RuntimeError("cannot be captured")

    script = ScriptedDriver(**bad)
    with pytest.raises((EngineError, RuntimeError)):
        _capture(monkeypatch, script, enqueue)
    assert "cuStreamEndCapture" in script.called
    assert not script.is_capturing
    after = ScriptedDriver()
    _capture(monkeypatch, after).launch()
    assert after.called[-1] == "cuGraphLaunch"


# ---- TensorRT's sessions -------------------------------------------------------------------


class ScriptedContext(SimpleNamespace):
    """An execution context that runs on nothing; ``is_capturable`` of TensorRT-RTX."""

    def execute_async_v3(self, stream: int) -> bool:
        self.runs += 1
        return True


def _tensorrt_session(monkeypatch: pytest.MonkeyPatch, choice: str, is_capturable: bool | None):
    from latlut.engines.tensorrt import session as module
    from latlut.operators.workloads import Workload
    from latlut.opspec import OpSpec

    graphs: list[str] = []
    graph = SimpleNamespace(
        launch=lambda: graphs.append("launch"), close=lambda: graphs.append("close")
    )
    monkeypatch.setattr(module, "CapturedGraph", lambda stream, enqueue: graph)
    engine = SimpleNamespace(options={"cuda_graph": choice}, title="TensorRT-RTX")
    workload = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))
    session = module.TensorRtSession(engine, workload)  # type: ignore[arg-type]
    session._memory = SimpleNamespace(stream=3, synchronize=lambda: None)
    session._context = ScriptedContext(runs=0)
    if is_capturable is not None:
        session._context.is_stream_capturable = lambda stream: stream == 3 and is_capturable
    return session, graphs


@pytest.mark.parametrize("is_capturable", [None, True])
def test_tensorrt_replays_what_can_be_captured(
    monkeypatch: pytest.MonkeyPatch, is_capturable: bool | None
) -> None:
    session, graphs = _tensorrt_session(monkeypatch, "auto", is_capturable)
    session._prepare()
    assert session.launch == REPLAYED
    session._launch()
    assert graphs == ["launch", "launch"]


def test_tensorrt_rtx_is_asked_before_anything_is_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, graphs = _tensorrt_session(monkeypatch, "auto", False)
    session._prepare()
    assert session.launch is not None and session.launch.startswith(f"{ENQUEUED} (not captured")
    before = session._context.runs
    session._launch()
    assert session._context.runs == before + 1
    assert graphs == []
    session, _ = _tensorrt_session(monkeypatch, "on", False)
    with pytest.raises(EngineError, match="TensorRT-RTX says that it allocates memory"):
        session._prepare()


class ScriptedCudaEngine(SimpleNamespace):
    """An engine of TensorRT-RTX, of the calls that make a context."""

    device_memory_size_v2 = 4096

    def create_runtime_config(self) -> SimpleNamespace:
        self.config = SimpleNamespace(strategy=None, cache=None)
        self.config.create_runtime_cache = lambda: "kernels"
        self.config.set_runtime_cache = lambda cache: setattr(self.config, "cache", cache)
        self.config.set_execution_context_allocation_strategy = lambda strategy: setattr(
            self.config, "strategy", strategy
        )
        return self.config

    def create_execution_context(self, config: object) -> SimpleNamespace:
        context = SimpleNamespace(memory=None)
        context.set_device_memory = lambda *given: setattr(context, "memory", given)
        return context


@pytest.mark.parametrize("is_captured", [True, False])
def test_a_context_of_tensorrt_rtx_has_its_memory_from_us_where_it_is_captured(
    is_captured: bool,
) -> None:
    from latlut.engines.cuda.memory import DeviceBuffer
    from latlut.engines.tensorrt.build import BuildSettings
    from latlut.engines.tensorrt.library import TensorRtLibrary

    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    library = SimpleNamespace(
        module=trt,
        settings=BuildSettings(is_captured=is_captured),
        memory=SimpleNamespace(allocate=lambda nbytes: DeviceBuffer(512, nbytes, None)),
        _kernels=None,
    )
    library._configured_context = lambda *a, **k: TensorRtLibrary._configured_context(
        library,
        *a,
        **k,  # type: ignore[arg-type]
    )
    cuda_engine = ScriptedCudaEngine()
    context, memory = TensorRtLibrary.context_of(library, cuda_engine)  # type: ignore[arg-type]
    assert cuda_engine.config.cache == "kernels"
    if is_captured:
        user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        assert cuda_engine.config.strategy == user_managed
        assert context.memory == (512, 4096)  # type: ignore[attr-defined]
        assert memory is not None
    else:
        assert (cuda_engine.config.strategy, memory) == (None, None)
