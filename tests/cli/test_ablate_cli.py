"""latlut ablate as it is typed: what it trains, going on, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from small_tables import INPUT_SIZE, ablation_table

from latlut.cli import main
from latlut.pricing.estimator import estimate
from latlut.search.cosearch.ablation import STRATEGIES, pruned_teacher
from latlut.search.networks.cost import cost_of_architecture
from latlut.search.networks.model_files import load_model
from latlut.spaces import Architecture, FasterSegSpace
from latlut.table.table import LatencyTable

SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(8,))
SHORT = [
    "--accelerator", "cpu", "--threads", "1", "--seeds", "3",
    *(part for setting in (
        "data.image_size=[32, 64]", "data.train_images=8", "data.validation_images=2",
        "pretrain.epochs=1", "pretrain.iterations=1", "pretrain.batch=2", "pretrain.crop=[24, 40]",
        "search.epochs=1", "search.iterations=1", "search.batch=2", "search.crop=[24, 40]",
        "rank.epochs=1", "rank.iterations=1", "rank.batch=2", "rank.crop=[24, 40]",
        "rank.candidates=2", "rank.evolution=1",
    ) for part in ("--search-set", setting)),
    *(part for setting in (
        "data.image_size=[32, 64]", "data.train_images=4", "data.validation_images=2",
        "schedule.epochs=1", "schedule.batch=2", "schedule.crop=[32, 48]",
    ) for part in ("--train-set", setting)),
]  # fmt: skip


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ablation_table(tmp_path_factory.mktemp("table") / "table.db", SPACE)


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """--threads stays with this test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ablate(table_path: Path, folder: Path, *more: str) -> Result:
    words = ["ablate", "--table", str(table_path), "--run", str(folder), *SHORT, *more]
    return CliRunner().invoke(main, words)


@pytest.fixture(scope="module")
def done(table_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A whole ablation of one seed, as short as it can be."""
    before = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("ablation") / "run"
    result = ablate(table_path, folder)
    torch.set_num_threads(before)
    assert result.exit_code == 0, result.output
    return folder, result


def test_an_ablation_trains_the_six_networks(
    done: tuple[Path, Result], table: LatencyTable
) -> None:
    folder, result = done
    here = folder / "seed-3"
    networks: dict[str, Architecture] = {}
    for strategy in STRATEGIES:
        _, facts = load_model(here / strategy.name)
        assert isinstance(facts.architecture, Architecture)
        networks[strategy.name] = facts.architecture
        facts_of_run = json.loads((here / strategy.name / "run.json").read_text())
        assert (facts_of_run["teacher"] is not None) == strategy.is_taught
        settings = json.loads((here / strategy.name / "settings.json").read_text())
        assert settings["seed"] == 3
        assert strategy.title in result.stdout
    assert networks["distilled"] == networks["student"]
    assert networks["pruned-teacher"] == pruned_teacher(networks["teacher"], 4, 8)
    assert len(networks["one-branch"].branches) == 1
    assert len(networks["two-branches"].branches) == len(networks["student"].branches) == 2
    for name in ("one-branch", "two-branches"):
        for branch in networks[name].branches:
            assert {cell.width for cell in branch.cells} == {8}
    with (folder / "ablation.csv").open(encoding="utf-8") as file:
        rows = {row["strategy"]: row for row in csv.DictReader(file)}
    assert list(rows) == [strategy.name for strategy in STRATEGIES]
    for strategy in STRATEGIES:
        row, network = rows[strategy.name], networks[strategy.name]
        # prices and counts are of the table's number of classes
        search = here / f"search-{strategy.search}"
        own = Architecture.load(search / "student.json")
        if strategy.network != "student":
            own = Architecture.load(search / "teacher.json")
        if strategy.network == "pruned":
            own = pruned_teacher(own, 4, 8)
        assert own.branches == network.branches
        priced = estimate(own.op_specs(INPUT_SIZE), table, allow_missing=True)
        if priced.is_complete:
            assert float(row["latency_ms"]) == pytest.approx(priced.ms)
            assert float(row["fps"]) == pytest.approx(1000 / priced.ms)
        else:  # the teacher's ends are wider than what the table holds
            assert strategy.network == "teacher"
            assert (row["latency_ms"], row["fps"]) == ("", "")
        cost = cost_of_architecture(own, INPUT_SIZE)
        assert (int(row["macs"]), int(row["parameters"])) == (cost.macs, cost.parameters)
        score = json.loads((here / strategy.name / "result.json").read_text())
        assert float(row["miou_percent"]) == pytest.approx(100 * score["last_mean_iou"])
    assert "too few seeds for an interval" in result.stdout
    assert (folder / "ablation.png").stat().st_size > 1000


def finishes(folder: Path) -> dict[str, float]:
    """When each search and training was last written."""
    return {
        str(path.parent.relative_to(folder)): path.stat().st_mtime
        for path in sorted(folder.glob("seed-*/*/result.json"))
    }


def test_the_same_command_does_what_is_left_and_another_is_refused(
    done: tuple[Path, Result], table_path: Path
) -> None:
    folder, _ = done
    before, rows = finishes(folder), (folder / "ablation.csv").read_text()
    assert len(before) == 9
    (folder / "seed-3" / "distilled" / "result.json").unlink()  # stopped before it was written
    again = ablate(table_path, folder, "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["results"][-1]["strategy"] == "distilled"
    after = finishes(folder)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"seed-3/distilled"}
    columns = rows.splitlines()[0].split(",")
    scores = columns.index("miou_percent")
    assert [line.split(",")[scores] for line in rows.splitlines()] == [
        line.split(",")[scores] for line in (folder / "ablation.csv").read_text().splitlines()
    ]
    for more, word in (
        (("--train-set", "schedule.lr=0.1"), "training.schedule.lr: 0.05 there, 0.1 asked for"),
        (("--search-set", "search.epochs=2"), "search.search.epochs: 1 there, 2 asked for"),
        (("--fixed-width", "4"), "fixed_width: 8 there, 4 asked for"),
    ):
        other = ablate(table_path, folder, *more)
        assert other.exit_code == 2 and word in other.output, other.output
    assert finishes(folder) == after


def test_a_search_or_training_that_was_changed_by_hand_is_refused(
    done: tuple[Path, Result], table_path: Path
) -> None:
    folder, _ = done
    path = folder / "seed-3" / "search-full" / "settings.json"
    before = path.read_text()
    path.write_text(before.replace('"seed": 3', '"seed": 4'))
    other = ablate(table_path, folder)
    path.write_text(before)
    assert other.exit_code == 2 and "seed: 4 there, 3 asked for" in other.output
    path = folder / "seed-3" / "search-two-branches" / "student.json"
    before = path.read_text()
    path.write_text(before.replace('"num_classes": 19', '"num_classes": 18'))
    other = ablate(table_path, folder)
    path.write_text(before)
    assert other.exit_code == 2 and "network.num_classes" in other.output, other.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--seeds", "0,x"], "names no seeds"),
        (["--target-ms", "0.0001"], "can be reached"),
        (["--train-preset", "tinny"], "did you mean 'tiny'"),
        (["--data", "cityscapes:nowhere"], "no such folder"),
        (["--train-set", "schedule.epoch=3"], "schedule.epoch"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    table_path: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    result = ablate(table_path, tmp_path / "run", *arguments)
    assert result.exit_code == 2 and expected in result.output, result.output
    assert not (tmp_path / "run").exists()


def test_one_process_alone(
    table_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    result = ablate(table_path, tmp_path / "run")
    assert result.exit_code == 2 and "one process" in result.output
    assert not (tmp_path / "run").exists()
