"""Read the architecture files that the authors of FasterSeg published: arch_0.pt and arch_1.pt.

Such a file is a torch state: the logits of one network's search and the scores of two networks
derived from it. It is a pickle, so it is opened with torch's ``weights_only`` unpickler and a list
of the few names that a numpy number needs; a file with any other name in it is refused and nothing
in it is run.

How the authors' columns and rows map onto ours:

- i is 0 for the teacher (one width, stem and head 12/12, no skip) and 1 for the student (8/12).
- alpha_{i}_{s}: s = 0, 1, 2 is 1/8, 1/16, 1/32; a row per cell of that scale, layer by layer; the
  columns are skip, conv, zoomed_conv, conv_2x, zoomed_conv_2x, so the middle ones change places.
- beta_{i}_{s}: a row per cell with two inputs; from the finer scale first, as here.
- ratio_{i}_{s}: a row per cell but the first, for the map that enters it; widths 4 6 8 10 12. With
  one column the width is 12 for the teacher and 4 for the student (the pruned network).
- mIoU02 and latency02 belong to branches {8, 32}, mIoU12 and latency12 to {16, 32}. Both files hold
  the student's scores; the authors choose the teacher's branches by them as well.

Source: the authors' code, search/train_search.py, train/train.py and search/genotypes.py.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import Parameter

from latlut.errors import ImportFileError
from latlut.files.reading import check_archive
from latlut.search.derive.derive import Candidate, Decoding, derive, select
from latlut.search.supernet.relaxed import RelaxedArchitecture
from latlut.spaces import Architecture, FasterSegSpace
from latlut.spaces.shapes import SCALES

#: The authors' order of alpha's columns.
COLUMNS = ("skip", "conv", "zoomed_conv", "conv_2x", "zoomed_conv_2x")
#: T of the authors' Target(m); the choice between branches does not depend on it.
TARGET_MS = 8.3
#: Bytes of a file, unpacked too; 256 layers have 40 kB.
MAX_FILE_BYTES = 1 << 20

#: Of a fraction, or of milliseconds.
MAX_SCORE = 1e9

_SCORED = {(8, 32): ("mIoU02", "latency02"), (16, 32): ("mIoU12", "latency12")}
_END_WIDTHS = {"teacher": 12, "student": 8}
_PRUNED_WIDTHS = {"teacher": 12, "student": 4}
_FEWEST_LAYERS, _MOST_LAYERS = 5, 256


@dataclass(frozen=True)
class PublishedArchitecture:
    """What a file of the authors holds."""

    role: str
    """"teacher" or "student"."""
    relaxed: RelaxedArchitecture
    """The logits, rows and columns in latlut's order."""
    scores: Mapping[tuple[int, ...], tuple[float, float]]
    """(mIoU, latency in ms) by branches, as stored; empty where the file has none."""
    scales: tuple[int, ...]
    """The branches that were chosen."""
    architecture: Architecture
    """The network with these branches."""


def read_published(
    path: str | Path,
    decoding: Decoding = "released",
    branches: tuple[int, ...] | None = None,
) -> PublishedArchitecture:
    """The logits in a file of the authors, and the network that they stand for.

    Args:
        path: arch_0.pt (teacher), arch_1.pt (student), or one of another run of their code.
        decoding: "released" gives the networks that the published weights belong to.
        branches: scales of the branches; if not given, {8, 32} or {16, 32}, whichever has the
            larger mIoU * (latency / T)^-0.07 by the stored numbers ({16, 32} if equal).

    Raises:
        ImportFileError: no such file, not a torch state, one that holds other things than
            numbers, keys that are missing, a tensor of another shape or with values that are not
            finite, or no scores where ``branches`` is not given.
        SpecError: branches or a decoding that there are none of.
    """
    path = Path(path)
    state = _load(path)
    index = _network_index(path, state)
    role = ("teacher", "student")[index]
    tensors = _checked_tensors(path, state, index)
    relaxed = _relaxed(tensors, role)
    scores = _scores(path, state)
    if branches is None:
        if not scores:
            raise ImportFileError(
                f"{path}: has no scores to choose the branches by (a file of pretraining?): "
                "name them, such as --scales 16,32"
            )
        networks = [
            Candidate(_derived(relaxed, scales, decoding, role), accuracy, latency_ms)
            for scales, (accuracy, latency_ms) in reversed(scores.items())
        ]
        chosen = select(networks, TARGET_MS).architecture
    else:
        chosen = _derived(relaxed, branches, decoding, role)
    scales = tuple(branch.scale for branch in chosen.branches)
    return PublishedArchitecture(role, relaxed, scores, scales, chosen)


def _derived(
    relaxed: RelaxedArchitecture, scales: tuple[int, ...], decoding: Decoding, role: str
) -> Architecture:
    return derive(relaxed, scales, decoding, allow_skip=role == "student")


def _load(path: Path) -> dict[str, Any]:
    """The state in the file, on the CPU; nothing but tensors and numbers can be in it."""
    check_archive(path, MAX_FILE_BYTES, MAX_FILE_BYTES)
    allowed: list[Any] = [
        (_Dtype, "numpy.dtype"),
        (_bytes_of, "_codecs.encode"),
        (_number_of, "numpy.core.multiarray.scalar"),
        (_number_of, "numpy._core.multiarray.scalar"),
    ]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: the file's matter
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in zip, pickle or torch
        raise ImportFileError(f"{path}: {_why_refused(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ImportFileError(
            f"{path}: expected a dict of alpha_*, beta_* and ratio_* tensors, "
            f"received a {type(state).__name__}"
        )
    return state


class _Dtype:
    """Stands in for numpy.dtype while a file is read: keeps the type code and byte order."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _bytes_of(text: str, encoding: str) -> bytes:
    """Stands in for the function by which pickles of protocol 2 spell bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r:.20}")
    return text.encode("latin1")


