"""Superkernels: convolutions and norms whose numbers of channels are chosen at every call.

One kernel holds every width: a narrower one is the slice ``weight[:out, :in]``, and each output
width has a batch norm of its own, since the statistics of a map change with its width. The widths
are arguments of ``forward`` (the input's channels say the input width); nothing is switched.

``MixedOperator`` holds the five operators of a cell in one direction. Their computation is that of
``latlut.operators``. Kernels that read the same map at the same resolution are stacked into one
tensor, so that one convolution and one norm do the first steps of two operators:

    full resolution   conv, and the first half of conv_2x
    half resolution   zoomed_conv, and the first half of zoomed_conv_2x

Symbols: B batch, C channels, H height, W width, N stacked kernels.

Source: FasterSeg, Sec. 3.1.3 (superkernel) and Appendix C; Yu et al., Slimmable Neural Networks,
for one norm per width. The paper's authors round channels to multiples of 8; here they are exact.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from latlut.errors import SpecError
from latlut.operators.modules import resize

MODE = "bilinear"


class _Part(torch.autograd.Function):
    """The first channels of stacked kernels, as a tensor of its own.

    Its gradient is added to that part of ``weight.grad``. Autograd itself would fill a gradient of
    the whole weight with zeros for every part and add all of it, which for narrow widths takes
    longer than the convolution. So ``torch.autograd.grad`` sees no gradient of ``weight`` here.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: nn.Parameter, count: int, kernels: slice, out: int, into: int
    ) -> Tensor:
        """(n * out, into, k, k) of the n ``kernels`` among the ``count`` stacked in ``weight``."""
        ctx.weight, ctx.count, ctx.part = weight, count, (kernels, slice(out), slice(into))
        return weight.detach().unflatten(0, (count, -1))[ctx.part].flatten(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        """Add to ``weight.grad``; none is passed on."""
        weight = ctx.weight
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        part = weight.grad.unflatten(0, (ctx.count, -1))[ctx.part]
        part += gradient.unflatten(0, part.shape[:2])
        return None, None, None, None, None


class Superkernel(nn.Module):
    """N stacked convolutions without bias that read the same map; channels are sliced per call.

    Args:
        in_channels, out_channels: the most of each; ``out_channels`` of one of the N kernels.
        kernel_size: side of the kernel; a map is padded by half of it.
        stride: 1 or 2.
        count: N.

    Attributes:
        weight: (N * out_channels, in_channels, kernel_size, kernel_size), kernel after kernel; four
            axes, so that ``to(memory_format=torch.channels_last)`` applies to it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        count: int = 1,
    ) -> None:
        super().__init__()
        shape = (count * out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        self.count = count
        self.stride = stride
        self.padding = kernel_size // 2

    def initialise(self, generator: torch.Generator) -> None:
        """Kaiming (fan in of the widest) uniform weights, as ``operators.initialise``."""
        bound = (6.0 / self.weight[0].numel()) ** 0.5
        with torch.no_grad():
            self.weight.uniform_(-bound, bound, generator=generator)

    def sliced(self, out_channels: int, in_channels: int, only: int | None = None) -> Tensor:
        """(N * out, in, k, k): the first channels of each kernel, or of kernel ``only`` alone.

        Raises:
            SpecError: more channels than the superkernel has.
        """
        total, most_in, side, _ = self.weight.shape
        most_out = total // self.count
        if not (0 < out_channels <= most_out and 0 < in_channels <= most_in):
            raise SpecError(
                f"a superkernel of {most_in}->{most_out} channels cannot be sliced to "
                f"{in_channels}->{out_channels}"
            )
        first, count = (0, self.count) if only is None else (only, 1)
        if (count, out_channels, in_channels) == (self.count, most_out, most_in):
            return self.weight
        kernels = slice(first, first + count)
        part: Tensor = _Part.apply(self.weight, self.count, kernels, out_channels, in_channels)
        return part

    def forward(self, image: Tensor, out_channels: int, only: int | None = None) -> Tensor:
        """(B, N * out_channels, H', W') from (B, C, H, W); sizes round up at stride 2."""
        weight = self.sliced(out_channels, image.shape[1], only)
        return functional.conv2d(image, weight, None, self.stride, self.padding)


class WidthNorm(nn.Module):
    """Batch norms of N stacked maps, one norm per width.

    Args:
        widths: the numbers of channels that one map can have.
        count: N; the norm of width c has N * c channels, map after map.
    """

    def __init__(self, widths: Iterable[int], count: int = 1) -> None:
        super().__init__()
        self.count = count
        self.norms = nn.ModuleDict({str(c): nn.BatchNorm2d(count * c) for c in sorted(set(widths))})

    def of_width(self, channels: int) -> nn.BatchNorm2d:
        """The norm of maps with this many channels.

        Raises:
            SpecError: no norm of that width.
        """
        if str(channels) not in self.norms:
            known = ", ".join(self.norms)
            raise SpecError(f"there are norms for {known} channels, received {channels}")
        norm = self.norms[str(channels)]
        assert isinstance(norm, nn.BatchNorm2d)
        return norm

    def forward(self, image: Tensor, channels: int, only: int | None = None) -> Tensor:
        """(B, N * channels, H, W) normalised; with ``only``, (B, channels, H, W) by that part."""
        norm = self.of_width(channels)
        if only is None or self.count == 1:
            result: Tensor = norm(image)
            return result
        part = slice(only * channels, (only + 1) * channels)
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None and variance is not None and norm.momentum is not None
        return functional.batch_norm(
            image,
            mean[part],
            variance[part],
            norm.weight[part],
            norm.bias[part],
            norm.training,
            norm.momentum,
            norm.eps,
        )


class SlicedConvNorm(nn.Module):
    """Superkernel and its norms: ``operators.ConvNorm`` of any width, without the ReLU.

    Args:
        in_channels: the most channels of the input.
        widths: the numbers of channels that one output can have.
        kernel_size, stride, count: see ``Superkernel``.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        kernel_size: int = 3,
        stride: int = 1,
        count: int = 1,
    ) -> None:
        super().__init__()
        self.conv = Superkernel(in_channels, max(widths), kernel_size, stride, count)
        self.norm = WidthNorm(widths, count)

    def forward(self, image: Tensor, out_channels: int, only: int | None = None) -> Tensor:
        """(B, N * out_channels, H', W') from (B, C, H, W); of kernel ``only`` alone if given."""
        result: Tensor = self.norm(self.conv(image, out_channels, only), out_channels, only)
        return result


