"""The operators: one plain ``nn.Module`` per kind, and the registry that finds them by name.

The same definition is profiled, searched and deployed, so that a table never times another
operator than the one that is trained. The registry is open: anyone can add an operator.

    from latlut.operators import Option, register

    @register("squeeze_excite", options={"reduction": Option()})
    def squeeze_excite(spec: OpSpec) -> nn.Module:
        return MySqueezeExcite(spec.in_channels, int(spec.option("reduction") or 4))

Symbols: B batch, C channels, H height, W width.

Source: FasterSeg, Sec. 3.1.2 and Appendix A; interpolation is bilinear with align_corners=True,
as the authors train it. Where a side is odd, halves are rounded up, so that sizes that are not
multiples of 64 work.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.errors import SpecError, UnknownNameError, did_you_mean
from latlut.opspec import IMAGE, Node, OpSpec, check_graph


@dataclass(frozen=True)
class Option:
    """An option that an operator understands; ``choices`` are the words that it may be.

    What it means where it is left out is the builder's to say (``spec.option(name)`` is None
    then, or its value in ``latlut.opspec.OPTION_DEFAULTS``).
    """

    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operator:
    """A registered operator: how to build it and what its op specs may say."""

    kind: str
    builder: Callable[[OpSpec], nn.Module]
    options: dict[str, Option] = field(default_factory=dict)
    min_inputs: int = 1
    max_inputs: int = 1


_REGISTRY: dict[str, Operator] = {}


def register(
    kind: str,
    *,
    options: dict[str, Option] | None = None,
    min_inputs: int = 1,
    max_inputs: int | None = None,
) -> Callable[[Callable[[OpSpec], nn.Module]], Callable[[OpSpec], nn.Module]]:
    """Decorator that makes ``builder(spec) -> nn.Module`` known under ``kind``.

    The module's ``forward`` takes one (B, C, H, W) float tensor per input of the op spec and
    returns (B, out_channels, *spec.out_size); ``build`` checks it.

    Args:
        kind: lower-case word, the operator's name in op specs.
        options: the options that change its graph; an op spec with any other is refused.
        min_inputs: fewest input maps.
        max_inputs: most input maps; ``min_inputs`` if not given.

    Raises:
        SpecError: the name is taken by another builder.
    """

    def add(builder: Callable[[OpSpec], nn.Module]) -> Callable[[OpSpec], nn.Module]:
        known = _REGISTRY.get(kind)
        source = (builder.__module__, builder.__qualname__)
        if known and (known.builder.__module__, known.builder.__qualname__) != source:
            raise SpecError(
                f"operator {kind!r} is already registered by {known.builder.__module__}"
            )
        _REGISTRY[kind] = Operator(
            kind, builder, dict(options or {}), min_inputs, max_inputs or min_inputs
        )
        return builder

    return add


def operator_kinds() -> list[str]:
    """Names of all registered operators."""
    return sorted(_REGISTRY)


def check(spec: OpSpec) -> Operator:
    """The operator that ``spec`` names, after checking inputs and options against it.

    Raises:
        UnknownNameError: no such operator.
        SpecError: the wrong number of inputs, or an option or choice it does not have.
    """
    operator = _REGISTRY.get(spec.kind)
    if operator is None:
        raise UnknownNameError(
            f"unknown operator {spec.kind!r} in {spec.key!r}: "
            f"{did_you_mean(spec.kind, operator_kinds())}"
        )
    if not operator.min_inputs <= len(spec.inputs) <= operator.max_inputs:
        wanted = f"{operator.min_inputs} to {operator.max_inputs}"
        raise SpecError(f"{spec.key}: {spec.kind} takes {wanted} inputs, got {len(spec.inputs)}")
    for name, value in spec.options:
        option = operator.options.get(name)
        if option is None:
            known = ", ".join(sorted(operator.options)) or "none"
            raise SpecError(f"{spec.key}: {spec.kind} has no option {name!r}; it has: {known}")
        if option.choices and value not in option.choices:
            raise SpecError(
                f"{spec.key}: {name} is one of {', '.join(option.choices)}, received {value!r}"
            )
    return operator


def build(spec: OpSpec, seed: int = 0) -> nn.Module:
    """The operator as a plain module in evaluation mode, with seeded Kaiming weights.

    Takes (B, C, H, W) per input of ``spec``, returns (B, out_channels, *spec.out_size), float32.

    Raises:
        UnknownNameError, SpecError: see ``check``; also a builder whose output has another shape.
    """
    operator = check(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = operator.builder(spec)
    if not isinstance(module, nn.Module):
        raise SpecError(f"{spec.key}: the builder returned {type(module).__name__}, not a Module")
    _run_on_meta(spec)
    initialise(module, seed)
    return module.eval()


def _run_on_meta(spec: OpSpec) -> tuple[nn.Module, list[Tensor], int]:
    """Run the operator without data: (module, inputs, multiply-accumulates).

    Raises:
        SpecError: it cannot be run, or gives another shape than the op spec says.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad():
        module = check(spec).builder(spec).eval()
        maps = [torch.empty(spec.batch, *shape) for shape in spec.inputs]
        try:
            with FlopCounterMode(display=False) as counter:
                found = tuple(module(*maps).shape)
        except RuntimeError as error:
            raise SpecError(f"{spec.key}: cannot be run: {error}") from error
    if found != (spec.batch, *spec.output):
        raise SpecError(f"{spec.key}: gives {found}, expected {(spec.batch, *spec.output)}")
    return module, maps, counter.get_total_flops() // 2


