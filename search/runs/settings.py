"""Settings that a search and a training share: their groups, and what every run has.

A run folder holds the settings that were in force, all of them, as ``settings.json``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: More than any setting of a search or a training is: a mistake, and where it is a length memory
#: that no machine has.
_MOST = 1e9
_LONGEST_SIDE = 1 << 16

# Strict: a text or true is no number.
Positive = Annotated[float, Field(gt=0, le=_MOST, allow_inf_nan=False, strict=True)]
NotNegative = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, le=_MOST, strict=True)]
Whole = Annotated[int, Field(ge=0, le=_MOST, strict=True)]
Side = Annotated[int, Field(ge=1, le=_LONGEST_SIDE, strict=True)]
Size = tuple[Side, Side]
#: Of an image: the largest picture that is read, 8000 pixels a side, is enlarged no further.
Scale = Annotated[float, Field(ge=1 / 64, le=16, allow_inf_nan=False, strict=True)]
#: In [0, 1), in (0, 1], in (0, 1).
Share = Annotated[float, Field(ge=0, lt=1, strict=True)]
Decay = Annotated[float, Field(gt=0, le=1, strict=True)]
Inside = Annotated[float, Field(gt=0, lt=1, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


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
    image_scale: Scale = 1.0
    crop_scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = (0.75, 1.0, 1.25)
    evaluate_images: Count | None = None
    workers: Annotated[int, Field(ge=0, le=1024, strict=True)] = 0


class PhaseSettings(Group):
    """Epochs, batches and the step on the weights, SGD.

    ``iterations`` are steps per epoch, None for one pass over the images. ``batch`` is per process
    and per backward pass, ``accumulate`` how many such batches make one step. A run keeps the batch
    of all processes together that it began with, whatever their number when it goes on. The
    learning rate falls by ``lr_decay`` after each epoch. ``clip`` bounds the norm of the gradient.
    """

    epochs: Whole
    iterations: Count | None = None
    batch: Side = 2
    accumulate: Count = 1
    crop: Size = (64, 128)
    lr: Positive = 0.02
    lr_decay: Decay = 0.978
    momentum: Share = 0.9
    weight_decay: NotNegative = 5e-4
    clip: Positive | None = 5.0


class RunSettings(Group):
    """What every run has."""

    seed: Whole = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    is_channels_last: Flag = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, complete."""
        return self.model_dump(mode="json")
