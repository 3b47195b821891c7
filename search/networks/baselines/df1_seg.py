"""DF1-Seg-d8: a backbone found by partial order pruning, pyramid pooling, a small decoder.

Source: Li et al., Partial Order Pruning: for Best Speed/Accuracy Trade-off in Neural Architecture
Search, CVPR 2019; the layers are those of the authors' released Caffe graph
(df1seg_mergebn.prototxt and the log of DF1-Seg-d8's timing).

What the paper leaves open and how it is here: "d8" is not another network than DF1-Seg. The
graph that its log times ends with scores at 1/8, without the enlargement to the image's size that
DF1-Seg has, and the log of classes chosen at 1/8 ends with the published 72.4. So the published
speed has no upsampling inside the clock; the full-size logits that come out here have. The release
gives the graph with merged norms alone: here every convolution but the last has one. Two fixed
bilinear deconvolutions are interpolations here, with the same weights away from the border. The
pooling windows of the release divide a 1024x2048 image's map into 1, 2, 4 and 8 rows; other sizes
get as many rows, and columns to match. There is no auxiliary head in the release.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.baselines.blocks import (
    Baseline,
    Residual,
    enlarge,
    pool_to_bins,
    size_of,
)
from latlut.search.networks.baselines.published import FASTERSEG_TABLE_4, Figure, Published

_README = "README of the authors' repository"

PUBLISHED = Published(
    title="DF1-Seg-d8",
    paper="Li et al., Partial Order Pruning: for Best Speed/Accuracy Trade-off in Neural "
    "Architecture Search, CVPR 2019",
    input_size=(1024, 2048),
    miou_val_percent=Figure(72.4, f"{_README}; {FASTERSEG_TABLE_4}"),
    miou_test_percent=Figure(71.4, f"{_README}; {FASTERSEG_TABLE_4}"),
    fps=Figure(136.9, f"{_README}; {FASTERSEG_TABLE_4}", note="without upsampling"),
    fps_device="GTX 1080 Ti, TensorRT 3.0.4",
)

#: Billions of multiply-accumulates of the backbone alone at 224x224. Of the whole nothing is said.
BACKBONE_MACS_G = Figure(0.746, _README)

_ROWS = (1, 2, 4, 8)


class DF1(nn.Module):
    """The backbone; maps at 1/8, 1/16 and 1/32 with 64, 128 and 512 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 32, stride=2), ConvNorm(32, 64, stride=2))
        self.stage_2 = self._stage(64, 64)
        self.stage_3 = self._stage(64, 128)
        self.stage_4 = nn.Sequential(self._stage(128, 256), Residual(256, 512))

    @staticmethod
    def _stage(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            Residual(before, after, 2), Residual(after, after), Residual(after, after)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at_8 = self.stage_2(self.stem(image))
        at_16 = self.stage_3(at_8)
        return at_8, at_16, self.stage_4(at_16)


class _Pyramid(nn.Module):
    """Four pooled maps of 128 channels beside the input, then 3x3 to 512."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(ConvNorm(512, 128, kernel_size=1) for _ in _ROWS)
        self.join = ConvNorm(1024, 512)

    def forward(self, image: Tensor) -> Tensor:
        height, width = size_of(image)
        pooled = []
        for rows, narrow in zip(_ROWS, self.narrow, strict=True):
            bins = pool_to_bins(image, rows, max(1, round(rows * width / height)))
            pooled.append(enlarge(narrow(bins), (height, width), True))
        return self.join(torch.cat([image, *pooled], dim=1))


class _Merge(nn.Module):
    """A coarse map by 1x1, enlarged, beside a fine one by 1x1, then 3x3."""

    def __init__(self, coarse_channels: int, fine_channels: int, channels: int) -> None:
        super().__init__()
        self.coarse = ConvNorm(coarse_channels, channels, kernel_size=1)
        self.fine = ConvNorm(fine_channels, channels, kernel_size=1)
        self.join = ConvNorm(2 * channels, channels)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        larger = enlarge(self.coarse(coarse), size_of(fine), False)
        return self.join(self.fine(fine), larger)


class DF1Seg(Baseline):
    """DF1-Seg; predicts at 1/8. Its last maps have as many channels as there are classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = DF1()
        self.pyramid = _Pyramid()
        self.narrow = ConvNorm(512, 128, kernel_size=1)
        self.merge_4 = _Merge(128, 128, 32)
        self.merge_3 = _Merge(32, 64, num_classes)
        self.classify = nn.Conv2d(num_classes, num_classes, 3, padding=1)
        self.auxiliary = nn.ModuleList()

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        at_8, at_16, at_32 = self.backbone(image)
        deep = self.narrow(self.pyramid(at_32))
        return self.classify(self.merge_3(self.merge_4(deep, at_16), at_8)), ()
