"""PyTorch modules in files: TorchScript (.pt, .ts) and exported programs (.pt2)."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from latlut.errors import ImportFileError, SpecError
from latlut.files.reading import check_archive
from latlut.operators.workloads import ModuleWorkload, Workload

#: Weights of a network of four billion parameters.
MAX_FILE_BYTES = 16 << 30
#: Pickles and JSON that describe a module; a network of 1,000 layers has 1 MB.
MAX_DESCRIPTION_BYTES = 4 << 20
#: Of TorchScript, which PyTorch compresses in its archives.
MAX_CODE_BYTES = 8 << 20
#: Instructions of a pickle that number what is kept.
_KEEPING = ("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET")
#: Endings of files that PyTorch alone runs as they are.
MODULE_FILES = (".pt", ".ts", ".pt2")


def read_module(
    path: Path,
    input_size: tuple[int, int] | None = None,
    batch: int | None = None,
    shapes: Sequence[Sequence[int]] = (),
) -> ModuleWorkload:
    """A module in a file as a workload.

    Args:
        path: of a TorchScript module, or of an exported program, whose example inputs give the
            shapes.
        input_size: (height, width) of the image that the module takes, three channels.
        batch: images per inference; 1 if not given.
        shapes: of all inputs, in place of those two.

    Raises:
        ImportFileError: no such file, or none that PyTorch loads without running code in it.
        SpecError: shapes that are not known, are given in two ways, or contradict an exported
            program's.
    """
    check_archive(path, MAX_FILE_BYTES, MAX_DESCRIPTION_BYTES, code_bytes=MAX_CODE_BYTES)
    _check_pickles(path)
    module, own = _load(path)
    asked = [tuple(shape) for shape in shapes]
    if asked and (input_size is not None or batch is not None):
        raise SpecError(f"{path}: whole shapes settle all, leave --input and --batch out")
    if input_size is not None:
        asked = [(batch or 1, 3, *input_size)]
    elif batch is not None:
        asked = [(batch, *shape[1:]) for shape in own]
    if own and asked and asked != own:
        raise SpecError(f"{path}: was exported for inputs of {own}, {asked} was asked for")
    if not (own or asked):
        raise SpecError(
            f"{path} does not say which inputs it takes: give an image's size, such as --input "
            "512x1024, or whole shapes in order, such as --shape 1x3x640x640"
        )
    return Workload.from_module(module, asked or own, path.name)


def _check_pickles(path: Path) -> None:
    """Refuse pickles whose lengths are not those of their contents.

    PyTorch's reader of TorchScript makes room for as much as a text or the list of what is kept is
    said to have, gigabytes by four damaged bytes.
    """
    try:
        if not zipfile.is_zipfile(path):
            return  # for PyTorch to refuse
        with zipfile.ZipFile(path) as archive:
            parts = [p for p in archive.infolist() if p.filename.endswith(("pkl", "pickle"))]
            if sum(part.file_size for part in parts) > MAX_DESCRIPTION_BYTES + MAX_CODE_BYTES:
                raise ValueError("its pickles are larger than any module's")
            for part in parts:
                content = archive.read(part)
                for opcode, argument, _ in pickletools.genops(content):
                    if opcode.name in _KEEPING and int(argument or 0) > len(content):
                        raise ValueError(f"{part.filename} keeps more than it has")
    except Exception as error:  # those of zipfile, zlib, lzma and pickletools have no common base
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise ImportFileError(f"{path}: a damaged module: {reason}") from error


def _load(path: Path) -> tuple[nn.Module, list[tuple[int, ...]]]:
    """The module in evaluation mode, and the shapes of its inputs where the file has them."""
    try:
        if path.suffix.lower() != ".pt2":
            module = torch.jit.load(str(path), map_location="cpu").eval()
            return module, []
        program = torch.export.load(path)
        arguments, _ = program.example_inputs or ((), {})
        return _evaluating(program.module()), [tuple(item.shape) for item in arguments]
    except Exception as error:  # PyTorch's own exceptions have no common base
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        kind = "an exported program" if path.suffix.lower() == ".pt2" else "a TorchScript module"
        raise ImportFileError(
            f"{path} cannot be loaded as {kind}: {reason}; of a file of weights alone build the "
            "module in Python and use latlut.measure.bench.bench_module"
        ) from error


def _evaluating(module: Any) -> nn.Module:
    """An exported module with the mode set that it was exported in; it refuses ``eval()``."""
    for part in module.modules():
        part.training = False
        for name in ("train", "eval"):
            part.__dict__.pop(name, None)
    return module
