"""A training from Python: no command, a teacher that is trained first, a listener, a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from latlut.errors import UnknownNameError
from latlut.search.networks.model_files import load_model
from latlut.search.runs.listening import RunListener
from latlut.search.train.records import TrainEpoch
from latlut.search.train.run import run_training
from latlut.search.train.settings import TrainSettings, load_train_settings
from latlut.spaces import Architecture, Branch, Cell

SMALL = Architecture(8, 8, (Branch(16, (Cell("conv", 4, True), Cell("conv", 8))),), base_width=3)
TEACHER = Architecture(
    12, 12, (Branch(16, (Cell("conv", 12, True), Cell("conv", 12))),), base_width=3
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings() -> TrainSettings:
    return load_train_settings(
        "tiny",
        {
            "data.image_size": (32, 64), "data.train_images": 4, "data.validation_images": 2,
            "schedule.epochs": 1, "schedule.batch": 2, "schedule.crop": (32, 48),
        },
    )  # fmt: skip


def test_a_training_in_a_few_lines(tmp_path: Path) -> None:
    result = run_training(SMALL, settings(), tmp_path / "run")
    assert result is not None and len(result.records) == 1
    _, facts = load_model(tmp_path / "run")
    assert facts.mean_iou == result.best_mean_iou
    assert json.loads((tmp_path / "run" / "run.json").read_text())["environment"] == {}


def test_the_teacher_comes_first_and_the_listener_hears_of_both(tmp_path: Path) -> None:
    remarks: list[str] = []
    steps: list[tuple[str, int, int]] = []
    records: list[TrainEpoch] = []
    ended: list[bool] = []
    listener = RunListener(
        remark=remarks.append,
        step=lambda name, step, of, loss: steps.append((name, step, of)),
        epoch=records.append,
        ended=lambda: ended.append(True),
    )
    result = run_training(SMALL, settings(), tmp_path, TEACHER, listener=listener)
    assert result is not None and result.records[0].distillation_loss is not None
    assert steps == [("epoch 1", 1, 2), ("epoch 1", 2, 2)] * 2
    assert [record.distillation_loss is None for record in records] == [True, False]
    assert len(ended) == 2
    assert remarks[0].startswith(f"training into {tmp_path / 'teacher'}: ")
    assert any(text.startswith(f"the teacher {tmp_path / 'teacher'} has ") for text in remarks)
    again = run_training(SMALL, settings(), tmp_path, TEACHER, listener=listener)
    assert again == result and len(records) == 2


def test_an_unknown_baseline_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'fast-scnn'"):
        run_training("fastscnn", settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
