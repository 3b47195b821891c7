"""Mixed families of networks as ONNX files: what tables from files are tried on.

    python tests/benchmarks/onnx_families.py FOLDER            all of them
    python tests/benchmarks/onnx_families.py FOLDER --small    one of each family, smaller inputs

Segmentation networks are the product's own baselines, each at two input sizes; the others are
written small here, after the papers that their families come from, each in two or three sizes. The
family is the file's name up to the first ``-``. Weights are random: latency does not depend on
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from latlut.operators.onnx_export import export_onnx
from latlut.search.networks.finding import find_network

BASELINES = (
    "enet",
    "icnet",
    "bisenet",
    "bisenet-v2",
    "fast-scnn",
    "df1-seg-d8",
    "drn-d-22",
    "pidnet-s",
)


def conv(
    channels: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:  # fmt: skip
    """Convolution, batch norm, activation."""
    parts: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*parts, *([act()] if act else []))


class SqueezeExcite(nn.Module):
    """Squeeze and excitation (Hu et al., 2018)."""

    def __init__(self, channels: int, reduced: int, gate: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, reduced, 1), nn.ReLU(),
            nn.Conv2d(reduced, channels, 1), gate(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(x)


class InvertedResidual(nn.Module):
    """Expansion, depthwise, projection (Sandler et al., 2018), with squeeze-excite on demand."""

    def __init__(
        self, channels: int, out: int, expand: int, kernel: int, stride: int,
        act: Callable[[], nn.Module], gate: type[nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = channels * expand
        parts = [conv(channels, inner, 1, act=act)] if expand > 1 else []
        parts.append(conv(inner, inner, kernel, stride, inner, act))
        if gate:
            parts.append(nn.Sequential(SqueezeExcite(inner, max(8, inner // 4), gate)))
        self.body = nn.Sequential(*parts, conv(inner, out, 1, act=None))
        self.is_residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.is_residual else self.body(x)


#: (expansion, channels, repeats, stride, kernel), MobileNetV2's.
_V2 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3),
       (6, 160, 3, 2, 3), (6, 320, 1, 1, 3))  # fmt: skip
#: After MobileNetV3-large.
_V3 = ((1, 16, 1, 1, 3), (4, 24, 2, 2, 3), (3, 40, 3, 2, 5), (6, 80, 4, 2, 3), (6, 112, 2, 1, 3),
       (6, 160, 3, 2, 5))  # fmt: skip
#: EfficientNet-B0's.
_B0 = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5),
       (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))  # fmt: skip


def mobile(
    rows: tuple[tuple[int, ...], ...], width: float, act: Callable[[], nn.Module],
    gate: type[nn.Module] | None = None, last: int = 1280,
) -> nn.Module:  # fmt: skip
    """A chain of inverted residuals with a classifier."""

    def scaled(channels: int) -> int:
        return max(8, int(channels * width + 4) // 8 * 8)

    channels = scaled(32)
    parts: list[nn.Module] = [conv(3, channels, 3, 2, act=act)]
    for expand, out, repeats, stride, kernel in rows:
        for index in range(repeats):
            step = stride if index == 0 else 1
            block = InvertedResidual(channels, scaled(out), expand, kernel, step, act, gate)
            parts.append(block)
            channels = scaled(out)
    parts += [conv(channels, last, 1, act=act), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(last, 1000))


class Residual(nn.Module):
    """A residual block, basic or bottleneck (He et al., 2016)."""

    def __init__(self, channels: int, out: int, stride: int, is_bottleneck: bool) -> None:
        super().__init__()
        if is_bottleneck:
            inner = out // 4
            parts = [conv(channels, inner, 1), conv(inner, inner, 3, stride)]
            self.body = nn.Sequential(*parts, conv(inner, out, 1, act=None))
        else:
            self.body = nn.Sequential(conv(channels, out, 3, stride), conv(out, out, 3, act=None))
        is_same = stride == 1 and channels == out
        self.short = nn.Identity() if is_same else conv(channels, out, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


def resnet(repeats: tuple[int, ...], width: int, is_bottleneck: bool = False) -> nn.Module:
    """A residual network with a classifier."""
    channels, parts = width, [conv(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, count in enumerate(repeats):
        out = width * 2**stage * (4 if is_bottleneck else 1)
        for index in range(count):
            stride = 2 if stage and index == 0 else 1
            parts.append(Residual(channels, out, stride, is_bottleneck))
            channels = out
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


class UNet(nn.Module):
    """Encoder and decoder with skips (Ronneberger et al., 2015)."""

    def __init__(self, width: int, depth: int = 4, is_transposed: bool = True) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(depth + 1)]

        def twice(channels: int, out: int) -> nn.Module:
            return nn.Sequential(conv(channels, out), conv(out, out))

        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.down = nn.ModuleList([twice(3, width), *(twice(a, b) for a, b in pairs)])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, 2)
            if is_transposed
            else nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(b, a, 1))
            for a, b in reversed(pairs)
        )
        self.join = nn.ModuleList(twice(2 * a, a) for a, _ in reversed(pairs))
        self.pool, self.end = nn.MaxPool2d(2), nn.Conv2d(width, 19, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else self.pool(x))
            kept.append(x)
        kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], dim=1))
        return self.end(x)


class Attention(nn.Module):
    """A transformer's encoder block, pre-norm (Dosovitskiy et al., 2021)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(self.norms[0](x)).reshape(
            batch, tokens, 3, self.heads, width // self.heads
        )
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.project(mixed)
        return x + self.mlp(self.norms[1](x))


