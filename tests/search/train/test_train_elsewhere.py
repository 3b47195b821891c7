"""What was searched on one data set trains, evaluates and deploys on another.

The paper's Tables 5 and 6: CamVid (11 classes, a test split, 720x960) and BDD (19 classes,
720x1280, which does not divide by 64). Images here are an eighth of that.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from small_tables import plausible_ms, space_table

from latlut.cli import main
from latlut.search.data.camvid import CAMVID_CLASSES, CAMVID_COLOURS
from latlut.search.data.cityscapes import CITYSCAPES_CLASSES
from latlut.search.networks.model_files import load_model
from latlut.spaces import Architecture, FasterSegSpace

SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(8,))
CAMVID_SIZE, BDD_SIZE = (90, 120), (90, 160)


def call(*words: object) -> Result:
    before = torch.get_num_threads()  # --threads stays with this call
    result = CliRunner().invoke(main, [str(word) for word in words])
    torch.set_num_threads(before)
    return result


def settings(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search on generated street scenes, with a table of 19 classes."""
    folder = tmp_path_factory.mktemp("searched")
    space_table(folder / "table.db", SPACE, plausible_ms).close()
    result = call(
        "search", "--table", folder / "table.db", "--run", folder / "search", "--accelerator",
        "cpu", "--threads", "1", "--method", "paper", *settings(
            "data.image_size=[32, 64]", "data.train_images=8", "data.validation_images=2",
            "pretrain.epochs=1", "pretrain.iterations=1", "pretrain.batch=2",
            "pretrain.crop=[24, 40]", "search.epochs=1", "search.iterations=1", "search.batch=2",
            "search.crop=[24, 40]",
        ),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert Architecture.load(folder / "search" / "student.json").num_classes == 19
    return folder / "search"


def picture(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def blocks(size: tuple[int, int], values: np.ndarray, numbers: np.random.Generator) -> np.ndarray:
    """Blocks of 10x10 pixels, each of one of the values, a number or a colour."""
    chosen = values[numbers.integers(0, len(values), (-(-size[0] // 10), -(-size[1] // 10)))]
    return chosen.repeat(10, 0).repeat(10, 1)[: size[0], : size[1]]


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CamVid as its archives unpack: two frames of each split, masks of 32 colours."""
    root, numbers = tmp_path_factory.mktemp("CamVid"), np.random.default_rng(1)
    colours = np.array(list(CAMVID_COLOURS), np.uint8)
    stems = ("0001TP_006690", "0001TP_006720", "0016E5_07959", "0016E5_07961",
             "0001TP_008550", "Seq05VD_f00000")  # fmt: skip
    for stem in stems:
        image = numbers.integers(0, 256, (*CAMVID_SIZE, 3), np.uint8)
        picture(root / "701_StillsRaw_full" / f"{stem}.png", image)
        mask = blocks(CAMVID_SIZE, colours, numbers)
        picture(root / "LabeledApproved_full" / f"{stem}_L.png", mask)
    return root


@pytest.fixture(scope="module")
def bdd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BDD100K's segmentation as its archives unpack."""
    root, numbers = tmp_path_factory.mktemp("bdd100k"), np.random.default_rng(2)
    for split in ("train", "val"):
        for number in range(2):
            name = f"{split}{number:04d}-00000000"
            image = numbers.integers(0, 256, (*BDD_SIZE, 3), np.uint8)
            picture(root / "images/10k" / split / f"{name}.jpg", image)
            mask = blocks(BDD_SIZE, np.array([*range(19), 255], np.uint8), numbers)
            picture(root / "labels/sem_seg/masks" / split / f"{name}.png", mask)
    return root


def train(searched: Path, data: str, run: Path, *more: str) -> Result:
    return call(
        "train", "--arch", searched, "--data", data, "--run", run, "--accelerator", "cpu",
        "--threads", "1", *settings(
            "schedule.epochs=1", "schedule.batch=2", "schedule.crop=[72, 88]", *more
        ),
    )  # fmt: skip


def test_camvid_with_its_classes_and_test_split(
    searched: Path, camvid: Path, tmp_path: Path
) -> None:
    data, run = f"camvid:{camvid}", tmp_path / "run"
    result = train(searched, data, run)
    assert result.exit_code == 0, result.output
    for folder in (run, run / "teacher"):
        network, facts = load_model(folder)
        assert facts.classes == CAMVID_CLASSES and facts.input_size == CAMVID_SIZE
        assert isinstance(facts.architecture, Architecture)
        assert facts.architecture.num_classes == 11
        with torch.no_grad():
            assert network(torch.zeros(1, 3, 720, 960)).shape == (1, 11, 720, 960)
    own = Architecture.load(searched / "student.json")
    assert load_model(run)[1].architecture.branches == own.branches  # type: ignore[union-attr]
    assert json.loads((run / "run.json").read_text())["images"] == {"train": 2, "val": 2, "test": 2}
    scored = call("evaluate", run, "--split", "test", "--accelerator", "cpu", "--json",
                  "--predictions", tmp_path / "colours")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    found = json.loads(scored.stdout)
    assert (found["split"], found["images"]) == ("test", 2)
    assert set(found["class_iou"]) == set(CAMVID_CLASSES.names)
    share = np.mean([label != 255 for label in CAMVID_COLOURS.values()])
    pixels = 2 * CAMVID_SIZE[0] * CAMVID_SIZE[1]
    assert found["labelled_pixels"] == pytest.approx(share * pixels, rel=0.2)
    written = sorted((tmp_path / "colours").rglob("*.png"))
    assert [path.stem for path in written] == ["0001TP_008550", "Seq05VD_f00000"]
    assert np.asarray(Image.open(written[0])).shape == (*CAMVID_SIZE, 3)


def test_bdd_whose_size_does_not_divide_by_64(searched: Path, bdd: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(searched, f"bdd100k:{bdd}", run, "data.image_scale=0.75")
    assert result.exit_code == 0, result.output
    network, facts = load_model(run)
    assert facts.classes == CITYSCAPES_CLASSES and facts.input_size == (68, 120)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 720, 1280)).shape == (1, 19, 720, 1280)
    scored = call("evaluate", run, "--accelerator", "cpu", "--json")
    assert scored.exit_code == 0, scored.output
    score = json.loads((run / "result.json").read_text())
    assert json.loads(scored.stdout)["mean_iou"] == pytest.approx(score["best_mean_iou"])
    none = call("evaluate", run, "--split", "test", "--accelerator", "cpu")
    assert none.exit_code == 2 and "no test split" in none.output


def test_a_teacher_of_other_data_is_refused(
    searched: Path, camvid: Path, bdd: Path, tmp_path: Path
) -> None:
    assert train(searched, f"bdd100k:{bdd}", tmp_path / "bdd").exit_code == 0
    words = ("train", "--arch", searched / "student.json", "--teacher", tmp_path / "bdd")
    result = call(*words, "--data", f"camvid:{camvid}", "--run", tmp_path / "run")
    assert result.exit_code == 2, result.output
    assert "19 classes" in result.output and "11" in result.output
    assert not (tmp_path / "run").exists()


def test_a_trained_network_is_exported_at_its_own_datas_size(
    searched: Path, camvid: Path, tmp_path: Path
) -> None:
    assert train(searched, f"camvid:{camvid}", tmp_path / "run").exit_code == 0
    out = tmp_path / "camvid.onnx"
    result = call("export", tmp_path / "run", "-o", out)
    assert result.exit_code == 0, result.output
    import onnx

    output = onnx.load(out).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in output] == [1, 11, *CAMVID_SIZE]
