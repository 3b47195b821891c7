"""Architecture: one discrete FasterSeg network, as a value, a JSON file and a graph.

A network is a stem down to 1/8 of the image, one or two branches of cells that end at 1/8, 1/16
or 1/32, a refinement of each coarse branch back up to 1/8, a fusion of the branches, the head and
the upsampling of its logits. Branches share their first cells for as long as these agree.

Symbols: F base width; a width is a number of twelfths, so that a map at 1/s has F * s * width / 12
channels (the paper's "expansion ratio"); H, W the sides of the image in pixels.

Source: FasterSeg, Sec. 3.1, 3.4 and Fig. 6; the stem, refinement and head follow the authors' code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlut.errors import ImportFileError, SpecError, did_you_mean
from latlut.files.reading import read_text
from latlut.files.strict_json import check_keys, checked_list, parse_json
from latlut.files.writing import why_not_written, written_whole
from latlut.opspec import IMAGE, Node, OpSpec
from latlut.spaces.shapes import (
    FULL_WIDTH,
    SCALES,
    channels,
    end_specs,
    refine_spec,
    stem_specs,
    whole_number,
)

#: Candidate operators of a cell, in the order of a row of alpha.
OPERATORS = ("skip", "conv", "conv_2x", "zoomed_conv", "zoomed_conv_2x")

MAX_CELLS = 1000

FORMAT = "latlut-architecture"
VERSION = 1
_FIELDS = ("base_width", "stem_width", "head_width", "num_classes", "branches")


@dataclass(frozen=True)
class Cell:
    """One operator of a branch.

    Raises:
        SpecError: an operator, width or flag that is none.
    """

    operator: str
    """Any of ``OPERATORS`` but ``"skip"``: a stride-1 skip is an identity and left out of a derived
    network, a stride-2 skip is replaced by the next best operator."""
    width: int
    """Twelfths of the full channels of its output."""
    is_down: bool = False
    """Whether it has stride 2, so that its output is at the next scale."""

    def __post_init__(self) -> None:
        if self.operator == "skip":
            raise SpecError(
                'the operator "skip" has no place in a derived network: leave a stride-1 skip out '
                "(it is an identity), give a stride-2 skip another operator"
            )
        if self.operator not in OPERATORS:
            known = [name for name in OPERATORS if name != "skip"]
            raise SpecError(
                f"unknown operator {self.operator!r}; {did_you_mean(str(self.operator), known)}"
            )
        object.__setattr__(self, "width", whole_number("width", self.width, 1, FULL_WIDTH))
        if not isinstance(self.is_down, bool):
            raise SpecError(f"is_down must be true or false, received {self.is_down!r}")


@dataclass(frozen=True)
class Branch:
    """The cells from 1/8 down to 1/scale. The number of down cells must lead to ``scale``.

    Raises:
        SpecError: no cells, another number of down cells, or a down cell at the end.
    """

    scale: int
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", tuple(self.cells))
        object.__setattr__(self, "scale", whole_number("a branch's scale", self.scale, 8, 32))
        if self.scale not in SCALES:
            raise SpecError(f"a branch ends at scale 8, 16 or 32, received {self.scale}")
        if not 1 <= len(self.cells) <= MAX_CELLS:
            raise SpecError(f"a branch has 1 to {MAX_CELLS} cells, received {len(self.cells)}")
        if self.cells[-1].is_down:
            raise SpecError("a branch's last cell cannot be a down cell: nothing follows it")
        downs = sum(cell.is_down for cell in self.cells)
        if 8 * 2**downs != self.scale:
            raise SpecError(
                f"a branch of scale {self.scale} has {SCALES.index(self.scale)} down cells, "
                f"received {downs}"
            )

    def output_scales(self) -> tuple[int, ...]:
        """The scale of each cell's output map."""
        scale, scales = 8, []
        for cell in self.cells:
            scale *= 2 if cell.is_down else 1
            scales.append(scale)
        return tuple(scales)


