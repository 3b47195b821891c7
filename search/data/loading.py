"""Batches: which examples in which order, on which process, from which position on.

The order of the examples follows from (seed, part, epoch) and the look of each from (seed, part,
epoch, pass, index), never from the state of a generator. So the batches of a run are the same with
any number of worker processes, and of processes that share each batch. A run that starts again at
(epoch, iteration) gets exactly the batches that an unbroken one would have got. No number is drawn
from PyTorch's global generator.

Symbols: B batch size; (h, w) crop; d label stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from latlut.errors import DataError
from latlut.search.data.augment import Augmentation, augmented, whole
from latlut.search.data.dataset import Split

#: "all", or one of two disjoint halves: one trains the weights, the other the architecture.
PARTS = ("all", "weights", "architecture")

_HALVES, _ORDER, _LOOK = range(3)  # what a seed is used for


class Batch(NamedTuple):
    """``image`` (B, 3, h, w) float32, ImageNet-normalised; ``label`` int64, 255 is ignored."""

    image: Tensor
    label: Tensor


class _Draw(NamedTuple):
    """One example of one batch: the seed of its look, and its number in the split."""

    seed: tuple[int, ...]
    number: int


@dataclass(frozen=True)
class _Augmented(Dataset[Batch]):
    split: Split
    augmentation: Augmentation

    def __getitem__(self, draw: _Draw) -> Batch:
        random = np.random.default_rng(draw.seed)
        return Batch(*augmented(self.split[draw.number], self.augmentation, random))


@dataclass(frozen=True)
class _Whole(Dataset[Batch]):
    split: Split
    indices: tuple[int, ...]
    image_scale: float

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        return Batch(*whole(self.split[self.indices[position]], self.image_scale))


@dataclass(frozen=True)
class _Plan:
    """Which examples make up which batch."""

    indices: NDArray[np.int64]
    part: int
    batch_size: int
    seed: int
    rank: int
    world_size: int

    @property
    def iterations_per_pass(self) -> int:
        return len(self.indices) // self.batch_size

    def draws(self, epoch: int, iteration: int) -> list[_Draw]:
        """This process's share of a batch."""
        first, end = (
            place * self.batch_size // self.world_size for place in (self.rank, self.rank + 1)
        )
        return self.all_draws(epoch, iteration)[first:end]

    def all_draws(self, epoch: int, iteration: int) -> list[_Draw]:
        number, position = divmod(iteration, self.iterations_per_pass)
        order = np.random.default_rng((self.seed, _ORDER, self.part, epoch, number))
        first = position * self.batch_size
        chosen = order.permutation(self.indices)[first : first + self.batch_size]
        return [
            _Draw((self.seed, _LOOK, self.part, epoch, number, int(index)), int(index))
            for index in chosen
        ]


class _Order(Sampler[list[_Draw]]):
    """The batches of one epoch from one iteration on; ``epoch`` and ``start`` are set before."""

    def __init__(self, plan: _Plan, iterations: int) -> None:
        self.plan, self.iterations = plan, iterations
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[list[_Draw]]:
        epoch = self.epoch  # of this pass, whatever is set later
        return (self.plan.draws(epoch, i) for i in range(self.start, self.iterations))

    def __len__(self) -> int:
        return self.iterations - self.start


