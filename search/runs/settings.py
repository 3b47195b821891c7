"""Settings that a search and a training share: their groups, and what every run has.

A run folder holds the settings that were in force, all of them, as ``settings.json``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Size = tuple[Count, Count]


class Group(BaseModel):
    """Values under one name; a name that is none of them is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(Group):
    """Data set and sizes.

    ``image_scale`` is applied to images before cropping (the authors search on half-size images);
    ``image_size`` (height, width), ``train_images`` and ``validation_images`` are of generated
    data; ``evaluate_images`` is how many validation images judge an epoch, None for all.
    """

    name: str = "street-scenes"
    image_size: Size = (128, 256)
    train_images: Count = 256
    validation_images: Count = 32
    image_scale: Positive = 1.0
    crop_scales: tuple[Positive, ...] = (0.75, 1.0, 1.25)
    evaluate_images: Count | None = None
    workers: Whole = 0


class PhaseSettings(Group):
    """Epochs, batches and the step on the weights, SGD.

    ``iterations`` are steps per epoch, None for one pass over the images. ``batch`` is per process
    and per backward pass, ``accumulate`` how many such batches make one step. A run keeps the batch
    of all processes together that it began with, whatever their number when it goes on. The
    learning rate falls by ``lr_decay`` after each epoch. ``clip`` bounds the norm of the gradient.
    """

    epochs: Whole
    iterations: Count | None = None
    batch: Count = 2
    accumulate: Count = 1
    crop: Size = (64, 128)
    lr: Positive = 0.02
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.978
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 5e-4
    clip: Positive | None = 5.0


class RunSettings(Group):
    """What every run has."""

    seed: Whole = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    is_channels_last: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, complete."""
        return self.model_dump(mode="json")
