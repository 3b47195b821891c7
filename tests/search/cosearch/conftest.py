"""A small space with a table and images, for searches with a rank phase."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_runs import RANKED_SPACE
from small_tables import plausible_ms, space_table

from latlut.search.data.dataset import SegmentationData
from latlut.search.data.opening import open_data
from latlut.table.table import LatencyTable


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LatencyTable]:
    path = tmp_path_factory.mktemp("ranked") / "table.db"
    with space_table(path, RANKED_SPACE, plausible_ms) as made:
        yield made


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return open_data("street-scenes", size=(32, 64), counts=(4, 3, 0))
