"""Augmentation: image and labels move together, labels are never mixed, padding is ignored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from latlut.errors import DataError
from latlut.search.data.augment import Augmentation, augmented, denormalised, whole
from latlut.search.data.dataset import Example


def example(height: int, width: int, seed: int = 0) -> Example:
    """Labels in blocks, and an image whose red channel is ten times the label."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 19, (-(-height // 4), -(-width // 4)))
    label = torch.from_numpy(np.kron(blocks, np.ones((4, 4)))[:height, :width].astype(np.uint8))
    image = torch.stack([label * 10, torch.full_like(label, 50), torch.full_like(label, 200)])
    return Example(image, label)


def reference(item: Example, augmentation: Augmentation, random: np.random.Generator) -> Tensor:
    """The augmented labels, pixel by pixel: where each comes from in the image."""
    height, width = item.label.shape
    crop = augmentation.crop
    factor = augmentation.scales[random.integers(len(augmentation.scales))]
    window = [max(1, round(size / (augmentation.image_scale * factor))) for size in crop]
    starts = []
    for size, span in zip((height, width), window, strict=True):
        starts.append(int(random.integers(min(0, size - span), max(0, size - span) + 1)))
    is_mirrored = random.random() < augmentation.mirror_share
    result = torch.full(crop, 255)
    for row in range(crop[0]):
        for column in range(crop[1]):
            seen = crop[1] - 1 - column if is_mirrored else column
            y = starts[0] + int((row + 0.5) * window[0] / crop[0])
            x = starts[1] + int((seen + 0.5) * window[1] / crop[1])
            if 0 <= y < height and 0 <= x < width:
                result[row, column] = int(item.label[y, x])
    stride = augmentation.label_stride
    return result[::stride, ::stride]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40), width=st.integers(1, 40),
    crop=st.tuples(st.integers(1, 37), st.integers(1, 37)),
    scale=st.sampled_from([0.5, 1.0, 2.0]), stride=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_labels_equal_a_pixel_by_pixel_reference(
    height: int, width: int, crop: tuple[int, int], scale: float, stride: int, seed: int
) -> None:
    augmentation = Augmentation(crop, image_scale=scale, label_stride=stride)
    item = example(height, width, seed)
    image, label = augmented(item, augmentation, np.random.default_rng(seed))
    assert image.shape == (3, *crop) and image.dtype == torch.float32
    assert label.shape == (-(-crop[0] // stride), -(-crop[1] // stride))
    assert label.dtype == torch.int64
    assert label.equal(reference(item, augmentation, np.random.default_rng(seed)))


@pytest.mark.parametrize("size", [(20, 30), (60, 70)], ids=["larger image", "smaller image"])
def test_image_and_labels_stay_together(size: tuple[int, int]) -> None:
    augmentation = Augmentation((32, 48), scales=(1.0,))
    for seed in range(20):
        image, label = augmented(example(*size), augmentation, np.random.default_rng(seed))
        red = denormalised(image)[0].long()
        is_inside = label != 255
        assert is_inside.any()
        assert red[is_inside].equal(label[is_inside] * 10)
        assert image[:, ~is_inside].abs().max() < 1e-5 if (~is_inside).any() else True


def test_scaled_images_stay_with_their_labels_inside_blocks() -> None:
    augmentation = Augmentation((64, 64), scales=(2.0,))
    image, label = augmented(example(80, 80), augmentation, np.random.default_rng(1))
    red = denormalised(image)[0].long()
    # Blocks are 8 pixels wide once scaled; only pixels at their edges are mixed.
    assert (red == label * 10).float().mean() > 0.5


def test_every_scale_and_mirror_is_drawn() -> None:
    item = example(64, 64)
    labels = [
        augmented(item, Augmentation((64, 64)), np.random.default_rng(seed))[1]
        for seed in range(60)
    ]
    padded = sum(bool((label == 255).any()) for label in labels)
    assert 5 < padded < 40  # scale 0.75 leaves a margin
    exact = sum(label.equal(item.label.long()) for label in labels)
    mirrored = sum(label.equal(item.label.long().flip(1)) for label in labels)
    assert exact > 2 and mirrored > 2


def test_whole_image_is_normalised_and_scaled() -> None:
    item = example(33, 50)
    image, label = whole(item)
    assert label.equal(item.label.long())
    assert denormalised(image).equal(item.image)
    expected = (item.image[1, 0, 0] / 255 - 0.456) / 0.224
    assert image[1, 0, 0].item() == pytest.approx(float(expected), abs=1e-6)
    image, label = whole(item, 0.5)
    assert image.shape[1:] == label.shape == (16, 25)
    assert set(label.unique().tolist()) <= set(item.label.unique().tolist())


@pytest.mark.parametrize(
    "options",
    [{"crop": (0, 4)}, {"scales": ()}, {"scales": (0.0,)}, {"mirror_share": 1.5},
     {"image_scale": -1.0}, {"label_stride": 0}],
)  # fmt: skip
def test_senseless_augmentation_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(DataError, match="expected"):
        Augmentation(**{"crop": (8, 8), **options})  # type: ignore[arg-type]
