"""The finalists: which networks they are, the two rungs, what is chosen, going on, growing, and bad
input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import (
    PHASE,
    RANKED,
    RANKED_SPACE,
    make_search,
    ranked_data,
    ranked_table,
    settings_with,
)

from latlut.errors import LatlutError, SpecError
from latlut.search.cosearch.archive import Archived
from latlut.search.cosearch.finalists import first_rung, last_rung, shortened, trials_left
from latlut.search.cosearch.run import run_search
from latlut.search.cosearch.settings import SearchSettings, load_settings
from latlut.search.cosearch.worth import Finalists
from latlut.search.data.dataset import SegmentationData
from latlut.search.networks.model_files import load_model
from latlut.search.runs.listening import RunListener
from latlut.search.train.settings import ScheduleSettings
from latlut.table.table import LatencyTable

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranked_table(tmp_path_factory.mktemp("ranked") / "table.db")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return ranked_data()


SETTINGS: dict[str, Any] = {
    **RANKED,
    "rank": {**RANKED["rank"], "iterations": 1, "candidates": 6},
    "finalists": {**PHASE, "crop": [32, 64], "epochs": 2, "networks": 3, "reduction": 1},
}


def settings(**groups: Any) -> SearchSettings:
    return settings_with(SearchSettings, SETTINGS, groups)


def test_the_best_trained_finalist_is_chosen(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    search = make_search(table, data, tmp_path, settings())
    archive = search.run()
    problem = search.problem
    records = [record for record in search.records if record.phase == "finalists"]
    chosen = [item for _, item in first_rung(search)]
    assert len(records) == len(chosen) == 3
    assert [r.inherited_miou for r in records] == [item.inherited for item in chosen]
    trained = archive.trained(problem.target_ms, problem.tolerance)
    assert {item.architecture for item in trained} == {item.architecture for item in chosen}
    found = archive.student(problem.target_ms, problem.tolerance)
    assert found.score == max(item.score for item in trained)
    close = [i for i in trained if abs(i.ms / found.ms - 1) < 0.001]
    assert found.trained == max(item.best_accuracy for item in close)
    assert "mIoU" in records[0].describe(3) and "inherited" in records[0].describe(3)
    for number, item in enumerate(chosen, start=1):
        folder = tmp_path / "finalists" / f"{number:02d}"
        network, facts = load_model(folder)
        assert facts.architecture == replace(item.architecture, num_classes=data.classes.count)
        assert not (folder / "checkpoints").exists()


def test_finalists_are_unlike_each_other_and_not_all_evolved(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    search = make_search(table, data, tmp_path, settings())
    target_ms = search.problem.target_ms
    networks = RANKED_SPACE.sample_many(40, 1)
    good = networks[0]
    cells = list(good.branches[0].cells)
    cells[1] = replace(cells[1], width=4 if cells[1].width == 8 else 8)
    branches = (replace(good.branches[0], cells=tuple(cells)), *good.branches[1:])
    relative = replace(good, branches=branches)

    def item(network: Any, kind: str, ranked: float) -> Archived:
        scales = tuple(branch.scale for branch in network.branches)
        return Archived(kind, 0, scales, network, target_ms, 0.1, 0.1, ranked=ranked)

    best = [item(good, "evolved", 0.9), item(relative, "evolved", 0.89)]
    search.archive.items = best + [
        item(network, "random", 0.5 - 0.01 * number) for number, network in enumerate(networks[1:])
    ]
    found = [i.architecture for _, i in first_rung(search)]
    assert found[0] == good and relative not in found
    assert [i.kind for _, i in first_rung(search)] == ["evolved", "random", "random"]
    more = settings(finalists={"networks": 4})
    longer = make_search(table, data, tmp_path, more)
    longer.archive = search.archive
    assert [i.architecture for _, i in first_rung(longer)][:3] == found
    search.archive.items = best  # nothing but relatives: better than none
    assert [i.architecture for _, i in first_rung(search)] == [good, relative]


def test_what_the_search_phase_decoded_starts_too(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    """Whatever inherited scores say of it: the best by the search phase's own."""
    search = make_search(table, data, tmp_path, settings(finalists={"networks": 3}))
    target_ms = search.problem.target_ms

    def item(kind: str, network: Any, accuracy: float, ranked: float) -> Archived:
        scales = tuple(branch.scale for branch in network.branches)
        return Archived(kind, 0, scales, network, target_ms, accuracy, 0.1, ranked=ranked)

    networks = iter(RANKED_SPACE.sample_many(30, 2))
    search.archive.items = [item("random", next(networks), 0.1, 0.5 + 0.01 * n) for n in range(20)]
    worse = item("fitted", next(networks), 0.2, 0.05)
    best = item("fitted", next(networks), 0.3, 0.01)
    search.archive.items += [worse, best]
    assert first_rung(search)[2] == (target_ms, best)
    assert worse not in [network for _, network in first_rung(search)]


