"""ENet: an early-downsampling encoder of bottlenecks and a small decoder that unpools.

Source: Paszke et al., ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation, arXiv 1606.02147, Table 1 and Fig. 2; where they are silent, the authors' Lua code.

What the paper leaves open and how it is here: biases stand where the Lua code has them (3x3 and
the second asymmetric convolution); batch norm's epsilon is that code's 1e-3; the last full
convolution is 2x2. The authors train the encoder first, on a classifier of its own at 1/8, and
the decoder afterwards; here that classifier is an auxiliary head and both train at once.

Max unpooling has no export to ONNX from PyTorch, so the winner of each 2x2 window is kept as a
mask instead of an index; the result is the same. Where two values of a window are equal up to
rounding, engines differ in the winner, and the output around that place differs with it. Sides
that are not multiples of 8 are padded with zeros, and the logits cut back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from latlut.search.networks.baselines.blocks import Baseline, size_of
from latlut.search.networks.baselines.published import FASTERSEG_TABLE_4, Figure, Published

PUBLISHED = Published(
    title="ENet",
    paper="Paszke et al., ENet: A Deep Neural Network Architecture for Real-Time Semantic "
    "Segmentation, arXiv 1606.02147",
    input_size=(512, 1024),
    parameters_m=Figure(0.37, "arXiv 1606.02147, Table 3", is_confirmed=False),
    macs_g=Figure(
        3.83 / 2,
        "arXiv 1606.02147, Table 3",
        is_confirmed=False,
        note="3.83 GFLOPs there, where a multiply-accumulate seems to count as two",
    ),
    macs_input_size=(360, 640),
    miou_test_percent=Figure(58.3, FASTERSEG_TABLE_4),
    fps=Figure(76.9, FASTERSEG_TABLE_4),
    fps_device="as listed in FasterSeg's Table 4",
)

_EPSILON = 1e-3
_STRIDE = 8


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON)


def pool_with_winners(image: Tensor) -> tuple[Tensor, Tensor]:
    """2x2 maxima, and which of its four places each came from.

    Args:
        image: (B, K, H, W), even sides.

    Returns:
        (B, K, H/2, W/2) maxima; (B, K, 4, H/2, W/2) float, 1 at the first largest place.
    """
    batch, channels = int(image.shape[0]), int(image.shape[1])
    height, width = size_of(image)
    windows = functional.pixel_unshuffle(image, 2)
    windows = windows.view(batch, channels, 4, height // 2, width // 2)
    winner = windows.argmax(dim=2, keepdim=True)
    places = torch.arange(4, device=image.device).view(1, 1, 4, 1, 1)
    return functional.max_pool2d(image, 2), (winner == places).to(image.dtype)


def unpool(image: Tensor, winners: Tensor) -> Tensor:
    """Values back at the places they came from, zeros elsewhere: (B, K, 2h, 2w)."""
    return functional.pixel_shuffle((image.unsqueeze(2) * winners).flatten(1, 2), 2)


class _Encode(nn.Module):
    """A bottleneck of the encoder.

    Args:
        kind: "regular", "dilated" or "asymmetric".
        extent: dilation, or the length of the asymmetric kernel.
        dropout: of whole maps.
    """

    def __init__(self, channels: int, kind: str, extent: int, dropout: float) -> None:
        super().__init__()
        middle = channels // 4
        if kind == "asymmetric":
            pad = extent // 2
            core: list[nn.Module] = [
                nn.Conv2d(middle, middle, (extent, 1), padding=(pad, 0), bias=False),
                nn.Conv2d(middle, middle, (1, extent), padding=(0, pad)),
            ]
        else:
            core = [nn.Conv2d(middle, middle, 3, padding=extent, dilation=extent)]
        self.body = nn.Sequential(
            nn.Conv2d(channels, middle, 1, bias=False), _norm(middle), nn.PReLU(middle),
            *core, _norm(middle), nn.PReLU(middle),
            nn.Conv2d(middle, channels, 1, bias=False), _norm(channels), nn.Dropout2d(dropout),
        )  # fmt: skip
        self.activate = nn.PReLU(channels)

    def forward(self, image: Tensor) -> Tensor:
        return self.activate(self.body(image) + image)


class _Down(nn.Module):
    """The bottleneck that halves the map; the input comes along pooled.

    The paper pads the pooled input with channels of zeros: it is added to the first channels.
    """

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        middle = out_channels // 4
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, middle, 2, stride=2, bias=False), _norm(middle),
            nn.PReLU(middle), nn.Conv2d(middle, middle, 3, padding=1), _norm(middle),
            nn.PReLU(middle), nn.Conv2d(middle, out_channels, 1, bias=False),
            _norm(out_channels), nn.Dropout2d(dropout),
        )  # fmt: skip
        self.activate = nn.PReLU(out_channels)
        self.in_channels = in_channels

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pooled, winners = pool_with_winners(image)
        result = self.body(image)
        first, rest = result[:, : self.in_channels], result[:, self.in_channels :]
        return self.activate(torch.cat([first + pooled, rest], dim=1)), winners


class _Decode(nn.Module):
    """A bottleneck of the decoder, with ReLU; doubles the map where it is given winners."""

    def __init__(self, in_channels: int, out_channels: int, is_up: bool) -> None:
        super().__init__()
        middle = out_channels // 4
        core: nn.Module = nn.Conv2d(middle, middle, 3, padding=1)
        if is_up:
            core = nn.ConvTranspose2d(middle, middle, 3, stride=2, padding=1, output_padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, middle, 1, bias=False), _norm(middle), nn.ReLU(),
            core, _norm(middle), nn.ReLU(),
            nn.Conv2d(middle, out_channels, 1, bias=False), _norm(out_channels),
        )  # fmt: skip
        self.narrow = (
            nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), _norm(out_channels))
            if is_up
            else nn.Identity()
        )

    def forward(self, image: Tensor, winners: Tensor | None = None) -> Tensor:
        along = self.narrow(image)
        if winners is not None:
            along = unpool(along, winners)
        return functional.relu(self.body(image) + along)


class ENet(Baseline):
    """ENet with the encoder's classifier as auxiliary head; predicts at full size."""

    is_continuous = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 13, 3, stride=2, padding=1)
        self.first_norm = nn.Sequential(_norm(16), nn.PReLU(16))
        self.down_1 = _Down(16, 64, 0.01)
        self.stage_1 = nn.Sequential(*(_Encode(64, "regular", 1, 0.01) for _ in range(4)))
        self.down_2 = _Down(64, 128, 0.1)
        plan = [
            ("regular", 1), ("dilated", 2), ("asymmetric", 5), ("dilated", 4),
            ("regular", 1), ("dilated", 8), ("asymmetric", 5), ("dilated", 16),
        ]  # fmt: skip
        self.stage_2_3 = nn.Sequential(*(_Encode(128, *step, 0.1) for step in plan + plan))
        self.up_4 = _Decode(128, 64, True)
        self.stage_4 = nn.Sequential(_Decode(64, 64, False), _Decode(64, 64, False))
        self.up_5 = _Decode(64, 16, True)
        self.stage_5 = _Decode(16, 16, False)
        self.classify = nn.ConvTranspose2d(16, num_classes, 2, stride=2)
        self.auxiliary = nn.ModuleList([nn.Conv2d(128, num_classes, 1)])

    def scores(self, image: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        height, width = size_of(image)
        below, beside = -height % _STRIDE, -width % _STRIDE
        if below or beside:
            image = functional.pad(image, (0, beside, 0, below))
        joined = torch.cat([self.first(image), functional.max_pool2d(image, 2)], dim=1)
        first, winners_1 = self.down_1(self.first_norm(joined))
        second, winners_2 = self.down_2(self.stage_1(first))
        encoded = self.stage_2_3(second)
        result = self.stage_4(self.up_4(encoded, winners_2))
        result = self.stage_5(self.up_5(result, winners_1))
        return self.classify(result)[:, :, :height, :width], (encoded,)
