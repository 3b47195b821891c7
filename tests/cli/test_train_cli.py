"""latlut train, evaluate and predict-image as they are typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from latlut.cli import main
from latlut.search.data.cityscapes import CITYSCAPES_CLASSES, CITYSCAPES_LABEL_IDS
from latlut.search.networks.model_files import ModelFacts, load_model, save_model
from latlut.search.networks.network import trainable
from latlut.spaces import Architecture, Branch, Cell

SMALL = Architecture(
    8, 8, (Branch(16, (Cell("conv", 4), Cell("conv", 4, True), Cell("conv", 8))),), base_width=3
)
TEACHER = Architecture(
    12, 12, (Branch(16, (Cell("conv", 12, True), Cell("conv", 12))),), base_width=3
)
SHORT = (
    "--accelerator", "cpu", "--threads", "1", "--set", "data.image_size=[32,64]",
    "--set", "data.train_images=4", "--set", "data.validation_images=2",
    "--set", "schedule.epochs=2", "--set", "schedule.batch=2", "--set", "schedule.crop=[32,48]",
)  # fmt: skip


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """--threads stays with this test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a student whose teacher was trained first, as of a search's folder."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "search").mkdir()
    SMALL.save(folder / "search" / "student.json")
    TEACHER.save(folder / "search" / "teacher.json")
    result = call("train", "--arch", folder / "search", "--run", folder / "run", *SHORT)
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_teacher_first_then_student(trained: Path) -> None:
    network, facts = load_model(trained / "teacher")
    assert isinstance(facts.architecture, Architecture)
    assert facts.architecture.branches == TEACHER.branches
    _, facts = load_model(trained)
    assert isinstance(facts.architecture, Architecture)
    assert facts.architecture.branches == SMALL.branches and facts.num_classes == 10
    rows = (trained / "epochs.csv").read_text().splitlines()
    assert len(rows) == 3 and "distillation_loss" in rows[0]
    assert all(rows[1].split(",")[rows[0].split(",").index("distillation_loss")])
    found = json.loads((trained / "result.json").read_text())
    assert found["epochs"] == 2 and 0 <= found["best_mean_iou"] <= 1
    assert set(found["best_class_iou"]) == set(facts.classes.names)