def test_the_best_of_the_first_rung_get_the_whole_schedule(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    chosen = settings(finalists={"networks": 2, "reduction": 3, "iterations": 3})
    search = make_search(table, data, tmp_path, chosen)
    steps: list[tuple[int, int]] = []
    left: list[int] = []
    search.on_step = lambda phase, epoch, step, total, loss: steps.append((epoch, total))
    search.on_epoch = lambda record, state: left.append(search.epochs(record.phase))
    archive = search.run()
    records = [record for record in search.records if record.phase == "finalists"]
    assert [r.trained_share for r in records] == [pytest.approx(1 / 3)] * 6 + [1.0] * 2
    assert [total for epoch, total in dict(steps[-8:]).items()][-1] == 6
    assert set(left[-8:]) == {8}
    near = archive.candidates(search.problem.target_ms, search.problem.tolerance)
    tried = {item.architecture: item.tried for item in near if item.tried is not None}
    trained = {item.architecture: item.trained for item in near if item.trained is not None}
    assert len(tried) == 6 and len(trained) == 2 and set(trained) <= set(tried)
    assert {i.architecture for _, i in last_rung(search)} == set(trained)
    least = min(tried[architecture] for architecture in trained)
    assert sum(value > least for value in tried.values()) <= 1 + 0.01 * 6
    assert "33.3% of its own training" in records[0].describe(8)
    assert "after its own training" in records[-1].describe(8)
    assert sorted(p.name for p in (tmp_path / "finalists").iterdir()) == ["07", "08"]
    found = archive.student(search.problem.target_ms, search.problem.tolerance)
    assert found.trained == max(trained.values()) and trials_left(search) == 0


def test_finalists_say_how_far_inherited_scores_agree() -> None:
    networks = RANKED_SPACE.sample_many(8, 3)

    def items(tried: list[float | None], trained: list[float | None]) -> list[Archived]:
        return [
            Archived("random", 0, (8,), network, 1.0, 0.1, 0.1, ranked=0.1 * n, tried=a, trained=b)
            for n, (network, a, b) in enumerate(zip(networks, tried, trained, strict=False))
        ]

    none: list[float | None] = [None] * 4
    found = Finalists.of(items([0.1, 0.2, 0.3, 0.5, 0.4], [0.6, *none]), 20)
    assert found is not None and found.spearman == pytest.approx(0.9) and found.tried == 5
    assert "order what was trained by a Spearman correlation of 0.90" in found.describe()
    alone = Finalists.of(items([None] * 5, [0.5, 0.4, 0.3, 0.2, 0.1]), 20)
    assert alone is not None and alone.spearman == pytest.approx(-1)
    for few in ([0.1, 0.2, 0.3, 0.4], [0.1] * 6):
        told = Finalists.of(items(list(few), [0.5, *none]), 20)
        assert told is not None and told.spearman is None and "Spearman" not in told.describe()


@pytest.mark.parametrize(
    ("epochs", "steps", "share", "expected"),
    [
        (12, 64, 1 / 8, (1, 96, 16)),  # epochs, iterations, warm-up
        (12, 64, 1 / 2, (6, 64, 16)),
        (2, 1, 1 / 8, (1, 1, 0)),
        (30, 1000, 1 / 8, (3, 1250, 16)),
    ],
)
def test_a_share_of_a_schedule(
    epochs: int, steps: int, share: float, expected: tuple[int, int, int]
) -> None:
    whole = ScheduleSettings(epochs=epochs, iterations=steps, warmup_steps=16)
    found = shortened(whole, steps, share)
    assert (found.epochs, found.iterations, found.warmup_steps) == expected
    assert found.lr == whole.lr


class Killed(BaseException):
    """Stands for a signal: nothing of the search catches it."""


def test_a_run_killed_while_finalists_train_resumes_to_the_same_bits(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    chosen = settings(finalists={"networks": 1, "reduction": 3, "iterations": 3})
    whole = make_search(table, data, tmp_path / "whole", chosen)
    whole.run()

    def killer_at(place: tuple[str, int, int]) -> Any:
        def killer(phase: str, epoch: int, step: int, steps: int, loss: float) -> None:
            if (phase, epoch, step) == place:
                raise Killed

        return killer

    for place in (("finalists", 0, 1), ("finalists", 1, 2), ("finalists", 3, 2)):
        with pytest.raises(Killed):
            make_search(table, data, tmp_path / "k", chosen, on_step=killer_at(place)).run()
    again = make_search(table, data, tmp_path / "k", chosen)
    again.run()
    assert again.archive.to_json() == whole.archive.to_json()
    strip = [{**record.to_dict(), "seconds": 0} for record in again.records]
    assert strip == [{**record.to_dict(), "seconds": 0} for record in whole.records]


def test_a_finished_search_gets_finalists_afterwards(table: LatencyTable, tmp_path: Path) -> None:
    remarks: list[str] = []
    told = RunListener(remark=remarks.append)
    without = settings(finalists={"networks": 0})
    plain = run_search(table, without, tmp_path / "grown", listener=told)
    assert plain is not None and plain.finalists is None
    grown = [
        run_search(table, settings(finalists={"networks": n}), tmp_path / "grown", listener=told)
        for n in (1, 3)
    ][-1]
    at_once = run_search(table, settings(), tmp_path / "once", listener=told)
    assert grown is not None and at_once is not None and grown.finalists is not None
    assert grown.student == at_once.student and grown.finalists == at_once.finalists
    assert grown.finalists.networks == 3 and grown.student.trained == grown.finalists.best_miou
    result = json.loads((tmp_path / "grown" / "result.json").read_text())
    assert result["finalists"]["networks"] == 3
    assert result["student"]["trained_miou"] == grown.student.trained
    assert result["student"]["supernet_miou"] == grown.student.ranked
    saved = json.loads((tmp_path / "grown" / "settings.json").read_text())
    assert saved["finalists"]["networks"] == 3
    for other, words in (
        (without, "finalists.networks: 3 there, 0 asked for"),
        (settings(finalists={"lr": 0.1}), "finalists.lr: 0.02 there, 0.1 asked for"),
        (settings(pretrain={"lr": 0.1}), "pretrain.lr: 0.02 there, 0.1 asked for"),
    ):
        with pytest.raises(LatlutError, match=words):
            run_search(table, other, tmp_path / "grown", listener=told)


def test_more_finalists_afterwards_add_to_both_rungs(table: LatencyTable, tmp_path: Path) -> None:
    for networks in (1, 2):
        own = {"networks": networks, "reduction": 2}
        found = run_search(table, settings(finalists=own), tmp_path)
        assert found is not None and found.finalists is not None
        assert found.finalists.tried == 2 * networks
        assert networks <= found.finalists.networks <= 2 * networks - 1
    shares = [r.trained_share for r in found.records if r.phase == "finalists"]
    assert shares[:5] == [0.5, 0.5, 1.0, 0.5, 0.5] and set(shares[5:]) == {1.0}
    assert "the best of 4 after a shorter one" in found.finalists.describe()


def test_a_front_has_finalists_of_each_target(table: LatencyTable, tmp_path: Path) -> None:
    priced = sorted(table_ms(table))
    targets = [priced[14], priced[26]]
    chosen = settings(latency={"targets_ms": targets}, finalists={"networks": 2})
    found = run_search(table, chosen, tmp_path)
    assert found is not None and len(found.members) == 2
    for member in found.members:
        assert member.finalists is not None and member.finalists.networks >= 1
        assert member.student.trained is not None


def table_ms(table: LatencyTable) -> list[float]:
    """Milliseconds of some networks."""
    chosen = settings()
    from latlut.search.cosearch.problem import SearchProblem

    problem = SearchProblem(table, chosen.space, chosen.latency)
    return [problem.price(network) for network in RANKED_SPACE.sample_many(40, 1)]


def test_finalists_of_a_search_that_does_not_rank(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    chosen = settings().model_copy(update={"rank": None})
    archive = make_search(table, data, tmp_path, chosen).run()
    assert any(item.trained is not None for item in archive.items)


@pytest.mark.parametrize("preset", ["tiny", "small", "paper", "quickstart"])
def test_presets_have_a_schedule_for_them(preset: str) -> None:
    without, some = load_settings(preset), load_settings(preset, {"finalists.networks": 8})
    assert without.finalists is not None and without.finalists.networks == 0
    assert some.finalists is not None and some.finalists.networks == 8


def test_crops_too_small_are_refused_before_anything_runs(
    table: LatencyTable, tmp_path: Path
) -> None:
    chosen = settings(finalists={"crop": [24, 40], "batch": 1})
    with pytest.raises(SpecError, match="leaves one pixel at the coarsest scale"):
        run_search(table, chosen, tmp_path / "none")
    assert not (tmp_path / "none" / "settings.json").exists()
