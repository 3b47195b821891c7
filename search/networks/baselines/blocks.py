"""What the baselines share: their frame, residual and separable blocks, pooling into bins.

Symbols: B batch, C classes, H, W the sides of the image in pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.network import TrainOutputs

Size = tuple[int, int]


def size_of(image: Tensor) -> Size:
    """(height, width) as plain numbers, which an exported graph holds as constants."""
    return int(image.shape[-2]), int(image.shape[-1])


def enlarge(image: Tensor, size: Size, align_corners: bool) -> Tensor:
    """(B, K, h, w) resized to (B, K, *size), bilinear."""
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=align_corners)


class Baseline(nn.Module, ABC):
    """A hand-designed segmentation network.

    In evaluation mode ``forward`` takes the image (B, 3, H, W) and returns logits (B, C, H, W);
    in training mode it returns ``TrainOutputs``: the logits at the scale where the network
    predicts them, and those of its auxiliary heads, each at its own scale.

    A subclass keeps the heads that only training uses in ``auxiliary``, and says whether its
    authors align corners when they interpolate. ``is_continuous`` is False where a rounding error
    can change a part of the output altogether, so that no two engines need agree everywhere.
    """

    align_corners: bool = False
    is_continuous: bool = True
    auxiliary: nn.ModuleList

    @abstractmethod
    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits before the last upsampling, and the maps that the auxiliary heads read."""

    def forward(self, image: Tensor) -> Tensor | TrainOutputs:
        main, maps = self.scores(image)
        if self.training:
            heads = zip(self.auxiliary, maps, strict=True)
            return TrainOutputs(main, tuple(head(one) for head, one in heads))
        size = size_of(image)
        return main if size_of(main) == size else enlarge(main, size, self.align_corners)


class SegmentHead(nn.Sequential):
    """3x3 with norm and ReLU, optional dropout, then a biased 1x1 to the classes."""

    def __init__(
        self, in_channels: int, middle: int, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__(
            ConvNorm(in_channels, middle),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            nn.Conv2d(middle, num_classes, 1),
        )


def _skip(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """What brings a block's input along: a 1x1 where its shape changes."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, kernel_size=1, stride=stride, is_activated=False)


class Residual(nn.Module):
    """Two 3x3 convolutions around which the input is added: ResNet's basic block.

    Args:
        in_channels, out_channels, stride: a 1x1 brings the input along where they change.
        dilation: of both convolutions.
        is_activated: ReLU after the sum.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        is_activated: bool = True,
    ) -> None:
        super().__init__()
        self.first = ConvNorm(in_channels, out_channels, stride=stride, dilation=dilation)
        self.second = ConvNorm(out_channels, out_channels, dilation=dilation, is_activated=False)
        self.skip = _skip(in_channels, out_channels, stride)
        self.is_activated = is_activated

    def forward(self, image: Tensor) -> Tensor:
        result = self.second(self.first(image)) + self.skip(image)
        return functional.relu(result) if self.is_activated else result


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up around which the input is added: ResNet's deep block.

    Args:
        in_channels, middle, out_channels: of the three convolutions.
        stride: of the 3x3, or of the first 1x1 where ``is_stride_first`` (Caffe's habit).
        dilation: of the 3x3.
        is_activated: ReLU after the sum.
    """

    def __init__(
        self,
        in_channels: int,
        middle: int,
        out_channels: int,
        stride: int = 1,
        dilation: int = 1,
        is_stride_first: bool = False,
        is_activated: bool = True,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if is_stride_first else (1, stride)
        self.body = nn.Sequential(
            ConvNorm(in_channels, middle, kernel_size=1, stride=first),
            ConvNorm(middle, middle, stride=second, dilation=dilation),
            ConvNorm(middle, out_channels, kernel_size=1, is_activated=False),
        )
        self.skip = _skip(in_channels, out_channels, stride)
        self.is_activated = is_activated

    def forward(self, image: Tensor) -> Tensor:
        result = self.body(image) + self.skip(image)
        return functional.relu(result) if self.is_activated else result


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 with norm, pointwise 1x1 with norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            ConvNorm(
                in_channels, in_channels, stride=stride, groups=in_channels, is_activated=False
            ),
            ConvNorm(in_channels, out_channels, kernel_size=1),
        )


def pool_to_bins(image: Tensor, rows: int, columns: int) -> Tensor:
    """(B, K, rows, columns) averages over equal windows, fewer where the map is smaller.

    ``AdaptiveAvgPool2d`` has windows of unequal size where the sides do not divide, which no
    ONNX operator has; these are equal, and overlap by what is left over.
    """
    height, width = size_of(image)
    rows, columns = min(rows, height), min(columns, width)
    stride = (height // rows, width // columns)
    kernel = (height - (rows - 1) * stride[0], width - (columns - 1) * stride[1])
    return functional.avg_pool2d(image, kernel, stride)


def global_mean(image: Tensor) -> Tensor:
    """(B, K, 1, 1)."""
    return torch.mean(image, dim=(2, 3), keepdim=True)
