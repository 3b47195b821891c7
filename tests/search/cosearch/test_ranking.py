"""The rank phase: its samples, its scores, what it chooses, resuming, fronts and bad input."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_engine import FakeEngine
from lightning_fabric import Fabric
from small_runs import RANKED, RANKED_SPACE, make_search, ranked_data, ranked_table, settings_with

from latlut.cli.front import measure_front
from latlut.errors import DataError, SpecError
from latlut.search.cosearch.archive import Archive, Archived
from latlut.search.cosearch.balance import GradientBalance
from latlut.search.cosearch.inherited import InheritedScorer
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.ranking import sampler_of
from latlut.search.cosearch.run import run_search
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.cosearch.worth import worth_of
from latlut.search.data.classes import IGNORE
from latlut.search.data.dataset import SegmentationData, Split
from latlut.search.derive.derive import Placed
from latlut.search.networks.cost import cost_of_architecture
from latlut.search.runs.listening import RunListener
from latlut.spaces import Architecture
from latlut.table.table import LatencyTable

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ranked_table(tmp_path_factory.mktemp("ranked") / "table.db")


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return ranked_data()


def settings(**groups: Any) -> SearchSettings:
    return settings_with(SearchSettings, RANKED, groups)


def test_the_best_ranked_network_at_the_target_is_taken(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    search = make_search(table, data, tmp_path, settings())
    archive = search.run()
    problem = search.problem
    assert [(r.phase, r.epoch) for r in search.records] == [
        ("pretrain", 0), ("search", 0), ("rank", 0), ("evolve", 0), ("evolve", 1), ("evolve", 2),
    ]  # fmt: skip
    kinds = [item.kind for item in archive.items]
    assert (kinds.count("random"), kinds.count("evolved")) == (4, 4)
    students = [item for item in archive.items if item.kind != "teacher"]
    assert all(item.ranked is not None for item in students)
    near = archive.near(problem.target_ms, problem.tolerance)
    assert {"random", "evolved"} <= {item.kind for item in near}
    found = archive.student(problem.target_ms, problem.tolerance)
    assert found.ranked == max(i.best_accuracy for i in near if i.score >= found.score - 1e-9)
    assert found.ms == pytest.approx(problem.price(found.architecture))
    for item in students:  # a score depends on the network alone
        assert search.scorer().score(item.placed) == item.ranked
    worth = worth_of(found, archive, problem.target_ms, problem.tolerance, 3)
    assert worth is not None and worth.networks == 4
    assert "too few to rank networks by (fewer than 16)" in worth.describe(problem.target_ms)
    assert "such scores ordered trained networks on generated" in worth.describe(problem.target_ms)


class Killed(BaseException):
    """Stands for a signal: nothing of the search catches it."""


def test_a_run_killed_while_it_ranks_resumes_to_the_same_bits(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    whole = make_search(table, data, tmp_path / "whole", settings())
    whole.run()

    def killer_at(place: tuple[str, int, int]) -> Any:
        def killer(phase: str, epoch: int, step: int, steps: int, loss: float) -> None:
            if (phase, epoch, step) == place:
                raise Killed

        return killer

    for place in (("search", 0, 1), ("rank", 0, 1), ("evolve", 0, 3), ("evolve", 2, 1)):
        with pytest.raises(Killed):
            make_search(table, data, tmp_path / "k", settings(), on_step=killer_at(place)).run()
    again = make_search(table, data, tmp_path / "k", settings())
    again.run()
    pairs = zip(whole.supernet.state_dict().values(), again.supernet.state_dict().values(),
                strict=True)  # fmt: skip
    assert all(torch.equal(one, other) for one, other in pairs)
    assert again.archive.to_json() == whole.archive.to_json()
    assert again.balance == whole.balance
    strip = [{**record.to_dict(), "seconds": 0} for record in again.records]
    assert strip == [{**record.to_dict(), "seconds": 0} for record in whole.records]


def test_samples_hit_latencies_and_embed_again(table: LatencyTable) -> None:
    problem = SearchProblem(table, settings().space, settings().latency)
    search_like: Any = type("S", (), {"problem": problem})
    sampler, rng = sampler_of(search_like), random.Random(0)
    kinds: set[tuple[int, ...]] = set()
    for _ in range(20):
        target_ms = problem.price(sampler.decoded(sampler.draw(rng)).architecture)
        found = sampler.towards(sampler.draw(rng), target_ms, 0.02, rng)
        assert found is not None
        assert abs(found.latency_ms / target_ms - 1) <= 0.02
        network = found.placed.architecture
        assert found.latency_ms == pytest.approx(problem.price(network))
        kinds.add(tuple(branch.scale for branch in network.branches))
        again = sampler.decoded(sampler.embedded(found.placed, rng)).architecture
        assert again == network
    assert kinds == set(RANKED_SPACE.branch_scales())


def test_samples_are_of_the_whole_space(table: LatencyTable) -> None:
    """What the logits' decoding cannot give trained best, and was never drawn."""
    problem = SearchProblem(table, settings().space, settings().latency)
    search_like: Any = type("S", (), {"problem": problem})
    sampler, rng = sampler_of(search_like), random.Random(0)
    genomes = [sampler.draw(rng) for _ in range(60)]
    skipping = [
        replace(genome, operators=dict.fromkeys(genome.operators, ("skip", "conv")))
        for genome in genomes
    ]
    branches, shallow = (
        [branch for own in some for branch in sampler.decoded(own).architecture.branches]
        for some in (genomes, skipping)
    )
    assert {branch.scale: len(branch.cells) for branch in shallow if branch.scale == 8} == {8: 1}
    assert any(branch.cells[0].is_down for branch in branches)


