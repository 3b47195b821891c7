"""What the terminal shows of searches and trainings: while they go, and what was found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from latlut.cli.output import note, print_json, print_table, remark
from latlut.cli.progress import ProgressLines, bar_columns
from latlut.shell import command

if TYPE_CHECKING:
    from latlut.search.cosearch.folder import Found, Member
    from latlut.search.runs.listening import RunListener


def run_listener(is_quiet: bool) -> RunListener:
    """Remarks and a bar on stderr, and the pictures of what is searched."""
    from latlut.search.runs.listening import RunListener

    bar = StepBar(is_quiet)
    return RunListener(
        remark=lambda text: remark(text, is_quiet),
        step=bar.move,
        ended=bar.close,
        searched=draw_search,
    )


class StepBar:
    """Shows how far an epoch is, the time so far, the time left, and the loss."""

    def __init__(self, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._bar: Any = None
        self._lines: ProgressLines | None = None

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._lines is not None:
            self._lines.__exit__()
            self._lines = None

    def move(self, title: str, step: int, steps: int, loss: float) -> None:
        """Show step ``step`` (from 1) of ``steps``."""
        if self._is_quiet:
            return
        if not sys.stderr.isatty():
            if self._lines is None:
                self._lines = ProgressLines(title, step, has_tenths=False).__enter__()
            self._lines.move(step, steps, title)
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress, TextColumn

            self._bar = Progress(
                TextColumn("{task.description}"), *bar_columns(), TextColumn("of this epoch"),
                TextColumn("loss {task.fields[loss]:.3g}", style="dim"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("", total=steps, loss=loss)
        if step == 1:
            self._bar.reset(self._task)
        self._bar.update(self._task, description=title, completed=step, total=steps, loss=loss)


def draw_search(found: Found) -> None:
    """Draw both networks, the trajectory and the front into the run's folder."""
    from latlut.cli.front import draw_front
    from latlut.reports.architecture import plot_architecture
    from latlut.reports.trajectory import plot_trajectory

    for role, item in (("student", found.student), ("teacher", found.teacher)):
        ms = item.latency_ms
        subtitle = "" if ms is None else f"{ms:.4g} ms by {found.table.name}"
        path = found.folder / f"{role}.png"
        plot_architecture(item.architecture, f"Searched {role}", path, subtitle)
    path = found.folder / "trajectory.png"
    plot_trajectory(found.records, found.target_ms, "Search, epoch by epoch", path)
    draw_front(found)


def print_search(found: Found, table_name: str) -> None:
    """Say what was found, and what to do with it."""
    student, teacher, folder = found.student, found.teacher, found.folder
    off = 100 * (student.ms / found.target_ms - 1)
    score = "inherited mIoU"
    click.echo(
        f"student: {student.ms:.4g} ms by the table, {off:+.2g}% from the target "
        f"{found.target_ms:.4g} ms; branches "
        f"{' and '.join(f'1/{scale}' for scale in student.scales)}, {student.kind}, {score} "
        f"{100 * student.inherited:.3g}%"
    )
    if found.last_derived is not None:
        derived_ms, fitted_ms = found.last_derived
        note(
            f"the search's own logits derived a network of {derived_ms:.4g} ms, which was then "
            f"fitted to {fitted_ms:.4g} ms"
        )
    priced = (
        "not priced by this table"
        if teacher.latency_ms is None
        else f"{teacher.latency_ms:.4g} ms by the table"
    )
    note(f"teacher: {priced}, {score} {100 * teacher.inherited:.3g}%")
    if len(found.members) > 1:
        _print_front(found)
    if found.unreachable_ms:
        left_out = ", ".join(f"{ms:.4g}" for ms in found.unreachable_ms)
        note(f"no network was found near: {left_out} ms")
    if found.finalists is not None:
        note(found.finalists.describe())
    if found.worth is not None:
        note(found.worth.describe(found.target_ms))
    student_file = folder / "student.json"
    front = ", front.png" if len(found.members) > 1 else ""
    note(
        f"\nin {folder}: student.json, teacher.json, their pictures, trajectory.csv and .png"
        f"{front}\n"
        f"  cell by cell:            {command('arch', 'show', student_file)}\n"
        f"  term by term:            "
        f"{command('estimate', '--table', table_name, '--arch', student_file)}\n"
        f"  measured on this machine: the same with --layers\n"
        f"  how the search went:     tensorboard --logdir {folder / 'tensorboard'}"
    )


def _print_front(found: Found) -> None:
    rows = []
    has_finalists = any(member.finalists is not None for member in found.members)
    for member in found.members:
        worth = member.worth
        rows.append(
            [
                member.target_ms,
                member.student.ms,
                "+".join(map(str, member.student.scales)),
                100 * member.student.inherited,
                *([_trained_percent(member)] if has_finalists else []),
                None if worth is None else worth.difference_points,
                None if worth is None or worth.ci_low_points is None
                else f"{worth.ci_low_points:+.2f} to {worth.ci_high_points:+.2f}",
            ]
        )  # fmt: skip
    trained = ["trained mIoU, %"] if has_finalists else []
    columns = ["target, ms", "table, ms", "branches", "inherited mIoU, %", *trained,
               "over random, points", "95%"]  # fmt: skip
    print_table(columns, rows)


def _trained_percent(member: Member) -> float | None:
    return None if member.student.trained is None else 100 * member.student.trained


def print_result_file(folder: Path) -> None:
    """The run's figures as JSON."""
    from latlut.search.runs.folder import RESULT, read_json

    print_json(read_json(folder / RESULT))
