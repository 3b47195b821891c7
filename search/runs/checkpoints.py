"""Checkpoints: the state of a run in one file, written so that a crash cannot destroy it.

A file is written whole under another name and moved into place; the one before stays beside it.
Files hold tensors and plain values only and are read with ``weights_only``.
"""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

import torch

from latlut.errors import LatlutError
from latlut.files.reading import check_archive
from latlut.files.writing import why_not_written, written_whole
from latlut.heap import return_freed_memory

FORMAT = "latlut checkpoint"
VERSION = 1
#: Weights, their average and two moments of each, of a network of a billion parameters.
MAX_FILE_BYTES = 16 << 30
#: Names and sizes of the tensors, 0.1 kB each, and the epochs' records.
MAX_PICKLE_BYTES = 4 << 20
#: Of epochs, steps and classes.
_MOST = 10**9
LAST, PREVIOUS = "last.pt", "previous.pt"
#: Their folder in that of a run.
CHECKPOINTS = "checkpoints"


class CheckpointError(LatlutError):
    """A checkpoint that cannot be written, read, or is of something else."""


def save_checkpoint(folder: Path, kind: str, state: Mapping[str, Any]) -> Path:
    """Write ``state`` as the folder's last checkpoint; the last one becomes the previous one.

    Returns freed memory to the system: an epoch has ended, whose maps of many sizes leave holes.

    Args:
        folder: made where it is missing.
        kind: what the state is of, ``"search"`` for instance; checked when it is loaded.
        state: tensors, numbers, texts, and dictionaries and lists of these.

    Raises:
        CheckpointError: it cannot be written (disk full, read-only); what was there before stays.
        KeyboardInterrupt: Ctrl-C meanwhile; it is written all the same.
    """
    last, new = folder / LAST, folder / f"new-{LAST}"

    def refused(error: Exception) -> CheckpointError:
        reason = why_not_written(error) if isinstance(error, OSError) else error
        return CheckpointError(
            f"cannot write the checkpoint {last}: {reason}; the one before it is unharmed"
        )

    with _interrupts_held():
        try:
            with written_whole(new, refusal=refused) as part:
                _write({"format": FORMAT, "version": VERSION, "kind": kind, **state}, part)
            if last.exists():
                os.replace(last, folder / PREVIOUS)
            os.replace(new, last)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise refused(error) from error
    return_freed_memory()
    return last


def _write(state: Mapping[str, Any], path: Path) -> None:
    """Write a state with the system's own error where there is one: torch would hide it."""
    with path.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save(state, cast("IO[bytes]", sink))
        except RuntimeError as error:
            raise sink.error or error from error


class _Sink:
    """A file that remembers the first error of writing it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C inside the block counts when the block ends: inside torch it would be another error.

    Only Python's main thread hears of signals; elsewhere this does nothing.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            before(*heard[0])


def remove_checkpoints(run: Path) -> int:
    """Delete the checkpoints of a run's folder, which it cannot be continued without.

    Args:
        run: folder of a search or a training that has ended.

    Returns:
        Bytes that are free now.
    """
    freed = 0
    for name in (LAST, PREVIOUS):
        path = run / CHECKPOINTS / name
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a folder, None if it has none."""
    for name in (LAST, PREVIOUS):
        if (folder / name).exists():
            return folder / name
    return None


def load_checkpoint(
    path: Path, kind: str, values: Mapping[str, type | tuple[type, ...]] | None = None
) -> dict[str, Any]:
    """The state that ``save_checkpoint`` wrote, on the CPU.

    Args:
        path: the file.
        kind: as it was saved.
        values: what the state must hold, and of which types; an int is counted from 0.

    Raises:
        CheckpointError: no such file, damaged, of another kind, of a newer version, or without a
            value that it must hold.
    """
    check_archive(path, MAX_FILE_BYTES, MAX_PICKLE_BYTES, CheckpointError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: the file's matter
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or a damaged one: {_first_line(error)}; "
            f"delete it to go on from {PREVIOUS} beside it, the one before"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds something else than a checkpoint of latlut")
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {str(state.get('version'))[:40]}, this latlut reads {VERSION}"
        )
    if state.get("kind") != kind:
        raise CheckpointError(f"{path} is of a {str(state.get('kind'))[:40]}, not of a {kind}")
    for name, types in (values or {}).items():
        value = state.get(name)
        is_right = isinstance(value, types) and not isinstance(value, bool)
        if not is_right or (isinstance(value, int) and not 0 <= value <= _MOST):
            raise CheckpointError(
                f"{path}: its {name} is damaged or missing, found a {type(value).__name__}; "
                f"{PREVIOUS} beside it is the one before"
            )
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """Puts parts of a checkpoint into what they are of; what does not fit is an error of the file.

    Raises:
        CheckpointError: a part has another form, or values of another type or size.
    """
    try:
        yield
    except (
        KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, RecursionError,
        LatlutError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} does not hold what this run needs: {_first_line(error)}; {PREVIOUS} beside "
            "it is the one before"
        ) from error


def _first_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]
