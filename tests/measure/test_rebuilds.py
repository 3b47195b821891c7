"""Several builds: their variance is told apart from that of passes, and is in the interval."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_engine import OPS, FakeEngine, TacticsEngine, work_ns
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from latlut.errors import EngineError, SpecError
from latlut.measure.plans import Plan, plan_from_ops
from latlut.measure.sweep import Sweep
from latlut.measure.sweep_settings import SweepSettings, identity_of
from latlut.operators.workloads import Workload
from latlut.pricing.estimator import estimate
from latlut.stats.builds import CombinedBuilds, separate_builds
from latlut.stats.passes import combine_passes
from latlut.table.table import LatencyTable
from latlut.validation.verdict import check


def simulated(
    generator: np.random.Generator,
    entries: int,
    builds: int,
    passes: int,
    build_sd: float | np.ndarray,
    pass_sd: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(E, P) readings around 1 and the build of each, pass p being on build p modulo builds."""
    number = np.tile(np.arange(passes) % builds, (entries, 1))
    effects = generator.normal(0.0, 1.0, (entries, builds)) * np.reshape(build_sd, (-1, 1))
    of_build = np.take_along_axis(effects, number, axis=1)
    return np.exp(of_build + generator.normal(0.0, pass_sd, number.shape)), number


def combine_builds(readings: np.ndarray, number: np.ndarray) -> CombinedBuilds:
    """The readings' builds told apart on the logarithm."""
    found = separate_builds(np.log(readings), number)
    return replace(found, value=np.exp(found.value))


@pytest.mark.parametrize(
    ("builds", "passes", "build_sd", "pass_sd"),
    [(2, 4, 0.03, 0.01), (3, 6, 0.03, 0.01), (3, 9, 0.05, 0.01), (4, 12, 0.02, 0.02)],
)
def test_known_variances_are_recovered_on_average(
    builds: int, passes: int, build_sd: float, pass_sd: float
) -> None:
    generator = np.random.default_rng(1)
    found = [
        combine_builds(*simulated(generator, 300, builds, passes, build_sd, pass_sd))
        for _ in range(10)
    ]
    assert np.mean([f.build_sd**2 for f in found]) == pytest.approx(build_sd**2, rel=0.1)
    assert np.mean([f.pass_sd**2 for f in found]) == pytest.approx(pass_sd**2, rel=0.1)


@pytest.mark.parametrize(
    ("builds", "passes", "build_sd", "pass_sd"),
    [(2, 4, 0.03, 0.01), (3, 6, 0.03, 0.01), (3, 7, 0.03, 0.01), (5, 10, 0.01, 0.02)],
)
def test_intervals_cover_the_truth_as_often_as_they_say(
    builds: int, passes: int, build_sd: float, pass_sd: float
) -> None:
    """Of 6000 entries 95% should be covered; never much less, and not so much that it is vain."""
    generator = np.random.default_rng(2)
    covered, total = 0, 0
    for _ in range(20):
        found = combine_builds(*simulated(generator, 300, builds, passes, build_sd, pass_sd))
        covered += int((np.abs(np.log(found.value)) <= found.half_width).sum())
        total += len(found.value)
    assert covered >= binom.ppf(0.001, total, 0.94)
    assert covered <= 0.985 * total


def test_coverage_where_op_specs_differ_in_how_much_their_builds_do() -> None:
    generator = np.random.default_rng(3)
    covered, total = 0, 0
    for _ in range(20):
        spreads = generator.choice([0.005, 0.03], 300)
        found = combine_builds(*simulated(generator, 300, 3, 6, spreads, 0.01))
        covered += int((np.abs(np.log(found.value)) <= found.half_width).sum())
        total += 300
    assert 0.93 * total <= covered <= 0.98 * total


def test_passes_alone_would_claim_too_much() -> None:
    """Why builds are told apart: passes on two builds, taken as independent, miss the truth."""
    readings, number = simulated(np.random.default_rng(4), 2000, 2, 10, 0.03, 0.005)
    apart, mixed = combine_builds(readings, number), combine_passes(readings)
    hits = [np.mean(np.abs(np.log(f.value)) <= f.half_width) for f in (apart, mixed)]
    assert hits[0] > 0.93
    assert hits[1] < 0.85


def test_no_build_variance_is_found_where_there_is_none() -> None:
    readings, number = simulated(np.random.default_rng(5), 500, 3, 12, 0.0, 0.02)
    found = combine_builds(readings, number)
    assert np.median(found.build_sd) < 0.006
    assert np.median(found.pass_sd) == pytest.approx(0.02, rel=0.05)


