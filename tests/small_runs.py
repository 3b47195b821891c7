"""Searches and trainings in tests: settings from a base with changes, and a search made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.search import Search
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.data.dataset import SegmentationData
from latlut.search.runs.setting_files import validated
from latlut.search.runs.settings import RunSettings
from latlut.table.table import LatencyTable

Settings = TypeVar("Settings", bound=RunSettings)


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
