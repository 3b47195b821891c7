"""What a model of latencies sees of an op spec: shapes in logarithms, and what kind it is.

Latencies follow from shapes by products (channels in, channels out, pixels), so that logarithms
make them nearly linear; two op specs are as alike as their logarithms are close. What is a word
(the operator, the form of a skip) says which of them behave alike and is a category.

Symbols: N op specs, F numbers, K categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlut.opspec import OPTION_DEFAULTS, OpSpec

#: Numbers of every op spec, base-2 logarithms: what it reads, writes, and how it gets there.
_SHAPE = ("in_channels", "out_channels", "side", "stride", "batch")
#: Multiply-accumulates that a machine does while it moves a byte: about 15 on CPUs and GPUs. Where
#: exactly the bound changes sides matters little, since the model learns what is left.
_MACS_PER_BYTE = 15.0


def category_of(spec: OpSpec) -> str:
    """The operator with the options that are words: ``skip form=searched``."""
    words = [f"{name}={value}" for name, value in spec.options if isinstance(value, str)]
    return " ".join([spec.kind, *words])


def _amount(value: object) -> float:
    """An option's number; of several the product, as of a kernel's sides."""
    if isinstance(value, tuple):
        return float(math.prod(value)) ** 0.5
    return float(value)  # type: ignore[arg-type]


def _numeric(spec: OpSpec) -> dict[str, float]:
    """The options that are numbers; the size of the output is among the shapes already."""
    return {
        name: _amount(value)
        for name, value in spec.options
        if not isinstance(value, str) and name != "out_size"
    }


def log_work(specs: Sequence[OpSpec]) -> np.ndarray:
    """Logarithm of what bounds each op spec's latency, as a convolution of its shapes: (N,).

        max(multiply-accumulates, 15 x bytes moved)

    up to a factor that operators of one kind have in common: the roofline without peak figures. A
    latency over it is the reciprocal of a utilisation.

    Source: Williams et al., "Roofline", CACM 2009.
    """
    rows = np.array([_volumes(spec) for spec in specs], np.float64).reshape(-1, 4)
    read, written, weights, pixels = rows.T
    bytes_moved = 4 * (read + written + weights)
    found: np.ndarray = np.log(np.maximum(weights * pixels, _MACS_PER_BYTE * bytes_moved))
    return found


def _volumes(spec: OpSpec) -> tuple[float, float, float, float]:
    """Elements read, written and of weights; pixels written in all images."""
    height, width = spec.out_size
    pixels = spec.batch * height * width
    read = spec.batch * sum(c * h * w for c, h, w in spec.inputs)
    kernel, groups = 9.0, 1.0
    if spec.options:
        kernel = _amount(spec.option("kernel_size") or 3) ** 2
        groups = _amount(spec.option("groups") or 1)
    weights = spec.in_channels * spec.out_channels * kernel / groups
    return read, pixels * spec.out_channels, weights, pixels


@dataclass(frozen=True)
class Features:
    """Columns by which op specs are compared, chosen from those that are known."""

    options: tuple[str, ...]
    """Options that are numbers and differ between the known op specs."""
    categories: tuple[str, ...]
    """The K categories of the known op specs, sorted."""

    @classmethod
    def of(cls, specs: Sequence[OpSpec]) -> Features:
        """The columns that the known op specs need."""
        names = {name for spec in specs for name in _numeric(spec)}
        return cls(tuple(sorted(names)), tuple(sorted({category_of(spec) for spec in specs})))

    @property
    def numbers(self) -> int:
        """F: how many columns are numbers; K columns of categories follow."""
        return len(_SHAPE) + len(self.options)

    def matrix(self, specs: Sequence[OpSpec]) -> np.ndarray:
        """(N, F + K): logarithms, then 1 in the column of the category.

        An op spec of an unknown category has none.
        """
        rows = np.array([self._numbers(spec) for spec in specs], np.float64)
        rows = rows.reshape(len(specs), self.numbers)
        place = {name: column for column, name in enumerate(self.categories)}
        kinds = np.zeros((len(specs), len(self.categories)))
        for row, spec in enumerate(specs):
            column = place.get(category_of(spec) if spec.options else spec.kind)
            if column is not None:
                kinds[row, column] = 1.0
        return np.concatenate([np.log2(np.maximum(rows, 0.5)), kinds], axis=1)

    def _numbers(self, spec: OpSpec) -> tuple[float, ...]:
        height, width = spec.out_size
        shape = (
            spec.in_channels,
            spec.out_channels,
            (height * width) ** 0.5,
            spec.stride,
            spec.batch,
        )
        if not self.options:
            return shape
        own = _numeric(spec)
        defaults = (own.get(name, OPTION_DEFAULTS.get(name, 1)) for name in self.options)
        return (*shape, *(_amount(value) for value in defaults))
