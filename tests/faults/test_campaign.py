"""A bounded part of the campaign: no fault loses, doubles or blocks anything.

``LATLUT_FAULTS`` sets how many kills, and how many failing disks, a command meets with ``-m long``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.campaign import Campaign
from faults.injecting import Injector, case_count
from faults.scenarios import MODULES, SCENARIOS

#: Their cases take seconds of CPU each: with ``-m long`` alone.
SLOW = {"sweep", "validate", "calibrate", "search"}


@pytest.fixture(scope="module")
def injector() -> Iterator[Injector]:
    with Injector(MODULES) as started:
        yield started


def _run(injector: Injector, name: str, place: Path, kills: int, disk: int, stops: int) -> None:
    campaign = Campaign(injector, name, place)
    campaign.run(campaign.kills(kills, seed=1))
    campaign.run(campaign.disk_faults(disk, seed=1))
    campaign.run(campaign.stops(stops, seed=1))
    assert not campaign.tally.problems, "\n\n".join(campaign.tally.problems)
    assert campaign.tally.kills == kills and campaign.tally.disk_faults == disk


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in SLOW])
def test_a_fault_loses_and_doubles_nothing(injector: Injector, tmp_path: Path, name: str) -> None:
    _run(injector, name, tmp_path, 2, 2, 1)


@pytest.mark.long
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_faults_lose_and_double_nothing(injector: Injector, tmp_path: Path, name: str) -> None:
    _run(injector, name, tmp_path, case_count(100), case_count(30), 5)
