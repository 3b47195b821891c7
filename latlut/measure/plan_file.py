"""The TOML grammar of a plan, for shipped plans and for one's own.

    format = 1
    name = "mine"                    # the file's name if left out
    description = "one line"
    input = "256x512"                # height x width; of a space, or of grids without a size
    batch = 1                        # or several: [1, 4]

then either a search space with its options

    [space]
    name = "fasterseg"
    widths = [4, 8, 12]

or grids and op specs. In a grid each key has one value or a list of them, and the grid is all
their combinations; keys other than those below are options of the operator.

    ops = ["conv 64->96 stride 1 at 128x256"]

    [[grid]]
    kind = ["zoomed_conv", "zoomed_conv_2x"]
    in_channels = [64, 128]          # "256,128", or [256, 128] inside a list, for two inputs
    out_channels = 96
    stride = [1, 2]                  # 1 if left out
    size = ["64x128", "32x64"]       # "8x16,16x32", or a list inside the list, for two inputs
    dilation = [1, 2]
    interpolation = "nearest"

Whether an operator of that kind exists is for the operators' registry to say, not for this file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import product
from math import prod
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from latlut.errors import ImportFileError, SpecError, UnknownNameError, did_you_mean
from latlut.files.toml_files import parse_toml
from latlut.operators.registry import option_names
from latlut.opspec import OpSpec, parse_size, unique
from latlut.spaces.checking import asked, check_space
from latlut.spaces.space import Space, space_class

FORMAT = 1

#: Of one file that are told.
_MOST_PROBLEMS = 20

_EXPECTED = {
    "name": "a text",
    "description": "a text",
    "input": 'a size such as "256x512"',
    "batch": "a whole number or a list of them",
    "space": "a table [space]",
    "ops": 'a list of texts such as "conv 64->96 stride 1 at 128x256"',
    "grid": "tables written as [[grid]]",
    "kind": "an operator's name or a list of them",
    "in_channels": 'a whole number, "256,128" for two inputs, or a list of these',
    "out_channels": "a whole number or a list of them",
    "stride": "a whole number or a list of them",
    "size": 'a size such as "32x64", "8x16,16x32" for two inputs, or a list of these',
}


class Grid(BaseModel):
    """One [[grid]] table; ``model_extra`` holds the operator's options."""

    model_config = ConfigDict(extra="allow", strict=True)

    kind: str | list[str]
    in_channels: int | str | list[int | str | list[int]]
    out_channels: int | list[int]
    stride: int | list[int] = 1
    size: str | list[str | list[str]] | None = None
    batch: int | list[int] | None = None


