"""What a search space is to latlut, and the registry that finds spaces by name.

Plans sweep a space's op specs, tables remember it, ``validate`` and ``calibrate`` sample and
measure its networks. All of them ask this protocol and know no space by itself. A space of one's
own is one file:

    from latlut.spaces.space import register_space

    @register_space
    class ChainSpace:
        name = "chain"
        title = "chain"
        ...

that a command is given with ``--space chain.py`` (``spaces.own``). ``spaces.checking`` says what is
wrong with one before anything is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from latlut.errors import ImportFileError, SpecError, UnknownNameError, did_you_mean
from latlut.files.strict_json import parse_json
from latlut.opspec import Node, OpSpec


@runtime_checkable
class SpaceNetwork(Protocol):
    """One discrete network of a space. A value: equal networks have equal JSON."""

    def nodes(self, input_size: tuple[int, int], batch: int = 1) -> Sequence[Node]:
        """The network as a graph, in order of execution.

        Args:
            input_size: (height, width) of the image in pixels.
            batch: images per inference.
        """

    def op_specs(self, input_size: tuple[int, int], batch: int = 1) -> Sequence[OpSpec]:
        """One op spec per node that is executed, in order."""

    def to_json(self) -> str:
        """A JSON object; its key ``space`` names the space. ``network_from_json`` reads it."""


class Space(Protocol):
    """A search space: what has to be measured for it, and its networks.

    A space may also have ``choices(input_size, batch) -> spaces.choices.Choices``: what a network
    of it chooses, and which op specs that decides on. ``latlut sensitivity`` and searches of one's
    own (``pricing.choices``, ``penalty.ChoiceLatency``) read it.
    """

    #: What it is called in plans, tables and network files.
    name: ClassVar[str]
    #: The same for people: "random FasterSeg networks".
    title: ClassVar[str]

    def op_specs(self, input_size: tuple[int, int], batch: int = 1) -> Sequence[OpSpec]:
        """Every op spec that a network of the space can need, without repetition."""

    def sample_many(self, count: int, seed: int) -> Sequence[SpaceNetwork]:
        """``count`` random networks; the same seed gives the same, a smaller count the first."""

    def describe_sampler(self) -> str:
        """One paragraph that says how networks are drawn, to be stored with results."""

    def to_dict(self) -> dict[str, object]:
        """JSON-able values that ``from_dict`` reads back; ``name`` is among them."""

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Space:
        """The space that ``to_dict`` wrote; what is left out has its default.

        Raises:
            SpecError: an unknown key or a value out of range.
        """

    @classmethod
    def network_from_json(cls, text: str) -> SpaceNetwork:
        """The network that its ``to_json`` wrote.

        Raises:
            ImportFileError, SpecError: a text that is none.
        """


#: What a ``Space`` must be able to do.
METHODS = ("op_specs", "sample_many", "describe_sampler", "to_dict", "from_dict",
           "network_from_json")  # fmt: skip

_SPACES: dict[str, type[Space]] = {}

Class = TypeVar("Class", bound=type[Any])


def register_space(space: Class) -> Class:
    """Class decorator that makes a ``Space`` known by its name.

    Raises:
        SpecError: the name is taken by a space of another module, or the class lacks what a
            ``Space`` has.
    """
    lacking = [name for name in METHODS if not callable(getattr(space, name, None))]
    lacking += [name for name in ("name", "title") if not isinstance(getattr(space, name, 0), str)]
    if lacking:
        raise SpecError(
            f"{space.__name__} is no search space: it lacks {', '.join(lacking)}; name and title "
            "are texts, the others methods, see latlut.spaces.space.Space"
        )
    known = _SPACES.get(space.name)
    if known and (known.__module__, known.__qualname__) != (space.__module__, space.__qualname__):
        raise SpecError(f"the space {space.name!r} is already registered by {known.__module__}")
    _SPACES[space.name] = space
    return space


def space_class(name: str) -> type[Space]:
    """The space of that name.

    Raises:
        UnknownNameError: nothing is registered under it.
    """
    if name not in _SPACES:
        raise UnknownNameError(f"unknown search space {name!r}; {did_you_mean(name, [*_SPACES])}")
    return _SPACES[name]


def spaces_of(module_name: str) -> list[type[Space]]:
    """The spaces that the Python module of that name registered."""
    return [space for space in _SPACES.values() if space.__module__ == module_name]


def network_from_json(text: str) -> SpaceNetwork:
    """The network that a JSON text holds, of whichever space it names.

    Raises:
        ImportFileError: not JSON, or not what the space writes.
        UnknownNameError: the space is not registered here.
        SpecError: values that are no network.
    """
    values = parse_json(text, "a network")
    name = values.get("space") if isinstance(values, dict) else None
    if not isinstance(name, str):
        raise ImportFileError(f'not the JSON of a network, which has a "space": {text[:80]!r}')
    return space_class(name).network_from_json(text)
