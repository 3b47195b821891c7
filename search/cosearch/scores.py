"""How well the supernet segments validation images, per set of branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from lightning_fabric import Fabric

from latlut.operators import resize
from latlut.search.data.dataset import SegmentationData
from latlut.search.supernet.mixing import Mixing
from latlut.search.supernet.supernet import Supernet
from latlut.search.train.evaluating import split_batches
from latlut.search.train.metrics import ScoreMeter


def supernet_scores(
    fabric: Fabric,
    supernet: Supernet,
    mixing: Mixing,
    widths: Sequence[int],
    end_width: int,
    data: SegmentationData,
    outputs: Iterable[tuple[int, ...]],
    *,
    image_scale: float = 1.0,
    limit: int | None = None,
) -> dict[tuple[int, ...], float]:
    """Mean IoU per output of the supernet, in evaluation mode, over all processes together.

    Args:
        fabric: device, precision and processes.
        supernet: left in evaluation mode.
        mixing: weights of operators and inputs.
        widths: (N - 1,) twelfths. end_width: twelfths.
        data: its validation split is used.
        outputs: sets of branches that have a head.
        image_scale: factor by which images and labels are scaled.
        limit: how many validation images; all if None.

    Returns:
        output -> mean IoU, a fraction; logits are enlarged to the labels' size before.
    """
    supernet.eval()
    wanted = tuple(outputs)
    meters = {output: ScoreMeter(data.classes.count, fabric.device) for output in wanted}
    with torch.no_grad(), fabric.autocast():
        fixed = Mixing(*(part.detach() for part in mixing))
        for _, (image, label) in split_batches(
            fabric, data.val, image_scale=image_scale, limit=limit
        ):
            logits = supernet(image, fixed, widths, end_width, outputs=wanted)
            size = (int(label.shape[-2]), int(label.shape[-1]))
            for output, meter in meters.items():
                meter.update(resize(logits[output].float(), size, "bilinear"), label)
    return {output: meter.score().mean_iou for output, meter in meters.items()}
