"""A training's scalars and sample predictions as TensorBoard event files."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from latlut.search.data.augment import denormalised, whole
from latlut.search.data.contact_sheet import painted_labels
from latlut.search.runs.listening import RunLog
from latlut.search.train.evaluating import full_logits
from latlut.search.train.metrics import likeliest_classes
from latlut.search.train.records import TrainEpoch
from latlut.search.train.state import TrainingState

#: Validation images of which predictions are shown.
SAMPLES = 4


class TrainingLog(RunLog):
    """Writes each step's loss and each epoch's record, with pictures where it was evaluated."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """One step's loss."""
        self.add("train", {"loss": loss}, epoch * steps + step - 1)

    def on_epoch(self, record: TrainEpoch, training: TrainingState) -> None:
        """One epoch's numbers; the predictions of some validation images if it was evaluated."""
        self.add("epochs", record.flat(), record.epoch + 1)
        if record.class_iou is not None:
            scores = zip(training.data.classes.names, record.class_iou, strict=True)
            self.add("class_iou", dict(scores), record.epoch + 1)
            pictures = sample_predictions(training, SAMPLES)
            with self.writing() as writer:
                for number, picture in enumerate(pictures):
                    name = f"predictions/{number}"
                    writer.add_image(name, picture, record.epoch + 1, dataformats="HWC")
        with self.writing() as writer:
            writer.flush()


def sample_predictions(training: TrainingState, count: int) -> list[NDArray[np.uint8]]:
    """Validation images, spread over the split, each beside its labels and the prediction.

    Returns:
        (H, 3 W, 3) uint8 pictures: image, labels, prediction; ignored pixels are black.
    """
    split, classes = training.data.val, training.data.classes
    network = training.model
    was_training = network.training
    network.eval()
    pictures = []
    count = min(count, len(split))
    for number in (index * len(split) // count for index in range(count)):
        image, label = whole(split[number])
        moved = training.fabric.to_device(image[None])
        with torch.no_grad(), training.fabric.autocast():
            logits = full_logits(network, moved, image_scale=training.settings.data.image_scale)
        predicted = likeliest_classes(logits)[0].to(torch.uint8).cpu()
        shown = denormalised(image).permute(1, 2, 0).numpy()
        painted = [painted_labels(item.to(torch.uint8), classes) for item in (label, predicted)]
        pictures.append(np.concatenate([shown, *painted], axis=1))
    network.train(was_training)
    return pictures