def initialise(module: nn.Module, seed: int) -> None:
    """Fill weights from a seeded generator: Kaiming (fan in) for convolutions, so that maps of
    deep random networks stay in the normal float range (denormals would slow a CPU down)."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            fan_in = part.weight[0].numel()
            with torch.no_grad():
                part.weight.uniform_(-1, 1, generator=generator).mul_((6.0 / fan_in) ** 0.5)
                if part.bias is not None:
                    part.bias.uniform_(-0.1, 0.1, generator=generator)


def source_digest(specs: Sequence[OpSpec]) -> str:
    """Hash of the source files that define these operators; part of a cached graph's name."""
    modules = {check(spec).builder.__module__ for spec in specs}
    digest = hashlib.sha256()
    for name in sorted(modules):
        digest.update(_source(name))
    return digest.hexdigest()


@cache
def _source(module_name: str) -> bytes:
    return inspect.getsource(sys.modules[module_name]).encode()


@dataclass(frozen=True)
class Cost:
    """What an operator must compute and move at least, for the roofline beside its latency."""

    macs: int
    params: int
    moved_bytes: int  # inputs, weights and outputs once each, float32


def cost(spec: OpSpec) -> Cost:
    """Multiply-accumulates, parameters and least memory traffic of one inference."""
    module, maps, macs = _run_on_meta(spec)
    weights = sum(parameter.numel() for parameter in module.parameters())
    elements = sum(item.numel() for item in maps) + spec.batch * _elements(spec.output)
    return Cost(macs, weights, 4 * (elements + weights))


def _elements(shape: tuple[int, int, int]) -> int:
    channels, height, width = shape
    return channels * height * width


class Network(nn.Module):
    """A whole network from its graph of op specs; runs each node once, in order.

    Args:
        nodes: the graph; ``latlut.opspec.check_graph`` must accept it.
        seed: for the weights.

    Takes the image (B, C, H, W), returns the last node's output.
    """

    def __init__(self, nodes: Sequence[Node], seed: int = 0) -> None:
        super().__init__()
        check_graph(nodes)
        self.nodes = tuple(nodes)
        self.operators = nn.ModuleList(
            build(node.spec, seed + index) for index, node in enumerate(self.nodes)
        )
        last_use = {name: index for index, n in enumerate(self.nodes) for name in n.inputs}
        self._last_use = last_use

    def op_specs(self) -> tuple[OpSpec, ...]:
        """One op spec per executed node."""
        return tuple(node.spec for node in self.nodes)

    def forward(self, image: Tensor) -> Tensor:
        maps = {IMAGE: image}
        result = image
        for index, (node, operator) in enumerate(zip(self.nodes, self.operators, strict=True)):
            result = operator(*(maps[name] for name in node.inputs))
            maps[node.name] = result
            for name in node.inputs:
                if self._last_use[name] == index:
                    maps.pop(name, None)
        return result


