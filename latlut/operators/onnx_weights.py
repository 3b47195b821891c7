"""Weights that an ONNX file keeps in files beside it.

Where a file lies does not matter, what is written in the model does: a location has to be below
the model's folder. A model hub's cache lays model and weights as links to files elsewhere; links
are followed, as ONNX Runtime follows them. An absolute location and one with ``..`` are refused.

Weights that fit into one message (protobuf's limit is 2 GiB) are put into the model. Of larger
models the large weights stay where they are, and engines are told the folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from latlut.errors import ImportFileError
from latlut.operators.onnx_nodes import tensors_of

#: Most bytes of weights that are put into the model.
EMBEDDED_BYTES = 1_900_000_000
#: Values up to so many bytes are put into any model: engines read sizes and scales while loading.
SMALL_BYTES = 1 << 16
#: How often bytes of a file may be weights; embeddings are also the output's weights.
_MOST_SHARED = 4


def take_in_weights(model: Any, folder: Path, shown: str) -> bool:
    """Put the weights that lie in other files into the model.

    Args:
        model: ``onnx.ModelProto`` without them; changed here.
        folder: the model's.
        shown: what messages call the model.

    Returns:
        Whether all weights are in the model now; otherwise they are too large for that, and only
        small ones are.

    Raises:
        ImportFileError: a location outside the folder, a file that is missing, too short or
            cannot be read.
    """
    kept_elsewhere = [item for item in tensors_of(model) if item.data_location == item.EXTERNAL]
    places = [_place(item, folder, shown) for item in kept_elsewhere]
    sizes = {path: path.stat().st_size for path, _, _ in places}
    if sum(length for _, _, length in places) > _MOST_SHARED * sum(sizes.values()):
        raise ImportFileError(
            f"{shown}: its weights take more than {_MOST_SHARED} times the bytes of the files that "
            "they are in: tensors that share bytes are to be one tensor"
        )
    are_all = sum(length for _, _, length in places) + model.ByteSize() <= EMBEDDED_BYTES
    for item, (path, offset, length) in zip(kept_elsewhere, places, strict=True):
        if length > SMALL_BYTES and not are_all:
            continue
        with path.open("rb") as file:
            file.seek(offset)
            item.raw_data = file.read(length)
        del item.external_data[:]
        item.data_location = item.DEFAULT
    return are_all


@contextmanager
def model_file(content: bytes, weights_folder: Path | None) -> Iterator[Path]:
    """A file of the model, with its weights beside it, while the context lasts.

    Weights are hard links, which engines take for files of the folder, or copies where the
    temporary folder is on another file system.

    Args:
        content: the serialised model.
        weights_folder: where its weights lie; None: they are in the model.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="latlut-") as folder:
        locations: set[str] = set()
        if weights_folder is not None:
            locations = {
                entry.value
                for item in tensors_of(onnx.load_from_string(content))
                for entry in item.external_data
                if entry.key == "location"
            }
            for location in locations:
                beside = Path(folder) / location
                beside.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy((weights_folder / location).resolve(), beside)
        name = "graph.onnx"
        while name in locations:
            name = f"_{name}"
        path = Path(folder) / name
        path.write_bytes(content)
        yield path


def runtime_session(
    content: bytes, weights_folder: Path | None, options: Any, providers: Sequence[Any]
) -> Any:
    """An ``onnxruntime.InferenceSession`` of a model, its weights inside or in a folder."""
    import onnxruntime

    if weights_folder is None:
        return onnxruntime.InferenceSession(content, options, providers=providers)
    with model_file(content, weights_folder) as path:
        return onnxruntime.InferenceSession(path, options, providers=providers)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _place(item: Any, folder: Path, shown: str) -> tuple[Path, int, int]:
    """(file, offset in bytes, length in bytes) of a tensor's values."""
    facts = {entry.key: entry.value for entry in item.external_data}
    location = facts.get("location", "")
    parts = [*PurePosixPath(location).parts, *PureWindowsPath(location).parts]
    is_absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or is_absolute or ".." in parts:
        raise ImportFileError(
            f"{shown}: the weights {item.name!r} are at {location!r}, which is not in the model's "
            "own folder: put them beside the model and save it again"
        )
    path = folder / location
    if not path.is_file():
        raise ImportFileError(
            f"{shown}: its weights are in another file, {location}, which is not there: it "
            "belongs beside the model"
        )
    size = path.stat().st_size
    try:
        offset = int(facts.get("offset") or 0)
        length = int(facts.get("length") or size - offset)
    except ValueError:
        offset = length = -1
    if offset < 0 or length < 0 or offset + length > size:
        raise ImportFileError(
            f"{shown}: the weights {item.name!r} do not lie within {location}, which has {size} "
            "bytes: the file is cut short or belongs to another model"
        )
    return path, offset, length
