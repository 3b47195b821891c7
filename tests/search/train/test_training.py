"""A whole training of a very small network: losses, checkpoints, resuming, models, refusals."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from small_runs import settings_with
from torch import nn

from latlut.errors import DataError, ImportFileError, LatlutError, SpecError
from latlut.resources import profiles_dir
from latlut.search.data.dataset import SegmentationData
from latlut.search.data.opening import open_data
from latlut.search.networks.model_files import load_model
from latlut.search.networks.network import SegmentationNetwork, TrainOutputs, trainable
from latlut.search.runs.checkpoints import CheckpointError, load_checkpoint
from latlut.search.runs.setting_files import preset_names, validated
from latlut.search.runs.step import DivergedError
from latlut.search.train.losses import distillation_loss, ohem_loss, training_loss
from latlut.search.train.records import TrainEpoch, best_epoch
from latlut.search.train.run import load_teacher
from latlut.search.train.settings import LossSettings, TrainSettings, load_train_settings
from latlut.search.train.state import MovingAverage
from latlut.search.train.training import Training
from latlut.spaces import Architecture, Branch, Cell

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = Cell("conv", 4)
SMALL = Architecture(
    8,
    8,
    (
        Branch(16, (NARROW, Cell("zoomed_conv", 4, True), Cell("conv", 8))),
        Branch(32, (NARROW, Cell("conv", 4, True), Cell("conv_2x", 8, True), Cell("conv", 8))),
    ),
    base_width=3,
)
SETTINGS: dict[str, Any] = {
    "data": {"image_size": [64, 128], "train_images": 8, "validation_images": 3},
    "schedule": {"epochs": 3, "iterations": 2, "batch": 2, "crop": [48, 80], "lr": 0.05},
}


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return open_data("street-scenes", size=(64, 128), counts=(8, 3, 0))


def settings(**groups: Any) -> TrainSettings:
    return settings_with(TrainSettings, SETTINGS, groups)


def make(
    data: SegmentationData, folder: Path, chosen: TrainSettings | None = None, **more: Any
) -> Training:
    chosen = chosen or settings()
    network = more.pop("network", None) or trainable(SMALL, data.classes.count, chosen.seed)
    return Training(network, data, chosen, folder, **more)


def equal_states(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


# --- the network ---


def test_any_image_size_and_the_classes_of_the_data() -> None:
    network = trainable(SMALL, 7)
    for size in ((64, 128), (45, 83)):
        image = torch.rand(2, 3, *size)
        outputs = network.train()(image)
        assert isinstance(outputs, TrainOutputs)
        eighth = tuple(-(-side // 8) for side in size)
        assert {tuple(item.shape) for item in (outputs.main, *outputs.auxiliary)} == {
            (2, 7, *eighth)
        }
        assert len(outputs.auxiliary) == 2
        assert network.eval()(image).shape == (2, 7, *size)


@pytest.mark.parametrize(
    ("scales", "heads"),
    [((8,), set()), ((16,), {"16"}), ((32,), {"16", "32"}), ((8, 16), {"16"}),
     ((8, 32), {"16", "32"}), ((16, 32), {"16", "32"})],
)  # fmt: skip
def test_auxiliary_heads_follow_the_branches(scales: tuple[int, ...], heads: set[str]) -> None:
    branches = {8: Branch(8, (NARROW, Cell("conv", 8))), **{b.scale: b for b in SMALL.branches}}
    architecture = replace(SMALL, branches=tuple(branches[scale] for scale in scales))
    network = trainable(architecture, 5)
    assert set(network.auxiliary_heads) == heads
    outputs = network.train()(torch.rand(2, 3, 64, 64))
    assert isinstance(outputs, TrainOutputs) and len(outputs.auxiliary) == len(heads)
    bare = trainable(architecture, 5, auxiliary=False).train()(torch.rand(2, 3, 64, 64))
    assert isinstance(bare, TrainOutputs) and bare.auxiliary == ()


def test_the_head_at_16_sees_the_branch_and_what_enters_the_down_cell() -> None:
    head: Any = trainable(SMALL, 5).auxiliary_heads["16"]
    of_branch, entering = 3 * 16 * 8 // 12, 3 * 16 * 4 // 12
    assert head.conv.conv.in_channels == of_branch + entering


def test_the_deployed_network_shares_weights_and_not_the_mode() -> None:
    network = trainable(SMALL, 5).eval()
    image = torch.rand(1, 3, 64, 128)
    whole, small = network.deployed((64, 128)), network.deployed((64, 128), with_upsample=False)
    with torch.no_grad():
        assert torch.equal(whole(image), network(image))
        assert small(image).shape == (1, 5, 8, 16)
        network.train()
        assert not any(part.training for part in whole.modules())
        for parameter in network.parameters():
            parameter.mul_(0.5)
        network(image)  # moves the running statistics
        network.eval()
        assert torch.equal(whole(image), network(image))
    shared = {id(item) for item in network.parameters()}
    assert all(id(item) in shared for item in whole.parameters())


def test_same_seed_same_weights() -> None:
    assert equal_states(trainable(SMALL, 5, 3), trainable(SMALL, 5, 3))
    assert not equal_states(trainable(SMALL, 5, 3), trainable(SMALL, 5, 4))


@pytest.mark.parametrize(
    ("name", "paper_millions"), [("fasterseg-student", 4.4), ("fasterseg-teacher-pruned", 4.7)]
)
def test_parameters_with_training_heads_are_those_of_the_paper(
    name: str, paper_millions: float
) -> None:
    """Table 3 of the paper counts the auxiliary heads."""
    network = trainable(Architecture.load(profiles_dir() / "architectures" / f"{name}.json"), 19)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == pytest.approx(paper_millions * 1e6, rel=0.02)


# --- the loss ---


def test_the_loss_is_the_weighed_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    label = torch.randint(0, 4, (2, 16, 24))
    label[0, :4] = 255
    outputs = TrainOutputs(torch.randn(2, 4, 16, 24), (torch.randn(2, 4, 16, 24),) * 2)
    taught = torch.randn(2, 4, 16, 24)
    choice = LossSettings(auxiliary=0.3, distillation=0.7)
    found = training_loss(outputs, label, choice, taught)
    main = ohem_loss(outputs.main, label)
    auxiliary = 2 * ohem_loss(outputs.auxiliary[0], label)
    divergence = distillation_loss(outputs.main, taught, label)
    assert found.total.item() == pytest.approx(
        (main + 0.3 * auxiliary + 0.7 * divergence).item(), rel=1e-5
    )
    assert found.parts["auxiliary_loss"].item() == pytest.approx(auxiliary.item(), rel=1e-5)
    alone = training_loss(outputs.main, label, choice)
    assert set(alone.parts) == {"main_loss"}
    assert alone.total.item() == pytest.approx(main.item(), rel=1e-5)


def test_small_logits_are_enlarged_to_the_labels() -> None:
    label = torch.zeros(1, 16, 32, dtype=torch.int64)
    logits = torch.zeros(1, 2, 2, 4)
    logits[:, 0] = 5.0
    found = training_loss(TrainOutputs(logits, (logits[..., :1, :1],)), label, LossSettings())
    expected = math.log(1 + math.exp(-5))
    assert found.parts["main_loss"].item() == pytest.approx(expected, rel=1e-4)


# --- a whole run ---


def test_training_learns_and_stores_the_best_and_the_last(
    data: SegmentationData, tmp_path: Path
) -> None:
    chosen = settings(schedule={"epochs": 6, "iterations": 8, "warmup_steps": 4})
    training = make(data, tmp_path, chosen)
    result = training.run()
    assert result.records[-1].main_loss < 0.8 * result.records[0].main_loss
    assert result.best_mean_iou == max(record.mean_iou or 0 for record in result.records)
    assert result.last_mean_iou == result.records[-1].mean_iou
    last, facts = load_model(tmp_path / "last")
    assert isinstance(last, SegmentationNetwork)
    assert equal_states(last, training.network)
    assert facts.classes == data.classes and facts.epoch == 6 and facts.input_size == (64, 128)
    best, facts = load_model(tmp_path)
    assert facts.epoch == result.best_epoch + 1 and facts.mean_iou == result.best_mean_iou
    assert not best.training


class Killed(BaseException):
    """Stands for a signal: nothing of the training catches it."""


class WithDropout(nn.Module):
    """Draws from PyTorch's own generator while it is trained."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.body = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(nn.functional.dropout(self.body(image), 0.3, self.training))
        return found


