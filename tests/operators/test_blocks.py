"""The operators of mobile and residual networks and of transformers compute what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as functional
from fake_engine import FakeEngine
from torch import nn

from latlut.errors import SpecError
from latlut.measure.plans import plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.building import build, cost
from latlut.operators.modules import ACTIVATIONS, ConvNorm
from latlut.operators.registry import check
from latlut.opspec import KIND_DEFAULTS, OpSpec
from latlut.table.examination import faults
from latlut.table.table import LatencyTable


def _built(text: str) -> tuple[nn.Module, list[torch.Tensor]]:
    spec = OpSpec.parse(text)
    return build(spec), [torch.randn(spec.batch, *shape) for shape in spec.inputs]


@torch.no_grad()
def test_an_inverted_residual_expands_convolves_gates_and_narrows() -> None:
    module, (image,) = _built("inverted_residual 8->8 at 9x10 expansion=3 squeeze=4 kernel_size=5")
    widen, depthwise, gate, narrow = module.parts
    assert (widen.conv.out_channels, depthwise.conv.groups, gate.reduce.out_channels) == (24, 24, 6)
    assert depthwise.conv.kernel_size == (5, 5)
    middle = functional.relu(depthwise.norm(depthwise.conv(widen(image))))
    means = middle.mean(dim=(2, 3), keepdim=True)
    scale = functional.hardsigmoid(gate.expand(functional.relu(gate.reduce(means))))
    result = image + narrow.norm(narrow.conv(middle * scale))
    assert torch.allclose(module(image), result, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "is_residual", "parts"),
    [
        ("inverted_residual 8->8 at 8x8", True, 3),
        ("inverted_residual 8->8 at 8x8 expansion=1", True, 2),
        ("inverted_residual 8->8 at 8x8 squeeze=2", True, 4),
        ("inverted_residual 8->12 at 8x8", False, 3),
        ("inverted_residual 8->8 stride 2 at 8x8", False, 3),
        ("inverted_residual 8->8 stride 1x2 at 8x8", False, 3),
    ],
)
def test_inverted_residuals_have_the_parts_that_fit(
    text: str, is_residual: bool, parts: int
) -> None:
    module, _ = _built(text)
    assert (module.is_residual, len(module.parts)) == (is_residual, parts)


@torch.no_grad()
def test_depthwise_separable_is_two_convolutions() -> None:
    module, (image,) = _built("depthwise_separable 8->4 stride 2 at 8x9 activation=hswish")
    first, second = module
    assert isinstance(first, ConvNorm)
    assert (first.conv.groups, first.conv.stride, second.conv.kernel_size) == (8, (2, 2), (1, 1))
    middle = functional.hardswish(first.norm(first.conv(image)))
    assert torch.equal(module(image), functional.hardswish(second.norm(second.conv(middle))))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_pytorch_s(name: str) -> None:
    wanted = {
        "none": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6(), "hswish": nn.Hardswish(),
        "silu": nn.SiLU(), "gelu": nn.GELU(),
    }[name]  # fmt: skip
    module, (image,) = _built(f"conv 4->4 at 8x8 activation={name}")
    with torch.no_grad():
        assert torch.equal(module(image), wanted(module.norm(module.conv(image))))


def test_the_options_name_all_activations() -> None:
    for kind, own in KIND_DEFAULTS.items():
        if "activation" in own:
            spec = {"add": "add 4,4->4 at 8x8"}.get(kind, f"{kind} 4->4 at 8x8")
            choices = check(OpSpec.parse(spec)).options["activation"].choices
            assert choices == tuple(ACTIVATIONS)
            assert own["activation"] in choices


@torch.no_grad()
def test_pooling_adding_joining() -> None:
    module, (image,) = _built("max_pool 4->4 stride 2 at 9x8")
    assert torch.equal(module(image), functional.max_pool2d(image, 3, 2, 1))
    module, (image,) = _built("avg_pool 4->4 stride 2x1 at 8x9 kernel_size=2x3")
    expected = functional.avg_pool2d(image, (2, 3), (2, 1), (0, 1), count_include_pad=False)
    assert torch.equal(module(image), expected)
    module, (image,) = _built("global_pool 4->4 at 9x8 out_size=1x1")
    assert torch.allclose(module(image), image.mean(dim=(2, 3), keepdim=True), atol=1e-6)
    module, images = _built("add 4,4,4->4 at 9x8 activation=relu")
    assert torch.equal(module(*images), torch.relu(images[0] + images[1] + images[2]))
    module, images = _built("concat 4,2->6 at 9x8")
    assert torch.equal(module(*images), torch.cat(images, dim=1))


@torch.no_grad()
def test_a_transposed_convolution_is_the_adjoint_of_the_convolution() -> None:
    module, (small,) = _built("transposed_conv 6->4 stride 2 at 5x6 out_size=9x12 activation=none")
    large = torch.randn(1, 4, 9, 12)
    there = functional.conv2d(large, module.conv.weight, stride=2, padding=1)
    back = module.conv(small)
    assert torch.allclose((there * small).sum(), (large * back).sum(), rtol=1e-4)


@torch.no_grad()
def test_linear_reads_pixels_or_the_whole_map() -> None:
    module, (image,) = _built("linear 4->6 at 3x5 batch=2")
    weight, bias = module.linear.weight, module.linear.bias
    assert torch.allclose(module(image), functional.conv2d(image, weight[:, :, None, None], bias),
                          atol=1e-5)  # fmt: skip
    module, (image,) = _built("linear 4->6 at 3x5 out_size=1x1 batch=2 activation=relu")
    expected = torch.relu(module.linear(image.reshape(2, -1)))
    assert torch.allclose(module(image)[:, :, 0, 0], expected, atol=1e-5)


@torch.no_grad()
def test_attention_is_pytorch_s() -> None:
    module, (image,) = _built("attention_block 8->8 at 3x5 heads=2 batch=2 mlp_ratio=3")
    tokens = image.flatten(2).transpose(1, 2)
    reference = nn.MultiheadAttention(8, 2, batch_first=True)
    reference.in_proj_weight.copy_(module.attend.weight)
    reference.in_proj_bias.copy_(module.attend.bias)
    reference.out_proj.load_state_dict(module.project.state_dict())
    normed = module.norm(tokens)
    tokens = tokens + reference(normed, normed, normed)[0]
    wide = functional.gelu(module.widen(module.mlp_norm(tokens)))
    assert wide.shape == (2, 15, 24)
    tokens = tokens + module.narrow(wide)
    assert torch.allclose(module(image).flatten(2).transpose(1, 2), tokens, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("inverted_residual 8->16 stride 2 at 8x8 expansion=2 kernel_size=5",
         8 * 16 * 64 + 16 * 25 * 16 + 16 * 16 * 16),
        ("inverted_residual 8->8 at 8x8 expansion=1 squeeze=4",
         8 * 9 * 64 + 2 * 8 * 2 + 8 * 8 * 64),
        ("depthwise_separable 8->4 at 8x8", 8 * 9 * 64 + 8 * 4 * 64),
        ("conv 8->4 stride 2x1 at 8x8 kernel_size=1x7", 8 * 4 * 7 * 32),
        ("transposed_conv 8->4 stride 2 at 4x4 out_size=8x8", 8 * 4 * 9 * 16),
        ("linear 8->4 at 2x3", 8 * 4 * 6),
        ("linear 8->4 at 2x3 out_size=1x1", 8 * 4 * 6),
        ("attention_block 8->8 at 2x3 heads=2 mlp_ratio=4", 6 * 8 * 32 + 2 * 36 * 8 + 2 * 6 * 256),
        ("add 8,8->8 at 2x3", 0),
        ("max_pool 8->8 at 4x4", 0),
    ],
)  # fmt: skip
def test_multiply_accumulates(text: str, macs: int) -> None:
    assert cost(OpSpec.parse(text)).macs == macs


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inverted_residual 8->8 at 8x8 expansion=0", "at least 1"),
        ("inverted_residual 8->8 at 8x8 squeeze=0", "leave squeeze out"),
        ("inverted_residual 8->8 at 8x8 kernel_size=2", "expected"),
        ("inverted_residual 8->8 at 8x8 activation=swish", "activation is one of none, relu"),
        ("transposed_conv 8->4 stride 2 at 4x4", "can be 7 to 8 high and 7 to 8 wide"),
        ("max_pool 8->4 at 8x8", "gives 8 channels"),
        ("max_pool 8->8 at 8x8 padding=2", "half of the kernel"),
        ("avg_pool 4->4 stride 2x1 at 9x8 kernel_size=2x3", "expected"),
        ("max_pool 8->8 at 8x8 kernel_size=three", "a pair such as 1x7"),
        ("max_pool 8->8 at 8x8 kernel_size=3x3x3", "a whole number or a pair"),
        ("global_pool 8->8 at 8x8", "out_size=1x1"),
        ("add 8,8->8 at 8x8,8x9", "maps of one shape"),
        ("add 8,8->4 at 8x8", "gives 8 channels"),
        ("add 8,8->8 stride 2 at 8x8", "stride 1"),
        ("concat 8,8->8 at 8x8", "gives 16 channels"),
        ("concat 8,8->16 at 8x8,8x9", "one size"),
        ("linear 8->4 stride 2 at 8x8", "stride 1"),
        ("linear 8->4 at 8x8 out_size=2x2", "keeps the size"),
        ("attention_block 8->8 at 8x8 heads=3", "do not divide by 3 heads"),
        ("attention_block 8->4 at 8x8", "gives 8 channels"),
        ("head 8->4 stride 2x1 at 8x8", "no option 'stride_width'"),
    ],
)
def test_impossible_op_specs_say_why(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build(OpSpec.parse(text))


def test_a_table_keeps_them_and_finds_them_again(tmp_path: Path) -> None:
    texts = [
        "conv 8->12 stride 2x1 at 15x17 kernel_size=1x7 padding=0x3",
        "inverted_residual 8->8 at 16x16 squeeze=4",
        "add 8,8->8 at 16x16",
    ]
    engine = FakeEngine()
    identity = identity_of(engine, "cpu", statistic="p10")
    with LatencyTable.create(tmp_path / "t.db", identity) as table:
        Sweep(table, plan_from_ops(texts), engine, SweepSettings(passes=1)).run()
        assert all(OpSpec.parse(text) in table for text in texts)
        assert faults(table) == []
        near = OpSpec.parse("conv 8->12 stride 2x1 at 15x18 kernel_size=1x7 padding=0x3")
        assert table.nearest(near) == OpSpec.parse(texts[0])
