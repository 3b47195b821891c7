"""The ablation: pruning a teacher, what is searched, statistics, files and picture."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from small_tables import INPUT_SIZE, ablation_table, make_table, plausible_ms

from latlut.errors import MissingEntryError, SpecError
from latlut.reports.ablation import plot_ablation
from latlut.search.cosearch.ablation import STRATEGIES, AblationPlan, plan_ablation, pruned_teacher
from latlut.search.cosearch.ablation_results import (
    COMPARISONS,
    AblationResult,
    SeedResult,
    difference,
    spread,
    write_results,
)
from latlut.search.cosearch.settings import load_settings
from latlut.spaces import FasterSegSpace
from latlut.spaces.shipped import find_architecture
from latlut.table.table import LatencyTable

SPACE = FasterSegSpace(layers=7, base_width=3, widths=(4, 8), stem_head_widths=(8,))


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ablation_table(tmp_path_factory.mktemp("table") / "table.db", SPACE)


# --- pruning a teacher ---


def test_the_published_teacher_pruned_is_the_published_pruned_teacher() -> None:
    teacher = find_architecture("fasterseg-teacher")
    assert pruned_teacher(teacher, 4, 8) == find_architecture("fasterseg-teacher-pruned")


@given(st.integers(0, 10_000), st.sampled_from([1, 2]))
def test_pruning_changes_widths_alone(seed: int, branches: int) -> None:
    space = FasterSegSpace(layers=7, widths=(12,), stem_head_widths=(12,), branches=branches)
    teacher = space.sample(random.Random(seed))
    slim = pruned_teacher(teacher, 4, 8)
    assert (slim.stem_width, slim.head_width) == (8, 8)
    for mine, own in zip(slim.branches, teacher.branches, strict=True):
        assert mine.scale == own.scale
        assert [(c.operator, c.is_down) for c in mine.cells] == [
            (c.operator, c.is_down) for c in own.cells
        ]
        assert [cell.width for cell in mine.cells] == [4] * (len(mine.cells) - 1) + [8]
    assert slim.shared_cells == teacher.shared_cells
    assert pruned_teacher(slim, 12, 12) == teacher


# --- what is searched ---


def test_the_three_searches_have_one_target_where_all_reach_it(table: LatencyTable) -> None:
    ranges = [item.reachable_ms for item in plan_ablation(table, load_settings("tiny")).searches]
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    assert low < high
    middle = (low + high) / 2
    plan = plan_ablation(table, load_settings("tiny", {"latency.target_ms": middle}))
    assert [item.name for item in plan.searches] == ["one-branch", "two-branches", "full"]
    for item, branches, widths in zip(
        plan.searches, (1, 2, 2), ((8,), (8,), None), strict=True
    ):  # fmt: skip
        assert item.settings.space.branches == branches
        assert item.settings.space.widths == widths
        assert item.settings.latency.target_ms == item.target_ms == pytest.approx(middle)
        assert not item.is_moved
        assert item.seeded(7).seed == 7
        assert item.seeded(7).model_copy(update={"seed": 0}) == item.settings


def test_a_target_out_of_reach_is_moved_to_the_nearest_and_said(table: LatencyTable) -> None:
    full = plan_ablation(table, load_settings("tiny")).search("full").reachable_ms
    plan = plan_ablation(table, load_settings("tiny", {"latency.target_ms": full[1]}))
    one = plan.search("one-branch")
    assert one.is_moved and one.target_ms == one.reachable_ms[1] < full[1]
    assert not plan.search("full").is_moved and plan.search("full").target_ms == full[1]
    note = AblationResult(plan, ()).note(STRATEGIES[0])
    assert "out of its reach" in note and f"{one.target_ms:.4g} ms was taken" in note
    with pytest.raises(SpecError, match="can be reached"):
        plan_ablation(table, load_settings("tiny", {"latency.target_ms": 100 * full[1]}))


def test_what_leaves_nothing_to_compare_is_refused(table: LatencyTable, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="one branch with two"):
        plan_ablation(table, load_settings("tiny", {"space.branches": 1}))
    with pytest.raises(SpecError, match="the only width"):
        plan_ablation(table, load_settings("tiny", {"space.widths": (8,)}))
    with pytest.raises(SpecError, match="width 6 was asked for"):
        plan_ablation(table, load_settings("tiny"), fixed_width=6)
    assert plan_ablation(table, load_settings("tiny"), fixed_width=4).fixed_width == 4
    specs = SPACE.op_specs(INPUT_SIZE)
    with (
        make_table(tmp_path / "lacks.db", specs, plausible_ms, space=SPACE) as lacks,
        pytest.raises(MissingEntryError, match="fusion"),
    ):
        plan_ablation(lacks, load_settings("tiny"))


# --- statistics ---


def results_of(scores: dict[str, list[float]]) -> list[SeedResult]:
    """One result per row and seed, latency 10 ms plus the seed."""
    return [
        SeedResult(
            strategy.name, seed, score, score, 10.0 + seed, 1000 / (10.0 + seed), 10**9, 10**6,
            2 * 10**6, None, "16+32", 1.0,
        )
        for strategy in STRATEGIES
        for seed, score in enumerate(scores[strategy.name])
    ]  # fmt: skip


def drawn_scores(seeds: int) -> dict[str, list[float]]:
    numbers = np.random.default_rng(5)
    return {strategy.name: list(numbers.uniform(20, 40, seeds)) for strategy in STRATEGIES}


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_spread(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high) == (min(values), max(values))
    if len(values) == 1:
        assert found.deviation is None
    else:
        assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_a_difference_is_paired_by_seed_with_students_interval() -> None:
    scores = drawn_scores(5)
    found = difference(COMPARISONS[0], results_of(scores))
    paired = stats.ttest_rel(scores["distilled"], scores["student"])
    low, high = paired.confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(np.mean(scores["distilled"]) - np.mean(scores["student"]))
    assert found.by_seed[2] == scores["distilled"][2] - scores["student"][2]


def test_the_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        level = numbers.normal(30, 5, 4)  # of a seed: what pairing takes away
        scores = {s.name: list(level) for s in STRATEGIES}
        scores["distilled"] = list(level + 1.5 + numbers.normal(0, 2, 4))
        found = difference(COMPARISONS[0], results_of(scores))
        assert found.ci_low is not None and found.ci_high is not None
        covered += found.ci_low <= 1.5 <= found.ci_high
    assert 0.92 <= covered / 400 <= 0.98


def test_too_few_seeds_give_no_interval() -> None:
    found = difference(COMPARISONS[0], results_of(drawn_scores(2)))
    assert len(found.by_seed) == 2 and found.ci_low is found.ci_high is None


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_files_and_picture(table: LatencyTable, tmp_path: Path, suffix: str) -> None:
    plan: AblationPlan = plan_ablation(table, load_settings("tiny"))
    found = AblationResult(plan, tuple(results_of(drawn_scores(3))))
    write_results(tmp_path, found)
    with (tmp_path / "ablation.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(STRATEGIES)
    again = [(row["strategy"], int(row["seed"]), float(row["miou_percent"])) for row in rows]
    assert again == [(r.strategy, r.seed, r.miou_percent) for r in found.results]
    written = json.loads((tmp_path / "ablation.json").read_text())
    assert written["seeds"] == [0, 1, 2] and len(written["comparisons"]) == len(COMPARISONS)
    picture = tmp_path / f"picture{suffix}"
    plot_ablation(found, "Ablation", "three seeds", picture)
    if suffix == ".png":
        shown = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
        assert (shown == (0x15, 0x80, 0x3D)).all(axis=1).any()  # the last row's diamond
    else:
        assert "<svg" in picture.read_text()
    with pytest.raises(SpecError, match="ends in"):
        plot_ablation(found, "Ablation", "", tmp_path / "picture.txt")
