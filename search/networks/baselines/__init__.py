"""The hand-designed networks that FasterSeg is compared with, as plain PyTorch modules.

One file each: where its layers come from, what its paper leaves open, and what the paper says of
it. Definitions are latlut's own; weights are random, seeded.

    enet, icnet, bisenet (ResNet-18), fast-scnn, df1-seg-d8, drn-d-22, drn-d-38   the paper's
    pidnet-s, bisenet-v2                                                         newer ones
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from latlut.errors import UnknownNameError, did_you_mean
from latlut.operators import initialise
from latlut.search.networks.baselines import (
    bisenet,
    bisenet_v2,
    df1_seg,
    drn,
    enet,
    fast_scnn,
    icnet,
    pidnet,
)
from latlut.search.networks.baselines.blocks import Baseline
from latlut.search.networks.baselines.published import CAS, FASTERSEG, Figure, Published

__all__ = [
    "CAS",
    "FASTERSEG",
    "Baseline",
    "Figure",
    "Published",
    "baseline_names",
    "baseline_on_meta",
    "build_baseline",
    "published",
]


class _Entry(NamedTuple):
    builder: Callable[[int], Baseline]
    published: Published


_BASELINES: Mapping[str, _Entry] = {
    "enet": _Entry(enet.ENet, enet.PUBLISHED),
    "icnet": _Entry(icnet.ICNet, icnet.PUBLISHED),
    "bisenet": _Entry(bisenet.BiSeNet, bisenet.PUBLISHED),
    "fast-scnn": _Entry(fast_scnn.FastSCNN, fast_scnn.PUBLISHED),
    "df1-seg-d8": _Entry(df1_seg.DF1Seg, df1_seg.PUBLISHED),
    "drn-d-22": _Entry(drn.drn_d_22, drn.PUBLISHED_D_22),
    "drn-d-38": _Entry(drn.drn_d_38, drn.PUBLISHED_D_38),
    "pidnet-s": _Entry(pidnet.PIDNetS, pidnet.PUBLISHED),
    "bisenet-v2": _Entry(bisenet_v2.BiSeNetV2, bisenet_v2.PUBLISHED),
}


def baseline_names() -> list[str]:
    """Names that ``build_baseline`` knows, those of the FasterSeg paper first."""
    return list(_BASELINES)


def build_baseline(name: str, num_classes: int = 19, seed: int = 0) -> Baseline:
    """The network with seeded random weights, in evaluation mode.

    Takes the image (B, 3, H, W) float32 of any size from about 64 pixels, returns logits
    (B, num_classes, H, W); in training mode ``TrainOutputs``, see ``Baseline``.

    Raises:
        UnknownNameError: no such network; names the nearest.
    """
    entry = _entry(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = entry.builder(num_classes)
    initialise(module, seed)
    return module.eval()


def baseline_on_meta(name: str, num_classes: int = 19) -> Baseline:
    """The network without weights, in evaluation mode, for counting.

    Raises:
        UnknownNameError: no such network.
    """
    with torch.device("meta"):
        return _entry(name).builder(num_classes).eval()


def published(name: str) -> Published:
    """What the paper says of it.

    Raises:
        UnknownNameError: no such network.
    """
    return _entry(name).published


def _entry(name: str) -> _Entry:
    if name not in _BASELINES:
        raise UnknownNameError(f"no network {name!r}; {did_you_mean(name, baseline_names())}")
    return _BASELINES[name]
