"""Fast-SCNN: one learned downsampling that feeds both a detail branch and a deep one.

Source: Poudel et al., Fast-SCNN: Fast Semantic Segmentation Network, BMVC 2019 (arXiv
1902.04502), Sec. 3 and Tables 1 to 3. As it says there, nothing is between the depthwise and the
pointwise part of a separable convolution but a norm.

What the paper leaves open and how it is here: the inside of the pyramid pooling (four bins of a
quarter of the channels each, then a 1x1, as PSPNet has it) and the auxiliary heads that its
training uses (3x3 to 32 channels and a 1x1, after the downsampling and after the deep branch).
The paper speeds inference up by leaving the softmax out; here the output is logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.baselines.blocks import (
    Baseline,
    SegmentHead,
    SeparableConv,
    enlarge,
    pool_to_bins,
    size_of,
)
from latlut.search.networks.baselines.published import FASTERSEG_TABLE_4, Figure, Published

PUBLISHED = Published(
    title="Fast-SCNN",
    paper="Poudel et al., Fast-SCNN: Fast Semantic Segmentation Network, BMVC 2019",
    input_size=(1024, 2048),
    parameters_m=Figure(
        1.11, "the paper's comparison, as issues of its reimplementations quote it"
    ),
    miou_val_percent=Figure(68.6, FASTERSEG_TABLE_4),
    miou_test_percent=Figure(68.0, "arXiv 1902.04502, abstract; " + FASTERSEG_TABLE_4),
    fps=Figure(123.5, "arXiv 1902.04502, abstract; " + FASTERSEG_TABLE_4),
    fps_device="Titan Xp, TensorFlow",
)

_BINS = (1, 2, 3, 6)


class _Inverted(nn.Module):
    """MobileNetV2's bottleneck with expansion 6, residual where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        middle = 6 * in_channels
        self.body = nn.Sequential(
            ConvNorm(in_channels, middle, kernel_size=1),
            ConvNorm(middle, middle, stride=stride, groups=middle),
            ConvNorm(middle, out_channels, kernel_size=1, is_activated=False),
        )
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, image: Tensor) -> Tensor:
        result = self.body(image)
        return result + image if self.has_skip else result


class _Pyramid(nn.Module):
    """Pyramid pooling to 128 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(ConvNorm(channels, channels // 4, kernel_size=1) for _ in _BINS)
        self.join = ConvNorm(2 * channels, 128, kernel_size=1)

    def forward(self, image: Tensor) -> Tensor:
        size = size_of(image)
        pooled = [
            enlarge(narrow(pool_to_bins(image, bins, bins)), size, True)
            for bins, narrow in zip(_BINS, self.narrow, strict=True)
        ]
        return self.join(torch.cat([image, *pooled], dim=1))


class FastSCNN(Baseline):
    """Fast-SCNN; predicts at 1/8, auxiliary heads at 1/8 and 1/32."""

    align_corners = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            ConvNorm(3, 32, stride=2), SeparableConv(32, 48, 2), SeparableConv(48, 64, 2)
        )
        plan = ((64, 64, 2), (64, 96, 2), (96, 128, 1))
        self.deep = nn.Sequential(
            *(
                _Inverted(before if index == 0 else after, after, stride if index == 0 else 1)
                for before, after, stride in plan
                for index in range(3)
            ),
            _Pyramid(128),
        )
        self.coarse = nn.Sequential(
            ConvNorm(128, 128, groups=128, dilation=4),
            nn.Conv2d(128, 128, 1), nn.BatchNorm2d(128),
        )  # fmt: skip
        self.fine = nn.Sequential(nn.Conv2d(64, 128, 1), nn.BatchNorm2d(128))
        self.classify = nn.Sequential(
            SeparableConv(128, 128), SeparableConv(128, 128), nn.Dropout(0.1),
            nn.Conv2d(128, num_classes, 1),
        )  # fmt: skip
        self.auxiliary = nn.ModuleList(
            SegmentHead(channels, 32, num_classes, dropout=0.1) for channels in (64, 128)
        )

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        detail = self.down(image)
        deep = self.deep(detail)
        coarse = self.coarse(enlarge(deep, size_of(detail), True))
        return self.classify(functional.relu(coarse + self.fine(detail))), (detail, deep)
