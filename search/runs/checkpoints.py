"""Checkpoints: the state of a run in one file, written so that a crash cannot destroy it.

A file is written whole under another name and moved into place; the one before stays beside it.
Files hold tensors and plain values only and are read with ``weights_only``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from latlut.errors import LatlutError
from latlut.files import written_whole

FORMAT = "latlut checkpoint"
VERSION = 1
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


def load_checkpoint(path: Path, kind: str) -> dict[str, Any]:
    """The state that ``save_checkpoint`` wrote, on the CPU.

    Raises:
        CheckpointError: no such file, damaged, of another kind, or of a newer version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint {path}") from error
    except Exception as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or a damaged one: {str(error).splitlines()[0]}; "
            f"{PREVIOUS} beside it is the one before"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} holds something else than a checkpoint of latlut")
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has version {state.get('version')}, this latlut reads {VERSION}"
        )
    if state.get("kind") != kind:
        raise CheckpointError(f"{path} is of a {state.get('kind')}, not of a {kind}")
    return state
