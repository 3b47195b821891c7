"""Files from outside, opened in one way: regular files of bounded size, anything else refused.

A path that somebody names may be a pipe that never ends, a device, or a file that takes all
memory when it is decoded. Each reader says how many bytes a file of its kind may have. Together
with what it allows inside of one (rows, pixels, nodes) that keeps any file of up to 10 MB within
1 GB of memory and 10 s of one CPU.
"""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

from latlut.errors import ImportFileError, LatlutError
from latlut.files.kinds import but_it_is

#: Settings, plans, architectures, descriptions: 100,000 op specs as text, the longest plan, have 6
#: MB; tomllib takes a second for each.
TEXT_BYTES = 8 << 20

#: Of PyTorch's format before its archives; its reader takes 5 us for a byte of that.
BARE_PICKLE_BYTES = 1 << 20


def check_file(
    path: Path, limit_bytes: int, error: type[LatlutError] = ImportFileError
) -> os.stat_result:
    """Check that a path names a regular file of at most so many bytes; what is known of it.

    Nothing is opened, so a pipe is not waited for.

    Args:
        path: links are followed.
        limit_bytes: the size of the largest file of that kind that makes sense.
        error: class of what is raised.

    Raises:
        LatlutError: of the class ``error``: no such file, a folder, a pipe, a device, a file that
            is larger, or one that may not be read.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, ValueError) as failure:  # a name with a zero byte
        raise error(f"cannot read {path}: {_reason(failure)}") from failure
    _check_status(path, found, limit_bytes, error)
    return found


def read_file(path: Path, limit_bytes: int, error: type[LatlutError] = ImportFileError) -> bytes:
    """The content of a regular file of at most so many bytes; arguments as in ``check_file``.

    Raises:
        LatlutError: of the class ``error``, as ``check_file``.
    """
    check_file(path, limit_bytes, error)
    try:
        # What was checked may have changed: a pipe opened so does not wait, and is refused.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            _check_status(path, os.fstat(descriptor), limit_bytes, error)
            data = file.read(limit_bytes + 1)
    except OSError as failure:
        raise error(f"cannot read {path}: {_reason(failure)}") from failure
    if len(data) > limit_bytes:
        raise error(_too_large(path, limit_bytes))
    return data


def read_text(
    path: Path, error: type[LatlutError] = ImportFileError, limit_bytes: int = TEXT_BYTES
) -> str:
    """The text of a UTF-8 file, without a byte order mark; arguments as in ``check_file``.

    Raises:
        LatlutError: of the class ``error``: as ``check_file``, or a file that is not UTF-8.
    """
    try:
        return read_file(path, limit_bytes, error).decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        found = but_it_is(path) or f" (byte {failure.start} is not UTF-8)"
        raise error(f"{path}: not a text file{found}") from failure


def check_archive(
    path: Path,
    limit_bytes: int,
    pickle_bytes: int,
    error: type[LatlutError] = ImportFileError,
    *,
    code_bytes: int = 0,
) -> None:
    """Check what a file in PyTorch's zip format holds before PyTorch reads it.

    PyTorch writes tensors uncompressed, so the parts of a true archive are no larger together than
    the file, but for the code of TorchScript. A pickle takes up to 100 times its size as Python
    objects.

    Args:
        path: as in ``check_file``, as are ``limit_bytes`` and ``error``.
        pickle_bytes: most bytes of the parts that describe the tensors.
        code_bytes: how much larger than the file its parts may be together.

    Raises:
        LatlutError: of the class ``error``: as ``check_file``, parts that are larger than the file
            when they are unpacked, or a pickle that is too large.
    """
    size = check_file(path, limit_bytes, error).st_size
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as failure:
        if _begins_as_zip(path, error):  # PyTorch's own reader could find parts in it
            raise error(f"{path}: a damaged archive: {str(failure)[:100]}") from failure
        parts = []
    if not parts:  # the format before zip: a pickle as a whole, with the tensors behind it
        limit = min(pickle_bytes, BARE_PICKLE_BYTES)
        if size > limit:
            raise error(f"{path}: no archive of PyTorch's, and {_too_large(path, limit)}")
        return
    unpacked = sum(part.file_size for part in parts)
    if unpacked > size + code_bytes:
        raise error(
            f"{path}: {size} bytes that unpack to {unpacked}; PyTorch does not compress its files, "
            "so this one was not written by it"
        )
    described = sum(p.file_size for p in parts if p.filename.endswith((".pkl", ".json")))
    if described > pickle_bytes:
        raise error(f"{path}: its description of the tensors has {described} bytes, expected at "
                    f"most {pickle_bytes}")  # fmt: skip


def _begins_as_zip(path: Path, error: type[LatlutError]) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError as failure:
        raise error(f"cannot read {path}: {_reason(failure)}") from failure


def _check_status(
    path: Path, found: os.stat_result, limit_bytes: int, error: type[LatlutError]
) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, device or socket"
        raise error(f"{path}: is {kind}, expected a file")
    if found.st_size > limit_bytes:
        raise error(_too_large(path, limit_bytes))


def _too_large(path: Path, limit_bytes: int) -> str:
    limit = f"{limit_bytes >> 20} MiB" if limit_bytes >= 1 << 20 else f"{limit_bytes} bytes"
    return f"{path}: larger than {limit}, which no file of this kind is"


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)
