"""Where a training stands: a checkpoint after each epoch, gone back to by the next run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlut.search.runs.checkpoints import (
    CheckpointError,
    last_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from latlut.search.train.records import TrainEpoch

if TYPE_CHECKING:
    from latlut.search.train.training import Training

_KIND = "training"


def save_training(folder: Path, training: Training, optimizer: Any) -> None:
    """Write where the training stands after the last of its records.

    Raises:
        CheckpointError: it cannot be written; the one before stays.
    """
    average = training.average
    save_checkpoint(
        folder,
        _KIND,
        {
            "network": _identity(training),
            "classes": training.data.classes.count,
            "epoch": training.records[-1].epoch + 1,
            "state": training.network.state_dict(),
            "average": None if average is None else average.module.state_dict(),
            "average_step": 0 if average is None else average.step,
            "optimizer": optimizer.state_dict(),
            "scaler": training.fabric.strategy.precision.state_dict(),  # empty but in 16-mixed
            "records": json.dumps([record.to_dict() for record in training.records]),
        },
    )


def restore_training(folder: Path, training: Training, optimizer: Any) -> int:
    """Go back to the folder's last checkpoint, if it has one; the epoch to go on with.

    Raises:
        CheckpointError: it is damaged, or of another network, other classes, a longer training, or
            one with a moving average where this has none.
    """
    path = last_checkpoint(folder)
    if path is None:
        return 0
    state = load_checkpoint(path, _KIND)
    reason = _difference(state, training)
    if reason:
        raise CheckpointError(f"{path} {reason}; train into another folder with --run")
    training.network.load_state_dict(state["state"])
    if training.average is not None:
        training.average.module.load_state_dict(state["average"])
        training.average.step = state["average_step"]
    optimizer.load_state_dict(state["optimizer"])
    if scaler := state.get("scaler"):
        training.fabric.strategy.precision.load_state_dict(scaler)
    training.records = [TrainEpoch.from_dict(item) for item in json.loads(state["records"])]
    epoch: int = state["epoch"]
    return epoch


def _difference(state: dict[str, Any], training: Training) -> str | None:
    """Why a checkpoint is not of this training; None if it is."""
    count, epochs = training.data.classes.count, training.settings.schedule.epochs
    if state["network"] != _identity(training):
        return "is of another network than this one"
    if state["classes"] != count:
        return f"is of data with {state['classes']} classes, these have {count}"
    if state["epoch"] > epochs:
        return f"has {state['epoch']} epochs behind it, more than the {epochs} asked for"
    if (state["average"] is None) != (training.average is None):
        return f"was written {'without' if state['average'] is None else 'with'} schedule.ema"
    return None


def _identity(training: Training) -> str:
    own = training.facts.architecture
    return own if isinstance(own, str) else own.to_json()
