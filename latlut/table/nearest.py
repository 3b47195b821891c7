"""Which of the measured op specs is closest to one that has no entry."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from latlut.opspec import OpSpec


def nearest(spec: OpSpec, measured: Iterable[OpSpec]) -> OpSpec | None:
    """The measured op spec of the same kind whose shapes and options are closest in value.

    Numbers are compared in log scale; an option that is no number, or that one of the two does
    not name, counts as much as a factor of two.
    """
    asked = dict(spec.options)

    def distance(other: OpSpec) -> float:
        pairs = [
            (spec.in_channels, other.in_channels),
            (spec.out_channels, other.out_channels),
            (spec.inputs[-1][1], other.inputs[-1][1]),
            (spec.inputs[-1][2], other.inputs[-1][2]),
            (spec.batch, other.batch),
            (spec.stride, other.stride),
        ]
        away = sum(abs(np.log2(a / b)) for a, b in pairs)
        options = dict(other.options)
        names = asked.keys() | options.keys()
        return float(away) + sum(_apart(asked.get(n), options.get(n)) for n in names)

    same_kind = [other for other in measured if other.kind == spec.kind]
    return min(same_kind, key=distance, default=None)


def _apart(first: object, second: object) -> float:
    """How far two values of an option are apart, in factors of two."""
    if first == second:
        return 0.0
    numbers = [
        float(value) for value in (first, second)
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]  # fmt: skip
    if len(numbers) == 2 and min(numbers) > 0:
        return abs(float(np.log2(numbers[0] / numbers[1])))
    return 1.0
