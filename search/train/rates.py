"""The learning rate of a training's steps."""

from __future__ import annotations

from latlut.search.train.settings import ScheduleSettings


def learning_rate(schedule: ScheduleSettings, epoch: int, step: int, steps: int) -> float:
    """The rate of one step.

        exponential: lr * lr_decay ** epoch
        poly:        lr * (1 - progress) ** poly_power

    times (number + 1) / warmup_steps in the first ``warmup_steps`` steps, the number counting from
    the training's start.

    Args:
        schedule: how long, and how the rate falls.
        epoch, step: from 0. steps: in an epoch.

    Source: FasterSeg's code has the exponential one (0.992); the other is DeepLab's.
    """
    number = epoch * steps + step
    if schedule.decay == "poly":
        rate = schedule.lr * (1 - number / (schedule.epochs * steps)) ** schedule.poly_power
    else:
        rate = schedule.lr * schedule.lr_decay**epoch
    return rate * min(1.0, (number + 1) / max(1, schedule.warmup_steps))
