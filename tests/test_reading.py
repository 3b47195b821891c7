"""Opening files from outside: regular ones of bounded size and nothing else."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from latlut.errors import DataError, ImportFileError
from latlut.files.reading import check_archive, check_file, read_file, read_text
from latlut.operators.module_files import read_module


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfna\xc3\xafve")
    assert read_file(path, 9) == path.read_bytes()
    assert read_text(path) == "naïve"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert read_text(link) == "naïve"


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    zeros = Path("/dev/zero")
    for path in (pipe, link, zeros):
        with pytest.raises(ImportFileError, match="is a pipe, device or socket, expected a file"):
            read_file(path, 100)
    with pytest.raises(DataError, match="is a folder, expected a file"):
        check_file(tmp_path, 100, DataError)
    with pytest.raises(ImportFileError, match="none: no such file"):
        read_file(tmp_path / "none", 100)
    with pytest.raises(ImportFileError, match="cannot read"):
        check_file(Path("a\0b"), 100)
    with pytest.raises(ImportFileError, match="cannot read"):
        check_file(tmp_path / ("x" * 300), 100)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate((3 << 20) + 1)
    with pytest.raises(ImportFileError, match="large: larger than 3 MiB"):
        read_file(path, 3 << 20)
    assert len(read_file(path, 4 << 20)) == (3 << 20) + 1
    path.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="not a text file \\(byte 3 is not UTF-8\\)"):
        read_text(path, DataError)


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(5)}, path)
    check_archive(path, 1 << 20, 1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
    with pytest.raises(ImportFileError, match="bytes that unpack to 1048576"):
        check_archive(path, 2 << 20, 2 << 20)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
    with pytest.raises(ImportFileError, match="description of the tensors has 1048576 bytes"):
        check_archive(path, 2 << 20, 1 << 19)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "models/m.json"):
            archive.writestr(f"a/{name}", bytes(1 << 18))
    with pytest.raises(ImportFileError, match="description of the tensors has 786432 bytes"):
        check_archive(path, 1 << 20, 1 << 19)
    path.write_bytes(pickle.dumps([0] * 10_000))
    with pytest.raises(ImportFileError, match="no archive of PyTorch's"):
        check_archive(path, 1 << 20, 1000)
    path.write_bytes(b"\x80\x02" + b"]" * (3 << 20) + b".")
    with pytest.raises(ImportFileError, match="larger than 1 MiB"):
        check_archive(path, 4 << 20, 4 << 20)


def test_an_archive_that_only_pytorch_could_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.zeros(5)}, path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ImportFileError, match="a damaged archive"):
        check_archive(path, 1 << 20, 1 << 20)


@pytest.mark.parametrize(
    ("part", "content"),
    [("data/0", bytes(64 << 20)), ("code/m.py", b"#" * (64 << 20)), ("data.pkl", b"]" * (5 << 20))],
    ids=["weights", "code", "pickle"],
)
@pytest.mark.parametrize("suffix", [".pt", ".pt2"])
def test_modules_that_swell_are_refused_unread(
    tmp_path: Path, suffix: str, part: str, content: bytes
) -> None:
    path = tmp_path / f"a{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"a/{part}", content)
    with pytest.raises(ImportFileError, match="unpack to|description of the tensors"):
        read_module(path, (8, 8))
