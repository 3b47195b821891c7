"""``latlut train``: train a network, its teacher first if it is to have one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from latlut.cli.options import overrides_of, run_options, set_threads
from latlut.cli.output import json_option, print_json, print_table, quiet_option, remark
from latlut.cli.run_output import StepBar
from latlut.errors import LatlutError

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch import nn

    from latlut.search.data.dataset import SegmentationData
    from latlut.search.train.records import TrainEpoch
    from latlut.search.train.settings import TrainSettings
    from latlut.search.train.tensorboard import TrainingLog
    from latlut.search.train.training import Training, TrainingResult
    from latlut.spaces import Architecture


@click.command()
@click.option(
    "--arch", "arch_name", metavar="NAME|FILE|RUN",
    help="A shipped network, an architecture's JSON file, or a search's folder.",
)  # fmt: skip
@click.option(
    "--network", "baseline", metavar="NAME", help="A hand-designed network instead, such as enet."
)
@click.option(
    "--teacher", metavar="RUN|NAME|FILE|none",
    help="A training's folder, or an architecture to train first. [with a search's folder its own "
    "teacher, else none]",
)  # fmt: skip
@run_options("runs/train", "schedule.epochs=5")
@click.option("--corrupt", type=click.Choice(["fatal", "skip"]), help="Files that cannot be used.")
@quiet_option
@json_option
def train(
    arch_name: str | None, baseline: str | None, teacher: str | None, data: str | None,
    preset: str, folder: Path, seed: int | None, corrupt: str | None, precision: str | None,
    accelerator: str, devices: int, threads: int | None, extra: tuple[tuple[str, Any], ...],
    quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a network from scratch; with a teacher, it learns from that one too.

    A teacher that is an architecture is trained first, into the folder teacher of the run. The
    best and the last network are stored with all that is needed to use them. Ctrl-C stops it; the
    same command goes on from the last epoch.

    \b
    latlut train --arch runs/search                       teacher, then student, of a search
    latlut train --arch fasterseg-student --teacher none  the published student alone
    latlut train --arch student.json --teacher runs/teacher --preset paper --data cityscapes:FOLDER
    latlut train --network enet --run runs/enet           a hand-designed network
    """
    if bool(arch_name) == bool(baseline):
        raise LatlutError("name either an architecture with --arch or a network with --network")
    chosen: dict[str, Any] = {
        "data.name": data,
        "data.corrupt": corrupt,
        "seed": seed,
        "precision": precision,
    }
    from latlut.search.train.settings import load_train_settings

    settings = load_train_settings(preset, overrides_of(chosen, extra))
    plan = _plan(arch_name, baseline, teacher)
    set_threads(threads)
    result = run_training(plan, settings, folder, quiet, accelerator, devices)
    if result is None:  # another process tells
        return
    if as_json:
        import json

        print_json(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    else:
        _report(result, folder)


class Plan(NamedTuple):
    """What is trained: an architecture or a baseline's name; and its teacher, if any: the folder of
    a training, or an architecture that is trained first."""

    network: Architecture | str
    teacher: Architecture | Path | None = None


def run_training(
    plan: Plan,
    settings: TrainSettings,
    folder: Path,
    quiet: bool,
    accelerator: str = "cpu",
    devices: int = 1,
) -> TrainingResult | None:
    """Train into ``folder`` and write all that came out; None on all processes but one."""
    from latlut.search.runs.processes import launched
    from latlut.search.train.data import checked_data

    found = checked_data(settings.data)
    if isinstance(plan.teacher, Path):
        from latlut.search.train.teachers import load_teacher

        load_teacher(plan.teacher, found.data.classes)  # refused before processes start
    fabric = launched(accelerator, devices, settings.precision)
    quiet = quiet or not fabric.is_global_zero
    if found.left_out:
        remark(f"{len(found.left_out)} file(s) left out:\n" + "\n".join(found.left_out), quiet)
    result = _train(plan, found.data, settings, folder, fabric, quiet)
    return result if fabric.is_global_zero else None


def _plan(arch_name: str | None, baseline: str | None, teacher: str | None) -> Plan:
    from latlut.spaces.shipped import find_architecture
    from latlut.spaces import Architecture

    network: Architecture | str
    if arch_name is None:
        assert baseline is not None
        network = baseline
        _check_baseline(baseline)
    elif Path(arch_name).is_dir():
        network = Architecture.load(Path(arch_name) / "student.json")
        teacher = teacher or str(Path(arch_name) / "teacher.json")
    else:
        network = find_architecture(arch_name)
    if teacher in (None, "none"):
        return Plan(network, None)
    is_architecture = Path(teacher).is_file() or not (Path(teacher).exists() or "/" in teacher)
    if is_architecture and Path(teacher).name not in ("model.json", "model.safetensors"):
        return Plan(network, find_architecture(teacher))
    return Plan(network, Path(teacher))


def _check_baseline(name: str) -> None:
    from latlut.errors import UnknownNameError, did_you_mean
    from latlut.search.networks.baselines import baseline_names

    if name not in baseline_names():
        raise UnknownNameError(f"no network {name!r}; {did_you_mean(name, baseline_names())}")


def _train(
    plan: Plan,
    data: SegmentationData,
    settings: TrainSettings,
    folder: Path,
    fabric: Fabric,
    quiet: bool,
) -> TrainingResult:
    """Train what the plan says into the folder; the teacher first, where it has to be."""
    from latlut.machine.provenance import collect_environment
    from latlut.search.runs.folder import begin_run
    from latlut.search.train.folder import finish_training, training_facts, training_remarks
    from latlut.search.train.teachers import load_teacher
    from latlut.search.train.tensorboard import TrainingLog
    from latlut.search.train.training import Training

    is_first = fabric.is_global_zero
    facts = training_facts(plan.network, plan.teacher, data)
    goes_on = False
    if is_first:
        goes_on = begin_run(
            folder, settings.to_dict(), facts, training_remarks(settings, collect_environment())
        )
    fabric.barrier()
    teacher: nn.Module | None = None
    teacher_folder = plan.teacher if isinstance(plan.teacher, Path) else folder / "teacher"
    if plan.teacher is not None and not isinstance(plan.teacher, Path):
        _train(Plan(plan.teacher, None), data, settings, teacher_folder, fabric, quiet)
    if plan.teacher is not None:
        teacher, teacher_facts = load_teacher(teacher_folder, data.classes)
        remark(f"the teacher {teacher_folder} has {_percent(teacher_facts.mean_iou)} mIoU", quiet)
    network, name = _network(plan.network, data.classes.count, settings.seed)
    remark(
        f"{'going on with' if goes_on else 'training into'} {folder}: "
        f"{sum(item.numel() for item in network.parameters()) / 1e6:.3g} M parameters with "
        f"auxiliary heads, {settings.schedule.epochs} epochs on {data.name}, {len(data.train)} "
        f"training and {len(data.val)} validation images, {data.classes.count} classes",
        quiet,
    )
    log = TrainingLog(folder / "tensorboard") if is_first else None
    watcher = _Watcher(folder, log, settings.schedule.epochs, quiet)
    training = Training(
        network, data, settings, folder, teacher,
        name=name, fabric=fabric, on_step=watcher.on_step, on_epoch=watcher.on_epoch,
    )  # fmt: skip
    try:
        result = training.run()
    except KeyboardInterrupt:
        remark(f"stopped; the same command goes on from the last epoch in {folder}", quiet)
        raise
    finally:
        watcher.close()
    if is_first:
        finish_training(folder, result)
    fabric.barrier()
    return result


def _network(what: Architecture | str, num_classes: int, seed: int) -> tuple[nn.Module, str | None]:
    if isinstance(what, str):
        from latlut.search.networks.baselines import build_baseline

        return build_baseline(what, num_classes, seed), what
    from latlut.search.networks.network import trainable

    return trainable(what, num_classes, seed), None


class _Watcher:
    """Tells a run's folder, TensorBoard and the terminal how the training goes."""

    def __init__(self, folder: Path, log: TrainingLog | None, epochs: int, is_quiet: bool) -> None:
        self.folder, self.epochs, self.is_quiet = folder, epochs, is_quiet
        self._log, self._bar = log, StepBar(is_quiet)

    def close(self) -> None:
        """Take the bar away, and write what is buffered."""
        self._bar.close()
        if self._log is not None:
            self._log.close()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar, and log the loss."""
        if self._log is not None:
            self._log.on_step(epoch, step, steps, loss)
        self._bar.move(f"epoch {epoch + 1}", step, steps, loss)

    def on_epoch(self, record: TrainEpoch, training: Training) -> None:
        """Write the table of epochs, and a line."""
        from latlut.search.train.records import write_epochs

        if self._log is None:  # another process tells
            return
        self._log.on_epoch(record, training)
        write_epochs(self.folder / "epochs.csv", training.records)
        parts = "".join(
            f"  {name} {value:.3g}"
            for name, value in (
                ("main", record.main_loss),
                ("auxiliary", record.auxiliary_loss),
                ("teacher", record.distillation_loss),
            )
            if value is not None
        )
        score = "" if record.mean_iou is None else f"  mIoU {_percent(record.mean_iou)}"
        remark(
            f"epoch {record.epoch + 1}/{self.epochs}  loss {record.loss:.3g}{parts}{score}"
            f"  ({record.seconds:.0f} s)",
            self.is_quiet,
        )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.4g}%"


def _report(result: TrainingResult, folder: Path) -> None:
    best = result.records[result.best_epoch]
    assert best.class_iou is not None
    rows = zip(result.classes.names, best.class_iou, strict=True)
    print_table(["class", "IoU, %"], [[name, 100 * value] for name, value in rows])
    click.echo(
        f"\nbest: {_percent(result.best_mean_iou)} mIoU after epoch {result.best_epoch + 1}; "
        f"last: {_percent(result.last_mean_iou)}\n"
        f"\nin {folder}: model.safetensors, model.json (the best), last/, epochs.csv\n"
        f"  evaluate it:         latlut evaluate {folder}\n"
        f"  look at predictions: latlut predict-image {folder} IMAGE|FOLDER --out predictions\n"
        f"  how it went:         tensorboard --logdir {folder / 'tensorboard'}"
    )