class SlicedReduce(nn.Module):
    """``operators.FactorizedReduce`` of any width: two 1x1 stride-2 halves, the second shifted.

    A map of c channels has its first c // 2 from the even pixels and the rest from the odd ones,
    so each half is sliced by itself.
    """

    def __init__(self, in_channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.even = Superkernel(in_channels, max(max(widths) // 2, 1), 1, stride=2)
        self.odd = Superkernel(in_channels, max(c - c // 2 for c in widths), 1, stride=2)
        self.norm = WidthNorm(widths)

    def forward(self, image: Tensor, out_channels: int) -> Tensor:
        """(B, out_channels, H', W') from (B, C, H, W), before the ReLU."""
        height, width = int(image.shape[-2]), int(image.shape[-1])
        shifted = image[:, :, 1:, 1:]
        if height % 2 or width % 2:  # an odd side loses its last odd pixel: pad it back
            shifted = functional.pad(shifted, (0, width % 2, 0, height % 2))
        half = out_channels // 2
        parts = [self.odd(shifted, out_channels - half)]
        if half:
            parts.insert(0, self.even(image, half))
        result: Tensor = self.norm(torch.cat(parts, dim=1), out_channels)
        return result


class ConvPair(nn.Module):
    """One convolution, and two in a row, of the same map: their first kernels are stacked.

    Args:
        has_single, has_double: which of the two there are; at least one.
        in_channels, widths, stride: see ``SlicedConvNorm``; the first convolutions carry the
            stride.
    """

    def __init__(
        self,
        has_single: bool,
        has_double: bool,
        in_channels: int,
        widths: Sequence[int],
        stride: int = 1,
    ) -> None:
        super().__init__()
        count = int(has_single) + int(has_double)
        self.first = SlicedConvNorm(in_channels, widths, stride=stride, count=count)
        if has_double:
            self.second = SlicedConvNorm(max(widths), widths)

    def forward(
        self, image: Tensor, out_channels: int, is_single: bool, is_double: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """The wanted of (single, double), (B, out_channels, H', W') each, before the last ReLU."""
        if is_single and is_double:
            single, first = self.first(image, out_channels).chunk(2, dim=1)
        elif is_single:
            single, first = self.first(image, out_channels, self.part(False)), None
        elif is_double:
            single, first = None, self.first(image, out_channels, self.part(True))
        else:
            return None, None
        double = None if first is None else self.second(functional.relu(first), out_channels)
        return single, double

    def part(self, is_double: bool) -> int | None:
        """Which of the stacked kernels of ``first`` belongs to one of the two; None if alone."""
        return int(is_double) if self.first.norm.count > 1 else None


class MixedOperator(nn.Module):
    """The operators of a cell in one direction, at any width.

    Args:
        operators: names in the order of alpha, among skip, conv, conv_2x, zoomed_conv and
            zoomed_conv_2x.
        in_channels: the most channels of the input.
        widths: the numbers of channels that the output can have.
        stride: 1 for the keep direction, 2 for the down direction.
    """

    def __init__(
        self, operators: Sequence[str], in_channels: int, widths: Sequence[int], stride: int
    ) -> None:
        super().__init__()
        self.operators = tuple(operators)
        self.stride = stride
        if "skip" in operators:
            self.skip = (
                SlicedConvNorm(in_channels, widths, kernel_size=1)
                if stride == 1
                else SlicedReduce(in_channels, widths)
            )
        has_single, has_double = "conv" in operators, "conv_2x" in operators
        if has_single or has_double:
            self.direct = ConvPair(has_single, has_double, in_channels, widths, stride)
        has_single, has_double = "zoomed_conv" in operators, "zoomed_conv_2x" in operators
        if has_single or has_double:
            self.zoomed = ConvPair(has_single, has_double, in_channels, widths)

    def forward(
        self,
        image: Tensor,
        out_channels: int,
        wanted: Collection[str] | None = None,
        halved: Tensor | None = None,
    ) -> list[Tensor]:
        """The outputs of the wanted operators, in the order of ``operators``.

        Args:
            image: (B, C, H, W) float.
            out_channels: channels of the outputs.
            wanted: names of operators; all if not given.
            halved: ``halve(image)`` where the caller has it already.

        Returns:
            (B, out_channels, H', W') float each; H, W halved and rounded up at stride 2.

        Raises:
            SpecError: a number of channels that the kernels or the norms do not have.
        """
        names = [name for name in self.operators if wanted is None or name in wanted]
        found: dict[str, Tensor | None] = {}
        if "skip" in names:
            found["skip"] = self.skip(image, out_channels)
        if "conv" in names or "conv_2x" in names:
            pair = self.direct(image, out_channels, "conv" in names, "conv_2x" in names)
            found["conv"], found["conv_2x"] = pair
        is_zoomed = ("zoomed_conv" in names, "zoomed_conv_2x" in names)
        if any(is_zoomed):
            small = halve(image) if halved is None else halved
            for name, part in zip(
                ("zoomed_conv", "zoomed_conv_2x"),
                self.zoomed(small, out_channels, *is_zoomed),
                strict=True,
            ):
                if part is not None and self.stride == 1:
                    part = resize(part, (image.shape[-2], image.shape[-1]), MODE)
                found[name] = part
        return [functional.relu(part) for name in names if (part := found[name]) is not None]


def halve(image: Tensor) -> Tensor:
    """(B, C, H, W) at half the size, sides rounded up: what the zoomed operators convolve."""
    size = ((int(image.shape[-2]) + 1) // 2, (int(image.shape[-1]) + 1) // 2)
    return resize(image, size, MODE)
