"""The FasterSeg authors' latency table: which op spec each of its keys really timed.

Their ``latency_lookup_table.npy`` is a pickled dict keyed by format strings. H and W in a key are
the operator's input size, and some rows timed another operator than the one that is trained: the
zoomed convolutions resized by nearest neighbour, the stride-2 skip is one 1x1 convolution, the
stride-1 skip an identity whose cost does not depend on the output channels that its key names.
Each row becomes the op spec of what was timed, with a note where that matters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError, SpecError
from latlut.opspec import OpSpec
from latlut.table.pickled_npy import read_pickled_numbers


@dataclass(frozen=True)
class ImportedRow:
    """One row of another project's table: its key there, what it timed, and what to know of it.

    ``latency_ms`` is milliseconds per inference; ``note`` is empty where there is nothing to say.
    """

    source_key: str
    spec: OpSpec
    latency_ms: float
    note: str = ""


@dataclass(frozen=True)
class FasterSegTable:
    """All rows of the authors' table, in the file's order.

    Attributes:
        path: the file.
        rows: one per key. Several rows may have the same op spec: repeat measurements.
    """

    path: str
    rows: tuple[ImportedRow, ...]

    def latencies_ms(self) -> Mapping[OpSpec, tuple[float, ...]]:
        """Every measurement of each distinct op spec, milliseconds, in the file's order."""
        repeats: dict[OpSpec, list[float]] = {}
        for row in self.rows:
            repeats.setdefault(row.spec, []).append(row.latency_ms)
        return {spec: tuple(values) for spec, values in repeats.items()}


def read_fasterseg_npy(path: str | Path) -> FasterSegTable:
    """Every row of the FasterSeg authors' latency table, as op specs; nothing in it is run.

    The file says nothing of its device, engine or precision: whoever imports it must.

    Args:
        path: their ``latency_lookup_table.npy``, pickle protocol 2 to 5.

    Raises:
        ImportFileError: the file is not such a table (see ``read_pickled_numbers``), or a key
            names an operator or a shape that has no op spec.

    Source: FasterSeg's release, where latency is looked up by these keys.
    """
    numbers = read_pickled_numbers(path)
    rows = []
    for key, latency_ms in numbers.items():
        spec, note = _spec_from_key(key, str(path))
        rows.append(ImportedRow(key, spec, latency_ms, note))
    return FasterSegTable(str(path), tuple(rows))


_NEAREST = "timed with nearest-neighbour resizing; the trained operator is bilinear"
_SIZES = r"_H(?P<height>\d{1,5})_W(?P<width>\d{1,5})"
_CHANNELS = _SIZES + r"_Cin(?P<cin>\d{1,5})_Cout(?P<cout>\d{1,5})"
_RESIDUAL = _CHANNELS + r"_stride(?P<stride>[12])_dilation(?P<dilation>\d{1,3})"

_Numbers = Mapping[str, int]


def _residual(kind: str, **options: Any) -> Callable[[_Numbers], tuple[OpSpec, str]]:
    def convert(n: _Numbers) -> tuple[OpSpec, str]:
        shape = (n["cin"], n["height"], n["width"])
        spec = OpSpec(kind, shape, n["cout"], n["stride"], dilation=n["dilation"], **options)
        return spec, _NEAREST if options else ""

    return convert


def _conv_norm(n: _Numbers) -> tuple[OpSpec, str]:
    shape = (n["cin"], n["height"], n["width"])
    return OpSpec("conv", shape, n["cout"], n["stride"], kernel_size=n["kernel"]), ""


def _factorized_reduce(n: _Numbers) -> tuple[OpSpec, str]:
    shape = (n["cin"], n["height"], n["width"])
    if n["stride"] == 2:
        note = "timed as one 1x1 convolution; the trained operator joins two of half the width"
        return OpSpec("skip", shape, n["cout"], 2, form="single"), note
    note = "timed as an identity: the key's output channels were not in the graph"
    return OpSpec("skip", shape, n["cin"], 1, form="identity"), note


def _fusion(n: _Numbers) -> tuple[OpSpec, str]:
    shape = (n["channels"], n["height"], n["width"])
    return OpSpec("fusion", shape, n["channels"]), "timed on one concatenated input"


def _head(n: _Numbers) -> tuple[OpSpec, str]:
    shape = (n["cin"], n["height"], n["width"])
    return OpSpec("head", shape, n["cout"]), ""


#: Form of a key, and the op spec that its row timed.
_FORMS: tuple[tuple[re.Pattern[str], Callable[[_Numbers], tuple[OpSpec, str]]], ...] = tuple(
    (re.compile(pattern, re.ASCII), convert)
    for pattern, convert in (
        ("BasicResidual1x" + _RESIDUAL, _residual("conv")),
        ("BasicResidual2x" + _RESIDUAL, _residual("conv_2x")),
        ("BasicResidual_downup_1x" + _RESIDUAL, _residual("zoomed_conv", interpolation="nearest")),
        (
            "BasicResidual_downup_2x" + _RESIDUAL,
            _residual("zoomed_conv_2x", interpolation="nearest"),
        ),
        ("FactorizedReduce" + _CHANNELS + r"_stride(?P<stride>[12])", _factorized_reduce),
        ("ConvNorm" + _CHANNELS + r"_kernel(?P<kernel>\d{1,2})_stride(?P<stride>[12])", _conv_norm),
        ("ff" + _SIZES + r"_C(?P<channels>\d{1,5})", _fusion),
        ("head" + _CHANNELS, _head),
    )
)


def _spec_from_key(key: str, path: str) -> tuple[OpSpec, str]:
    for pattern, convert in _FORMS:
        match = pattern.fullmatch(key)
        if match is not None:
            try:
                return convert({name: int(text) for name, text in match.groupdict().items()})
            except SpecError as error:
                raise ImportFileError(f"{path}: key {key!r}: {error}") from error
    raise ImportFileError(
        f"{path}: key {key[:200]!r} names no operator of the FasterSeg table; known forms begin "
        "with BasicResidual1x, BasicResidual2x, BasicResidual_downup_1x, BasicResidual_downup_2x, "
        "FactorizedReduce, ConvNorm, ff, head and give the input size as _H128_W256"
    )
