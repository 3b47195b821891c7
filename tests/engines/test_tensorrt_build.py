"""Building engines with the real TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from latlut.engines.precision import half_precision, quantized
from latlut.engines.tensorrt.build import (
    Build,
    BuildSettings,
    _set_precision,
    build_engine,
    builder_config,
    check_capability,
    compute_capabilities,
    is_strongly_typed,
    log_recorder,
    made,
    parse_graph,
    release_of,
)
from latlut.engines.tensorrt.engine import TensorRtRtxEngine
from latlut.errors import EngineError
from latlut.measure.plans import load_plan
from latlut.operators.graph_cache import GraphCache
from latlut.operators.workloads import Workload
from latlut.opspec import OpSpec

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")

CONV = OpSpec("conv", (8, 16, 16), 8)
AMPERE = (8, 6)


@pytest.fixture(autouse=True)
def _without_rtx_deprecations() -> Iterator[None]:
    with warnings.catch_warnings():
        # TensorRT-RTX keeps the calls of timing caches and says that they do nothing.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*RTX.*")
        yield


def _graph(spec: OpSpec = CONV) -> bytes:
    return GraphCache().onnx_bytes(Workload.from_spec(spec))


def _build(graph: bytes, settings: BuildSettings | None = None, **more: object) -> Build:
    more.setdefault("compute_capability", AMPERE)
    return build_engine(trt, graph, settings or BuildSettings(), **more)


def _parsed(graph: bytes):
    logger = log_recorder(trt)
    builder = trt.Builder(logger)
    network = parse_graph(trt, builder, graph, logger)
    return builder, logger, network  # the network lives as long as its builder


def _representatives() -> list[OpSpec]:
    """Of the full plan, the smallest op spec of each kind, stride, options and oddness."""
    found: dict[tuple[object, ...], OpSpec] = {}
    for spec in sorted(load_plan("fasterseg", (1024, 2048)).specs, key=lambda s: s.inputs[0]):
        odd = tuple(size % 2 for shape in spec.inputs for size in shape[1:])
        found.setdefault((spec.kind, spec.stride, len(spec.inputs), odd), spec)
    return list(found.values())


def test_the_network_is_strongly_typed_and_keeps_names_and_shapes() -> None:
    assert is_strongly_typed(trt)
    for text in ("refine 16,8->8 at 8x9,15x17", "upsample 4->4 at 8x8 out_size=61x64"):
        spec = OpSpec.parse(text)
        workload = Workload.from_spec(spec)
        _, _, network = _parsed(_graph(spec))
        assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        inputs = [network.get_input(index) for index in range(network.num_inputs)]
        assert [tensor.name for tensor in inputs] == [f"in{i}" for i in range(len(inputs))]
        assert tuple(tuple(tensor.shape) for tensor in inputs) == workload.input_shapes
        expected = tuple(workload.build()(*map(_tensor, workload.random_inputs())).shape)
        assert tuple(network.get_output(0).shape) == expected


def _tensor(array):
    import torch

    return torch.from_numpy(array)


@pytest.mark.parametrize("spec", _representatives(), ids=lambda spec: spec.key)
def test_every_kind_of_operator_of_the_full_plan_is_parsed_and_built(spec: OpSpec) -> None:
    build = _build(_graph(spec))
    assert len(build.plan) > 1000


@pytest.mark.slow
def test_every_op_spec_of_the_full_plan_is_parsed() -> None:
    plan = load_plan("fasterseg", (1024, 2048))
    rejected = {}
    for spec in plan.specs:
        try:
            _parsed(_graph(spec))
        except EngineError as error:
            rejected[spec.key] = str(error)
    assert not rejected


@pytest.mark.parametrize("capability", sorted(compute_capabilities(trt)))
def test_it_builds_for_gpus_that_are_not_here(capability: tuple[int, int]) -> None:
    assert _build(_graph(), compute_capability=capability).plan


def test_a_gpu_that_it_has_no_kernels_for_is_named() -> None:
    with pytest.raises(EngineError, match=r"builds for compute capability 7\.5.*not for 9\.0"):
        _build(_graph(), compute_capability=(9, 0))
    with pytest.raises(EngineError, match="choose --engine tensorrt"):
        check_capability(trt, (6, 1))


@pytest.mark.parametrize("text", ["conv_2x 8->8 at 16x16", "refine 16,8->8 at 8x9,15x17"])
def test_precision_is_in_the_network(text: str) -> None:
    workload = Workload.from_spec(OpSpec.parse(text))
    graph = GraphCache().onnx_bytes(workload)
    for in_precision, edge, weights in (
        (graph, trt.float32, trt.float32),
        (half_precision(graph), trt.float16, trt.float16),
        (quantized(graph, [workload.random_inputs()]), trt.float32, trt.int8),
    ):
        _, _, network = _parsed(in_precision)
        assert network.get_input(0).dtype == edge
        assert network.get_output(0).dtype == edge
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        kinds = {layer.type for layer in layers}
        assert (trt.LayerType.QUANTIZE in kinds) == (weights == trt.int8)
        if weights == trt.float16:
            floats = {
                layer.get_output(0).dtype
                for layer in layers
                if layer.type == trt.LayerType.CONVOLUTION
            }
            assert floats == {trt.float16}
        assert _build(in_precision).plan


def test_tf32_is_off_unless_allowed() -> None:
    builder = trt.Builder(log_recorder(trt))
    tf32 = trt.BuilderFlag.TF32
    assert builder.create_builder_config().get_flag(tf32)  # the library's default is not ours
    assert not builder_config(trt, builder, BuildSettings()).get_flag(tf32)
    assert builder_config(trt, builder, BuildSettings(is_tf32_allowed=True)).get_flag(tf32)


@pytest.mark.parametrize("is_captured", [True, False])
def test_what_is_to_be_captured_may_allocate_nothing_while_it_runs(is_captured: bool) -> None:
    settings = BuildSettings(is_captured=is_captured)
    config = builder_config(trt, trt.Builder(log_recorder(trt)), settings)
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION) == is_captured
    assert _build(_graph(), settings).plan


@pytest.mark.parametrize(("choice", "asked"), [("auto", [True, False]), ("on", [True])])
def test_what_must_allocate_while_it_runs_is_built_without_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch, choice: str, asked: list[bool]
) -> None:
    """Only the builder's refusal is scripted."""
    from latlut.engines.tensorrt import library

    tried: list[bool] = []

    def build(module: object, graph: bytes, settings: BuildSettings, **_: object) -> Build:
        tried.append(settings.is_captured)
        if settings.is_captured:
            raise EngineError("the builder failed: sizes depend on data")
        return Build(b"plan")

    monkeypatch.setattr(library, "build_engine", build)
    engine = object.__new__(TensorRtRtxEngine)  # a whole one needs a GPU
    engine.module, engine.precision, engine.capability = trt, "fp32", AMPERE
    engine.options, engine.settings = {"cuda_graph": choice}, BuildSettings(is_captured=True)
    workload = Workload.from_spec(CONV)
    if choice == "auto":
        assert engine._build(workload, b"", 0).plan == b"plan"
    else:
        with pytest.raises(EngineError, match="sizes depend on data"):
            engine._build(workload, b"", 0)
    assert tried == asked


