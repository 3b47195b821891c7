"""BiSeNetV2: a wide shallow detail branch, a narrow deep one, each guiding the other.

Source: Yu et al., BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic
Segmentation, IJCV 2021 (arXiv 2004.02147), Table 1 and Fig. 4 to 6.

What the paper leaves open and how it is here: the main head has 1024 channels and the auxiliary
ones 128, as in the widely used reimplementations; ReLU after the depthwise
expansion; maps are enlarged bilinearly. The paper scales the image to 512x1024 for inference.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.baselines.blocks import (
    Baseline,
    SegmentHead,
    enlarge,
    global_mean,
    size_of,
)
from latlut.search.networks.baselines.published import Figure, Published

PUBLISHED = Published(
    title="BiSeNetV2",
    paper="Yu et al., BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time "
    "Semantic Segmentation, IJCV 2021",
    input_size=(512, 1024),
    macs_g=Figure(21.15, "arXiv 2004.02147, ablation tables", is_confirmed=False),
    macs_input_size=(512, 1024),
    miou_val_percent=Figure(
        73.36, "the paper with OHEM, as MMSegmentation's pull request 804 quotes it"
    ),
    miou_test_percent=Figure(72.6, "arXiv 2004.02147, abstract"),
    fps=Figure(156.0, "arXiv 2004.02147, abstract"),
    fps_device="GTX 1080 Ti, TensorRT 5.1.5",
)

_HEAD_CHANNELS = 1024
_AUXILIARY_CHANNELS = 128


def _depthwise(in_channels: int, out_channels: int, stride: int, is_activated: bool) -> ConvNorm:
    return ConvNorm(
        in_channels, out_channels, stride=stride, groups=in_channels, is_activated=is_activated
    )


class _Stem(nn.Module):
    """To 1/4 along a convolution and a pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(3, 16, stride=2)
        self.convolve = nn.Sequential(ConvNorm(16, 8, kernel_size=1), ConvNorm(8, 16, stride=2))
        self.join = ConvNorm(32, 16)

    def forward(self, image: Tensor) -> Tensor:
        half = self.first(image)
        pooled = functional.max_pool2d(half, 3, stride=2, padding=1)
        return self.join(self.convolve(half), pooled)


class _Gather(nn.Module):
    """Gather-and-expansion layer with expansion 6; halves the map with stride 2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        middle = 6 * in_channels
        if stride == 1:
            core: list[nn.Module] = [_depthwise(in_channels, middle, 1, True)]
            self.skip: nn.Module = nn.Identity()
        else:
            core = [_depthwise(in_channels, middle, 2, False), _depthwise(middle, middle, 1, True)]
            self.skip = nn.Sequential(
                _depthwise(in_channels, in_channels, 2, False),
                ConvNorm(in_channels, out_channels, kernel_size=1, is_activated=False),
            )
        self.body = nn.Sequential(
            ConvNorm(in_channels, in_channels),
            *core,
            ConvNorm(middle, out_channels, kernel_size=1, is_activated=False),
        )

    def forward(self, image: Tensor) -> Tensor:
        return functional.relu(self.body(image) + self.skip(image))


class _Context(nn.Module):
    """Context embedding: the global mean added to every place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.embed = ConvNorm(channels, channels, kernel_size=1)
        self.last = ConvNorm(channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(image + self.embed(self.norm(global_mean(image))))


class _Guide(nn.Module):
    """Bilateral guided aggregation of the maps at 1/8 and 1/32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail_keep = nn.Sequential(
            _depthwise(channels, channels, 1, False),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        self.detail_down = nn.Sequential(
            ConvNorm(channels, channels, stride=2, is_activated=False),
            nn.AvgPool2d(3, stride=2, padding=1),
        )
        self.context_up = ConvNorm(channels, channels, is_activated=False)
        self.context_keep = nn.Sequential(
            _depthwise(channels, channels, 1, False),
            nn.Conv2d(channels, channels, 1, bias=False),
        )
        self.join = ConvNorm(channels, channels)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        size = size_of(detail)
        gate = torch.sigmoid(enlarge(self.context_up(context), size, False))
        fine = self.detail_keep(detail) * gate
        coarse = self.detail_down(detail) * torch.sigmoid(self.context_keep(context))
        return self.join(fine + enlarge(coarse, size, False))


class BiSeNetV2(Baseline):
    """BiSeNetV2; predicts at 1/8, auxiliary heads at 1/4, 1/8, 1/16 and 1/32."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            ConvNorm(3, 64, stride=2), ConvNorm(64, 64),
            ConvNorm(64, 64, stride=2), ConvNorm(64, 64), ConvNorm(64, 64),
            ConvNorm(64, 128, stride=2), ConvNorm(128, 128), ConvNorm(128, 128),
        )  # fmt: skip
        self.context = nn.ModuleList(
            [
                _Stem(),
                nn.Sequential(_Gather(16, 32, 2), _Gather(32, 32, 1)),
                nn.Sequential(_Gather(32, 64, 2), _Gather(64, 64, 1)),
                nn.Sequential(_Gather(64, 128, 2), *(_Gather(128, 128, 1) for _ in range(3))),
            ]
        )
        self.embed = _Context(128)
        self.guide = _Guide(128)
        self.head = SegmentHead(128, _HEAD_CHANNELS, num_classes, dropout=0.1)
        self.auxiliary = nn.ModuleList(
            SegmentHead(channels, _AUXILIARY_CHANNELS, num_classes, dropout=0.1)
            for channels in (16, 32, 64, 128)
        )

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        maps = []
        deep = image
        for stage in self.context:
            deep = stage(deep)
            maps.append(deep)
        return self.head(self.guide(self.detail(image), self.embed(deep))), tuple(maps)
