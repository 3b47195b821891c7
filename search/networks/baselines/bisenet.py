"""BiSeNet with ResNet-18: a shallow path for detail and a deep one for context.

Source: Yu et al., BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation,
ECCV 2018, Sec. 3 and Fig. 2, the version with ResNet-18. FasterSeg's Table 4 lists the other one,
with Xception39 (69.0 / 68.4 mIoU, 105.8 FPS at 768x1536), whose backbone the paper does not give
layer by layer.

What the paper leaves open and how it is here: the first layer of the spatial path is 7x7 and
a 1x1 brings it to 128 channels; attention refinement works on 128 channels; maps of the context
path are enlarged by nearest neighbours, then convolved 3x3; heads are 3x3 to 256 channels (main)
or 64 (auxiliary), then 1x1.

The paper gives 49.0 M parameters for it, while the ResNet-18 inside has 11.2 M and nothing around
it is large: 49.0 MB is what 12.3 M weights take on disk (an issue of the authors' repository says
the same of Xception39, 5.8 M in the paper, 1.54 M by count). An independent count finds 13.4 M.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.baselines.blocks import (
    Baseline,
    Residual,
    SegmentHead,
    global_mean,
    size_of,
)
from latlut.search.networks.baselines.published import Figure, Published

_FC_HARDNET = "table of the FC-HarDNet authors' repository"

PUBLISHED = Published(
    title="BiSeNet (ResNet-18)",
    paper="Yu et al., BiSeNet: Bilateral Segmentation Network for Real-time Semantic "
    "Segmentation, ECCV 2018",
    input_size=(768, 1536),
    parameters_m=Figure(
        13.4, _FC_HARDNET, note="with auxiliary heads; the paper's own table says 49.0"
    ),
    macs_g=Figure(66.8, _FC_HARDNET),
    macs_input_size=(768, 1536),
    miou_val_percent=Figure(74.8, "ECCV 2018 paper, Table 7", is_confirmed=False),
    miou_test_percent=Figure(74.7, "Papers with Code's entry of the paper, Cityscapes test"),
    fps=Figure(65.5, "Papers with Code's entry of the paper, Cityscapes test"),
    fps_device="Titan Xp, PyTorch",
)


class _ResNet18(nn.Module):
    """ResNet-18 without its classifier; maps at 1/8, 1/16 and 1/32."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(3, 64, kernel_size=7, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(Residual(before, after, stride), Residual(after, after))
            for before, after, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        result = functional.max_pool2d(self.first(image), 3, stride=2, padding=1)
        maps = []
        for stage in self.stages:
            result = stage(result)
            maps.append(result)
        return tuple(maps[1:])


class _Attend(nn.Module):
    """Attention refinement: channels weighted by their global mean."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, out_channels)
        self.weigh = ConvNorm(out_channels, out_channels, kernel_size=1, is_activated=False)

    def forward(self, image: Tensor) -> Tensor:
        result = self.conv(image)
        return result * torch.sigmoid(self.weigh(global_mean(result)))


class _Fuse(nn.Module):
    """Feature fusion: both paths joined, and weighted by their global mean on top."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.join = ConvNorm(channels, channels, kernel_size=1)
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1, bias=False), nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        joined = self.join(detail, context)
        return joined + joined * self.weigh(global_mean(joined))


class BiSeNet(Baseline):
    """BiSeNet with ResNet-18; predicts at 1/8, auxiliary heads at 1/8 and 1/16."""

    align_corners = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            ConvNorm(3, 64, kernel_size=7, stride=2), ConvNorm(64, 64, stride=2),
            ConvNorm(64, 64, stride=2), ConvNorm(64, 128, kernel_size=1),
        )  # fmt: skip
        self.context = _ResNet18()
        self.tail = ConvNorm(512, 128, kernel_size=1)
        self.attend_32 = _Attend(512, 128)
        self.attend_16 = _Attend(256, 128)
        self.refine_16 = ConvNorm(128, 128)
        self.refine_8 = ConvNorm(128, 128)
        self.fuse = _Fuse(256)
        self.head = SegmentHead(256, 256, num_classes)
        self.auxiliary = nn.ModuleList(SegmentHead(128, 64, num_classes) for _ in range(2))

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        at_8, at_16, at_32 = self.context(image)
        deep = self.attend_32(at_32) + self.tail(global_mean(at_32))
        middle = self.refine_16(functional.interpolate(deep, size=size_of(at_16)))
        fine = self.attend_16(at_16) + middle
        fine = self.refine_8(functional.interpolate(fine, size=size_of(at_8)))
        return self.head(self.fuse(self.detail(image), fine)), (fine, middle)