class VisionTransformer(nn.Module):
    """Patches, encoder blocks, a classifier on the mean token."""

    def __init__(self, width: int, depth: int, heads: int, size: int, patch: int = 16) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(*(Attention(width, heads) for _ in range(depth)))
        self.norm, self.end = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2) + self.places
        return self.end(self.norm(self.blocks(x)).mean(dim=1))


def _written_here(size: int) -> dict[str, Callable[[], nn.Module]]:
    return {
        "mobilenetv2-050": lambda: mobile(_V2, 0.5, nn.ReLU6),
        "mobilenetv2-100": lambda: mobile(_V2, 1.0, nn.ReLU6),
        "mobilenetv3-075": lambda: mobile(_V3, 0.75, nn.Hardswish, nn.Hardsigmoid),
        "mobilenetv3-100": lambda: mobile(_V3, 1.0, nn.Hardswish, nn.Hardsigmoid),
        "efficientnet-b0": lambda: mobile(_B0, 1.0, nn.SiLU, nn.Sigmoid),
        "efficientnet-w05": lambda: mobile(_B0, 0.5, nn.SiLU, nn.Sigmoid),
        "resnet-18": lambda: resnet((2, 2, 2, 2), 64),
        "resnet-50": lambda: resnet((3, 4, 6, 3), 64, is_bottleneck=True),
        "resnet-26w32": lambda: resnet((3, 3, 3, 3), 32),
        "unet-16": lambda: UNet(16),
        "unet-24": lambda: UNet(24, is_transposed=False),
        "vit-tiny": lambda: VisionTransformer(192, 6, 3, size),
        "vit-small": lambda: VisionTransformer(256, 8, 4, size),
    }


def networks(is_small: bool = False) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and what makes the serialised model, of each network."""
    size = 128 if is_small else 160
    sizes = [(128, 128)] if is_small else [(128, 256), (192, 384)]
    for kind in BASELINES:
        for own in sizes:
            name = f"{kind.replace('-', '')}-{own[0]}x{own[1]}"
            yield name, lambda kind=kind, own=own: _baseline(kind, own)
    seen = set()
    for name, make in _written_here(size).items():
        family = name.split("-")[0]
        if not (is_small and family in seen):
            yield name, lambda make=make: _exported(make(), size)
        seen.add(family)


def _baseline(kind: str, size: tuple[int, int]) -> bytes:
    return find_network(kind, 19).workload(size, 1, True, False).onnx_bytes()


def _exported(module: nn.Module, size: int) -> bytes:
    torch.manual_seed(0)
    import numpy as np

    return export_onnx(module.eval(), [np.zeros((1, 3, size, size), dtype=np.float32)])


def write(folder: Path, is_small: bool = False) -> list[Path]:
    """Write the files that are not there yet; all of their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, make in networks(is_small):
        path = folder / f"{name}.onnx"
        if not path.exists():
            path.write_bytes(make())
        found.append(path)
    return found


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    for path in write(arguments.folder, arguments.small):
        print(path)


if __name__ == "__main__":
    main()
