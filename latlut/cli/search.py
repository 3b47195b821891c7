"""``latlut search``: FasterSeg's search against a latency table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.choices import SizeType
from latlut.cli.options import overrides_of, run_options, set_threads
from latlut.cli.output import json_option, print_json, quiet_option, remark
from latlut.cli.run_output import StepBar

if TYPE_CHECKING:
    from latlut.search.cosearch.folder import Found, RunFolder
    from latlut.search.cosearch.problem import SearchProblem
    from latlut.search.cosearch.records import EpochRecord
    from latlut.search.cosearch.search import Search
    from latlut.search.cosearch.settings import SearchSettings
    from latlut.search.cosearch.tensorboard import TensorboardLog
    from latlut.search.data.dataset import SegmentationData
    from latlut.search.runs.settings import DataSettings
    from latlut.table.table import LatencyTable


class WeightsType(click.ParamType[Any]):
    """paper, naive, auto, or three numbers."""

    name = "WEIGHTS"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """(w1, w2, w3), or "auto"."""
        if value == "auto" or isinstance(value, tuple):
            return value
        if value == "naive":
            return (1 / 3, 1 / 3, 1 / 3)
        if value == "paper":
            from latlut.search.penalty.weights import PAPER_WEIGHTS

            return PAPER_WEIGHTS
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3:
            self.fail(f"{value!r}: paper, naive, auto, or three numbers w1,w2,w3", param, ctx)
        return numbers


class WidthsType(click.ParamType[tuple[int, ...]]):
    """Widths in twelfths, separated by commas."""

    name = "WIDTHS"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """The widths."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} names no widths: 4,6,8 or a single one", param, ctx)