def test_limits_reach_the_builder() -> None:
    builder = trt.Builder(log_recorder(trt))
    workspace = trt.MemoryPoolType.WORKSPACE
    free = builder_config(trt, builder, BuildSettings())
    assert free.get_memory_pool_limit(workspace) > 1 << 30
    limited = builder_config(trt, builder, BuildSettings(workspace_mib=256, optimization_level=5))
    assert limited.get_memory_pool_limit(workspace) == 256 << 20
    assert limited.builder_optimization_level == 5


def test_a_workspace_that_is_too_small_is_said() -> None:
    with pytest.raises(EngineError, match=r"(?s)within workspace_mib=0: .*workspace.*allow more"):
        _build(_graph(), BuildSettings(workspace_mib=0))


def test_a_rejected_operator_is_named_with_the_parsers_message() -> None:
    node = helper.make_node("Det", ["in0"], ["out"], name="my_determinant")
    with pytest.raises(EngineError, match=r"parser rejects it: Det 'my_determinant': .*checkDet"):
        _parsed(_model(node, opset=17))


def test_an_opset_newer_than_the_parser_is_refused_before_parsing() -> None:
    newest = release_of(trt).newest_opset
    node = helper.make_node("Relu", ["in0"], ["out"])
    _parsed(_model(node, opset=newest, shape=[1, 4, 4]))
    with pytest.raises(EngineError, match=f"opset {newest + 1}.*knows opsets up to {newest}"):
        _parsed(_model(node, opset=newest + 1, shape=[1, 4, 4]))


