"""ICNet: three resolutions of the image, the deeper a branch the smaller its image.

Source: Zhao et al., ICNet for Real-Time Semantic Segmentation on High-Resolution Images, ECCV
2018, Sec. 3 and Fig. 2; the layers are those of the authors' released Caffe graph
(icnet_cityscapes.prototxt), which is the network after their compression to half the kernels.

What the paper leaves open and how it is here: the paper prunes a trained network twice as wide;
trained from scratch, the compressed one starts from random weights. The pyramid's windows are
equal and barely overlap, the released ones overlap a little more. Interpolation aligns corners.

The paper states no counts. The FC-HarDNet authors state 7.7 M parameters and 30.7 G; their code
builds the four convolutions of PSPNet's pyramid as well (1.05 M) and does not run them, and
runs on 1025x2049 as the release does.
"""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.baselines.blocks import (
    Baseline,
    Bottleneck,
    enlarge,
    pool_to_bins,
    size_of,
)
from latlut.search.networks.baselines.published import FASTERSEG_TABLE_4, Figure, Published

_FC_HARDNET = "table of the FC-HarDNet authors' repository (their count of the released ICNet)"

PUBLISHED = Published(
    title="ICNet",
    paper="Zhao et al., ICNet for Real-Time Semantic Segmentation on High-Resolution Images, "
    "ECCV 2018",
    input_size=(1024, 2048),
    parameters_m=Figure(
        7.7, _FC_HARDNET, note="with 1.05 of the pyramid's convolutions that ICNet does not use"
    ),
    macs_g=Figure(30.7, _FC_HARDNET),
    macs_input_size=(1024, 2048),
    miou_val_percent=Figure(67.7, "README of the authors' repository; " + FASTERSEG_TABLE_4),
    miou_test_percent=Figure(69.5, "README of the authors' repository; " + FASTERSEG_TABLE_4),
    fps=Figure(37.7, FASTERSEG_TABLE_4),
    fps_device="as listed in FasterSeg's Table 4",
)

_BINS = (1, 2, 3, 6)


def _stage(in_channels: int, middle: int, blocks: int, dilation: int = 1) -> nn.Sequential:
    out = 4 * middle
    return nn.Sequential(
        *(
            Bottleneck(in_channels if index == 0 else out, middle, out, dilation=dilation)
            for index in range(blocks)
        )
    )


class _Fuse(nn.Module):
    """Cascade feature fusion: the coarse map enlarged and dilated, plus the fine one by 1x1."""

    def __init__(self, coarse_channels: int, fine_channels: int) -> None:
        super().__init__()
        self.coarse = ConvNorm(coarse_channels, 128, dilation=2, is_activated=False)
        self.fine = ConvNorm(fine_channels, 128, kernel_size=1, is_activated=False)

    def forward(self, coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        """The fused map, and the enlarged coarse one, which the auxiliary head reads."""
        larger = enlarge(coarse, size_of(fine), True)
        return functional.relu(self.coarse(larger) + self.fine(fine)), larger


class ICNet(Baseline):
    """ICNet, compressed; predicts at 1/4, auxiliary heads at 1/16 and 1/8."""

    align_corners = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem_2 = nn.Sequential(
            ConvNorm(3, 32, stride=2), ConvNorm(32, 32), ConvNorm(32, 64),
            nn.MaxPool2d(3, stride=2, padding=1),
        )  # fmt: skip
        self.stage_2 = _stage(64, 32, 3)
        self.down_3 = Bottleneck(128, 64, 256, stride=2, is_stride_first=True)
        self.stage_3 = _stage(256, 64, 3)
        self.stage_4 = _stage(256, 128, 6, dilation=2)
        self.stage_5 = _stage(512, 256, 3, dilation=4)
        self.narrow = ConvNorm(1024, 256, kernel_size=1)
        self.fuse_4 = _Fuse(256, 256)
        self.stem_1 = nn.Sequential(
            ConvNorm(3, 32, stride=2), ConvNorm(32, 32, stride=2), ConvNorm(32, 64, stride=2)
        )
        self.fuse_2 = _Fuse(128, 64)
        self.classify = nn.Conv2d(128, num_classes, 1)
        self.auxiliary = nn.ModuleList(
            [nn.Conv2d(256, num_classes, 1), nn.Conv2d(128, num_classes, 1)]
        )

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        height, width = size_of(image)
        half = enlarge(image, ((height + 1) // 2, (width + 1) // 2), True)
        middle = self.down_3(self.stage_2(self.stem_2(half)))  # 1/16
        rows, columns = size_of(middle)
        small = enlarge(middle, ((rows + 1) // 2, (columns + 1) // 2), True)  # 1/32
        deep = self.stage_5(self.stage_4(self.stage_3(small)))
        pooled = [enlarge(pool_to_bins(deep, bins, bins), size_of(deep), True) for bins in _BINS]
        coarse, larger_4 = self.fuse_4(self.narrow(deep + sum(pooled)), middle)
        fine, larger_2 = self.fuse_2(coarse, self.stem_1(image))  # 1/8
        rows, columns = size_of(fine)
        main = self.classify(enlarge(fine, (2 * rows, 2 * columns), True))
        return main, (larger_4, larger_2)
