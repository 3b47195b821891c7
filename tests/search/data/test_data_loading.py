"""Batches: reproducible with any number of workers, resumable, sharded, in disjoint halves."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latlut.errors import DataError
from latlut.search.data import dataset
from latlut.search.data.augment import Augmentation
from latlut.search.data.dataset import Split
from latlut.search.data.loading import (
    Batch,
    TrainBatches,
    part_indices,
    train_halves,
    val_loader,
)
from latlut.search.data.opening import open_data

SCENES = open_data("street-scenes", size=(40, 56), counts=(11, 5, 0))
VIEW = Augmentation((32, 48), label_stride=8)


def same(left: Iterable[Batch], right: Iterable[Batch]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return bool(pairs) and all(a.image.equal(b.image) and a.label.equal(b.label) for a, b in pairs)


def test_batches_have_the_agreed_form() -> None:
    batches = TrainBatches(SCENES.train, VIEW, 2)
    assert len(batches) == 5  # the eleventh image would make half a batch
    found = list(batches.epoch(0))
    assert len(found) == 5
    assert found[0].image.shape == (2, 3, 32, 48) and found[0].image.dtype == torch.float32
    assert found[0].label.shape == (2, 4, 6) and found[0].label.dtype == torch.int64


def test_workers_change_nothing() -> None:
    alone = TrainBatches(SCENES.train, VIEW, 2, seed=3)
    helped = TrainBatches(SCENES.train, VIEW, 2, seed=3, workers=2)
    for epoch in (0, 1):
        assert same(alone.epoch(epoch), helped.epoch(epoch))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_continues_where_it_was(workers: int) -> None:
    unbroken = list(TrainBatches(SCENES.train, VIEW, 2, seed=5, iterations=8).epoch(4))
    resumed = TrainBatches(SCENES.train, VIEW, 2, seed=5, iterations=8, workers=workers)
    assert same(unbroken[3:], resumed.epoch(4, start=3))
    assert not list(resumed.epoch(4, start=8))


def test_two_epochs_side_by_side_do_not_disturb_each_other() -> None:
    batches = TrainBatches(SCENES.train, VIEW, 2)
    expected = list(batches.epoch(0)), list(batches.epoch(1, start=2))
    first, second = batches.epoch(0), batches.epoch(1, start=2)
    started = next(first), next(second)
    assert same(expected[0], [started[0], *first])
    assert same(expected[1], [started[1], *second])


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    for workers in (0, 1):
        next(TrainBatches(SCENES.train, VIEW, 2, workers=workers).epoch(0))
        next(iter(val_loader(SCENES.val, workers=workers)))
    assert torch.rand(3).equal(expected)


def test_epochs_passes_and_seeds_differ() -> None:
    batches = TrainBatches(SCENES.train, VIEW, 3, iterations=7)
    orders = [
        tuple(draw.number for i in range(start, start + 3) for draw in batches.draws(epoch, i))
        for epoch in (0, 1)
        for start in (0, 3)
    ]
    other = TrainBatches(SCENES.train, VIEW, 3, seed=1)
    orders.append(tuple(draw.number for i in range(3) for draw in other.draws(0, i)))
    assert len(set(orders)) == len(orders)
    assert all(len(set(order)) == 9 for order in orders)  # nothing twice within a pass
    looks = {draw.seed for epoch in (0, 1) for i in range(7) for draw in batches.draws(epoch, i)}
    assert len(looks) == 2 * 7 * 3


@given(count=st.integers(2, 300), seed=st.integers(0, 10**6))
def test_halves_share_nothing_and_hold_all(count: int, seed: int) -> None:
    weights = part_indices(count, "weights", seed).tolist()
    architecture = part_indices(count, "architecture", seed).tolist()
    assert sorted(weights + architecture) == list(range(count))
    assert len(weights) - len(architecture) in (0, 1)
    assert weights == part_indices(count, "weights", seed).tolist()


def test_batches_of_the_halves_come_from_the_halves() -> None:
    weights, architecture = train_halves(SCENES.train, VIEW, 2, seed=9)
    assert len(weights) == len(architecture) == 2
    for batches in (weights, architecture):
        drawn = {d.number for e in range(6) for i in range(2) for d in batches.draws(e, i)}
        assert drawn <= set(part_indices(11, batches.part, 9).tolist())


@pytest.mark.parametrize(("world_size", "batch"), [(2, 2), (3, 3), (2, 4), (2, 5), (3, 5)])
def test_processes_share_each_batch_of_the_whole(world_size: int, batch: int) -> None:
    ranks = [
        TrainBatches(SCENES.train, VIEW, batch, seed=2, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    whole = TrainBatches(SCENES.train, VIEW, batch, seed=2)
    assert {len(batches) for batches in (*ranks, whole)} == {11 // batch}
    sizes = {len(batches.draws(0, 0)) for batches in ranks}
    assert max(sizes) - min(sizes) <= 1
    assert all(batches.names(1, 0) == whole.names(1, 0) for batches in ranks)
    for iteration in range(len(whole)):
        shares = [draw for batches in ranks for draw in batches.draws(1, iteration)]
        assert shares == whole.draws(1, iteration)
    shown = [
        batch.label[0]
        for rank in range(world_size)
        for batch in val_loader(SCENES.val, rank=rank, world_size=world_size)
    ]
    assert len(shown) == 5
    for example in SCENES.val:
        assert sum(label.equal(example.label.long()) for label in shown) == 1


def test_validation_gives_whole_images_in_order() -> None:
    found = list(val_loader(SCENES.val))
    assert len(found) == 5
    for index, batch in enumerate(found):
        assert batch.image.shape == (1, 3, 40, 56)
        assert batch.label[0].equal(SCENES.val[index].label.long())


def test_a_batch_can_be_named() -> None:
    batches = TrainBatches(SCENES.train, VIEW, 2)
    names = batches.names(0, 1)
    assert names == [SCENES.train.name(draw.number) for draw in batches.draws(0, 1)]
    assert "street-scenes train" in names[0]


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(DataError, match=r"11 images in part 'all', fewer than one batch of 12"):
        TrainBatches(SCENES.train, VIEW, 12)
    with pytest.raises(DataError, match=r"one batch of 6, of all processes \(3\)"):
        TrainBatches(SCENES.train, VIEW, 6, part="architecture", world_size=3)
    with pytest.raises(DataError, match="a batch of 2 cannot be shared by 3 processes"):
        TrainBatches(SCENES.train, VIEW, 2, world_size=3)
    with pytest.raises(DataError, match="expected one of all, weights"):
        TrainBatches(SCENES.train, VIEW, 2, part="half")
    with pytest.raises(DataError, match="rank 2 of 2"):
        TrainBatches(SCENES.train, VIEW, 2, rank=2, world_size=2)


# --- what is kept in memory ---


class Counted:
    """A source of random images that counts how often each is read."""

    split = "train"

    def __init__(self, count: int, size: tuple[int, int] = (4, 6)) -> None:
        self.count, self.size, self.reads = count, size, []

    def __len__(self) -> int:
        return self.count

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.reads.append(index)
        height, width = self.size
        image = np.random.default_rng(index).integers(0, 255, (height, width, 3), dtype=np.uint8)
        return image, image[..., 0].copy()

    def name(self, index: int) -> str:
        return f"image {index}"


def test_a_small_split_is_read_once_and_stays_as_it_was() -> None:
    source = Counted(6)
    split = Split(source)
    batches = TrainBatches(split, Augmentation((4, 4)), 2, part="all", seed=0)
    before = [example.image.clone() for example in split]
    for epoch in range(3):
        assert len(list(batches.epoch(epoch))) == 3
    assert sorted(source.reads) == list(range(6))
    sent = pickle.loads(pickle.dumps(split))
    assert list(split) and len(split.source.reads) == 6 and len(pickle.dumps(split)) < 1000
    for image, example in zip(before, sent, strict=True):
        assert torch.equal(image, example.image)


def test_a_large_split_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "KEPT_BYTES", 6 * 4 * 6 * 4 - 1)
    source = Counted(6)
    split = Split(source)
    assert torch.equal(split[2].image, split[-4].image)
    assert source.reads == [2, 2]
