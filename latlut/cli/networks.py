"""Networks by name on the command line: an architecture, a training's result, a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latlut.errors import LatlutError, UnknownNameError

if TYPE_CHECKING:
    from latlut.search.networks.deployable import Deployable

#: Image size where neither the command line nor a training says another: the paper's.
DEFAULT_SIZE = (1024, 2048)


def find_network(name: str, num_classes: int | None = None, seed: int = 0) -> Deployable:
    """The network that a name, a file or a folder stands for.

    Args:
        name: a shipped architecture or an architecture's JSON file, the folder of a training (or a
            file in it), or a baseline.
        num_classes: of a baseline or an architecture; its own or 19 if not given.
        seed: of weights that are not trained.

    Raises:
        UnknownNameError: there is nothing of that name; names what is known.
        LatlutError: a file that cannot be read, or classes asked of a trained network.
    """
    from dataclasses import replace

    from latlut.cli.estimate import find_architecture
    from latlut.errors import did_you_mean
    from latlut.search.networks.baselines import baseline_names
    from latlut.search.networks.deployable import from_architecture, from_baseline, from_training

    path = Path(name)
    shipped = shipped_architectures()
    if name in shipped or (path.suffix.lower() == ".json" and path.name != "model.json"):
        architecture = find_architecture(name)
        if num_classes is not None:
            architecture = replace(architecture, num_classes=num_classes)
        return from_architecture(architecture, path.stem, seed)
    if name in baseline_names():
        return from_baseline(name, num_classes or 19, seed)
    if not path.exists():
        known = [*shipped, *baseline_names()]
        raise UnknownNameError(f"no network, file or folder {name!r}; {did_you_mean(name, known)}")
    if path.is_file() and path.name not in ("model.json", "model.safetensors"):
        raise LatlutError(
            f"{name} is no network that can be read: name the folder of a training, an "
            "architecture's .json, a baseline, or an .onnx file for latlut bench"
        )
    if num_classes is not None:
        raise LatlutError(f"{name} is trained: its number of classes cannot be chosen")
    if path.is_dir() and (path / "student.json").is_file() and not (path / "model.json").exists():
        raise LatlutError(
            f"{name} is the folder of a search: name a network in it, {path / 'student.json'}"
        )
    return from_training(path)


def shipped_architectures() -> list[str]:
    """Names of the architectures that come with latlut."""
    from latlut.resources import profiles_dir

    return sorted(path.stem for path in (profiles_dir() / "architectures").glob("*.json"))
