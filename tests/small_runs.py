"""Searches and trainings in tests: settings from a base with changes, and a search made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from small_tables import plausible_ms, space_table

from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.search import Search
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.data.dataset import SegmentationData
from latlut.search.data.opening import open_data
from latlut.search.runs.setting_files import validated
from latlut.search.runs.settings import RunSettings
from latlut.spaces import FasterSegSpace
from latlut.table.table import LatencyTable

Settings = TypeVar("Settings", bound=RunSettings)

#: Of searches with a rank phase: the space, a phase, and all settings.
RANKED_SPACE = FasterSegSpace(layers=5, base_width=3, widths=(4, 8), stem_head_widths=(8,))
PHASE: dict[str, Any] = {"iterations": 1, "batch": 2, "crop": [24, 40], "lr": 0.02, "epochs": 1}
RANKED: dict[str, Any] = {
    "data": {"image_size": [32, 64], "train_images": 4, "validation_images": 3},
    "pretrain": PHASE,
    "search": PHASE,
    "rank": {**PHASE, "iterations": 2, "candidates": 4, "evolution": 4, "generation": 2},
    "latency": {"weights": "gradient", "strength": 1.0},
}


def ranked_table(path: Path) -> Path:
    """A table of ``RANKED_SPACE``."""
    space_table(path, RANKED_SPACE, plausible_ms).close()
    return path


def ranked_data() -> SegmentationData:
    return open_data("street-scenes", size=(32, 64), counts=(4, 3, 0))


def settings_with(
    kind: type[Settings], base: Mapping[str, Any], groups: Mapping[str, Any]
) -> Settings:
    """Settings of a base in which values of some groups are others."""
    values: dict[str, Any] = {name: dict(group) for name, group in base.items()}
    for name, group in groups.items():
        values[name] = {**values.get(name, {}), **group} if isinstance(group, dict) else group
    return validated(kind, values, "the test")


def make_search(
    table: LatencyTable, data: SegmentationData, folder: Path, chosen: SearchSettings, **more: Any
) -> Search:
    """A search that has not run yet."""
    problem = SearchProblem(table, chosen.space, chosen.latency)
    return Search(problem, data, chosen, folder, **more)
