"""``latlut train``: train a network, its teacher first if it is to have one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.commands import Command, printed_run_settings
from latlut.cli.names import ARCHITECTURE, BASELINE, TRAIN_PRESET
from latlut.cli.options import overrides_of, run_options, set_threads
from latlut.cli.output import is_quiet, json_option, note, print_table, quiet_option
from latlut.cli.run_output import print_result_file, run_listener
from latlut.errors import LatlutError
from latlut.shell import command

if TYPE_CHECKING:
    from latlut.search.train.training import TrainingResult


@click.command(cls=Command, shows_progress=True, prints_run_settings=True)
@click.option(
    "--arch", "arch_name", type=ARCHITECTURE, metavar="NAME|FILE|RUN",
    help="Architecture: a shipped name, a JSON file, or a search's folder.",
)  # fmt: skip
@click.option(
    "--network", "baseline", type=BASELINE, help="A hand-designed network instead, e.g. enet."
)
@click.option(
    "--teacher", metavar="RUN|NAME|FILE|none", show_default="a search's own; else none",
    help="Teacher: a training's folder, or an architecture, which is trained first.",
)  # fmt: skip
@run_options("runs/train", "schedule.epochs=5", TRAIN_PRESET)
@click.option(
    "--corrupt", type=click.Choice(["fatal", "skip"]), show_default="the preset's",
    help="What to do with files that cannot be read.",
)  # fmt: skip
@quiet_option
@json_option
def train(
    arch_name: str | None, baseline: str | None, teacher: str | None, data: str | None,
    preset: str, folder: Path, seed: int | None, corrupt: str | None, precision: str | None,
    accelerator: str, processes: int, timeout_s: float, threads: int | None,
    extra: tuple[tuple[str, Any], ...], quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a network from scratch, with or without distillation from a teacher.

    A teacher that is an architecture is trained first, in the folder `teacher` of the run. The best
    and the last network are stored. Ctrl-C stops it; the same command continues from the last
    epoch.

    \b
    latlut train --arch runs/search                       teacher, then student, of a search
    latlut train --arch fasterseg-student --teacher none  the published student alone
    latlut train --arch student.json --teacher runs/teacher --preset paper --data cityscapes:FOLDER
    latlut train --network enet --run runs/enet           a hand-designed network
    torchrun --nproc-per-node 4 -m -- latlut train --arch runs/search --preset paper --data FOLDER
    """
    if bool(arch_name) == bool(baseline):
        raise LatlutError("name either an architecture with --arch or a network with --network")
    chosen: dict[str, Any] = {
        "data.name": data,
        "data.corrupt": corrupt,
        "seed": seed,
        "precision": precision,
    }
    from latlut.engines import run_environment
    from latlut.search.networks.finding import find_student, find_teacher
    from latlut.search.train.run import run_training
    from latlut.search.train.settings import load_train_settings

    settings = load_train_settings(preset, overrides_of(chosen, extra))
    if printed_run_settings(settings):
        return
    network, taught_by = (
        (baseline, find_teacher(teacher)) if baseline else find_student(arch_name or "", teacher)
    )
    set_threads(threads)
    result = run_training(
        network, settings, folder, taught_by, listener=run_listener(quiet),
        environment=run_environment, accelerator=accelerator, devices=processes,
        timeout_s=timeout_s,
    )  # fmt: skip
    if result is None:  # another process tells
        return
    if as_json:
        print_result_file(folder)
    else:
        _report(result, folder)


def _report(result: TrainingResult, folder: Path) -> None:
    from latlut.search.train.records import percent

    best = result.records[result.best_epoch]
    assert best.class_iou is not None
    if not is_quiet():
        rows = zip(result.classes.names, best.class_iou, strict=True)
        print_table(["class", "IoU, %"], [[name, 100 * value] for name, value in rows])
    note()
    click.echo(
        f"best: {percent(result.best_mean_iou)} mIoU after epoch {result.best_epoch + 1}; "
        f"last: {percent(result.last_mean_iou)}"
    )
    note(
        f"\nin {folder}: model.safetensors, model.json (the best), last/, epochs.csv\n"
        f"  evaluate it:         {command('evaluate', folder)}\n"
        f"  look at predictions: {command('predict-image', folder)} IMAGE --out predictions\n"
        f"  how it went:         tensorboard --logdir {folder / 'tensorboard'}"
    )