class TrainBatches:
    """The training batches of one part of a split, for one of several processes.

    ``for batch in batches.epoch(epoch, start)`` goes through an epoch from an iteration on.
    ``len()`` is the number of iterations of a whole epoch.

    Args:
        split: where the examples come from.
        augmentation: how they are varied, and their size.
        batch_size: B, of all processes together. Batches that are not full are left out.
        seed: of halves, order and look; equal on all processes.
        part: one of ``PARTS``.
        iterations: length of an epoch; one pass through the part if left out. A longer epoch goes
            through the part again, in another order and with other looks.
        rank, world_size: this process and the number of all; each takes its share of every batch,
            one image more or less than others where it does not divide.
        workers: processes that load; 0 loads in this one.
        pin_memory: for faster copies to a GPU.

    Raises:
        DataError: fewer examples than one batch takes, fewer in a batch than processes, an unknown
            part, numbers out of range.
    """

    def __init__(
        self,
        split: Split,
        augmentation: Augmentation,
        batch_size: int,
        *,
        seed: int = 0,
        part: str = "all",
        iterations: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        if part not in PARTS:
            raise DataError(f"part {part!r} of the data: expected one of {', '.join(PARTS)}")
        if batch_size < 1 or seed < 0 or workers < 0 or not 0 <= rank < world_size:
            raise DataError(
                f"batch size {batch_size}, seed {seed}, {workers} workers, rank {rank} of "
                f"{world_size}: expected at least 1, 0, 0, and a rank below the number of processes"
            )
        if batch_size < world_size:
            raise DataError(
                f"a batch of {batch_size} cannot be shared by {world_size} processes: "
                "take a larger batch, or fewer processes"
            )
        indices = part_indices(len(split), part, seed)
        self._plan = _Plan(indices, PARTS.index(part), batch_size, seed, rank, world_size)
        per_pass = self._plan.iterations_per_pass
        if not per_pass:
            raise DataError(
                f"split {split.source.split!r} has {len(indices)} images in part {part!r}, "
                f"fewer than one batch of {batch_size}, of all processes ({world_size}) together: "
                "take a smaller batch or more images"
            )
        if iterations is not None and iterations < 1:
            raise DataError(f"{iterations} iterations in an epoch: expected at least 1")
        self.split, self.part = split, part
        # The loader must not lead back to this object: in a circle, workers would be ended by the
        # garbage collector in an order in which each end takes seconds.
        self._order = _Order(self._plan, iterations or per_pass)
        self._loader: DataLoader[Batch] = DataLoader(
            _Augmented(split, augmentation),
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            # A loader draws a number per epoch: not from the training's generator.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return self._order.iterations

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from iteration ``start`` on.

        With workers, one epoch at a time: a new call ends the one before.
        """
        self._order.epoch, self._order.start = epoch, start
        return iter(self._loader)

    def draws(self, epoch: int, iteration: int) -> list[_Draw]:
        """This process's share of a batch: of each example the seed of its look, and its number."""
        return self._plan.draws(epoch, iteration)

    def names(self, epoch: int, iteration: int) -> list[str]:
        """What the examples of a batch of all processes are called, for messages about it."""
        return [self.split.name(draw.number) for draw in self._plan.all_draws(epoch, iteration)]


def part_indices(count: int, part: str, seed: int) -> NDArray[np.int64]:
    """Sorted indices of a part of ``count`` examples.

    The halves share no index and together hold all; of an odd number, the weights get one more.
    """
    everything = np.arange(count)
    if part == "all":
        return everything
    mixed = np.random.default_rng((seed, _HALVES)).permutation(everything)
    middle = (count + 1) // 2
    return np.sort(mixed[:middle] if part == "weights" else mixed[middle:])


def train_halves(
    split: Split, augmentation: Augmentation, batch_size: int, *, seed: int = 0,
    iterations: int | None = None, rank: int = 0, world_size: int = 1, workers: int = 0,
    pin_memory: bool = False,
) -> tuple[TrainBatches, TrainBatches]:  # fmt: skip
    """Batches of the weights' half and of the architecture's, with equal arguments.

    Both have the same number of iterations: that of the smaller half if not given.

    Raises:
        DataError: as ``TrainBatches``.
    """
    if iterations is None:
        smaller = len(part_indices(len(split), "architecture", seed))
        iterations = smaller // batch_size or None
    weights, architecture = (
        TrainBatches(
            split, augmentation, batch_size, seed=seed, part=part, iterations=iterations,
            rank=rank, world_size=world_size, workers=workers, pin_memory=pin_memory,
        )
        for part in ("weights", "architecture")
    )  # fmt: skip
    return weights, architecture


def val_loader(
    split: Split,
    *,
    image_scale: float = 1.0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Batch]:
    """Whole images one by one, in order; no two processes get the same one.

    Args:
        split: where the examples come from.
        image_scale: factor by which images and labels are scaled.
        rank, world_size: this process gets every world_size-th image from ``rank`` on, so some
            get one image more than others.
        workers: processes that load; 0 loads in this one.
        pin_memory: for faster copies to a GPU.
    """
    indices = tuple(range(rank, len(split), world_size))
    return DataLoader(
        _Whole(split, indices, image_scale),
        batch_size=1,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )
