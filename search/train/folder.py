"""The folder of a training: what it is of, and what came out.

settings.json, run.json             what the run is (``run_files``)
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latlut.errors import LatlutError
from latlut.search.data.dataset import SegmentationData
from latlut.search.networks.model_files import DESCRIPTION, WEIGHTS
from latlut.search.runs.folder import begin_run, write_json
from latlut.search.train.settings import TrainSettings
from latlut.search.train.training import TrainingResult
from latlut.spaces import Architecture
from latlut.timestamps import now_text
from latlut.version import __version__


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
        "network": _described(network),
        "teacher": None if teacher is None else _described(teacher),
        "data": data.name,
        "images": {name: len(split) for name, split in data.splits.items()},
        "classes": list(data.classes.names),
    }


def training_remarks(settings: TrainSettings, environment: Mapping[str, object]) -> dict[str, Any]:
    """What is written once: when and where the run started."""
    return {
        "started_at": now_text(),
        "seed": settings.seed,
        "latlut_version": __version__,
        "environment": dict(environment),
    }


def is_trained(
    folder: Path,
    settings: TrainSettings,
    network: Architecture | str,
    teacher: Architecture | Path | None,
) -> bool:
    """Whether the folder holds this very training, finished. The data are not opened for it.

    Args:
        network, teacher: see ``training_facts``.

    Raises:
        LatlutError: it holds a finished training of something else, or with other settings.
    """
    if not (folder / "result.json").exists():
        return False
    facts = {
        "network": _described(network),
        "teacher": None if teacher is None else _described(teacher),
    }
    return begin_run(folder, settings.to_dict(), facts, {})


def finish_training(folder: Path, result: TrainingResult) -> None:
    """Write the scores.

    Raises:
        LatlutError: they cannot be written.
    """
    best = result.records[result.best_epoch]
    iou = best.class_iou or ()
    values = {
        "best_epoch": result.best_epoch,
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
    try:
        write_json(folder / "result.json", values)
    except OSError as error:
        raise LatlutError(f"cannot write {folder / 'result.json'}: {error}") from error


def _described(what: Architecture | str | Path) -> Any:
    if isinstance(what, str):
        return {"baseline": what}
    if isinstance(what, Architecture):
        return json.loads(what.to_json())
    folder = what.parent if what.name in (WEIGHTS, DESCRIPTION) else what
    try:
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    except OSError as error:
        raise LatlutError(f"cannot read {folder / WEIGHTS}: {error}") from error
    return {"run": str(what), "sha256": digest}