def test_an_entry_with_one_build_learns_from_the_others() -> None:
    readings, number = simulated(np.random.default_rng(6), 200, 3, 6, 0.03, 0.01)
    readings[0, number[0] > 0] = np.nan
    found = combine_builds(readings, number)
    assert found.builds[0] == 1
    assert found.half_width[0] > 1.5 * np.median(found.half_width[1:])
    readings[0] = np.nan
    assert np.isnan(combine_builds(readings, number).half_width[0])


def test_one_build_for_all_says_nothing_of_builds() -> None:
    readings, number = simulated(np.random.default_rng(7), 50, 1, 5, 0.03, 0.01)
    found = combine_builds(readings, number)
    assert np.isnan(found.half_width).all()
    assert np.isnan(found.build_sd).all()


@given(st.integers(2, 4), st.integers(0, 10_000), st.floats(0.2, 5.0))
@settings(max_examples=30, deadline=None)
def test_values_and_spreads_do_not_depend_on_the_unit(builds: int, seed: int, unit: float) -> None:
    readings, number = simulated(np.random.default_rng(seed), 20, builds, 2 * builds, 0.02, 0.01)
    here, there = combine_builds(readings, number), combine_builds(unit * readings, number)
    np.testing.assert_allclose(there.value, unit * here.value)
    np.testing.assert_allclose(there.half_width, here.half_width, rtol=1e-6)
    assert np.all(here.build_half_width <= here.half_width + 1e-12)


def test_shapes_go_together() -> None:
    with pytest.raises(SpecError, match="go together"):
        combine_builds(np.ones((2, 3)), np.zeros((2, 2), dtype=int))


# ---- in a sweep ----------------------------------------------------------------------------


def _sweep(path: Path, plan: Plan, engine: FakeEngine, **values) -> Sweep:
    table = LatencyTable.create(path, identity_of(engine, "cpu", statistic="p10"))
    return Sweep(table, plan, engine, SweepSettings(**values))


def test_each_pass_measures_its_build_and_sentinels_always_the_first(
    db_path: Path, plan: Plan
) -> None:
    engine = TacticsEngine()
    sweep = _sweep(db_path, plan, engine, passes=6, rebuilds=3)
    sweep.run()
    rows = sweep.table.rows(
        "SELECT pass_index, build_index, count(*) AS n FROM readings GROUP BY 1"
    )
    assert [(r["pass_index"], r["build_index"], r["n"]) for r in rows] == [
        (index, index % 3, 5) for index in range(6)
    ]
    assert len(engine.builds) == 6 * (5 + len(sweep.sentinels))
    counts = [sum(build == b for _, build in engine.builds) for b in range(3)]
    assert counts == [2 * 5 + 6 * len(sweep.sentinels), 10, 10]
    assert {entry.builds for entry in sweep.table} == {3}


def test_a_second_run_goes_on_with_the_builds_that_are_missing(db_path: Path, plan: Plan) -> None:
    first = _sweep(db_path, plan, TacticsEngine(), passes=4)  # build 0 in all of them
    first.run()
    first.table.close()
    second = _sweep(db_path, plan, TacticsEngine(), passes=4, rebuilds=2)
    summary = second.run()
    assert (summary.reused, summary.measured) == (10, 10)  # passes 0 and 2 are there
    second.table.close()
    third = _sweep(db_path, plan, TacticsEngine(), passes=4, rebuilds=2).run()
    assert (third.reused, third.measured) == (20, 0)
    fourth = _sweep(db_path, plan, TacticsEngine(), passes=4).run()
    assert fourth.measured == 0  # any build will do


def test_build_error_is_stored_apart_shown_and_in_the_network_s_interval(db_path: Path) -> None:
    plan = plan_from_ops([f"conv 8->8 at 16x{width}" for width in range(8, 38)])
    generator = np.random.default_rng(8)
    factors = {
        (spec.key, build): float(np.exp(generator.normal(0.0, 0.05)))
        for spec in plan.specs
        for build in range(3)
    }
    engine = TacticsEngine(noise=0.002)
    engine.build_speed = lambda name, build: factors[name, build]
    sweep = _sweep(db_path, plan, engine, passes=6, rebuilds=3, sentinels=0)
    sweep.run()
    entries = list(sweep.table)
    assert np.median([entry.build_sd for entry in entries]) == pytest.approx(0.05, rel=0.4)
    assert np.median([entry.pass_sd for entry in entries]) < 0.01
    for entry in entries:
        assert 0 < entry.build_error <= entry.own_error
        assert entry.builds == 3
    hits = 0
    for spec in plan.specs:
        truth_ms = work_ns(Workload.from_spec(spec)) * np.exp(-1.2816 * engine.noise) / 1e6
        entry = sweep.table.lookup(spec)
        hits += entry.ci_low_ms <= truth_ms <= entry.ci_high_ms
    assert hits >= binom.ppf(0.001, len(entries), 0.95)
    row = sweep.table.rows("SELECT * FROM latencies LIMIT 1")[0]
    assert row["builds"] == 3
    assert row["build_percent"] > 0
    assert any(
        "builds of one operator configuration differ" in text for text in check(sweep.table).remarks
    )
    found = estimate(list(plan.specs), sweep.table)
    own = [entry.own_error * entry.latency_ms for entry in entries]
    assert found.sum_error is not None
    shared = np.hypot(sweep.table.shared_error, found.sum_error.half_width)
    half = np.hypot(np.linalg.norm(own), shared * found.ms)
    assert found.ci_high_ms - found.ms == pytest.approx(half)


