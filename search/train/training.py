"""The training of one network from scratch, with a teacher or without.

The loss is the cross entropy of hard pixels at the main head, plus a share of that of the
auxiliary heads, plus the divergence from the teacher. Each epoch ends with a checkpoint; the
network is evaluated on whole validation images, and the best and the last one are stored as
models (``model_files``).

All randomness (order, augmentation, dropout) comes from the seed and the epoch's number: a run
that was killed goes on from its last checkpoint and ends, on a CPU, in the same bits.

Source: FasterSeg, Sec. 3.3 and the authors' code. Theirs lets ignored pixels count in the
distillation and averages it over classes; see ``losses``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from latlut.errors import DataError
from latlut.search.data.augment import Augmentation
from latlut.search.data.classes import Classes
from latlut.search.data.dataset import SegmentationData
from latlut.search.data.loading import Batch, TrainBatches
from latlut.search.networks.model_files import save_model
from latlut.search.networks.network import main_logits
from latlut.search.runs.norms import shared_norms
from latlut.search.runs.processes import mean_of, on_first
from latlut.search.runs.step import (
    finite_loss,
    make_step,
    set_rate,
    step_batches,
    weight_optimizer,
)
from latlut.search.train.evaluating import evaluate
from latlut.search.train.losses import training_loss
from latlut.search.train.records import TrainEpoch, best_epoch
from latlut.search.train.settings import TrainSettings
from latlut.search.train.state import TrainingState

#: Told after each step: epoch, step, steps in the epoch, loss.
StepListener = Callable[[int, int, int, float], None]
#: Told after each epoch, with the training as it stands.
EpochListener = Callable[[TrainEpoch, TrainingState], None]


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to."""

    best_epoch: int
    """From 0; its model is in the run's folder."""
    best_mean_iou: float
    last_mean_iou: float
    """``best_mean_iou``, ``last_mean_iou``: on the validation set, fractions."""
    classes: Classes
    """What was learnt."""
    records: tuple[TrainEpoch, ...]
    """Of all epochs."""