class PlanFile(BaseModel):
    """A plan's TOML file, with the types checked and nothing expanded."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: int
    name: str = ""
    description: str = ""
    input: str | None = None
    batch: int | list[int] = 1
    space: dict[str, Any] | None = None
    ops: list[str] = []
    grid: list[Grid] = []


def parse_plan(text: str, where: str) -> PlanFile:
    """The checked content of a plan's TOML text; ``where`` names the file in messages.

    Raises:
        ImportFileError: not TOML, or a newer format.
        SpecError: unknown or missing keys, values of another type.
    """
    data = parse_toml(text, where)
    found = data.get("format")
    if type(found) is int and found > FORMAT:
        raise ImportFileError(
            f"{where}: plan of format {found}, this latlut reads format {FORMAT}: upgrade latlut"
        )
    if type(found) is not int or found != FORMAT:
        raise SpecError(f"{where}: a plan begins with format = {FORMAT}, received {found!r}")
    try:
        content = PlanFile.model_validate(data)
    except ValidationError as error:
        problems = dict.fromkeys(
            _problem(data, item["type"], item["loc"]) for item in error.errors()[:_MOST_PROBLEMS]
        )
        raise SpecError("\n".join(f"{where}: {problem}" for problem in problems)) from None
    if content.space is not None and (content.grid or content.ops):
        raise SpecError(f"{where}: a plan has either [space] or [[grid]] and ops, received both")
    if content.space is None and not content.grid and not content.ops:
        raise SpecError(f"{where}: the plan is empty: it has no [space], [[grid]] or ops")
    return content


def _problem(data: dict[str, Any], kind: str, path: tuple[int | str, ...]) -> str:
    """One finding of the validation in words; ``path`` is where it stands."""
    table: Any = data
    model: type[BaseModel] = PlanFile
    place = ""
    if path[0] == "grid" and len(path) > 1:
        place = f"[[grid]] {int(path[1]) + 1}: "
        table, model, path = data["grid"][path[1]], Grid, path[2:]
        if not path:
            return f"{place}must be a table, received {table!r:.80}"
    key = str(path[0])
    known = list(model.model_fields)
    if kind == "missing":
        return f"{place}the key {key!r} is missing"
    if kind == "extra_forbidden":
        return f"{place}unknown key {key!r}; {did_you_mean(key, known)}"
    return f"{place}{key} must be {_EXPECTED[key]}, received {table[key]!r:.80}"


def expand_plan(
    content: PlanFile,
    where: str,
    input_size: tuple[int, int] | None,
    batch: int | Sequence[int] | None,
    max_specs: int,
) -> tuple[tuple[OpSpec, ...], dict[str, object] | None]:
    """The plan's op specs without repetition, and its space where it has one.

    Args:
        content: what ``parse_plan`` returned for the file called ``where``.
        input_size: (height, width) in pixels, instead of the file's.
        batch: images per inference, instead of all that the file says.
        max_specs: refuse a plan of more op specs.

    Raises:
        SpecError: a value out of range, a missing or useless input size, too many op specs.
        UnknownNameError: an unknown space.
    """
    try:
        if input_size is None and content.input is not None:
            input_size = parse_size(content.input)
    except SpecError as error:
        raise SpecError(f"{where}: input: {error}") from error
    batches = _axis(content.batch if batch is None else batch, f"{where}: batch")
    if content.space is not None:
        return _space_specs(content.space, where, input_size, batches, max_specs)
    needs_input = [grid.size is None for grid in content.grid]
    if input_size is not None and not any(needs_input):
        raise SpecError(
            f"{where}: the plan's operator configurations have their own sizes, an input "
            "size does not apply"
        )
    _check_count(content, where, len(batches), batch is not None, max_specs)
    specs: list[OpSpec] = []
    for number, text in enumerate(content.ops, start=1):
        has_batch = re.search(r"\sbatch=", text) is not None
        with _Place(f"{where}: ops, entry {number}"):
            spec = OpSpec.parse(text)
            keep = has_batch and batch is None
            specs += [spec] if keep else [spec.replace(batch=count) for count in batches]
    for number, grid in enumerate(content.grid, start=1):
        own = grid.batch if batch is None and grid.batch is not None else batches
        with _Place(f"{where}: [[grid]] {number}"):
            specs += _grid_specs(grid, input_size, _axis(own, "batch"))
    return unique(specs), None


def _space_specs(
    options: dict[str, Any],
    where: str,
    input_size: tuple[int, int] | None,
    batches: Sequence[int],
    max_specs: int,
) -> tuple[tuple[OpSpec, ...], dict[str, object]]:
    name = options.get("name")
    if not isinstance(name, str):
        raise SpecError(f'{where}: [space] needs a name, for instance name = "fasterseg"')
    try:
        kind = space_class(name)
    except UnknownNameError as error:
        raise UnknownNameError(f"{where}: {error}") from error
    if input_size is None:
        raise SpecError(f'{where}: a space needs an input size: input = "HEIGHTxWIDTH"')
    if not set(options).isdisjoint({"input_size", "batch"}):
        raise SpecError(f"{where}: input and batch stand above [space], not inside it")
    with _Place(f"{where}: [space]"):
        space = asked(name, "from_dict", lambda: kind.from_dict(options), is_plain=True)
        return specs_of_space(space, input_size, batches, max_specs)


def specs_of_space(
    space: Space, input_size: tuple[int, int], batches: Sequence[int], max_specs: int
) -> tuple[tuple[OpSpec, ...], dict[str, object]]:
    """A space's op specs at each batch, and what a plan and a table remember of it.

    Raises:
        SpecError: something is wrong with the space (``spaces.checking``), or too many op specs.
    """
    listed = asked(space.name, "op_specs", lambda: list(space.op_specs(input_size)), is_plain=True)
    total = len(listed) * len(batches)
    if total > max_specs:
        raise SpecError(f"the plan has {total} operator configurations, the limit is {max_specs}")
    specs = [spec for count in batches for spec in check_space(space, input_size, count)]
    described = {
        **space.to_dict(),
        "input_size": list(input_size),
        "batch": [int(b) for b in batches],
    }
    return unique(specs), described


def _check_count(
    content: PlanFile, where: str, batches: int, is_batch_given: bool, max_specs: int
) -> None:
    """Refuse a plan that is too large before anything is expanded."""
    total = len(content.ops) * batches
    for grid in content.grid:
        axes = [grid.kind, grid.in_channels, grid.out_channels, grid.stride, grid.size]
        axes += (grid.model_extra or {}).values()
        own = 1 if grid.batch is None else len(_axis(grid.batch, f"{where}: batch"))
        count = batches if is_batch_given or grid.batch is None else own
        total += count * prod(len(axis) if isinstance(axis, list) else 1 for axis in axes)
    if total > max_specs:
        raise SpecError(
            f"{where}: the plan has {total} operator configurations, the limit is {max_specs}"
        )


def _grid_specs(
    grid: Grid, input_size: tuple[int, int] | None, batches: Sequence[int]
) -> list[OpSpec]:
    options = {name: _option_axis(name, value) for name, value in (grid.model_extra or {}).items()}
    if grid.size is not None:
        sizes = [_sizes(item) for item in _axis(grid.size, "size")]
    elif input_size is not None:
        sizes = [(input_size,)]
    else:
        raise SpecError('the key "size" is missing, and the plan has no input')
    axes = [
        _axis(grid.kind, "kind"),
        [_in_channels(item) for item in _axis(grid.in_channels, "in_channels")],
        _axis(grid.out_channels, "out_channels"),
        _axis(grid.stride, "stride"),
        sizes,
        batches,
    ]
    specs = []
    for kind, ins, out, stride, maps, count in product(*axes):
        if len(maps) not in (1, len(ins)):
            raise SpecError(f"{len(ins)} input channel counts but {len(maps)} sizes")
        maps = maps * len(ins) if len(maps) == 1 else maps
        inputs = [(channels, *size) for channels, size in zip(ins, maps, strict=True)]
        for values in product(*options.values()):
            chosen = dict(zip(options, values, strict=True))
            specs.append(OpSpec(kind, inputs, out, stride=stride, batch=count, **chosen))
    return specs


def _axis(value: Any, name: str) -> list[Any]:
    items = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not items:
        raise SpecError(f"{name}: an empty list leaves nothing to measure")
    return items


def _in_channels(item: int | str | list[int]) -> tuple[int, ...]:
    """One entry of in_channels: the channels of each input map."""
    if isinstance(item, int):
        return (item,)
    if isinstance(item, list):
        return tuple(item)
    if not re.fullmatch(r"\s*[0-9]{1,6}\s*(,\s*[0-9]{1,6}\s*)*", item):
        raise SpecError(f'in_channels: expected numbers such as "256,128", received {item!r:.80}')
    return tuple(int(part) for part in item.split(","))


def _sizes(item: str | list[str]) -> tuple[tuple[int, int], ...]:
    """One entry of size: the (height, width) of each input map."""
    parts = item if isinstance(item, list) else item.split(",")
    return tuple(parse_size(part) for part in parts)


def _option_axis(name: str, value: Any) -> list[Any]:
    """The values of an operator's option; a misspelt key of the grid is no option."""
    words = [*Grid.model_fields, *option_names()]
    if name not in words and (close := get_close_matches(name, words, n=1, cutoff=0.8)):
        raise SpecError(f"unknown key {name!r}; did you mean {close[0]!r}?")
    if name in {"self", "inputs"}:
        raise SpecError(f"unknown key {name!r}; {did_you_mean(name, words)}")
    items = []
    for item in _axis(value, name):
        if isinstance(item, str) and re.fullmatch(r"[0-9]{1,6}(x[0-9]{1,6})+", item):
            item = tuple(int(part) for part in item.split("x"))
        items.append(item)
    return items


class _Place:
    """Puts the place in front of a SpecError raised inside the block."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SpecError):
            raise SpecError(f"{self.place}: {error}") from error