# ---- the modules ---------------------------------------------------------------------------


class ConvNorm(nn.Module):
    """Convolution, batch norm and, unless told otherwise, ReLU; inputs are concatenated first."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        padding: int | None = None,
        is_activated: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise SpecError(
                f"{in_channels}->{out_channels} channels do not divide by {groups} groups"
            )
        pad = dilation * (kernel_size - 1) // 2 if padding is None else padding
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, pad, dilation, groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.is_activated = is_activated

    def forward(self, *maps: Tensor) -> Tensor:
        joined = torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]
        result = self.norm(self.conv(joined))
        return functional.relu(result) if self.is_activated else result


def resize(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """(B, C, H, W) resized to ``size``; bilinear with aligned corners, or nearest."""
    if mode == "nearest":
        return functional.interpolate(image, size=size, mode="nearest")
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=True)


class ZoomedConv(nn.Module):
    """Halve the map, convolve, enlarge it again where the stride is 1, ReLU last.

    Source: FasterSeg, Sec. 3.1.2. With several convolutions ("zoomed conv. x2") there is a ReLU
    between them.
    """

    def __init__(self, convolutions: nn.Sequential, stride: int, mode: str) -> None:
        super().__init__()
        self.convolutions = convolutions
        self.stride = stride
        self.mode = mode

    def forward(self, image: Tensor) -> Tensor:
        height, width = int(image.shape[-2]), int(image.shape[-1])
        small = resize(image, ((height + 1) // 2, (width + 1) // 2), self.mode)
        result = self.convolutions(small)
        if self.stride == 1:
            result = resize(result, (height, width), self.mode)
        return functional.relu(result)


class FactorizedReduce(nn.Module):
    """Two 1x1 stride-2 convolutions, the second on the input shifted by one pixel, joined."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.even = nn.Conv2d(in_channels, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - half, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, image: Tensor) -> Tensor:
        height, width = int(image.shape[-2]), int(image.shape[-1])
        shifted = image[:, :, 1:, 1:]
        if height % 2 or width % 2:  # an odd side loses its last odd pixel: pad it back
            shifted = functional.pad(shifted, (0, width % 2, 0, height % 2))
        joined = torch.cat([self.even(image), self.odd(shifted)], dim=1)
        return functional.relu(self.norm(joined))


class Refine(nn.Module):
    """1x1 down in channels, enlarge to the finer map, concatenate with it, 3x3.

    Takes the coarse map (B, C1, h, w) and the finer one (B, C2, H, W), returns (B, out, H, W).
    Source: FasterSeg, Appendix A (head module).
    """

    def __init__(
        self, coarse_channels: int, fine_channels: int, out_channels: int, mode: str
    ) -> None:
        super().__init__()
        self.reduce = ConvNorm(coarse_channels, out_channels, kernel_size=1)
        self.merge = ConvNorm(out_channels + fine_channels, out_channels)
        self.mode = mode

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        size = (int(fine.shape[-2]), int(fine.shape[-1]))
        return self.merge(resize(self.reduce(coarse), size, self.mode), fine)


