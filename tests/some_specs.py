"""Op specs of every built-in operator, small and with odd sides, for the tests that take any."""

from __future__ import annotations

SPECS = [
    "conv 8->16 stride 2 at 15x17",
    "conv 8->8 stride 1 at 16x16 groups=2",
    "conv 8->8 stride 1 at 16x16 dilation=2 kernel_size=5",
    "conv_2x 8->8 stride 1 at 16x16 batch=2",
    "zoomed_conv 8->16 stride 1 at 15x17",
    "zoomed_conv_2x 8->16 stride 2 at 16x16",
    "zoomed_conv 8->8 stride 1 at 16x16 interpolation=nearest",
    "skip 8->16 stride 2 at 15x16",
    "skip 8->16 stride 1 at 16x16 form=searched",
    "skip 8->8 stride 1 at 16x16 form=identity",
    "refine 16,8->8 at 8x9,15x17",
    "fusion 8,8->16 at 16x16",
    "head 16->19 at 16x16",
    "upsample 4->4 at 8x8 out_size=61x64",
]
