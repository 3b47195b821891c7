"""The architectures that come with latlut, and finding one by its name or its file."""

from __future__ import annotations

from pathlib import Path

from latlut.errors import UnknownNameError, did_you_mean
from latlut.resources import profiles_dir
from latlut.spaces.architecture import Architecture


def shipped_architectures() -> dict[str, Path]:
    """Name -> file of every shipped architecture, sorted."""
    folder = profiles_dir() / "architectures"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def find_architecture(name: str) -> Architecture:
    """The architecture of a shipped name or a JSON file.

    Raises:
        UnknownNameError: neither is there; names the shipped ones.
        ImportFileError: a file that cannot be read.
        SpecError: a file whose values are no network.
    """
    shipped = shipped_architectures()
    if name not in shipped and not Path(name).exists():
        raise UnknownNameError(
            f"no architecture file {name!r}; {did_you_mean(name, list(shipped))}"
        )
    return Architecture.load(shipped.get(name, name))
