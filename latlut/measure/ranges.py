"""Op specs in which numbers are ranges: what ``latlut scan`` goes over.

conv 64->{32..128} stride 1 at 64x128            every number from 32 to 128
conv 64->{32..128..8} at 64x128                  in steps of 8
conv 64->64 at 64x128 kernel_size={1,3,5}        a list, also of words
conv {c=16..64}->{c} at 64x128                   one parameter in two places
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeAlias

from latlut.errors import SpecError
from latlut.opspec import MAX_TEXT, OpSpec

Value: TypeAlias = int | str

MOST_PARAMETERS = 2
#: More points than this are not even listed.
MOST_LISTED = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")
_WORD = re.compile(r"\w+(?:\.\w+)*")
_NAME = re.compile(r"[A-Za-z_]\w*")
_HOW = "a range reads like {32..128}, {32..128..8} or {1,3,5}, named {c=16..64} and again {c}"


@dataclass(frozen=True)
class Parameter:
    """What is varied, and over which values, increasing where they are numbers."""

    name: str
    values: tuple[Value, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers, so that there can be steps between them."""
        return all(isinstance(value, int) for value in self.values)


@dataclass(frozen=True)
class OpGrid:
    """All op specs that a text with ranges names.

    Raises:
        SpecError: a combination of values is no op spec.
    """

    text: str
    parameters: tuple[Parameter, ...]
    _template: str

    @property
    def size(self) -> int:
        """How many points there are."""
        return prod(len(parameter.values) for parameter in self.parameters)

    def points(self) -> Iterator[tuple[tuple[Value, ...], OpSpec]]:
        """(value of each parameter, op spec), the last parameter changing fastest."""
        for values in product(*(parameter.values for parameter in self.parameters)):
            yield values, OpSpec.parse(self._template.format(*values))


def parse_grid(text: str) -> OpGrid:
    """The op specs that a text with one or two ranges names.

    Raises:
        SpecError: no range, a third one, an empty one, one that cannot be read, or far too many
            points.
    """
    if len(text) > MAX_TEXT:
        raise SpecError(
            f"an operator configuration of {len(text)} characters, expected {MAX_TEXT} at most"
        )
    parameters: list[Parameter] = []
    named: dict[str, int] = {}
    template, place = "", 0
    for match in _BRACES.finditer(text):
        template += _plain(text[place : match.start()], text)
        name, equals, content = match[1].rpartition("=")
        name, content = name.strip(), content.strip()
        if equals and (not _NAME.fullmatch(name) or name in named):
            raise SpecError(f"{{{match[1]}}} in {text!r}: a name is one word, given once; {_HOW}")
        number = named.get(content) if not equals else None
        if number is None:
            number = len(parameters)
            called = name or _name_at(text, match)
            parameters.append(Parameter(called, _values(content, text)))
            named |= {name: number} if name else {}
        template += f"{{{number}}}"
        place = match.end()
    template += _plain(text[place:], text)
    if not parameters:
        raise SpecError(f"{text!r} has no range to scan: {_HOW}")
    if len(parameters) > MOST_PARAMETERS:
        raise SpecError(
            f"{text!r} varies {len(parameters)} parameters, a scan {MOST_PARAMETERS} at most: fix "
            "the others, or scan once for each of their values"
        )
    return OpGrid(text, tuple(_distinct(parameters)), template)


def _plain(part: str, text: str) -> str:
    if "{" in part or "}" in part:
        raise SpecError(f"a brace of {text!r} has no partner: {_HOW}")
    return part


def _values(content: str, text: str) -> tuple[Value, ...]:
    found: list[Value] = []
    for item in (part.strip() for part in content.split(",")):
        if match := _RANGE.fullmatch(item):
            first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
            if last < first or step < 1:
                raise SpecError(
                    f"the range {item} of {text!r} is empty: it goes from {first} up to {last} in "
                    f"steps of {step}"
                )
            if (last - first) // step >= MOST_LISTED:
                raise SpecError(
                    f"the range {item} of {text!r} has more than {MOST_LISTED} values: use larger "
                    f"steps, {{{first}..{last}..STEP}}"
                )
            found += range(first, last + 1, step)
        elif re.fullmatch(r"[0-9]{1,9}", item):
            found.append(int(item))
        elif _WORD.fullmatch(item):
            found.append(item)
        else:
            raise SpecError(f"cannot read {item!r} in {{{content}}} of {text!r}: {_HOW}")
    if all(isinstance(value, int) for value in found):
        return tuple(sorted(set(found)))
    return tuple(dict.fromkeys(found))


def _name_at(text: str, match: re.Match[str]) -> str:
    """What stands at the place of a range."""
    before, after = text[: match.start()], text[match.end() :]
    if option := re.search(r"(\w+)=\S*$", before):
        return option[1]
    if not before.strip():
        return "kind"
    if "->" in after:
        return "input channels"
    if before.rstrip().endswith("->"):
        return "output channels"
    if re.search(r"\bstride\s+\S*$", before):
        return "stride"
    if re.search(r"\bat\s+\S*$", before):
        return "height" if after.startswith("x") else "width" if before.endswith("x") else "size"
    return "value"


def _distinct(parameters: Sequence[Parameter]) -> Iterator[Parameter]:
    """The parameters, those of one name numbered."""
    names = [parameter.name for parameter in parameters]
    for number, parameter in enumerate(parameters):
        is_twin = names.count(parameter.name) > 1
        called = f"{parameter.name} {number + 1}" if is_twin else parameter.name
        yield Parameter(called, parameter.values)
