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
    Whole,
)
from latlut.search.train.settings import ScheduleSettings


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

    ``weights`` are (w1, w2, w3); ``"auto"`` for those that balance the table's sensitivities; or
    ``"gradient"``: lambda and the three are such that the penalty's gradient on operators, inputs
    and widths is ``strength`` times that of the loss on each, which the controller then moves.
    Else ``strength`` is the first lambda times the target: the penalty's weight relative to
    ``penalty_ms / target_ms`` (the paper's lambda 0.01 per ms at T = 8.3 ms is 0.083);
    ``proportional`` and ``integral`` are the gains of the controller of log lambda;
    ``input_size`` is (height, width) of the deployed network's image, the table's own if None;
    ``tolerance`` is the relative distance from the target within which an architecture counts.
    ``targets_ms``, or ``front`` of them spread over what can be reached, are those of the front;
    the search phase itself goes to ``target_ms``, to the middle one of the front if not given.
    ``most_parameters`` and ``most_macs`` bound the student of the rank phase, MACs at
    ``input_size``.
    """

    weights: tuple[NotNegative, NotNegative, NotNegative] | Literal["auto", "gradient"] = (
        PAPER_WEIGHTS
    )
    target_ms: Positive | None = None
    targets_ms: Annotated[tuple[Positive, ...], Field(max_length=64)] = ()
    front: Whole = 0
    most_parameters: Count | None = None
    most_macs: Annotated[int, Field(ge=1, strict=True)] | None = None
    strength: NotNegative = 0.083
    sampling: Literal["exact", "gumbel"] = "exact"
    skip_price: Literal["derived", "searched"] = "derived"
    input_size: Size | None = None
    proportional: NotNegative = 3.0
    integral: NotNegative = 2.0
    tolerance: Inside = 0.02


class SupernetSettings(Group):
    """How many operators of a cell a pass of the search phase runs: 1 or 2 that are drawn, or all.

    With 1 each cell also reads one of its inputs. See ``supernet.drawn``.
    """

    paths: Literal[1, 2, "all"] = "all"


class RankSettings(PhaseSettings):
    """The rank phase: single-path training, then scores of networks near the target.

    ``candidates`` random networks are scored, then ``evolution`` mutations of the best ``parents``
    in generations of ``generation``, after each of which there is a checkpoint; several targets
    share both numbers. Training draws networks within ``window`` of a target, relative.
    ``images`` is how many validation images judge, None for those of ``data.evaluate_images``.
    """

    candidates: Count = 64
    evolution: Whole = 110
    generation: Count = 22
    parents: Count = 10
    window: Inside = 0.1
    images: Count | None = None


class FinalistSettings(ScheduleSettings):
    """Trainings from scratch, after everything else, of ``networks`` near each target; 0 for none.
    They are the best of ``reduction`` times as many, each trained for 1 / ``reduction`` of the
    schedule, which is that of a training (``train.settings``).

    ``images`` is how many validation images judge, None for all.
    """

    networks: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    reduction: Annotated[int, Field(ge=1, le=64, strict=True)] = 8
    images: Count | None = None
    evaluate_every: Count = 1_000_000


class SearchSettings(RunSettings):
    """All settings of a search; ``iterations`` of the phases "pretrain" and "search" are of one
    half of the images.

    ``rank`` None leaves out the rank phase, as the paper does.
    """

    space: SpaceSettings = SpaceSettings()
    supernet: SupernetSettings = SupernetSettings()
    data: DataSettings = DataSettings()
    pretrain: PhaseSettings
    search: PhaseSettings
    rank: RankSettings | None = None
    finalists: FinalistSettings | None = None
    architecture: ArchitectureSettings = ArchitectureSettings()
    latency: LatencySettings = LatencySettings()


def load_settings(
    name_or_path: str | Path, overrides: Mapping[str, object] | None = None
) -> SearchSettings:
    """The settings of a preset or of a TOML file; see ``setting_files.load_preset``."""
    return load_preset(SearchSettings, "searches", name_or_path, overrides)
