"""Settings of a training: validated values from a preset's TOML file, overridden by flags.

The shipped presets are ``tiny`` (a CPU, minutes), ``small`` (one GPU, about an hour) and ``paper``
(FasterSeg's own numbers), in ``profiles/trainings/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from latlut.search.runs.setting_files import load_preset
from latlut.search.runs.settings import (
    Count,
    DataSettings,
    Decay,
    Group,
    Inside,
    NotNegative,
    PhaseSettings,
    Positive,
    RunSettings,
    Side,
    Size,
    Whole,
)

#: Pixels whose own class is given more than this probability are easy.
OHEM_THRESHOLD = 0.7

Direction = Literal["teacher_student", "student_teacher"]


class TrainDataSettings(DataSettings):
    """Data set and sizes, as in a search.

    ``corrupt`` says what files mean that cannot be used: the end of the run before it starts
    (``fatal``), or that they are named and left out (``skip``).
    """

    corrupt: Literal["fatal", "skip"] = "fatal"


class ScheduleSettings(PhaseSettings):
    """How long, on what crops, and at which rate; the numbers of a search's phase.

    ``decay`` is ``exponential`` (the rate falls by ``lr_decay`` after each epoch) or ``poly``
    (it falls with each step as (1 - progress) ** ``poly_power``). ``warmup_steps`` first steps
    raise it linearly. ``ema`` keeps an exponential average of the weights with this decay, which
    is then what is evaluated and stored as the model. ``evaluate_every`` so many epochs, and after
    the last one, the network is evaluated.

    Source: FasterSeg's code has the exponential decay (0.992); the other is DeepLab's.
    """

    epochs: Count
    batch: Side = 12
    crop: Size = (512, 1024)
    lr: Positive = 0.01
    lr_decay: Decay = 0.992
    clip: Positive | None = None
    decay: Literal["exponential", "poly"] = "exponential"
    poly_power: Positive = 0.9
    warmup_steps: Whole = 0
    ema: Inside | None = None
    evaluate_every: Count = 1

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of one step.

            exponential: lr * lr_decay ** epoch
            poly:        lr * (1 - progress) ** poly_power

        times (number + 1) / warmup_steps in the first ``warmup_steps`` steps, the number counting
        from the training's start.

        Args:
            epoch, step: from 0. steps: in an epoch.
        """
        number = epoch * steps + step
        if self.decay == "poly":
            rate = self.lr * (1 - number / (self.epochs * steps)) ** self.poly_power
        else:
            rate = self.lr * self.lr_decay**epoch
        return rate * min(1.0, (number + 1) / max(1, self.warmup_steps))


class LossSettings(Group):
    """The loss: hard pixels' cross entropy of all heads, and the teacher's share.

    ``label_stride`` takes every so many rows and columns of the labels; logits are enlarged to
    what is left. ``distillation`` and its ``direction`` (see ``losses.distillation_loss``) count
    where there is a teacher.
    """

    ohem_threshold: Decay = OHEM_THRESHOLD
    auxiliary: NotNegative = 0.2
    distillation: NotNegative = 1.0
    direction: Direction = "teacher_student"
    label_stride: Count = 1


class TrainSettings(RunSettings):
    """All settings of a training."""

    data: TrainDataSettings = TrainDataSettings()
    schedule: ScheduleSettings
    loss: LossSettings = LossSettings()


def load_train_settings(
    name_or_path: str | Path, overrides: Mapping[str, object] | None = None
) -> TrainSettings:
    """The settings of a preset or of a TOML file; see ``setting_files.load_preset``."""
    return load_preset(TrainSettings, "trainings", name_or_path, overrides)