@dataclass(frozen=True, repr=False)
class Architecture:
    """A discrete FasterSeg network. Hashable; branches are kept in the order of their scales.

    Raises:
        SpecError: values that are no network: see the message.
    """

    stem_width: int
    head_width: int
    """``stem_width``, ``head_width``: twelfths (the published networks: 8 student, 12 teacher)."""
    branches: tuple[Branch, ...]
    """One or two, of different scales; the last cell of each has the head's width."""
    base_width: int = 12
    """F, channels per unit of scale at full width."""
    num_classes: int = 19
    """Channels of the logits."""

    def __post_init__(self) -> None:
        highest = {"base_width": 1024, "num_classes": 1 << 16}
        for name in ("base_width", "stem_width", "head_width", "num_classes"):
            number = whole_number(name, getattr(self, name), 1, highest.get(name, FULL_WIDTH))
            object.__setattr__(self, name, number)
        ordered = tuple(sorted(self.branches, key=lambda branch: branch.scale))
        object.__setattr__(self, "branches", ordered)
        scales = [branch.scale for branch in ordered]
        if len(scales) not in (1, 2) or len(set(scales)) != len(scales):
            raise SpecError(
                f"a network has one branch or two of different scales, received scales {scales}"
            )
        channels(self.base_width, 4, self.stem_width)
        channels(self.base_width, 8, self.head_width)
        for branch in ordered:
            if branch.cells[-1].width != self.head_width:
                raise SpecError(
                    f"the last cell of the 1/{branch.scale} branch must have the head's width "
                    f"{self.head_width}, received {branch.cells[-1].width}"
                )
            for cell, scale in zip(branch.cells, branch.output_scales(), strict=True):
                channels(self.base_width, scale, cell.width)

    def __repr__(self) -> str:
        branches = ", ".join(f"1/{item.scale} of {len(item.cells)} cells" for item in self.branches)
        return f"<Architecture: branches {branches}; head {self.head_width}/{FULL_WIDTH}>"

    @property
    def shared_cells(self) -> int:
        """How many leading cells both branches share; 0 for one branch.

        Cells are shared while operator, width and next scale agree. The last cell of a branch
        is its own.
        """
        if len(self.branches) == 1:
            return 0
        first, second = (branch.cells[:-1] for branch in self.branches)
        count = 0
        for mine, other in zip(first, second, strict=False):
            if mine != other:
                break
            count += 1
        return count

    def nodes(self, input_size: tuple[int, int] = (1024, 2048), batch: int = 1) -> tuple[Node, ...]:
        """The network as a graph, in order of execution; shared cells appear once.

        Names: ``stem.0``; ``shared.cell.1`` and ``branch32.cell.5``, numbered along the branch;
        ``branch32.refine.s16``; ``fusion``, ``head``, ``upsample``.

        Args:
            input_size: (height, width) of the image in pixels, any size; maps round up.
            batch: images per inference.

        Raises:
            SpecError: a size or batch out of range.
        """
        nodes: dict[str, Node] = {}

        def add(name: str, spec: OpSpec, inputs: tuple[str, ...]) -> str:
            nodes[name] = Node(name, spec, inputs)
            return name

        last = IMAGE
        stem = stem_specs(self.base_width, self.stem_width, input_size, batch)
        for index, spec in enumerate(stem):
            last = add(f"stem.{index}", spec, (last,))
        outputs = []
        for branch in self.branches:
            maps, widths = [last], [self.stem_width]  # the i-th enters cell i
            for index, (cell, scale) in enumerate(
                zip(branch.cells, branch.output_scales(), strict=True)
            ):
                owner = "shared" if index < self.shared_cells else f"branch{branch.scale}"
                name = f"{owner}.cell.{index}"
                if name not in nodes:
                    out = channels(self.base_width, scale, cell.width)
                    stride = 2 if cell.is_down else 1
                    shape = nodes[maps[-1]].spec.output
                    spec = OpSpec(cell.operator, shape, out, stride=stride, batch=batch)
                    add(name, spec, (maps[-1],))
                maps.append(name)
                widths.append(cell.width)
            coarse = maps[-1]
            # Back up to 1/8: at each scale with the map that entered the down cell there.
            downs = [index for index, cell in enumerate(branch.cells) if cell.is_down]
            for scale, index in reversed(list(zip((8, 16), downs, strict=False))):
                spec = refine_spec(
                    self.base_width, scale, self.head_width, widths[index], input_size, batch
                )
                coarse = add(f"branch{branch.scale}.refine.s{scale}", spec, (coarse, maps[index]))
            outputs.append(coarse)
        fusion, head, upsample = end_specs(
            self.base_width, self.head_width, len(outputs), self.num_classes, input_size, batch
        )
        add("fusion", fusion, tuple(outputs))
        add("head", head, ("fusion",))
        add("upsample", upsample, ("head",))
        return tuple(nodes.values())

    def op_specs(
        self, input_size: tuple[int, int] = (1024, 2048), batch: int = 1
    ) -> tuple[OpSpec, ...]:
        """The op spec of every node, in order; equal specs of two nodes appear twice.

        Raises:
            SpecError: a size or batch out of range.
        """
        return tuple(node.spec for node in self.nodes(input_size, batch))

    def describe(self) -> str:
        """A short text table: every node with its operator, channels and scale."""
        nodes = self.nodes((64, 64))
        branches = " and ".join(f"1/{branch.scale}" for branch in self.branches)
        lines = [
            f"FasterSeg network, branches at {branches}, {self.shared_cells} shared cells",
            f"stem {self.stem_width}/12, head {self.head_width}/12, base width "
            f"{self.base_width}, {self.num_classes} classes",
        ]
        for node in nodes:
            ins = "+".join(str(count) for count, _, _ in node.spec.inputs)
            scale = 64 // node.spec.out_size[0]
            where = f"to 1/{scale}" if node.spec.stride == 2 else f"at 1/{scale}"
            arrow = f"{ins} -> {node.spec.out_channels}"
            lines.append(f"  {node.name:<20} {node.spec.kind:<14} {arrow:>16}  {where}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """The versioned JSON text that ``from_json`` reads, one line per cell:

        {"format": "latlut-architecture", "version": 1, "space": "fasterseg",
         "base_width": 12, "stem_width": 8, "head_width": 8, "num_classes": 19,
         "branches": [{"scale": 16,
                       "cells": [{"operator": "conv", "width": 4, "is_down": false}, ...]}]}
        """
        head = {"format": FORMAT, "version": VERSION, "space": "fasterseg"}
        head |= {name: getattr(self, name) for name in _FIELDS[:-1]}
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
        branches = []
        for branch in self.branches:
            cells = ",\n".join(f"        {json.dumps(vars(cell))}" for cell in branch.cells)
            opening = f'    {{\n      "scale": {branch.scale},\n      "cells": [\n'
            branches.append(f"{opening}{cells}\n      ]\n    }}")
        body = ",\n".join(branches)
        return "{\n" + "\n".join(lines) + f'\n  "branches": [\n{body}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture that a JSON text holds.

        Raises:
            ImportFileError: not JSON, not this format, a newer version, missing or unknown keys.
            SpecError: values that are no network, with the place where they stand.
        """
        data = parse_json(text, "an architecture")
        _check_header(data)
        check_keys(data, ("format", "version", "space", *_FIELDS), "the architecture")
        if data["space"] != "fasterseg":
            raise ImportFileError(f'"space" must be "fasterseg", received {data["space"]!r:.80}')
        branches = []
        for index, item in enumerate(checked_list(data["branches"], "branches")):
            where = f"branches[{index}]"
            check_keys(item, ("scale", "cells"), where)
            cells = []
            for position, cell in enumerate(checked_list(item["cells"], f"{where}.cells")):
                place = f"{where}.cells[{position}]"
                check_keys(cell, ("operator", "width", "is_down"), place)
                cells.append(_built(place, Cell, **cell))
            branches.append(_built(where, Branch, scale=item["scale"], cells=tuple(cells)))
        values = {name: data[name] for name in _FIELDS} | {"branches": tuple(branches)}
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write the JSON text to a file.

        Raises:
            ImportFileError: the file cannot be written.
        """

        def refused(error: OSError) -> ImportFileError:
            return ImportFileError(f"cannot write {path}: {why_not_written(error)}")

        with written_whole(Path(path), refusal=refused, makes_folder=False) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        """The architecture in a JSON file.

        Raises:
            ImportFileError: no such file, or one that ``from_json`` cannot read.
            SpecError: values that are no network.
        """
        path = Path(path)
        text = read_text(path)
        try:
            return cls.from_json(text)
        except (ImportFileError, SpecError) as error:
            raise type(error)(f"{path}: {error}") from error


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


def _built(where: str, build: Any, **values: object) -> Any:
    """What ``build`` makes of the values; a refusal says where they stand."""
    try:
        return build(**values)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
