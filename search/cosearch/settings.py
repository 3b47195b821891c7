"""Settings of a search: validated values from a preset's TOML file, overridden by flags.

The shipped presets are ``tiny`` (a CPU, minutes), ``small`` (one GPU, under an hour) and ``paper``
(FasterSeg's own numbers), in ``profiles/searches/``. A run folder holds the settings that were in
force, all of them, as ``settings.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from latlut.search.runs.setting_files import load_preset

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Size = tuple[Count, Count]

#: w1, w2, w3 of the paper, Sec. 3.2.
PAPER_WEIGHTS = (0.001, 0.997, 0.002)


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpaceSettings(_Group):
    """What is searched within the table's space; None keeps what the table has.

    ``widths`` with a single item fixes the width (the paper's Table 3); ``branches`` is 1 or 2.
    """

    branches: Literal[1, 2] | None = None
    widths: tuple[Count, ...] | None = None
    layers: Annotated[int, Field(ge=3)] | None = None


class DataSettings(_Group):
    """Data set and sizes.

    ``image_scale`` is applied to images before cropping (the authors search on half-size images);
    ``image_size`` (height, width), ``train_images`` and ``validation_images`` are of generated
    data; ``evaluate_images`` is how many validation images judge an epoch, None for all.
    """

    name: str = "street-scenes"
    image_size: Size = (128, 256)
    train_images: Count = 256
    validation_images: Count = 32
    image_scale: Positive = 1.0
    crop_scales: tuple[Positive, ...] = (0.75, 1.0, 1.25)
    evaluate_images: Count | None = None
    workers: Whole = 0


class PhaseSettings(_Group):
    """One phase, pretraining or search. ``iterations`` per epoch, None for one pass over the half.

    ``batch`` is per process and per backward pass, ``accumulate`` how many such batches make one
    step. The learning rate of the weights falls by ``lr_decay`` after each epoch.
    """

    epochs: Whole
    iterations: Count | None = None
    batch: Count = 2
    accumulate: Count = 1
    crop: Size = (64, 128)
    lr: Positive = 0.02
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 0.978
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 5e-4
    clip: Positive | None = 5.0


class ArchitectureSettings(_Group):
    """The step on alpha, beta and gamma: Adam, first order (the paper's Sec. 4.2)."""

    lr: Positive = 3e-4
    betas: tuple[NotNegative, NotNegative] = (0.5, 0.999)
    weight_decay: NotNegative = 0.0


class LatencySettings(_Group):
    """The penalty and its target.

    ``weights`` are (w1, w2, w3), or ``"auto"`` for those that balance the table's sensitivities;
    ``strength`` is the first lambda times the target: the penalty's weight relative to
    ``penalty_ms / target_ms`` (the paper's lambda 0.01 per ms at T = 8.3 ms is 0.083);
    ``proportional`` and ``integral`` are the gains of the controller of log lambda;
    ``input_size`` is (height, width) of the deployed network's image, the table's own if None;
    ``tolerance`` is the relative distance from the target within which an architecture counts.
    """

    weights: tuple[NotNegative, NotNegative, NotNegative] | Literal["auto"] = PAPER_WEIGHTS
    target_ms: Positive | None = None
    strength: NotNegative = 0.083
    sampling: Literal["exact", "gumbel"] = "exact"
    skip_price: Literal["derived", "searched"] = "derived"
    input_size: Size | None = None
    proportional: NotNegative = 3.0
    integral: NotNegative = 2.0
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02


class SearchSettings(_Group):
    """All settings of a search."""

    seed: Whole = 0
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    is_channels_last: bool = False
    space: SpaceSettings = SpaceSettings()
    data: DataSettings = DataSettings()
    pretrain: PhaseSettings
    search: PhaseSettings
    architecture: ArchitectureSettings = ArchitectureSettings()
    latency: LatencySettings = LatencySettings()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, complete."""
        return self.model_dump(mode="json")


def load_settings(
    name_or_path: str | Path, overrides: Mapping[str, object] | None = None
) -> SearchSettings:
    """The settings of a shipped preset or of a TOML file, with overrides.

    Args:
        name_or_path: ``"tiny"``, or a file.
        overrides: dotted name -> value, ``{"search.epochs": 5}``.

    Raises:
        UnknownNameError, ImportFileError, SpecError: see ``setting_files.load_preset``.
    """
    return load_preset(SearchSettings, "searches", name_or_path, overrides)