def _number_of(dtype: _Dtype, data: bytes) -> float:
    """Stands in for the function that makes a numpy number from its bytes."""
    formats = {"f8": "d", "f4": "f", "f2": "e"}
    if not isinstance(dtype, _Dtype) or dtype.code not in formats:
        raise ValueError("a numpy value that is no float")
    return float(struct.unpack(dtype.order + formats[str(dtype.code)], data)[0])


def _why_refused(error: Exception) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and named:
        return (
            f"names {named[1]}, which an architecture file has no use for; "
            "refused, nothing in the file was run"
        )
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return (
        "not a torch file that can be read, or a damaged one "
        f"({type(error).__name__}: {reason[:120]})"
    )


def _network_index(path: Path, state: Mapping[str, object]) -> int:
    found = [index for index in (0, 1) if f"alpha_{index}_0" in state]
    if len(found) != 1:
        raise ImportFileError(
            f"{path}: expected alpha_0_0 (teacher) or alpha_1_0 (student), "
            f"received the keys {', '.join(sorted(state)[:12]) or 'of an empty dict'}"
        )
    return found[0]


def _checked_tensors(
    path: Path, state: Mapping[str, object], index: int
) -> dict[tuple[str, int], Tensor]:
    """The tensors by (name, scale), all of shapes that one number of layers explains."""
    first = _tensor(path, state, f"alpha_{index}_0")
    layers = first.shape[0] if first.ndim == 2 else 0
    if not _FEWEST_LAYERS <= layers <= _MOST_LAYERS:
        raise ImportFileError(
            f"{path}: alpha_{index}_0 has shape {tuple(first.shape)}, expected "
            f"(layers, {len(COLUMNS)}) with {_FEWEST_LAYERS} to {_MOST_LAYERS} layers"
        )
    widths = _tensor(path, state, f"ratio_{index}_0")
    is_single = widths.ndim == 2 and widths.shape[1] == 1
    columns = {"alpha": len(COLUMNS), "beta": 2, "ratio": 1 if is_single else 5}
    tensors = {}
    for name, count in columns.items():
        for order, scale in enumerate(SCALES):
            if name == "beta" and scale == 8:
                continue
            fewer = {"alpha": order, "beta": order + 1, "ratio": max(order, 1)}[name]
            key, expected = f"{name}_{index}_{order}", (layers - fewer, count)
            tensor = _tensor(path, state, key)
            if tuple(tensor.shape) != expected:
                raise ImportFileError(
                    f"{path}: {key} has shape {tuple(tensor.shape)}, expected {expected} "
                    f"for {layers} layers"
                )
            if not tensor.isfinite().all():
                raise ImportFileError(f"{path}: {key} holds values that are not finite")
            tensors[name, scale] = tensor
    return tensors


def _tensor(path: Path, state: Mapping[str, object], key: str) -> Tensor:
    value = state.get(key)
    if not _is_plain(value) or not value.is_floating_point():
        raise ImportFileError(
            f"{path}: {key}: expected a tensor of floats, "
            f"received {'nothing' if value is None else type(value).__name__}"
        )
    return value.detach()


def _is_plain(value: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor whose numbers are in memory: not sparse, nested or without any."""
    return (
        isinstance(value, Tensor)
        and type(value) in (Tensor, Parameter)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_nested
    )


def _relaxed(tensors: Mapping[tuple[str, int], Tensor], role: str) -> RelaxedArchitecture:
    space = FasterSegSpace(layers=tensors["alpha", 8].shape[0])
    is_single = tensors["ratio", 8].shape[1] == 1
    widths = (_PRUNED_WIDTHS[role],) if is_single else space.widths
    relaxed = RelaxedArchitecture(space, widths, _END_WIDTHS[role])
    columns = [COLUMNS.index(name) for name in space.operators]
    cells = space.cells()
    first_layer = {"alpha": {8: 0, 16: 1, 32: 2}, "ratio": {8: 1, 16: 1, 32: 2},
                   "beta": {16: 2, 32: 3}}  # fmt: skip

    def row(name: str, layer: int, scale: int) -> Tensor:
        return tensors[name, scale][layer - first_layer[name][scale]]

    with torch.no_grad():
        for number, (layer, scale) in enumerate(cells):
            relaxed.alpha[number] = row("alpha", layer, scale)[columns]
            if number:
                relaxed.gamma[number - 1] = row("ratio", layer, scale)
        for number, cell in enumerate(relaxed.two_way):
            relaxed.beta[number] = row("beta", *cells[cell])
    return relaxed


def _scores(path: Path, state: Mapping[str, object]) -> dict[tuple[int, ...], tuple[float, float]]:
    """(mIoU, latency in ms) by branches; empty unless all four are there."""
    keys = [key for pair in _SCORED.values() for key in pair]
    if any(key not in state for key in keys):
        return {}
    numbers = {key: _number(path, key, state[key]) for key in keys}
    for key, number in numbers.items():
        if key.startswith("latency") and number <= 0:
            raise ImportFileError(f"{path}: {key} is {number} ms, expected more than 0")
    return {scales: (numbers[a], numbers[b]) for scales, (a, b) in _SCORED.items()}


def _number(path: Path, key: str, value: object) -> float:
    if _is_plain(value) and value.dim() == 0:
        value = value.item()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MAX_SCORE:  # type: ignore[operator]
        shown = f"{value!r:.60}" if isinstance(value, (str, float)) else type(value).__name__
        raise ImportFileError(
            f"{path}: {key} is {shown}, expected a number from 0 to {MAX_SCORE:g}"
        )
    return float(value)  # type: ignore[arg-type]
