"""What can be compared, found by name: baselines, FasterSeg's networks, files of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latlut.errors import SpecError, UnknownNameError, did_you_mean
from latlut.operators.onnx_files import OnnxWorkload, read_onnx
from latlut.operators.workloads import Workload
from latlut.resources import profiles_dir
from latlut.search.networks.baselines import (
    CAS,
    FASTERSEG,
    Published,
    baseline_names,
    build_baseline,
    published,
)
from latlut.search.networks.cost import (
    NetworkCost,
    cost_of_architecture,
    cost_of_baseline,
    cost_of_onnx,
)
from latlut.search.networks.deployable import from_training
from latlut.search.networks.model_files import DESCRIPTION, load_model
from latlut.spaces import Architecture

Kind = Literal["baseline", "fasterseg", "architecture", "trained", "onnx", "published"]

#: Light enough that all of them are measured on two CPU cores in a minute or two.
QUICK = ("fasterseg-student", "enet", "fast-scnn", "bisenet-v2", "icnet")
_CAS = "cas"


@dataclass(frozen=True)
class Contender:
    """A network that takes part in a comparison.

    Args:
        name: as it was asked for.
        kind: ``published`` has numbers of a paper alone and cannot be counted or measured.
        published: what a paper says of it.
        architecture: of a network of the FasterSeg space.
        path: of a file or folder of one's own.
        own_miou_percent: of a trained network, on the validation set of the data it was trained
            on.
        own_data: that data.
    """

    name: str
    kind: Kind
    published: Published | None = None
    architecture: Architecture | None = None
    path: Path | None = None
    own_miou_percent: float | None = None
    own_data: str = ""
    own_size: tuple[int, int] | None = None

    @property
    def title(self) -> str:
        """The network's name as its paper writes it, else its own."""
        return self.published.title if self.published else self.name

    @property
    def paper_size(self) -> tuple[int, int] | None:
        """(height, width) at which its paper states its speed, or that it was trained for."""
        return self.published.input_size if self.published else self.own_size

    def workload(self, input_size: tuple[int, int]) -> Workload:
        """What an engine runs: image in, logits at the image's size out, seeded weights.

        An ONNX file is run as it is. One of a fixed size is given at that size, whatever
        ``input_size`` says.

        Raises:
            SpecError: numbers of a paper alone.
            ImportFileError: the file cannot be read.
        """
        if self.kind == "onnx":
            return self._onnx(input_size)
        name = f"{self.name} at {input_size[0]}x{input_size[1]}"
        if self.kind == "trained" and self.path is not None:
            module = from_training(self.path).module(input_size)
        elif self.architecture is not None:  # its exported graph is kept in the cache
            return Workload.from_nodes(self.architecture.nodes(input_size), name)
        elif self.kind == "baseline":
            module = build_baseline(self.name)
        else:
            raise SpecError(f"{self.title}: only its published numbers are known")
        return Workload.from_module(module, [(1, 3, *input_size)], name)

    def cost(self, input_size: tuple[int, int]) -> NetworkCost | None:
        """Its counts, None where only published numbers are known.

        Raises:
            ImportFileError: the file cannot be read.
        """
        if self.architecture is not None:
            return cost_of_architecture(self.architecture, input_size)
        if self.kind == "onnx":
            return cost_of_onnx(self._onnx(input_size))
        if self.kind == "trained" and self.path is not None:
            facts = load_model(self.path)[1]
            return cost_of_baseline(str(facts.architecture), input_size, facts.num_classes)
        return None if self.kind == "published" else cost_of_baseline(self.name, input_size)

    def size_at(self, input_size: tuple[int, int]) -> tuple[int, int]:
        """The size that it runs at where ``input_size`` is asked for."""
        if self.kind != "onnx":
            return input_size
        shape = self._onnx(input_size).input_shapes[0]
        return (shape[-2], shape[-1]) if len(shape) == 4 else input_size

    def _onnx(self, input_size: tuple[int, int]) -> OnnxWorkload:
        path = self.path or Path(self.name)
        try:
            return read_onnx(path, input_size, batch=1, name=self.name)
        except SpecError:
            return read_onnx(path, name=self.name)


def contender_names() -> list[str]:
    """What can be named without a file, FasterSeg first."""
    return [*_shipped(), *baseline_names(), _CAS]


def find_contender(name: str) -> Contender:
    """The network of a name, or of an architecture's JSON, an ONNX file or a training's folder.

    Raises:
        UnknownNameError: no such name or file; names the nearest.
        ImportFileError: a file that cannot be read.
    """
    if name in baseline_names():
        return Contender(name, "baseline", published(name))
    if name == _CAS:
        return Contender(name, "published", CAS)
    shipped = _shipped()
    if name in shipped:
        architecture = Architecture.load(shipped[name])
        return Contender(name, "fasterseg", FASTERSEG.get(name), architecture)
    path = Path(name)
    if path.suffix.lower() == ".onnx" and path.exists():
        return Contender(name, "onnx", path=path)
    if (path / DESCRIPTION).exists() or path.name == DESCRIPTION:
        facts = load_model(path)[1]
        score = None if math.isnan(facts.mean_iou) else 100 * facts.mean_iou
        own = facts.architecture
        architecture_or_none = None if isinstance(own, str) else own
        return Contender(
            name, "trained", None, architecture_or_none, path, score, facts.data, facts.input_size
        )
    if path.suffix.lower() == ".json" and path.exists():
        return Contender(name, "architecture", architecture=Architecture.load(path), path=path)
    raise UnknownNameError(
        f"no network {name!r}: neither a name nor an architecture's .json, an .onnx file or the "
        f"folder of a training; {did_you_mean(name, contender_names())}"
    )


def find_contenders(names: Sequence[str]) -> list[Contender]:
    """One network per name, each once; ``all`` means every name, ``quick`` the light ones.

    Raises:
        UnknownNameError, ImportFileError: see ``find_contender``.
    """
    groups = {"all": contender_names(), "quick": list(QUICK)}
    spread = [name for item in names for name in groups.get(item, [item])]
    return [find_contender(name) for name in dict.fromkeys(spread)]


def _shipped() -> dict[str, Path]:
    folder = profiles_dir() / "architectures"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}
