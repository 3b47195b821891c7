"""Built-in operators that mobile networks, residual networks and transformers share.

As in ``operators.builtin``, only the builders import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latlut.errors import SpecError
from latlut.operators.builtin import ACTIVATION, STRIDE, sides_option, whole_option
from latlut.operators.registry import Option, register
from latlut.opspec import OpSpec

if TYPE_CHECKING:
    from torch import nn

_WINDOW = {"kernel_size": Option(), "padding": Option()} | STRIDE


def _activation(spec: OpSpec) -> str:
    return str(spec.option("activation"))


def _check_channels(spec: OpSpec, wanted: int) -> None:
    if spec.out_channels != wanted:
        raise SpecError(f"{spec.key}: {spec.kind} gives {wanted} channels")


def _check_equal_sizes(spec: OpSpec) -> None:
    if len({shape[1:] for shape in spec.inputs}) > 1:
        raise SpecError(f"{spec.key}: {spec.kind} takes maps of one size")


def _check_stride_1(spec: OpSpec) -> None:
    if spec.strides != (1, 1):
        raise SpecError(f"{spec.key}: {spec.kind} has stride 1")


@register("depthwise_separable", options={"kernel_size": Option()} | STRIDE | ACTIVATION)
def depthwise_separable(spec: OpSpec) -> nn.Module:
    """Depthwise convolution with the stride, then 1x1; each with batch norm and activation."""
    from torch import nn

    from latlut.operators.modules import ConvNorm

    channels, name = spec.in_channels, _activation(spec)
    kernel_size = sides_option(spec, "kernel_size") or 1
    return nn.Sequential(
        ConvNorm(channels, channels, kernel_size, spec.strides, channels, activation=name),
        ConvNorm(channels, spec.out_channels, kernel_size=1, activation=name),
    )


@register(
    "inverted_residual",
    options=dict.fromkeys(("kernel_size", "expansion", "squeeze"), Option()) | STRIDE | ACTIVATION,
)
def inverted_residual(spec: OpSpec) -> nn.Module:
    """1x1 expansion, depthwise, squeeze and excitation if asked for, 1x1; residual if it fits."""
    from latlut.operators.blocks import InvertedResidual

    expansion, reduction = whole_option(spec, "expansion"), whole_option(spec, "squeeze")
    if not expansion or reduction == 0:
        raise SpecError(
            f"{spec.key}: expansion and squeeze are at least 1; leave squeeze out for no "
            "squeeze and excitation"
        )
    return InvertedResidual(
        spec.in_channels,
        spec.out_channels,
        sides_option(spec, "kernel_size") or 1,
        spec.strides,
        expansion,
        reduction,
        _activation(spec),
    )


@register(
    "transposed_conv",
    options=dict.fromkeys(("kernel_size", "groups", "padding", "out_size"), Option())
    | STRIDE
    | ACTIVATION,
)
def transposed_conv(spec: OpSpec) -> nn.Module:
    """Transposed convolution that enlarges by the stride, batch norm, activation."""
    from latlut.operators.blocks import TransposedConv
    from latlut.operators.modules import pair, same_padding

    kernel = pair(sides_option(spec, "kernel_size") or 1)
    padding = sides_option(spec, "padding")
    pads = same_padding(kernel) if padding is None else pair(padding)
    sides = list(zip(spec.inputs[0][1:], spec.strides, kernel, pads, strict=True))
    least = [(side - 1) * stride - 2 * pad + size for side, stride, size, pad in sides]
    extra = [wanted - own for wanted, own in zip(spec.out_size, least, strict=True)]
    if any(not 0 <= more < stride for more, stride in zip(extra, spec.strides, strict=True)):
        ends = [f"{own} to {own + s - 1}" for own, s in zip(least, spec.strides, strict=True)]
        raise SpecError(
            f"{spec.key}: give out_size=HEIGHTxWIDTH, it can be {ends[0]} high and {ends[1]} wide"
        )
    return TransposedConv(
        spec.in_channels,
        spec.out_channels,
        kernel,
        spec.strides,
        whole_option(spec, "groups") or 1,
        pads,
        (extra[0], extra[1]),
        _activation(spec),
    )


def _pool(spec: OpSpec, is_max: bool) -> nn.Module:
    from latlut.operators.blocks import Pool
    from latlut.operators.modules import pair, same_padding

    _check_channels(spec, spec.in_channels)
    kernel = pair(sides_option(spec, "kernel_size") or 1)
    padding = sides_option(spec, "padding")
    pads = same_padding(kernel) if padding is None else pair(padding)
    if any(2 * pad > size for pad, size in zip(pads, kernel, strict=True)):
        raise SpecError(f"{spec.key}: the padding is at most half of the kernel")
    return Pool(is_max, kernel, spec.strides, pads)


@register("max_pool", options=_WINDOW)
def max_pool(spec: OpSpec) -> nn.Module:
    """Maximum over windows."""
    return _pool(spec, is_max=True)


@register("avg_pool", options=_WINDOW)
def avg_pool(spec: OpSpec) -> nn.Module:
    """Mean over windows, without what was padded."""
    return _pool(spec, is_max=False)


@register("global_pool", options={"out_size": Option()})
def global_pool(spec: OpSpec) -> nn.Module:
    """Mean over the whole map."""
    from torch import nn

    _check_channels(spec, spec.in_channels)
    if spec.out_size != (1, 1):
        raise SpecError(f"{spec.key}: global_pool gives one pixel: write out_size=1x1")
    return nn.AdaptiveAvgPool2d(1)


@register("add", options=ACTIVATION, min_inputs=2, max_inputs=8)
def add(spec: OpSpec) -> nn.Module:
    """Sum of maps of one shape, activation."""
    from latlut.operators.blocks import Add

    _check_stride_1(spec)
    if len(set(spec.inputs)) > 1:
        raise SpecError(f"{spec.key}: add takes maps of one shape")
    _check_channels(spec, spec.inputs[0][0])
    return Add(_activation(spec))


@register("concat", min_inputs=2, max_inputs=8)
def concat(spec: OpSpec) -> nn.Module:
    """Maps of one size, their channels one after another."""
    from latlut.operators.blocks import Concat

    _check_stride_1(spec)
    _check_equal_sizes(spec)
    _check_channels(spec, spec.in_channels)
    return Concat()


@register("linear", options={"out_size": Option()} | ACTIVATION)
def linear(spec: OpSpec) -> nn.Module:
    """Linear layer with bias: each pixel for itself, or the whole map with ``out_size=1x1``."""
    from latlut.operators.blocks import Linear

    _check_stride_1(spec)
    channels, height, width = spec.inputs[0]
    if spec.out_size == (1, 1):
        return Linear(channels * height * width, spec.out_channels, True, _activation(spec))
    if spec.out_size != (height, width):
        raise SpecError(f"{spec.key}: linear keeps the size, or reads all of it with out_size=1x1")
    return Linear(channels, spec.out_channels, False, _activation(spec))


@register("attention_block", options=dict.fromkeys(("heads", "mlp_ratio"), Option()) | ACTIVATION)
def attention_block(spec: OpSpec) -> nn.Module:
    """Self-attention over the pixels of a map and, with ``mlp_ratio``, an MLP; both residual."""
    from latlut.operators.blocks import AttentionBlock

    _check_stride_1(spec)
    _check_channels(spec, spec.in_channels)
    heads, ratio = whole_option(spec, "heads") or 0, whole_option(spec, "mlp_ratio") or 0
    if heads < 1 or spec.in_channels % heads:
        raise SpecError(f"{spec.key}: {spec.in_channels} channels do not divide by {heads} heads")
    return AttentionBlock(spec.in_channels, heads, ratio, _activation(spec))
