"""The teacher of a training: a network that was trained before, on the same classes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from latlut.errors import ImportFileError, LatlutError
from latlut.search.data.classes import Classes
from latlut.search.networks.model_files import ModelFacts, load_model


def load_teacher(path: str | Path, classes: Classes) -> tuple[nn.Module, ModelFacts]:
    """The trained network in a run's folder, in evaluation mode, without gradients.

    Raises:
        ImportFileError: there is no trained network, or one that cannot be read.
        LatlutError: it tells other classes apart than the data has.
    """
    try:
        network, facts = load_model(path)
    except ImportFileError as error:
        raise ImportFileError(
            f"the teacher: {error}\nor train without one: --teacher none"
        ) from error
    check_same_classes(facts, classes, f"the teacher {path}")
    return network.requires_grad_(False), facts


def check_same_classes(facts: ModelFacts, classes: Classes, what: str) -> None:
    """Check that a trained network tells the data's classes apart.

    Raises:
        LatlutError: another number of classes, or other names.
    """
    mine, other = facts.classes.names, classes.names
    if len(mine) != len(other):
        raise LatlutError(
            f"{what} was trained for {len(mine)} classes ({facts.data}), the data has "
            f"{len(other)}: take one that was trained on this data"
        )
    if mine != other:
        number = next(index for index, name in enumerate(mine) if name != other[index])
        raise LatlutError(
            f"{what} was trained for other classes ({facts.data}): class {number} is "
            f"{mine[number]!r} there and {other[number]!r} in the data"
        )
