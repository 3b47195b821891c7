"""The plain modules of operators that mobile networks, residual networks and transformers share.

Symbols: B batch, C channels, H height, W width, N = H W tokens, D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ACTIVATIONS, ConvNorm, Sides


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate that is computed from the means of all channels.

    Source: Hu et al., CVPR 2018; the gate is MobileNetV3's hard sigmoid (Howard et al., ICCV 2019).
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        middle = max(1, channels // reduction)
        self.reduce = nn.Conv2d(channels, middle, 1)
        self.expand = nn.Conv2d(middle, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        means = functional.adaptive_avg_pool2d(image, 1)
        return image * functional.hardsigmoid(self.expand(functional.relu(self.reduce(means))))


class InvertedResidual(nn.Module):
    """1x1 to ``expansion`` times the channels, depthwise, squeeze and excitation, 1x1 back.

    The first 1x1 is left out at expansion 1, squeeze and excitation where ``reduction`` is None;
    the last 1x1 has no activation. The input is added where the shape stays the same.

    Source: MobileNetV2 (Sandler et al., CVPR 2018); squeeze and excitation where MobileNetV3 has
    it, between the depthwise convolution and the last 1x1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sides,
        stride: Sides,
        expansion: int,
        reduction: int | None,
        activation: str,
    ) -> None:
        super().__init__()
        middle = in_channels * expansion
        parts: list[nn.Module] = []
        if expansion > 1:
            parts.append(ConvNorm(in_channels, middle, kernel_size=1, activation=activation))
        parts.append(
            ConvNorm(middle, middle, kernel_size, stride, groups=middle, activation=activation)
        )
        if reduction is not None:
            parts.append(SqueezeExcite(middle, reduction))
        parts.append(ConvNorm(middle, out_channels, kernel_size=1, activation="none"))
        self.parts = nn.Sequential(*parts)
        self.is_residual = stride in (1, (1, 1)) and in_channels == out_channels

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.parts(image)
        return image + result if self.is_residual else result


class TransposedConv(nn.Module):
    """Transposed convolution, batch norm, activation; gives a map of ``out_size``."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sides,
        stride: Sides,
        groups: int,
        padding: Sides,
        output_padding: Sides,
        activation: str,
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups,
            bias=False,
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, image: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation](self.norm(self.conv(image)))


class Pool(nn.Module):
    """Maximum or mean over windows; padding does not count."""

    def __init__(self, is_max: bool, kernel_size: Sides, stride: Sides, padding: Sides) -> None:
        super().__init__()
        own = {} if is_max else {"count_include_pad": False}
        kind = nn.MaxPool2d if is_max else nn.AvgPool2d
        self.pool = kind(kernel_size, stride, padding, **own)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.pool(image)
        return result


class Add(nn.Module):
    """Sum of maps of one shape, activation."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return ACTIVATIONS[self.activation](first)


class Concat(nn.Module):
    """Maps of one size, channels one after another."""

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, dim=1)


class Linear(nn.Module):
    """A linear layer with bias, over the channels of each pixel or over a whole map.

    (B, C, H, W) to (B, out, H, W), each pixel for itself; or, with ``is_flattened``, the map as one
    vector of C H W values to (B, out, 1, 1).
    """

    def __init__(
        self, in_features: int, out_channels: int, is_flattened: bool, activation: str
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_channels)
        self.is_flattened = is_flattened
        self.activation = activation

    def forward(self, image: Tensor) -> Tensor:
        activate = ACTIVATIONS[self.activation]
        if self.is_flattened:
            return activate(self.linear(image.flatten(1)))[:, :, None, None]
        tokens = image.flatten(2).transpose(1, 2)  # (B, N, C)
        result = activate(self.linear(tokens)).transpose(1, 2)  # (B, out, N)
        height, width = int(image.shape[-2]), int(image.shape[-1])
        return result.reshape(int(image.shape[0]), -1, height, width)


class AttentionBlock(nn.Module):
    """Self-attention over the pixels of a map, then an MLP; norm first, the input added to each.

        x = x + projection(attention(norm(x)));    x = x + mlp(norm(x))

    The MLP is left out at ``mlp_ratio`` 0.

    Source: ViT (Dosovitskiy et al., ICLR 2021), Sec. 3.1, Eq. 2 and 3.
    """

    def __init__(self, channels: int, heads: int, mlp_ratio: int, activation: str) -> None:
        super().__init__()
        self.heads, self.activation = heads, activation
        self.norm = nn.LayerNorm(channels)
        self.attend = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.mlp_norm = nn.LayerNorm(channels) if mlp_ratio else None
        if mlp_ratio:
            self.widen = nn.Linear(channels, mlp_ratio * channels)
            self.narrow = nn.Linear(mlp_ratio * channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        batch, channels, height, width = (int(side) for side in image.shape)
        tokens = image.flatten(2).transpose(1, 2)  # (B, N, C)
        joined = self.attend(self.norm(tokens))  # (B, N, 3C)
        parts = joined.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, D) each
        mixed = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.project(mixed.transpose(1, 2).flatten(2))
        if self.mlp_norm is not None:
            wide = ACTIVATIONS[self.activation](self.widen(self.mlp_norm(tokens)))
            tokens = tokens + self.narrow(wide)
        return tokens.transpose(1, 2).reshape(batch, channels, height, width)
