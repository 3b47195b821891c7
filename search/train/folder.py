"""The folder of a training: what it is of, and what came out.

settings.json, run.json             what the run is (``runs.folder``)
model.safetensors, model.json       the best network; the last one in last/
checkpoints/                        last.pt and previous.pt, to go on with
epochs.csv, tensorboard/            how it went
result.json                         scores
teacher/                            the teacher's own run, where it was trained first
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latlut.errors import LatlutError
from latlut.files.reading import check_file
from latlut.search.data.dataset import SegmentationData
from latlut.search.networks.model_files import DESCRIPTION, MAX_WEIGHTS_BYTES, WEIGHTS
from latlut.search.runs.folder import RESULT, write_csv, write_json
from latlut.search.train.records import TrainEpoch
from latlut.search.train.training import TrainingResult
from latlut.spaces import Architecture
from latlut.timestamps import now_text


def training_facts(
    network: Architecture | str, teacher: Architecture | Path | None, data: SegmentationData
) -> dict[str, Any]:
    """What must be the same when a run goes on, besides its settings.

    Args:
        network: an architecture, or a baseline's name.
        teacher: the folder of a training, whose weights count, or an architecture.
        data: how many images there are counts, and the classes.
    """
    return {
        **network_facts(network, teacher),
        "data": data.name,
        "images": {name: len(split) for name, split in data.splits.items()},
        "classes": list(data.classes.names),
    }


def network_facts(
    network: Architecture | str, teacher: Architecture | Path | None
) -> dict[str, Any]:
    """The part of ``training_facts`` that is known before the data are opened."""
    return {
        "network": _described(network),
        "teacher": None if teacher is None else _described(teacher),
    }


def write_epochs(folder: Path, records: Sequence[TrainEpoch]) -> None:
    """Write how the training went so far.

    Raises:
        WriteError: it cannot be written.
    """
    write_csv(folder / "epochs.csv", [item.flat() for item in records], "\r\n")


def finish_training(folder: Path, result: TrainingResult) -> None:
    """Write the scores.

    Raises:
        LatlutError: they cannot be written.
    """
    best = result.records[result.best_epoch]
    iou = best.class_iou or ()
    values = {
        "best_epoch": result.best_epoch + 1,
        "best_mean_iou": result.best_mean_iou,
        "best_pixel_accuracy": best.pixel_accuracy,
        "best_class_iou": {
            name: None if math.isnan(value) else value
            for name, value in zip(result.classes.names, iou, strict=True)
        },
        "last_mean_iou": result.last_mean_iou,
        "epochs": len(result.records),
        "seconds": sum(record.seconds for record in result.records),
        "finished_at": now_text(),
    }
    write_json(folder / RESULT, values)


def _described(what: Architecture | str | Path) -> Any:
    if isinstance(what, str):
        return {"baseline": what}
    if isinstance(what, Architecture):
        return json.loads(what.to_json())
    folder = what.parent if what.name in (WEIGHTS, DESCRIPTION) else what
    check_file(folder / WEIGHTS, MAX_WEIGHTS_BYTES)
    try:
        with (folder / WEIGHTS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise LatlutError(f"cannot read {folder / WEIGHTS}: {error}") from error
    return {"run": str(what), "sha256": digest}
