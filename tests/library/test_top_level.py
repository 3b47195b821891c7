"""``import latlut``: names wherever a command takes them, and what a notebook shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_tables import INPUT_SIZE, space_table

import latlut
from latlut import LatencyTable, OpSpec, estimate
from latlut.errors import MissingEntryError, SpecError, UnknownNameError
from latlut.measure.plans import load_plan
from latlut.measure.sweep_settings import SweepSettings
from latlut.measure.timing import TimingSettings
from latlut.spaces import FasterSegSpace
from latlut.spaces.shipped import find_architecture
from latlut.validation.validate import ValidationSettings

CONV = "conv 8->8 stride 1 at 16x16"
QUICK = TimingSettings(min_samples=4, max_samples=20, min_time_s=0.002, time_cap_s=0.01)
SPACE = FasterSegSpace(layers=3, widths=(4, 8), stem_head_widths=(8,))


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    space_table(tmp_path / "swept.db", SPACE).close()
    return tmp_path / "swept.db"


def test_import_loads_neither_torch_nor_pandas_and_shows_public_names_alone() -> None:
    program = (
        "import sys, latlut\n"
        "assert dir(latlut) == sorted(latlut.__all__), dir(latlut)\n"
        "latlut.OpSpec, latlut.LatlutError\n"
        "loaded = {'torch', 'pandas', 'onnxruntime', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert all(callable(getattr(latlut, n)) for n in latlut.__all__ if n != "__version__")


def test_names_are_what_the_objects_are() -> None:
    by_name = estimate("fasterseg-student", "1080ti")
    with LatencyTable.open("1080ti") as table:
        network = find_architecture("fasterseg-student")
        assert estimate(network, table) == by_name
        assert estimate(network.op_specs((1024, 2048)), table) == by_name
        entry = next(iter(table))
        assert entry.key in table and entry.spec in table
        assert table.lookup(entry.key) == entry
        assert estimate(entry.key, table).ms == estimate([entry.spec], table).ms > 0
    with pytest.raises(UnknownNameError, match="did you mean 'fasterseg-student'"):
        estimate("fasterseg-studen", "1080ti")


def test_the_size_is_the_tables_own(swept: Path) -> None:
    (network,) = SPACE.sample_many(1, seed=0)
    with LatencyTable.open(swept) as table:
        own = estimate(network, table)
        assert own.is_complete and own.ms == estimate(network.op_specs(INPUT_SIZE), table).ms
        other = estimate(network, table, input_size=(32, 64), allow_missing=True)
        assert not other.is_complete
        with pytest.raises(SpecError, match="their own size"):
            estimate([OpSpec.parse(CONV)], table, batch=2)


def test_options_that_an_operator_does_not_have_are_refused(swept: Path) -> None:
    wrong = OpSpec("conv", (8, 16, 16), 8, kernal_size=5)
    with LatencyTable.open(swept) as table:
        for ask in (table.lookup, lambda spec: estimate([spec], table)):
            with pytest.raises(SpecError, match="did you mean 'kernel_size'"):
                ask(wrong)
        with pytest.raises(MissingEntryError):
            table.lookup("conv 8->8 stride 1 at 16x16 kernel_size=5")


def test_reprs_are_one_line_and_say_the_number(swept: Path) -> None:
    (network,) = SPACE.sample_many(1, seed=0)
    with LatencyTable.open(swept) as table:
        found = estimate(network, table)
        things = [table, next(iter(table)), OpSpec.parse(CONV), network, found, load_plan("tiny")]
        for thing in things:
            assert "\n" not in repr(thing) and len(repr(thing)) < 200, repr(thing)
        assert f"{found.ms:.4g} ms" in repr(found)
        assert f"{len(table)} entries" in repr(table)
        assert eval(repr(OpSpec.parse(CONV))) == OpSpec.parse(CONV)
    assert "closed" in repr(table)


def test_an_estimate_is_a_frame_and_a_page(swept: Path) -> None:
    (network,) = SPACE.sample_many(1, seed=0)
    with LatencyTable.open(swept) as table:
        found = estimate(network, table)
        page = table._repr_html_()
    frame = found.frame()
    assert frame["total_ms"].sum() == pytest.approx(found.ms)
    assert frame["share"].sum() == pytest.approx(1)
    assert list(frame["op_spec"]) == [term.spec.key for term in found.terms]
    for shown in (page, found._repr_html_()):
        assert "<table" in shown and "-&gt;" in shown and "->" not in shown


def test_operators_are_measured_and_continued_by_one_call(tmp_path: Path) -> None:
    path, settings = tmp_path / "own.db", SweepSettings(timing=QUICK, passes=1)
    assert latlut.profile(CONV, path, settings=settings).measured == 1
    again = latlut.profile([CONV, "conv 8->16 stride 2 at 16x16"], path, settings=settings)
    assert (again.measured, again.reused) == (1, 1)
    with LatencyTable.open(path) as table:
        assert CONV in table and table.identity.engine == "onnxruntime"


def test_a_module_is_measured_by_one_call() -> None:
    from torch import nn

    from latlut.measure.bench import BenchSettings

    settings = BenchSettings(passes=2, timing=QUICK)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).eval()
    found = latlut.bench(network, input_size=(16, 16), settings=settings)
    assert found.latency_ms > 0 and found.engine["name"] == "onnxruntime"
    assert found.difference is not None and found.difference < 1e-4
    assert f"{found.latency_ms:.4g} ms" in repr(found)


@pytest.mark.slow
def test_a_table_is_made_and_validated_by_two_calls(tmp_path: Path) -> None:
    plan = tmp_path / "small.toml"
    plan.write_text(
        'format = 1\ninput = "32x64"\n[space]\nname = "fasterseg"\nlayers = 3\n'
        "widths = [4]\nstem_head_widths = [4]\n"
    )
    path = tmp_path / "small.db"
    done = latlut.profile(plan, path, settings=SweepSettings(timing=QUICK, passes=1))
    assert done.status == "done" and not done.failed
    found = latlut.validate(
        path, networks=4, settings=ValidationSettings(rounds=1, timing=QUICK, group=2)
    )
    assert found.agreement.n == 4 and "4 networks" in repr(found)
    with LatencyTable.open(path) as table:
        assert table.rows("SELECT networks FROM validations") == [{"networks": 4}]
