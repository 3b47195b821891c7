"""Superkernels: a slice is the plain operator of that width, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from latlut.errors import SpecError
from latlut.operators.building import build
from latlut.operators.modules import ConvNorm, FactorizedReduce
from latlut.opspec import OpSpec
from latlut.search.supernet.superkernel import ConvPair, MixedOperator, Superkernel, WidthNorm
from latlut.spaces.architecture import OPERATORS

WIDTHS = (2, 5, 6)
IN_CHANNELS = 7


def _mixed(stride: int, names: tuple[str, ...] = OPERATORS) -> MixedOperator:
    """All weights, norms and statistics random, so that no two slices agree by chance."""
    mixed = MixedOperator(names, IN_CHANNELS, WIDTHS, stride)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (*mixed.parameters(), *mixed.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0, generator=generator)
        for part in mixed.modules():
            if isinstance(part, Superkernel):
                part.initialise(generator)
    return mixed


def _copy(
    kernel: Superkernel, norms: WidthNorm, index: int, conv: nn.Conv2d, norm: nn.BatchNorm2d
) -> None:
    """Written out once more, so that a wrong slice in ``sliced`` is seen."""
    stacked = kernel.weight.unflatten(0, (kernel.count, -1))
    out = norm.num_features
    source = norms.norms[str(out)]
    with torch.no_grad():
        conv.weight.copy_(stacked[index][: conv.out_channels][:, : conv.in_channels])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name).copy_(getattr(source, name).view(norms.count, out)[index])


def _plain(mixed: MixedOperator, name: str, inputs: int, out: int) -> nn.Module:
    form = {"form": "searched"} if name == "skip" and mixed.stride == 1 else {}
    plain = build(OpSpec(name, (inputs, 8, 8), out, stride=mixed.stride, **form))
    if isinstance(plain, FactorizedReduce):
        skip = mixed.skip
        _copy(skip.even, skip.norm, 0, plain.even, plain.norm)
        _copy(skip.odd, skip.norm, 0, plain.odd, plain.norm)
        return plain
    steps = [part for part in plain.modules() if isinstance(part, ConvNorm)]
    if name == "skip":
        _copy(mixed.skip.conv, mixed.skip.norm, 0, steps[0].conv, steps[0].norm)
        return plain
    pair = mixed.zoomed if name.startswith("zoomed") else mixed.direct
    index = min(len(steps), pair.first.norm.count) - 1
    _copy(pair.first.conv, pair.first.norm, index, steps[0].conv, steps[0].norm)
    if len(steps) == 2:
        _copy(pair.second.conv, pair.second.norm, 0, steps[1].conv, steps[1].norm)
    return plain


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (9, 5), (1, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_each_slice_is_the_plain_operator(
    stride: int, size: tuple[int, int], is_training: bool
) -> None:
    for inputs in (3, IN_CHANNELS):
        for out in WIDTHS:
            mixed = _mixed(stride).train(is_training)
            image = torch.randn(3, inputs, *size)
            plains = [_plain(mixed, name, inputs, out).train(is_training) for name in OPERATORS]
            together = mixed(image, out)
            for name, plain, found in zip(OPERATORS, plains, together, strict=True):
                expected = plain(image)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
                if not is_training:
                    (alone,) = mixed(image, out, wanted=[name])
                    torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("names", [("conv",), ("zoomed_conv_2x", "conv_2x"), ("conv_2x", "skip")])
def test_a_choice_of_operators(names: tuple[str, ...], stride: int) -> None:
    mixed = _mixed(stride, names).eval()
    image = torch.randn(2, IN_CHANNELS, 7, 8)
    for name, found in zip(names, mixed(image, 5), strict=True):
        torch.testing.assert_close(
            found, _plain(mixed, name, IN_CHANNELS, 5)(image), rtol=1e-4, atol=1e-5
        )


def test_a_one_hot_kernel_picks_its_channels() -> None:
    kernel = Superkernel(4, 3, kernel_size=1, count=2)
    image = torch.randn(1, 4, 2, 2)
    for index in range(2):
        for out in range(3):
            for inputs in range(4):
                with torch.no_grad():
                    kernel.weight.zero_().view(2, 3, 4)[index, out, inputs] = 1.0
                for width in range(1, 4):
                    for given in range(1, 5):
                        found = kernel(image[:, :given], width).view(2, width, 2, 2)
                        expected = torch.zeros_like(found)
                        if out < width and inputs < given:
                            expected[index, out] = image[0, inputs]
                        assert torch.equal(found, expected)
                        assert torch.equal(
                            kernel(image[:, :given], width, only=index)[0], expected[index]
                        )


def test_gradients_stay_in_the_slice_and_are_the_plain_operators() -> None:
    mixed = _mixed(1)
    image = torch.randn(2, 3, 6, 6)
    plain = _plain(mixed, "conv", 3, 5).train()
    (found,) = mixed(image, 5, wanted=["conv"])
    (expected,) = (plain(image),)
    direction = torch.randn_like(found)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    stacked = mixed.direct.first.conv.weight.grad.unflatten(0, (2, -1))
    torch.testing.assert_close(stacked[0, :5, :3], plain.conv.weight.grad, rtol=1e-4, atol=1e-5)
    assert stacked[0, :5, :3].abs().sum() > 0
    stacked[0, :5, :3] = 0
    assert not stacked.any()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_several_widths_add_up_as_autograds_own_do(
    memory_format: torch.memory_format,
) -> None:
    kernel = Superkernel(4, 3, count=2)
    kernel.initialise(torch.Generator().manual_seed(0))
    kernel.to(memory_format=memory_format)
    weight = kernel.weight.detach().clone().requires_grad_()
    image = torch.randn(2, 4, 5, 6)
    parts: list[tuple[int, int, int | None]] = [(1, 4, None), (3, 4, None), (2, 3, 1), (3, 4, 0)]
    for out, inputs, only in parts:  # a gradient each, as one backward pass after another gives
        kernels = slice(None) if only is None else slice(only, only + 1)
        plain = weight.unflatten(0, (2, 3))[kernels, :out, :inputs].flatten(0, 1)
        expected = torch.nn.functional.conv2d(image[:, :inputs], plain, padding=1)
        found = kernel(image[:, :inputs], out, only)
        direction = torch.randn_like(expected)
        (expected * direction).sum().backward()
        (found * direction).sum().backward()
        assert weight.grad is not None
        assert kernel.weight.grad is not None
        torch.testing.assert_close(kernel.weight.grad, weight.grad)
        assert kernel.weight.grad.stride() == kernel.weight.stride()


def test_a_frozen_kernel_gets_no_gradient() -> None:
    kernel = Superkernel(4, 3)
    nn.init.normal_(kernel.weight)
    kernel.weight.requires_grad_(False)
    image = torch.randn(1, 2, 5, 5, requires_grad=True)
    kernel(image, 2).sum().backward()
    assert image.grad is not None
    assert kernel.weight.grad is None


@pytest.mark.parametrize("only", [None, 0, 1])
def test_statistics_move_for_the_used_width_alone(only: int | None) -> None:
    pair = ConvPair(True, True, 4, WIDTHS)
    nn.init.normal_(pair.first.conv.weight)
    before = {name: tensor.clone() for name, tensor in pair.first.norm.state_dict().items()}
    pair.first(torch.randn(2, 4, 5, 5), 5, only)
    after = pair.first.norm.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert {name for name in moved if "num_batches" not in name} == {
        "norms.5.running_mean",
        "norms.5.running_var",
    }
    halves = (after["norms.5.running_mean"] - before["norms.5.running_mean"]).view(2, 5)
    assert [bool(half.any()) for half in halves] == [only in (None, 0), only in (None, 1)]


def test_channels_that_are_not_there() -> None:
    with pytest.raises(SpecError, match="7->6 channels cannot be sliced to 8->6"):
        Superkernel(7, 6)(torch.randn(1, 8, 4, 4), 6)
    with pytest.raises(SpecError, match="norms for 2, 5, 6 channels, received 3"):
        _mixed(1)(torch.randn(1, 4, 4, 4), 3)


def test_the_computation_keeps_channels_last() -> None:
    mixed = _mixed(2).to(memory_format=torch.channels_last).eval()
    image = torch.randn(2, IN_CHANNELS, 8, 8)
    expected = _mixed(2).eval()(image, 5)
    found = mixed(image.to(memory_format=torch.channels_last), 5)
    for one, other in zip(found, expected, strict=True):
        assert one.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