class Training(TrainingState):
    """One training, from the first step to the stored models.

    Args:
        network, data, settings, name: see ``TrainingState``.
        folder: of the run; holds ``checkpoints/``, the best model, and the last in ``last/``.
        teacher: image -> logits in evaluation mode; the student learns from it.
        fabric: devices, precision and processes, launched; one CPU process if not given.
        processes: see ``TrainingState``.
        on_step, on_epoch: listeners.

    Raises:
        SpecError: a network or teacher of another number of classes than the data, a network that
            is neither an architecture's nor has a name.
    """

    def __init__(
        self,
        network: nn.Module,
        data: SegmentationData,
        settings: TrainSettings,
        folder: Path,
        teacher: nn.Module | None = None,
        *,
        name: str | None = None,
        fabric: Fabric | None = None,
        processes: int | None = None,
        on_step: StepListener | None = None,
        on_epoch: EpochListener | None = None,
    ) -> None:
        fabric = fabric or Fabric(accelerator="cpu", devices=1)
        super().__init__(network, data, settings, folder, name, fabric, processes)
        self.teacher = teacher if settings.loss.distillation else None
        if self.teacher is not None:
            self._check_classes("teacher", self.teacher)
            self._move(self.teacher)
        self.on_step = on_step or (lambda *_: None)
        self.on_epoch = on_epoch or (lambda *_: None)

    def run(self) -> TrainingResult:
        """Run what is left of the training.

        Raises:
            DivergedError: a loss that is not finite; the last checkpoint is from before.
            CheckpointError: the folder's checkpoint is of another training, or a checkpoint or
                model cannot be written.
            DataError: a file that cannot be used, fewer images than a batch.
        """
        schedule = self.settings.schedule
        batches = self.batches()
        optimizer = weight_optimizer(self.fabric, self.network, schedule)
        first = self.restore(optimizer)
        for epoch in range(first, schedule.epochs):
            record = self._epoch(epoch, optimizer, batches)
            self.records.append(record)
            self._store(record, optimizer)
            self.on_epoch(record, self)
        best, last = best_epoch(self.records), self.records[-1]
        assert best is not None and best.mean_iou is not None and last.mean_iou is not None
        return TrainingResult(
            best.epoch, best.mean_iou, last.mean_iou, self.data.classes, tuple(self.records)
        )

    def batches(self) -> TrainBatches:
        """The training batches, of which this process has its share.

        Raises:
            DataError: fewer images than one batch of all processes, or one step of batches; a
                batch that has fewer images than there are processes.
        """
        schedule, data = self.settings.schedule, self.settings.data
        looks = Augmentation(
            schedule.crop,
            scales=data.crop_scales,
            image_scale=data.image_scale,
            label_stride=self.settings.loss.label_stride,
        )
        iterations = schedule.iterations
        batches = TrainBatches(
            self.data.train,
            looks,
            schedule.batch * self.processes,
            seed=self.settings.seed,
            iterations=None if iterations is None else iterations * schedule.accumulate,
            rank=self.fabric.global_rank,
            world_size=self.fabric.world_size,
            workers=data.workers,
            pin_memory=self.fabric.device.type == "cuda",
        )
        if len(batches) < schedule.accumulate:
            raise DataError(
                f"the training images make {len(batches)} batches, fewer than the "
                f"{schedule.accumulate} of one step: accumulate fewer, or take more images"
            )
        return batches

    def _epoch(self, epoch: int, optimizer: Any, batches: TrainBatches) -> TrainEpoch:
        started = time.monotonic()
        schedule = self.settings.schedule
        steps = len(batches) // schedule.accumulate
        sums: dict[str, Tensor] = {}
        total = rate = 0.0
        self.network.train()
        if self.teacher is not None:
            self.teacher.eval()
        drawn = batches.epoch(epoch)
        text = f"{self.settings.seed}/train/{epoch}/{self.fabric.global_rank}"
        with _seeded(random.Random(text).getrandbits(63), self.fabric.device):  # dropout
            for step in range(steps):
                rate = schedule.rate(epoch, step, steps)
                set_rate(optimizer, rate)
                loss = self._step(drawn, optimizer, sums, (epoch, step, batches))
                if self.average is not None:
                    self.average.update(self.network)
                total += loss
                self.on_step(epoch, step + 1, steps, loss)
        means: dict[str, Any] = {
            name: float(mean_of(self.fabric, value)) / (steps * schedule.accumulate)
            for name, value in sums.items()
        }
        found = self._judged() if self._is_judged(epoch) else {}
        seconds = time.monotonic() - started
        return TrainEpoch(epoch, seconds, total / steps, rate=rate, **means, **found)

    def _step(
        self,
        drawn: Iterator[Batch],
        optimizer: Any,
        sums: dict[str, Tensor],
        place: tuple[int, int, TrainBatches],
    ) -> float:
        """A step on the weights; its loss. Adds the parts of the loss to ``sums``."""
        schedule, (epoch, step, batches) = self.settings.schedule, place
        count = schedule.accumulate
        numbers = range(step * count, (step + 1) * count)

        def check(loss: float) -> float:
            where = f"epoch {epoch + 1}, step {step + 1}"
            return finite_loss(loss, where, batches, epoch, numbers, self.checkpoints)

        on_device = step_batches(self.fabric, drawn, count, self.settings.is_channels_last)
        losses = (self._loss(batch, sums) for batch in on_device)
        return make_step(self.fabric, self.network, optimizer, losses, check, count, schedule.clip)

    def _loss(self, batch: Batch, sums: dict[str, Tensor]) -> Tensor:
        taught = None
        with self.fabric.autocast(), shared_norms(self.fabric):
            outputs = self.network(batch.image)
            if self.teacher is not None:
                with torch.no_grad():
                    taught = main_logits(self.teacher(batch.image))
        loss = training_loss(outputs, batch.label, self.settings.loss, taught, self.fabric)
        for name, value in loss.parts.items():
            sums[name] = value + sums[name] if name in sums else value
        return loss.total

    def _is_judged(self, epoch: int) -> bool:
        schedule = self.settings.schedule
        return (epoch + 1) % schedule.evaluate_every == 0 or epoch + 1 == schedule.epochs

    def _judged(self) -> dict[str, Any]:
        data = self.settings.data
        score = evaluate(
            self.model,
            self.data.val,
            self.data.classes,
            fabric=self.fabric,
            image_scale=data.image_scale,
            limit=data.evaluate_images,
            workers=data.workers,
        )
        return {
            "mean_iou": score.mean_iou,
            "pixel_accuracy": score.pixel_accuracy,
            "class_iou": score.class_iou,
        }

    def _store(self, record: TrainEpoch, optimizer: Any) -> None:
        """Write the models of a judged epoch, then where the run stands, on the first process."""

        def write() -> None:
            if record.mean_iou is not None:
                facts = self.facts.at(record.epoch + 1, record.mean_iou)
                if best_epoch(self.records) is record:
                    save_model(self.folder, self.model, facts)
                save_model(self.folder / "last", self.model, facts)
            self.save(optimizer)

        on_first(self.fabric, write)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """PyTorch's global generators, seeded inside the block and put back after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
