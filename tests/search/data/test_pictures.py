"""Pictures of every kind that cameras and programs write, decoded as they are meant."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latlut.errors import DataError
from latlut.search.data.files import (
    ColourCoding,
    FileSplit,
    IndexCoding,
    Pair,
    read_image,
    read_labels,
)

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
COLOURS = np.stack([RAMP, RAMP[::-1], 230 - RAMP], axis=2)


def write(path: Path, picture: Image.Image, **options) -> Path:
    picture.save(path, **options)
    return path


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


#: What a viewer shows of an image that is stored as it is, by orientation (EXIF 2.32, 4.6.4 A).
TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("ending", [".png", ".tiff", ".webp"])
def test_images_and_masks_are_turned_as_exif_says(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    options = {"lossless": True} if ending == ".webp" else {}
    path = write(
        tmp_path / f"a{ending}", Image.fromarray(COLOURS), exif=exif(orientation), **options
    )
    assert np.array_equal(read_image(path), TURNED[orientation](COLOURS))
    mask = write(tmp_path / "m.png", Image.fromarray(RAMP // 10), exif=exif(orientation))
    labels = read_labels(mask, IndexCoding({value: value for value in range(24)}))
    assert np.array_equal(labels, TURNED[orientation](RAMP // 10))


def test_a_phone_s_photograph_fits_its_upright_mask(tmp_path: Path) -> None:
    image = write(
        tmp_path / "p.jpg", Image.fromarray(np.repeat(RAMP[..., None], 3, 2)), exif=exif(6)
    )
    mask = write(tmp_path / "m.png", Image.fromarray(np.zeros((6, 4), np.uint8)))
    split = FileSplit("train", (Pair(image, mask),), IndexCoding({0: 0}))
    assert split.arrays(0)[0].shape == (6, 4, 3)


@pytest.mark.parametrize("low", [0, 20000, 65000])
@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_16_bit_grey_keeps_its_contrast(tmp_path: Path, ending: str, low: int) -> None:
    values = np.linspace(low, 65535, 24).astype(np.uint16).reshape(4, 6)
    found = read_image(write(tmp_path / f"g{ending}", Image.fromarray(values)))
    assert np.array_equal(found[..., 0], np.rint(values / 257).astype(np.uint8))
    assert (found == found[..., :1]).all()


def test_kinds_that_look_the_same_are_read_the_same(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOURS)
    grey = np.repeat(RAMP[..., None], 3, 2)
    few = picture.quantize(24)
    opaque = picture.copy()
    opaque.putalpha(255)
    cases = {
        "rgb.png": (picture, COLOURS),
        "grey.png": (Image.fromarray(RAMP), grey),
        "palette.png": (few, np.asarray(few.convert("RGB"))),
        "alpha.png": (opaque, COLOURS),
        "la.png": (opaque.convert("LA"), None),
        "bits.png": (
            Image.fromarray(RAMP > 100),
            np.where(RAMP > 100, 255, 0)[..., None] + 0 * grey,
        ),
        "cmyk.tiff": (picture.convert("CMYK"), COLOURS),
        "float.tiff": (Image.fromarray((RAMP / 255).astype(np.float32)), grey),
    }
    for name, (stored, expected) in cases.items():
        found = read_image(write(tmp_path / name, stored))
        assert found.shape == (4, 6, 3) and found.dtype == np.uint8, name
        if expected is not None:
            assert np.abs(found.astype(int) - expected).max() <= 1, name


def see_through() -> Image.Image:
    picture = Image.fromarray(COLOURS)
    picture.putalpha(Image.fromarray(RAMP))
    return picture


def animation(path: Path) -> Path:
    frames = [Image.fromarray(COLOURS), Image.fromarray(COLOURS[::-1].copy())]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda d: write(d / "a.png", see_through()), "see-through"),
        (lambda d: write(d / "a.png", see_through().quantize(8)), "see-through"),
        (lambda d: write(d / "a.tiff", Image.fromarray(RAMP.astype(np.float32))), "0 to 1"),
        (
            lambda d: write(d / "a.tiff", Image.fromarray(np.full((4, 6), np.nan, np.float32))),
            "0 to 1",
        ),
        (lambda d: write(d / "a.tiff", Image.fromarray(RAMP.astype(np.int32))), "mode I, which"),
        (lambda d: write(d / "a.tiff", Image.fromarray(COLOURS).convert("LAB")), "mode LAB"),
        (lambda d: animation(d / "a.gif"), "holds 2 pictures"),
        (lambda d: animation(d / "a.tiff"), "holds 2 pictures"),
    ],
)
def test_what_does_not_say_how_it_looks_is_refused_by_name(tmp_path: Path, make, reason) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=rf"{path.name}: .*{reason}"):
        read_image(path)


def test_masks_keep_their_numbers(tmp_path: Path) -> None:
    coding = IndexCoding({value: value for value in range(24)})
    palette = Image.fromarray(RAMP // 10)
    palette.putpalette(list(range(255, -1, -1)) * 3)
    for name, picture in {
        "p.png": palette,
        "l.png": Image.fromarray(RAMP // 10),
        "16.png": Image.fromarray((RAMP // 10).astype(np.uint16)),
    }.items():
        assert np.array_equal(read_labels(write(tmp_path / name, picture), coding), RAMP // 10)
    bits = read_labels(write(tmp_path / "1.png", Image.fromarray(RAMP > 100)), coding)
    assert np.array_equal(bits, RAMP > 100)


def test_masks_whose_values_a_compression_changes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jpg", Image.fromarray(np.zeros((4, 6), np.uint8)))
    with pytest.raises(DataError, match="a mask in JPEG"):
        read_labels(path, IndexCoding({0: 0}))
    see = write(tmp_path / "m.png", see_through())
    with pytest.raises(DataError, match="see-through"):
        read_labels(see, ColourCoding({(0, 0, 0): 0}))


@pytest.mark.parametrize("values", [RAMP / 24, np.full((4, 6), np.nan)])
def test_masks_of_floating_point_numbers_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    path = write(tmp_path / "m.tiff", Image.fromarray(values.astype(np.float32)))
    with pytest.raises(DataError, match="expected whole numbers"):
        read_labels(path, IndexCoding({0: 0, 1: 1}))


def test_a_picture_of_more_pixels_than_fit_is_refused_undecoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    side = 8193
    Image.new("1", (side, side)).save(path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"large\.png: 8193x8193 pixels, expected at most"):
        read_image(path)
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="is a pipe"):
        read_image(pipe)
