"""A trained network on disk: ``model.safetensors`` beside ``model.json``, in one folder.

    model.json    {"format": "latlut model", "version": 1, "kind": "architecture" or "baseline",
                   "architecture": {...} or the baseline's name, "num_classes", "classes",
                   "colours", "data", "input_size", "image_scale", "epoch", "mean_iou"}

Both are written whole, then moved into place: a full disk leaves what was there before.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from latlut.errors import ImportFileError, LatlutError
from latlut.files.reading import check_file
from latlut.files.strict_json import read_json
from latlut.files.writing import why_not_written, written_whole
from latlut.search.data.classes import MAX_CLASSES, Classes
from latlut.search.networks.baselines import baseline_on_meta, build_baseline
from latlut.search.networks.network import SegmentationNetwork
from latlut.search.runs.checkpoints import CheckpointError
from latlut.shell import command
from latlut.spaces import Architecture

FORMAT = "latlut model"
VERSION = 1
#: Weights of a network of four billion parameters.
MAX_WEIGHTS_BYTES = 16 << 30
#: As in the settings of a training.
IMAGE_SCALES = (1 / 64, 16)
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


@dataclass(frozen=True)
class ModelFacts:
    """What a trained network is."""

    architecture: Architecture | str
    """An Architecture, or the name of a baseline."""
    classes: Classes
    """Names and colours of what it tells apart."""
    data: str
    """What it was trained on."""
    input_size: tuple[int, int]
    """(height, width) in pixels of the images that it is meant for, after scaling."""
    image_scale: float = 1.0
    """Factor by which images are scaled before they enter it."""
    epoch: int | None = None
    """Whose weights these are, from 0; None if not known."""
    mean_iou: float = math.nan
    """Their score on the validation set, a fraction; NaN if not known."""

    @property
    def kind(self) -> str:
        """``architecture`` or ``baseline``."""
        return "baseline" if isinstance(self.architecture, str) else "architecture"

    @property
    def num_classes(self) -> int:
        """Channels of the logits."""
        return self.classes.count

    def at(self, epoch: int, mean_iou: float) -> ModelFacts:
        """The same network as it was after so many epochs."""
        return replace(self, epoch=epoch, mean_iou=mean_iou)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, complete."""
        own = self.architecture
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "architecture": own if isinstance(own, str) else json.loads(own.to_json()),
            "num_classes": self.num_classes,
            "classes": list(self.classes.names),
            "colours": [list(colour) for colour in self.classes.colours],
            "data": self.data,
            "input_size": list(self.input_size),
            "image_scale": self.image_scale,
            "epoch": self.epoch,
            "mean_iou": None if math.isnan(self.mean_iou) else self.mean_iou,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelFacts:
        """The facts that ``to_dict`` wrote.

        Raises:
            ImportFileError: something else, or of a newer version.
        """
        if values.get("format") != FORMAT or values.get("version") != VERSION:
            raise ImportFileError(
                f'expected "format": "{FORMAT}" and "version": {VERSION}, received '
                f"{values.get('format')!r} and {values.get('version')!r}"
            )
        try:
            own = values["architecture"]
            score = values["mean_iou"]
            height, width = map(_side, values["input_size"])
            names, colours = values["classes"], values["colours"]
            if not all(isinstance(name, str) for name in [*names, values["data"]]):
                raise ValueError("a name that is no text")
            classes = Classes(tuple(names), tuple(tuple(map(_byte, rgb)) for rgb in colours))  # type: ignore[misc]
            if _number(values["num_classes"], 1, MAX_CLASSES) != classes.count:
                raise ValueError(f"{values['num_classes']} classes, and {classes.count} names")
            epoch = values["epoch"]
            return cls(
                own if isinstance(own, str) else Architecture.from_json(json.dumps(own)),
                classes,
                values["data"],
                (height, width),
                float(_number(values["image_scale"], *IMAGE_SCALES)),
                None if epoch is None else _whole(epoch, 0, 10**9),
                math.nan if score is None else float(_number(score, 0, 1)),
            )
        except KeyError as error:
            raise ImportFileError(f"not the description of a model: no {error}") from error
        except (TypeError, ValueError, LatlutError) as error:
            raise ImportFileError(f"not the description of a model: {error}") from error


