"""The architectures that come with latlut, and finding a network by its name or its file."""

from __future__ import annotations

from pathlib import Path

from latlut.errors import ImportFileError, SpecError, UnknownNameError, did_you_mean
from latlut.files.reading import read_text
from latlut.files.strict_json import parse_json
from latlut.resources import profiles_dir
from latlut.spaces.architecture import Architecture
from latlut.spaces.checking import asked
from latlut.spaces.fasterseg import FasterSegSpace
from latlut.spaces.space import SpaceNetwork, space_class


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


def find_network(name: str) -> SpaceNetwork:
    """The network of a shipped name or a JSON file, of whichever space the file names.

    Raises:
        UnknownNameError: neither is there, or the space is not registered here.
        ImportFileError: a file that cannot be read.
        SpecError: a file whose values are no network.
    """
    if name in shipped_architectures() or not Path(name).is_file():
        return find_architecture(name)
    text = read_text(Path(name))
    try:
        values = parse_json(text, "a network")
    except ImportFileError as error:
        raise ImportFileError(f"{name}: {error}") from error
    space = values.get("space") if isinstance(values, dict) else None
    if not isinstance(space, str) or space == FasterSegSpace.name:
        return find_architecture(name)  # which says what is wrong with it
    try:
        kind = space_class(space)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{name} is a network of the space {space!r}, which nothing registers here: name the "
            "file that does, --space FILE"
        ) from error
    try:
        return asked(space, "network_from_json", lambda: kind.network_from_json(text), True)
    except (ImportFileError, SpecError) as error:
        raise type(error)(f"{name}: {error}") from error
