"""What a name stands for: a network to train, to export, to measure or to compare.

    fasterseg      an architecture that comes with latlut
    architecture   an architecture's .json
    trained        the folder of a training, or a file of the model in it
    baseline       a hand-designed network
    onnx           an .onnx file                      (to compare and measure alone)
    published      numbers of a paper alone           (to compare alone)

Each function below says which of them it takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from latlut.errors import LatlutError, SpecError, UnknownNameError, did_you_mean
from latlut.files.kinds import but_it_is, kind_of_file
from latlut.operators.onnx_files import OnnxWorkload, read_onnx
from latlut.operators.workloads import Workload
from latlut.search.networks.baselines import (
    CAS,
    FASTERSEG,
    Published,
    baseline_names,
    published,
)
from latlut.search.networks.cost import (
    NetworkCost,
    cost_of_architecture,
    cost_of_baseline,
)
from latlut.search.networks.deployable import (
    Deployable,
    from_architecture,
    from_baseline,
    from_training,
)
from latlut.search.networks.model_files import DESCRIPTION, WEIGHTS, load_model
from latlut.spaces import Architecture
from latlut.spaces.shipped import find_architecture, shipped_architectures

Kind = Literal["baseline", "fasterseg", "architecture", "trained", "onnx", "published"]

#: Light enough that all of them are measured on two CPU cores in a minute or two.
QUICK = ("fasterseg-student", "enet", "fast-scnn", "bisenet-v2", "icnet")
_CAS = "cas"


def kind_of(name: str) -> Kind | None:
    """What a name stands for by its form; whether a file is there is not asked. None: neither."""
    path = Path(name)
    if name in shipped_architectures():
        return "fasterseg"
    if name in baseline_names():
        return "baseline"
    if name == _CAS:
        return "published"
    if path.name in (DESCRIPTION, WEIGHTS) or (path / DESCRIPTION).exists():
        return "trained"
    if path.suffix.lower() == ".json":
        return "architecture"
    return "onnx" if path.suffix.lower() == ".onnx" else None


def find_network(name: str, num_classes: int | None = None) -> Deployable:
    """The network to deploy: an architecture, one that is trained, or a baseline.

    Args:
        name: what stands for it.
        num_classes: of a baseline or an architecture; its own or 19 if not given.

    Raises:
        UnknownNameError: there is nothing of that name; names what is known.
        LatlutError: a file that cannot be read, or classes asked of a trained network.
    """
    kind, path = kind_of(name), Path(name)
    if kind in ("fasterseg", "architecture"):
        architecture = find_architecture(name)
        if num_classes is not None:
            architecture = replace(architecture, num_classes=num_classes)
        return from_architecture(architecture, path.stem)
    if kind == "baseline":
        return from_baseline(name, num_classes or 19)
    if not path.exists():
        known = [*shipped_architectures(), *baseline_names()]
        raise UnknownNameError(f"no network, file or folder {name!r}; {did_you_mean(name, known)}")
    if path.is_file() and kind != "trained":
        raise LatlutError(
            f"{name} is no network that can be read{_instead(path)}: name the folder of a "
            "training, an architecture's .json, a baseline, or an .onnx file for latlut bench"
        )
    if num_classes is not None:
        raise LatlutError(f"{name} is trained: its number of classes cannot be chosen")
    if path.is_dir() and kind != "trained" and (path / "student.json").is_file():
        raise LatlutError(
            f"{name} is the folder of a search: name a network in it, {path / 'student.json'}"
        )
    return from_training(path)


def _instead(path: Path) -> str:
    """What the file is, and what times it, where that is known."""
    kind = kind_of_file(path)
    if path.suffix.lower() == ".xml" or "OpenVINO" in kind:
        return (
            " (a model of OpenVINO: its benchmark_app times it, bench the ONNX file it came from)"
        )
    if path.suffix.lower() in (".engine", ".plan", ".trt") or "TensorRT" in kind:
        return (
            " (a TensorRT engine: trtexec --loadEngine times it, bench the ONNX file it came from)"
        )
    return f" ({kind})" if kind else ""


def find_student(
    name: str, teacher: str | None = None
) -> tuple[Architecture, Architecture | Path | None]:
    """The architecture to train and its teacher.

    Args:
        name: an architecture, or the folder of a search, which has a teacher.
        teacher: see ``find_teacher``; that of a search's folder if not given.

    Raises:
        UnknownNameError, ImportFileError, SpecError: see ``find_architecture``.
    """
    folder = Path(name)
    if not folder.is_dir():
        return find_architecture(name), find_teacher(teacher)
    student = Architecture.load(folder / "student.json")
    return student, find_teacher(teacher or str(folder / "teacher.json"))


def find_teacher(name: str | None) -> Architecture | Path | None:
    """The teacher of a training: an architecture, the folder of a training, or none.

    Raises:
        UnknownNameError, ImportFileError, SpecError: see ``find_architecture``.
    """
    if name is None or name == "none":
        return None
    path = Path(name)
    is_architecture = path.is_file() or not (path.exists() or "/" in name)
    if is_architecture and path.name not in (DESCRIPTION, WEIGHTS):
        return find_architecture(name)
    return path


@dataclass(frozen=True)
class Contender:
    """A network that takes part in a comparison."""

    name: str
    """As it was asked for."""
    kind: Kind
    """``published`` has numbers of a paper alone and cannot be counted or measured."""
    published: Published | None = None
    """What a paper says of it."""
    architecture: Architecture | None = None
    """Of a network of the FasterSeg space. baseline: name of any other one that latlut can build.
    num_classes: of its logits."""
    baseline: str | None = None
    num_classes: int = 19
    own_miou_percent: float | None = None
    """Of a trained network, on the validation set of the data it was trained on."""
    own_data: str = ""
    """That data. own_size: (height, width) of its images, as the network sees them."""
    own_size: tuple[int, int] | None = None
    failure: str = ""
    """Why the file cannot be read."""

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
            return self.file(input_size)
        if self.kind == "published":
            raise SpecError(f"{self.title}: only its published numbers are known")
        return replace(find_network(self.name), name=self.name).workload(input_size)

    def cost(self, input_size: tuple[int, int]) -> NetworkCost | None:
        """Its counts; None where only published numbers are known, and of a file.

        Those of a file are ``cost_of_onnx``'s of its workload.
        """
        if self.architecture is not None:
            return cost_of_architecture(self.architecture, input_size)
        if self.baseline is not None:
            return cost_of_baseline(self.baseline, input_size, self.num_classes)
        return None

    def file(self, input_size: tuple[int, int]) -> OnnxWorkload:
        """The ONNX file as it is where it fixes its shapes, else at (height, width).

        Raises:
            ImportFileError: the file cannot be read.
            SpecError: its shapes are open, and no size of an image settles them.
        """
        try:
            return read_onnx(self.name, name=self.name)
        except SpecError:
            return read_onnx(self.name, input_size, name=self.name)


def contender_names() -> list[str]:
    """What can be named without a file, FasterSeg first."""
    return [*shipped_architectures(), *baseline_names(), _CAS]


def find_contender(name: str) -> Contender:
    """The network to compare: any kind.

    Raises:
        UnknownNameError: no such name or file; names the nearest.
        ImportFileError: a file that cannot be read.
    """
    kind, path = kind_of(name), Path(name)
    if kind == "baseline":
        return Contender(name, kind, published(name), baseline=name)
    if kind == "published":
        return Contender(name, kind, CAS)
    if kind == "fasterseg":
        return Contender(name, kind, FASTERSEG.get(name), find_architecture(name))
    if kind == "onnx" and path.exists():
        return Contender(name, kind)
    if kind == "trained" and path.name != WEIGHTS:
        facts = load_model(path)[1]
        own = facts.architecture
        return Contender(
            name, kind, None,
            None if isinstance(own, str) else own,
            own if isinstance(own, str) else None,
            facts.num_classes,
            None if math.isnan(facts.mean_iou) else 100 * facts.mean_iou,
            facts.data,
            facts.input_size,
        )  # fmt: skip
    if kind == "architecture" and path.exists():
        return Contender(name, kind, architecture=Architecture.load(path))
    raise UnknownNameError(
        f"no network {name!r}: neither a name nor an architecture's .json, an .onnx file or the "
        f"folder of a training; {did_you_mean(name, contender_names())}"
    )


def find_contenders(names: Sequence[str]) -> list[Contender]:
    """One network per name, each once; ``all`` means every name, ``quick`` the light ones.

    A file that cannot be read is a contender with a ``failure``.

    Raises:
        UnknownNameError: a name that is no file's.
    """
    groups = {"all": contender_names(), "quick": list(QUICK)}
    spread = [name for item in names for name in groups.get(item, [item])]
    return [_found_or_failed(name) for name in dict.fromkeys(spread)]


def _found_or_failed(name: str) -> Contender:
    path = Path(name)
    try:
        return find_contender(name)
    except LatlutError as error:
        if not (path.suffix or path.exists()):
            raise
        is_other = path.suffix.lower() not in (".onnx", ".json") and kind_of_file(path)
        reason = f"{name}{but_it_is(path)}" if is_other else str(error)
        return Contender(name, "onnx", failure=reason)
