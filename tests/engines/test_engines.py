"""One behaviour suite over every engine; an engine that is not installed skips with its reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_engine import FakeEngine
from some_specs import SPECS

from latlut.engines import engine_class, engine_names
from latlut.engines.base import Engine
from latlut.engines.cuda.devices import cuda_devices
from latlut.engines.parity import PARITY_TOLERANCE
from latlut.engines.selftest import try_engines
from latlut.errors import EngineError, ParityError, SpecError, UnknownNameError
from latlut.machine.gpus import gpu_absence_reason
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec
from latlut.spaces import FasterSegSpace

#: Precisions and options beside the default ones, per engine and kind of device.
VARIANTS: dict[tuple[str, str], list[tuple[str, dict[str, str]]]] = {
    ("pytorch", "cpu"): [
        ("bf16", {}),
        ("fp16", {}),
        ("fp32", {"memory_format": "channels_last"}),
        ("bf16", {"memory_format": "channels_last"}),
    ],
    ("pytorch", "cuda"): [
        ("fp16", {"memory_format": "channels_last"}),
        ("bf16", {}),
        ("fp32", {"cuda_graph": "on"}),
        ("fp32", {"cuda_graph": "off"}),
        ("fp32", {"tf32": "on"}),
        ("fp16", {"cuda_graph": "on", "memory_format": "channels_last"}),
    ],
    ("onnxruntime", "cuda"): [
        ("fp16", {}),
        ("fp32", {"cuda_graph": "on"}),
        ("fp32", {"cuda_graph": "off"}),
    ],
    ("tensorrt", "cuda"): [
        ("fp16", {}),
        ("int8", {}),
        ("fp32", {"cuda_graph": "on"}),
        ("fp32", {"cuda_graph": "off"}),
        ("fp32", {"cold_l2": "on"}),
        ("fp32", {"tf32": "on"}),
    ],
    ("tensorrt-rtx", "cuda"): [
        ("fp16", {}),
        ("int8", {}),
        ("fp32", {"cuda_graph": "on"}),
        ("fp32", {"cuda_graph": "off"}),
        ("fp32", {"cold_l2": "on"}),
    ],
}


def _configurations() -> list[object]:
    """Every engine on every kind of device, in every precision and with every option."""
    found = []
    for name in engine_names():
        for kind in engine_class(name).device_kinds:
            device = "cpu" if kind == "cpu" else "cuda:0"
            for precision, options in [("fp32", {}), *VARIANTS.get((name, kind), [])]:
                words = [name, device, precision, *(f"{k}={v}" for k, v in options.items())]
                marks = [pytest.mark.gpu] if kind == "cuda" else []
                item = (name, device, precision, options)
                found.append(pytest.param(item, id="-".join(words), marks=marks))
    return found


@pytest.fixture(params=_configurations())
def engine(request: pytest.FixtureRequest) -> Engine:
    name, device, precision, options = request.param
    found = engine_class(name).availability()
    if not found.is_available:
        pytest.skip(found.reason)
    if device not in engine_class(name).device_names():
        pytest.skip(gpu_absence_reason() or f"{name} reaches no GPU here")
    try:
        return engine_class(name)(1, precision, device, options)
    except EngineError as error:
        if precision == "fp32":
            raise
        pytest.skip(str(error))  # a precision that this build has no kernels for


@pytest.mark.parametrize("text", SPECS)
def test_every_operator_agrees_with_pytorch(engine: Engine, text: str) -> None:
    workload = Workload.from_spec(OpSpec.parse(text))
    module = workload.build()
    with engine.load(workload, module=module) as session:
        difference = engine.check_parity(session, module)
    assert difference <= PARITY_TOLERANCE[engine.precision]
    if engine.precision == "fp32" and engine.options.get("tf32", "off") == "off":
        assert difference < 1e-4  # arithmetic of another precision would show


def test_a_whole_network_agrees_with_pytorch(engine: Engine) -> None:
    network = FasterSegSpace(layers=4, widths=(4,), stem_head_widths=(4,)).sample(3)
    workload = Workload.from_nodes(network.nodes((64, 96)), "a network")
    module = workload.build()
    with engine.load(workload, module=module) as session:
        engine.check_parity(session, module)
        assert session.outputs()[0].shape == (1, 19, 64, 96)


def test_durations_are_positive_and_one_per_run(engine: Engine) -> None:
    with engine.load(Workload.from_spec(OpSpec.parse(SPECS[0]))) as session:
        durations = session.sample_ns(7)
    assert durations.shape == (7,)
    assert durations.dtype == np.int64
    assert (durations > 0).all()


def test_more_work_takes_longer(engine: Engine) -> None:
    small, large = ("conv 8->8 at 8x8", "conv_2x 32->32 at 48x48")
    fastest = []
    for text in (small, large):
        with engine.load(Workload.from_spec(OpSpec.parse(text))) as session:
            session.sample_ns(3)
            fastest.append(session.sample_ns(20).min())
    assert fastest[1] > 3 * fastest[0]  # 512 times the arithmetic


def test_new_inputs_give_new_outputs(engine: Engine) -> None:
    workload = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))
    with engine.load(workload) as session:
        session.run()
        first = session.outputs()[0].copy()
        session.set_inputs(workload.random_inputs(seed=5))
        session.run()
        assert not np.allclose(first, session.outputs()[0])


def test_inputs_stay_the_caller_s_own(engine: Engine) -> None:
    workload = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))
    first, second = workload.random_inputs(seed=5), workload.random_inputs(seed=6)
    kept = [array.copy() for array in first]
    with engine.load(workload) as session:
        session.set_inputs(first)
        session.run()
        session.set_inputs(second)
        session.run()
        changed = session.outputs()[0].copy()
        session.set_inputs(first)
        session.run()
        assert not np.array_equal(session.outputs()[0], changed)
    assert np.array_equal(first[0], kept[0])


def test_sessions_of_one_engine_do_not_disturb_each_other(engine: Engine) -> None:
    workloads = [Workload.from_spec(OpSpec.parse(text)) for text in SPECS[:2]]
    modules = [workload.build() for workload in workloads]
    sessions = [engine.load(w, module=m) for w, m in zip(workloads, modules, strict=True)]
    for session, module in zip(sessions, modules, strict=True):
        engine.check_parity(session, module)
    for session in sessions:
        session.sample_ns(2)
    for session, module in zip(sessions, modules, strict=True):
        engine.check_parity(session, module)
        session.close()


def test_layers_cover_the_operator_and_take_time(engine: Engine) -> None:
    workload = Workload.from_spec(OpSpec.parse("conv_2x 8->8 stride 1 at 64x64"))
    with engine.load(workload) as session:
        try:
            layers = session.layers(3)
        except EngineError as error:
            pytest.skip(str(error))
        assert session.sample_ns(1)[0] > 0  # the session itself goes on
        with pytest.raises(SpecError, match="runs"):
            session.layers(0)
    assert len({layer.name for layer in layers}) == len(layers)
    assert all(layer.time_ms >= 0 for layer in layers)
    assert sum(layer.time_ms for layer in layers) > 0
    assert any(layer.source_nodes for layer in layers)


def test_facts_name_the_clock(engine: Engine) -> None:
    assert "clock" in engine.facts()["clock"] or "events" in engine.facts()["clock"]


def test_misuse_is_refused(engine: Engine) -> None:
    workload = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))
    session = engine.load(workload)
    with pytest.raises(SpecError, match="received inputs"):
        session.set_inputs([np.zeros((1, 4, 9, 8), np.float32)])
    with pytest.raises(SpecError, match="float32"):
        session.set_inputs([np.zeros((1, 4, 8, 8), np.float64)])
    with pytest.raises(SpecError, match="count"):
        session.sample_ns(0)
    session.close()
    session.close()
    for call in (session.run, session.outputs, lambda: session.sample_ns(1)):
        with pytest.raises(EngineError, match="closed"):
            call()


def test_precisions_and_devices_that_it_lacks_are_named(engine: Engine) -> None:
    with pytest.raises(EngineError, match="fp32"):
        type(engine)(precision="fp8")
    with pytest.raises(EngineError, match="cuda:99"):
        type(engine)(device="cuda:99")
    with pytest.raises(SpecError, match="threads"):
        type(engine)(threads=0)


def test_what_is_not_computed_in_a_precision_is_not_called_so() -> None:
    with pytest.raises(EngineError, match="no fp16 on the CPU"):
        engine_class("onnxruntime")(precision="fp16")
    with pytest.raises(EngineError, match="tf32=on is for GPUs"):
        engine_class("pytorch")(options={"tf32": "on"})


def test_options_are_checked_and_named() -> None:
    found = engine_class("pytorch")(options={"memory_format": "channels_last"})
    assert found.options["cuda_graph"] == "off"
    assert found.options_text == "memory_format=channels_last"
    with pytest.raises(EngineError, match=r"no option 'memory'.*memory_format"):
        engine_class("pytorch")(options={"memory": "contiguous"})
    with pytest.raises(EngineError, match="contiguous, channels_last"):
        engine_class("pytorch")(options={"memory_format": "nhwc"})
    with pytest.raises(EngineError, match="has no option"):
        engine_class("openvino")(options={"cuda_graph": "on"})


@pytest.mark.parametrize("name", ["pytorch", "onnxruntime"])
def test_a_gpu_that_is_not_there_is_refused_with_the_way_out(name: str) -> None:
    if any(device != "cpu" for device in engine_class(name).device_names()):
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineError, match=r"(?s)has no 'GPU-1234'.*install"):
        engine_class(name)(device="GPU-1234")


def test_cuda_numbers_its_devices_as_pytorch_does() -> None:
    devices = cuda_devices()
    assert len(devices) == torch.cuda.device_count()
    for device in devices:
        properties = torch.cuda.get_device_properties(device.index)
        assert device.uuid == f"GPU-{properties.uuid}"
        assert device.name == properties.name


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EngineError, match=r"needs a C\+\+ compiler.*install g\+\+"):
        engine_class("pytorch")(options={"compile": "inductor"})


@pytest.mark.slow
def test_compiled_operators_agree_and_none_falls_back() -> None:
    from torch._dynamo.utils import counters

    try:
        engine = engine_class("pytorch")(options={"compile": "inductor"})
    except EngineError as error:
        pytest.skip(str(error))
    limit = 8  # versions of one function that Dynamo compiles unless told otherwise
    before = counters["stats"]["unique_graphs"]
    for channels in range(4, 4 + limit + 1):
        workload = Workload.from_spec(OpSpec("conv", (channels, 8, 8), 4))
        module = workload.build()
        with engine.load(workload, module=module) as session:
            engine.check_parity(session, module)
    assert counters["stats"]["unique_graphs"] - before == limit + 1
    with engine.load(workload) as session, pytest.raises(EngineError, match="compile=inductor"):
        session.layers(1)


def test_a_graph_that_is_no_graph_names_the_workload(engine: Engine) -> None:
    if not engine.reads_onnx:
        pytest.skip("reads no ONNX")
    with pytest.raises(EngineError, match="conv 4->4"):
        engine.load(Workload.from_spec(OpSpec("conv", (4, 8, 8), 4)), graph=b"no graph")


def test_an_engine_that_computes_something_else_is_not_timed() -> None:
    engine = FakeEngine()
    workload = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))
    engine.wrong.add(workload.name)
    module = workload.build()
    with engine.load(workload, module=module) as session, pytest.raises(ParityError, match="conv"):
        engine.check_parity(session, module)


@pytest.mark.parametrize(
    ("spoilt", "is_found"),
    [(3, False), (4, True), (float("nan"), True), (float("inf"), True)],
    ids=["flipped ties", "more of them", "no number", "infinite"],
)
def test_few_flipped_ties_pass_the_parity_check_and_nothing_else_does(
    spoilt: float, is_found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine()
    workload = Workload.from_spec(OpSpec("conv", (4, 96, 96), 4))  # 36,864 output elements
    with engine.load(workload) as session:
        right = session.outputs

        def outputs() -> list[np.ndarray]:
            (found,) = right()
            if spoilt in (3, 4):
                found.reshape(-1)[: int(spoilt)] += 1.0
            else:
                found.reshape(-1)[0] = spoilt
            return [found]

        monkeypatch.setattr(session, "outputs", outputs)
        if is_found:
            with pytest.raises(ParityError):
                engine.check_parity(session)
        else:
            assert engine.check_parity(session) < PARITY_TOLERANCE["fp32"]


def test_tensorrt_has_a_seat_and_is_never_replaced() -> None:
    found = engine_class("tensorrt").availability()
    if found.is_available:
        pytest.skip("TensorRT works here")
    assert found.reason
    assert found.remedy
    with pytest.raises(EngineError, match="TensorRT cannot run here"):
        engine_class("tensorrt")(device="cuda:0")


def test_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        engine_class("onnxruntim")


def test_an_engine_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from latlut.engines import openvino as ov

    monkeypatch.setattr(ov, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"(?s)openvino is not installed.*pip install"):
        ov.OpenVinoEngine()
    (result,) = [item for item in try_engines() if item.name == "openvino"]
    assert not result.works
    assert "pip install" in result.remedy


def test_an_engine_that_fails_while_running_names_the_workload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = FakeEngine()

    def fail(workload: Workload, runs: int) -> None:
        raise RuntimeError("out of device memory")

    engine.on_sample = fail
    workload = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))
    with (
        engine.load(workload) as session,
        pytest.raises(EngineError, match=r"Fake engine failed on conv 4->4.*out of device memory"),
    ):
        session.sample_ns(1)


def test_doctor_tries_every_engine() -> None:
    results = {result.name: result for result in try_engines()}
    assert set(results) == set(engine_names())
    assert results["onnxruntime"].works
    assert results["pytorch"].works
    missing = [result for result in results.values() if not result.works]
    assert all(result.detail and result.remedy for result in missing)


def test_graphs_are_cached_by_content(tmp_path) -> None:
    cache = GraphCache(tmp_path)
    first = Workload.from_spec(OpSpec("conv", (4, 8, 8), 4))
    other = Workload.from_spec(OpSpec("conv", (4, 8, 8), 8))
    content = cache.onnx_bytes(first)
    assert cache.onnx_bytes(first) == content
    assert cache.onnx_bytes(other) != content
    assert (cache.hits, cache.misses) == (1, 2)
    assert cache.size_bytes() > len(content)
    cache.trim(limit_bytes=0)
    assert cache.size_bytes() == 0


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert GraphCache(blocked).onnx_bytes(Workload.from_spec(OpSpec("conv", (4, 8, 8), 4)))