def _number(value: object, low: float, high: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{value!r:.40}, expected a number from {low:g} to {high:g}")
    return value  # type: ignore[return-value]


def _whole(value: object, low: int, high: int) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r:.40}, expected a whole number")
    return int(_number(value, low, high))


def _byte(value: object) -> int:
    return _whole(value, 0, 255)


def _side(value: object) -> int:
    return _whole(value, 1, 1 << 16)


def save_model(folder: Path, network: nn.Module, facts: ModelFacts) -> Path:
    """Write the network's weights and what it is; the folder.

    Args:
        folder: made where it is missing.
        network: on any device; auxiliary heads are written too.

    Raises:
        CheckpointError: it cannot be written (disk full, read-only); what was there before stays.
    """
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    text = json.dumps(facts.to_dict(), indent=2) + "\n"

    def refused(error: Exception) -> CheckpointError:
        code = re.search(r"\(os error (\d+)\)", str(error))
        cause = OSError(int(code[1]), os.strerror(int(code[1]))) if code else error
        reason = why_not_written(cause) if isinstance(cause, OSError) else cause
        return CheckpointError(
            f"cannot write the model {folder}: {reason}; the one before it is unharmed"
        )

    try:
        with written_whole(folder / DESCRIPTION, refusal=refused) as part:
            save_file(state, part.with_name(WEIGHTS))
            part.write_text(text, encoding="utf-8")
    except SafetensorError as error:
        raise refused(error) from error
    return folder


def load_model(path: str | Path) -> tuple[nn.Module, ModelFacts]:
    """A trained network in evaluation mode on the CPU, and what it is.

    Args:
        path: the folder of a training, or its ``model.json`` or ``model.safetensors``.

    Returns:
        image (B, 3, H, W), ImageNet-normalised, -> logits (B, C, H, W); an Architecture is a
        ``SegmentationNetwork``.

    Raises:
        ImportFileError: no trained model there, or one that cannot be read.
        LatlutError: weights of another network than the description names.
    """
    folder = Path(path)
    folder = folder.parent if folder.name in (WEIGHTS, DESCRIPTION) else folder
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise ImportFileError(
                f"no trained model in {path}: {folder / name} is missing; "
                f"train one with: {command('train', '--run', folder)} --arch FILE"
            )
    try:
        values = read_json(folder / DESCRIPTION, "a description")
        facts = ModelFacts.from_dict(values if isinstance(values, dict) else {})
        check_file(folder / WEIGHTS, MAX_WEIGHTS_BYTES)
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError, ImportFileError) as error:
        raise ImportFileError(f"{folder}: the model cannot be read: {error}") from error
    # Without weights: what a small file names may be larger than the memory.
    named = _network(facts, state, is_empty=True).state_dict()
    differing = sorted(
        name
        for name in named.keys() | state.keys()
        if name not in named or name not in state or named[name].shape != state[name].shape
    )
    if differing:
        raise LatlutError(
            f"{folder}: the weights are of another network than {DESCRIPTION} names: "
            f"{', '.join(differing)[:200]} missing, added or of another shape"
        )
    network = _network(facts, state)
    network.load_state_dict(state)
    return network.eval(), facts


def check_same_classes(facts: ModelFacts, classes: Classes, what: str) -> None:
    """Check that a trained network tells the data's classes apart.

    Raises:
        LatlutError: another number of classes, or other names.
    """
    mine, other = facts.classes.names, classes.names
    if len(mine) != len(other):
        raise LatlutError(
            f"{what} was trained for {len(mine)} classes ({facts.data}), the data has "
            f"{len(other)}: take one that was trained on this data"
        )
    if mine != other:
        number = next(index for index, name in enumerate(mine) if name != other[index])
        raise LatlutError(
            f"{what} was trained for other classes ({facts.data}): class {number} is "
            f"{mine[number]!r} there and {other[number]!r} in the data"
        )


def _network(facts: ModelFacts, state: Mapping[str, Tensor], is_empty: bool = False) -> nn.Module:
    """The network, with weights of its own or on the meta device."""
    own = facts.architecture
    if isinstance(own, str):
        return (baseline_on_meta if is_empty else build_baseline)(own, facts.num_classes)
    has_auxiliary = any(name.startswith("auxiliary_heads.") for name in state)
    with torch.device("meta" if is_empty else "cpu"):
        return SegmentationNetwork(own, has_auxiliary=has_auxiliary)
