"""Settings from a preset's or a user's TOML file, with overrides, checked against a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from latlut.errors import SpecError, UnknownNameError, did_you_mean
from latlut.files.toml_files import read_toml
from latlut.resources import profiles_dir

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: Of one file that are told.
_MOST_PROBLEMS = 20

Settings = TypeVar("Settings", bound=BaseModel)


def preset_names(kind: str) -> list[str]:
    """Names of the shipped presets of a kind (a folder of ``profiles/``), sorted."""
    return sorted(path.stem for path in (profiles_dir() / kind).glob("*.toml"))


def load_preset(
    model: type[Settings],
    kind: str,
    name_or_path: str | Path,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """The settings of a shipped preset or of a TOML file, with overrides.

    Args:
        model: what the settings must be.
        kind: folder of ``profiles/`` that holds the presets.
        name_or_path: ``"tiny"``, or a file.
        overrides: dotted name -> value, ``{"search.epochs": 5}``.

    Raises:
        UnknownNameError: no such preset and no such file.
        ImportFileError: a file that cannot be read or is not TOML.
        SpecError: a key or value that is none; names it.
    """
    names = preset_names(kind)
    path = Path(name_or_path)
    if str(name_or_path) in names:
        path = profiles_dir() / kind / f"{name_or_path}.toml"
    elif not os.path.exists(path):
        raise UnknownNameError(
            f"no preset and no file is called {str(name_or_path)!r}; "
            f"{did_you_mean(str(name_or_path), names)}"
        )
    values = read_toml(path)
    for name, value in (overrides or {}).items():
        *groups, key = name.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise SpecError(f"{name}: {group} is a value, not a group of settings")
        place[key] = value
    return validated(model, values, "" if str(name_or_path) in names else str(path))


def validated(model: type[Settings], values: Mapping[str, object], source: str) -> Settings:
    """Settings from plain values.

    Args:
        model: what they must be.
        values: by name, groups in each other.
        source: a file that they are from, for messages; empty for what was typed.

    Raises:
        SpecError: a key or value that is none; names it and ``source``.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = [f"  {_problem(model, item)}" for item in error.errors()[:_MOST_PROBLEMS]]
        where = f"{source}: " if source else ""
        raise SpecError(f"{where}settings that cannot be used:\n" + "\n".join(lines)) from error


def _problem(model: type[BaseModel], item: ErrorDetails) -> str:
    """One thing that is wrong with settings: its name, why, and what there is instead."""
    *groups, name = map(str, item["loc"] or ("settings",))
    place = ".".join((*groups, name))
    if item["type"] == "extra_forbidden":
        return f"{place}: no such setting; {did_you_mean(name, _names_in(model, groups))}"
    received = "" if item["type"] == "missing" else f", received {item['input']!r:.200}"
    return f"{place}: {item['msg']}{received}"


def _names_in(model: type[BaseModel], groups: Sequence[str]) -> list[str]:
    """Names of the settings of a group in groups."""
    for group in groups:
        field = model.model_fields.get(group)
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