def _model(node: onnx.NodeProto, opset: int, shape: list[int] | None = None) -> bytes:
    graph = helper.make_graph(
        [node],
        "one node",
        [helper.make_tensor_value_info("in0", TensorProto.FLOAT, [1, 4, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape or [1])],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets).SerializeToString()


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a"])
def test_what_is_no_graph_is_refused(content: bytes) -> None:
    with pytest.raises(EngineError, match="no ONNX model"):
        _build(content)


def test_a_damaged_graph_is_refused() -> None:
    graph = _graph()
    with pytest.raises(EngineError):
        _build(graph[: len(graph) // 2])


def test_a_timing_cache_comes_back_and_goes_in_again() -> None:
    first = _build(_graph(), timing_cache=b"")
    assert first.timing_cache
    again = _build(_graph(), timing_cache=first.timing_cache)
    assert again.timing_cache == first.timing_cache
    assert _build(_graph()).timing_cache is None  # an independent build keeps none


def test_a_timing_cache_that_is_damaged_stops_no_build() -> None:
    found = _build(_graph(), timing_cache=b"not a timing cache at all" * 10)
    assert found.plan
    assert any("cache" in warning for warning in found.warnings)


def test_the_plan_is_one_that_the_runtime_recognises() -> None:
    """Loading needs a GPU; whether the header is a plan of this version does not."""
    runtime = trt.Runtime(log_recorder(trt))
    plan = _build(_graph()).plan
    size = runtime.engine_header_size
    assert len(plan) > size
    assert plan[:4] == _build(_graph()).plan[:4]
    validity, _ = runtime.get_engine_validity(b"x" * size)
    assert validity == trt.EngineValidity.INVALID


class TestWhatTheLibraryCannotMake:
    """The bindings of every version raise TypeError where they make no Builder or Runtime."""

    def failing(self, logger: Any) -> object:
        logger.lines.append((2, "Unable to determine GPU memory usage: no CUDA-capable device"))
        raise TypeError("pybind11::init(): factory function returned nullptr")

    def test_the_reason_is_what_was_logged_even_as_a_warning(self) -> None:
        with pytest.raises(EngineError, match="makes no builder: Unable to determine GPU memory"):
            made(self.failing, ScriptedLogger(), "builder")

    def test_without_a_log_the_bindings_message_is_quoted(self) -> None:
        def silent(logger: Any) -> object:
            raise TypeError("factory function returned nullptr")

        with pytest.raises(EngineError, match="makes no runtime: factory function"):
            made(silent, ScriptedLogger(), "runtime")
        with pytest.raises(EngineError, match="no reason given"):
            made(lambda logger: None, ScriptedLogger(), "runtime")

    def test_what_is_made_is_given(self) -> None:
        assert made(lambda logger: 3, ScriptedLogger(), "builder") == 3


class ScriptedLogger:
    """As ``log_recorder`` makes."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []

    def take(self, severity: int) -> list[str]:
        return [message for level, message in self.lines if level <= severity]


def test_fp16_of_the_old_line_leaves_class_maps_whole_numbers() -> None:
    module = SimpleNamespace(
        float32="float32", float16="float16", BuilderFlag=SimpleNamespace(FP16="fp16")
    )
    image, classes = SimpleNamespace(dtype="float32"), SimpleNamespace(dtype="int32")
    network = SimpleNamespace(
        num_inputs=1, num_outputs=1, get_input=lambda _: image, get_output=lambda _: classes
    )
    flags: list[str] = []
    _set_precision(module, network, SimpleNamespace(set_flag=flags.append), "fp16", None)  # type: ignore[arg-type]
    assert (image.dtype, classes.dtype, flags) == ("float16", "int32", ["fp16"])
