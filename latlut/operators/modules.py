"""The plain modules that the built-in operators are made of.

Symbols: B batch, C channels, H height, W width.

Source: FasterSeg, Sec. 3.1.2 and Appendix A; interpolation is bilinear with align_corners=True,
as the authors train it. Where a side is odd, halves are rounded up, so that sizes that are not
multiples of 64 work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.errors import SpecError

#: One number, or (height, width).
Sides: TypeAlias = int | tuple[int, int]

#: What the option ``activation`` may be.
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda image: image,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hswish": functional.hardswish,
    "silu": functional.silu,
    "gelu": functional.gelu,
}


def pair(sides: Sides) -> tuple[int, int]:
    """(height, width) of what may be one number for both."""
    return (sides, sides) if isinstance(sides, int) else sides


def same_padding(kernel_size: Sides, dilation: Sides = 1) -> tuple[int, int]:
    """(height, width) of the padding with which stride 1 keeps the size, for odd kernels."""
    (high, wide), (down, across) = pair(kernel_size), pair(dilation)
    return down * (high - 1) // 2, across * (wide - 1) // 2


class ConvNorm(nn.Module):
    """Convolution, batch norm and, unless told otherwise, ReLU; inputs are concatenated first."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sides = 3,
        stride: Sides = 1,
        groups: int = 1,
        dilation: Sides = 1,
        padding: Sides | None = None,
        is_activated: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise SpecError(
                f"{in_channels}->{out_channels} channels do not divide by {groups} groups"
            )
        pad = same_padding(kernel_size, dilation) if padding is None else padding
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, pad, dilation, groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = activation if is_activated else "none"

    def forward(self, *maps: Tensor) -> Tensor:
        joined = torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]
        return ACTIVATIONS[self.activation](self.norm(self.conv(joined)))


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

    def __init__(self, convolutions: Iterable[nn.Module], stride: int, mode: str) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*convolutions)
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
