"""The built-in operators: what each kind is, and a builder of its plain ``nn.Module``.

The same definition is profiled, searched and deployed, so that a table never times another
operator than the one that is trained. The builders import torch, this file does not: pricing asks
what a kind is without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from latlut.errors import SpecError
from latlut.operators.alternatives import (
    concatenated,
    other_interpolation,
    refinement_parts,
    single_convolution,
)
from latlut.operators.registry import Option, register
from latlut.opspec import OpSpec

if TYPE_CHECKING:
    from torch import nn

#: As ``modules.ACTIVATIONS``, which needs torch.
ACTIVATION = {"activation": Option(("none", "relu", "relu6", "hswish", "silu", "gelu"))}
_KERNEL = dict.fromkeys(("kernel_size", "groups", "dilation", "padding"), Option())
STRIDE = {"stride_width": Option()}
_INTERPOLATION = {"interpolation": Option(("bilinear", "nearest"))}


def whole_option(spec: OpSpec, name: str) -> int | None:
    """An option that is a whole number; None where it was left out and has no default."""
    value = spec.option(name)
    if value is not None and not isinstance(value, int):
        raise SpecError(f"{spec.key}: {name} is a whole number, received {value!r}")
    return value


def sides_option(spec: OpSpec, name: str) -> int | tuple[int, int] | None:
    """An option that is one number, or a pair: height x width."""
    value = spec.option(name)
    if isinstance(value, tuple) and len(value) == 2:
        return value[0], value[1]
    if isinstance(value, (tuple, str)):
        raise SpecError(f"{spec.key}: {name} is a whole number or a pair such as 1x7")
    return value


def _mode(spec: OpSpec) -> str:
    return str(spec.option("interpolation"))


def _conv_norm(
    spec: OpSpec, in_channels: int, stride: int | tuple[int, int], is_activated: bool = True
) -> nn.Module:
    from latlut.operators.modules import ConvNorm

    return ConvNorm(
        in_channels,
        spec.out_channels,
        kernel_size=sides_option(spec, "kernel_size") or 1,
        stride=stride,
        groups=whole_option(spec, "groups") or 1,
        dilation=sides_option(spec, "dilation") or 1,
        padding=sides_option(spec, "padding"),
        is_activated=is_activated,
        activation=str(spec.option("activation") or "relu"),
    )


@register("conv", options=_KERNEL | STRIDE | ACTIVATION, max_inputs=8, alternatives=[concatenated])
def conv(spec: OpSpec) -> nn.Module:
    """Convolution, batch norm, activation."""
    return _conv_norm(spec, spec.in_channels, spec.strides)


@register("conv_2x", options=_KERNEL | STRIDE | ACTIVATION)
def conv_2x(spec: OpSpec) -> nn.Module:
    """Twice convolution, batch norm, activation; the first carries the stride. No residual."""
    from torch import nn

    return nn.Sequential(
        _conv_norm(spec, spec.in_channels, spec.strides),
        _conv_norm(spec, spec.out_channels, 1),
    )


def _check_zoom(spec: OpSpec) -> None:
    if spec.stride not in (1, 2):
        raise SpecError(f"{spec.key}: {spec.kind} has stride 1 or 2")


@register("zoomed_conv", options=_KERNEL | _INTERPOLATION, alternatives=[other_interpolation])
def zoomed_conv(spec: OpSpec) -> nn.Module:
    """Halve, convolve, enlarge (stride 1 only), ReLU."""
    from latlut.operators.modules import ZoomedConv

    _check_zoom(spec)
    inner = [_conv_norm(spec, spec.in_channels, 1, is_activated=False)]
    return ZoomedConv(inner, spec.stride, _mode(spec))


@register("zoomed_conv_2x", options=_KERNEL | _INTERPOLATION, alternatives=[other_interpolation])
def zoomed_conv_2x(spec: OpSpec) -> nn.Module:
    """Halve, convolve twice, enlarge (stride 1 only), ReLU."""
    from latlut.operators.modules import ZoomedConv

    _check_zoom(spec)
    inner = [
        _conv_norm(spec, spec.in_channels, 1),
        _conv_norm(spec, spec.out_channels, 1, is_activated=False),
    ]
    return ZoomedConv(inner, spec.stride, _mode(spec))


@register(
    "skip",
    options={"form": Option(("derived", "searched", "identity", "single"))},
    alternatives=[single_convolution],
)
def skip(spec: OpSpec) -> nn.Module:
    """Skip connection, in one of its forms.

    ``derived``: an identity at stride 1, two joined 1x1 convolutions at stride 2.
    ``searched``: a 1x1 convolution at stride 1, what trains while searching.
    ``identity``: an identity. ``single``: one 1x1 convolution, what the FasterSeg authors timed.
    """
    from torch import nn

    from latlut.operators.modules import ConvNorm, FactorizedReduce

    form = spec.option("form")
    if spec.stride not in (1, 2):
        raise SpecError(f"{spec.key}: skip has stride 1 or 2")
    if form == "identity" or (form == "derived" and spec.stride == 1):
        if spec.stride != 1 or spec.in_channels != spec.out_channels:
            raise SpecError(
                f"{spec.key}: an identity keeps channels and size; "
                "while searching a stride-1 skip is form=searched"
            )
        return nn.Identity()
    if form == "derived":
        return FactorizedReduce(spec.in_channels, spec.out_channels)
    if form == "searched" and spec.stride == 2:
        raise SpecError(f"{spec.key}: at stride 2 the searched skip is the derived one")
    return ConvNorm(spec.in_channels, spec.out_channels, kernel_size=1, stride=spec.stride)


@register(
    "refine",
    options=_INTERPOLATION,
    min_inputs=2,
    alternatives=[other_interpolation, refinement_parts],
)
def refine(spec: OpSpec) -> nn.Module:
    """Bring a coarse map up to a finer one and merge them."""
    from latlut.operators.modules import Refine

    (coarse, _, _), (fine, _, _) = spec.inputs
    return Refine(coarse, fine, spec.out_channels, _mode(spec))


@register("fusion", max_inputs=8, alternatives=[concatenated])
def fusion(spec: OpSpec) -> nn.Module:
    """Concatenate the branches, 1x1 convolution, batch norm, ReLU."""
    from latlut.operators.modules import ConvNorm

    return ConvNorm(spec.in_channels, spec.out_channels, kernel_size=1)


@register("head", max_inputs=8, alternatives=[concatenated])
def head(spec: OpSpec) -> nn.Module:
    """Class logits from the fused map."""
    from latlut.operators.modules import Head

    return Head(spec.in_channels, spec.out_channels)


@register(
    "upsample",
    options={"out_size": Option()} | _INTERPOLATION,
    is_last=True,
    alternatives=[other_interpolation],
)
def upsample(spec: OpSpec) -> nn.Module:
    """Enlarge a map to ``out_size``, the logits to the image's size for instance."""
    from latlut.operators.modules import Upsample

    if spec.in_channels != spec.out_channels:
        raise SpecError(f"{spec.key}: upsample keeps the number of channels")
    return Upsample(spec.out_size, _mode(spec))
