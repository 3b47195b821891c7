"""Where a training stands: what its steps change, and the checkpoint that is gone back to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter
from torch import nn

from latlut.errors import SpecError
from latlut.search.data.dataset import SegmentationData
from latlut.search.networks.model_files import ModelFacts
from latlut.search.networks.network import SegmentationNetwork
from latlut.search.runs.checkpoints import (
    CHECKPOINTS,
    CheckpointError,
    last_checkpoint,
    load_checkpoint,
    restoring,
    save_checkpoint,
)
from latlut.search.runs.processes import on_first, share_state
from latlut.search.train.records import TrainEpoch
from latlut.search.train.settings import TrainSettings
from latlut.spaces import Architecture

_KIND = "training"
#: What a checkpoint holds, and of which type.
_VALUES: Mapping[str, type | tuple[type, ...]] = {
    "network": str,
    "classes": int,
    "epoch": int,
    "state": dict,
    "average": (dict, type(None)),
    "average_step": int,
    "optimizer": dict,
    "records": str,
}


class TrainingState:
    """A training as it stands; at its start after construction.

    Args:
        network: image (B, 3, H, W) -> in training mode ``TrainOutputs``, in evaluation mode logits
            of the data's classes at any size; moved to the fabric's device.
        data: images to train on.
        settings: everything else.
        folder: of the run; holds ``checkpoints/``.
        name: of a baseline; an architecture's network needs none.
        fabric: devices, precision and processes, launched.
        processes: how many the training began with, whose batches together make one; those of the
            fabric if None.

    Attributes:
        facts: what the stored models say of themselves.
        average: of the network's weights, where the settings ask for it.
        records: one per epoch so far.

    Raises:
        SpecError: a network of another number of classes than the data, one that is neither an
            architecture's nor has a name.
    """

    def __init__(
        self,
        network: nn.Module,
        data: SegmentationData,
        settings: TrainSettings,
        folder: Path,
        name: str | None,
        fabric: Fabric,
        processes: int | None,
    ) -> None:
        self.network, self.data, self.settings, self.folder = network, data, settings, folder
        self.fabric, self.processes = fabric, processes or fabric.world_size
        self._check_classes("network", network)
        self.facts = self._facts(name)
        self._move(network)
        decay = settings.schedule.ema
        self.average = None if decay is None else MovingAverage(network, decay)
        self.records: list[TrainEpoch] = []

    @property
    def model(self) -> nn.Module:
        """What is evaluated and stored: the network, or its moving average."""
        return self.network if self.average is None else self.average.module

    @property
    def checkpoints(self) -> Path:
        """Folder of the run's checkpoints."""
        return self.folder / CHECKPOINTS

    def save(self, optimizer: Any) -> None:
        """Write where the training stands after the last of its records.

        Raises:
            CheckpointError: it cannot be written; the one before stays.
        """
        average = self.average
        save_checkpoint(
            self.checkpoints,
            _KIND,
            {
                "network": self._identity(),
                "classes": self.data.classes.count,
                "epoch": self.records[-1].epoch + 1,
                "state": self.network.state_dict(),
                "average": None if average is None else average.module.state_dict(),
                "average_step": 0 if average is None else average.step,
                "optimizer": optimizer.state_dict(),
                "scaler": self.fabric.strategy.precision.state_dict(),  # empty but in 16-mixed
                "records": json.dumps([record.to_dict() for record in self.records]),
            },
        )

    def restore(self, optimizer: Any) -> int:
        """Go back to the folder's last checkpoint, if it has one; the epoch to go on with.

        The first process reads it, and all have its state afterwards.

        Raises:
            CheckpointError: it is damaged, or of another network, other classes, a longer
                training, or one with a moving average where this has none.
        """
        modules = [self.network] if self.average is None else [self.network, self.average.module]
        share_state(self.fabric, *modules)
        state = on_first(self.fabric, self._stored)
        if state is None:
            return 0
        with restoring(self.checkpoints):
            records = TypeAdapter(list[TrainEpoch]).validate_json(state["records"], strict=True)
            self.network.load_state_dict(state["state"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
                self.average.step = state["average_step"]
            optimizer.load_state_dict(state["optimizer"])
            if scaler := state.get("scaler"):
                self.fabric.strategy.precision.load_state_dict(scaler)
        self.records = records
        epoch: int = state["epoch"]
        return epoch

    def _stored(self) -> dict[str, Any] | None:
        """The last checkpoint of this training, None if there is none."""
        path = last_checkpoint(self.checkpoints)
        if path is None:
            return None
        state = load_checkpoint(path, _KIND, _VALUES)
        reason = self._difference(state)
        if reason:
            raise CheckpointError(f"{path} {reason}; train into another folder with --run")
        return state

    def _difference(self, state: dict[str, Any]) -> str | None:
        """Why a checkpoint is not of this training; None if it is."""
        count, epochs = self.data.classes.count, self.settings.schedule.epochs
        if state["network"] != self._identity():
            return "is of another network than this one"
        if state["classes"] != count:
            return f"is of data with {state['classes']} classes, these have {count}"
        if state["epoch"] > epochs:
            return f"has {state['epoch']} epochs behind it, more than the {epochs} asked for"
        if (state["average"] is None) != (self.average is None):
            return f"was written {'without' if state['average'] is None else 'with'} schedule.ema"
        return None

    def _identity(self) -> str:
        own = self.facts.architecture
        return own if isinstance(own, str) else own.to_json()

    def _facts(self, name: str | None) -> ModelFacts:
        own = self.network.architecture if isinstance(self.network, SegmentationNetwork) else name
        if own is None:
            raise SpecError("a network that is no architecture's needs the name of its baseline")
        height, width = self.data.val[0].label.shape
        scale = self.settings.data.image_scale
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        return ModelFacts(own, self.data.classes, self.data.name, size, scale)

    def _check_classes(self, role: str, module: nn.Module) -> None:
        own = getattr(module, "architecture", None)
        if isinstance(own, Architecture) and own.num_classes != self.data.classes.count:
            raise SpecError(
                f"the {role} has {own.num_classes} classes, {self.data.name} "
                f"{self.data.classes.count}: take one that was trained on this data"
            )

    def _move(self, module: nn.Module) -> None:
        self.fabric.to_device(module)  # moves it in place
        if self.settings.is_channels_last:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class MovingAverage:
    """A copy of a network that follows it slowly.

        average <- d average + (1 - d) network,  d = min(decay, (1 + step) / (10 + step))

    The second bound keeps the first, random weights from lasting.

    Args:
        network: what to follow; the average starts as its copy.
        decay: in (0, 1).

    Attributes:
        module: the average; in evaluation mode. step: how many updates were made.

    Source: Tarvainen and Valpola, 2017; the bound is that of TensorFlow's moving averages.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module = deepcopy(network).eval().requires_grad_(False)
        self.decay, self.step = decay, 0

    def update(self, network: nn.Module) -> None:
        """Take in the network as it is after a step."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        with torch.no_grad():
            for mine, other in zip(
                self.module.state_dict().values(), network.state_dict().values(), strict=True
            ):
                if mine.is_floating_point():
                    mine.lerp_(other.to(mine.dtype), 1 - decay)
                else:
                    mine.copy_(other)
