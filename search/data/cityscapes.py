"""Cityscapes and BDD100K, which shares its 19 classes, as their archives unpack.

Every function takes the folder that holds the layout and gives the data set, without list files.
"""

from __future__ import annotations

from pathlib import Path

from latlut.search.data.classes import IGNORE, Classes
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.data.files import IndexCoding
from latlut.search.data.pairing import data_of, files_below, matched_split, paired_split

CITYSCAPES_CLASSES = Classes(
    names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    colours=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip

#: labelIds of the 19 classes in order; the other ids (0 to 33) are ignored. A licence plate is
#: -1, which a byte holds as 255.
CITYSCAPES_LABEL_IDS = (
    7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
)  # fmt: skip
_FROM_LABEL_IDS = IndexCoding(
    dict.fromkeys((*range(34), 255), IGNORE)
    | {value: label for label, value in enumerate(CITYSCAPES_LABEL_IDS)}
)
_FROM_TRAIN_IDS = IndexCoding({label: label for label in range(19)} | {IGNORE: IGNORE})

CITYSCAPES_LAYOUT = (
    "leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png and "
    "gtFine/{train,val,test}/CITY/*_gtFine_labelIds.png"
)
BDD100K_LAYOUT = "images/10k/{train,val}/*.jpg and labels/sem_seg/masks/{train,val}/*.png"
BDD100K_SEG_LAYOUT = "seg/images/{train,val}/*.jpg and seg/labels/{train,val}/*_train_id.png"


def cityscapes(root: Path) -> SegmentationData:
    """leftImg8bit/{train,val,test}/CITY/*_leftImg8bit.png with gtFine/.../*_gtFine_labelIds.png.

    ``*_gtFine_labelTrainIds.png`` is taken instead where a split has it for every image. The
    published masks of the test split are dummies in which everything is ignored.

    Raises:
        DataError: a train or val split that is missing or incomplete.
    """

    def split(name: str) -> Split | None:
        images, masks = root / "leftImg8bit" / name, root / "gtFine" / name
        by_key = files_below(images, "_leftImg8bit")
        train_ids = files_below(masks, "_gtFine_labelTrainIds")
        if by_key and by_key.keys() == train_ids.keys():
            return matched_split(name, images, by_key, masks, train_ids, _FROM_TRAIN_IDS)
        return matched_split(
            name, images, by_key, masks, files_below(masks, "_gtFine_labelIds"), _FROM_LABEL_IDS
        )

    return data_of(f"cityscapes:{root}", CITYSCAPES_CLASSES, split, CITYSCAPES_LAYOUT)


def bdd100k(root: Path) -> SegmentationData:
    """images/10k/{train,val}/*.jpg with labels/sem_seg/masks/{train,val}/*.png, 19 train ids.

    Raises:
        DataError: a train or val split that is missing or incomplete.
    """

    def split(name: str) -> Split | None:
        images, masks = root / "images/10k" / name, root / "labels/sem_seg/masks" / name
        return paired_split(name, images, masks, _FROM_TRAIN_IDS)

    return data_of(f"bdd100k:{root}", CITYSCAPES_CLASSES, split, BDD100K_LAYOUT)


def bdd100k_seg(root: Path) -> SegmentationData:
    """seg/images/{train,val}/*.jpg with seg/labels/{train,val}/*_train_id.png: older archives.

    Raises:
        DataError: a train or val split that is missing or incomplete.
    """

    def split(name: str) -> Split | None:
        images, masks = root / "seg/images" / name, root / "seg/labels" / name
        return paired_split(name, images, masks, _FROM_TRAIN_IDS, mask_ending="_train_id")

    return data_of(f"bdd100k:{root}", CITYSCAPES_CLASSES, split, BDD100K_SEG_LAYOUT)
