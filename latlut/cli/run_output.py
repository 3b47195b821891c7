"""A bar on stderr for the steps of an epoch, where stderr is a terminal."""

from __future__ import annotations

import sys
from typing import Any


class StepBar:
    """Shows how far an epoch is, what is left of it, and the loss; nothing where it is quiet."""

    def __init__(self, is_quiet: bool) -> None:
        self._is_off = is_quiet or not sys.stderr.isatty()
        self._bar: Any = None

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def move(self, title: str, step: int, steps: int, loss: float) -> None:
        """Show step ``step`` (from 1) of ``steps``."""
        if self._is_off:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("left in this epoch"), TimeRemainingColumn(),
                TextColumn("loss {task.fields[loss]:.3g}", style="dim"),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("", total=steps, loss=loss)
        if step == 1:
            self._bar.reset(self._task)
        self._bar.update(self._task, description=title, completed=step, total=steps, loss=loss)
