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
from typing import NamedTuple

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


class OpSpecRows(NamedTuple):
    """What a model needs of N op specs."""

    matrix: np.ndarray
    """(N, F + K): logarithms, then 1 in the column of the category, if that is known."""
    log_work: np.ndarray
    """(N,): see ``Features.rows``."""
    categories: list[str]
    """N names."""


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

    def rows(self, specs: Sequence[OpSpec]) -> OpSpecRows:
        """The columns of op specs, and the logarithm of what bounds each one's latency,

            max(multiply-accumulates, 15 x bytes moved)

        of a convolution of its shapes, up to a factor that operators of one kind have in common:
        the roofline without peak figures. A latency over it is the reciprocal of a utilisation.

        Source: Williams et al., "Roofline", CACM 2009.
        """
        numbers, volumes, categories = [], [], []
        for spec in specs:
            height, width = spec.out_size
            read, channels = 0, 0
            for c, h, w in spec.inputs:
                read += c * h * w
                channels += c
            kernel = 9.0
            extra: tuple[float, ...] = ()
            if spec.options:
                groups = _amount(spec.option("groups") or 1)
                kernel = _amount(spec.option("kernel_size") or 3) ** 2 / groups
            if self.options:
                own = _numeric(spec)
                extra = tuple(
                    own.get(name, _amount(OPTION_DEFAULTS.get(name, 1))) for name in self.options
                )
            out, batch, pixels = spec.out_channels, spec.batch, height * width
            numbers.append((channels, out, pixels**0.5, spec.stride, batch, *extra))
            volumes.append((batch * (read + pixels * out), channels * out * kernel, batch * pixels))
            categories.append(category_of(spec) if spec.options else spec.kind)
        place = {name: column for column, name in enumerate(self.categories)}
        kinds = np.zeros((len(specs), len(place) + 1))
        kinds[np.arange(len(specs)), [place.get(name, -1) for name in categories]] = 1.0
        shapes = np.array(numbers, np.float64).reshape(len(specs), self.numbers)
        maps, weights, pixels_written = np.array(volumes, np.float64).reshape(-1, 3).T
        work = np.maximum(weights * pixels_written, 4 * _MACS_PER_BYTE * (maps + weights))
        matrix = np.concatenate([np.log2(np.maximum(shapes, 0.5)), kinds[:, :-1]], axis=1)
        return OpSpecRows(matrix, np.log(work), categories)