@pytest.mark.parametrize(
    ("stop_at", "case"),
    [
        ((0, 2), "plain"),
        ((1, 1), "teacher"),
        ((2, 2), "average"),
        ((2, 1), "dropout"),
        ((2, 1), "16-mixed"),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(
    data: SegmentationData, tmp_path: Path, stop_at: tuple[int, int], case: str
) -> None:
    chosen = settings(schedule={"ema": 0.9, "decay": "poly"} if case == "average" else {})

    def training(folder: Path, **more: Any) -> Training:
        if case == "teacher":
            more["teacher"] = trainable(SMALL, data.classes.count, 9).eval()
        if case == "dropout":
            more |= {"network": WithDropout(data.classes.count), "name": "with-dropout"}
        if case == "16-mixed":
            scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
            precision = MixedPrecision("16-mixed", "cpu", scaler)
            more["fabric"] = Fabric(accelerator="cpu", devices=1, plugins=precision)
        return make(data, folder, chosen, **more)

    whole = training(tmp_path / "whole")
    expected = whole.run()

    def killer(epoch: int, step: int, steps: int, loss: float) -> None:
        if (epoch, step) == stop_at:
            raise Killed

    with pytest.raises(Killed):
        training(tmp_path / "killed", on_step=killer).run()
    torch.rand(7)  # what else happens between must not count
    again = training(tmp_path / "killed")
    found = again.run()
    assert equal_states(again.network, whole.network)
    assert equal_states(again.model, whole.model)
    assert [replace(record, seconds=0) for record in found.records] == [
        replace(record, seconds=0) for record in expected.records
    ]
    scales = [item.fabric.strategy.precision.state_dict().get("scale") for item in (again, whole)]
    assert scales == ([4.0 * 2**6] * 2 if case == "16-mixed" else [None] * 2)
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert models[0] == models[1]


def test_a_finished_run_is_only_read(data: SegmentationData, tmp_path: Path) -> None:
    first = make(data, tmp_path)
    result = first.run()

    def fail(*_: Any) -> None:
        raise AssertionError("nothing is left to train")

    again = make(data, tmp_path, on_step=fail)
    assert again.run() == result
    assert equal_states(again.network, first.network)


def test_the_best_epoch_is_the_first_of_the_highest_score() -> None:
    def record(epoch: int, mean_iou: float | None) -> TrainEpoch:
        return TrainEpoch(epoch, 1.0, 1.0, 1.0, 0.1, mean_iou=mean_iou)

    scores = (math.nan, 0.2, None, 0.3, 0.3, math.nan)
    found = best_epoch([record(*pair) for pair in enumerate(scores)])
    assert found is not None and found.epoch == 3
    assert best_epoch([record(0, None)]) is None


def test_the_seed_decides_everything(data: SegmentationData, tmp_path: Path) -> None:
    networks = []
    for number, seed in enumerate((3, 3, 4)):
        training = make(data, tmp_path / str(number), settings(seed=seed))
        training.run()
        networks.append(training.network)
    assert equal_states(networks[0], networks[1])
    assert not equal_states(networks[0], networks[2])


def test_accumulated_batches_make_one_step(data: SegmentationData, tmp_path: Path) -> None:
    steps: list[int] = []
    chosen = settings(schedule={"accumulate": 2, "epochs": 1})
    make(data, tmp_path, chosen, on_step=lambda *at: steps.append(at[1])).run()
    assert steps == [1, 2]


def test_a_step_needs_its_batches(data: SegmentationData, tmp_path: Path) -> None:
    chosen = settings(schedule={"accumulate": 5, "iterations": None})
    with pytest.raises(DataError, match="make 4 batches, fewer than the 5 of one step"):
        make(data, tmp_path, chosen).run()


def test_mixed_precision_trains_and_stores_full_precision(
    data: SegmentationData, tmp_path: Path
) -> None:
    chosen = settings(precision="bf16-mixed", is_channels_last=True, schedule={"clip": 1.0})
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    result = make(data, tmp_path, chosen, fabric=fabric).run()
    assert all(math.isfinite(record.loss) for record in result.records)
    stored, _ = load_model(tmp_path)
    assert {value.dtype for value in stored.parameters()} == {torch.float32}


def test_a_teacher_pulls_the_student_towards_it(data: SegmentationData, tmp_path: Path) -> None:
    chosen = settings(schedule={"iterations": 4}, loss={"distillation": 10.0})
    teacher = trainable(SMALL, data.classes.count, 1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    records = make(data, tmp_path / "with", chosen, teacher=teacher).run().records
    assert records[-1].distillation_loss is not None
    assert records[-1].distillation_loss < 0.7 * (records[0].distillation_loss or 0)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    alone = make(data, tmp_path / "without", chosen).run().records
    assert alone[0].distillation_loss is None


def test_rates_of_both_schedules(data: SegmentationData, tmp_path: Path) -> None:
    falling = {"epochs": 2, "lr": 0.1, "lr_decay": 0.5, "iterations": 4}
    rates = {}
    for name, more in (
        ("exponential", {}),
        ("poly", {"decay": "poly", "poly_power": 1.0}),
        ("warm", {"warmup_steps": 8}),
    ):
        chosen = settings(schedule={**falling, **more})
        rates[name] = [r.rate for r in make(data, tmp_path / name, chosen).run().records]
    assert rates["exponential"] == pytest.approx([0.1, 0.05])
    assert rates["poly"] == pytest.approx([0.1 * (1 - 3 / 8), 0.1 * (1 - 7 / 8)])
    assert rates["warm"] == pytest.approx([0.1 * 4 / 8, 0.05])


def test_the_moving_average_follows_and_is_what_is_stored(
    data: SegmentationData, tmp_path: Path
) -> None:
    training = make(data, tmp_path, settings(schedule={"ema": 0.5}))
    training.run()
    assert training.average is not None
    stored, _ = load_model(tmp_path / "last")
    assert equal_states(stored, training.average.module)
    assert not equal_states(stored, training.network)


def test_the_moving_average_is_the_exponential_one() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0.0)
    average = MovingAverage(network, 0.2)
    nn.init.constant_(network.weight, 1.0)
    expected, decays = 0.0, [min(0.2, (1 + step) / (10 + step)) for step in range(3)]
    for decay in decays:
        average.update(network)
        expected = decay * expected + (1 - decay)
    assert next(average.module.parameters()).item() == pytest.approx(expected)


# --- what goes wrong ---


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(
    data: SegmentationData, tmp_path: Path
) -> None:
    def spoil(epoch: int, step: int, steps: int, loss: float) -> None:
        if (epoch, step) == (1, 1):
            with torch.no_grad():
                next(training.network.parameters()).fill_(float("nan"))

    training = make(data, tmp_path, on_step=spoil)
    names = training.batches().names(1, 1)
    with pytest.raises(DivergedError) as caught:
        training.run()
    text = str(caught.value)
    assert "epoch 2, step 2" in text and "last.pt" in text
    assert all(name in text for name in names)
    kept = load_checkpoint(tmp_path / "checkpoints" / "last.pt", "training")
    assert kept["epoch"] == 1
    assert all(v.isfinite().all() for v in kept["state"].values() if v.is_floating_point())


@pytest.mark.parametrize("file", ["model.safetensors", "last.pt"])
def test_a_full_disk_leaves_what_was_there(
    data: SegmentationData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    replaced = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == file and is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        replaced(source, target)

    is_full = False
    monkeypatch.setattr(os, "replace", full)

    def fill(record: Any, training: Training) -> None:
        nonlocal is_full
        is_full = record.epoch == 0

    with pytest.raises(
        CheckpointError, match="No space left on device.*; the one before it is unh"
    ):
        make(data, tmp_path, on_epoch=fill).run()
    is_full = False
    assert not list(tmp_path.rglob("*.part"))
    assert load_model(tmp_path)[1].epoch is not None
    whole = make(data, tmp_path / "whole")
    whole.run()
    again = make(data, tmp_path)
    again.run()
    assert equal_states(again.network, whole.network)


def test_a_checkpoint_of_something_else_is_refused(data: SegmentationData, tmp_path: Path) -> None:
    make(data, tmp_path).run()
    other = replace(SMALL, branches=SMALL.branches[:1])
    with pytest.raises(CheckpointError, match="of another network"):
        make(data, tmp_path, network=trainable(other, data.classes.count)).run()
    with pytest.raises(CheckpointError, match="3 epochs behind it, more than the 2"):
        make(data, tmp_path, settings(schedule={"epochs": 2})).run()
    with pytest.raises(CheckpointError, match="without schedule.ema"):
        make(data, tmp_path, settings(schedule={"ema": 0.9})).run()


def test_class_counts_that_do_not_fit_are_refused(data: SegmentationData, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="the network has 19 classes, street-scenes 10"):
        make(data, tmp_path, network=trainable(SMALL, 19))
    with pytest.raises(SpecError, match="the teacher has 19 classes, street-scenes 10"):
        make(data, tmp_path, teacher=trainable(SMALL, 19))


def test_teachers_that_are_missing_or_know_other_classes(
    data: SegmentationData, tmp_path: Path
) -> None:
    with pytest.raises(ImportFileError, match=r"(?s)no trained model in .*nowhere.*--teacher none"):
        load_teacher(tmp_path / "nowhere", data.classes)
    make(data, tmp_path).run()
    network, facts = load_teacher(tmp_path, data.classes)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    classes = replace(
        facts.classes, names=facts.classes.names[:3], colours=facts.classes.colours[:3]
    )
    with pytest.raises(LatlutError, match="trained for 10 classes .*the data has 3"):
        load_teacher(tmp_path, classes)
    renamed = replace(facts.classes, names=("street", *facts.classes.names[1:]))
    with pytest.raises(LatlutError, match="class 0 is 'road' there and 'street' in the data"):
        load_teacher(tmp_path, renamed)


def test_models_that_are_damaged_or_mixed_up(data: SegmentationData, tmp_path: Path) -> None:
    make(data, tmp_path / "one").run()
    other = replace(SMALL, branches=SMALL.branches[:1])
    make(data, tmp_path / "two", network=trainable(other, data.classes.count)).run()
    weights = tmp_path / "one" / "model.safetensors"
    (tmp_path / "two" / "model.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(LatlutError, match="of another network"):
        load_model(tmp_path / "two")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ImportFileError, match="cannot be read"):
        load_model(tmp_path / "one")
    (tmp_path / "one" / "model.json").write_text('{"format": "something"}')
    with pytest.raises(ImportFileError, match="received 'something'"):
        load_model(tmp_path / "one")


# --- settings ---


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_every_preset_is_read(name: str) -> None:
    assert name in preset_names("trainings")
    chosen = load_train_settings(name, {"schedule.epochs": 2})
    assert chosen.schedule.epochs == 2
    assert validated(TrainSettings, chosen.to_dict(), name) == chosen


def test_the_paper_preset_has_the_papers_numbers() -> None:
    paper = load_train_settings("paper")
    schedule = paper.schedule
    assert (schedule.epochs, schedule.iterations, schedule.batch) == (600, 1000, 12)
    assert schedule.crop == (512, 1024)
    assert (schedule.lr, schedule.lr_decay, schedule.decay) == (0.01, 0.992, "exponential")
    assert (schedule.momentum, schedule.weight_decay) == (0.9, 5e-4)
    assert (paper.loss.auxiliary, paper.loss.distillation) == (0.2, 1.0)
    assert (paper.loss.ohem_threshold, paper.loss.label_stride) == (0.7, 1)
    assert paper.data.crop_scales == (0.75, 1.0, 1.25)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [("schedule.epoch", 3, "schedule.epoch"), ("loss.direction", "both", "loss.direction"),
     ("schedule.ema", 1.5, "schedule.ema"), ("seed.x", 1, "seed is a value")],
)  # fmt: skip
def test_settings_that_are_none_are_named(name: str, value: Any, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        load_train_settings("tiny", {name: value})
