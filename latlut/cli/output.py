"""How commands talk: results to stdout, progress and remarks to stderr, --json for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import indent
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from latlut.progress import Progress
    from latlut.table.table import LatencyTable

Command = TypeVar("Command", bound=Callable[..., Any])


def json_option(command: Command) -> Command:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        command
    )


def quiet_option(command: Command) -> Command:
    """--quiet."""
    return click.option("--quiet", "-q", is_flag=True, help="No progress and no remarks.")(command)


def print_json(value: object) -> None:
    """One JSON document on stdout; NaN becomes null."""
    click.echo(json.dumps(_plain(value), indent=2))


def print_json_rows(rows: Iterable[Mapping[str, object]]) -> int:
    """The same of a list that need not fit into memory; how many rows it has."""
    count = 0
    for row in rows:
        click.echo(",\n" if count else "[\n", nl=False)
        click.echo(indent(json.dumps(_plain(row), indent=2), "  "), nl=False)
        count += 1
    click.echo("\n]" if count else "[]")
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def remark(text: str, is_quiet: bool = False) -> None:
    """A remark on stderr."""
    if not is_quiet:
        click.echo(text, err=True)


def remark_predictions(table: LatencyTable, is_quiet: bool = False) -> None:
    """Say how many of a table's entries nobody has measured, where there are such."""
    if count := table.predicted_count:
        remark(
            f"{count} of {len(table)} entries of {table.path} are predicted, not measured", is_quiet
        )


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None
) -> None:
    """A table on stdout; numbers to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        is_number = all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        table.add_column(
            name, justify="right" if rows and is_number else "left", no_wrap=index == 0
        )
    for row in rows:
        table.add_row(*(_shown(item) for item in row))
    import sys

    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False, markup=False).print(table)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "-"
    return str(value)


def waiting(is_wanted: bool, is_quiet: bool) -> Callable[[str], None] | None:
    """What --wait tells; None where it was not asked for."""
    return (lambda text: remark(text, is_quiet)) if is_wanted else None


def duration_text(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def interval_text(value: float, low: float | None, high: float | None, unit: str = "ms") -> str:
    """``12.3 ms (12.1 to 12.5)``; see ``range_text``."""
    return f"{value:.4g} {unit} ({range_text(low, high)})"


def range_text(low: float | None, high: float | None) -> str:
    """``12.1 to 12.5``; where an end is None or not finite, what is known."""
    ends = [end if end is not None and math.isfinite(end) else None for end in (low, high)]
    if ends[0] is not None and ends[1] is not None:
        return f"{ends[0]:.4g} to {ends[1]:.4g}"
    if ends[1] is not None:
        return f"at most {ends[1]:.4g}, no lower end is known"
    if ends[0] is not None:
        return f"at least {ends[0]:.4g}, no upper end is known"
    return "interval unknown"


@contextmanager
def progress_bar(title: str, is_quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr with what is left; gives the listener that moves it.

    The first time that other processes had a part of the CPU a remark says so.
    """
    with _bar(title, is_quiet) as moved:
        yield moved if is_quiet else _RemarkOnDisturbance(moved)


class _RemarkOnDisturbance:
    """Listener that says once that the machine is busy, and passes everything on."""

    def __init__(self, listener: Callable[[Progress], None]) -> None:
        self._listener, self._has_said = listener, False

    def __call__(self, progress: Progress) -> None:
        from latlut.measure.cpu_share import disturbed_text
        from latlut.stats.machine_speed import is_disturbed

        share = progress.cpu_share
        if share is not None and is_disturbed(share) and not self._has_said:
            self._has_said = True
            remark(disturbed_text(share))
        self._listener(progress)


@contextmanager
def _bar(title: str, is_quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """The bar itself.

    Where stderr is no terminal it prints a line at every tenth instead.
    """
    import sys

    if is_quiet:
        yield lambda progress: None
        return
    if not sys.stderr.isatty():
        yield _LinePerTenth(title)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    with Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[label]}", style="dim"),
        console=Console(stderr=True),
        refresh_per_second=1,  # redrawing more often would disturb what is measured
    ) as bar:
        task = bar.add_task(title, total=None, label="")

        def listener(progress: Progress) -> None:
            reading = progress.reading_ms
            shown = progress.label if reading is None else f"{progress.label}  {reading:.3g} ms"
            bar.update(task, completed=progress.done, total=progress.total, label=shown)

        yield listener


class _LinePerTenth:
    """Listener that prints a line each time another tenth is done."""

    def __init__(self, title: str) -> None:
        import time

        self.title, self.tenth = title, 0
        self.clock = time.monotonic
        self.started = self.clock()

    def __call__(self, progress: Progress) -> None:
        tenth = 10 * progress.done // max(1, progress.total)
        if tenth > self.tenth:
            self.tenth = tenth
            elapsed_s = self.clock() - self.started
            left_s = elapsed_s * (progress.total - progress.done) / max(1, progress.done)
            click.echo(
                f"{self.title}: {10 * tenth}% ({progress.done} of {progress.total}), "
                f"{elapsed_s:.0f} s so far, about {left_s:.0f} s left",
                err=True,
            )
