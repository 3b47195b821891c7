"""What is told of a run while it goes: to a listener, and to TensorBoard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latlut.files.writing import WriteError, why_not_written

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def _ignored(*_: object) -> None:
    """Hear of something, and do nothing."""


@dataclass(frozen=True)
class RunListener:
    """Functions that are called while a run goes, on its first process; any may be left out.

    Of several runs one after the other, a teacher's and its student's or an ablation's, the same
    listener is told.
    """

    remark: Callable[[str], None] = _ignored
    """Told in sentences what there is to know."""
    step: Callable[[str, int, int, float], None] = _ignored
    """Told after each step: name of the epoch, step from 1, steps in the epoch, loss."""
    epoch: Callable[[Any], None] = _ignored
    """Told after each epoch its record, ``EpochRecord`` of a search, ``TrainEpoch`` of a training.
    """
    ended: Callable[[], None] = _ignored
    """Called when no step follows: the run is done, was stopped, or failed."""
    searched: Callable[[Any], None] = _ignored
    """Told what a search found, ``cosearch.folder.Found``, once it is written."""


@cache
def _leave_failed_writes_to_the_log() -> None:
    """TensorBoard's thread keeps what it raised for the next call; Python would print it too."""
    shown = threading.excepthook

    def hook(raised: threading.ExceptHookArgs) -> None:
        is_writer = type(raised.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(raised.exc_value, OSError)):
            shown(raised)

    threading.excepthook = hook


class RunLog:
    """Writes event files into a folder.

    Raises:
        WriteError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        _leave_failed_writes_to_the_log()
        with self._refusing():
            self._writer = SummaryWriter(str(folder))

    def close(self) -> None:
        """Write what is buffered; what cannot be written any more is lost."""
        with suppress(OSError):
            self._writer.close()

    def add(self, group: str, values: Mapping[str, object], number: int) -> None:
        """Those of the values that are floats, as ``group/name``, of a step or an epoch."""
        with self.writing() as writer:
            for name, value in values.items():
                if isinstance(value, float):
                    writer.add_scalar(f"{group}/{name}", value, number)

    @contextmanager
    def writing(self) -> Iterator[SummaryWriter]:
        """The writer of the event file.

        Raises:
            WriteError: the file cannot be written.
        """
        with self._refusing():
            yield self._writer

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WriteError(f"cannot write {self._folder}: {why_not_written(error)}") from error


@contextmanager
def watched(listener: RunListener, folder: Path, log: RunLog | None) -> Iterator[None]:
    """While the steps of a run in ``folder`` are made: says what Ctrl-C means, closes the log."""
    try:
        yield
    except KeyboardInterrupt:
        listener.remark(f"stopped; the same command continues from the last epoch in {folder}")
        raise
    finally:
        listener.ended()
        if log is not None:
            log.close()
