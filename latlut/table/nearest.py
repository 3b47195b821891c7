"""Which of the measured op specs is closest to one that has no entry."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

import numpy as np

from latlut.opspec import OpSpec

#: Columns of an op spec that are compared as numbers.
_SHAPE = ("in_channels", "out_channels", "height", "width", "batch", "stride")


def nearest_key(connection: sqlite3.Connection, spec: OpSpec) -> str | None:
    """The measured op spec of the same kind whose shapes and options are closest in value.

    Numbers are compared in log scale; an option that is no number, or that one of the two does
    not name, counts as much as a factor of two.
    """
    rows = connection.execute(
        f"SELECT op_spec_id, options, {', '.join(_SHAPE)} FROM entries"
        " JOIN op_specs ON op_specs.id = op_spec_id WHERE kind = ? AND predicted_from IS NULL"
        " ORDER BY op_spec_id",
        [spec.kind],
    ).fetchall()
    if not rows:
        return None
    _, height, width = spec.inputs[-1]
    wanted = (spec.in_channels, spec.out_channels, height, width, spec.batch, spec.stride)
    shapes = np.array([row[2:] for row in rows], np.float64)
    away = np.abs(np.log2(shapes / wanted)).sum(axis=1)
    asked = dict(spec.options)
    by_options = {text: _options_apart(asked, text) for text in {row[1] for row in rows}}
    away += [by_options[row[1]] for row in rows]
    nearest = rows[int(away.argmin())][0]
    (key,) = connection.execute("SELECT key FROM op_specs WHERE id = ?", [nearest]).fetchone()
    return str(key)


def _options_apart(asked: Mapping[str, object], text: str) -> float:
    """How far an op spec's options are from those asked for; ``text`` is the column."""
    found = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(text).items()
    }
    return sum(_apart(asked.get(name), found.get(name)) for name in asked.keys() | found.keys())


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
