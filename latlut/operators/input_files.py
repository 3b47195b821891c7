"""Inputs of a network from files: NumPy's .npy, one array, and .npz, several by name."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from latlut.errors import ImportFileError


def read_inputs(path: Path) -> dict[str, np.ndarray]:
    """Name of the input -> its values; ``""`` for the array of a .npy file.

    Raises:
        ImportFileError: no such file, another kind of file, or arrays of Python objects.
    """
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        with found:
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise ImportFileError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ImportFileError(
            f"{path} is no .npy or .npz file of numbers: {str(error).splitlines()[0]}"
        ) from error