@click.command()
@click.option("--table", "table_name", required=True, metavar="NAME|FILE", help="Latency table.")
@run_options("runs/search", "search.epochs=5")
@click.option(
    "--input",
    "input_size",
    type=SizeType(),
    help="Image size that latency is of [the table's own]; not what is trained on.",
)
@click.option("--target-ms", type=float, help="Latency of the student, by the table.")
@click.option(
    "--weights", type=WeightsType(), help="w1,w2,w3 of the penalty; or paper, naive, auto."
)
@click.option("--branches", type=click.Choice(["1", "2"]), help="Branches of a network.")
@click.option("--widths", type=WidthsType(), help="Widths of the student; one fixes it.")
@quiet_option
@json_option
def search(
    table_name: str, data: str | None, preset: str, folder: Path,
    input_size: tuple[int, int] | None, target_ms: float | None,
    weights: Any, branches: str | None, widths: tuple[int, ...] | None, seed: int | None,
    precision: str | None, accelerator: str, devices: int, threads: int | None,
    extra: tuple[tuple[str, Any], ...], quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Search for a teacher and a student network whose latency hits a target.

    Pretrains a supernet, searches teacher and student in it with the table's decoupled latency
    penalty, derives networks each epoch, and keeps the best student within 2% of the target.
    Ctrl-C stops it; the same command goes on from the last epoch.

    \b
    latlut search --table cpu-onnxruntime-fp32                    tiny, on generated scenes
    latlut search --table 1080ti --preset paper --data cityscapes:FOLDER --target-ms 8.3
    torchrun --nproc_per_node 4 -m latlut search --table h200 --preset paper --data FOLDER
    """
    chosen: dict[str, Any] = {
        "data.name": data,
        "latency.target_ms": target_ms,
        "latency.input_size": input_size,
        "latency.weights": weights,
        "space.branches": None if branches is None else int(branches),
        "space.widths": widths,
        "seed": seed,
        "precision": precision,
    }
    from latlut.search.cosearch.settings import load_settings
    from latlut.table.table import LatencyTable

    settings = load_settings(preset, overrides_of(chosen, extra))
    set_threads(threads)
    with LatencyTable.open(table_name) as table:
        found = run_search(table, settings, folder, quiet, accelerator, devices)
        if found is None:  # another process tells
            return
        if as_json:
            import json

            print_json(json.loads((folder / "result.json").read_text(encoding="utf-8")))
        else:
            report(found, folder, table_name)


def run_search(
    table: LatencyTable,
    settings: SearchSettings,
    folder: Path,
    quiet: bool,
    accelerator: str = "cpu",
    devices: int = 1,
) -> Found | None:
    """Search into ``folder`` and write all that was found there; None on all processes but one."""
    from latlut.machine.provenance import collect_environment
    from latlut.search.cosearch.folder import Found, RunFolder
    from latlut.search.cosearch.problem import SearchProblem
    from latlut.search.cosearch.search import Search
    from latlut.search.cosearch.state import PHASES
    from latlut.search.cosearch.tensorboard import TensorboardLog
    from latlut.search.runs.processes import launched

    problem = SearchProblem(table, settings.space, settings.latency)
    data = _data(settings.data)
    fabric = launched(accelerator, devices, settings.precision)
    search = Search(problem, data, settings, folder, fabric)
    for phase in PHASES:
        search.halves(phase)  # refused before the folder is this run's
    is_first = fabric.is_global_zero
    quiet = quiet or not is_first
    run, goes_on = RunFolder(folder), False
    if is_first:
        goes_on = run.begin(settings, problem, data.name, collect_environment())
    fabric.barrier()
    remark(_headline(problem, goes_on, folder), quiet)
    log = TensorboardLog(run.tensorboard) if is_first else None
    with _Watcher(run, log, quiet) as watcher:
        search.on_step, search.on_epoch = watcher.on_step, watcher.on_epoch
        try:
            archive = search.run()
        except KeyboardInterrupt:
            remark(f"stopped; the same command goes on from the last epoch in {folder}", quiet)
            raise
    if not is_first:
        return None
    found = Found(
        problem.target_ms,
        archive.student(problem.target_ms, problem.tolerance),
        archive.teacher(),
    )
    archive.write()
    run.finish(found, problem, search.records)
    draw(run, found, problem, search.records)
    return found


def _data(settings: DataSettings) -> SegmentationData:
    """The data set, its labels checked where they come from files."""
    from latlut.search.data.checking import check_labels
    from latlut.search.data.opening import STREET_SCENES, open_data

    if settings.name == STREET_SCENES:
        counts = (settings.train_images, settings.validation_images, 0)
        return open_data(settings.name, size=settings.image_size, counts=counts)
    data = open_data(settings.name)
    check_labels(data)
    return data


class _Watcher:
    """Tells a run's folder, TensorBoard and the terminal how the search goes."""

    def __init__(self, run: RunFolder, log: TensorboardLog | None, is_quiet: bool) -> None:
        self.run, self.is_quiet = run, is_quiet
        self._log = log
        self._bar = StepBar(is_quiet)

    def __enter__(self) -> _Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._log is not None:
            self._log.close()

    def on_step(self, phase: str, epoch: int, step: int, steps: int, loss: float) -> None:
        """Move the bar, and log the loss."""
        if self._log is not None:
            self._log.on_step(phase, epoch, step, steps, loss)
        self._bar.move(f"{phase} {epoch + 1}", step, steps, loss)

    def on_epoch(self, record: EpochRecord, search: Search) -> None:
        """Write the trajectory, and a line."""
        if self._log is None:  # another process tells
            return
        self._log.on_epoch(record, search)
        self.run.write_epoch(search.records)
        search.archive.write()
        total = (
            search.settings.pretrain if record.phase == "pretrain" else search.settings.search
        ).epochs
        line = f"{record.phase} {record.epoch + 1}/{total}  loss {record.weight_loss:.3g}"
        if record.phase == "search":
            best = max(record.scores, key=lambda name: record.scores[name])
            line += (
                f"  {best}: derived {record.derived_ms[best]:.4g} ms, fitted "
                f"{record.fitted_ms[best]:.4g} ms, mIoU {100 * record.miou[best]:.3g}%"
                f"  lambda {record.lambda_per_ms:.3g}"
            )
        remark(f"{line}  ({record.seconds:.0f} s)", self.is_quiet)


def _headline(problem: SearchProblem, goes_on: bool, folder: Path) -> str:
    from latlut.pricing.calibration import stored as stored_calibration

    reach, weights = problem.reach, problem.latency.weights
    asked = "" if problem.settings.target_ms else " (none was asked for: that of random networks)"
    lacks = ", ".join(spec.key for spec in problem.unpriced)
    without = f"\nthe table cannot price, and no latency here has: {lacks}" if lacks else ""
    calibration = stored_calibration(problem.table)
    if calibration is not None:
        without += f"\nlatencies are calibrated on {calibration.networks} measured networks"
    return (
        f"{'going on with' if goes_on else 'searching into'} {folder}: {problem.space.layers} "
        f"layers, {problem.space.branches} branch(es), widths "
        f"{', '.join(map(str, problem.student_widths))} of 12\n"
        f"target {problem.target_ms:.4g} ms{asked} of {reach.fastest_ms:.4g} to "
        f"{reach.slowest_ms:.4g} ms that can be reached, by {problem.table.path} at "
        f"{problem.input_size[0]}x{problem.input_size[1]}; penalty weights "
        f"{', '.join(f'{weight:.3g}' for weight in weights)}{without}"
    )


def draw(run: RunFolder, found: Found, problem: SearchProblem, records: list[EpochRecord]) -> None:
    """Draw both networks and the trajectory into the run's folder."""
    from latlut.reports.architecture import plot_architecture
    from latlut.reports.trajectory import plot_trajectory

    for role in ("student", "teacher"):
        item = getattr(found, role)
        subtitle = f"{item.latency_ms:.4g} ms by {problem.table.path.name}"
        plot_architecture(item.architecture, f"Searched {role}", run.path / f"{role}.png", subtitle)
    plot_trajectory(
        records, problem.target_ms, "Search, epoch by epoch", run.path / "trajectory.png"
    )


def report(found: Found, folder: Path, table_name: str) -> None:
    """Say what was found, and what to do with it."""
    student, teacher = found.student, found.teacher
    off = 100 * (student.latency_ms / found.target_ms - 1)
    click.echo(
        f"student: {student.latency_ms:.4g} ms by the table, {off:+.2g}% from the target "
        f"{found.target_ms:.4g} ms; branches "
        f"{' and '.join(f'1/{scale}' for scale in student.scales)}, {student.kind} in epoch "
        f"{student.epoch + 1}, supernet mIoU {100 * student.accuracy:.3g}%"
    )
    click.echo(
        f"teacher: {teacher.latency_ms:.4g} ms by the table, supernet mIoU "
        f"{100 * teacher.accuracy:.3g}%"
    )
    click.echo(
        f"\nin {folder}: student.json, teacher.json, their pictures, trajectory.csv and .png\n"
        f"  cell by cell:            latlut arch show {folder / 'student.json'}\n"
        f"  term by term:            latlut estimate --table {table_name} --arch "
        f"{folder / 'student.json'}\n"
        f"  measured on this machine: the same with --layers\n"
        f"  how the search went:     tensorboard --logdir {folder / 'tensorboard'}"
    )
