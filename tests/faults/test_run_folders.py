"""Searches and trainings that are killed, or whose disk fails, at any change of their run folder.

The same command continues afterwards, is never refused, and comes to the same as a run that nothing
happened to; what the killed one left half written is gone.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.injecting import DISK_FAULTS, KILLS, Fault, Injector, case_count
from small_tables import plausible_ms, space_table

from latlut.spaces import Architecture, Branch, Cell, FasterSegSpace

SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(4, 8))
SEARCHED = {
    "data.image_size": "[32, 64]", "data.train_images": 8, "data.validation_images": 2,
    "pretrain.epochs": 1, "pretrain.iterations": 1, "pretrain.batch": 2, "pretrain.crop": "[24,40]",
    "search.epochs": 1, "search.iterations": 1, "search.batch": 2, "search.crop": "[24, 40]",
    "rank.epochs": 1, "rank.iterations": 1, "rank.batch": 2, "rank.crop": "[24, 40]",
    "rank.candidates": 2, "rank.evolution": 1,
}  # fmt: skip
TRAINED = {
    "data.image_size": "[32, 64]", "data.train_images": 4, "data.validation_images": 2,
    "schedule.epochs": 2, "schedule.batch": 2, "schedule.crop": "[32, 48]",
}  # fmt: skip
NETWORK = Architecture(8, 8, (Branch(16, (Cell("conv", 4, True), Cell("conv", 8))),), base_width=3)
COMMON = ["--run", "watched/run", "--threads", "1", "--accelerator", "cpu", "--quiet"]


def sets(values: dict[str, object]) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


COMMANDS = {
    "search": ["search", "--table", "table.db", *COMMON, *sets(SEARCHED)],
    "train": ["train", "--arch", "small.json", "--teacher", "none", *COMMON, *sets(TRAINED)],
}


@pytest.fixture(scope="module")
def injector() -> Iterator[Injector]:
    modules = [
        "latlut.cli.search", "latlut.cli.train", "latlut.engines.onnxruntime",
        "latlut.search.cosearch.run", "latlut.search.train.run", "latlut.reports.architecture",
        "latlut.reports.trajectory", "latlut.search.networks.finding", "torch.utils.tensorboard",
    ]  # fmt: skip
    with Injector(modules) as started:
        yield started


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder that the run's is in, beside what the commands read."""
    space_table(tmp_path / "table.db", SPACE, plausible_ms).close()
    NETWORK.save(tmp_path / "small.json")
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ("seconds", "finished_at")}


def content(run: Path) -> dict[str, object]:
    """All that must come out the same, by file; names of everything that lies there."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if name.startswith("tensorboard/") or path.is_dir() or name == "run.json":
            continue  # names with the time in them
        if name == "result.json":
            found[name] = without_times(json.loads(path.read_text()))
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                found[name] = [without_times(dict(row)) for row in csv.DictReader(file)]
        elif name == "checkpoints/last.pt":
            found[name] = flat(torch.load(path, weights_only=True))
        else:
            found[name] = None if path.suffix in (".pt", ".png") else path.read_bytes()
    return found


def flat(values: object, name: str = "") -> dict[str, object]:
    """Tensors and numbers of a checkpoint by their place; times are left out."""
    if isinstance(values, torch.Tensor):
        return {name: values.numpy().tobytes()}
    if name == "/records":
        assert isinstance(values, str)
        return {name: [without_times(record) for record in json.loads(values)]}
    if not isinstance(values, dict | list | tuple):
        return {name: values}
    items = values.items() if isinstance(values, dict) else enumerate(values)
    return {k: v for key, item in items for k, v in flat(item, f"{name}/{key}").items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("search", marks=pytest.mark.long), "train"])
@pytest.mark.parametrize(
    "faults", [KILLS, DISK_FAULTS, (Fault.INTERRUPT,)], ids=["killed", "disk", "ctrl-c"]
)
def test_the_same_command_goes_on_and_comes_to_the_same(
    injector: Injector, place: Path, kind: str, faults: Sequence[Fault]
) -> None:
    words, run = COMMANDS[kind], place / "run"
    undisturbed = injector.run(words, place, cwd=place.parent)
    assert undisturbed.code == 0, undisturbed.output
    expected = content(run)
    shutil.rmtree(run)
    met = 0
    for fault, at, found in injector.sweep(words, place, faults, case_count(2), cwd=place.parent):
        case = f"{fault.name} at change {at}: exit code {found.code}\n{found.output}"
        if fault in KILLS:
            assert found.was_killed or fault is Fault.TORN, case  # which meets writes alone
        else:
            assert found.code in ((0, 130) if fault is Fault.INTERRUPT else (0, 2)), case
        assert not found.has_traceback, case
        met += found.code != 0
        again = injector.run(words, place, cwd=place.parent)
        assert again.code == 0, f"{case}\nthen {again.output}"
        assert content(run) == expected, case
    assert met >= len(faults)
