"""The JSON form of an architecture: written readably, read strictly.

    {"format": "latlut-architecture", "version": 1, "space": "fasterseg",
     "base_width": 12, "stem_width": 8, "head_width": 8, "num_classes": 19,
     "branches": [{"scale": 16,
                   "cells": [{"operator": "conv", "width": 4, "is_down": false}, ...]}]}

Used through ``Architecture.to_json``, ``from_json``, ``save`` and ``load``.
"""

from __future__ import annotations

import json
from typing import Any

from latlut.errors import ImportFileError, SpecError, did_you_mean
from latlut.spaces.architecture import Architecture, Branch, Cell

FORMAT = "latlut-architecture"
VERSION = 1
_FIELDS = ("base_width", "stem_width", "head_width", "num_classes", "branches")


def json_from_architecture(architecture: Architecture) -> str:
    """The JSON text of an architecture, one line per cell, ending in a newline."""
    head = {"format": FORMAT, "version": VERSION, "space": "fasterseg"}
    head |= {name: getattr(architecture, name) for name in _FIELDS[:-1]}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    branches = []
    for branch in architecture.branches:
        cells = ",\n".join(f"        {json.dumps(vars(cell))}" for cell in branch.cells)
        opening = f'    {{\n      "scale": {branch.scale},\n      "cells": [\n'
        branches.append(f"{opening}{cells}\n      ]\n    }}")
    body = ",\n".join(branches)
    return "{\n" + "\n".join(lines) + f'\n  "branches": [\n{body}\n  ]\n}}\n'


def architecture_from_json(text: str) -> Architecture:
    """The architecture that a JSON text holds.

    Raises:
        ImportFileError: not JSON, not this format, a newer version, missing or unknown keys.
        SpecError: values that are no network, with the place where they stand.
    """
    data = _parse(text)
    _check_header(data)
    _check_keys(data, ("format", "version", "space", *_FIELDS), "the architecture")
    if data["space"] != "fasterseg":
        raise ImportFileError(f'"space" must be "fasterseg", received {data["space"]!r:.80}')
    branches = []
    for index, item in enumerate(_list(data["branches"], "branches")):
        where = f"branches[{index}]"
        _check_keys(item, ("scale", "cells"), where)
        cells = []
        for position, cell in enumerate(_list(item["cells"], f"{where}.cells")):
            place = f"{where}.cells[{position}]"
            _check_keys(cell, ("operator", "width", "is_down"), place)
            cells.append(_build(place, Cell, **cell))
        branches.append(_build(where, Branch, scale=item["scale"], cells=tuple(cells)))
    values = {name: data[name] for name in _FIELDS} | {"branches": tuple(branches)}
    return Architecture(**values)


def _check_header(data: object) -> None:
    found = data.get("format") if isinstance(data, dict) else data
    if not isinstance(data, dict) or found != FORMAT:
        raise ImportFileError(
            f'not an architecture file: expected an object with "format": "{FORMAT}", '
            f"received {found!r:.80}"
        )
    version = data.get("version")
    if type(version) is int and version > VERSION:
        raise ImportFileError(
            f"architecture file of version {version}, this latlut reads version {VERSION}: "
            "upgrade latlut"
        )
    if type(version) is not int or version != VERSION:
        raise ImportFileError(f'"version" must be {VERSION}, received {version!r:.80}')


def _parse(text: str) -> Any:
    def refuse_constant(name: str) -> None:
        raise ImportFileError(f"{name} is not a value of an architecture")

    def refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ImportFileError(f"the key {repeated[0]!r} appears twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, parse_constant=refuse_constant, object_pairs_hook=refuse_repeated)
    except json.JSONDecodeError as error:
        raise ImportFileError(
            f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ImportFileError(f"not readable JSON: {error}") from error


def _check_keys(item: object, expected: tuple[str, ...], where: str) -> None:
    if not isinstance(item, dict):
        raise ImportFileError(f"{where} must be an object, received {item!r:.80}")
    missing = [name for name in expected if name not in item]
    if missing:
        raise ImportFileError(f"{where} lacks {', '.join(map(repr, missing))}")
    for name in item:
        if name not in expected:
            raise ImportFileError(
                f"{where} has an unknown key {name!r}; {did_you_mean(name, list(expected))}"
            )


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ImportFileError(f"{where} must be a list, received {value!r:.80}")
    return value


def _build(where: str, build: Any, **values: object) -> Any:
    try:
        return build(**values)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
