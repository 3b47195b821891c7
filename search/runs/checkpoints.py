"""Checkpoints: the state of a run in one file, written so that a crash cannot destroy it.

A file is written whole under another name and moved into place; the one before stays beside it.
Files hold tensors and plain values only and are read with ``weights_only``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from latlut.errors import LatlutError
from latlut.files import written_whole
from latlut.reading import check_archive

FORMAT = "latlut checkpoint"
VERSION = 1
#: Weights, their average and two moments of each, of a network of a billion parameters.
MAX_FILE_BYTES = 16 << 30
#: Names and sizes of the tensors, 0.1 kB each, and the epochs' records.
MAX_PICKLE_BYTES = 4 << 20
#: Of epochs, steps and classes.
_MOST = 10**9
LAST, PREVIOUS = "last.pt", "previous.pt"


class CheckpointError(LatlutError):
    """A checkpoint that cannot be written, read, or is of something else."""


def save_checkpoint(folder: Path, kind: str, state: Mapping[str, Any]) -> Path:
    """Write ``state`` as the folder's last checkpoint; the last one becomes the previous one.

    Args:
        folder: made where it is missing.
        kind: what the state is of, ``"search"`` for instance; checked when it is loaded.
        state: tensors, numbers, texts, and dictionaries and lists of these.

    Raises:
        CheckpointError: it cannot be written (disk full, read-only); what was there before stays.
    """
    last, new = folder / LAST, folder / f"new-{LAST}"

    def refused(error: Exception) -> CheckpointError:
        return CheckpointError(
            f"cannot write the checkpoint {last}: {error}; the one before it is unharmed"
        )

    try:
        with written_whole(new, refusal=refused) as part, part.open("wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, "kind": kind, **state}, file)
        if last.exists():
            os.replace(last, folder / PREVIOUS)
        os.replace(new, last)
    except (OSError, RuntimeError) as error:
        new.unlink(missing_ok=True)
        raise refused(error) from error
    return last


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
            f"{PREVIOUS} beside it is the one before"
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
