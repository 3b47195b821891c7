"""Inputs of a network from files: NumPy's .npy, one array, and .npz, several by name."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

from latlut.errors import ImportFileError
from latlut.files.reading import check_file

#: The largest input that is run, 8 GB, and its header.
MAX_FILE_BYTES = (8 << 30) + (1 << 20)
#: Of an .npz, whose parts may be compressed a thousand times.
MAX_UNPACKED_BYTES = 512 << 20


def read_inputs(path: Path) -> dict[str, np.ndarray]:
    """Name of the input -> its values; ``""`` for the array of a .npy file.

    Raises:
        ImportFileError: no such file, another kind of file, or arrays of Python objects.
    """
    check_file(path, MAX_FILE_BYTES)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(part.file_size for part in archive.infolist())
            if size > MAX_UNPACKED_BYTES:
                raise ImportFileError(
                    f"{path}: unpacks to {size} bytes, expected {MAX_UNPACKED_BYTES} at most: give "
                    "each array as a .npy file"
                )
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        with found:
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise ImportFileError(f"cannot read {path}: {error.strerror or error}") from error
    except (
        ValueError, TypeError, LookupError, EOFError, MemoryError, RuntimeError, SyntaxError,
        NotImplementedError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
    ) as error:  # fmt: skip
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ImportFileError(f"{path} is no .npy or .npz file of numbers: {reason}") from error
