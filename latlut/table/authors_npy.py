"""The FasterSeg authors' latency table: which op spec each of its keys really timed.

Their ``latency_lookup_table.npy`` is a pickled dict keyed by format strings. H and W in a key are
the operator's input size, and some rows timed another operator than the one that is trained: the
zoomed convolutions resized by nearest neighbour, the stride-2 skip is one 1x1 convolution, the
stride-1 skip an identity whose cost does not depend on the output channels that its key names.
Each row becomes the op spec of what was timed, with a note where that matters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

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
    """All rows of the authors' table, in the file's order."""

    rows: tuple[ImportedRow, ...]
    """One per key. Several rows may have the same op spec: repeat measurements."""

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
    return FasterSegTable(tuple(rows))


_SIZES = r"_H(?P<height>\d{1,5})_W(?P<width>\d{1,5})"
_INPUT = _SIZES + r"_Cin(?P<in_channels>\d{1,5})"
_CHANNELS = _INPUT + r"_Cout(?P<out_channels>\d{1,5})"
_RESIDUAL = _CHANNELS + r"_stride(?P<stride>[12])_dilation(?P<dilation>\d{1,3})"
_KERNEL = r"_kernel(?P<kernel_size>\d{1,2})_stride(?P<stride>[12])"

#: Options that a key does not say, and what to know of the row.
_Timed: TypeAlias = tuple[dict[str, Any], str]
_AS_NAMED: _Timed = ({}, "")
_NEAREST: _Timed = (
    {"interpolation": "nearest"},
    "timed with nearest-neighbour resizing; the trained operator is bilinear",
)
_SINGLE: _Timed = (
    {"form": "single"},
    "timed as one 1x1 convolution; the trained operator joins two of half the width",
)
_JOINED: _Timed = ({}, "timed on one concatenated input")
_IDENTITY: _Timed = (
    {"form": "identity"},
    "timed as an identity: the key's output channels were not in the graph",
)

#: Form of a key, and kind of the operator that its row timed. What the form names are the op spec's
#: arguments; output channels that it does not name are those of the input.
_FORMS: tuple[tuple[str, str, _Timed], ...] = (
    ("BasicResidual1x" + _RESIDUAL, "conv", _AS_NAMED),
    ("BasicResidual2x" + _RESIDUAL, "conv_2x", _AS_NAMED),
    ("BasicResidual_downup_1x" + _RESIDUAL, "zoomed_conv", _NEAREST),
    ("BasicResidual_downup_2x" + _RESIDUAL, "zoomed_conv_2x", _NEAREST),
    ("FactorizedReduce" + _CHANNELS + "_stride(?P<stride>2)", "skip", _SINGLE),
    ("FactorizedReduce" + _INPUT + r"_Cout\d{1,5}_stride(?P<stride>1)", "skip", _IDENTITY),
    ("ConvNorm" + _CHANNELS + _KERNEL, "conv", _AS_NAMED),
    ("ff" + _SIZES + r"_C(?P<in_channels>\d{1,5})", "fusion", _JOINED),
    ("head" + _CHANNELS, "head", _AS_NAMED),
)


def _spec_from_key(key: str, path: str) -> tuple[OpSpec, str]:
    for form, kind, (options, note) in _FORMS:
        match = re.fullmatch(form, key, re.ASCII)
        if match is not None:
            n = {name: int(text) for name, text in match.groupdict().items()}
            shape = (n.pop("in_channels"), n.pop("height"), n.pop("width"))
            try:
                return OpSpec(kind, shape, n.pop("out_channels", shape[0]), **n, **options), note
            except SpecError as error:
                raise ImportFileError(f"{path}: key {key!r}: {error}") from error
    raise ImportFileError(
        f"{path}: key {key[:200]!r} names no operator of the FasterSeg table; known forms begin "
        "with BasicResidual1x, BasicResidual2x, BasicResidual_downup_1x, BasicResidual_downup_2x, "
        "FactorizedReduce, ConvNorm, ff, head and give the input size as _H128_W256"
    )
