"""CamVid: the original archives with 32 colours, and the SegNet tutorial's copy with 11 classes.

Every function takes the folder that holds the layout and gives the data set, without list files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from latlut.errors import DataError
from latlut.search.data.classes import IGNORE, Classes
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.data.files import ColourCoding, IndexCoding
from latlut.search.data.pairing import data_of, files_below, first_of, matched_split

CAMVID_CLASSES = Classes(
    names=(
        "sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car",
        "pedestrian", "bicyclist",
    ),
    colours=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip

#: The 32 colours of the original masks, grouped into 11 classes as SegNet did; what has no group
#: there is ignored.
CAMVID_COLOURS: Mapping[tuple[int, int, int], int] = {
    (128, 128, 128): 0,  # Sky
    (0, 128, 64): 1,  # Bridge
    (128, 0, 0): 1,  # Building
    (64, 192, 0): 1,  # Wall
    (64, 0, 64): 1,  # Tunnel
    (192, 0, 128): 1,  # Archway
    (192, 192, 128): 2,  # Column_Pole
    (0, 0, 64): 2,  # TrafficCone
    (128, 64, 128): 3,  # Road
    (128, 0, 192): 3,  # LaneMkgsDriv
    (192, 0, 64): 3,  # LaneMkgsNonDriv
    (0, 0, 192): 4,  # Sidewalk
    (64, 192, 128): 4,  # ParkingBlock
    (128, 128, 192): 4,  # RoadShoulder
    (128, 128, 0): 5,  # Tree
    (192, 192, 0): 5,  # VegetationMisc
    (192, 128, 128): 6,  # SignSymbol
    (128, 128, 64): 6,  # Misc_Text
    (0, 64, 64): 6,  # TrafficLight
    (64, 64, 128): 7,  # Fence
    (64, 0, 128): 8,  # Car
    (64, 128, 192): 8,  # SUVPickupTruck
    (192, 128, 192): 8,  # Truck_Bus
    (192, 64, 128): 8,  # Train
    (128, 64, 64): 8,  # OtherMoving
    (64, 64, 0): 9,  # Pedestrian
    (192, 128, 64): 9,  # Child
    (64, 0, 192): 9,  # CartLuggagePram
    (64, 128, 64): 9,  # Animal
    (0, 128, 192): 10,  # Bicyclist
    (192, 0, 192): 10,  # MotorcycleScooter
    (0, 0, 0): IGNORE,  # Void
}
_CAMVID_INDICES = IndexCoding({label: label for label in range(11)} | {11: IGNORE, IGNORE: IGNORE})

CAMVID_LAYOUT = "701_StillsRaw_full/*.png and LabeledApproved_full/*_L.png"
SEGNET_LAYOUT = "{train,val,test}/*.png and {train,val,test}annot/*.png"


def camvid(root: Path) -> SegmentationData:
    """{train,val,test}/*.png with {train,val,test}annot/*.png: 11 classes, 11 is ignored.

    This is the layout of the SegNet tutorial.

    Raises:
        DataError: a train or val split that is missing or incomplete.
    """

    def split(name: str) -> Split | None:
        images, masks = root / name, root / f"{name}annot"
        by_key, mask_by_key = files_below(images), files_below(masks)
        if not by_key.keys() & mask_by_key.keys():
            # One edition numbers its files: train_00001.png with trainannot_00001.png.
            by_key = {key.removeprefix(f"{name}_"): path for key, path in by_key.items()}
            mask_by_key = {
                key.removeprefix(f"{name}annot_"): path for key, path in mask_by_key.items()
            }
        return matched_split(name, images, by_key, masks, mask_by_key, _CAMVID_INDICES)

    return data_of(f"camvid:{root}", CAMVID_CLASSES, split, SEGNET_LAYOUT)


def camvid_original(root: Path) -> SegmentationData:
    """701_StillsRaw_full/*.png with LabeledApproved_full/*_L.png: 32 colours to 11 classes.

    The archives have no split. The usual one (367 train, 101 val, 233 test) goes by sequence and
    frame, and ``camvid_split_of`` states it as a rule.

    Raises:
        DataError: a split that is missing or incomplete, a file name of no known sequence.
    """
    images, masks = root / "701_StillsRaw_full", root / "LabeledApproved_full"
    by_key, mask_by_key = files_below(images), files_below(masks, "_L")
    split_of = {key: camvid_split_of(key) for key in by_key.keys() | mask_by_key.keys()}
    unknown = sorted(key for key, split in split_of.items() if split is None)
    if unknown:
        raise DataError(
            f"{images}: {len(unknown)} files of no known sequence ({first_of(unknown)}); expected "
            "names such as 0001TP_006690.png, 0006R0_f00930.png, 0016E5_00390.png, "
            "Seq05VD_f00000.png"
        )

    def split(name: str) -> Split | None:
        return matched_split(
            name, images, {key: path for key, path in by_key.items() if split_of[key] == name},
            masks, {key: path for key, path in mask_by_key.items() if split_of[key] == name},
            ColourCoding(CAMVID_COLOURS),
        )  # fmt: skip

    return data_of(f"camvid:{root}", CAMVID_CLASSES, split, CAMVID_LAYOUT)


def camvid_split_of(stem: str) -> str | None:
    """``"train"``, ``"val"``, ``"test"``, or None for a name of no known sequence.

    The lists published with SegNet follow the sequences: Seq05VD and the second half of 0001TP
    (from frame 8550) are test, the densely labelled frames 7959 to 8159 of 0016E5 are val, all
    else is train.
    """
    match = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", stem)
    if match is None:
        return None
    sequence, frame = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7959 <= frame <= 8159 else "train"
