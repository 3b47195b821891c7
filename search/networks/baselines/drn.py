"""DRN-D-22 and DRN-D-38: residual networks that dilate instead of striding beyond 1/8.

Source: Yu, Koltun and Funkhouser, Dilated Residual Networks, CVPR 2017, Sec. 4 and Fig. 5; the
D variants, which the paper's repository describes as simplified versions of C, are as its code
has them: plain convolutions at both ends, no residuals there.

What the paper leaves open and how it is here: the segmentation network is the backbone and a
1x1 to the classes. The code enlarges the logits by a fixed bilinear deconvolution, here an
interpolation with the same weights away from the border. There is no auxiliary head.
FasterSeg compares with them on BDD at 720x1280 (53.2 and 55.2 mIoU), not on Cityscapes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from latlut.operators.modules import ConvNorm
from latlut.search.networks.baselines.blocks import Baseline, Residual
from latlut.search.networks.baselines.published import Figure, Published

_PAPER = "Yu, Koltun and Funkhouser, Dilated Residual Networks, CVPR 2017"
_README = "README of the authors' repository"
_WITH_CLASSIFIER = "with ImageNet's classifier of 1000 classes"
_FASTERSEG_TABLE_6 = "FasterSeg (Chen et al., ICLR 2020), Table 6"

PUBLISHED_D_22 = Published(
    title="DRN-D-22",
    paper=_PAPER,
    input_size=(720, 1280),
    parameters_m=Figure(16.4, _README, note=_WITH_CLASSIFIER),
    miou_val_percent=Figure(68.0, _README),
    fps=Figure(21.0, _FASTERSEG_TABLE_6, note="53.2 mIoU on BDD's validation set"),
    fps_device="GTX 1080 Ti, as FasterSeg measured it",
)
PUBLISHED_D_38 = Published(
    title="DRN-D-38",
    paper=_PAPER,
    input_size=(720, 1280),
    parameters_m=Figure(26.5, _README, note=_WITH_CLASSIFIER),
    miou_val_percent=Figure(71.4, _README),
    fps=Figure(12.9, _FASTERSEG_TABLE_6, note="55.2 mIoU on BDD's validation set"),
    fps_device="GTX 1080 Ti, as FasterSeg measured it",
)


def _residuals(before: int, after: int, count: int, stride: int, dilation: int) -> nn.Sequential:
    first = Residual(before, after, stride, dilation)
    return nn.Sequential(
        first, *(Residual(after, after, dilation=dilation) for _ in range(count - 1))
    )


class DRND(Baseline):
    """DRN-D; predicts at 1/8.

    Args:
        num_classes: of the logits.
        blocks: residual blocks of levels 3 to 6.
    """

    def __init__(self, num_classes: int, blocks: Sequence[int]) -> None:
        super().__init__()
        third, fourth, fifth, sixth = blocks
        self.backbone = nn.Sequential(
            ConvNorm(3, 16, kernel_size=7),
            ConvNorm(16, 16),
            ConvNorm(16, 32, stride=2),
            _residuals(32, 64, third, 2, 1),
            _residuals(64, 128, fourth, 2, 1),
            _residuals(128, 256, fifth, 1, 2),
            _residuals(256, 512, sixth, 1, 4),
            ConvNorm(512, 512, dilation=2),
            ConvNorm(512, 512),
        )
        self.classify = nn.Conv2d(512, num_classes, 1)
        self.auxiliary = nn.ModuleList()

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.classify(self.backbone(image)), ()


def drn_d_22(num_classes: int) -> DRND:
    """DRN-D-22."""
    return DRND(num_classes, (2, 2, 2, 2))


def drn_d_38(num_classes: int) -> DRND:
    """DRN-D-38."""
    return DRND(num_classes, (3, 4, 6, 3))