def test_one_build_leaves_the_build_error_unknown(measured: Path) -> None:
    with LatencyTable.open(measured) as table:
        assert {(entry.builds, entry.build_error) for entry in table} == {(1, None)}
        assert not any("builds" in text for text in check(table).remarks)


def test_an_engine_that_always_builds_the_same_is_refused(
    db_path: Path, plan: Plan, engine: FakeEngine
) -> None:
    sweep = _sweep(db_path, plan, engine, passes=4, rebuilds=2)
    with pytest.raises(EngineError, match="builds the same each time"):
        sweep.run()
    assert sweep.table.rows("SELECT * FROM runs") == []


def test_fewer_passes_than_builds_are_refused() -> None:
    with pytest.raises(SpecError, match="--passes 12"):
        SweepSettings(passes=5, rebuilds=6)


def test_another_build_is_compared_with_pytorch_too(db_path: Path, plan: Plan) -> None:
    engine = TacticsEngine()
    sweep = _sweep(db_path, plan, engine, passes=2, rebuilds=2, sentinels=0)
    checked: list[int] = []
    original = engine.check_parity

    def check_parity(session, module):
        checked.append(session.build)
        return original(session, module)

    engine.check_parity = check_parity  # type: ignore[method-assign]
    sweep.run()
    assert sorted(checked) == [0] * len(OPS) + [1] * len(OPS)


# ---- files of older versions ---------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2])
def test_tables_of_older_schemas_are_read_and_continued(
    db_path: Path, tmp_path: Path, plan: Plan, engine: FakeEngine, steps: int
) -> None:
    """A file with the first migrations only, filled by SQL as the versions of then did."""
    import sqlite3

    from sqlite_utils import Database

    from latlut.table.schema import migrations

    old = Database(sqlite3.connect(db_path))
    for migration in list(migrations._migrations)[:steps]:
        migration.fn(old)
        migrations.ensure_migrations_table(old)
        old["_sqlite_migrations"].insert(
            {"migration_set": "latlut", "name": migration.name, "applied_at": "2026-01-01"}
        )
    values = identity_of(engine, "cpu", statistic="p10").to_dict()
    if steps < 2:
        values.pop("engine_options")
    old["identity"].insert({"id": 1, **values, "created_at": "2026-01-01"})
    old.execute(
        "INSERT INTO op_specs VALUES (1, ?, 'conv', 8, 8, 1, 16, 16, 1, '{}', 1, 1, 1)", [OPS[0]]
    )
    old.execute(
        "INSERT INTO runs VALUES (1, 'profile', '2026-01-01', '2026-01-01', 'done', NULL, NULL,"
        " NULL, '{}', '{}', NULL, '{}', '0.1')"
    )
    for index in range(3):
        old.execute(
            "INSERT INTO passes (id, run_id, pass_index, started_at) VALUES (?, 1, ?, '2026')",
            [index + 1, index],
        )
        old.execute(
            "INSERT INTO measurements (op_spec_id, pass_id, at, n, reading_ms)"
            " VALUES (1, ?, '2026', 1, ?)",
            [index + 1, 0.02 + 0.0001 * index],
        )
    old.execute(
        "INSERT INTO entries (op_spec_id, latency_ms, passes, n, updated_at)"
        " VALUES (1, 0.0201, 3, 3, '2026')"
    )
    old.conn.commit()
    old.close()
    before = db_path.read_bytes()
    with LatencyTable.open(db_path) as table:
        (entry,) = list(table)
        assert (entry.latency_ms, entry.builds, entry.build_error) == (0.0201, 1, None)
        assert table.rows("SELECT * FROM gpu_states") == []
        assert len(table.frame()) == 1
        check(table)
    assert db_path.read_bytes() == before
    sweep = _sweep(db_path, plan, engine, passes=3)
    summary = sweep.run()
    assert (summary.reused, summary.measured) == (3, 12)
    assert len(sweep.table) == 5
    sweep.table.close()
    with LatencyTable.open(db_path) as table:
        assert len(table) == 5
