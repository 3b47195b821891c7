"""The commands of the campaign: what each starts from, and what then lies in its folder.

A folder's content is a ``Counter`` of facts, anything that can be hashed and stays the same when
the command is repeated: what is measured is named by op spec and pass, what was there before by
its value too. So a fact that is missing was lost, one too many was doubled. Searches and trainings
come to the same bits, so that every number of theirs is a fact.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from old_tables import make_old_table
from small_tables import make_table, plausible_ms, space_table

from latlut.engines import engine_class
from latlut.measure.sweep_settings import identity_of
from latlut.opspec import OpSpec
from latlut.spaces import Architecture, Branch, Cell, FasterSegSpace
from latlut.table import recording, validations
from latlut.table.identity import Identity
from latlut.table.import_export import import_file
from latlut.table.summary import summarise
from latlut.table.table import LatencyTable

Facts = Counter[Hashable]

#: What the commands import; done once, in the process that forks them.
MODULES = (
    "latlut.cli.table", "latlut.cli.profile", "latlut.cli.validate", "latlut.cli.calibrate",
    "latlut.table.import_export", "latlut.table.merging",
    "latlut.engines.onnxruntime", "latlut.measure.profile", "latlut.measure.plans",
    "latlut.validation.validate", "latlut.validation.fitting", "latlut.validation.explain",
    "latlut.reports.scatter",
    "latlut.cli.residuals", "latlut.cli.profile_output", "matplotlib.backends.backend_agg",
    "torch.onnx", "pandas", "scipy.special", "scipy.optimize",
    "scipy.stats", "faults.measuring",
    "latlut.cli.search", "latlut.cli.train",
    "latlut.search.cosearch.run", "latlut.search.train.run",
    "latlut.search.networks.finding", "latlut.reports.architecture", "latlut.reports.trajectory",
    "torch.utils.tensorboard",
)  # fmt: skip
COMMAND, MEASURING = "faults.forking:command", "faults.measuring:command"

SPACE = FasterSegSpace(layers=4, base_width=3, widths=(4, 8), stem_head_widths=(4, 8))
INPUT_SIZE = (64, 128)
IDENTITY = Identity("cpu", "x", "e", "1")
ROWS = [f"conv 4->4 stride 1 at 8x{8 + row}" for row in range(24)]
SWEPT = [f"{kind} 4->4 stride 1 at 8x16" for kind in ("conv", "skip", "conv_2x", "zoomed_conv")]


@dataclass(frozen=True)
class Scenario:
    """A command that meets faults.

    Attributes:
        words: the command line.
        prepare: makes what is in the folder before.
        facts: what is in the folder; reads a copy.
        is_atomic: the folder's facts are those before or those after, at any time.
        call: what runs the words, see ``Injector.run``.
    """

    words: tuple[str, ...]
    prepare: Callable[[Path], None]
    facts: Callable[[Path], Facts]
    is_atomic: bool = True
    call: str = COMMAND


# ---- tables ----------------------------------------------------------------------------------


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Of a table's file, whichever schema it has; none where it is not there."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def entries(path: Path) -> Facts:
    """Entries and readings by their values, and runs that are recorded as running."""
    return Counter([
        *rows(path, "SELECT 'entry', key, latency_ms FROM entries"
              " JOIN op_specs ON op_specs.id = op_spec_id"),
        *rows(path, "SELECT 'reading', key, pass_index, reading_ms FROM measurements"
              " JOIN op_specs ON op_specs.id = op_spec_id JOIN passes ON passes.id = pass_id"),
        *rows(path, "SELECT 'failure', key FROM failures"
              " JOIN op_specs ON op_specs.id = op_spec_id"),
    ])  # fmt: skip


def _two_tables(folder: Path) -> None:
    for name, chosen in (("a", ROWS[:4]), ("b", ROWS[4:8]), ("new", ROWS[8:])):
        lines = [f"{key},{1 + number}" for number, key in enumerate(chosen)]
        file = folder / f"{name}.csv"
        file.write_text("\n".join(["op_spec,latency_ms", *lines]) + "\n")
        if name != "new":
            own = {field: value for field, value in IDENTITY.to_dict().items() if value != ""}
            import_file(file, folder / f"{name}.db", own)


def _old_table(folder: Path) -> None:
    make_old_table(folder / "old.db", IDENTITY, ROWS)


def _migrated(folder: Path) -> Facts:
    return entries(folder / "old.db") + Counter(
        rows(folder / "old.db", "SELECT 'step', name FROM _sqlite_migrations")
    )


# ---- measuring -------------------------------------------------------------------------------


def measured_identity() -> Identity:
    """What ONNX Runtime measures on one thread here."""
    return identity_of(engine_class("onnxruntime")(1, "fp32"), "cpu", statistic="p10")


def _begun_sweep(folder: Path) -> None:
    """A table in which the first op spec is measured, with a latency that no measuring gives."""
    with LatencyTable.create(folder / "table.db", measured_identity()) as table:
        ids = recording.add_op_specs(table, [OpSpec.parse(SWEPT[0])])
        run_id = recording.start_run(table, "profile", settings={}, environment={})
        for index in range(2):
            pass_id = recording.start_pass(table, run_id, index)
            recording.add_readings(table, pass_id, {ids[OpSpec.parse(SWEPT[0]).key]: 0.5})
        recording.end_run(table, run_id, "done")
        summarise(table)


def _swept(folder: Path) -> Facts:
    """Readings by op spec and pass; those of before by their value."""
    path = folder / "table.db"
    return Counter([
        *rows(path, "SELECT 'reading', key, pass_index, iif(reading_ms = 0.5, 0.5, NULL)"
              " FROM measurements JOIN op_specs ON op_specs.id = op_spec_id"
              " JOIN passes ON passes.id = pass_id"),
        *rows(path, "SELECT 'entry', key FROM entries JOIN op_specs ON op_specs.id = op_spec_id"),
        *rows(path, "SELECT 'failure', key FROM failures"
              " JOIN op_specs ON op_specs.id = op_spec_id"),
        *rows(path, "SELECT 'op spec', key FROM op_specs"),
    ])  # fmt: skip


def _measured_space(folder: Path) -> None:
    """A table that prices every network of the small space, and holds a validation of twelve."""
    make_table(
        folder / "table.db", SPACE.op_specs(INPUT_SIZE), plausible_ms, space=SPACE,
        identity=measured_identity(),
    ).close()  # fmt: skip
    with LatencyTable.open(folder / "table.db", is_writable=True) as table:
        networks = []
        for number, network in enumerate(SPACE.sample_many(12, 5)):
            ms = sum(plausible_ms(spec) for spec in network.op_specs(INPUT_SIZE, 1))
            taken_ms = 1.1 * ms + 0.01 * (number % 3)
            networks.append({
                "architecture": network.to_json(), "estimated_ms": ms, "plain_ms": ms,
                "measured_first_ms": taken_ms, "measured_second_ms": taken_ms, "readings": "{}",
            })  # fmt: skip
        validations.store(
            table, networks, seed=5, sampler="", settings="{}", environment="{}", agreement="{}",
            input_size=f"{INPUT_SIZE[0]}x{INPUT_SIZE[1]}", batch=1,
        )  # fmt: skip
        recording.end_run(table, 1, "done")


def _validated(folder: Path) -> Facts:
    """The validation of before and its networks; a new one that is whole, and whether repeated.

    Who repeats the command measures again, and has two validations.
    """
    path = folder / "table.db"
    found = entries(path) + Counter(
        rows(path, "SELECT position, architecture, measured_first_ms FROM validation_networks"
             " WHERE validation_id = 1")
    )  # fmt: skip
    new = rows(
        path,
        "SELECT networks = count(position), group_concat(readings) FROM validations"
        " LEFT JOIN validation_networks ON validation_id = validations.id"
        " WHERE validations.id > 1 GROUP BY validations.id",
    )
    found.update({("new", is_whole) for is_whole, _ in new})
    found.update(("again", text) for text, count in Counter(t for _, t in new).items() if count > 1)
    found.update(("plot",) for file in folder.glob("*.png") if file.stat().st_size)
    return found


def _calibrated(folder: Path) -> Facts:
    """Entries, validations and the calibration in force; a repetition makes the same again."""
    path = folder / "table.db"
    found = _validated(folder)
    found.update(rows(path, "SELECT model, scores FROM calibrations ORDER BY id DESC LIMIT 1"))
    found.update(set(rows(
        path, "SELECT number, architecture, is_fitted FROM calibration_networks"
    )))  # fmt: skip
    return found


# ---- searches and trainings ------------------------------------------------------------------


def _priced_space(folder: Path) -> None:
    space_table(folder / "table.db", SPACE, plausible_ms).close()


def _small_network(folder: Path) -> None:
    branch = Branch(16, (Cell("conv", 4, True), Cell("conv", 8)))
    Architecture(8, 8, (branch,), base_width=3).save(folder / "small.json")


def run_folder(folder: Path) -> Facts:
    """All that must come out the same, file by file, and the names of everything that lies there.

    The names of TensorBoard's files have the time in them.
    """
    found: Facts = entries(folder / "table.db")
    run = folder / "run"
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if name.startswith("tensorboard/") or path.is_dir() or name == "run.json":
            continue
        if name == "result.json":
            values = _without_times(json.loads(path.read_text()))
            found[name, json.dumps(values, sort_keys=True)] += 1
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                lines = [sorted(_without_times(row).items()) for row in csv.DictReader(file)]
            found.update((name, number, str(line)) for number, line in enumerate(lines))
        elif name == "checkpoints/last.pt":
            found.update(_numbers(torch.load(path, weights_only=True), name))
        else:
            found[name, None if path.suffix in (".pt", ".png") else path.read_bytes()] += 1
    return found


def _without_times(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in ("seconds", "finished_at")}


def _numbers(values: object, name: str) -> Iterator[Hashable]:
    """Tensors and numbers of a checkpoint with their places; times are left out."""
    if isinstance(values, torch.Tensor):
        yield name, values.numpy().tobytes()
    elif name.endswith("/records"):
        assert isinstance(values, str)
        yield name, str([_without_times(record) for record in json.loads(values)])
    elif isinstance(values, dict | list | tuple):
        for key, item in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _numbers(item, f"{name}/{key}")
    else:
        yield name, values


_SEARCHED = {
    "data.image_size": "[32, 64]", "data.train_images": 8, "data.validation_images": 2,
    "pretrain.epochs": 1, "pretrain.iterations": 1, "pretrain.batch": 2, "pretrain.crop": "[24,40]",
    "search.epochs": 1, "search.iterations": 1, "search.batch": 2, "search.crop": "[24, 40]",
    "rank.epochs": 1, "rank.iterations": 1, "rank.batch": 2, "rank.crop": "[24, 40]",
    "rank.candidates": 2, "rank.evolution": 1,
}  # fmt: skip
_TRAINED = {
    "data.image_size": "[32, 64]", "data.train_images": 4, "data.validation_images": 2,
    "schedule.epochs": 2, "schedule.batch": 2, "schedule.crop": "[32, 48]",
}  # fmt: skip
_RUN = ("--run", "run", "--threads", "1", "--accelerator", "cpu", "--quiet")


def _sets(values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(word for name, value in values.items() for word in ("--set", f"{name}={value}"))


_SET = tuple(
    f"--identity={pair}"
    for pair in ("target=cpu", "device_model=x", "engine=e", "engine_version=1")
)
_CPU = ("--cpu", "--engine", "onnxruntime", "--threads", "1", "--table", "table.db")

SCENARIOS: Mapping[str, Scenario] = {
    "creation": Scenario(
        ("table", "import", "new.csv", "--table", "new.db", *_SET),
        _two_tables, lambda folder: entries(folder / "new.db"),
    ),
    "import": Scenario(
        ("table", "import", "new.csv", "--table", "a.db", *_SET),
        _two_tables, lambda folder: entries(folder / "a.db"),
    ),
    "merge": Scenario(
        ("table", "merge", "a.db", "b.db"),
        _two_tables, lambda folder: entries(folder / "a.db") + entries(folder / "b.db"),
    ),
    "export": Scenario(
        ("table", "export", "a.db", "out.csv"),
        _two_tables,
        lambda folder: entries(folder / "a.db")
        + Counter(file.read_text() for file in folder.glob("out.csv")),
    ),
    "migration": Scenario(("calibrate", "--table", "old.db", "--forget"), _old_table, _migrated),
    "sweep": Scenario(
        ("profile", *_CPU, "--passes", "2", *(w for key in SWEPT for w in ("--op", key))),
        _begun_sweep, _swept, is_atomic=False, call=MEASURING,
    ),
    "validate": Scenario(
        ("validate", *_CPU, "--networks", "3", "--rounds", "1", "--explain", "0"),
        _measured_space, _validated, is_atomic=False, call=MEASURING,
    ),
    "calibrate": Scenario(
        ("calibrate", "--table", "table.db", "--networks", "10", "--force"),
        _measured_space, _calibrated,
    ),
    "search": Scenario(
        ("search", "--table", "table.db", *_RUN, *_sets(_SEARCHED)),
        _priced_space, run_folder, is_atomic=False,
    ),
    "train": Scenario(
        ("train", "--arch", "small.json", "--teacher", "none", *_RUN, *_sets(_TRAINED)),
        _small_network, run_folder, is_atomic=False,
    ),
}  # fmt: skip
