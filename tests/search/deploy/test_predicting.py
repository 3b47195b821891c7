"""Predictions as pictures: overlays, label ids, folders, animations, files that cannot be read."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor, nn

from latlut.errors import DataError, LatlutError
from latlut.search.data.cityscapes import CITYSCAPES_CLASSES, CITYSCAPES_LABEL_IDS
from latlut.search.data.classes import Classes
from latlut.search.data.dataset import Split
from latlut.search.data.files import FileSplit, IndexCoding, Pair
from latlut.search.deploy.predicting import (
    Form,
    Predictor,
    drawn,
    overlay,
    prediction_names,
)
from latlut.search.deploy.prediction_files import predict_files, tasks_of

CLASSES = Classes(("dark", "bright"), ((10, 0, 0), (0, 200, 0)))


class IsBright(nn.Module):
    """Class 1 where an image is brighter than average."""

    def forward(self, image: Tensor) -> Tensor:
        grey = image.mean(dim=1, keepdim=True)
        return torch.cat([-grey, grey], dim=1)


def predictor(form: Form = "colour", classes: Classes = CLASSES) -> Predictor:
    return Predictor(IsBright(), classes, Fabric(accelerator="cpu", devices=1), form=form)


def half_bright(height: int = 8, width: int = 12) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    return image


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def run(source: Path, out: Path, form: Form = "colour", corrupt: str = "fatal") -> list[str | None]:
    found = predict_files(predictor(form), tasks_of(source, out, form), corrupt)  # type: ignore[arg-type]
    return [problem for _, problem in found]


def test_an_overlay_mixes_image_and_colours() -> None:
    image, labels = np.full((2, 2, 3), 100, np.uint8), np.array([[0, 1], [1, 0]], np.uint8)
    mixed = overlay(image, labels, CLASSES, 0.25)
    assert mixed[0, 0].tolist() == [78, 75, 75]  # 0.75 * 100 + 0.25 * (10, 0, 0), rounded
    assert mixed[0, 1].tolist() == [75, 125, 75]
    assert (overlay(image, labels, CLASSES, 0.0) == image).all()
    with pytest.raises(LatlutError, match="opacity 2"):
        overlay(image, labels, CLASSES, 2)


def test_label_ids_are_those_of_cityscapes_or_the_classes_positions() -> None:
    labels = np.arange(19, dtype=np.uint8)[None]
    assert tuple(np.asarray(drawn(labels, CITYSCAPES_CLASSES, "label-ids"))[0]) == (
        CITYSCAPES_LABEL_IDS
    )
    own = np.array([[0, 1, 1]], np.uint8)
    assert (np.asarray(drawn(own, CLASSES, "label-ids")) == own).all()


def test_one_image_into_a_file_and_into_a_folder(tmp_path: Path) -> None:
    source = save(tmp_path / "street.jpg", half_bright())
    for out in (tmp_path / "out" / "classes.png", tmp_path / "folder"):
        assert run(source, out) == [None]
        path = out if out.suffix else out / "street.png"
        colours = np.asarray(Image.open(path))
        assert colours.shape == (8, 12, 3)
        assert (colours[:, :5] == CLASSES.colours[0]).all()
        assert (colours[:, 7:] == CLASSES.colours[1]).all()


def test_a_folder_keeps_its_paths_and_leaves_its_own_output_out(tmp_path: Path) -> None:
    for name in ("a.png", "deep/b.jpg", "deep/._b.jpg"):
        save(tmp_path / "in" / name, half_bright())
    (tmp_path / "in" / "notes.txt").write_text("no image")
    out = tmp_path / "in" / "predictions"
    for _ in range(2):
        assert run(tmp_path / "in", out) == [None, None]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == [
        "a.png", "deep/b.png",
    ]  # fmt: skip


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        save(tmp_path / "in" / name, half_bright())
    with pytest.raises(DataError, match=r"a.jpg and .*a.png would both become"):
        run(tmp_path / "in", tmp_path / "out")


def test_a_damaged_file_is_named_and_fatal_or_skipped(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "in" / name, half_bright())
    damaged = tmp_path / "in" / "b.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(DataError, match=r"b\.png"):
        run(tmp_path / "in", tmp_path / "fatal")
    problems = run(tmp_path / "in", tmp_path / "skip", corrupt="skip")
    assert [problem is None for problem in problems] == [True, False, True]
    assert str(damaged) in str(problems[1])
    assert sorted(path.name for path in (tmp_path / "skip").iterdir()) == ["a.png", "c.png"]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_animation_is_predicted_picture_by_picture(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(half_bright()), Image.fromarray(half_bright()[:, ::-1].copy())]
    source = tmp_path / f"drive{suffix}"
    frames[0].save(source, save_all=True, append_images=frames[1:], duration=[120, 80], loop=0)
    out = tmp_path / f"classes{suffix}"
    assert run(source, out) == [None]
    with Image.open(out) as found:
        assert getattr(found, "n_frames", 1) == 2
        for number, is_left in enumerate((False, True)):
            found.seek(number)
            picture = np.asarray(found.convert("RGB")).astype(int)
            side = picture[:, :4] if is_left else picture[:, 8:]
            assert np.abs(side - CLASSES.colours[1]).mean() < 25  # webp is lossy
    with pytest.raises(DataError, match="an animation"):
        run(source, tmp_path / "still.jpg")


def test_without_av_a_video_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    video = tmp_path / "in" / "drive.mp4"
    save(tmp_path / "in" / "a.png", half_bright())
    video.write_bytes(b"0" * 100)
    for source in (video, tmp_path / "in"):
        with pytest.raises(DataError, match=r'pip install "latlut\[video\]"') as refused:
            run(source, tmp_path / "out")
        assert f"ffmpeg -i {video}" in str(refused.value)
    assert not (tmp_path / "out").exists()  # said before the folder's image is predicted
    problems = run(tmp_path / "in", tmp_path / "out", corrupt="skip")
    assert problems[0] is None and str(video) in str(problems[1])


@pytest.mark.parametrize(
    ("source", "out"), [("a.png", "b.mp4"), ("drive.mp4", "b.png"), ("drive.mp4", "b.webm")]
)
def test_a_file_that_cannot_hold_the_prediction_is_refused(
    tmp_path: Path, source: str, out: str
) -> None:
    save(tmp_path / "a.png", half_bright())
    (tmp_path / "drive.mp4").write_bytes(b"0" * 100)
    with pytest.raises(DataError, match=f"{source}.* not written as {out}; expected"):
        tasks_of(tmp_path / source, tmp_path / out, "overlay")


def test_a_source_is_not_written_over(tmp_path: Path) -> None:
    source = save(tmp_path / "a.png", half_bright())
    for out in (tmp_path, tmp_path / "in" / ".." / "a.png"):
        with pytest.raises(DataError, match=r"a\.png: would be written over"):
            tasks_of(source, out, "overlay")


def test_a_batch_has_the_labels_of_its_images() -> None:
    image = half_bright()
    images = [image, image[:, ::-1].copy(), np.roll(image, 3, axis=1)]
    labels = predictor().batch_labels(images)
    assert labels.shape == (3, 8, 12)
    for one, found in zip(images, labels, strict=True):
        assert (found == (one[..., 0] > 0)).all()
        assert (predictor().labels(one) == found).all()


def test_nothing_to_predict_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        run(tmp_path / "nowhere.png", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image and no video in it"):
        run(tmp_path / "empty", tmp_path / "out")


def test_names_of_predictions_differ() -> None:
    coding = IndexCoding({0: 0})

    def names(*paths: str) -> tuple[str, ...]:
        pairs = tuple(Pair(Path(path), Path("mask.png")) for path in paths)
        return prediction_names(Split(FileSplit("test", pairs, coding)))

    assert names("b/berlin_000000_000019_leftImg8bit.png") == ("berlin_000000_000019",)
    assert names("a/1.png", "b/1.png") == ("00000_1", "00001_1")
