"""PIDNet-S: branches for detail, context and boundaries, the last one guiding the fusion.

Source: Xu et al., PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers,
CVPR 2023, Sec. 3 and Fig. 4; where it is silent, the authors' code.

What is other than in the paper: training here knows class logits alone, so the detail branch's
auxiliary head is kept, while the head that predicts boundaries and its two losses are left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.baselines.blocks import (
    Baseline,
    Bottleneck,
    Residual,
    enlarge,
    global_mean,
    size_of,
)
from latlut.search.networks.baselines.published import Figure, Published

PUBLISHED = Published(
    title="PIDNet-S",
    paper="Xu et al., PIDNet: A Real-time Semantic Segmentation Network Inspired by PID "
    "Controllers, CVPR 2023",
    input_size=(1024, 2048),
    parameters_m=Figure(
        7.62, "model card of Qualcomm's export of it", note="7.6 in the paper's Table"
    ),
    macs_g=Figure(47.6, "CVPR 2023 paper, comparison on Cityscapes", is_confirmed=False),
    macs_input_size=(1024, 2048),
    miou_val_percent=Figure(78.8, "README of the authors' repository"),
    miou_test_percent=Figure(78.6, "the paper's abstract"),
    fps=Figure(93.2, "the paper's abstract"),
    fps_device="RTX 3090, PyTorch",
)


class _PreNorm(nn.Sequential):
    """Norm and ReLU before the convolution, as the paper's pooling and heads have it."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                padding=kernel_size // 2,
                groups=groups,
                bias=False,
            ),
        )


class _Head(nn.Sequential):
    """Norm, ReLU, 3x3, norm, ReLU, biased 1x1."""

    def __init__(self, in_channels: int, middle: int, num_classes: int) -> None:
        super().__init__(
            _PreNorm(in_channels, middle, 3),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, num_classes, 1),
        )


class _Pyramid(nn.Module):
    """Parallel aggregation pyramid pooling: four windows, one grouped convolution for all."""

    def __init__(self, in_channels: int, middle: int, out_channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(_PreNorm(in_channels, middle) for _ in range(5))
        self.process = _PreNorm(4 * middle, 4 * middle, 3, groups=4)
        self.join = _PreNorm(5 * middle, out_channels)
        self.shortcut = _PreNorm(in_channels, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        size = size_of(image)
        whole, *scales = self.scales
        base = whole(image)
        pooled = [
            functional.avg_pool2d(image, kernel, stride, kernel // 2)
            for kernel, stride in ((5, 2), (9, 4), (17, 8))
        ]
        pooled.append(global_mean(image))
        raised = [
            enlarge(scale(part), size, False) + base
            for scale, part in zip(scales, pooled, strict=True)
        ]
        processed = self.process(torch.cat(raised, dim=1))
        return self.join(torch.cat([base, processed], dim=1)) + self.shortcut(image)


class _Select(nn.Module):
    """Pixel-attention-guided fusion: where detail and context agree, context counts more."""

    def __init__(self, channels: int, middle: int) -> None:
        super().__init__()
        self.detail = ConvNorm(channels, middle, kernel_size=1, is_activated=False)
        self.context = ConvNorm(channels, middle, kernel_size=1, is_activated=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        size = size_of(detail)
        similar = self.detail(detail) * enlarge(self.context(context), size, False)
        weight = torch.sigmoid(similar.sum(dim=1, keepdim=True))
        return (1 - weight) * detail + weight * enlarge(context, size, False)


class _Guide(nn.Module):
    """Boundary-attention-guided fusion, the light form."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = ConvNorm(channels, channels, kernel_size=1, is_activated=False)
        self.context = ConvNorm(channels, channels, kernel_size=1, is_activated=False)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        edge = torch.sigmoid(boundary)
        kept = self.detail((1 - edge) * context + detail)
        return kept + self.context(context + edge * detail)


def _residuals(before: int, after: int, count: int, stride: int) -> nn.Sequential:
    """Blocks of which the last one leaves its ReLU to the reader."""
    blocks = [Residual(before, after, stride, is_activated=count > 1)]
    for index in range(1, count):
        blocks.append(Residual(after, after, is_activated=index < count - 1))
    return nn.Sequential(*blocks)


def _deep(before: int, middle: int, count: int, stride: int = 1) -> nn.Sequential:
    blocks = [Bottleneck(before, middle, 2 * middle, stride, is_activated=False)]
    blocks += [
        Bottleneck(2 * middle, middle, 2 * middle, is_activated=False) for _ in range(count - 1)
    ]
    return nn.Sequential(*blocks)


def _squeeze(before: int, after: int, kernel_size: int = 1) -> ConvNorm:
    return ConvNorm(before, after, kernel_size=kernel_size, is_activated=False)


class PIDNetS(Baseline):
    """PIDNet-S; predicts at 1/8, with an auxiliary head on the detail branch, at 1/8 too."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        width = 32
        # The two first convolutions have biases in the authors' code, in front of their norms.
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            _residuals(width, width, 2, 1), nn.ReLU(),
            _residuals(width, 2 * width, 2, 2), nn.ReLU(),
        )  # fmt: skip
        self.context_3 = _residuals(2 * width, 4 * width, 3, 2)
        self.context_4 = _residuals(4 * width, 8 * width, 3, 2)
        self.context_5 = _deep(8 * width, 8 * width, 2, 2)
        self.pyramid = _Pyramid(16 * width, 96, 4 * width)
        self.detail_3 = _residuals(2 * width, 2 * width, 2, 1)
        self.detail_4 = _residuals(2 * width, 2 * width, 2, 1)
        self.detail_5 = _deep(2 * width, 2 * width, 1)
        self.squeeze_3 = _squeeze(4 * width, 2 * width)
        self.squeeze_4 = _squeeze(8 * width, 2 * width)
        self.select_3 = _Select(2 * width, width)
        self.select_4 = _Select(2 * width, width)
        self.boundary_3 = Residual(2 * width, width, is_activated=False)
        self.boundary_4 = _deep(width, width, 1)
        self.boundary_5 = _deep(2 * width, 2 * width, 1)
        self.edge_3 = _squeeze(4 * width, width, 3)
        self.edge_4 = _squeeze(8 * width, 2 * width, 3)
        self.guide = _Guide(4 * width)
        self.head = _Head(4 * width, 128, num_classes)
        self.auxiliary = nn.ModuleList([_Head(2 * width, 128, num_classes)])

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        relu = functional.relu
        shared = self.stem(image)  # 1/8
        size = size_of(shared)
        context = relu(self.context_3(shared))
        detail = self.select_3(self.detail_3(shared), self.squeeze_3(context))
        boundary = self.boundary_3(shared) + enlarge(self.edge_3(context), size, False)
        early = detail
        context = relu(self.context_4(context))
        detail = self.select_4(self.detail_4(relu(detail)), self.squeeze_4(context))
        boundary = self.boundary_4(relu(boundary)) + enlarge(self.edge_4(context), size, False)
        detail, boundary = self.detail_5(relu(detail)), self.boundary_5(relu(boundary))
        deep = enlarge(self.pyramid(self.context_5(context)), size, False)
        return self.head(self.guide(detail, deep, boundary)), (early,)
