"""Networks that are ONNX files: what ``validate`` measures and ``calibrate`` learns from.

No space to sample from: the files that were named. A network is kept as the pieces that it was cut
into, so that a table prices it again without the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from latlut.errors import ImportFileError, SpecError
from latlut.files.strict_json import parse_json
from latlut.opspec import Node, OpSpec
from latlut.spaces.space import register_space

if TYPE_CHECKING:
    from latlut.operators.workloads import Workload


@dataclass(frozen=True)
class OnnxNetwork:
    """A file as its pieces; its input sizes are its own."""

    name: str
    """Of the file."""
    family: str
    """What calibrations are tried on as a whole; the name's first word if nothing else is said."""
    counts: tuple[tuple[OpSpec, int], ...]
    """Each piece, and how often it is executed."""
    workload: Workload | None = field(default=None, compare=False, repr=False)
    """The file as engines run it; None of a network that a table holds."""

    has_own_size: ClassVar[bool] = True

    @classmethod
    def of_pieces(
        cls, name: str, specs: Iterable[OpSpec], workload: Workload | None = None, family: str = ""
    ) -> OnnxNetwork:
        """The network of a file that was cut into ``specs``, one per execution."""
        counts = tuple(Counter(specs).items())
        return cls(name, family or family_of(name), counts, workload)

    def op_specs(self, input_size: tuple[int, int] = (0, 0), batch: int = 1) -> tuple[OpSpec, ...]:
        """One op spec per execution of a piece; sizes and batch are the file's own."""
        return tuple(spec for spec, count in self.counts for _ in range(count))

    def nodes(self, input_size: tuple[int, int] = (0, 0), batch: int = 1) -> Sequence[Node]:
        """Refused: pieces do not say how they are connected.

        Raises:
            SpecError: always.
        """
        raise SpecError(f"{self.name}: the pieces of a file are no graph of operators")

    def to_json(self) -> str:
        """See ``SpaceNetwork``."""
        import json

        pieces = [[spec.key, count] for spec, count in self.counts]
        return json.dumps(
            {"space": OnnxFiles.name, "name": self.name, "family": self.family, "pieces": pieces}
        )


@register_space
class OnnxFiles:
    """A list of ONNX files in place of a space."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX"

    def __init__(self, networks: Sequence[OnnxNetwork] = ()) -> None:
        self.networks = tuple(networks)

    def op_specs(self, input_size: tuple[int, int] = (0, 0), batch: int = 1) -> list[OpSpec]:
        """Every piece of the files."""
        return list(dict.fromkeys(s for network in self.networks for s in network.op_specs()))

    def sample_many(self, count: int, seed: int) -> Sequence[OnnxNetwork]:
        """The files, in their order."""
        return self.networks[:count]

    def describe_sampler(self) -> str:
        """Which files."""
        names = ", ".join(network.name for network in self.networks)
        return f"{len(self.networks)} ONNX files: {names}"

    def to_dict(self) -> dict[str, object]:
        """Its name; files are not remembered."""
        return {"name": self.name}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> OnnxFiles:
        """Refused, with SpecError: no plan can name files that lie anywhere."""
        raise SpecError("ONNX files are no space of a plan: name them with --onnx")

    @classmethod
    def network_from_json(cls, text: str) -> OnnxNetwork:
        """The network that ``to_json`` wrote.

        Raises:
            ImportFileError, SpecError: a text that is none.
        """
        values = parse_json(text, "a network")
        try:
            counts = tuple((OpSpec.parse(key), _count(n)) for key, n in values["pieces"])
            return OnnxNetwork(str(values["name"]), str(values["family"]), counts)
        except (KeyError, TypeError, ValueError) as error:
            raise ImportFileError(f"not the JSON of an ONNX file's pieces: {error}") from error


def family_of(name: str) -> str:
    """The first word of a file's name: ``resnet`` of ``resnet-18.onnx``."""
    return re.split(r"[-_.]", name, maxsplit=1)[0] or name


def _count(value: object) -> int:
    if type(value) is not int or not 1 <= value <= 1_000_000:
        raise ValueError(f"a piece is executed {value!r:.40} times")
    return value
