"""Architecture files as the authors of FasterSeg write them, for the tests that read such files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latlut.search.derive.published import COLUMNS
from latlut.search.supernet.relaxed import RelaxedArchitecture


def official_state(relaxed: RelaxedArchitecture, index: int) -> dict[str, Any]:
    """The state that the authors' search saves: parameters by scale, in their column order."""
    cells = relaxed.space.cells()
    columns = [relaxed.space.operators.index(name) for name in COLUMNS]
    state: dict[str, Any] = {}
    for order, scale in enumerate((8, 16, 32)):
        rows = [row for row, (_, s) in enumerate(cells) if s == scale]
        tensors = {"alpha": relaxed.alpha[rows][:, columns]}
        tensors["ratio"] = relaxed.gamma[[row - 1 for row in rows if row]]
        two_way = [i for i, row in enumerate(relaxed.two_way) if row in rows]
        if order:
            tensors["beta"] = relaxed.beta[two_way]
        for name, tensor in tensors.items():
            state[f"{name}_{index}_{order}"] = torch.nn.Parameter(tensor.detach().clone())
    scores = {"mIoU02": np.float64(0.6), "mIoU12": np.float64(0.65)}
    return state | scores | {"latency02": 7.5, "latency12": np.float64(7.0)}


def save_on_gpu(state: dict[str, Any], path: Path, is_zip: bool = True) -> Path:
    """Save as a machine with a GPU does: the tensors are marked as living on cuda:0."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    return path
