"""What the terminal shows of long work: a bar, or lines where stderr is no terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from latlut.cli.output import duration_text, remark

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from latlut.progress import Progress

#: Seconds after which a step that goes on is mentioned again, where there is no bar.
EVERY_S = 30.0


@contextmanager
def progress_bar(title: str, is_quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Shows how far work is, the time so far and the time left; gives the listener that is told.

    A bar on stderr. Where that is no terminal: a line at every tenth, and at least every 30 s. The
    first time that other processes had a part of the CPU a remark says so.
    """
    if is_quiet:
        yield lambda progress: None
        return
    with _shown(title) as moved:
        yield _RemarkOnDisturbance(moved)


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
def _shown(title: str) -> Iterator[Callable[[Progress], None]]:
    if not sys.stderr.isatty():
        with ProgressLines(title) as lines:
            yield lambda progress: lines.move(progress.done, progress.total)
        return
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TextColumn

    with Bar(
        TextColumn("{task.description}"),
        *bar_columns(),
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


def bar_columns() -> tuple[ProgressColumn, ...]:
    """A bar with how much is done, the time elapsed and the time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return (
        BarColumn(), MofNCompleteColumn(), TextColumn("elapsed"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip


class ProgressLines:
    """Lines on stderr about one piece of work: at every tenth, and at least every so often.

    A context manager; a thread of its own writes what is due while the work says nothing.

    Args:
        title: of the work.
        first: steps that were done when the lines began.
        every_s: seconds without a line after which there is one.
        has_tenths: whether there is a line at every tenth; not of work that is one of many.
    """

    def __init__(
        self, title: str, first: int = 0, every_s: float = EVERY_S, *, has_tenths: bool = True
    ) -> None:
        self._title, self._every_s, self._has_tenths = title, every_s, has_tenths
        self._first = self._done = first
        self._total = self._tenth = 0
        self._started = self._said = time.monotonic()
        self._is_over = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._remind, daemon=True)

    def __enter__(self) -> ProgressLines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def move(self, done: int, total: int, title: str | None = None) -> None:
        """Say that so many steps of all are done; another title begins another piece of work."""
        with self._writing:
            if title not in (None, self._title):
                self._title, self._tenth, self._started = str(title), 0, time.monotonic()
                self._first = done
            self._done, self._total = done, total
            tenth = 10 * done // max(1, total)
            if tenth > self._tenth and self._has_tenths:
                self._tenth = tenth
                self._say(is_new=True)

    def _remind(self) -> None:
        while not self._is_over.wait(max(0.01, self._said + self._every_s - time.monotonic())):
            with self._writing:
                if time.monotonic() - self._said >= self._every_s:
                    self._say(is_new=False)

    def _say(self, *, is_new: bool) -> None:
        """A line; what was done long ago is not said again when all of it is."""
        self._said = time.monotonic()
        elapsed_s = self._said - self._started
        text = f"{duration_text(elapsed_s)} elapsed"
        new = self._done - self._first
        if is_new or self._done < self._total:
            share = 100 * self._done // max(1, self._total)
            text = f"{share}% ({self._done} of {self._total}), {text}"
            if new and self._done < self._total:
                left_s = elapsed_s * (self._total - self._done) / new
                text += f", about {duration_text(left_s)} left"
        click.echo(f"{self._title}: {text}", err=True)
