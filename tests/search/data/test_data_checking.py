"""Checks before a training, what they remember, and ``latlut data check``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from latlut.cli import main
from latlut.errors import DataError
from latlut.search.data.checking import check_labels, inspect_data
from latlut.search.data.opening import open_data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training pairs and a validation pair in BDD100K's layout; labels 0, 1 and 255."""
    root = tmp_path / "bdd"
    for split, count in (("train", 3), ("val", 1)):
        images, masks = root / f"images/10k/{split}", root / f"labels/sem_seg/masks/{split}"
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for number in range(count):
            height = 6 + number // 2
            mask = np.full((height, 8), number % 2, np.uint8)
            mask[0, :2] = 255
            Image.fromarray(np.zeros((height, 8, 3), np.uint8)).save(images / f"{number}.jpg")
            Image.fromarray(mask).save(masks / f"{number}.png")
    return root


def mask_of(folder: Path, number: int) -> Path:
    return folder / f"labels/sem_seg/masks/train/{number}.png"


def spoil(path: Path, value: int = 77) -> None:
    mask = np.asarray(Image.open(path)).copy()
    mask[2, 3] = value
    Image.fromarray(mask).save(path)


def test_good_data_is_counted(folder: Path) -> None:
    reports = check_labels(open_data(folder))
    train = reports["train"]
    assert (train.count, train.looked_at, train.problems) == (3, 3, ())
    assert train.sizes == {(6, 8): 2, (7, 8): 1}
    assert train.ignored_pixels == 6
    assert train.class_pixels[:3] == (46 + 54, 46, 0)
    assert sum(train.class_pixels) + train.ignored_pixels == 2 * 48 + 56


def test_labels_out_of_range_are_found_before_training(folder: Path) -> None:
    spoil(mask_of(folder, 1))
    spoil(mask_of(folder, 2), 19)
    with pytest.raises(DataError) as caught:
        check_labels(open_data(folder), workers=1)
    message = str(caught.value)
    assert "problems: 2" in message
    assert f"{mask_of(folder, 1)}: label 77 at row 2, column 3" in message
    assert f"{mask_of(folder, 2)}: label 19" in message


def test_damaged_image_and_wrong_size_are_listed(folder: Path) -> None:
    (folder / "images/10k/train/0.jpg").write_bytes(b"junk")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(mask_of(folder, 1))
    problems = inspect_data(open_data(folder))["train"].problems
    assert len(problems) == 2
    assert "0.jpg: not an image" in problems[0]
    assert "1.png: 9x9 pixels, but its image" in problems[1]


def test_good_files_are_read_once_and_changed_ones_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, cache = open_data(folder), tmp_path / "cache"
    first = inspect_data(data, cache_folder=cache)
    opened: list[str] = []
    real = Image.open

    def recording(path: Path, *rest: object) -> Image.Image:
        opened.append(Path(path).name)
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", recording)
    assert inspect_data(data, cache_folder=cache) == first
    assert opened == []
    spoil(mask_of(folder, 1))
    os.utime(mask_of(folder, 1), ns=(1, 1))
    opened.clear()
    assert len(inspect_data(data, cache_folder=cache)["train"].problems) == 1
    assert opened[:2] == ["1.jpg", "1.png"] or "1.png" in opened
    assert "0.png" not in opened
    # A bad file is never remembered.
    assert len(inspect_data(data, cache_folder=cache)["train"].problems) == 1


def test_a_damaged_memory_is_no_obstacle(folder: Path, tmp_path: Path) -> None:
    data, cache = open_data(folder), tmp_path / "cache"
    first = inspect_data(data, cache_folder=cache)
    files = list(cache.glob("*.json"))
    assert files
    for path in files:
        path.write_text("{not json")
    assert inspect_data(data, cache_folder=cache) == first


def test_a_split_of_ignored_pixels_is_a_problem(folder: Path) -> None:
    path = folder / "labels/sem_seg/masks/val/0.png"
    Image.fromarray(np.full((6, 8), 255, np.uint8)).save(path)
    with pytest.raises(DataError, match="split 'val': every pixel is ignored"):
        check_labels(open_data(folder))


def test_command_prints_splits_and_classes(folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    result = CliRunner().invoke(main, ["data", "check", str(folder), "--sample", str(sheet)])
    assert result.exit_code == 0, result.output
    assert "19 classes" in result.stdout and "6x8, 7x8" in result.stdout
    assert "road" in result.stdout and "(ignored)" in result.stdout
    assert Image.open(sheet).width > 700


def test_a_sheet_that_cannot_be_written_leaves_the_one_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = CliRunner().invoke(main, ["data", "check", str(folder), "--sample", str(sheet)])
    assert result.exit_code == 2 and "the disk is full" in result.stderr
    assert sheet.read_bytes() == b"before"
    result = CliRunner().invoke(main, ["data", "check", str(folder), "--sample", f"{sheet}.odd"])
    assert result.exit_code == 2 and "unknown file extension" in result.stderr


def test_command_lists_problems_and_fails(folder: Path, tmp_path: Path) -> None:
    spoil(mask_of(folder, 2))
    sheet = tmp_path / "sheet.png"
    arguments = ["data", "check", str(folder), "--json", "--sample", str(sheet)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "2.png: label 77" in result.stderr and not sheet.exists()
    found = json.loads(result.stdout)
    assert len(found["splits"]["train"]["problems"]) == 1
    assert found["splits"]["train"]["sizes"] == {"6x8": 2}


def test_command_on_generated_scenes() -> None:
    arguments = ["data", "check", "street-scenes", "--input", "32x48", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    splits = json.loads(result.stdout)["splits"]
    assert splits["train"]["sizes"] == {"32x48": splits["train"]["looked_at"]}
    assert splits["train"]["looked_at"] < splits["train"]["count"]


def test_command_refuses_what_is_no_data(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["data", "check", str(tmp_path)])
    assert result.exit_code == 2 and "unknown layout" in result.stderr
    assert "Traceback" not in result.stderr
