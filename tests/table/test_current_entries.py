"""Entries are computed again exactly when what they are computed from has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from latlut.opspec import OpSpec
from latlut.table import recording
from latlut.table.identity import Identity
from latlut.table.roofline import Roofline, set_bounds
from latlut.table.summary import are_entries_current, summarise
from latlut.table.table import LatencyTable
from latlut.table.writing import insert
from latlut.timestamps import now_text

SPECS = [OpSpec("conv", (8, side, side), 8) for side in (8, 16)]


def _measured(table: LatencyTable) -> tuple[list[int], dict[str, int]]:
    """Ids of two passes that measured both op specs, and the op specs' ids."""
    ids = recording.add_op_specs(table, SPECS)
    run = recording.start_run(table, "import", settings={}, environment={})
    passes = [recording.start_pass(table, run, index) for index in range(2)]
    for number in passes:
        recording.add_readings(table, number, dict.fromkeys(ids.values(), 1.0))
    return passes, ids


def _one_more(table: LatencyTable, passes: list[int], ids: dict[str, int]) -> None:
    number = recording.start_pass(table, 1, 2)
    recording.add_readings(table, number, {ids[SPECS[0].key]: 2.0})


def _quarantine(table: LatencyTable, passes: list[int], ids: dict[str, int]) -> None:
    recording.quarantine(table, passes, "slow")


def _sentinel(table: LatencyTable, passes: list[int], ids: dict[str, int]) -> None:
    with table.writing() as db:
        insert(db, "sentinel_readings", pass_id=passes[0], op_spec_id=ids[SPECS[0].key],
               group_index=0, at=now_text(), reading_ms=1.0)  # fmt: skip


def _peaks(table: LatencyTable, passes: list[int], ids: dict[str, int]) -> None:
    set_bounds(table, Roofline(flops_per_s=1e12), 0.01)


@pytest.mark.parametrize("change", [_one_more, _quarantine, _sentinel, _peaks])
def test_a_change_of_what_entries_depend_on_is_seen(
    db_path: Path, identity: Identity, change: Callable[..., None]
) -> None:
    with LatencyTable.create(db_path, identity) as table:
        known = _measured(table)
        assert not are_entries_current(table)
        summarise(table)
        assert are_entries_current(table)
        change(table, *known)
        assert not are_entries_current(table)
        summarise(table)
        assert are_entries_current(table)
