"""What a network of a search space chooses, and which op specs each combination decides on.

    Choices(
        (Choice("kernel", (3, 5, 7), "operator"), Choice("width", (16, 24), "width")),
        (Part(("kernel", "width"), lambda kernel, width: OpSpec(..., width, kernel_size=kernel)),),
    )

A part may depend on any number of choices. One: a layer that picks an operator. Two: a layer
between maps of searched widths, whose latency depends on the pair (width in, width out). Three:
both at once. The latency of a network is the sum over its parts, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from latlut.errors import SpecError
from latlut.opspec import OpSpec, unique

#: Combinations of all parts together; each is an op spec or several.
MAX_COMBINATIONS = 1_000_000


@dataclass(frozen=True)
class Choice:
    """One thing that a network chooses."""

    name: str
    """What it is called; no two of a space share a name."""
    options: tuple[Any, ...]
    """What it can be, in the order of its logits."""
    group: str = "operator"
    """Kind of choice, for ``latlut sensitivity``: operator, width, ..."""


@dataclass(frozen=True)
class Part:
    """Op specs that some choices decide on."""

    choices: tuple[str, ...]
    """Names of the choices; none for what every network executes."""
    specs: Callable[..., OpSpec | Sequence[OpSpec] | None]
    """From an option of each, in order: an op spec, several that are executed one after the other,
    or None for an identity, which costs nothing."""


@dataclass(frozen=True)
class Choices:
    """All choices of a space, and its parts.

    Raises:
        SpecError: names that repeat or that no choice has, a choice without options, or more than
            a million combinations.
    """

    choices: tuple[Choice, ...]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        counts = self.counts
        if len(counts) < len(self.choices):
            raise SpecError("two choices have the same name")
        if empty := [name for name, count in counts.items() if not count]:
            raise SpecError(f"the choice {empty[0]!r} has no options")
        for part in self.parts:
            if wrong := [name for name in part.choices if name not in counts]:
                raise SpecError(f"a part depends on {wrong[0]!r}, which no choice is called")
            if len(set(part.choices)) < len(part.choices):
                raise SpecError(f"a part names a choice twice: {', '.join(part.choices)}")
        total = sum(prod(counts[name] for name in part.choices) for part in self.parts)
        if total > MAX_COMBINATIONS:
            raise SpecError(
                f"{total} combinations, the limit is {MAX_COMBINATIONS}: let a part depend on "
                "fewer choices"
            )

    @property
    def counts(self) -> dict[str, int]:
        """Name of each choice -> how many options it has."""
        return {choice.name: len(choice.options) for choice in self.choices}

    @property
    def groups(self) -> dict[str, tuple[Choice, ...]]:
        """Kind of choice -> the choices of it that have more than one option."""
        real = [choice for choice in self.choices if len(choice.options) > 1]
        names = dict.fromkeys(choice.group for choice in real)
        return {name: tuple(c for c in real if c.group == name) for name in names}

    def combinations(self, part: Part) -> Iterator[tuple[tuple[int, ...], tuple[OpSpec, ...]]]:
        """(numbers of the options, op specs) of every combination of a part's choices.

        Raises:
            SpecError: the part gives something else than op specs.
        """
        by_name = {choice.name: choice.options for choice in self.choices}
        options = [list(enumerate(by_name[name])) for name in part.choices]
        for combination in product(*options):
            found = part.specs(*(option for _, option in combination))
            yield tuple(number for number, _ in combination), block(found)

    def op_specs(self) -> tuple[OpSpec, ...]:
        """Every op spec that any combination needs, without repetition."""
        return unique(
            spec for part in self.parts for _, specs in self.combinations(part) for spec in specs
        )

    def of(self, picks: Mapping[str, int]) -> tuple[OpSpec, ...]:
        """The op specs of one network, in order of the parts.

        Args:
            picks: name of each choice -> number of its option.
        """
        by_name = {choice.name: choice.options for choice in self.choices}
        return tuple(
            spec
            for part in self.parts
            for spec in block(part.specs(*(by_name[name][picks[name]] for name in part.choices)))
        )


def block(found: OpSpec | Sequence[OpSpec] | None) -> tuple[OpSpec, ...]:
    """The op specs of a candidate: none of None, one, or several.

    Raises:
        SpecError: something else.
    """
    if found is None:
        return ()
    specs = (found,) if isinstance(found, OpSpec) else tuple(found)
    if wrong := [item for item in specs if not isinstance(item, OpSpec)]:
        raise SpecError(
            f"a candidate is an operator configuration, several, or None; received {wrong[0]!r:.80}"
        )
    return specs
