"""The two graphs whose difference an operator in context is, and what engines make of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from some_specs import SPECS
from torch import nn

from latlut.engines import engine_class
from latlut.engines.base import Engine
from latlut.errors import SpecError, UnknownNameError
from latlut.operators.building import build
from latlut.operators.graph_cache import GraphCache
from latlut.operators.in_context import NEIGHBOUR_CHANNELS, ContextWorkload, context_of, sink
from latlut.operators.onnx_export import export_onnx
from latlut.opspec import OpSpec


@pytest.mark.parametrize("text", SPECS)
def test_the_operator_stands_between_neighbours_and_a_sink(text: str) -> None:
    """Computed by hand from the parts, for every operator."""
    spec = OpSpec.parse(text)
    context = context_of(spec)
    assert context.without is not None
    assert [neighbour.output for neighbour in context.without.specs] == list(spec.inputs)
    assert all(len(shape) == 4 and shape[0] == spec.batch for shape in context.without.input_shapes)
    assert context.with_operator.input_shapes == context.without.input_shapes
    module = context.with_operator.build()
    arrays = [torch.from_numpy(array) for array in context.with_operator.random_inputs()]
    with torch.inference_mode():
        maps = [part(array) for part, array in zip(module.neighbours, arrays, strict=True)]
        alone = build(spec)(*maps)
        expected = alone if spec.kind == "upsample" else sink(alone)
        torch.testing.assert_close(module(*arrays), expected)
        without = context.without.build()(*arrays)
        torch.testing.assert_close(without, torch.cat([sink(item) for item in maps], dim=1))
    assert all((item >= 0).all() for item in maps)  # they end in a ReLU


def test_an_operator_that_reads_the_image_has_nothing_before_it() -> None:
    context = context_of(OpSpec.parse("conv 3->8 stride 2 at 32x32"))
    assert context.without is None
    assert context.with_operator.input_shapes == ((1, 3, 32, 32),)
    assert [spec.key for spec in context.with_operator.specs] == ["conv 3->8 stride 2 at 32x32"]


def test_of_two_inputs_the_image_alone_is_left_as_it_is() -> None:
    context = context_of(OpSpec.parse("refine 8,3->8 at 8x8,16x16"))
    assert context.with_operator.input_shapes == ((1, NEIGHBOUR_CHANNELS, 8, 8), (1, 3, 16, 16))
    assert context.without is not None
    assert context.without.input_shapes == ((1, NEIGHBOUR_CHANNELS, 8, 8),)


def test_op_specs_of_equal_inputs_share_the_graph_without_them() -> None:
    first, second, third = (
        context_of(OpSpec.parse(text)).without
        for text in (
            "conv 8->16 stride 2 at 16x16",
            "zoomed_conv 8->8 stride 1 at 16x16",
            "zoomed_conv 8->8 stride 1 at 16x24",
        )
    )
    assert first is not None and second is not None and third is not None
    assert first.digest == second.digest != third.digest


def test_operators_of_one_s_own_have_a_context() -> None:
    from latlut.operators import register

    @register("context_test_scale")
    def scale(spec: OpSpec) -> nn.Module:
        return nn.Hardswish()

    spec = OpSpec("context_test_scale", (6, 4, 4), 6)
    module = context_of(spec).with_operator.build()
    assert module(torch.zeros(1, NEIGHBOUR_CHANNELS, 4, 4)).shape == (1, 6, 1, 1)


def test_unknown_operators_and_wrong_specs_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no_such"):
        context_of(OpSpec("no_such", (8, 8, 8), 8))
    with pytest.raises(SpecError, match="option"):
        context_of(OpSpec("conv", (8, 8, 8), 8, form="single"))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 9), (8, 16), (33, 65)])
def test_the_sink_takes_maps_of_any_size(size: tuple[int, int]) -> None:
    found = sink(torch.randn(2, 5, *size))
    assert found.shape == (2, 5, 1, 1)
    assert torch.isfinite(found).all()


def test_the_sink_sees_where_a_map_differs() -> None:
    image = torch.randn(1, 4, 32, 32)
    assert not torch.equal(sink(image), sink(image.roll(1, dims=-1)))
    assert not torch.equal(sink(image), sink(2 * image))


# ---- what the engines make of it -----------------------------------------------------------


@pytest.fixture(params=["onnxruntime", "openvino", "pytorch"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found = engine_class(request.param)
    availability = found.availability()
    if not availability.is_available:
        pytest.skip(availability.reason)
    return found()


def _layers(engine: Engine, workload: ContextWorkload) -> tuple[Counter[str], list[str]]:
    with engine.load(workload) as session:
        layers = session.layers(3)
    return Counter(layer.kind for layer in layers), [layer.name for layer in layers]


@pytest.mark.parametrize(
    "text",
    ["conv 16->16 stride 1 at 32x32 kernel_size=1", "conv_2x 16->32 stride 2 at 31x33",
     "zoomed_conv 16->16 stride 1 at 32x32", "fusion 16,16->16 at 16x16",
     "upsample 19->19 at 8x8 out_size=61x64"],
)  # fmt: skip
def test_both_graphs_agree_with_pytorch(engine: Engine, text: str) -> None:
    context = context_of(OpSpec.parse(text))
    assert context.without is not None
    for workload in (context.with_operator, context.without):
        with engine.load(workload) as session:
            engine.check_parity(session)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_no_engine_merges_the_neighbour_with_a_convolution(
    engine: Engine, kernel_size: int
) -> None:
    """WITH has exactly one convolution more than WITHOUT, which has the neighbour's."""
    spec = OpSpec("conv", (16, 32, 32), 16, kernel_size=kernel_size)
    context = context_of(spec)
    assert context.without is not None

    def convolutions(workload: ContextWorkload) -> int:
        kinds, _ = _layers(engine, workload)
        return sum(count for kind, count in kinds.items() if "conv" in kind.lower())

    assert convolutions(context.without) == 1
    assert convolutions(context.with_operator) == 2


def test_onnx_runtime_keeps_its_own_layout_from_the_neighbour_to_the_sink() -> None:
    """Alone, a convolution's map is brought into blocks of channels and back; in context not."""
    found = engine_class("onnxruntime")
    if not found.availability().is_available:
        pytest.skip(found.availability().reason)
    context = context_of(OpSpec.parse("conv 16->32 stride 1 at 64x64"))
    assert context.without is not None
    with_kinds, _ = _layers(found(), context.with_operator)
    without_kinds, _ = _layers(found(), context.without)
    for kinds in (with_kinds, without_kinds):
        assert kinds["ReorderInput"] == 0
        assert kinds["ReorderOutput"] <= 1  # of one number per channel, at the very end
    assert with_kinds["ReorderOutput"] == without_kinds["ReorderOutput"]


def test_context_graphs_are_cached_by_content(tmp_path) -> None:
    cache = GraphCache(tmp_path)
    workload = context_of(OpSpec.parse("conv 8->8 at 8x8")).with_operator
    first = cache.onnx_bytes(workload)
    again = context_of(OpSpec.parse("conv 8->8 at 8x8")).with_operator
    assert cache.onnx_bytes(again) == first
    assert (cache.hits, cache.misses) == (1, 1)
    inputs = [np.zeros(shape, dtype=np.float32) for shape in workload.input_shapes]
    assert len(export_onnx(workload.build(), inputs)) == len(first)
