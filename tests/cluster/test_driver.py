"""The driver: leases go back, duplicates collapse, slow workers go into quarantine, resuming."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted_pool import IDENTITY, ScriptedPool

from latlut.cluster.driver import MAX_STARTS, ClusterSweep
from latlut.cluster.leases import LeaseBook
from latlut.cluster.messages import Lease, Lost
from latlut.cluster.store import ClusterTable
from latlut.errors import LatlutError
from latlut.measure.plans import plan_from_ops
from latlut.measure.sweep_report import SweepSummary
from latlut.measure.sweep_settings import SweepSettings
from latlut.progress import Progress
from latlut.table.history import quarantines
from latlut.table.merging import merge_files
from latlut.table.roofline import Roofline
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check

PLAN = plan_from_ops([f"conv 4->4 at 8x{width}" for width in range(4, 44)])
SETTINGS = SweepSettings(passes=4, group=4)
ALL = SETTINGS.passes * len(PLAN.specs)


def _driver(path: Path, pool: ScriptedPool, settings: SweepSettings = SETTINGS, **more):
    def open_table(identity, hello) -> ClusterTable:
        table = LatencyTable.create(path, identity)
        return ClusterTable(table, PLAN, settings, Roofline(), hello.launch_floor_ms, "a sweep")

    return ClusterSweep(PLAN, settings, pool, open_table, **more)


def _run(path: Path, pool: ScriptedPool, **more) -> SweepSummary:
    return _driver(path, pool, **more).run()


def _readings(path: Path) -> dict[tuple[str, int], int]:
    with LatencyTable.open(path) as table:
        rows = table.rows(
            "SELECT op_spec, pass_index, count(*) AS n FROM readings WHERE quarantine IS NULL"
            " GROUP BY op_spec, pass_index"
        )
        assert table.rows("PRAGMA foreign_key_check") == []
    return {(row["op_spec"], row["pass_index"]): row["n"] for row in rows}


def _is_whole(path: Path) -> bool:
    found = _readings(path)
    return len(found) == ALL and set(found.values()) == {1}


def test_workers_share_the_plan_and_each_has_a_run(db_path: Path) -> None:
    heard: list[Progress] = []
    pool = ScriptedPool([1.0, 1.0, 1.0])
    driver = _driver(db_path, pool, listener=heard.append)
    summary = driver.run()
    assert (summary.status, summary.measured, summary.reused) == ("done", ALL, 0)
    assert _is_whole(db_path)
    assert [item.done for item in heard] == list(range(1, ALL + 1))
    assert {item.label.partition(",")[0] for item in heard} == {"node 0", "node 1", "node 2"}
    assert sum(worker.measured for worker in driver.workers.values()) == ALL
    with LatencyTable.open(db_path) as table:
        runs = table.rows("SELECT status, json_extract(settings, '$.device') AS device FROM runs")
        assert {(run["status"], run["device"]) for run in runs} == {
            ("done", f"GPU-{number}") for number in range(3)
        }
        assert max(entry.devices for entry in table) > 1
        assert table.rows("SELECT count(*) AS n FROM op_specs WHERE macs IS NULL") == [{"n": 0}]
    again = _run(db_path, ScriptedPool([1.0]))
    assert (again.measured, again.reused, again.status) == (0, ALL, "done")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_workers_that_end_give_their_leases_back(db_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    ended: list[Lease] = []

    def ends(number: int, lease: Lease) -> Lost | None:
        if lease.deaths or generator.random() > 0.3:
            return None
        ended.append(lease)
        return Lost("SIGKILL")

    summary = _run(db_path, ScriptedPool([1.0, 1.0], ends=ends))
    assert len(ended) > 3
    assert (summary.status, summary.failed) == ("done", {})
    assert _is_whole(db_path)


def test_an_op_spec_that_ends_its_workers_fails_and_the_others_are_measured(db_path: Path) -> None:
    poison = PLAN.specs[7]

    def ends(number: int, lease: Lease) -> Lost | None:
        return Lost("SIGSEGV") if poison in lease.specs else None

    summary = _run(db_path, ScriptedPool([1.0, 1.0], ends=ends))
    assert summary.status == "done"
    assert list(summary.failed) == [poison.key]
    assert "SIGSEGV" in summary.failed[poison.key]
    found = _readings(db_path)
    assert len(found) == ALL - SETTINGS.passes
    assert set(found.values()) == {1}


def test_where_no_worker_is_left_the_same_command_goes_on(db_path: Path) -> None:
    said: list[str] = []

    def ends(number: int, lease: Lease) -> Lost | None:
        return Lost("the card is gone", is_final=True) if lease.pass_index == 1 else None

    pool = ScriptedPool([1.0, 1.0], ends=ends)
    summary = _run(db_path, pool, say=said.append)
    assert summary.status == "failed"
    assert 0 < summary.measured < ALL
    assert pool.running == set()
    assert sum("the card is gone" in text for text in said) == 2
    rest = _run(db_path, ScriptedPool([1.0]))
    assert rest.measured == ALL - summary.measured
    assert _is_whole(db_path)


def test_a_worker_that_never_measures_is_not_started_for_ever(db_path: Path) -> None:
    pool = ScriptedPool([1.0, 1.0], ends=lambda number, lease: Lost("?") if number else None)
    driver = _driver(db_path, pool)
    assert driver.run().status == "done"
    assert sum(number == 1 for number, _ in pool.leases) <= MAX_STARTS
    assert driver.workers[1].state == "?"
    assert _is_whole(db_path)


def test_a_rejected_op_spec_is_recorded_once(db_path: Path) -> None:
    pool = ScriptedPool([1.0, 1.0], fails={PLAN.specs[3]: "rejected"})
    summary = _run(db_path, pool)
    assert summary.failed == {PLAN.specs[3].key: "rejected"}
    assert summary.status == "done"
    with LatencyTable.open(db_path) as table:
        assert len(table) == len(PLAN.specs) - 1


@pytest.mark.parametrize("speeds", [(1.0, 1.3), (1.25, 1.0, 1.0), (1.0, 1.02, 0.99, 1.5)])
def test_slow_devices_go_into_quarantine(db_path: Path, speeds: tuple[float, ...]) -> None:
    driver = _driver(db_path, ScriptedPool(speeds))
    summary = driver.run()
    slow = speeds.index(max(speeds))
    states = {number: worker.state for number, worker in driver.workers.items()}
    assert [number for number in states if "quarantine" in states[number]] == [slow]
    assert (summary.status, summary.measured) == ("done", ALL)
    assert _is_whole(db_path)
    with LatencyTable.open(db_path) as table:
        (found,) = quarantines(table)
        assert found.device == f"GPU-{slow}"
        assert found.readings > 0
        used = table.rows(
            "SELECT DISTINCT device FROM readings WHERE quarantine IS NULL ORDER BY device"
        )
        assert f"GPU-{slow}" not in {row["device"] for row in used}
        assert len(table) == len(PLAN.specs)
        assert any(found.device in text for text in check(table).remarks)


def test_a_device_that_grows_slow_is_found(db_path: Path) -> None:
    pool = ScriptedPool([1.0, 1.0, 1.0])

    def throttle(progress: Progress) -> None:
        if progress.done == ALL // 2:
            pool.speeds[1] = 1.4

    driver = _driver(db_path, pool, listener=throttle)
    driver.run()
    assert "quarantine" in driver.workers[1].state
    assert _is_whole(db_path)


def test_a_slow_device_that_took_one_lease_is_found_at_the_end(db_path: Path) -> None:
    class LateSecond(ScriptedPool):
        """The second worker comes when nearly all is measured."""

        def wait(self, timeout_s: float):
            if self._answers and self._answers[0][0] == 1 and len(self.leases) < 39:
                self._answers.rotate(-1)
            return super().wait(timeout_s)

    driver = _driver(db_path, LateSecond([1.0, 1.3]))
    assert driver.run().status == "done"
    assert driver.workers[1].leases in (1, 2)
    assert "quarantine" in driver.workers[1].state
    assert _is_whole(db_path)


def test_equal_devices_are_all_kept(db_path: Path) -> None:
    driver = _driver(db_path, ScriptedPool([1.0, 1.04, 0.97, 1.01]))
    driver.run()
    assert {worker.state for worker in driver.workers.values()} == {"measures"}


def test_entries_of_quarantine_alone_are_taken_out_and_merges_keep_them_out(
    db_path: Path, tmp_path: Path
) -> None:
    """Stopped right after the quarantine, some op specs have readings in quarantine only."""

    def stop(text: str) -> None:
        if "in quarantine" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(db_path, ScriptedPool([1.3, 1.0]), say=stop)
    kept = {key for key, _ in _readings(db_path)}
    with LatencyTable.open(db_path) as table:
        assert {entry.key for entry in table} == kept
        assert 0 < len(kept) < len(PLAN.specs)
        assert {row["status"] for row in table.rows("SELECT status FROM runs")} == {"stopped"}
    merge_files(tmp_path / "merged.db", [db_path])
    with LatencyTable.open(tmp_path / "merged.db") as merged:
        assert {entry.key for entry in merged} == kept
        assert [item.device for item in quarantines(merged)] == ["GPU-0"]
    _run(db_path, ScriptedPool([1.0]))
    assert _is_whole(db_path)


def test_workers_of_another_identity_are_not_used(db_path: Path) -> None:
    other = replace(IDENTITY, driver="570.2")
    said: list[str] = []
    driver = _driver(db_path, ScriptedPool([1.0, 1.0], identities={1: other}), say=said.append)
    assert driver.run().status == "done"
    assert driver.workers[1].measured == 0
    assert any("driver: '580.1' here, '570.2' there" in text for text in said)


def test_why_no_worker_could_begin_is_said(db_path: Path) -> None:
    class Nobody(ScriptedPool):
        def start(self, number: int) -> None:
            lost = Lost(f"GPU {number} is an A100", is_final=True)
            self._answers.append((number, lost))

    with pytest.raises(LatlutError, match=r"(?s)no worker can measure.*GPU 0.*GPU 1 is an A100"):
        _run(db_path, Nobody([1.0, 1.0]))
    assert not db_path.exists()


def test_a_spent_budget_ends_it_and_what_is_out_is_stored(db_path: Path) -> None:
    def ends(number: int, lease: Lease) -> None:
        time.sleep(0.6)

    summary = _run(
        db_path, ScriptedPool([1.0], ends=ends), settings=replace(SETTINGS, budget_s=1.0)
    )
    assert summary.status == "out of budget"
    assert 0 < summary.measured <= 2 * SETTINGS.group
    assert _run(db_path, ScriptedPool([1.0])).reused == summary.measured
    assert _is_whole(db_path)


def test_the_book_hands_each_reading_out_until_it_is_settled() -> None:
    generator = np.random.default_rng(1)
    missing = {index: list(PLAN.specs[: 10 + index]) for index in range(3)}
    book = LeaseBook(missing, group=4, rebuilds=2)
    settled: list[tuple[int, str]] = []
    out: list[Lease] = []
    while book.open:
        lease = book.next()
        if lease is not None:
            assert lease.build == lease.pass_index % 2
            out.append(lease)
        taken = out.pop(int(generator.integers(len(out))))
        if generator.random() < 0.3 and taken.deaths == 0:
            assert book.take_back(taken) is None
        else:
            fresh = book.settle(taken.pass_index, taken.specs)
            settled += [(taken.pass_index, spec.key) for spec in fresh]
            assert not book.settle(taken.pass_index, taken.specs)  # a second answer adds nothing
    assert len(settled) == len(set(settled)) == 10 + 11 + 12
