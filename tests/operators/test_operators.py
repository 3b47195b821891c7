"""Operators compute what their docstrings say; the registry takes operators from outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latlut.errors import SpecError, UnknownNameError
from latlut.measure.plans import load_plan
from latlut.operators import Option, register, registry
from latlut.operators.building import build, cost
from latlut.operators.modules import ConvNorm
from latlut.operators.network import Network
from latlut.operators.registry import check, operator_kinds
from latlut.opspec import OpSpec
from latlut.spaces import FasterSegSpace


def _run(text: str) -> torch.Tensor:
    spec = OpSpec.parse(text)
    module = build(spec)
    with torch.no_grad():
        return module(*(torch.randn(spec.batch, *shape) for shape in spec.inputs))


@pytest.mark.parametrize("size", [(256, 512), (720, 960), (100, 150)])
def test_every_op_spec_of_the_space_is_known(size: tuple[int, int]) -> None:
    for spec in FasterSegSpace().op_specs(size):
        check(spec)


def test_every_operator_builds_at_odd_sizes() -> None:
    for spec in load_plan("tiny", input_size=(100, 150)).specs:
        build(spec)  # checks the output's shape against the op spec


def test_conv_2x_is_two_convolutions_without_residual() -> None:
    module = build(OpSpec("conv_2x", (4, 8, 8), 8, stride=2))
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in convolutions] == [
        (4, 8, (2, 2)),
        (8, 8, (1, 1)),
    ]
    image = torch.randn(1, 4, 8, 8)
    first, second = module
    with torch.no_grad():
        assert torch.equal(module(image), second(first(image)))


def test_zoomed_conv_convolves_the_halved_map() -> None:
    module = build(OpSpec("zoomed_conv", (4, 8, 10), 6))
    seen = []
    module.convolutions.register_forward_hook(lambda m, args, out: seen.append(args[0].shape))
    with torch.no_grad():
        module(torch.randn(1, 4, 8, 10))
    assert seen == [(1, 4, 4, 5)]


def test_factorized_reduce_reads_even_and_odd_pixels() -> None:
    module = build(OpSpec("skip", (1, 4, 4), 2, stride=2))
    for part in (module.even, module.odd):
        nn.init.ones_(part.weight)
    image = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    with torch.no_grad():
        found = module(image)[0]
    assert torch.allclose(found[0], image[0, 0, ::2, ::2], rtol=1e-4)
    assert torch.allclose(found[1], image[0, 0, 1::2, 1::2], rtol=1e-4)


def test_head_halves_wide_maps() -> None:
    assert build(OpSpec("head", (256, 4, 4), 19)).conv.conv.out_channels == 256
    assert build(OpSpec("head", (288, 4, 4), 19)).conv.conv.out_channels == 144


def test_table1_costs_match_the_paper() -> None:
    """FLOPs of the paper's Table 1 are MACs; its dilated row implies padding 1 (ours keeps 2)."""
    found = {spec.key: cost(spec) for spec in load_plan("table1").specs}
    macs = {key.split(" stride")[0] + key.split("32x64")[1]: cost.macs / 1e9 for key, cost in
            found.items()}  # fmt: skip
    assert macs["conv 256->256"] == pytest.approx(1.21, abs=0.01)
    assert macs["conv 256->256 groups=2"] == pytest.approx(0.60, abs=0.01)
    assert macs["conv 256->256 dilation=2"] == pytest.approx(1.21, abs=0.01)
    assert macs["zoomed_conv 256->256"] == pytest.approx(0.30, abs=0.01)
    params = {cost.params for key, cost in found.items() if "groups" not in key}
    assert all(value == pytest.approx(0.59e6, rel=0.01) for value in params)


def test_cost_counts_inputs_weights_and_outputs_once() -> None:
    found = cost(OpSpec("conv", (4, 8, 8), 6))
    assert found.macs == 4 * 6 * 9 * 64
    assert found.params == 4 * 6 * 9 + 2 * 6
    assert found.moved_bytes == 4 * (4 * 64 + 6 * 64 + found.params)


def test_weights_are_the_same_for_the_same_op_spec() -> None:
    spec = OpSpec("conv_2x", (4, 8, 8), 8)
    first, second = build(spec).state_dict(), build(spec).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("conf 4->4 at 8x8", "did you mean 'conv'"),
        ("conv 4->4 at 8x8 wings=2", "no option 'wings'"),
        ("upsample 4->4 at 8x8 out_size=16x16 interpolation=cubic", "bilinear, nearest"),
        ("conv_2x 4,4->4 at 8x8,8x8", "takes 1 to 1 inputs"),
        ("upsample 4->8 at 8x8 out_size=16x16", "keeps the number of channels"),
        ("skip 4->8 at 8x8", "form=searched"),
        ("zoomed_conv 4->8 stride 3 at 8x8", "stride 1 or 2"),
        ("conv 4->6 at 8x8 groups=4", "groups"),
        ("conv 4->4 at 8x8 padding=0", "expected"),
    ],
)
def test_impossible_op_specs_say_why(text: str, words: str) -> None:
    with pytest.raises((SpecError, UnknownNameError), match=words):
        build(OpSpec.parse(text))


def test_an_operator_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @register("my_separable", options={"kernel_size": Option()})
    def my_separable(spec: OpSpec) -> nn.Module:
        size = int(spec.option("kernel_size"))  # 3 unless the op spec says otherwise
        return nn.Sequential(
            ConvNorm(spec.in_channels, spec.in_channels, size, spec.stride,
                               groups=spec.in_channels),
            ConvNorm(spec.in_channels, spec.out_channels, 1),
        )  # fmt: skip

    assert "my_separable" in operator_kinds()
    assert _run("my_separable 8->16 stride 2 at 16x16 kernel_size=5").shape == (1, 16, 8, 8)
    with pytest.raises(SpecError, match="no option 'groups'"):
        _run("my_separable 8->16 at 16x16 groups=2")

    def conv(spec: OpSpec) -> nn.Module:
        return nn.Identity()

    with pytest.raises(SpecError, match="already registered by latlut.operators"):
        register("conv")(conv)


def test_weights_from_outside_are_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @register("transposed")
    def transposed(spec: OpSpec) -> nn.Module:
        return nn.ConvTranspose2d(spec.in_channels, spec.out_channels, 1)

    spec = OpSpec("transposed", (4, 8, 8), 4)
    assert torch.equal(build(spec).weight, build(spec).weight)


def test_a_builder_whose_output_has_another_shape_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    @register("shrinking")
    def shrinking(spec: OpSpec) -> nn.Module:
        return nn.Conv2d(spec.in_channels, spec.out_channels, 3)

    with pytest.raises(SpecError, match=r"gives \(1, 4, 6, 6\), expected \(1, 4, 8, 8\)"):
        _run("shrinking 4->4 at 8x8")


def test_a_network_runs_its_graph_and_frees_what_is_not_needed() -> None:
    architecture = FasterSegSpace(layers=5, widths=(4,), stem_head_widths=(4,)).sample(1)
    nodes = architecture.nodes((64, 64))
    network = Network(nodes).eval()
    assert network.op_specs() == tuple(node.spec for node in nodes)
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 64)).shape == (1, 19, 64, 64)