def test_a_score_is_of_the_discrete_network_and_leaves_the_supernet_alone(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    """Fitted networks had the score of the unfitted mixture."""
    search = make_search(table, data, tmp_path, settings())
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    scorer = search.scorer()
    sampler, rng = sampler_of(search), random.Random(1)
    target_ms = search.problem.target_ms
    drawn = [sampler.towards(sampler.draw(rng), target_ms, 0.5, rng) for _ in range(6)]
    scores = [scorer.score(item.placed) for item in drawn if item is not None]
    assert len(set(scores)) > 1 and all(0 <= score <= 1 for score in scores)
    after = search.supernet.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    found = search.archive.add(
        0, search.problem, search.student, search.teacher,
        lambda placed: len(placed.architecture.to_json()) / 1e6,
    )  # fmt: skip
    for item in (*found.derived, *found.fitted, *found.teachers):
        assert item.accuracy == len(item.architecture.to_json()) / 1e6


def test_gradients_of_penalty_and_loss_are_balanced(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    ratios = {}
    for weights in ("gradient", (0.001, 0.997, 0.002)):
        search = make_search(table, data, tmp_path, settings(latency={"weights": weights}))
        batches = search.halves("search")[1].epoch(0)
        kept: list[torch.Tensor] = []
        penalty_of = search._penalty

        def penalty(of: Any = penalty_of, kept: Any = kept, search: Any = search) -> torch.Tensor:
            names = ("alpha", "beta", "gamma")
            kept += [getattr(search.student, name).grad.clone() for name in names]
            return of()

        search._penalty = penalty  # type: ignore[method-assign]
        search._architecture_step(batches, torch.Generator().manual_seed(0), float)
        parameters = (search.student.alpha, search.student.beta, search.student.gamma)
        ratios[weights] = [
            float((p.grad - loss).norm() / loss.norm())
            for p, loss in zip(parameters, kept, strict=True)
        ]
    assert ratios["gradient"] == pytest.approx([1.0, 1.0, 1.0], rel=1e-3)
    paper = ratios[0.001, 0.997, 0.002]
    assert max(paper) / min(paper) > 3


def test_the_balance_survives_a_round_trip() -> None:
    balance = GradientBalance().after([1.0, 2.0, 0.0], [2.0, 0.5, 0.0], 1.0)
    assert balance.weights_per_ms == pytest.approx((0.5, 4.0, 0.0))
    assert GradientBalance.restored(json.loads(json.dumps(balance.to_dict()))) == balance
    with pytest.raises(ValueError, match="expected three"):
        GradientBalance.restored({"norms": [1], "weights_per_ms": [1, 2, 3], "steps": 1})


def test_a_front_from_one_supernet(table: LatencyTable, tmp_path: Path) -> None:
    problem = SearchProblem(table, settings().space, settings().latency)
    priced = sorted(problem.price(network) for network in RANKED_SPACE.sample_many(40, 1))
    targets = [priced[14], priced[26], 1000.0]
    chosen = settings(latency={"targets_ms": targets}, rank={"candidates": 6, "evolution": 2})
    remarks: list[str] = []
    found = run_search(table, chosen, tmp_path, listener=RunListener(remark=remarks.append))
    assert found is not None
    assert [m.target_ms for m in found.members] == targets[:2]
    assert found.unreachable_ms == (1000.0,)
    assert any("left out" in text and "1000 ms" in text for text in remarks)
    assert any("images to rank networks by" in text for text in remarks)
    for member in found.members:
        assert abs(member.student.ms / member.target_ms - 1) <= 0.02
        path = tmp_path / "front" / f"{member.target_ms:.4g}ms.json"
        assert Architecture.load(path) == member.student.architecture
    result = json.loads((tmp_path / "result.json").read_text())
    assert [entry["target_ms"] for entry in result["front"]] == targets[:2]
    assert result["unreachable_ms"] == [1000.0]
    assert result["against_random"]["networks"] == 3
    assert result["derived_ms"] > 0
    measure_front(found, table, FakeEngine(), is_quiet=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert all(entry["measured_ms"] > 0 for entry in result["front"])
    assert list(result["baselines_ms"]) == ["fast-scnn", "enet", "bisenet-v2"]
    assert (tmp_path / "front.png").stat().st_size > 10_000


def test_impossible_fronts(table: LatencyTable) -> None:
    for latency, words in (
        ({"targets_ms": [1e-3, 1e3]}, "none of the targets 0.001, 1000 ms can be reached"),
        ({"targets_ms": [1.0], "front": 2}, "not both"),
    ):
        chosen = settings(latency=latency)
        with pytest.raises(SpecError, match=words):
            SearchProblem(table, chosen.space, chosen.latency)
    chosen = settings(latency={"front": 4})
    assert len(SearchProblem(table, chosen.space, chosen.latency).targets_ms) == 4


def test_a_second_constraint_holds(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    problem = SearchProblem(table, settings().space, settings().latency)
    sampler = sampler_of(type("S", (), {"problem": problem}))  # type: ignore[arg-type]
    rng = random.Random(0)
    drawn = [sampler.towards(sampler.draw(rng), problem.target_ms, 0.02, rng) for _ in range(9)]
    sizes = sorted(
        cost_of_architecture(item.placed.architecture, problem.input_size).parameters
        for item in drawn
        if item is not None
    )
    chosen = settings(latency={"most_parameters": sizes[2]})
    search = make_search(table, data, tmp_path, chosen)
    archive = search.run()
    found = archive.student(search.problem.target_ms, search.problem.tolerance)
    assert cost_of_architecture(found.architecture, (64, 128)).parameters <= sizes[2]


def test_a_target_that_a_handful_of_networks_meets(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    reach = SearchProblem(table, settings().space, settings().latency).reach
    few = {"candidates": 24, "evolution": 0}
    chosen = settings(latency={"target_ms": reach.fastest_ms, "tolerance": 1e-6}, rank=few)
    search = make_search(table, data, tmp_path, chosen)
    archive = search.run()
    assert sum(item.kind == "random" for item in archive.items) < 24
    found = archive.student(search.problem.target_ms, 1e-6)
    assert found.ms == pytest.approx(reach.fastest_ms)


def test_classes_that_never_occur_do_not_count(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    search = make_search(table, data, tmp_path, settings())
    absent = search.scorer().absent
    labels = {int(value) for example in data.val for value in example.label.unique()}
    names = data.classes.names
    assert {names.index(name) for name in absent} == set(range(len(names))) - labels

    class Blank:
        split = "val"

        def __len__(self) -> int:
            return 2

        def arrays(self, index: int) -> Any:
            image, label = data.val.source.arrays(index)
            return image, label * 0 + IGNORE

        def name(self, index: int) -> str:
            return str(index)

    blank = replace(data, val=Split(Blank()))
    with pytest.raises(DataError, match="no validation image .* has a labelled pixel"):
        InheritedScorer(search.supernet, blank, Fabric(accelerator="cpu", devices=1))


@pytest.mark.parametrize("paths", [1, 2])
def test_drawn_paths_search_as_well(
    table: LatencyTable, data: SegmentationData, tmp_path: Path, paths: int
) -> None:
    chosen = settings(supernet={"paths": paths}).model_copy(update={"rank": None})
    search = make_search(table, data, tmp_path, chosen)
    before = [value.clone() for value in search.student.parameters()]
    archive = search.run()
    assert all(item.ranked is None for item in archive.items)
    assert [record.phase for record in search.records] == ["pretrain", "search"]
    for value, then in zip(search.student.parameters(), before, strict=True):
        assert value.isfinite().all() and not torch.equal(value, then)


def test_archives_of_earlier_versions_load() -> None:
    network = RANKED_SPACE.sample(0)
    stored = {
        "kind": "fitted", "epoch": 1, "scales": [8, 32], "architecture": network.to_json(),
        "latency_ms": 7.0, "accuracy": 0.3, "score": 0.3, "loss": 0.1,
    }  # fmt: skip
    archive = Archive()
    archive.restore(json.dumps([stored]))
    assert archive.items == [Archived("fitted", 1, (8, 32), network, 7.0, 0.3, 0.3, 0.1)]
    assert archive.items[0].placed == Placed(network, ())
