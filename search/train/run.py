"""A training into a folder: its teacher first, begun or gone on with, told of, and written out.

result = run_training("fast-scnn", load_train_settings("tiny"), Path("runs/fast-scnn"))
print(result.best_mean_iou)
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from latlut.errors import ImportFileError
from latlut.search.data.classes import Classes
from latlut.search.data.dataset import SegmentationData
from latlut.search.networks.baselines import build_baseline, published
from latlut.search.networks.model_files import ModelFacts, check_same_classes, load_model
from latlut.search.networks.network import trainable
from latlut.search.runs.folder import Environment, begin_run, processes_of
from latlut.search.runs.listening import RunListener, watched
from latlut.search.runs.lock import run_lock
from latlut.search.runs.processes import TIMEOUT_S, ended_by_signal, launched, on_first
from latlut.search.train.data import checked_data
from latlut.search.train.folder import finish_training, training_facts, write_epochs
from latlut.search.train.records import TrainEpoch, percent
from latlut.search.train.settings import TrainSettings
from latlut.search.train.state import TrainingState
from latlut.search.train.tensorboard import TrainingLog
from latlut.search.train.training import Training, TrainingResult
from latlut.spaces import Architecture


def run_training(
    network: Architecture | str,
    settings: TrainSettings,
    folder: Path,
    teacher: Architecture | Path | None = None,
    *,
    listener: RunListener | None = None,
    environment: Environment = dict,
    accelerator: str = "cpu",
    devices: int = 1,
    timeout_s: float = TIMEOUT_S,
) -> TrainingResult | None:
    """Train a network from scratch; what came out, and None on all processes but the first.

    Args:
        network: an architecture, or a baseline's name.
        settings: all of the training, and of the teacher's.
        folder: takes all that comes out; one that holds this very training, stopped, is gone on
            with.
        teacher: the folder of a training, or an architecture that is trained first, into the
            folder ``teacher`` of this one.
        listener: told how it goes.
        environment: gives what is kept of the machine in ``run.json``.
        accelerator, devices, timeout_s: see ``processes.launched``.

    Raises:
        LatlutError: settings, data, teacher or folder that do not fit each other, before anything
            is written; a loss that is not finite, or another process that ended, afterwards.
    """
    if isinstance(network, str):
        published(network)  # refused, where there is none of that name
    found = checked_data(settings.data, settings.data.corrupt)
    if isinstance(teacher, Path):
        load_teacher(teacher, found.data.classes)  # refused before processes start
    fabric = launched(accelerator, devices, settings.precision, timeout_s)
    is_first = fabric.is_global_zero
    told = listener if listener is not None and is_first else RunListener()
    if found.left_out:
        told.remark(f"files left out: {len(found.left_out)}\n" + "\n".join(found.left_out))
    with ended_by_signal(fabric), ExitStack() as held:
        on_first(fabric, lambda: held.enter_context(run_lock(folder)))
        result = _train(network, teacher, found.data, settings, folder, fabric, told, environment)
    return result if is_first else None


def load_teacher(path: str | Path, classes: Classes) -> tuple[nn.Module, ModelFacts]:
    """The trained network in a run's folder, in evaluation mode, without gradients.

    Raises:
        ImportFileError: there is no trained network, or one that cannot be read.
        LatlutError: it tells other classes apart than the data has.
    """
    try:
        network, facts = load_model(path)
    except ImportFileError as error:
        raise ImportFileError(
            f"the teacher: {error}\nor train without one: --teacher none"
        ) from error
    check_same_classes(facts, classes, f"the teacher {path}")
    return network.requires_grad_(False), facts


def _train(
    what: Architecture | str,
    teacher: Architecture | Path | None,
    data: SegmentationData,
    settings: TrainSettings,
    folder: Path,
    fabric: Fabric,
    told: RunListener,
    environment: Environment,
) -> TrainingResult:
    is_first, epochs = fabric.is_global_zero, settings.schedule.epochs
    facts = training_facts(what, teacher, data)
    processes = on_first(fabric, lambda: processes_of(folder, fabric.world_size))
    remarks: dict[str, Any] = {"seed": settings.seed, "processes": processes}
    goes_on = on_first(
        fabric, lambda: begin_run(folder, settings.to_dict(), facts, environment, **remarks)
    )
    if isinstance(teacher, Architecture):
        _train(teacher, None, data, settings, folder / "teacher", fabric, told, environment)
        teacher = folder / "teacher"
    taught_by: nn.Module | None = None
    if teacher is not None:
        taught_by, teacher_facts = load_teacher(teacher, data.classes)
        told.remark(f"the teacher {teacher} has {percent(teacher_facts.mean_iou)} mIoU")
    name, count = what if isinstance(what, str) else None, data.classes.count
    network: nn.Module = (
        build_baseline(what, count, settings.seed)
        if isinstance(what, str)
        else trainable(what, count, settings.seed)
    )
    told.remark(
        f"{'going on with' if goes_on else 'training into'} {folder}: "
        f"{sum(item.numel() for item in network.parameters()) / 1e6:.3g} M parameters with "
        f"auxiliary heads, {epochs} epochs on {data.name}, {len(data.train)} "
        f"training and {len(data.val)} validation images, {count} classes"
    )
    log = TrainingLog(folder / "tensorboard") if is_first else None

    def on_step(epoch: int, step: int, steps: int, loss: float) -> None:
        if log is not None:
            log.on_step(epoch, step, steps, loss)
            told.step(f"epoch {epoch + 1}", step, steps, loss)

    def on_epoch(record: TrainEpoch, state: TrainingState) -> None:
        if log is not None:  # else another process tells
            log.on_epoch(record, state)
            write_epochs(folder, state.records)
            told.epoch(record)
            told.remark(record.describe(epochs))

    training = Training(
        network, data, settings, folder, taught_by, name=name, fabric=fabric,
        processes=processes, on_step=on_step, on_epoch=on_epoch,
    )  # fmt: skip
    with watched(told, folder, log):
        result = training.run()

    def finish() -> None:
        write_epochs(folder, result.records)  # a run that was killed after its last epoch has not
        finish_training(folder, result)

    on_first(fabric, finish)
    return result
