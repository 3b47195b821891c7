"""A whole search on a very small space: phases, checkpoints, resuming, gradients, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from small_runs import make_search, settings_with
from small_tables import INPUT_SIZE, make_table, plausible_ms

from latlut.errors import DataError, SpecError, TableError
from latlut.search.cosearch.problem import SearchProblem
from latlut.search.cosearch.search import Search
from latlut.search.cosearch.settings import SearchSettings
from latlut.search.data.dataset import SegmentationData
from latlut.search.data.opening import open_data
from latlut.search.runs.checkpoints import CheckpointError, load_checkpoint
from latlut.search.runs.setting_files import validated
from latlut.search.runs.step import DivergedError
from latlut.spaces import FasterSegSpace
from latlut.table.table import LatencyTable

pytestmark = pytest.mark.usefixtures("one_thread")

SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(4, 8))
PHASE = {"iterations": 2, "batch": 2, "crop": [24, 40], "lr": 0.02}
SETTINGS: dict[str, Any] = {
    "data": {"image_size": [32, 64], "train_images": 8, "validation_images": 2},
    "pretrain": {"epochs": 1, **PHASE},
    "search": {"epochs": 2, **PHASE},
    "architecture": {"lr": 0.05},
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LatencyTable]:
    path = tmp_path_factory.mktemp("searching") / "table.db"
    specs = [*SPACE.op_specs(INPUT_SIZE), *replace(SPACE, branches=1).op_specs(INPUT_SIZE)]
    with make_table(path, specs, plausible_ms, space=SPACE) as made:
        yield made


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return open_data("street-scenes", size=(32, 64), counts=(8, 2, 0))


def settings(**groups: Any) -> SearchSettings:
    return settings_with(SearchSettings, SETTINGS, groups)


def state_of(search: Search) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part in ("supernet", "teacher", "student")
        for name, value in getattr(search, part).state_dict().items()
    }


def test_it_finds_a_student_at_the_target_and_a_teacher(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    search = make_search(table, data, tmp_path, settings())
    archive = search.run()
    problem = search.problem
    student = archive.student(problem.target_ms, problem.tolerance)
    assert abs(student.latency_ms / problem.target_ms - 1) <= 0.02
    assert student.latency_ms == pytest.approx(problem.price(student.architecture))
    assert student.architecture.stem_width == 4
    teacher = archive.teacher()
    assert teacher.epoch == 1
    widths = {cell.width for branch in teacher.architecture.branches for cell in branch.cells}
    assert widths == {12}
    assert [(r.phase, r.epoch) for r in search.records] == [
        ("pretrain", 0), ("search", 0), ("search", 1),
    ]  # fmt: skip
    last = search.records[-1]
    assert set(last.miou) == {"8+16", "8+32", "16+32"}
    assert all(0 <= value <= 1 for value in last.miou.values())
    assert last.lambda_per_ms is not None and last.lambda_per_ms > 0


class Killed(BaseException):
    """Stands for a signal: nothing of the search catches it."""


@pytest.mark.parametrize("stop_at", [("pretrain", 0, 2), ("search", 0, 1), ("search", 1, 2)])
def test_a_killed_run_resumes_to_the_same_bits(
    table: LatencyTable, data: SegmentationData, tmp_path: Path, stop_at: tuple[str, int, int]
) -> None:
    chosen = settings(latency={"sampling": "gumbel"})
    whole = make_search(table, data, tmp_path / "whole", chosen)
    whole.run()

    def killer(phase: str, epoch: int, step: int, steps: int, loss: float) -> None:
        if (phase, epoch, step) == stop_at:
            raise Killed

    with pytest.raises(Killed):
        make_search(table, data, tmp_path / "killed", chosen, on_step=killer).run()
    again = make_search(table, data, tmp_path / "killed", chosen)
    again.run()
    expected, found = state_of(whole), state_of(again)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert again.archive.to_json() == whole.archive.to_json()
    assert again.controller == whole.controller
    strip = [{**record.to_dict(), "seconds": 0} for record in again.records]
    assert strip == [{**record.to_dict(), "seconds": 0} for record in whole.records]


def test_the_seed_decides_everything(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    searches = []
    for number, seed in enumerate((3, 3, 4)):
        chosen = validated(SearchSettings, {**SETTINGS, "seed": seed}, "the test")
        searches.append(make_search(table, data, tmp_path / str(number), chosen))
        searches[-1].run()
    same, other = (
        all(torch.equal(value, state_of(found)[name]) for name, value in state_of(first).items())
        for first, found in (searches[:2], searches[1:])
    )
    assert same and not other


def test_neither_step_leaves_gradients_in_the_other(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    search = make_search(table, data, tmp_path, settings())
    weights, architecture = (half.epoch(0) for half in search.halves("search"))
    optimizer = search._weight_optimizer(search.settings.search)
    before = {name: value.clone() for name, value in search.student.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    search._weight_step("search", weights, optimizer, generator, float)
    assert all(parameter.grad is None for parameter in search.student.parameters())
    assert all(torch.equal(value, before[n]) for n, value in search.student.named_parameters())
    used = [parameter for parameter in search.supernet.parameters() if parameter.grad is not None]
    assert len(used) > 0.5 * len(list(search.supernet.parameters()))

    weights_before = [parameter.clone() for parameter in search.supernet.parameters()]
    optimizer.zero_grad()
    search._architecture_step(architecture, generator, float)
    assert all(parameter.grad is None for parameter in search.supernet.parameters())
    assert all(p.requires_grad for p in search.supernet.parameters())
    pairs = zip(search.supernet.parameters(), weights_before, strict=True)
    assert all(torch.equal(now, then) for now, then in pairs)
    for name, value in search.student.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, name
        assert not torch.equal(value, before[name])


def test_the_penalty_reaches_the_student_alone(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    gradients = {}
    for strength in (0.0, 50.0):
        search = make_search(table, data, tmp_path, settings(latency={"strength": strength}))
        batches = search.halves("search")[1].epoch(0)
        search._architecture_step(batches, torch.Generator().manual_seed(0), float)
        gradients[strength] = [
            {name: value.grad for name, value in relaxed.named_parameters()}
            for relaxed in (search.teacher, search.student)
        ]
    for name, free in gradients[0.0][0].items():
        assert free is None or torch.equal(free, gradients[50.0][0][name]), name
    for name, free in gradients[0.0][1].items():
        assert not torch.equal(free, gradients[50.0][1][name]), name


def test_a_heavy_penalty_makes_the_student_faster(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    found = {}
    for strength in (0.0, 50.0):
        fixed = {"strength": strength, "proportional": 0, "integral": 0, "weights": "gradient"}
        chosen = settings(latency=fixed)
        found[strength] = make_search(table, data, tmp_path / str(strength), chosen)
        found[strength].run()
    with torch.no_grad():
        expected = [
            float(search.problem.latency(search.student).expected_ms) for search in found.values()
        ]
    assert expected[1] < expected[0]


def test_a_loss_that_is_not_finite_stops_and_names_the_batch(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    def spoil(phase: str, epoch: int, step: int, steps: int, loss: float) -> None:
        if (phase, epoch, step) == ("search", 0, 1):
            with torch.no_grad():
                next(iter(search.supernet.parameters())).fill_(float("nan"))

    search = make_search(table, data, tmp_path, settings(), on_step=spoil)
    with pytest.raises(DivergedError) as caught:
        search.run()
    text = str(caught.value)
    assert "search, epoch 1, step 2" in text
    assert "train" in text and "last.pt" in text
    kept = load_checkpoint(tmp_path / "checkpoints" / "last.pt", "search")
    assert (kept["phase"], kept["epoch"]) == ("pretrain", 1)
    assert all(
        value.isfinite().all() for value in kept["supernet"].values() if value.is_floating_point()
    )


def test_a_checkpoint_of_another_space_is_refused(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    quick = settings(pretrain={"epochs": 1}, search={"epochs": 0})
    make_search(table, data, tmp_path, quick).run()
    other = settings(space={"layers": 5})
    with pytest.raises(CheckpointError, match="of another space"):
        make_search(table, data, tmp_path, other).run()


def test_a_target_out_of_reach_is_refused_with_the_range(table: LatencyTable) -> None:
    for target_ms, word in ((1e-3, "faster"), (1e3, "slower")):
        chosen = settings(latency={"target_ms": target_ms})
        with pytest.raises(SpecError, match=rf"{word} than any.* to .* ms can be reached"):
            SearchProblem(table, chosen.space, chosen.latency)
    with pytest.raises(SpecError, match="width 6 was asked for"):
        SearchProblem(table, settings(space={"widths": [6]}).space, settings().latency)


@pytest.mark.parametrize(
    "space", [{"branches": 1}, {"widths": [8]}, {"branches": 1, "widths": [4]}]
)
def test_one_branch_and_fixed_widths(
    table: LatencyTable, data: SegmentationData, tmp_path: Path, space: dict[str, Any]
) -> None:
    search = make_search(table, data, tmp_path, settings(space=space, search={"epochs": 1}))
    archive = search.run()
    problem = search.problem
    networks = [item.architecture for item in archive.items if item.kind == "derived"]
    for network in networks:
        assert len(network.branches) == space.get("branches", 2)
        if "widths" in space:
            inner = {cell.width for branch in network.branches for cell in branch.cells[:-1]}
            assert inner <= set(space["widths"])
    assert set(problem.branch_sets) == {item.scales for item in archive.items}


def test_everything_that_is_stored_is_plain(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    search = make_search(table, data, tmp_path, settings(search={"epochs": 1}))
    search.run()
    assert json.loads(json.dumps([record.to_dict() for record in search.records]))
    state = load_checkpoint(tmp_path / "checkpoints" / "last.pt", "search")
    assert state["kind"] == "search"


def test_an_imported_table_is_searched_at_a_size_that_is_named(tmp_path: Path) -> None:
    """As the authors' table: FasterSeg's space, no run that says so, no upsampling of logits."""
    space = FasterSegSpace()
    specs = [s for s in space.op_specs(INPUT_SIZE) if s.kind != "upsample"]
    with make_table(tmp_path / "imported.db", specs, plausible_ms) as table:
        with pytest.raises(TableError, match="--input 1024x2048"):
            SearchProblem(table, settings().space, settings().latency)
        problem = SearchProblem(
            table, settings().space, settings(latency={"input_size": INPUT_SIZE}).latency
        )
    assert problem.space == space
    assert [spec.kind for spec in problem.unpriced] == ["upsample"]
    assert problem.reach.fastest_ms < problem.target_ms < problem.reach.slowest_ms


def test_half_precision_channels_last_and_accumulation(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    phase = {"iterations": 1, "batch": 2, "accumulate": 2, "epochs": 1}
    values = {
        **SETTINGS,
        "precision": "bf16-mixed",
        "is_channels_last": True,
        "pretrain": {**SETTINGS["pretrain"], **phase},
        "search": {**SETTINGS["search"], **phase},
    }
    chosen = validated(SearchSettings, values, "the test")
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    search = make_search(table, data, tmp_path, chosen, fabric=fabric)
    seen = []
    search.on_step = lambda phase, epoch, step, steps, loss: seen.append((phase, step, steps))
    search.run()
    assert seen == [("pretrain", 1, 1), ("search", 1, 1)]
    assert all(value.dtype == torch.float32 for value in search.supernet.parameters())
    assert all(value.isfinite().all() for value in search.supernet.parameters())


def test_more_batches_to_accumulate_than_there_are(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    chosen = settings(pretrain={"iterations": None, "accumulate": 9})
    with pytest.raises(DataError, match="accumulate fewer"):
        make_search(table, data, tmp_path, chosen).run()


def test_crops_that_cannot_be_normalised_are_refused(
    table: LatencyTable, data: SegmentationData, tmp_path: Path
) -> None:
    chosen = settings(pretrain={"batch": 1})
    with pytest.raises(SpecError, match="larger batch or crop"):
        make_search(table, data, tmp_path, chosen).run()
