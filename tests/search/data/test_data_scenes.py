"""Generated street scenes: deterministic, of any size, with the classes where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlut.errors import DataError
from latlut.search.data.opening import open_data
from latlut.search.data.street.scenes import CLASSES, draw

ROAD, MARKING, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, SKY, PERSON, CAR = range(10)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31), index=st.integers(0, 10**6),
    height=st.integers(32, 150), width=st.integers(32, 210),
)  # fmt: skip
def test_any_scene_of_any_size(seed: int, index: int, height: int, width: int) -> None:
    image, label = draw((seed, 0, index), height, width)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert label.shape == (height, width) and label.dtype == np.uint8
    assert set(np.unique(label)) <= {*range(len(CLASSES)), 255}
    again = draw((seed, 0, index), height, width)
    assert np.array_equal(image, again[0]) and np.array_equal(label, again[1])


def test_scenes_differ_by_index_seed_and_split() -> None:
    data = open_data("street-scenes", size=(48, 96), counts=(3, 2, 1), seed=1)
    other = open_data("street-scenes", size=(48, 96), counts=(3, 2, 1), seed=2)
    images = [
        tuple(split[index].image.flatten().tolist())
        for source in (data, other)
        for split in source.splits.values()
        for index in range(len(split))
    ]
    assert len(set(images)) == len(images) == 12


def test_a_longer_set_begins_with_the_shorter_one() -> None:
    short = open_data("street-scenes", size=(48, 96), counts=(2, 1, 0))
    long = open_data("street-scenes", size=(48, 96), counts=(9, 1, 0))
    assert short.train[1].image.equal(long.train[1].image)
    assert short.test is None


def test_a_scene_is_the_same_street_at_twice_the_size() -> None:
    agreements = []
    for index in range(6):
        _, small = draw((0, 0, index), 64, 128)
        _, large = draw((0, 0, index), 128, 256)
        agreements.append((large[1::2, 1::2] == small).mean())
    assert min(agreements) > 0.85


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.stack([draw((3, 0, index), 96, 192)[1] for index in range(60)])


def test_every_class_occurs_and_none_rules(labels: np.ndarray) -> None:
    shares = np.bincount(labels.ravel(), minlength=256) / labels.size
    assert (shares[: len(CLASSES)] > 0.002).all()
    assert shares[: len(CLASSES)].max() < 0.6
    assert 0 < shares[255] < 0.1


def test_classes_are_where_they_belong(labels: np.ndarray) -> None:
    rows = np.arange(96)[None, :, None] * np.ones_like(labels)
    mean = {name: rows[labels == number].mean() for number, name in enumerate(CLASSES.names)}
    assert mean["sky"] < mean["building"] < mean["sidewalk"] < mean["road"]
    columns = np.abs(np.arange(192) - 96)[None, None, :] * np.ones_like(labels)
    assert columns[labels == SIDEWALK].mean() > columns[labels == ROAD].mean()


def test_road_and_sidewalk_look_alike() -> None:
    """Their colours must not tell them apart: the difference is small beside that of scenes."""
    gaps, spread = [], []
    for index in range(60):
        image, label = draw((4, 0, index), 64, 128)
        road, sidewalk = image[label == ROAD], image[label == SIDEWALK]
        if len(road) > 50 and len(sidewalk) > 50:
            gaps.append(abs(road.mean() - sidewalk.mean()))
            spread.append(road.mean())
    assert np.median(gaps) < np.std(spread)


def test_poles_are_thin_and_some_things_are_tiny(labels: np.ndarray) -> None:
    is_pole = labels == POLE
    thin = ~(is_pole[:, :, :-3] & is_pole[:, :, 1:-2] & is_pole[:, :, 2:-1] & is_pole[:, :, 3:])
    assert thin[is_pole[:, :, :-3]].mean() > 0.6
    signs_per_scene = (labels == SIGN).sum(axis=(1, 2))
    assert ((signs_per_scene > 0) & (signs_per_scene < 40)).any()


def test_night_and_day() -> None:
    brightness = np.array([draw((5, 0, index), 32, 64)[0].mean() for index in range(60)])
    assert brightness.min() < 60 and brightness.max() > 120


def test_bad_requests() -> None:
    with pytest.raises(DataError, match="at least 32x32"):
        open_data("street-scenes", size=(16, 64))
    with pytest.raises(DataError, match="train and val need at least 1"):
        open_data("street-scenes", counts=(0, 1, 1))
    with pytest.raises(DataError, match="seed of 0 or more"):
        open_data("street-scenes", seed=-1)
    with pytest.raises(IndexError, match="has 1 images, not 1"):
        open_data("street-scenes", counts=(1, 1, 1)).val[1]