class Head(nn.Module):
    """3x3 to as many channels (half of them above 256), then a biased 1x1 to the classes."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        middle = in_channels if in_channels <= 256 else in_channels // 2
        self.conv = ConvNorm(in_channels, middle)
        self.classify = nn.Conv2d(middle, num_classes, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        return self.classify(self.conv(*maps))


class Upsample(nn.Module):
    """Enlarge the map to a fixed size."""

    def __init__(self, size: tuple[int, int], mode: str) -> None:
        super().__init__()
        self.size = size
        self.mode = mode

    def forward(self, image: Tensor) -> Tensor:
        return resize(image, self.size, self.mode)


# ---- their builders ------------------------------------------------------------------------

_KERNEL = {
    "kernel_size": Option(),
    "groups": Option(),
    "dilation": Option(),
    "padding": Option(),
}
_INTERPOLATION = {"interpolation": Option(("bilinear", "nearest"))}


def _integer(spec: OpSpec, name: str) -> int | None:
    value = spec.option(name)
    if value is not None and not isinstance(value, int):
        raise SpecError(f"{spec.key}: {name} is a whole number, received {value!r}")
    return value


def _mode(spec: OpSpec) -> str:
    return str(spec.option("interpolation"))


def _conv_norm(spec: OpSpec, in_channels: int, stride: int, is_activated: bool = True) -> ConvNorm:
    return ConvNorm(
        in_channels,
        spec.out_channels,
        kernel_size=_integer(spec, "kernel_size") or 1,
        stride=stride,
        groups=_integer(spec, "groups") or 1,
        dilation=_integer(spec, "dilation") or 1,
        padding=_integer(spec, "padding"),
        is_activated=is_activated,
    )


@register("conv", options=_KERNEL, max_inputs=8)
def conv(spec: OpSpec) -> nn.Module:
    """Convolution, batch norm, ReLU."""
    return _conv_norm(spec, spec.in_channels, spec.stride)


@register("conv_2x", options=_KERNEL)
def conv_2x(spec: OpSpec) -> nn.Module:
    """Twice convolution, batch norm, ReLU; the first carries the stride. No residual."""
    return nn.Sequential(
        _conv_norm(spec, spec.in_channels, spec.stride),
        _conv_norm(spec, spec.out_channels, 1),
    )


def _check_zoom(spec: OpSpec) -> None:
    if spec.stride not in (1, 2):
        raise SpecError(f"{spec.key}: {spec.kind} has stride 1 or 2")


@register("zoomed_conv", options=_KERNEL | _INTERPOLATION)
def zoomed_conv(spec: OpSpec) -> nn.Module:
    """Halve, convolve, enlarge (stride 1 only), ReLU."""
    _check_zoom(spec)
    inner = nn.Sequential(_conv_norm(spec, spec.in_channels, 1, is_activated=False))
    return ZoomedConv(inner, spec.stride, _mode(spec))


@register("zoomed_conv_2x", options=_KERNEL | _INTERPOLATION)
def zoomed_conv_2x(spec: OpSpec) -> nn.Module:
    """Halve, convolve twice, enlarge (stride 1 only), ReLU."""
    _check_zoom(spec)
    inner = nn.Sequential(
        _conv_norm(spec, spec.in_channels, 1),
        _conv_norm(spec, spec.out_channels, 1, is_activated=False),
    )
    return ZoomedConv(inner, spec.stride, _mode(spec))


@register("skip", options={"form": Option(("derived", "searched", "identity", "single"))})
def skip(spec: OpSpec) -> nn.Module:
    """Skip connection, in one of its forms.

    ``derived``: an identity at stride 1, two joined 1x1 convolutions at stride 2.
    ``searched``: a 1x1 convolution at stride 1, what trains while searching.
    ``identity``: an identity. ``single``: one 1x1 convolution, what the FasterSeg authors timed.
    """
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


@register("refine", options=_INTERPOLATION, min_inputs=2)
def refine(spec: OpSpec) -> nn.Module:
    """Bring a coarse map up to a finer one and merge them."""
    (coarse, _, _), (fine, _, _) = spec.inputs
    return Refine(coarse, fine, spec.out_channels, _mode(spec))


@register("fusion", max_inputs=8)
def fusion(spec: OpSpec) -> nn.Module:
    """Concatenate the branches, 1x1 convolution, batch norm, ReLU."""
    return ConvNorm(spec.in_channels, spec.out_channels, kernel_size=1)


@register("head", max_inputs=8)
def head(spec: OpSpec) -> nn.Module:
    """Class logits from the fused map."""
    return Head(spec.in_channels, spec.out_channels)


@register("upsample", options={"out_size": Option()} | _INTERPOLATION)
def upsample(spec: OpSpec) -> nn.Module:
    """Enlarge a map to ``out_size``, the logits to the image's size for instance."""
    if spec.in_channels != spec.out_channels:
        raise SpecError(f"{spec.key}: upsample keeps the number of channels")
    return Upsample(spec.out_size, _mode(spec))
