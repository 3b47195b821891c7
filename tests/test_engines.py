"""One behaviour suite over every engine; an engine that is not installed skips with its reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_engine import FakeEngine

from latlut.engines import engine_class, engine_names
from latlut.engines.base import Engine
from latlut.errors import EngineError, ParityError, SpecError, UnknownNameError
from latlut.graphs import GraphCache, Workload
from latlut.opspec import OpSpec
from latlut.selftest import try_engines
from latlut.spaces import FasterSegSpace

SPECS = [
    "conv 8->16 stride 2 at 15x17",
    "conv 8->8 stride 1 at 16x16 groups=2",
    "conv 8->8 stride 1 at 16x16 dilation=2 kernel_size=5",
    "conv_2x 8->8 stride 1 at 16x16 batch=2",
    "zoomed_conv 8->16 stride 1 at 15x17",
    "zoomed_conv_2x 8->16 stride 2 at 16x16",
    "zoomed_conv 8->8 stride 1 at 16x16 interpolation=nearest",
    "skip 8->16 stride 2 at 15x16",
    "skip 8->16 stride 1 at 16x16 form=searched",
    "skip 8->8 stride 1 at 16x16 form=identity",
    "refine 16,8->8 at 8x9,15x17",
    "fusion 8,8->16 at 16x16",
    "head 16->19 at 16x16",
    "upsample 4->4 at 8x8 out_size=61x64",
]


def _devices() -> list[tuple[str, str]]:
    devices = [(name, "cpu") for name in engine_names() if name != "tensorrt"]
    return [*devices, ("pytorch", "cuda:0")]


@pytest.fixture(params=_devices(), ids="-".join)
def engine(request: pytest.FixtureRequest) -> Engine:
    name, device = request.param
    found = engine_class(name).availability()
    if not found.is_available:
        pytest.skip(found.reason)
    if device != "cpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU here")
    return engine_class(name)(device=device)


@pytest.mark.parametrize("text", SPECS)
def test_every_operator_agrees_with_pytorch(engine: Engine, text: str) -> None:
    workload = Workload.from_spec(OpSpec.parse(text))
    module = workload.build()
    with engine.load(workload, module=module) as session:
        assert engine.check_parity(session, module) < 2e-3


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
    small, large = ("conv 8->8 at 8x8", "conv_2x 64->64 at 64x64")
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


def test_tensorrt_has_a_seat_and_is_never_replaced() -> None:
    found = engine_class("tensorrt").availability()
    assert not found.is_available
    assert found.reason
    assert found.remedy
    with pytest.raises(EngineError, match="TensorRT cannot run here"):
        engine_class("tensorrt")()


def test_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="onnxruntime"):
        engine_class("onnxruntim")


def test_an_engine_that_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from latlut.engines import ov

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
    assert not results["tensorrt"].works
    assert results["tensorrt"].remedy


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
