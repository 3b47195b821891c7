"""A search and an ablation's part of it from Python: no command, a listener, a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_engine import FakeEngine
from small_tables import ablation_table

import latlut
from latlut.cli.front import measure_front
from latlut.errors import LatlutError
from latlut.search.cosearch.ablation import STRATEGIES
from latlut.search.cosearch.ablation_run import run_ablation
from latlut.search.cosearch.folder import Found
from latlut.search.cosearch.records import EpochRecord
from latlut.search.cosearch.run import run_search
from latlut.search.cosearch.settings import SearchSettings, load_settings
from latlut.search.runs.listening import RunListener
from latlut.search.train.settings import load_train_settings
from latlut.spaces import Architecture, FasterSegSpace
from latlut.table.table import LatencyTable

SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(8,))
DATA = {"data.image_size": (32, 64), "data.train_images": 8, "data.validation_images": 2}
PHASE = {"epochs": 1, "iterations": 1, "batch": 2, "crop": (24, 40)}


@pytest.fixture(scope="module")
def table_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ablation_table(tmp_path_factory.mktemp("table") / "table.db", SPACE)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings() -> SearchSettings:
    phases = {f"{name}.{key}": v for name in ("pretrain", "search") for key, v in PHASE.items()}
    return load_settings("tiny", {**DATA, **phases, "rank": None})


def test_a_search_in_a_few_lines(table: LatencyTable, tmp_path: Path) -> None:
    found = run_search(table, settings(), tmp_path / "run")
    assert found is not None
    assert abs(found.student.latency_ms / found.target_ms - 1) <= 0.02
    assert Architecture.load(tmp_path / "run" / "student.json") == found.student.architecture
    assert [record.phase for record in found.records] == ["pretrain", "search"]
    assert not list((tmp_path / "run").glob("*.png"))  # pictures are the caller's


def test_the_function_of_the_top_level_takes_files_and_names(
    table_path: Path, tmp_path: Path
) -> None:
    phases = {f"{name}.{key}": v for name in ("pretrain", "search") for key, v in PHASE.items()}
    overrides = {**DATA, **phases, "rank": None}
    with LatencyTable.open(table_path) as table:
        target_ms = latlut.run_search(
            table, folder=tmp_path / "free", overrides=overrides
        ).target_ms
    found = latlut.run_search(
        str(table_path), 1.05 * target_ms, folder=tmp_path / "run", overrides=overrides
    )
    assert found is not None and found.target_ms == pytest.approx(1.05 * target_ms)
    assert abs(found.student.latency_ms / found.target_ms - 1) <= 0.02
    with pytest.raises(LatlutError, match="nowhere"):
        latlut.run_search("nowhere", folder=tmp_path / "other")


def test_a_front_is_measured_and_each_student_met_or_missed(
    table: LatencyTable, tmp_path: Path
) -> None:
    found = run_search(table, settings(), tmp_path / "run")
    assert found is not None
    lines = measure_front(found, table, FakeEngine(), is_quiet=True)
    assert len(lines) == len(found.members) == 1
    head = f"target {found.target_ms:.3f} ms, table {found.student.ms:.3f} ms, measured "
    assert lines[0].startswith(head)
    (entry,) = json.loads((tmp_path / "run" / "result.json").read_text())["front"]
    is_met = entry["measured_ms"] <= 1.02 * found.target_ms
    assert lines[0].endswith(": met") is is_met
    assert ": missed by" not in lines[0] if is_met else ": missed by" in lines[0]


def test_the_listener_is_told_and_a_stopped_search_goes_on(
    table: LatencyTable, tmp_path: Path
) -> None:
    remarks: list[str] = []
    steps: list[tuple[str, int, int]] = []
    records: list[EpochRecord] = []
    results: list[Found] = []
    ended: list[bool] = []

    def stop(name: str, step: int, steps_of_epoch: int, loss: float) -> None:
        steps.append((name, step, steps_of_epoch))
        if name == "search 1":
            raise KeyboardInterrupt

    def listener(step: Any) -> RunListener:
        return RunListener(
            remark=remarks.append,
            step=step,
            epoch=records.append,
            ended=lambda: ended.append(True),
            searched=results.append,
        )

    def here() -> dict[str, object]:
        return {"place": "here"}

    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_search(table, settings(), folder, listener=listener(stop), environment=here)
    assert steps == [("pretrain 1", 1, 1), ("search 1", 1, 1)]
    assert remarks[0].startswith(f"searching into {folder}: 4 layers")
    assert remarks[-1] == f"stopped; the same command continues from the last epoch in {folder}"
    assert ended == [True] and results == [] and [r.phase for r in records] == ["pretrain"]
    assert json.loads((folder / "run.json").read_text())["environment"] == {"place": "here"}
    found = run_search(table, settings(), folder, listener=listener(lambda *_: None))
    assert results == [found] and [r.phase for r in records] == ["pretrain", "search"]
    assert any(text.startswith(f"going on with {folder}") for text in remarks)
    assert json.loads((folder / "run.json").read_text())["environment"] == {"place": "here"}


def test_an_ablation_in_a_few_lines(table: LatencyTable, tmp_path: Path) -> None:
    training = load_train_settings(
        "tiny", {**DATA, "schedule.epochs": 1, "schedule.batch": 2, "schedule.crop": (32, 48)}
    )
    remarks: list[str] = []
    listener = RunListener(remark=remarks.append)
    found = run_ablation(table, settings(), training, tmp_path, [1], listener=listener)
    assert [item.strategy for item in found.results] == [item.name for item in STRATEGIES]
    assert (tmp_path / "ablation.csv").exists() and not (tmp_path / "ablation.png").exists()
    remarks.clear()
    again = run_ablation(table, settings(), training, tmp_path, [1], listener=listener)
    assert again == found
    assert sum(text.endswith("is finished") for text in remarks) == 9