def test_sample_predictions_are_logged_as_pictures(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert len(events.Tags()["images"]) == 2
    first = events.Images(events.Tags()["images"][0])[0]
    assert (first.height, first.width) == (32, 3 * 64)
    assert {"train/loss", "epochs/mean_iou", "class_iou/road"} <= set(events.Tags()["scalars"])


def test_the_same_command_only_reads_a_finished_run_another_is_refused(trained: Path) -> None:
    search = trained.parent / "search"
    again = call("train", "--arch", search, "--run", trained, *SHORT, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["epochs"] == 2
    for more, word in (
        (("--seed", "5"), "seed: 0 there, 5 asked for"),
        (("--teacher", "none"), "teacher:"),
        (("--set", "schedule.lr=0.1"), "schedule.lr: 0.05 there, 0.1 asked for"),
    ):
        other = call("train", "--arch", search, "--run", trained, *SHORT, *more)
        assert other.exit_code == 2 and word in other.output, other.output


def test_a_trained_teacher_is_used_as_it_is(trained: Path, tmp_path: Path) -> None:
    SMALL.save(tmp_path / "student.json")
    words = ("train", "--arch", tmp_path / "student.json", "--run", tmp_path / "run", *SHORT)
    result = call(*words, "--teacher", trained / "teacher")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "run" / "teacher").exists()
    assert "distillation_loss" in (tmp_path / "run" / "epochs.csv").read_text()
    missing = call(*words, "--teacher", tmp_path / "nowhere" / "run")
    assert missing.exit_code == 2 and "no trained model in" in missing.output


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    neither = call("train", "--run", tmp_path / "run")
    assert neither.exit_code == 2 and "--arch" in neither.output
    unknown = call("train", "--arch", "fasterseg-studnt", "--run", tmp_path / "run")
    assert unknown.exit_code == 2 and "fasterseg-student" in unknown.output
    no_data = call("train", "--arch", "fasterseg-student", "--data", tmp_path / "data")
    assert no_data.exit_code == 2 and "no such data set" in no_data.output


def test_evaluate_gives_the_score_of_the_training(trained: Path, tmp_path: Path) -> None:
    result = call("evaluate", trained, "--accelerator", "cpu", "--json",
                  "--predictions", tmp_path / "colours")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    recorded = json.loads((trained / "result.json").read_text())
    assert found["mean_iou"] == pytest.approx(recorded["best_mean_iou"])
    assert found["class_iou"] == pytest.approx(recorded["best_class_iou"], nan_ok=True)
    pictures = sorted((tmp_path / "colours").iterdir())
    assert [path.name for path in pictures] == ["val_00000.png", "val_00001.png"]
    colours = {tuple(pixel) for pixel in np.asarray(Image.open(pictures[0])).reshape(-1, 3)}
    assert colours <= set(load_model(trained)[1].classes.colours)
    table = call("evaluate", trained / "last", "--accelerator", "cpu", "--window", "32x32")
    assert table.exit_code == 0 and "lane marking" in table.output and "mIoU" in table.output


def test_evaluate_refuses_other_classes_and_missing_splits(trained: Path, tmp_path: Path) -> None:
    no_test = call("evaluate", trained, "--split", "test")
    assert no_test.exit_code == 2 and "no test split" in no_test.output
    assert call("evaluate", trained, "--label-ids", tmp_path / "ids").exit_code == 0
    numbers = np.asarray(Image.open(tmp_path / "ids" / "val_00000_pred_labelIds.png"))
    assert numbers.ndim == 2 and numbers.max() < len(load_model(trained)[1].classes)
    data = cityscapes_folder(tmp_path)
    other = call("evaluate", trained, "--data", f"cityscapes:{data}")
    assert other.exit_code == 2 and "10 classes" in other.output and "19" in other.output


def cityscapes_folder(folder: Path) -> Path:
    """Two tiny images per split, in Cityscapes' layout; the test masks are dummies."""
    random = np.random.default_rng(1)
    root = folder / "cityscapes"
    for split in ("train", "val", "test"):
        for number in range(2):
            stem = f"berlin_{number:06d}_000019"
            images, masks = (
                root / "leftImg8bit" / split / "berlin",
                root / "gtFine" / split / "berlin",
            )
            images.mkdir(parents=True, exist_ok=True)
            masks.mkdir(parents=True, exist_ok=True)
            image = random.integers(0, 256, (40, 72, 3), np.uint8)
            Image.fromarray(image).save(images / f"{stem}_leftImg8bit.png")
            ids = random.choice(CITYSCAPES_LABEL_IDS, (40, 72)).astype(np.uint8)
            mask = np.zeros_like(ids) if split == "test" else ids
            Image.fromarray(mask).save(masks / f"{stem}_gtFine_labelIds.png")
    return root


def test_the_test_split_of_cityscapes_is_written_in_label_ids(tmp_path: Path) -> None:
    data = cityscapes_folder(tmp_path)
    facts = ModelFacts(SMALL, CITYSCAPES_CLASSES, "cityscapes", (40, 72))
    save_model(tmp_path / "model", trainable(SMALL, 19), facts)
    out = tmp_path / "submission"
    result = call("evaluate", tmp_path / "model", "--data", f"cityscapes:{data}", "--split", "test",
                  "--label-ids", out, "--accelerator", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no labelled pixel, so no score" in result.output
    names = [path.name for path in sorted(out.iterdir())]
    assert names == [f"berlin_00000{n}_000019_pred_labelIds.png" for n in range(2)]
    written = np.asarray(Image.open(out / names[0]))
    assert written.shape == (40, 72) and set(written.ravel()) <= set(CITYSCAPES_LABEL_IDS)


def test_damaged_images_end_a_training_or_are_left_out_by_name(tmp_path: Path) -> None:
    data = cityscapes_folder(tmp_path)
    damaged = sorted((data / "leftImg8bit" / "val").rglob("*.png"))[1]
    damaged.write_bytes(damaged.read_bytes()[:60])
    SMALL.save(tmp_path / "student.json")
    words = ("train", "--arch", tmp_path / "student.json", "--data", f"cityscapes:{data}",
             "--run", tmp_path / "run", *SHORT)  # fmt: skip
    fatal = call(*words)
    assert fatal.exit_code == 2 and damaged.name in fatal.output
    assert not (tmp_path / "run").exists()
    skipped = call(*words, "--corrupt", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert "files left out: 1" in skipped.output and damaged.name in skipped.output
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["images"] == {"train": 2, "val": 1, "test": 2}


def test_labels_out_of_range_end_it_before_it_starts(tmp_path: Path) -> None:
    data = cityscapes_folder(tmp_path)
    wrong = sorted((data / "gtFine" / "train").rglob("*.png"))[0]
    Image.fromarray(np.full((40, 72), 77, np.uint8)).save(wrong)
    result = call("train", "--arch", "fasterseg-student", "--data", f"cityscapes:{data}",
                  "--run", tmp_path / "run", *SHORT)  # fmt: skip
    assert result.exit_code == 2 and wrong.name in result.output and "label 77" in result.output
    assert not (tmp_path / "run").exists()


def test_a_hand_designed_network_is_trained_by_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = call("train", "--network", "fast-scnn", "--run", run, *SHORT,
                  "--set", "schedule.epochs=1", "--set", "schedule.crop=[64,64]")  # fmt: skip
    assert result.exit_code == 0, result.output
    network, facts = load_model(run)
    assert facts.architecture == "fast-scnn" and not network.training
    score = call("evaluate", run, "--accelerator", "cpu", "--json")
    recorded = json.loads((run / "result.json").read_text())["best_mean_iou"]
    assert json.loads(score.stdout)["mean_iou"] == pytest.approx(recorded)
    unknown = call("train", "--network", "fastscnn", "--run", run)
    assert unknown.exit_code == 2 and "fast-scnn" in unknown.output


def test_predict_image_writes_an_overlay(trained: Path, tmp_path: Path) -> None:
    image = np.full((50, 70, 3), 128, np.uint8)
    Image.fromarray(image).save(tmp_path / "street.jpg")
    result = call("predict-image", trained, tmp_path / "street.jpg", "--out",
                  tmp_path / "out.png", "--accelerator", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "out.png")
    assert np.asarray(Image.open(tmp_path / "out.png")).shape == (50, 70, 3)
    (tmp_path / "drive.mp4").write_bytes(b"video")
    video = call("predict-image", trained, tmp_path / "drive.mp4", "--out", tmp_path / "out")
    assert video.exit_code == 2 and "ffmpeg" in video.output
    no_model = call("predict-image", tmp_path, tmp_path / "street.jpg")
    assert no_model.exit_code == 2 and "no trained model" in no_model.output
