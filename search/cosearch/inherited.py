"""Inherited scores: the mean IoU of a discrete network with the weights that the supernet holds.

Each network runs alone (``supernet.single_path``), on validation images, with norms recalibrated:
the supernet's own running statistics are of mixed maps, so every network first sees training images
and takes the statistics of its own maps. Nothing of the supernet is changed, and a score does not
depend on what was scored before.

Classes that no validation label has are left out of the mean: whether a network predicts a few
pixels of them says nothing.

Symbols: C classes, B batch, H, W pixels.

Source: Guo et al., Single Path One-Shot Neural Architecture Search, 2020, Sec. 3.4.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from latlut.errors import DataError
from latlut.operators.modules import resize
from latlut.search.data.augment import whole
from latlut.search.data.classes import IGNORE
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.derive.derive import Placed
from latlut.search.runs.processes import sum_of
from latlut.search.supernet.single_path import run_path
from latlut.search.supernet.supernet import Supernet
from latlut.search.train.metrics import likeliest_classes

#: Below this many validation images ranks are mostly noise.
FEWEST_IMAGES = 16
#: Training images whose statistics the norms take.
CALIBRATION_IMAGES = 16
#: Images that are run at once.
_BATCH = 8


class InheritedScorer:
    """Scores discrete networks of one supernet.

    Args:
        supernet: whose weights they inherit; read at every call.
        data: the first of its validation images judge, the first of its training images calibrate.
        fabric: devices, precision and processes, which share the validation images.
        image_scale: by which images are scaled before.
        limit: how many validation images; all if None.

    Attributes:
        images: how many judge. absent: names of the classes that no label of theirs has.

    Raises:
        DataError: no validation image has a labelled pixel.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: SegmentationData,
        fabric: Fabric,
        image_scale: float = 1.0,
        limit: int | None = None,
    ) -> None:
        self._supernet, self._fabric = supernet, fabric
        self._classes = data.classes.count
        self.images = len(data.val) if limit is None else min(limit, len(data.val))
        own = range(fabric.global_rank, self.images, fabric.world_size)
        self._batches = _batches(data.val, own, image_scale)
        calibrating = range(min(CALIBRATION_IMAGES, len(data.train)))
        size = max(1, min(CALIBRATION_IMAGES, len(data.train)))
        self._calibration, _ = _batches(data.train, calibrating, image_scale, size)[0]
        labelled = torch.zeros(self._classes, dtype=torch.int64, device=fabric.device)
        for _, label in self._batches:
            there = label[label != IGNORE].flatten()
            labelled += torch.bincount(there, minlength=self._classes).to(fabric.device)
        self._is_present = (sum_of(fabric, labelled) > 0).cpu()
        self.absent = tuple(
            name
            for name, is_there in zip(data.classes.names, self._is_present.tolist(), strict=True)
            if not is_there
        )
        if not self._is_present.any():
            raise DataError(f"no validation image of {data.name} has a labelled pixel")

    def score(self, placed: Placed) -> float:
        """The network's inherited mean IoU, a fraction, over all processes together."""
        fabric = self._fabric
        counts = torch.zeros(2, self._classes, dtype=torch.int64, device=fabric.device)
        self._supernet.eval()
        statistics = _Statistics()
        with torch.no_grad(), fabric.autocast():
            with statistics:
                self._logits(placed, self._calibration)
            for image, label in self._batches:
                with statistics.taken():
                    logits = self._logits(placed, image)
                size = (int(label.shape[-2]), int(label.shape[-1]))
                predicted = likeliest_classes(resize(logits.float(), size, "bilinear"))
                counts += _counts(predicted, fabric.to_device(label), self._classes)
        inside, union = sum_of(fabric, counts).cpu().double()[:, self._is_present]
        return float((inside / union).mean())

    def _logits(self, placed: Placed, image: Tensor) -> Tensor:
        weight = next(self._supernet.parameters())
        image = self._fabric.to_device(image).to(weight.dtype)
        return run_path(self._supernet, image, placed.architecture, placed.layers)


def _batches(
    split: Split, numbers: range, image_scale: float, size: int = _BATCH
) -> list[tuple[Tensor, Tensor]]:
    """Images and labels in order, (B, 3, H, W) and (B, H, W), of one size each."""
    found: list[tuple[list[Tensor], list[Tensor]]] = []
    for number in numbers:
        image, label = whole(split[number], image_scale)
        is_full = not found or len(found[-1][0]) == size
        if is_full or found[-1][0][0].shape != image.shape:
            found.append(([], []))
        found[-1][0].append(image)
        found[-1][1].append(label)
    return [(torch.stack(images), torch.stack(labels)) for images, labels in found]


def _counts(predicted: Tensor, label: Tensor, classes: int) -> Tensor:
    """(2, C) pixels in intersection and union, of predictions and labels (B, H, W)."""
    is_valid = label != IGNORE
    mine, true = predicted[is_valid], label[is_valid]
    inside = torch.bincount(true[mine == true], minlength=classes)
    both = torch.bincount(true, minlength=classes) + torch.bincount(mine, minlength=classes)
    return torch.stack([inside, both - inside])


class _Statistics(TorchFunctionMode):
    """While a network runs: its batch norms take the statistics of what they see, and keep them.

    Within ``taken()`` the same norms, called in the same order, take the statistics that were kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._next: int | None = None

    def taken(self) -> _Statistics:
        """For another run of the same network."""
        self._next = 0
        return self

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is not functional.batch_norm:
            return func(*args, **named)
        image = args[0]
        if self._next is None:
            axes = [0, *range(2, image.ndim)]
            exact = image.to(torch.promote_types(image.dtype, torch.float32))
            self._kept.append(torch.var_mean(exact, axes, correction=0))
            variance, mean = self._kept[-1]
        else:
            variance, mean = self._kept[self._next]
            self._next += 1
        return functional.batch_norm(
            image, mean, variance, named["weight"], named["bias"], False, 0.0, named["eps"]
        )
