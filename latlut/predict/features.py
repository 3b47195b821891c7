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
from functools import cached_property
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

    @cached_property
    def _defaults(self) -> tuple[float, ...]:
        """Of each option, where an op spec leaves it out."""
        return tuple(_amount(OPTION_DEFAULTS.get(name, 1)) for name in self.options)

    @cached_property
    def _places(self) -> dict[str, int]:
        """Category -> its column."""
        return {name: self.numbers + number for number, name in enumerate(self.categories)}

    def rows(self, specs: Sequence[OpSpec]) -> OpSpecRows:
        """The columns of op specs, and the logarithm of what bounds each one's latency,

            max(multiply-accumulates, 15 x bytes moved)

        of a convolution of its shapes, up to a factor that operators of one kind have in common:
        the roofline without peak figures. A latency over it is the reciprocal of a utilisation.

        Source: Williams et al., "Roofline", CACM 2009.
        """
        count, defaults, place = len(specs), self._defaults, self._places
        numbers = len(_SHAPE) + len(defaults)
        found: list[float] = []
        categories = []
        for spec in specs:
            read, channels = 0, 0
            for c, height, width in spec.inputs:
                read += c * height * width
                channels += c
            stride, kernel, extra = spec.stride, 9.0, defaults
            if spec.options:
                height, width = spec.out_size
                groups = _amount(spec.option("groups") or 1)
                kernel = _amount(spec.option("kernel_size") or 3) ** 2 / groups
                if extra:
                    own = _numeric(spec)
                    extra = tuple(map(own.get, self.options, defaults))
                categories.append(category_of(spec))
            else:  # most, and their output size needs no look at options
                height, width = -(-height // stride), -(-width // stride)
                categories.append(spec.kind)
            pixels = height * width
            # One flat list: many tuples take NumPy twice as long.
            found += (channels, spec.out_channels, pixels, stride, spec.batch, *extra, read, kernel)
        columns = np.array(found, np.float64).reshape(count, numbers + 2).T
        channels, out, pixels, _, batch = columns[:5]
        weights = channels * out * columns[-1]
        moved = batch * (columns[-2] + pixels * out) + weights
        work = np.maximum(weights * batch * pixels, 4 * _MACS_PER_BYTE * moved)
        matrix = np.zeros((count, numbers + len(place) + 1))  # the last column: not known
        matrix[:, :numbers] = np.log2(np.maximum(columns[:-2], 0.5)).T
        matrix[:, 2] /= 2  # the side of as many pixels in a square
        matrix[np.arange(count), [place.get(name, -1) for name in categories]] = 1.0
        return OpSpecRows(matrix[:, :-1], np.log(work), categories)
