"""Settings of a search: validated values from a preset's TOML file, overridden by flags.

The shipped presets are ``tiny`` (a CPU, minutes), ``small`` (one GPU, under an hour) and ``paper``
(FasterSeg's own numbers), in ``profiles/searches/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from latlut.search.penalty.weights import PAPER_WEIGHTS
from latlut.search.runs.setting_files import load_preset
from latlut.search.runs.settings import (
    Count,
    DataSettings,
    Group,
    Inside,
    NotNegative,
    PhaseSettings,
    Positive,
    RunSettings,
    Share,
    Size,
)


class SpaceSettings(Group):
    """What is searched within the table's space; None keeps what the table has.

    ``widths`` with a single item fixes the width (the paper's Table 3); ``branches`` is 1 or 2.
    """

    branches: Annotated[int, Field(ge=1, le=2, strict=True)] | None = None
    widths: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    layers: Annotated[int, Field(ge=3, le=256, strict=True)] | None = None


class ArchitectureSettings(Group):
    """The step on alpha, beta and gamma: Adam, first order (the paper's Sec. 4.2)."""

    lr: Positive = 3e-4
    betas: tuple[Share, Share] = (0.5, 0.999)
    weight_decay: NotNegative = 0.0


class LatencySettings(Group):
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
    tolerance: Inside = 0.02


class SearchSettings(RunSettings):
    """All settings of a search; the phases' ``iterations`` are of one half of the images."""

    space: SpaceSettings = SpaceSettings()
    data: DataSettings = DataSettings()
    pretrain: PhaseSettings
    search: PhaseSettings
    architecture: ArchitectureSettings = ArchitectureSettings()
    latency: LatencySettings = LatencySettings()


def load_settings(
    name_or_path: str | Path, overrides: Mapping[str, object] | None = None
) -> SearchSettings:
    """The settings of a preset or of a TOML file; see ``setting_files.load_preset``."""
    return load_preset(SearchSettings, "searches", name_or_path, overrides)
